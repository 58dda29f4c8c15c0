from __future__ import annotations

from datetime import datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.contract.errors import ConfigError
from edge_agent.send.lull import Lulls, Span, parse_hours

BERLIN = ZoneInfo("Europe/Berlin")


def at(text: str) -> datetime:
    return datetime.fromisoformat(text)


def quiet(hours: list[str], now: datetime) -> bool:
    return Lulls(parse_hours(hours), now=lambda: now).why() == "quiet"


@pytest.mark.parametrize(
    ("time", "expected"),
    [("21:59", False), ("22:00", True), ("23:59", True), ("00:00", True), ("05:59", True), ("06:00", False)],
)
def test_hours_go_over_midnight_and_end_before_their_end(time, expected):
    assert quiet(["22:00-06:00"], at(f"2026-03-01T{time}:30")) == expected


@given(st.integers(0, 1439), st.integers(0, 1439), st.integers(0, 1439))
def test_a_span_and_its_complement_share_the_day(begin, end, minute):
    if begin != end:
        assert Span(begin, end).holds(minute) != Span(end, begin).holds(minute)


def test_several_spans_and_a_whole_day():
    spans = ["1:00-2:00", "12:00 - 13:30"]
    found = [quiet(spans, at(f"2026-03-01T{time}")) for time in ("01:30", "02:00", "13:29")]
    assert found == [True, False, True]
    assert quiet(["00:00-24:00"], at("2026-03-01T23:59"))
    assert quiet(["18:00-24:00"], at("2026-03-01T23:59"))
    assert not quiet([], at("2026-03-01T23:59"))


@pytest.mark.parametrize(
    ("day", "expected"),
    [("2026-03-28", 7), ("2026-03-29", 8), ("2026-10-24", 9), ("2026-10-25", 8)],  # the clock moves in the second night
)
def test_daylight_saving_shortens_and_lengthens_a_night(day, expected):
    """22:00-06:00 local time: 7 hours when the clock goes forward, 9 when it goes back."""
    noon = datetime.fromisoformat(f"{day}T12:00").replace(tzinfo=BERLIN).astimezone(timezone.utc)
    minutes = (noon + timedelta(minutes=n) for n in range(24 * 60))
    hours = sum(quiet(["22:00-06:00"], minute.astimezone(BERLIN)) for minute in minutes) / 60
    assert hours == expected


@pytest.mark.parametrize(
    "text", ["", "22:00", "22-6", "25:00-06:00", "22:60-06:00", "22:00-22:00", "24:00-06:00", "12:00-24:30", "a-b"]
)
def test_hours_that_are_none_say_what_to_mend(text):
    with pytest.raises(ConfigError, match=r'quiet_hours: got .* expected times of the day as "22:00-06:00"'):
        parse_hours([text])


def test_a_clock_that_never_ran_knows_no_hours():
    assert not quiet(["00:00-24:00"], at("1970-01-01T00:10"))
    assert quiet(["00:00-24:00"], at("2025-01-01T00:00"))


def test_a_link_is_metered_while_the_file_is_there(tmp_path):
    flag = tmp_path / "metered"
    lulls = Lulls(parse_hours(["00:00-24:00"]), flag)
    assert lulls.why() == "quiet"
    flag.touch()
    assert lulls.why() == "metered"
    flag.unlink()
    assert lulls.why() == "quiet"
    assert Lulls((), flag).why() == ""


def test_a_link_of_which_nobody_may_know_is_taken_for_metered(tmp_path):
    too_long = tmp_path / ("x" * 300)  # as a folder that may not be looked into, but for root as well
    assert Lulls((), too_long).why() == "metered"
