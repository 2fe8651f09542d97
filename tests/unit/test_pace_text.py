"""Pace text: every form operators may type, every refusal, and schedules against a slow table."""

from __future__ import annotations

import zoneinfo
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mongosplit.errors import UsageError
from mongosplit.pace_schedule import Schedule, Window, parse_schedule
from mongosplit.pace_text import FASTEST, SLOWEST, Pace, duration, parse_pace, rate_text

MINUTE = timedelta(minutes=1)
BERLIN = "Europe/Berlin"
NIGHTS = "22:00-06:00 max, else 500/s"
ZONES = ("UTC", BERLIN, "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu")


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("5000/s", 5000.0),
        (" 5,000/s ", 5000.0),
        ("5k/s", 5000.0),
        ("5K / s", 5000.0),
        ("1.5k/s", 1500.0),
        ("2M/s", 2e6),
        ("300/m", 5.0),
        ("100/m", 1.6667),
        ("3600/h", 1.0),
        ("1/s", SLOWEST),
        ("10,000,000/s", FASTEST),
        ("1.5/s", 1.5),
        ("off", None),
        ("MAX", None),
    ],
)
def test_a_rate_is_read_in_all_the_forms_that_people_type(text: str, rate: float | None) -> None:
    assert parse_pace(text).apply(77.0) == rate
    assert parse_pace(text).apply(None) == rate


@pytest.mark.parametrize(
    ("text", "present", "rate"),
    [("+20%", 5000, 6000), ("-50%", 5000, 2500), ("+10%", 1000, 1100), ("+ 0.5 %", 200, 201)],
)
def test_a_change_is_of_the_present_limit(text: str, present: float, rate: float) -> None:
    assert parse_pace(text).apply(present) == rate


@pytest.mark.parametrize(
    ("text", "sentence", "hint"),
    [
        ("", "is no pace", "5000/s"),
        ("5000", "is no pace", "5000/s"),
        ("fast", "is no pace", "5000/s"),
        ("-5/s", "is no pace", "5000/s"),
        ("5,00/s", "is no pace", "5000/s"),
        ("1e3/s", "is no pace", "5000/s"),
        ("nan/s", "is no pace", "5000/s"),
        ("٥/s", "is no pace", "5000/s"),
        ("20%", "is no pace", "+20%"),
        ("5.000/s", "could be read as 5000 or 5", "5000/s"),
        ("1.500k/s", "could be read as 1500 or 1.5", "5k/s"),
        ("0", "would stop the run", "mongosplit pause"),
        ("0/s", "would stop the run", "mongosplit pause"),
        ("Stop", "would stop the run", "mongosplit pause"),
        ("-100%", "would stop the run", "mongosplit pause"),
        ("30/m", "is below the slowest pace, 1 document/s", "mongosplit pace 1/s"),
        ("10,000,001/s", "is absurd", "mongosplit pace off"),
        ("9" * 60 + "/s", "is absurd", "mongosplit pace off"),
    ],
)
def test_a_pace_that_cannot_be_is_refused_with_what_was_typed(
    text: str, sentence: str, hint: str
) -> None:
    with pytest.raises(UsageError) as refused:
        parse_pace(text)
    assert sentence in refused.value.message
    assert f'"{text}"' in refused.value.message
    assert hint in refused.value.hint


@pytest.mark.parametrize(
    ("text", "present", "sentence"),
    [
        ("+20%", None, '"+20%" changes a limit, and none is set'),
        ("-50%", 1.5, '"-50%" of 1.5 documents/s is below the slowest pace, 1 document/s'),
        ("+20%", FASTEST, '"+20%" of 10,000,000 documents/s is absurd'),
    ],
)
def test_a_change_that_leads_nowhere_is_refused(
    text: str, present: float | None, sentence: str
) -> None:
    with pytest.raises(UsageError) as refused:
        parse_pace(text).apply(present)
    assert sentence in refused.value.message
    assert refused.value.hint


def test_long_and_unprintable_text_is_repeated_as_one_short_line() -> None:
    with pytest.raises(UsageError) as refused:
        parse_pace("a\nb\x1b[31m" + "c" * 10_000)
    assert refused.value.message.isprintable()
    assert len(refused.value.message) < 120


PACES = st.one_of(
    st.just(Pace()),
    st.floats(SLOWEST, FASTEST).map(lambda rate: Pace(round(rate, 4))),
)
CHANGES = st.floats(-99.99, 1e6).map(lambda percent: Pace(percent=round(percent, 4)))


