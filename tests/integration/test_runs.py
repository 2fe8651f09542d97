"""A source has one run at a time, a run one driver, and only the arrows of the table are taken."""

from __future__ import annotations

from itertools import product

import pytest

from mongosplit.errors import (
    IllegalTransition,
    LeaseHeld,
    Refused,
    UsageError,
)
from mongosplit.ledger import leases, runs
from mongosplit.ledger.book import Ledger
from mongosplit.model import FINISHED, RUN_ARROWS, Run, RunState
from tests.integration.conftest import PLANNER, Document, at_once


def begun(ledger: Ledger, facts: Document, holder: str = PLANNER) -> Run:
    return runs.begin(ledger, name="users", facts=facts, holder=holder)


def test_a_source_has_one_unfinished_run(ledger: Ledger, facts: Document, planning: Run) -> None:
    assert (planning.id, planning.state, planning.finished) == ("users-1", RunState.PLANNING, False)
    with pytest.raises(Refused, match=r"users-1 is planning"):
        begun(ledger, facts)
    assert begun(ledger, facts | {"source": "other.users"}).id == "users-2"
    runs.move(ledger, planning.id, RunState.CANCELLED)
    third = begun(ledger, facts)
    assert (third.id, runs.unfinished(ledger, third.source)) == ("users-3", third)
    assert [found.id for found in runs.in_state(ledger, RunState.PLANNING)] == [
        "users-2",
        "users-3",
    ]


def test_of_plans_begun_at_once_one_wins(ledger: Ledger, facts: Document) -> None:
    def begin(n: int) -> str:
        try:
            return begun(ledger, facts, f"planner {n}").id
        except Refused:
            return "refused"

    assert sorted(at_once(6, begin)) == ["refused"] * 5 + ["users-1"]
    assert ledger["runs"].count_documents({}) == 1


def test_runs_of_several_sources_begun_at_once_have_their_own_numbers(
    ledger: Ledger, facts: Document
) -> None:
    made = at_once(6, lambda n: begun(ledger, facts | {"source": f"shop{n}.users"}).id)
    assert sorted(made) == [f"users-{n}" for n in range(1, 7)]


def test_every_arrow_of_a_run_works_and_every_other_is_refused(
    ledger: Ledger, planning: Run
) -> None:
    for before, after in product(RunState, RunState):
        ledger["runs"].update_one({}, {"$set": {"state": before, "started": None, "verified": 1}})
        if before is after or (before, after) in RUN_ARROWS:
            assert runs.move(ledger, planning.id, after, counts={"docs": 1}).state is after
        else:
            with pytest.raises(
                IllegalTransition, match=f"is {before} and cannot become {after}".replace("_", " ")
            ):
                runs.move(ledger, planning.id, after, counts={"docs": 1})
        row = ledger["runs"].find_one() or {}
        if (before, after) in RUN_ARROWS:
            assert (row["state"], row["unfinished"]) == (after, after not in FINISHED)
            assert (row["started"] is not None) == (after is RunState.RUNNING)
            assert (row["verified"] is None) == (after is RunState.RUNNING)
        else:
            assert (row["state"], row["started"], row["verified"]) == (before, None, 1)


def test_a_lease_is_held_by_one_until_it_is_given_back_or_runs_out(
    ledger: Ledger, planning: Run
) -> None:
    leases.let_go(ledger, planning.id, PLANNER)
    leases.hold(ledger, planning.id, "driver 1")
    leases.hold(ledger, planning.id, "driver 1")
    with pytest.raises(LeaseHeld, match=f"{planning.id} is being driven by driver 1"):
        leases.hold(ledger, planning.id, "driver 2")
    leases.let_go(ledger, planning.id, "driver 2")
    with pytest.raises(LeaseHeld):
        leases.hold(ledger, planning.id, "driver 2")
    leases.let_go(ledger, planning.id, "driver 1")
    leases.hold(ledger, planning.id, "driver 2", seconds=-1)
    leases.hold(ledger, planning.id, "driver 3")
    with pytest.raises(LeaseHeld, match="driver 3"):
        leases.hold(ledger, planning.id, "driver 2")


def test_of_drivers_that_want_a_lease_at_once_one_gets_it(ledger: Ledger, planning: Run) -> None:
    leases.let_go(ledger, planning.id, PLANNER)

    def hold(n: int) -> bool:
        try:
            leases.hold(ledger, planning.id, f"driver {n}")
        except LeaseHeld:
            return False
        return True

    assert at_once(6, hold).count(True) == 1


def test_an_interrupted_planning_is_given_up_by_the_next_and_leaves_no_chunks(
    ledger: Ledger, facts: Document, planning: Run
) -> None:
    leases.hold(ledger, planning.id, PLANNER, seconds=-1)
    ledger["runs"].update_one({}, [{"$set": {"created": {"$add": ["$created", -5000]}}}])
    assert begun(ledger, facts).id == "users-2"
    assert runs.get(ledger, "users-1").state is RunState.CANCELLED
    assert ledger["chunks"].count_documents({}) == 0
    with pytest.raises(IllegalTransition):
        runs.move(ledger, "users-1", RunState.PLANNED)


def test_a_run_nobody_knows_is_an_error_that_names_those_there_are(
    ledger: Ledger, planning: Run
) -> None:
    assert (
        runs.find(ledger, "users")
        == runs.find(ledger, planning.id)
        == runs.get(ledger, planning.id)
    )
    for look in (runs.find, runs.get):
        with pytest.raises(UsageError) as error:
            look(ledger, "users-9")
        assert error.value.hint == "there are: users-1"
