"""Times as exports write them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from greffier.imports.times import TimeError, read_time

PARIS = ZoneInfo("Europe/Paris")
AT = datetime(2024, 1, 7, 12, 18, 35, 775304, tzinfo=UTC)


@pytest.mark.parametrize(
    "value",
    [
        1704629915.775304,
        "1704629915.775304",
        1704629915775304,
        1704629915775304000,
        "2024-01-07T12:18:35.775304Z",
        "2024-01-07 13:18:35.775304+01:00",
    ],
)
def test_a_point_in_time_is_read_to_the_microsecond(value: Any) -> None:
    """Seconds, micro- and nanoseconds since 1970, and RFC 3339, as number or text."""
    assert read_time(value, None) == AT


def test_milliseconds_are_told_from_seconds_by_their_size() -> None:
    """A number of seconds that large would be thousands of years away."""
    assert read_time(1704629915775, None) == AT.replace(microsecond=775000)
    assert read_time(1704629915, None) == AT.replace(microsecond=0)


@pytest.mark.parametrize("value", [None, ""])
def test_no_time_is_none(value: Any) -> None:
    """Nothing there is no fault."""
    assert read_time(value, None) is None


def test_a_local_time_needs_its_zone() -> None:
    """Without one nobody knows when it was, and no zone is guessed."""
    with pytest.raises(TimeError) as caught:
        read_time("2024-01-07 13:18:35", None)
    assert caught.value.reason == "time-without-zone"
    assert read_time("2024-01-07 13:18:35", PARIS) == AT.replace(microsecond=0)


def test_a_time_that_the_clocks_skipped_is_none() -> None:
    """02:30 does not exist on the night of the change; PostgreSQL would move it in silence."""
    with pytest.raises(TimeError) as caught:
        read_time("2024-03-31 02:30:00", PARIS)
    assert caught.value.reason == "time-unreadable"


@pytest.mark.parametrize(
    "value", [True, [], {}, "yesterday", "NaN", 1e30, float("inf"), "31/12/2023"]
)
def test_what_is_no_time_says_so(value: Any) -> None:
    """It is left out and counted, never guessed."""
    with pytest.raises(TimeError) as caught:
        read_time(value, PARIS)
    assert caught.value.reason == "time-unreadable"
