"""Who is online and who types: no ghosts beyond a lease, no flapping within a grace."""

from __future__ import annotations

from uuid import UUID

import pytest

from greffier.publish.signals import GRACE, LEASE, TYPING, Signals

TALK = UUID("0197f0c8-7a10-7bbb-8f6e-1d2c3b4a5968")


class Clock:
    """Seconds, as the test says."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        """Tell them."""
        return self.now


class Heard:
    """What was told to those who follow."""

    def __init__(self) -> None:
        self.changes: list[frozenset[str]] = []
        self.types: list[tuple[str, bool]] = []

    def presence(self, users: frozenset[str]) -> None:
        """Note who came or went."""
        self.changes.append(users)

    def typing(self, conversation_id: UUID, user: str, *, on: bool) -> None:
        """Note who types."""
        self.types.append((user, on))


@pytest.fixture
def clock() -> Clock:
    """Time, as a parameter."""
    return Clock()


@pytest.fixture
def heard() -> Heard:
    """Somebody who follows."""
    return Heard()


@pytest.fixture
def signals(clock: Clock, heard: Heard) -> Signals:
    """The signals of one process."""
    made = Signals(None, clock=clock)
    made.listen(heard)
    return made


def word(*users: str) -> str:
    """How another process names users."""
    return ",".join(user.encode().hex() for user in users)


def test_a_killed_process_leaves_no_ghost_beyond_its_lease(
    signals: Signals, clock: Clock, heard: Heard
) -> None:
    """What it said holds for a lease; its users then go, and everybody is told once."""
    signals.hear("+", "other", word("bob"))
    clock.now += LEASE - 1
    signals.sweep(clock.now)
    before = signals.online("bob")
    clock.now += 2
    signals.sweep(clock.now)

    assert before
    assert not signals.online("bob")
    assert heard.changes == [frozenset({"bob"}), frozenset({"bob"})]


def test_a_rolling_restart_does_not_flap(signals: Signals, clock: Clock, heard: Heard) -> None:
    """Who leaves one process and comes to another within the grace never was away."""
    signals.connected("bob")
    signals.disconnected("bob")
    clock.now += GRACE / 2
    signals.hear("+", "other", word("bob"))
    clock.now += GRACE
    signals.sweep(clock.now)

    assert signals.online("bob")
    assert heard.changes == [frozenset({"bob"})]


def test_who_leaves_for_good_is_away_after_the_grace(signals: Signals, clock: Clock) -> None:
    """And not before: a reload of the page is no absence."""
    signals.connected("bob")
    signals.connected("bob")
    signals.disconnected("bob")
    clock.now += GRACE * 2
    signals.sweep(clock.now)
    still = signals.online("bob")
    signals.disconnected("bob")
    clock.now += GRACE + 1
    signals.sweep(clock.now)

    assert still
    assert not signals.online("bob")
    assert [one.status for one in signals.presence(["bob"])] == ["offline"]


def test_a_sign_of_typing_ends_by_itself(signals: Signals, clock: Clock, heard: Heard) -> None:
    """Nobody types for ever because their connection broke."""
    signals.type(TALK, "bob", on=True)
    clock.now += TYPING + 1
    signals.sweep(clock.now)

    assert heard.types == [("bob", True), ("bob", False)]


def test_what_is_said_of_oneself_comes_in_words_that_fit(signals: Signals) -> None:
    """Thousands of users are told in pieces that one notification can carry."""
    for number in range(1000):
        signals.connected(f"user-{number}-{'x' * 20}")

    words = signals._words()

    assert sum(one.count(",") + 1 for one in words) == 1000
    assert max(map(len, words)) < 7000


def test_nonsense_on_the_channel_is_nobody_s_presence(signals: Signals, heard: Heard) -> None:
    """Another program's words change nothing."""
    for text in ("", "hello", "+x", "+x zz", "t1 short", "- -", "+a b c d"):
        signals._heard(text)

    assert heard.changes == []
    assert heard.types == []
