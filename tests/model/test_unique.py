from __future__ import annotations

import sys
from dataclasses import replace

import pytest

from tests.model import variants
from tests.model.safeguards import COPY_MARKS, SENTENCES
from tests.model.schedules import schedules
from tests.model.search import Verdict, explore, told
from tests.model.states import Variant
from tests.model.unique import UniqueKeys


def _explained(verdict: Verdict) -> str:
    return f"{verdict.why}\n{told(verdict.trace)}"


@pytest.mark.parametrize("name", variants.UNIQUE_HOLDS)
def test_whoever_has_no_part_is_held_back_by_one_that_has(name: str) -> None:
    verdict = explore(UniqueKeys(variants.UNIQUE_HOLDS[name]))
    assert not verdict.why, _explained(verdict)


@pytest.mark.parametrize("safeguard", variants.UNIQUE_WITHOUT)
def test_without_a_safeguard_somebody_is_held_back_by_nobody(safeguard: str) -> None:
    variant = variants.UNIQUE_WITHOUT[safeguard]
    verdict = explore(UniqueKeys(variant))
    sys.stdout.write(f"{SENTENCES[safeguard]} Without it: {_explained(verdict)}")
    assert "nobody has the key" in verdict.why
    with_it = explore(UniqueKeys(replace(variant, off=frozenset())))
    assert not with_it.why, _explained(with_it)


@pytest.mark.parametrize("name", variants.UNIQUE_HARMLESS)
def test_behind_one_fence_the_keys_come_right_without_it(name: str) -> None:
    verdict = explore(UniqueKeys(variants.UNIQUE_HARMLESS[name]))
    assert not verdict.why, _explained(verdict)


def test_a_sync_that_only_marks_and_never_widens_goes_on_for_ever() -> None:
    verdict = explore(UniqueKeys(variants.NEVER_WIDENED))
    assert "dead end" in verdict.why


def test_copy_and_sync_of_two_chunks_need_the_mark_since_they_share_no_fence() -> None:
    verdict = explore(UniqueKeys(variants.UNIQUE_WITHOUT[COPY_MARKS]))
    writers = {label[0] for label in verdict.trace if label[-1] == "commit"}
    assert writers == {"copy", "sync"}


def test_schedules_of_keys_end_with_every_key_held_once() -> None:
    variant = Variant(source=(1, 1, 2), chunk_of=(0, 1, 1), ops=2, rollbacks=1, agains=1)
    for schedule in schedules(variant, 20, 3, model=UniqueKeys):
        rest = schedule[-1].rest
        assert rest is not None
        keys = [key for key, _ in rest.parts if key]
        assert len(keys) == len(set(keys))
