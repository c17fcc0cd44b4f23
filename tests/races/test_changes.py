"""What edits, rewinds, deletions and marks that meet may count on: one after the other, whole."""

from __future__ import annotations

from uuid import UUID

import pytest

from greffier.errors import Gone, NotFound, Stale
from helpers.sessions import Session


async def talk_of(session: Session, *contents: str) -> UUID:
    """A room of ada's and bob's in which ada has said this."""
    talk = await session.conversations.create(
        owner="ada", kind="room", participants={"bob": "member"}
    )
    for content in contents:
        await session.messages.append(talk.id, content=content, actor="ada")
    return talk.id


async def active(session: Session, talk: UUID) -> list[tuple[int, str | None]]:
    """What is on the active path."""
    found = await session.messages.recent(talk, limit=100)
    return [(m.seq, m.content) for m in found.data]


async def test_a_rewind_takes_what_was_appended_before_it(rivals: list[Session]) -> None:
    """What was said while it waited leaves the path too, and is counted."""
    first, second, _ = rivals
    talk = await talk_of(first, "one", "two")
    async with first.open():
        await first.messages.append(talk, content="three")
        waiting = await second.waits(second.messages.rewind(talk, after_seq=1))

    assert await waiting == 2
    assert await active(first, talk) == [(1, "one")]


async def test_what_is_appended_after_a_rewind_follows_what_was_kept(
    rivals: list[Session],
) -> None:
    """An append that waited for it stands behind the message rewound to, under the next number."""
    first, second, _ = rivals
    talk = await talk_of(first, "one", "two", "three")
    async with first.open():
        assert await first.messages.rewind(talk, after_seq=1) == 2
        waiting = await second.waits(second.messages.append(talk, content="instead"))
    said = await waiting

    assert (said.seq, said.parent_seq) == (4, 1)
    assert await active(first, talk) == [(1, "one"), (4, "instead")]


async def test_the_same_rewind_twice_at_once_removes_once(rivals: list[Session]) -> None:
    """The second finds nothing left, and is no change."""
    first, second, _ = rivals
    talk = await talk_of(first, "one", "two")
    async with first.open():
        assert await first.messages.rewind(talk, after_seq=1) == 1
        waiting = await second.waits(second.messages.rewind(talk, after_seq=1))

    assert await waiting == 0
    assert len(await first.conversations.branches(talk)) == 1


async def test_two_edits_keep_both_earlier_texts(rivals: list[Session]) -> None:
    """The later one replaces the earlier one's text, not the one it saw when it came."""
    first, second, _ = rivals
    talk = await talk_of(first, "draft")
    async with first.open():
        await first.messages.edit(talk, 1, "better")
        waiting = await second.waits(second.messages.edit(talk, 1, "best"))
    best = await waiting

    assert best.content == "best"
    assert [v.content for v in await first.messages.versions(talk, 1)] == ["draft", "better"]


async def test_an_edit_of_what_has_changed_meanwhile_is_stale(rivals: list[Session]) -> None:
    """With if_rev nothing is overwritten unseen, also when both come at once."""
    first, second, _ = rivals
    talk = await talk_of(first, "draft")
    seen = (await first.messages.get(talk, 1)).rev
    async with first.open():
        await first.messages.edit(talk, 1, "better", if_rev=seen)
        waiting = await second.waits(second.messages.edit(talk, 1, "lost", if_rev=seen))

    with pytest.raises(Stale):
        await waiting
    assert await active(first, talk) == [(1, "better")]


async def test_erasing_a_message_takes_the_text_an_edit_just_replaced(
    rivals: list[Session],
) -> None:
    """An edit that commits before it leaves no earlier text behind."""
    first, second, _ = rivals
    talk = await talk_of(first, "secret")
    async with first.open():
        await first.messages.edit(talk, 1, "harmless")
        waiting = await second.waits(second.messages.delete(talk, 1, erase=True))
    await waiting

    assert await first.live.fetchval("select count(*) from message_versions") == 0
    assert await active(first, talk) == [(1, None)]


