"""The dashboard without servers: who is let in, the chunk map in short, what the audit tells."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mongosplit.errors import MongosplitError, Refused, UsageError
from mongosplit.model import ChunkState
from producer.dashboard import audit_lines
from producer.dashboard.cells import LETTERS, MOST_CHANGES, changes, draw, letter, run_length
from producer.dashboard.door import Door, door, is_loopback

TOKEN = "a token of 26 letters / ?&"
OURS = Door("127.0.0.1", 8777, TOKEN)
MOMENT = datetime(2026, 5, 6, 7, 8, 9)
maps = st.text("pcmvfrxPMVX-", max_size=60)


@pytest.mark.parametrize("wrong", ["", TOKEN[:-1], TOKEN + "x", TOKEN.upper(), "ä" * 26])
def test_only_the_token_itself_opens(wrong: str) -> None:
    assert OURS.opens(TOKEN)
    assert not OURS.opens(wrong)


@pytest.mark.parametrize("wrong", [None, "", TOKEN, "0" * 64, "ü"])
def test_only_the_cookie_that_was_set_is_remembered_and_it_is_not_the_token(
    wrong: str | None,
) -> None:
    assert OURS.remembers(OURS.cookie)
    assert TOKEN not in OURS.cookie
    assert not OURS.remembers(wrong)
    assert not OURS.remembers(Door("127.0.0.1", 8777, TOKEN + "x").cookie)


def test_two_dashboards_on_one_machine_do_not_take_each_others_cookies() -> None:
    assert OURS.cookie_name != Door("127.0.0.1", 8778, TOKEN).cookie_name


def test_the_address_to_open_holds_the_token_as_addresses_do() -> None:
    assert OURS.url == "http://127.0.0.1:8777/?token=a%20token%20of%2026%20letters%20%2F%20%3F%26"
    assert Door("::1", 8777, "t").url == "http://[::1]:8777/?token=t"


@pytest.mark.parametrize(
    "host", ["127.0.0.1:8777", "localhost:8777", "LOCALHOST:9000", "[::1]:8777", "127.0.0.1"]
)
def test_it_answers_under_the_names_of_this_machine(host: str) -> None:
    assert OURS.answers_as(host)


@pytest.mark.parametrize(
    "host",
    [
        *("", "evil.example:8777", "localhost.evil.example", "127.0.0.1.evil.example"),
        *("10.0.0.5:8777", "[::1", "evil.example@localhost.evil.example", "shop.example:8777"),
    ],
)
def test_it_answers_under_no_other_name(host: str) -> None:
    assert not OURS.answers_as(host)


def test_where_it_listens_on_a_name_or_on_all_addresses_it_answers_as_that() -> None:
    named, everywhere = Door("shop.example", 1, TOKEN), Door("0.0.0.0", 1, TOKEN)
    assert named.answers_as("Shop.example:1")
    assert everywhere.answers_as("10.0.0.5:1")
    assert not named.answers_as("10.0.0.5:1")
    assert not everywhere.answers_as("shop.example:1")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "[::1]", "localhost"])
def test_on_this_machine_a_token_is_made_and_no_two_are_alike(host: str) -> None:
    first, second = (door(host, 8777, None).token for _ in range(2))
    assert first != second
    assert len(first) >= 40


@pytest.mark.parametrize(
    ("host", "token", "kind", "said"),
    [
        ("0.0.0.0", None, Refused, "others could reach the dashboard at 0.0.0.0"),
        ("::", None, Refused, "others could reach the dashboard at ::"),
        ("shop.example", None, Refused, "others could reach the dashboard at shop.example"),
        ("127.0.0.1", "fifteen letters", UsageError, "the token has fewer than 16 letters"),
        ("", None, UsageError, "the host to listen on is empty"),
    ],
)
def test_an_open_door_is_refused_with_what_to_type_instead(
    host: str, token: str | None, kind: type[MongosplitError], said: str
) -> None:
    with pytest.raises(kind) as found:
        door(host, 8777, token)
    assert found.value.message.startswith(said)
    assert found.value.hint


def test_another_host_opens_with_a_token_of_the_operators_choice() -> None:
    assert door("0.0.0.0", 8777, TOKEN) == Door("0.0.0.0", 8777, TOKEN)
    assert not is_loopback("0.0.0.0")


def test_every_state_of_a_chunk_has_a_letter_of_its_own_and_marks_change_it() -> None:
    assert set(LETTERS) == set(ChunkState)
    found = {
        letter(state.value, quarantined=quarantined, mismatches=mismatches)
        for state in ChunkState
        for quarantined in (True, False)
        for mismatches in (True, False)
    }
    assert found == set("pmvfrx" + "pmvfrx".upper())


def test_a_map_has_each_chunk_at_its_number_and_the_last_letter_counts() -> None:
    assert draw([("p", [1, 2, 5]), ("m", [3]), ("c", [2])]) == "pcm-p"
    assert draw([]) == ""


def test_a_map_in_short_says_how_many() -> None:
    assert run_length("ppppmvvv--") == "4pm3v2-"
    assert len(run_length("p" * 100_000)) == 7


def expanded(short: str) -> str:
    count, found = "", ""
    for sign in short:
        if sign.isdigit():
            count += sign
        else:
            found, count = found + sign * int(count or 1), ""
    return found


@given(maps)
def test_a_map_in_short_is_the_same_map(cells: str) -> None:
    assert expanded(run_length(cells)) == cells


@given(st.integers(1, 1500).flatmap(lambda n: st.tuples(*[st.binary(min_size=n, max_size=n)] * 2)))
def test_a_map_and_what_has_changed_make_the_new_map(both: tuple[bytes, bytes]) -> None:
    before, after = ("".join("pmv"[code % 3] for code in cells) for cells in both)
    spans = changes(before, after)
    assert spans is not None
    patched = [*before]
    for first, letter_, count in spans:
        patched[first - 1 : first - 1 + count] = letter_ * count
    assert "".join(patched) == after
    assert sum(count for _, _, count in spans) == sum(
        was != is_ for was, is_ in zip(before, after, strict=True)
    )


def test_neighbours_that_change_alike_are_one_span() -> None:
    assert changes("p" * 600, "p" * 500 + "m" * 50 + "p" * 50) == ((501, "m", 50),)


def test_the_whole_map_is_sent_where_chunks_came_or_too_much_has_changed() -> None:
    assert changes("pp", "ppp") is None
    count = 2 * MOST_CHANGES + 2
    assert changes("p" * count, "pm" * (count // 2)) is None


def entry(number: int, action: str, actor: str = "anna@shop", **facts: Any) -> dict[str, Any]:
    row = {"_id": number, "at": MOMENT, "actor": actor, "action": action, "facts": facts}
    return {**row, "chunk": number} if action == "chunk" else row


def test_equal_changes_of_chunks_are_one_line_between_two_other_entries() -> None:
    ours = {"from": "pending", "to": "migrated"}
    rows = [entry(1, "run", **{"from": "planned", "to": "running"})]
    rows += [entry(n, "chunk", f"w{n % 2}@here", **ours) for n in range(2, 6)]
    rows += [entry(6, "verb", verb="pause", why="a backup"), entry(7, "chunk", "w1@here", **ours)]
    lines = audit_lines.fold(rows)
    assert [(line["actor"], line["sentence"]) for line in lines] == [
        ("w1@here", "chunk 7: pending → migrated"),
        ("anna@shop", "pause: a backup"),
        ("2 workers", "4 chunks: pending → migrated"),
        ("anna@shop", "run: planned → running"),
    ]
    assert {line["at"] for line in lines} == {"2026-05-06T07:08:09Z"}


def test_a_chunk_that_was_compared_once_more_is_still_what_it_was() -> None:
    [line] = audit_lines.fold([entry(3, "chunk", **{"from": "verified", "to": "verified"})])
    assert line["sentence"] == "chunk 3: still verified"


ID = "64f0c0ffee64f0c0ffee64f0"


@pytest.mark.parametrize(
    "row",
    [
        entry(1, "verb", verb="start", part=f"range {ID}..", why=ID),
        entry(1, "verb", verb="rollback", part=f"ids {ID}", on_change="keep"),
        entry(1, "verb", verb="retry", what=f"the document {ID}"),
        entry(1, "verb", verb="quarantine release", ids=[ID], because=f"{ID} is Erika"),
        entry(1, "run", **{"from": "planned", "to": "running", "why": f"range {ID}.."}),
        entry(1, "an action of tomorrow", id=ID),
    ],
)
def test_what_may_hold_an_id_is_not_told(row: dict[str, Any]) -> None:
    [line] = audit_lines.fold([row])
    assert ID not in line["sentence"]
    assert line["sentence"]


@pytest.mark.parametrize("facts", [None, "x", {"to": {}}, {"gave up": 3}, {"verb": ["\x1b[2J"]}])
@pytest.mark.parametrize("action", ["chunk", "verb", "run", None])
def test_a_forged_entry_is_a_line_like_others(facts: Any, action: Any) -> None:
    row = {"_id": 1, "at": "yesterday", "action": action, "facts": facts}
    [line] = audit_lines.fold([row])
    assert line["sentence"].isprintable()
