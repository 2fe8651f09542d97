"""Stand: what stands in a real database, in the words of the model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bson import ObjectId

from mongosplit.ledger import dirty
from mongosplit.open_run import OpenRun
from mongosplit.verify import differing
from tests.integration.conftest import oid, user
from tests.model.schedules import Rest
from tests.model.states import DERIVED, FOREIGN

BASES = {"v1": 1, "v2": 2, "foreign": FOREIGN}
SLOGANS = {"s2": 2, "s3": 3}
UNDONE = "rolled back"
"""A state of the model in which nothing stands in the targets."""


def document(i: int, value: int) -> dict[str, Any]:
    """The user with the model's id `i` whose parts are `states.DERIVED[value]`."""
    changes = {"username": f"v{2 if value == 2 else 1}-{i}", "kontakt.mailNewsletter": False}
    changes |= {"isVendor": value > 1, "vendorProfile.slogan": f"s{value}"}
    return user(i + 1, changes)


def written(at: OpenRun, i: int, value: int) -> None:
    """The application writes."""
    if value:
        at.source.replace_one({"_id": oid(i + 1)}, document(i, value), upsert=True)
    else:
        at.source.delete_one({"_id": oid(i + 1)})


class Stand:
    """What stands for the model's ids in a run."""

    def __init__(self, at: OpenRun) -> None:
        self.at = at

    def dirty(self) -> set[ObjectId]:
        """Who is dirty."""
        rows = dirty.read(self.at.ledger, self.at.run.id, limit=100)
        return {row.source_id.decode() for row in rows}

    def parts(self, i: int) -> tuple[int, int]:
        """The two parts of an id as the model calls them."""
        base = self.at.data.base_users.find_one({"_id": oid(i + 1)}) or {}
        vendor = self.at.data.vendors.find_one({"_id": oid(i + 1)}) or {}
        return (
            BASES.get(str(base.get("username")).partition("-")[0], 0),
            SLOGANS.get(vendor.get("slogan", ""), 0),
        )

    @staticmethod
    def meant_wrong(rest: Rest, chunk_of: Sequence[int]) -> set[Any]:
        """The ids whose parts are wrong in the model, since a foreign writer changed them."""
        applied = [rest.states[c] != UNDONE for c in chunk_of]
        right = [DERIVED[v] if on else (0, 0) for v, on in zip(rest.sources, applied, strict=True)]
        pairs = zip(rest.parts, right, strict=True)
        return {oid(i + 1) for i, (found, wanted) in enumerate(pairs) if found != wanted}

    def wrong(self, numbers: Sequence[int]) -> set[Any]:
        """The ids in whom a whole comparison finds a difference."""
        found = [one for n in numbers for one in differing(self.at, n).ids]
        return {one.decode() for one in found}