@given(PACES | CHANGES)
def test_a_pace_is_read_back_from_its_normal_form(pace: Pace) -> None:
    assert parse_pace(str(pace)) == pace


@given(st.text(max_size=30))
def test_any_text_is_a_pace_or_one_usage_error_with_a_hint(text: str) -> None:
    errors: list[UsageError] = []
    for read in (parse_pace, duration, parse_schedule):
        try:
            read(text)
        except UsageError as refused:
            errors.append(refused)
    assert all(error.hint and error.message.isprintable() for error in errors)


@pytest.mark.parametrize(
    ("rate", "text"),
    [
        (None, "no limit"),
        (5000.0, "5,000 documents/s"),
        (1.0, "1 document/s"),
        (1.6667, "1.67 documents/s"),
        (1e7, "10,000,000 documents/s"),
    ],
)
def test_a_rate_is_shown_as_people_read_it(rate: float | None, text: str) -> None:
    assert rate_text(rate) == text


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1s", 1), ("90s", 90), ("30m", 1800), ("1.5h", 5400), ("2 d", 172_800), ("30d", 2_592_000)],
)
def test_a_duration_is_read(text: str, seconds: int) -> None:
    assert duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("30", "is no duration"),
        ("m", "is no duration"),
        ("-5m", "is no duration"),
        ("0s", "is shorter than 1 second"),
        ("0.5s", "is shorter than 1 second"),
        ("31d", "is longer than 30 days"),
        ("1.000h", "could be read as 1000 or 1"),
    ],
)
def test_a_duration_that_cannot_be_is_refused(text: str, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence) as refused:
        duration(text)
    assert f'"{text}"' in refused.value.message
    assert "30m" in refused.value.hint


def test_a_schedule_has_its_normal_form() -> None:
    typed = "else 500/s,22:00-6:00 OFF , 07:00-00:00 5,000/s,6:00-6:30 5k/s"
    with pytest.raises(UsageError, match="22:00 lies in two windows"):
        parse_schedule(typed)
    schedule = parse_schedule(typed.replace("00:00", "22:00"), "utc")
    assert str(schedule) == "06:00-06:30 5000/s, 07:00-22:00 5000/s, 22:00-06:00 max, else 500/s"
    assert schedule.zone == "UTC"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", '"" is no window'),
        ("else 500/s", "one or more windows and exactly one else"),
        ("22:00-06:00 max", "one or more windows and exactly one else"),
        (f"{NIGHTS}, else 5/s", "one or more windows and exactly one else"),
        ("22:00-06:00 max else 500/s", '"max else 500/s" is no pace'),
        (f"{NIGHTS},", '"500/s," is no pace'),
        ("22-06 max, else 500/s", '"22-06 max" is no window'),
        ("22:00-24:01 max, else 500/s", "is no window"),
        ("25:00-06:00 max, else 500/s", "is no window"),
        ("22:60-06:00 max, else 500/s", "is no window"),
        ("22:00-06:00, else 500/s", "is no window"),
        ("05:00-05:00 max, else 500/s", 'no time lies in "05:00-05:00 max"'),
        ("22:00-06:00 max, 05:59-07:00 5/s, else 500/s", "05:59 lies in two windows"),
        ("22:00-06:00 +20%, else 500/s", '"+20%" is no pace for a schedule'),
        ("22:00-06:00 stop, else 500/s", '"stop" would stop the run'),
        ("22:00-06:00 5/s, else 5/s", "never changes the pace"),
        ("00:00-24:00 max, else 500/s", "never changes the pace"),
    ],
)
def test_a_schedule_that_cannot_be_is_refused(text: str, sentence: str) -> None:
    with pytest.raises(UsageError) as refused:
        parse_schedule(text)
    assert sentence in refused.value.message
    assert refused.value.hint


@pytest.mark.parametrize("zone", ["Europe/Berlim", "", "../etc/passwd", "Europe", "a\0b", "CET/"])
def test_a_zone_that_nobody_knows_is_refused_with_an_example(zone: str) -> None:
    with pytest.raises(UsageError, match="is no known time zone") as refused:
        parse_schedule(NIGHTS, zone)
    assert "Europe/Berlin" in refused.value.hint


def test_a_machine_without_time_zone_data_has_what_comes_along() -> None:
    path = zoneinfo.TZPATH
    try:
        zoneinfo.reset_tzpath([])
        zoneinfo.ZoneInfo.clear_cache()
        assert parse_schedule(NIGHTS, "UTC").at(at("2024-05-06T23:00")) == Pace()
        assert parse_schedule(NIGHTS, "Africa/Nairobi").zone == "Africa/Nairobi"
    finally:
        zoneinfo.reset_tzpath(path)


