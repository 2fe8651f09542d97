"""A fingerprint stands for everything compiled from a declaration: the same, or another one."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from typing import Annotated, Any

import pytest
from bson import Code, Int64
from pydantic import Field

from mongosplit.definition import From, Index, IsTrue, Migration, Target
from mongosplit.lens import Custom
from mongosplit.lenses import Constant, Default, Equals, NotNull
from mongosplit.pipelines import fingerprint
from mongosplit.schema import Id
from mongosplit.users import migration as users

PRINT = "import sys\nfrom mongosplit import pipelines, users\n"
PRINT += "sys.stdout.write(pipelines.fingerprint(users.migration))"


@pytest.mark.parametrize("seed", ["0", "1", "4711"])
def test_a_fingerprint_is_the_same_in_every_process(seed: str) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", PRINT],
        env={"PYTHONHASHSEED": seed, "PATH": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout == fingerprint(users)
    assert len(ran.stdout) == 16


def declare(*marks: Any, annotation: Any = str | None, order: int = 0, **options: Any) -> Migration:
    """One target with a field of these marks; with `order`, its two fields change places."""
    fields = {
        "name": Annotated[annotation, *(marks or (From("name"),))],
        "other": Annotated[str | None, From("other")],
    }
    names = sorted(fields, reverse=bool(order))
    space = {"__annotations__": {"id": Annotated[Id, From("_id")], **{n: fields[n] for n in names}}}
    target = type(
        "Mine", (Target,), {"__module__": __name__, **space}, **{"collection": "mine", **options}
    )
    return Migration(name="mine", source="all", targets=(target,))


def back(part: Any, _: Any) -> Any:
    return part


def shout(source: Any) -> Any:
    return {"$toUpper": source}


MADE = {
    "plain": declare(),
    "another path": declare(From("name2")),
    "another lens": declare(From("name", NotNull())),
    "a default": declare(From("name", Default("a"))),
    "another default": declare(From("name", Default("b"))),
    "a blank default": declare(From("name", Default("a", blank=True))),
    "a default of 1": declare(From("name", Default(1))),
    "a default of true": declare(From("name", Default(True))),
    "a flag": declare(From("name", Equals("a", otherwise="b"))),
    "a flag put back otherwise": declare(From("name", Equals("a", otherwise="c"))),
    "a lens of one's own": declare(From("name", Custom(shout, str.upper, back, back))),
    "one put back otherwise": declare(
        From("name", Custom(shout, str.upper, lambda part, _: shout(part), back))
    ),
    "not written back": declare(From("name", writes_back=False)),
    "a constant": declare(Constant(1)),
    "a constant of another type": declare(Constant(Int64(1))),
    "a constant double": declare(Constant(1.0)),
    "a constant text": declare(Constant("f()")),
    "a constant code": declare(Constant(Code("f()"))),
    "a constant document": declare(Constant({"a": 1, "b": 2})),
    "a constant document in another order": declare(Constant({"b": 2, "a": 1})),
    "another order": declare(order=1),
    "another type": declare(annotation=int | None),
    "a least length": declare(Field(min_length=1), From("name")),
    "another collection": declare(collection="theirs"),
    "a condition": declare(when=IsTrue("flag")),
    "another condition": declare(when=IsTrue("flag2")),
    "a condition not written back": declare(when=IsTrue("flag", writes_back=False)),
    "an index": declare(indexes=(Index("name"),)),
    "a unique index": declare(indexes=(Index("name", unique=True),)),
    "an index of texts": declare(indexes=(Index("name", only=("string",)),)),
    "another name": replace(declare(), name="yours"),
    "another source": replace(declare(), source="some"),
}


def test_a_fingerprint_changes_with_everything_that_is_declared() -> None:
    found: dict[str, str] = {}
    for what, migration in MADE.items():
        twin = found.setdefault(fingerprint(migration), what)
        assert twin == what, f"{what} has the fingerprint of {twin}"


def test_the_same_declaration_twice_has_one_fingerprint() -> None:
    assert fingerprint(declare()) == fingerprint(declare())
    assert fingerprint(declare(From("name", Default("a")))) == fingerprint(MADE["a default"])
