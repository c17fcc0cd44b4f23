"""What appends that meet may count on: one order, no gap, no double."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any
from uuid import UUID

import asyncpg
import msgspec
import pytest

from greffier.errors import Archived, Gone, IdReused, NotFound
from greffier.model.ids import uuid7
from greffier.model.message import Draft, Message
from greffier.read.pages import Where, page
from greffier.store.writer import APPEND_BATCH
from helpers.sessions import Session

Append = Callable[..., Coroutine[Any, Any, Message]]
_decode = msgspec.json.Decoder(list[Message]).decode


async def alone(session: Session, talk: UUID, content: str, id_: UUID | None = None) -> Message:
    """Append as a lone message goes."""
    return await session.messages.append(talk, content=content, id=id_)


async def together(session: Session, talk: UUID, content: str, id_: UUID | None = None) -> Message:
    """Append as a batch goes: with another message behind it."""
    drafts = [Draft(id=id_, content=content), Draft(content=f"{content}, and more")]
    return (await session.messages.append_many(talk, drafts))[0]


@pytest.fixture(params=[alone, together])
def append(request: pytest.FixtureRequest) -> Append:
    """Both ways a message goes to the database."""
    found: Append = request.param
    return found


async def record(session: Session, talk: UUID, after: int = 0) -> list[Message]:
    """Read the whole record after a number, what was superseded too."""
    found = await page(session, talk, None, Where(200, after=after, superseded=True))
    assert not found.has_after
    return _decode(b"[%b]" % found.data)


async def test_two_appends_are_numbered_in_the_order_of_their_commits(
    rivals: list[Session], append: Append
) -> None:
    """The second waits for the first, follows it, and has a rev of its own."""
    first, second, _ = rivals
    talk = (await first.conversations.create(owner="ada")).id
    async with first.open():
        one = await append(first, talk, "one")
        waiting = await second.waits(append(second, talk, "two"))
    two = await waiting

    assert one.seq == 1
    said = await record(second, talk)
    assert [m.content for m in said if "more" not in (m.content or "")] == ["one", "two"]
    assert [m.seq for m in said] == list(range(1, len(said) + 1))
    assert two.parent_seq == two.seq - 1
    assert two.rev == one.rev + 1


async def test_an_append_that_is_undone_gives_its_number_back(
    rivals: list[Session], append: Append
) -> None:
    """Who waited for it takes the number that it had: there is no gap."""
    first, second, _ = rivals
    talk = (await first.conversations.create(owner="ada")).id
    async with first.open(undo=True):
        undone = await append(first, talk, "undone")
        waiting = await second.waits(append(second, talk, "kept"))
    kept = await waiting

    assert undone.seq == kept.seq == 1
    assert undone.rev == kept.rev
    assert "undone" not in [m.content for m in await record(second, talk)]


async def test_the_same_message_twice_at_once_is_one(rivals: list[Session], append: Append) -> None:
    """Both senders are told the same message."""
    first, second, _ = rivals
    talk = (await first.conversations.create(owner="ada")).id
    id_ = uuid7()
    async with first.open():
        one = await first.messages.append(talk, content="once", id=id_)
        waiting = await second.waits(append(second, talk, "once", id_))

    assert await waiting == one
    assert [m.id for m in await record(first, talk)].count(id_) == 1


async def test_the_same_message_after_one_that_was_undone_is_stored(
    rivals: list[Session], append: Append
) -> None:
    """A retry that overtakes the rollback of its first attempt is no replay."""
    first, second, _ = rivals
    talk = (await first.conversations.create(owner="ada")).id
    id_ = uuid7()
    async with first.open(undo=True):
        await append(first, talk, "once", id_)
        waiting = await second.waits(append(second, talk, "once", id_))

    assert (await waiting).seq == 1
    assert [m.id for m in await record(first, talk)].count(id_) == 1


async def test_the_same_id_with_other_words_at_once_is_refused(
    rivals: list[Session], append: Append
) -> None:
    """Whoever commits first has the id; the other is told, and stores nothing at all."""
    first, second, _ = rivals
    talk = (await first.conversations.create(owner="ada")).id
    id_ = uuid7()
    async with first.open():
        await first.messages.append(talk, content="these words", id=id_)
        waiting = await second.waits(append(second, talk, "others", id_))

    with pytest.raises(IdReused):
        await waiting
    assert [m.content for m in await record(first, talk)] == ["these words"]


async def test_who_reads_after_a_number_never_misses_one(
    rivals: list[Session], append: Append
) -> None:
    """A number that is taken but not committed is not passed by: the next one waits behind it."""
    first, second, reader = rivals
    talk = (await first.conversations.create(owner="ada")).id
    read: list[int] = []

    async def follow() -> None:
        read.extend(m.seq for m in await record(reader, talk, read[-1] if read else 0))

    await append(first, talk, "zero")
    await follow()
    before = list(read)
    async with first.open():
        await append(first, talk, "stopped before its commit")
        waiting = await second.waits(append(second, talk, "behind it"))
        await follow()
        assert read == before
    await follow()
    await waiting
    await follow()

    assert read == [m.seq for m in await record(first, talk)]


async def test_an_append_after_an_erasure_is_told_that_all_is_gone(
    rivals: list[Session], append: Append
) -> None:
    """It waited for the row, and there is none any more: nothing comes back."""
    first, second, _ = rivals
    talk = (await first.conversations.create(owner="ada")).id
    async with first.open():
        await first.conversations.erase(talk)
        waiting = await second.waits(append(second, talk, "too late"))

    with pytest.raises(Gone):
        await waiting


async def test_an_erasure_takes_what_was_just_said_along(
    rivals: list[Session], append: Append
) -> None:
    """An append that commits before it was on record and is gone; an erased id stays gone."""
    first, second, _ = rivals
    talk = (await first.conversations.create(owner="ada")).id
    async with first.open():
        await append(first, talk, "just in time")
        waiting = await second.waits(second.conversations.erase(talk))
    await waiting

    assert await first.live.fetchval("select count(*) from messages") == 0
    with pytest.raises(Gone):
        await append(first, talk, "again")


async def test_an_append_after_archiving_is_refused(rivals: list[Session], append: Append) -> None:
    """It is decided by what stands once the row is ours, not by what stood when we came."""
    first, second, _ = rivals
    talk = (await first.conversations.create(owner="ada")).id
    async with first.open():
        await first.conversations.archive(talk)
        waiting = await second.waits(append(second, talk, "too late"))

    with pytest.raises(Archived):
        await waiting
    assert await record(first, talk) == []


async def test_who_left_while_their_append_waited_says_nothing(rivals: list[Session]) -> None:
    """Leaving takes effect at its commit, also for words that were already on their way."""
    first, second, _ = rivals
    talk = (
        await first.conversations.create(owner="ada", kind="room", participants={"bob": "member"})
    ).id
    for say in (
        second.messages.append(talk, content="one more thing", actor="bob"),
        second.messages.append_many(
            talk, [Draft(content="one"), Draft(content="two")], actor="bob"
        ),
    ):
        async with first.open():
            await first.conversations.leave(talk, "bob", actor="bob")
            waiting = await second.waits(say)
        with pytest.raises(NotFound):
            await waiting
        await first.conversations.join(talk, "bob")

    assert {m.role for m in await record(first, talk)} == {"system"}


async def test_who_leaves_while_their_append_is_stored_has_said_it(
    rivals: list[Session], append: Append
) -> None:
    """What was acknowledged stays, before the message that tells of the leaving."""
    first, second, _ = rivals
    talk = (
        await first.conversations.create(owner="ada", kind="room", participants={"bob": "member"})
    ).id
    async with first.open():
        await append(first, talk, "last words")
        waiting = await second.waits(second.conversations.leave(talk, "bob", actor="bob"))
    await waiting

    said = await record(first, talk)
    assert said[0].content == "last words"
    assert said[-1].metadata == {"greffier_event": "left", "user_id": "bob"}


async def test_batches_of_the_same_conversations_never_deadlock(rivals: list[Session]) -> None:
    """Rows are locked in the order of their ids, whatever the order in the batch."""
    first, second, third = rivals
    low, high = sorted([(await first.conversations.create(owner="ada")).id for _ in range(2)])

    async def batch(session: Session, *talks: UUID) -> list[asyncpg.Record]:
        ids = [uuid7() for _ in talks]
        many = len(talks)
        return await session.live.fetch(
            APPEND_BATCH, 0, list(talks), None, [1] * many, ids, [id_.bytes for id_ in ids],
            ["user"] * many, None, None, ["ada"] * many, ["hello"] * many, None, None, None, None,
            None, None, None, False, True,
        )  # fmt: skip

    async with first.open():
        await first.live.execute("select from conversations where id = $1 for no key update", low)
        backward = await second.waits(batch(second, high, low))
        # It waits for the first in order, and holds nothing that comes later.
        await third.live.execute(
            "select from conversations where id = $1 for no key update nowait", high
        )
        forward = await third.waits(batch(third, low, high))
    rows = [*await backward, *await forward]

    assert [row["outcome"] for row in rows] == ["stored"] * 4
    assert sorted(row["seq"] for row in rows) == [1, 1, 2, 2]
