"""Waking: users in quarantine for a unique key are derived again once its holder gives it up."""

from __future__ import annotations

from collections.abc import Container, Iterable
from typing import Any

from mongosplit.ledger import dirty, quarantined
from mongosplit.ledger.dirty import Mark
from mongosplit.ledger.quarantine import Bad
from mongosplit.mongo import Session, among
from mongosplit.open_run import OpenRun
from mongosplit.raw import Value


def of_users(
    at: OpenRun, freed: Iterable[Value], session: Session, *, without: Iterable[Value] = ()
) -> None:
    """Mark those dirty who are in quarantine for a unique key that one of these users had."""
    ids = list(freed)
    if ids:
        where(at, among("held_by", ids), session, without=without)


def again(
    at: OpenRun, bad: Iterable[tuple[int, Bad]], session: Session, *, fenced: Container[Value] = ()
) -> None:
    """Mark those dirty who go to quarantine, by chunk, for a key whose holder is not fenced here.

    That holder's transaction cannot see their rows yet, nor this one that the key becomes free; so
    whoever comes second has to look again. A sync does, with the holder's fence, and is sure.
    """
    marks = [
        Mark(one.source_id, n)
        for n, one in bad
        if one.held_by is not None and one.held_by not in fenced
    ]
    dirty.mark(at.ledger, at.run.id, marks, session=session)


def where(at: OpenRun, freed: Any, session: Session, *, without: Iterable[Value] = ()) -> None:
    """The same, for users whom a query on `held_by` finds."""
    found = quarantined.waiting(at.ledger, session, at.run.id, freed)
    known = set(without)
    marks = [Mark(source_id, n) for source_id, n in found if source_id not in known]
    dirty.mark(at.ledger, at.run.id, marks, session=session)
