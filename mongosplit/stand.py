"""What stands for users who are derived again: their parts, adopted documents, quarantine."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from mongosplit import adopting, raw, standing
from mongosplit.ledger import kept, quarantined
from mongosplit.model import Chunk
from mongosplit.mongo import Session
from mongosplit.open_run import OpenRun
from mongosplit.raw import Value

Documents = dict[Value, bytes]
"""Documents of a target by the user whose part they are."""


@dataclass(frozen=True)
class Users:
    """Users of applied chunks, by the chunk they are in, and those of them to be repaired."""

    chunk_of: Mapping[Value, Chunk]
    repair: frozenset[Value] = frozenset()

    @property
    def ids(self) -> frozenset[Value]:
        """Who they are."""
        return frozenset(self.chunk_of)

    @property
    def numbers(self) -> list[int]:
        """The numbers of their chunks."""
        return sorted({chunk.n for chunk in self.chunk_of.values()})

    def by_chunk(self) -> Iterator[tuple[Chunk, set[Value]]]:
        """Each of their chunks, with those who are in it."""
        ids: dict[int, set[Value]] = {}
        for source_id, chunk in self.chunk_of.items():
            ids.setdefault(chunk.n, set()).add(source_id)
        chunks_ = {chunk.n: chunk for chunk in self.chunk_of.values()}
        return ((chunks_[n], theirs) for n, theirs in ids.items())


@dataclass
class Stand:
    """What stands for the users: their own parts, and the adopted documents that stay."""

    parts: dict[str, Documents]
    adopted: dict[str, set[Value]]
    held: set[Value]
    given_back: set[Value] = field(default_factory=set)

    def of(self, source_id: Value) -> bool:
        """Whether anything is known of the user, so that it was counted."""
        return source_id in self.held or any(
            source_id in documents for documents in (*self.parts.values(), *self.adopted.values())
        )


def by_id(parts: Iterable[bytes]) -> Documents:
    """Documents by their `_id`."""
    return {standing.id_of(part): part for part in parts}


def look(at: OpenRun, users: Users, expected: Mapping[str, Documents], session: Session) -> Stand:
    """What stands; adopted documents that are no longer a user's part are given back on the way."""
    keys = {target.collection: key for key, target in at.migration.keys.items()}
    stand = Stand({}, {}, quarantined.held_among(at.ledger, session, at.run.id, users.ids))
    run = at.run.id
    for one in kept.adoptions_of(at.ledger, run, users.numbers, users.ids, session):
        key = keys[one.collection]
        document = adopting.present(at, one, session)
        part = expected[key].get(one.source_id)
        if adopting.is_ours(one, document) and _same_key(at, key, part, document):
            stand.adopted.setdefault(key, set()).add(one.source_id)
            continue
        adopting.give_back(at, one, document, session)
        kept.forget_adoption(at.ledger, session, run, one)
        stand.given_back.add(one.source_id)
    for key, target in at.migration.keys.items():
        theirs = stand.adopted.get(key, ())
        there = by_id(standing.of_ids(at, target, users.ids, session))
        stand.parts[key] = {one: doc for one, doc in there.items() if one not in theirs}
    return stand


def _same_key(at: OpenRun, key: str, part: bytes | None, document: bytes | None) -> bool:
    """Whether a part would still adopt this very document."""
    name = at.migration.keys[key].adopt_by
    if part is None or document is None or name is None:
        return False
    return raw.lookup(part, name) == raw.lookup(document, name)
