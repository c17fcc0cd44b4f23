"""Promise: tries come at the pace of Standard Webhooks, apart from each other, as asked for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as some

from greffier.model.retry import DAY, STANDARD, Retry

_share = some.floats(0, 1)


def test_ten_tries_come_in_three_days() -> None:
    """At once, after 5 s, 5 min, 30 min, 2 h, 5 h, 10 h, 14 h, 20 h and 24 h; then none."""
    waits = [STANDARD.wait(tries, random=0.5) for tries in range(11)]

    assert waits == [0, 5, 300, 1800, 7200, 18000, 36000, 50400, 72000, 86400, None]


@given(some.integers(0, 9), _share)
def test_chance_moves_a_try_by_a_fifth_at_most(tries: int, share: float) -> None:
    """So that what failed together does not come back together."""
    plain = STANDARD.wait(tries, random=0.5)
    wait = STANDARD.wait(tries, random=share)

    assert plain is not None
    assert wait is not None
    assert 0.8 * plain - 1e-6 <= wait <= 1.2 * plain + 1e-6


@given(some.integers(1, 9), _share, some.floats(0, 1e12))
def test_who_asks_for_time_is_given_it_but_not_for_ever(
    tries: int, share: float, asked: float
) -> None:
    """Never earlier than asked, never later than a day and a fifth, never below the step before."""
    wait = STANDARD.wait(tries, random=share, retry_after=asked)

    assert wait is not None
    assert wait >= min(asked, DAY)
    assert STANDARD.delays[tries - 1] <= wait <= 1.2 * DAY


@pytest.mark.parametrize(("tries", "wait"), [(1, 0.0), (2, 5.0), (5, 7200.0), (9, 72000.0)])
def test_who_always_asks_for_no_time_does_not_use_all_tries_up(tries: int, wait: float) -> None:
    """Each wait is at least the step before."""
    assert STANDARD.wait(tries, random=0.0, retry_after=0.0) == wait


@pytest.mark.parametrize(
    ("most", "tries", "wait"),
    [(3, 2, 300.0), (3, 3, None), (1, 1, None), (12, 10, DAY), (12, 11, DAY), (12, 12, None)],
)
def test_an_endpoint_may_have_fewer_or_more_tries(
    most: int, tries: int, wait: float | None
) -> None:
    """The last delay is repeated."""
    assert STANDARD.wait(tries, random=0.5, most=most) == wait


def test_another_schedule_is_another_value() -> None:
    """For a test, or for who wants it faster."""
    quick = Retry(delays=(0.0, 1.0), jitter=0.0)

    assert [quick.wait(tries, random=0.9) for tries in range(3)] == [0.0, 1.0, None]
    assert quick.wait(5, random=0.1, retry_after=3.0, most=9) == 3.0
