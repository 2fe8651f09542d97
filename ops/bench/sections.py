"""The sections of the benchmark, by name: which cells are compared, and what they are held to."""

from __future__ import annotations

from collections.abc import Callable

from ops.bench import compat_view, jobs, latency, limiter, pausing, reaction
from ops.bench.result import Goal, Result, Told
from ops.bench.stage import Cell, Stage

Section = Callable[[Stage], Result | Told]

CEILING = Cell("ceiling x2", jobs.raw_inserts, 2)
FREE = Cell("transform free x2", jobs.transform_free, 2)
OURS_1 = Cell("ours x1", jobs.ours, 1, validators=True)
OURS_2 = Cell("ours x2", jobs.ours, 2, validators=True)
BARE = Cell("ours x2 no validators", jobs.ours, 2)
DICT = Cell("dict x2", jobs.plain_dicts, 2, validators=True)
BARE_DICT = Cell("dict x2 no validators", jobs.plain_dicts, 2)
PYDANTIC = Cell("pydantic x2", jobs.pydantic_models, 2)


def chunks(stage: Stage) -> Result:
    """Moving chunks: ours, its peers, its limit."""
    cells = (CEILING, FREE, OURS_1, OURS_2, DICT, BARE, BARE_DICT, PYDANTIC)
    return Result(
        "moving chunks; validators are on for ours and dict, unless the cell says no",
        stage.measure([(cell,) for cell in cells]),
        to=(CEILING.name, DICT.name),
        goals=(
            Goal("two workers to the ceiling", OURS_2.name, CEILING.name, least=0.5, by_cpu=True),
            Goal("two workers to the dict path", OURS_2.name, DICT.name, least=1.15, by_cpu=True),
            Goal("the same without", BARE.name, BARE_DICT.name, least=1.15, by_cpu=True),
        ),
    )


def verify(stage: Stage) -> Result:
    """Verifying what one worker has moved, with one worker."""
    raw = Cell("verify raw x1", jobs.verify_raw, 1, goes_on=True)
    independent = Cell("verify independent x1", jobs.verify_independent, 1, goes_on=True)
    return Result(
        "verifying every byte",
        stage.measure([(OURS_1, raw, independent)]),
        to=(OURS_1.name,),
        goals=(Goal("verifying to moving, one worker", raw.name, OURS_1.name, least=1.5),),
    )


def plan(stage: Stage) -> Result:
    """Planning: the walk, and the chunks written into the ledger."""
    planned = Cell("plan x1", jobs.plan_chunks, 1, goes_on=True)
    return Result(
        "planning the chunks",
        stage.measure([(OURS_2, planned)]),
        to=(OURS_2.name,),
        goals=(Goal("planning as a share of moving time", OURS_2.name, planned.name, most=0.05),),
    )


def rerun(stage: Stage) -> Result:
    """The chunks of a finished run, given to the workers once more."""
    again = Cell("the same chunks again x2", jobs.ours_again, 2, goes_on=True)
    return Result(
        "running a finished run again",
        stage.measure([(OURS_2, again)]),
        to=(OURS_2.name,),
        goals=(Goal("again to the first time", again.name, OURS_2.name, least=20),),
    )


def rollback(stage: Stage) -> Result:
    """Rolling back the chunks that two workers have moved, with two workers."""
    back = Cell("rollback x2", jobs.roll_back, 2, goes_on=True, empties=True)
    return Result(
        "rolling chunks back",
        stage.measure([(OURS_2, back)]),
        to=(OURS_2.name,),
        goals=(Goal("rolling back to moving", back.name, OURS_2.name, least=0.9, by_cpu=True),),
    )


SECTIONS: dict[str, Section] = {
    "chunks": chunks,
    "verify": verify,
    "plan": plan,
    "rerun": rerun,
    "rollback": rollback,
    "pause": pausing.measure,
    "permits": limiter.permits,
    "limiter": limiter.measure,
    "latency": latency.measure,
    "compat": compat_view.measure,
    "reaction": reaction.measure,
}
