"""The phase `showing`: the application writes, a follower follows, and lags are sampled."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Event

from mongosplit.errors import Failed
from ops.load.application import Application, Passed
from ops.load.commands import Commands
from ops.load.showing import Lags, Sampler

FOLLOW = "follow users"
FIRST_SECONDS = 5.0
"""How long one write may take to show while the follower is still on its way."""


def follow(
    commands: Commands, application: Application, sampler: Sampler, seconds: float
) -> tuple[Lags, Passed]:
    """Sample for so long beside `mongosplit follow`, once it follows.

    Raises:
        Failed: it has ended, nothing shows at all, or no user is in an applied chunk.
    """
    if not sampler.keys:
        raise Failed("no spared user is in an applied chunk", hint="migrate before")
    with commands.running(FOLLOW) as process:
        commands.until(
            lambda: sampler.lag(sampler.keys[0], FIRST_SECONDS) is not None, FOLLOW, process
        )
        over = Event()
        with ThreadPoolExecutor(1) as pool:
            working = pool.submit(application.run, seconds + 60, over)
            try:
                lags = sampler.sample(seconds)
            finally:
                over.set()
            return lags, working.result()