@pytest.mark.parametrize(
    ("moment", "rate", "change"),
    [
        ("2024-05-06T19:59:59", 500.0, "2024-05-06T20:00"),
        ("2024-05-06T20:00", None, "2024-05-07T04:00"),
        ("2024-03-30T22:00", None, "2024-03-31T04:00"),  # the night is an hour shorter
        ("2024-10-26T21:00", None, "2024-10-27T05:00"),  # and an hour longer
    ],
)
def test_a_schedule_follows_the_wall_clock_of_its_zone(
    moment: str, rate: float | None, change: str
) -> None:
    schedule = parse_schedule(NIGHTS, BERLIN)
    assert schedule.at(at(moment)) == Pace(rate)
    assert schedule.next_change(at(moment)) == at(change)
    assert schedule.next_change(at(moment)).tzinfo is UTC
    assert schedule.at(at(moment).replace(tzinfo=None)) == Pace(rate)
    assert schedule.next_change(at(moment).astimezone(ZoneInfo("Asia/Tokyo"))) == at(change)


def test_a_window_in_the_hour_that_is_skipped_begins_where_the_clock_goes_on() -> None:
    schedule = parse_schedule("02:30-04:00 max, else 500/s", BERLIN)
    assert schedule.next_change(at("2024-03-31T00:00:00.5")) == at("2024-03-31T01:00")
    skipped = parse_schedule("02:15-02:45 max, else 500/s", BERLIN)
    assert skipped.next_change(at("2024-03-31T00:00")) == at("2024-04-01T00:15")
    moments = [at("2024-10-27T00:00")]
    while len(moments) < 6:
        moments.append(skipped.next_change(moments[-1]))
    hours = ["00:15", "00:45", "01:15", "01:45"]  # 02:15 to 02:45 comes twice
    assert moments[1:5] == [at(f"2024-10-27T{hour}") for hour in hours]


@st.composite
def schedules(draw: st.DrawFn) -> Schedule:
    """Windows that do not overlap; one of them may cross midnight."""
    edges = sorted(draw(st.sets(st.integers(0, 1439), min_size=2, max_size=8)))
    around = [*pairwise(edges), (edges[-1], edges[0] or 1440)]
    kept = draw(st.sets(st.sampled_from(around), min_size=1))
    windows = [Window(start, end, draw(PACES)) for start, end in sorted(kept)]
    schedule = Schedule(tuple(windows), draw(PACES), draw(st.sampled_from(ZONES)))
    assume(len(set(table(schedule))) > 1)
    return schedule


def table(schedule: Schedule) -> list[Pace]:
    """The pace of each minute of the day."""
    paces = [schedule.otherwise] * 1440
    for window in schedule.windows:
        minute = window.start
        while minute != window.end % 1440:
            paces[minute] = window.pace
            minute = (minute + 1) % 1440
    return paces


@given(schedules())
def test_a_schedule_is_read_back_from_its_normal_form_and_its_document(schedule: Schedule) -> None:
    assert parse_schedule(str(schedule), schedule.zone) == schedule
    assert Schedule.from_document(schedule.to_document()) == schedule


NEAR_A_JUMP = [at("2024-03-31T01:00"), at("2024-10-27T01:00"), at("2024-04-06T15:00")]
NEAR_A_JUMP += [at("2024-10-05T15:30"), at("2024-03-10T07:00"), at("2024-11-03T06:00")]


@settings(max_examples=100, deadline=None)
@given(schedules(), st.sampled_from(NEAR_A_JUMP), st.integers(-1500, 300), st.integers(0, 59))
def test_a_schedule_says_what_a_table_of_minutes_says(
    schedule: Schedule, jump: datetime, minutes: int, seconds: int
) -> None:
    paces, zone = table(schedule), ZoneInfo(schedule.zone)

    def pace(moment: datetime) -> Pace:
        local = moment.astimezone(zone)
        return paces[local.hour * 60 + local.minute]

    begun = jump + minutes * MINUTE
    change = begun + MINUTE
    while pace(change) == pace(begun):
        assert schedule.at(change) == pace(begun)
        change += MINUTE
    assert schedule.at(change) == pace(change)
    assert schedule.next_change(begun + timedelta(seconds=seconds)) == change