async def test_an_edit_of_an_erased_message_finds_none(rivals: list[Session]) -> None:
    """The erasure that it waited for has the last word."""
    first, second, _ = rivals
    talk = await talk_of(first, "secret")
    async with first.open():
        await first.messages.delete(talk, 1, erase=True)
        waiting = await second.waits(second.messages.edit(talk, 1, "again"))

    with pytest.raises(NotFound):
        await waiting
    assert await first.live.fetchval("select count(*) from message_versions") == 0


async def test_an_edit_in_a_conversation_that_is_erased_meanwhile_finds_it_gone(
    rivals: list[Session],
) -> None:
    """Nothing of it comes back."""
    first, second, _ = rivals
    talk = await talk_of(first, "secret")
    async with first.open():
        await first.conversations.erase(talk)
        waiting = await second.waits(second.messages.edit(talk, 1, "again"))

    with pytest.raises(Gone):
        await waiting


async def test_two_deletions_at_once_are_one(rivals: list[Session]) -> None:
    """The message is subtracted from the count once, and the second is no change."""
    first, second, _ = rivals
    talk = await talk_of(first, "one", "two")
    async with first.open():
        rev = await first.messages.delete(talk, 1)
        waiting = await second.waits(second.messages.delete(talk, 1))

    assert await waiting == rev
    assert (await first.conversations.get(talk)).message_count == 1


async def test_a_mark_and_a_deletion_are_two_changes(rivals: list[Session]) -> None:
    """Each has a rev of its own, so that a follower is told of both."""
    first, second, _ = rivals
    talk = await talk_of(first, "one", "two")
    async with first.open():
        rev = await first.messages.delete(talk, 2)
        waiting = await second.waits(second.conversations.read(talk, 2, user="bob"))

    assert await waiting == (2, rev + 1)
    me = (await first.conversations.get(talk, actor="bob")).me
    assert me is not None
    assert me.unread == 0


async def test_a_mark_never_moves_back(rivals: list[Session]) -> None:
    """Two devices that report at once: the further one stands, whichever commits last."""
    first, second, _ = rivals
    talk = await talk_of(first, "one", "two", "three")
    async with first.open():
        far = await first.conversations.read(talk, 3, user="bob")
        waiting = await second.waits(second.conversations.read(talk, 1, user="bob"))

    assert await waiting == far == (3, far.rev)


async def test_a_mark_in_a_conversation_that_is_erased_meanwhile_leaves_nothing(
    rivals: list[Session],
) -> None:
    """No trace of who read what survives the erasure."""
    first, second, _ = rivals
    talk = await talk_of(first, "one")
    async with first.open():
        await first.conversations.erase(talk)
        waiting = await second.waits(second.conversations.read(talk, 1, user="bob"))

    with pytest.raises(Gone):
        await waiting
    assert await first.live.fetchval("select count(*) from read_marks") == 0


async def test_what_is_thought_of_a_message_goes_with_its_erasure(rivals: list[Session]) -> None:
    """A comment that is being written when the message is erased is erased with it."""
    first, second, _ = rivals
    talk = await talk_of(first, "secret")
    async with first.open():
        await first.conversations.rate(talk, -1, user="bob", seq=1, comment="this secret!")
        waiting = await second.waits(second.messages.delete(talk, 1, erase=True))
    await waiting

    assert await first.live.fetchval("select count(*) from feedback") == 0


async def test_nobody_thinks_anything_of_an_erased_message(rivals: list[Session]) -> None:
    """A comment that waited for the erasure finds no message."""
    first, second, _ = rivals
    talk = await talk_of(first, "secret")
    async with first.open():
        await first.messages.delete(talk, 1, erase=True)
        waiting = await second.waits(
            second.conversations.rate(talk, -1, user="bob", seq=1, comment="this secret!")
        )

    with pytest.raises(NotFound):
        await waiting
    assert await first.live.fetchval("select count(*) from feedback") == 0


async def test_what_is_thought_of_a_conversation_goes_with_it(rivals: list[Session]) -> None:
    """The erasure waits for a comment under way, and takes it along."""
    first, second, _ = rivals
    talk = await talk_of(first, "secret")
    async with first.open():
        await first.conversations.rate(talk, 1, user="bob", comment="useful")
        waiting = await second.waits(second.conversations.erase(talk))
    await waiting

    assert await first.live.fetchval("select count(*) from feedback") == 0
