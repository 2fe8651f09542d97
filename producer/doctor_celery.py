"""What the doctor reads off Celery's configuration here: delivery, time limits, serializers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from producer.findings import Finding, Subject
from worker import syncing, tasks
from worker.app import LONGEST_COUNTDOWN_SECONDS, app
from worker.pacing import MOST_SECONDS

DEFAULT_VISIBILITY_SECONDS = 3600
"""Kombu's own, where none is set."""
MEND = "worker/app.py sets it otherwise: take off what overrides it"
OURS = (
    *(tasks.migrate_chunk, tasks.verify_chunk, tasks.rollback_chunk),
    *(tasks.close_wave, syncing.sync_chunks),
)


@dataclass(frozen=True)
class Delivery:
    """How a task is delivered and limited; limits in seconds, None: no limit."""

    name: str
    acks_late: bool
    soft: float | None
    hard: float | None


def celery(_: Subject) -> Iterator[Finding]:
    """What this process holds for Celery's configuration; workers of the same code hold it too."""
    held = [Delivery(t.name, bool(t.acks_late), t.soft_time_limit, t.time_limit) for t in OURS]
    options = app.conf.broker_transport_options
    visible = options.get("visibility_timeout", DEFAULT_VISIBILITY_SECONDS)
    yield judge_visibility(visible, longest_seconds(held))
    yield judge_late(held)
    yield from judge_limits(held)
    yield judge_prefetch(app.conf.worker_prefetch_multiplier)
    named = (app.conf.task_serializer, app.conf.result_serializer, app.conf.event_serializer)
    accepted = (*app.conf.accept_content, *(app.conf.result_accept_content or ()))
    yield judge_serializers({*named, *accepted})


def longest_seconds(held: Iterable[Delivery]) -> float:
    """How long a message may stay unacknowledged: the task, a wait for a permit, a countdown."""
    return max(task.hard or 0 for task in held) + MOST_SECONDS + LONGEST_COUNTDOWN_SECONDS


def judge_visibility(seconds: float, longest: float) -> Finding:
    """The verdict on the visibility timeout, against how long a message may be out."""
    if seconds <= longest:
        said = (
            f"a message is given out again after {seconds:g} s, and its task may take {longest:g} s"
        )
        return Finding("celery", "refusal", said, f"visibility_timeout above {longest:g}; {MEND}")
    said = f"visibility timeout {seconds:g} s, longest time with a task {longest:g} s"
    return Finding("celery", "ok", said)


def judge_late(held: Iterable[Delivery]) -> Finding:
    """The verdict on when messages are acknowledged."""
    early = [task.name for task in held if not task.acks_late]
    if early:
        said = f"{', '.join(early)} is acknowledged before it is done: a killed worker loses it"
        return Finding("celery", "refusal", said, f"acks_late; {MEND}")
    return Finding("celery", "ok", "messages are acknowledged when their work is done")


def judge_limits(held: Iterable[Delivery]) -> Iterator[Finding]:
    """The verdict on time limits that leave no orderly end."""
    for task in held:
        if task.soft and task.hard and task.soft >= task.hard:
            said = f"{task.name} is killed after {task.hard:g} s, before its soft limit of "
            said += f"{task.soft:g} s"
            yield Finding("celery", "refusal", said, f"a soft limit below the hard one; {MEND}")


def judge_prefetch(multiplier: int) -> Finding:
    """The verdict on how many messages a process takes ahead; 0 is any number."""
    if multiplier == 1:
        return Finding("celery", "ok", "a worker takes no message ahead of its work")
    many = f"{multiplier} messages for each process" if multiplier else "any number of messages"
    said = f"a worker takes {many}: they wait there while other workers idle"
    return Finding("celery", "warning", said, f"worker_prefetch_multiplier 1; {MEND}")


def judge_serializers(named: set[str]) -> Finding:
    """The verdict on the serializers sent and accepted."""
    other = sorted(name for name in named if name not in ("json", "application/json"))
    if other:
        said = f"Celery sends or accepts {', '.join(other)}: who may write to Redis may run code"
        return Finding("celery", "refusal", said, f"json alone; {MEND}")
    return Finding("celery", "ok", "JSON is all that is sent and accepted")
