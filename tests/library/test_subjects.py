"""What somebody who speaks on a subject may count on: one conversation, and each word once."""

from __future__ import annotations

import asyncio
from uuid import UUID

import pytest
import pytest_asyncio

from greffier.change.conversation import patch
from greffier.errors import AgentFixed, IdReused, Invalid, SubjectTaken
from greffier.library import Greffier
from greffier.model.conversation import ConversationPatch
from greffier.model.ids import uuid7

TUTOR, CRITIC = UUID(int=1), UUID(int=2)


@pytest_asyncio.fixture(autouse=True)
async def agents(g: Greffier) -> None:
    """A tutor and a critic."""
    for id_, name in ((TUTOR, "Tutor"), (CRITIC, "Critic")):
        await g.agents.create(id=id_, name=name, provider="echo", model="echo")


async def test_the_first_words_make_the_conversation(g: Greffier) -> None:
    """It is an assistant's, on that subject; what follows goes there too."""
    first = await g.say("maths", "what is 6 x 7?", user="ada", agent=TUTOR)
    second = await g.say("maths", "and 7 x 8?", user="ada")

    assert (first.seq, second.seq) == (1, 2)
    assert first.conversation_id == second.conversation_id
    assert (first.role, first.author_id) == ("user", "ada")
    found = await g.conversations.get(first.conversation_id, actor="ada")
    assert (found.kind, found.subject, found.agent_id) == ("assistant", "maths", TUTOR)
    assert (found.owner_id, found.message_count, found.rev) == ("ada", 2, 3)


async def test_first_words_from_many_sides_at_once_make_one_conversation(g: Greffier) -> None:
    """Ten windows that open together end up in one, and nothing that was said in them is lost."""
    said = await asyncio.gather(*(g.say("maths", f"{n}", user="ada") for n in range(10)))

    assert len({message.conversation_id for message in said}) == 1
    assert sorted(message.seq for message in said) == list(range(1, 11))
    assert len((await g.conversations.list(user="ada")).data) == 1


async def test_a_subject_is_of_one_person(g: Greffier) -> None:
    """Others speak on it elsewhere, and so does the same person on another."""
    said = [
        await g.say("maths", "hello", user="ada"),
        await g.say("maths", "hello", user="bob"),
        await g.say("music", "hello", user="ada"),
    ]

    assert len({message.conversation_id for message in said}) == 3
    listed = await g.conversations.list(user="ada", subject="maths")
    assert [one.id for one in listed.data] == [said[0].conversation_id]


async def test_one_is_active_on_a_subject_at_a_time(g: Greffier) -> None:
    """A second is refused, made anew or brought back; an archived one leaves the subject free."""
    first = await g.conversations.create(owner="ada", subject="maths")
    with pytest.raises(SubjectTaken):
        await g.conversations.create(owner="ada", subject="maths")

    await g.conversations.archive(first.id)
    second = await g.conversations.create(owner="ada", subject="maths")

    with pytest.raises(SubjectTaken):
        await g.conversations.update(first.id, archived=False)
    await g.conversations.erase(second.id)
    back = await g.conversations.update(first.id, archived=False)
    assert back.archived_at is None
    assert (await g.say("maths", "hello", user="ada")).conversation_id == first.id


async def test_words_sent_again_are_found_wherever_they_were_said(g: Greffier) -> None:
    """Also in a conversation archived meanwhile: an old outbox begins nothing new."""
    message_id = uuid7()
    first = await g.say("maths", "hello", user="ada", id=message_id)
    await g.conversations.archive(first.conversation_id)

    again = await g.say("maths", "hello", user="ada", id=message_id)
    assert again == first
    assert (await g.conversations.list(user="ada")).data == []

    second = await g.say("maths", "anybody there?", user="ada")
    assert second.conversation_id != first.conversation_id
    assert await g.say("maths", "hello", user="ada", id=message_id) == first
    with pytest.raises(IdReused):
        await g.say("maths", "something else", user="ada", id=message_id)
    assert (await g.conversations.get(second.conversation_id)).message_count == 1


async def test_words_that_were_erased_are_not_said_again(g: Greffier) -> None:
    """Sent again they are what is left of them, and nothing is made for them."""
    message_id = uuid7()
    said = await g.say("maths", "hello", user="ada", id=message_id)
    await g.messages.delete(said.conversation_id, 1, erase=True)
    await g.conversations.archive(said.conversation_id)

    again = await g.say("maths", "hello", user="ada", id=message_id)

    assert (again.conversation_id, again.seq, again.content) == (said.conversation_id, 1, None)
    assert (await g.conversations.list(user="ada")).data == []


async def test_the_agent_is_chosen_once(g: Greffier) -> None:
    """Another one is refused and nothing said; on a new conversation the choice is free again."""
    said = await g.say("maths", "hello", user="ada", agent=TUTOR)
    with pytest.raises(AgentFixed):
        await g.say("maths", "hello", user="ada", agent=CRITIC)
    with pytest.raises(AgentFixed):
        await patch(g.database, said.conversation_id, ConversationPatch(agent_id=CRITIC), None)
    with pytest.raises(AgentFixed):
        await patch(g.database, said.conversation_id, ConversationPatch(agent_id=None), None)
    await g.say("maths", "hello again", user="ada", agent=TUTOR)
    assert (await g.conversations.get(said.conversation_id)).message_count == 2

    await g.conversations.archive(said.conversation_id)
    anew = await g.say("maths", "hello", user="ada", agent=CRITIC)
    assert (await g.conversations.get(anew.conversation_id)).agent_id == CRITIC


async def test_a_room_that_is_handed_over_leaves_its_subject_behind(g: Greffier) -> None:
    """The subject was the former owner's, who may speak on it anew; the new one's is untouched."""
    room = await g.conversations.create(
        owner="ada", kind="room", subject="maths", participants={"bob": "member"}
    )
    bobs = await g.say("maths", "hello", user="bob")

    await g.conversations.join(room.id, "bob", role="owner", actor="ada")

    assert (await g.conversations.get(room.id)).subject is None
    assert (await g.say("maths", "anew", user="ada")).conversation_id != room.id
    assert (await g.say("maths", "more", user="bob")).conversation_id == bobs.conversation_id


async def test_a_subject_has_a_name(g: Greffier) -> None:
    """An empty one, one too long or that cannot be stored is refused before anything is made."""
    for subject in ("", "x" * 257, "nul\x00"):
        with pytest.raises(Invalid):
            await g.say(subject, "hello", user="ada")
    assert (await g.conversations.list(user="ada")).list_rev == 0


async def test_an_agent_that_is_not_there_is_not_chosen(g: Greffier) -> None:
    """Nor one that was deleted: nothing is said, and the subject is as free as before."""
    await g.agents.delete(CRITIC)
    for nobody in (UUID(int=3), CRITIC):
        with pytest.raises(Invalid) as refused:
            await g.say("maths", "hello", user="ada", agent=nobody)
        assert [one.code for one in refused.value.problems] == ["unknown-agent"]
    assert (await g.conversations.list(user="ada")).data == []

    said = await g.say("maths", "hello", user="ada", agent=TUTOR)
    await g.agents.delete(TUTOR)
    again = await g.say("maths", "hello", user="ada", id=said.id, agent=TUTOR)
    assert again.seq == 1
