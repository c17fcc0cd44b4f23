"""Each message once, also where a change tells again what its follower has."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

from greffier.client import once as once_module
from greffier.client.once import Once
from greffier.client.wire import Change
from greffier.model.message import Message

TALK = UUID(int=1)
THEN = datetime(2026, 1, 1, tzinfo=UTC)


def said(seq: int, rev: int) -> Message:
    """A message as of a rev."""
    return Message(
        conversation_id=TALK,
        seq=seq,
        id=UUID(int=seq),
        role="user",
        written_by="ada",
        content="words",
        created_at=THEN,
        rev=rev,
    )


def change(
    since: int, rev: int, *messages: Message, superseded: tuple[int, int] | None = None
) -> Change:
    """A change that spans these revs."""
    return Change(
        epoch="e",
        since=since,
        rev=rev,
        messages=list(messages),
        superseded=[superseded] if superseded else [],
    )


def seqs(found: Change) -> list[int]:
    """Which messages it tells of."""
    return [one.seq for one in found.messages]


def test_a_change_that_begins_before_its_follower_repeats_nothing() -> None:
    """Who came to 12 over HTTP is then told of (10, 13]: 11 and 12 are not new, and 13 is."""
    once = Once()
    once.new(change(10, 12, said(1, 11), said(2, 12)), 10)

    found = once.new(change(10, 13, said(1, 11), said(2, 12), said(3, 13)), 12)

    assert (found.since, found.rev, seqs(found)) == (12, 13, [3])


def test_what_was_edited_meanwhile_is_new() -> None:
    """The same message of a later rev is told."""
    once = Once()
    once.new(change(10, 11, said(1, 11)), 10)

    assert seqs(once.new(change(10, 13, said(1, 13)), 11)) == [1]


def test_what_comes_back_to_the_path_is_new() -> None:
    """It is what it was, and it had left."""
    once = Once()
    once.new(change(10, 11, said(1, 11)), 10)
    once.new(change(11, 12, superseded=(1, 1)), 11)

    assert seqs(once.new(change(11, 13, said(1, 11)), 12)) == [1]


def test_a_change_that_fits_is_left_as_it_is() -> None:
    """Nothing is left out of what begins where its follower stands, nor of a reset."""
    once = Once()
    first = change(10, 11, said(1, 11))

    assert once.new(first, 10) is first
    assert seqs(once.new(change(11, 12, said(1, 11)), 11)) == [1]
    assert once.new(reset := Change(epoch="f", since=0, rev=3, reset=True), 12) is reset
    assert seqs(once.new(change(2, 12, said(1, 11)), 3)) == [1]


def test_what_is_remembered_is_bounded() -> None:
    """The latest are."""
    once = Once()
    for number in range(1, once_module.REMEMBERED + 10):
        once.new(change(number, number + 1, said(number, number + 1)), number)

    assert len(once._known) == once_module.REMEMBERED
    assert min(once._known) == 10
