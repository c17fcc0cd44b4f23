"""What two who make, archive or erase a conversation at once may count on."""

from __future__ import annotations

import asyncio
from uuid import UUID

import pytest

from greffier.errors import Gone, IdReused, SubjectTaken
from greffier.library import Greffier
from greffier.model.ids import uuid7
from greffier.store.database import VERB_CONNECTIONS, open_database
from helpers.sessions import Session, until_waiting


async def slots(session: Session) -> list[UUID]:
    """Which conversations have their subject."""
    return [r[0] for r in await session.live.fetch("select conversation_id from subject_slots")]


async def test_two_who_create_the_same_conversation_have_one(rivals: list[Session]) -> None:
    """The same request under the same id: both are given it, once."""
    first, second, _ = rivals
    id_ = uuid7()
    async with first.open():
        made = await first.conversations.create(owner="ada", id=id_, title="Plans", subject="maths")
        waiting = await second.waits(
            second.conversations.create(owner="ada", id=id_, title="Plans", subject="maths")
        )

    assert await waiting == made
    assert await first.live.fetchval("select list_rev from users where id = 'ada'") == 1


async def test_another_conversation_under_the_same_id_at_once_is_refused(
    rivals: list[Session],
) -> None:
    """An id is the first one's, also for those who came before it was committed."""
    first, second, _ = rivals
    id_ = uuid7()
    async with first.open():
        await first.conversations.create(owner="ada", id=id_)
        waiting = await second.waits(second.conversations.create(owner="bob", id=id_))

    with pytest.raises(IdReused):
        await waiting


async def test_a_creation_that_is_undone_leaves_its_id_free(rivals: list[Session]) -> None:
    """Who waited for it makes the conversation."""
    first, second, _ = rivals
    id_ = uuid7()
    async with first.open(undo=True):
        await first.conversations.create(owner="ada", id=id_)
        waiting = await second.waits(second.conversations.create(owner="bob", id=id_))

    assert (await waiting).owner_id == "bob"


async def test_an_id_that_is_being_erased_cannot_be_created_again(rivals: list[Session]) -> None:
    """Whoever waits for an erasure finds the id gone, not free."""
    first, second, _ = rivals
    id_ = uuid7()
    await first.conversations.create(owner="ada", id=id_, subject="maths")
    async with first.open():
        await first.conversations.erase(id_)
        # The row still stands for others, so the same request would find it; a subject waits.
        waiting = await second.waits(second.say("maths", "Bonjour", user="ada"))
    said = await waiting

    assert said.conversation_id != id_
    with pytest.raises(Gone):
        await first.conversations.create(owner="ada", id=id_, subject="maths")


async def test_two_who_open_a_subject_at_once_have_one_conversation_on_it(
    rivals: list[Session],
) -> None:
    """The second is told that there is one, and makes none."""
    first, second, _ = rivals
    async with first.open():
        made = await first.conversations.create(owner="ada", subject="maths")
        waiting = await second.waits(second.conversations.create(owner="ada", subject="maths"))

    with pytest.raises(SubjectTaken):
        await waiting
    assert await slots(first) == [made.id]


async def test_a_subject_whose_creation_is_undone_is_free(rivals: list[Session]) -> None:
    """Who waited for it has the subject."""
    first, second, _ = rivals
    async with first.open(undo=True):
        await first.conversations.create(owner="ada", subject="maths")
        waiting = await second.waits(second.conversations.create(owner="ada", subject="maths"))

    made = await waiting
    assert await slots(first) == [made.id]


@pytest.mark.parametrize("undo", [False, True], ids=["committed", "undone"])
async def test_fifty_first_messages_on_a_subject_make_one_conversation(
    rivals: list[Session], database: str, undo: bool
) -> None:
    """However many clients begin at once, and whatever becomes of the first of them."""
    first, watch, _ = rivals
    async with open_database(database) as store:
        g = Greffier(store)
        async with first.open(undo=undo):
            await first.say("maths", "first", user="ada")
            clients = [
                asyncio.create_task(g.say("maths", f"from {n}", user="ada", id=uuid7()))
                for n in range(50)
            ]
            # As many as have a connection stand before the slot; the others queue behind them.
            await until_waiting(watch.live, VERB_CONNECTIONS)
        said = await asyncio.gather(*clients)

    assert len({m.conversation_id for m in said}) == 1
    start = 1 if undo else 2
    assert sorted(m.seq for m in said) == list(range(start, start + 50))
    assert len((await first.conversations.list(user="ada")).data) == 1


async def test_the_same_first_message_twice_at_once_is_one(rivals: list[Session]) -> None:
    """A retry while the first attempt is still under way makes no second conversation."""
    first, second, _ = rivals
    id_ = uuid7()
    async with first.open():
        said = await first.say("maths", "Bonjour", user="ada", id=id_)
        waiting = await second.waits(second.say("maths", "Bonjour", user="ada", id=id_))

    assert await waiting == said


