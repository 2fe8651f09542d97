"""The command line: `mongosplit VERB [MIGRATION|RUN]`, its exit codes, and how errors are said."""

from __future__ import annotations

from collections.abc import Sequence

import click

from mongosplit.errors import MongosplitError
from producer import (
    console,
    verbs_compat,
    verbs_dashboard,
    verbs_doctor,
    verbs_drill,
    verbs_follow,
    verbs_forward,
    verbs_history,
    verbs_kept,
    verbs_pace,
    verbs_quarantine,
    verbs_read,
    verbs_rollback,
    verbs_serve,
    verbs_stop,
    verbs_whole,
)
from producer.connection import Servers, given
from producer.options import report_error

INTERRUPTED = "stopped; what was begun ends by itself, and the ledger knows where to go on"


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="mongosplit")
def mongosplit() -> None:
    """Split one MongoDB collection into several, online.

    Exit codes: 0 done, 1 failed, 2 usage, 3 refused as unsafe, 4 differences found.
    """


for verb in (
    verbs_read.check,
    verbs_doctor.doctor_,
    verbs_read.coverage,
    verbs_whole.plan,
    verbs_drill.drill,
    verbs_forward.start,
    verbs_read.status_,
    verbs_pace.pace,
    verbs_stop.pause,
    verbs_forward.resume,
    verbs_stop.cancel,
    verbs_whole.verify,
    verbs_forward.retry,
    verbs_rollback.rollback,
    verbs_quarantine.quarantine,
    verbs_kept.kept,
    verbs_compat.compat_,
    verbs_history.history,
    verbs_follow.follow,
    verbs_serve.serve,
    verbs_dashboard.dashboard_,
):
    mongosplit.add_command(verb)


def run(servers: Servers = given, arguments: Sequence[str] | None = None) -> int:
    """Carry out one command line; returns its exit code."""
    try:
        code = mongosplit.main(
            args=None if arguments is None else list(arguments),
            prog_name="mongosplit",
            standalone_mode=False,
            obj=servers,
        )
    except MongosplitError as error:
        return report_error(error)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        console.say(INTERRUPTED, style="yellow")
        return 1
    return int(code or 0)
