"""The rate limit: so many messages in the long run, so many at once, on a whole machine."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greffier.errors import SettingsError
from greffier.server.ratelimit import Buckets, Rate, judge

RATE = Rate(10, 60, 20)


def test_a_burst_passes_and_what_follows_waits(tmp_path: Path) -> None:
    """Twenty at once, then one every six seconds, and the verdict says when."""
    buckets = Buckets(RATE, tmp_path / "rate")
    burst = [buckets.take("ada", 1, now=100.0) for _ in range(20)]

    refused = buckets.take("ada", 1, now=100.0)
    later = buckets.take("ada", 1, now=106.0)

    assert all(one.allowed for one in burst)
    assert [one.remaining for one in burst] == list(range(19, -1, -1))
    assert not refused.allowed
    assert refused.seconds == pytest.approx(6.0)
    assert later.allowed


def test_users_do_not_share(tmp_path: Path) -> None:
    """One who is out of messages takes nothing from another."""
    buckets = Buckets(RATE, tmp_path / "rate")
    buckets.take("ada", 20, now=1.0)

    assert not buckets.take("ada", 1, now=1.0).allowed
    assert buckets.take("blaise", 20, now=1.0).allowed


def test_a_batch_is_taken_whole_or_not_at_all(tmp_path: Path) -> None:
    """A refused batch costs nothing."""
    buckets = Buckets(RATE, tmp_path / "rate")
    buckets.take("ada", 15, now=1.0)

    assert not buckets.take("ada", 6, now=1.0).allowed
    assert buckets.take("ada", 5, now=1.0).allowed


def test_what_is_given_back_can_be_taken_again(tmp_path: Path) -> None:
    """Replays are free: their cost returns."""
    buckets = Buckets(RATE, tmp_path / "rate")
    buckets.take("ada", 20, now=1.0)

    buckets.give_back("ada", 2, now=1.0)

    assert buckets.take("ada", 2, now=1.0).allowed
    assert not buckets.take("ada", 1, now=1.0).allowed


def test_processes_of_a_machine_share_one_bucket(tmp_path: Path) -> None:
    """What another process took is gone here too."""
    script = (
        "import sys; from pathlib import Path; from greffier.server.ratelimit import Buckets, Rate;"
        "print(Buckets(Rate(10, 60, 20), Path(sys.argv[1])).take('ada', 20, now=1.0).allowed)"
    )
    other = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "rate")],
        capture_output=True,
        text=True,
        check=True,
    )

    assert other.stdout.strip() == "True"
    assert not Buckets(RATE, tmp_path / "rate").take("ada", 1, now=1.0).allowed


def test_a_time_from_another_boot_owes_nothing(tmp_path: Path) -> None:
    """The monotonic clock begins anew at each boot; a mark far ahead of it is no debt."""
    buckets = Buckets(RATE, tmp_path / "rate")
    buckets.take("ada", 20, now=1_000_000.0)

    assert buckets.take("ada", 20, now=5.0).allowed


@given(st.lists(st.tuples(st.floats(0, 30), st.integers(1, 5)), max_size=25))
def test_no_window_exceeds_the_bucket(steps: list[tuple[float, int]]) -> None:
    """In every stretch of time at most a burst and what the rate adds meanwhile passes."""
    now, full_at = 1000.0, 0.0
    passed: list[tuple[float, int]] = []
    for pause, cost in steps:
        now += pause
        verdict, full_at = judge(RATE, full_at, now, cost)
        if verdict.allowed:
            passed.append((now, cost))
    for start in range(len(passed)):
        for end in range(start, len(passed)):
            span = passed[end][0] - passed[start][0]
            total = sum(cost for _, cost in passed[start : end + 1])
            assert total <= RATE.burst + span / RATE.spacing + 1e-6


@pytest.mark.parametrize("text", ["", "10", "10/60", "10/60:20", "0/60s:20", "10/60s:-1", "ten"])
def test_a_limit_that_makes_no_sense_is_refused(text: str) -> None:
    """In words that say what it looks like."""
    with pytest.raises(SettingsError, match="10/60s:20"):
        Rate.parse(text)


def test_it_can_be_turned_off() -> None:
    """``off`` is no limit."""
    assert Rate.parse("off") is None
    assert Rate.parse("10/60s:20") == RATE
