"""The probe: finds by halving which parts of a chunk the server refuses, and leaves nothing behind.

A transaction ends at the first document that the server refuses, so each try names one of them. Of
a chunk with many, halves are tried by themselves, each in a transaction that is aborted: about
`2 k log n` tries for `k` bad among `n`, and every document is tried `log n` times at most.
"""

from __future__ import annotations

from bson.raw_bson import RawBSONDocument
from pymongo.errors import BulkWriteError

from mongosplit.definition import Target
from mongosplit.mongo import MAJORITY, SNAPSHOT, Session
from mongosplit.open_run import OpenRun
from mongosplit.refusals import Refused, refusals


def refused_among(at: OpenRun, parts: dict[str, list[bytes]]) -> Refused:
    """The parts, by row key of their target, that the server would refuse, with its error code.

    Two that go only one without the other count as one: whichever the server names.

    Raises:
        BulkWriteError: the server refuses for a cause that is not of the document.
    """
    found: Refused = {}
    with at.client.start_session() as session:
        for key, documents in parts.items():
            if documents:
                found |= _refused(at, at.migration.keys[key], documents, session)
    return found


def _refused(at: OpenRun, target: type[Target], group: list[bytes], session: Session) -> Refused:
    named = _try(at, target, group, session)
    if not named or len(group) == 1:
        return named
    middle = len(group) // 2
    halves = (group[:middle], group[middle:])
    found = [_refused(at, target, half, session) for half in halves]
    return {**found[0], **found[1]} or named


def _try(at: OpenRun, target: type[Target], group: list[bytes], session: Session) -> Refused:
    session.start_transaction(SNAPSHOT, MAJORITY)
    try:
        rows = [RawBSONDocument(part) for part in group]
        at.target(target).insert_many(rows, ordered=False, session=session)
    except BulkWriteError as error:
        return refusals(error)
    finally:
        session.abort_transaction()
    return {}