async def test_archiving_and_bringing_back_on_one_subject_take_turns(rivals: list[Session]) -> None:
    """Both take the subject before their rows: one waits for the other, and neither for ever."""
    first, second, _ = rivals
    old = await first.conversations.create(owner="ada", subject="maths")
    await first.conversations.archive(old.id)
    new = await first.conversations.create(owner="ada", subject="maths")
    async with first.open():
        await first.conversations.archive(new.id)
        waiting = await second.waits(second.conversations.update(old.id, archived=False))
    await waiting
    assert await slots(first) == [old.id]

    async with first.open():
        await first.conversations.archive(old.id)
        waiting = await second.waits(second.conversations.update(new.id, archived=False))
        # The one that waits for the subject holds no conversation: we take both.
        await first.live.execute("select from conversations for no key update nowait")
    await waiting
    assert await slots(first) == [new.id]


async def test_of_two_who_bring_a_conversation_back_on_one_subject_one_does(
    rivals: list[Session],
) -> None:
    """There is one active conversation on it, and the other stays archived."""
    first, second, _ = rivals
    talks = []
    for _ in range(2):
        made = await first.conversations.create(owner="ada", subject="maths")
        talks.append((await first.conversations.archive(made.id)).id)
    async with first.open():
        await first.conversations.update(talks[0], archived=False)
        waiting = await second.waits(second.conversations.update(talks[1], archived=False))

    with pytest.raises(SubjectTaken):
        await waiting
    assert await slots(first) == [talks[0]]


async def test_archiving_and_bringing_back_one_conversation_take_turns(
    rivals: list[Session],
) -> None:
    """Whoever comes second decides; the subject is taken exactly when it is active."""
    first, second, _ = rivals
    talk = (await first.conversations.create(owner="ada", subject="maths")).id
    async with first.open():
        await first.conversations.archive(talk)
        waiting = await second.waits(second.conversations.update(talk, archived=False))
    assert (await waiting).archived_at is None
    assert await slots(first) == [talk]

    await first.conversations.archive(talk)
    async with first.open():
        await first.conversations.update(talk, archived=False)
        waiting = await second.waits(second.conversations.archive(talk))
    assert (await waiting).archived_at is not None
    assert await slots(first) == []


async def test_words_on_a_subject_that_is_archived_meanwhile_begin_a_new_conversation(
    rivals: list[Session],
) -> None:
    """They are neither refused nor put into the archive."""
    first, second, _ = rivals
    old = await first.say("maths", "Bonjour", user="ada")
    async with first.open():
        await first.conversations.archive(old.conversation_id)
        waiting = await second.waits(second.say("maths", "Rebonjour", user="ada"))
    new = await waiting

    assert new.conversation_id != old.conversation_id
    assert new.seq == 1
    assert await slots(first) == [new.conversation_id]


async def test_a_conversation_that_is_archived_while_words_are_on_their_way_has_them(
    rivals: list[Session],
) -> None:
    """They were first; archiving waits for them."""
    first, second, _ = rivals
    old = await first.say("maths", "Bonjour", user="ada")
    async with first.open():
        said = await first.say("maths", "and more", user="ada")
        waiting = await second.waits(second.conversations.archive(old.conversation_id))

    assert (await waiting).message_count == said.seq == 2


async def test_an_erasure_while_it_is_brought_back_leaves_the_subject_free(
    rivals: list[Session],
) -> None:
    """No subject points to a conversation that is gone: the next words begin a new one."""
    first, second, third = rivals
    talk = (await first.say("maths", "Bonjour", user="ada")).conversation_id
    await first.conversations.archive(talk)
    async with first.open():
        await first.conversations.update(talk, archived=False)
        waiting = await second.waits(second.conversations.erase(talk))
    await waiting

    assert await slots(first) == []
    said = await third.say("maths", "Rebonjour", user="ada")
    assert (said.conversation_id != talk, said.seq) == (True, 1)


async def test_bringing_back_what_is_being_erased_finds_it_gone(rivals: list[Session]) -> None:
    """And takes no subject for it."""
    first, second, _ = rivals
    talk = (await first.say("maths", "Bonjour", user="ada")).conversation_id
    await first.conversations.archive(talk)
    async with first.open():
        await first.conversations.erase(talk)
        waiting = await second.waits(second.conversations.update(talk, archived=False))

    with pytest.raises(Gone):
        await waiting
    assert await slots(first) == []


async def test_two_erasures_at_once_are_one(rivals: list[Session]) -> None:
    """The second is told that it is gone."""
    first, second, _ = rivals
    talk = (await first.say("maths", "Bonjour", user="ada")).conversation_id
    async with first.open():
        await first.conversations.erase(talk)
        waiting = await second.waits(second.conversations.erase(talk))

    with pytest.raises(Gone):
        await waiting
