"""The lens laws for the shipped migration as a whole: nothing is lost and nothing made up."""

from __future__ import annotations

from functools import partial

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mongosplit import raw, reference
from mongosplit.lens import FALSE, TRUE
from mongosplit.raw import Value
from mongosplit.reference import Parts
from mongosplit.users import migration
from tests.property.hostile import (
    IN_RANGE,
    base,
    batches,
    document,
    numbered,
    steady,
    users,
    values,
)

Maybe = Value | None

split = partial(reference.split, migration)
join = partial(reference.join, migration)


def _is_empty_text(value: Value) -> bool:
    return value.type_name in ("string", "symbol") and len(value.data) == 5


@settings(parent=steady, max_examples=100)
@given(batch=batches())
def test_joining_what_was_split_gives_the_user_back(batch: list[bytes]) -> None:
    for user in batch:
        assert join(user, split(user)) == user


SHARED = {"email": "kontakt.email", "businessEmail": "kontakt.email"}
SHARED |= {"createdAt": "createdAt", "updatedAt": "updatedAt"}
"""Target fields that come from a path several targets read."""

_anything = st.one_of(st.none(), values())
_not_null = values().filter(lambda value: not value.is_null)
_not_blank = _not_null.filter(lambda value: not _is_empty_text(value))
_flag = st.sampled_from([TRUE, FALSE])
ODD = {"isAdmin": _not_null, "isActive": _flag, "type": _not_blank}
ODD |= dict.fromkeys(("kategorien", "verifyStatus", "addresses", "isPubliclyVisible"), _not_null)
ODD |= dict.fromkeys(("confirmationToken", "tokenExpires"), st.one_of(st.none(), _not_null))
EDITS = {
    key: {
        f.name: ODD.get(f.name, _anything)
        for f in migration.fields[target.collection]
        if f.writes_back and f.name not in (*SHARED, "confirmedAt")
    }
    for key, target in migration.keys.items()
}
FULL = split(numbered(0, base(vendor=True, subscriber=True)))


def with_values(key: str, part: bytes, changes: dict[str, Maybe]) -> bytes:
    """The part with these values where it has such fields, in declaration order."""
    fields: dict[str, Maybe] = {**dict(raw.elements(part)), **changes}
    declared = migration.fields[migration.keys[key].collection]
    return document({f.name: fields.get(f.name) for f in declared})


@st.composite
def edited(draw: st.DrawFn) -> tuple[bytes, Parts]:
    """A user and representable parts: what each law below says of them is made true here."""
    user = draw(users(kinds=IN_RANGE))
    assume(not any(_is_array(raw.field(user, name)) for name in ("kontakt", "vendorProfile")))
    own_id, parts = raw.field(user, "_id"), split(user)
    for key in ("b", "c"):
        fate = draw(st.sampled_from(("as it was", "removed", "there")))
        if fate == "removed":
            parts.pop(key, None)
        elif fate == "there":
            parts.setdefault(key, with_values(key, FULL[key], {"_id": own_id, "userId": own_id}))
    now = {path: raw.lookup(user, path) for path in sorted({*SHARED.values()})}
    now |= draw(st.dictionaries(st.sampled_from([*now]), _anything, max_size=2))
    shared = {name: now[path] for name, path in SHARED.items()}
    confirmed = draw(st.booleans()) or raw.lookup(user, "kontakt.newsletterConfirmed") == TRUE
    shared["confirmedAt"] = now["updatedAt"] if confirmed else None
    for key, part in parts.items():
        names = draw(st.sets(st.sampled_from([*EDITS[key]]), max_size=4))
        changes = {name: draw(EDITS[key][name]) for name in sorted(names)}
        parts[key] = with_values(key, part, {**changes, **shared})
    return user, parts


def _is_array(value: Maybe) -> bool:
    return value is not None and value.is_array


@settings(parent=steady, max_examples=200)
@given(both=edited())
def test_splitting_what_was_joined_gives_the_edited_parts_back(both: tuple[bytes, Parts]) -> None:
    """Holds for any user and any parts of it such that

    - `kontakt` and `vendorProfile` are not arrays (documents, nothing, null and scalars will do);
    - no document has two fields of one name; the part of `base_users` is there; each part has the
      `_id` of the user, its constants, and no other fields than the declared ones, in their order;
    - `email`, `businessEmail`, `createdAt` and `updatedAt` are the same in all parts;
    - a field with a default is there and not null, and `type` is not the empty text;
    - `isActive` is a boolean; `confirmationToken` and `tokenExpires` are not null;
    - `confirmedAt` is missing or equals `updatedAt`; and it is not missing while `updatedAt` is
      there where the user was confirmed before.

    Vendor and subscriber may have come or gone; copied fields may hold anything or be missing.
    """
    user, parts = both
    assert split(join(user, parts)) == parts
