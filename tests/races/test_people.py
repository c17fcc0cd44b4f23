"""What people who come and go at once may count on."""

from __future__ import annotations

from uuid import UUID

import pytest

from greffier.errors import Forbidden, Gone, NotFound
from helpers.sessions import Session


async def room(session: Session, **participants: str) -> UUID:
    """A room of ada's with these people in it."""
    made = await session.conversations.create(owner="ada", kind="room", participants=participants)
    return made.id


async def people(session: Session, talk: UUID) -> set[str]:
    """Who is in it."""
    return {p.user_id for p in await session.conversations.participants(talk)}


async def test_the_last_use_of_an_invitation_lets_one_in(rivals: list[Session]) -> None:
    """Of two who bring it at once, the second finds it used up."""
    first, second, _ = rivals
    talk = await room(first)
    token = (await first.conversations.invite(talk, max_uses=1)).token
    async with first.open():
        await first.conversations.accept(token, user="bob")
        waiting = await second.waits(second.conversations.accept(token, user="eve"))

    with pytest.raises(NotFound):
        await waiting
    assert await people(first, talk) == {"ada", "bob"}


async def test_a_use_that_is_undone_is_not_used_up(rivals: list[Session]) -> None:
    """Who waited for it comes in by it."""
    first, second, _ = rivals
    talk = await room(first)
    token = (await first.conversations.invite(talk, max_uses=1)).token
    async with first.open(undo=True):
        await first.conversations.accept(token, user="bob")
        waiting = await second.waits(second.conversations.accept(token, user="eve"))
    await waiting

    assert await people(first, talk) == {"ada", "eve"}


async def test_somebody_who_accepts_twice_at_once_uses_one_use(rivals: list[Session]) -> None:
    """A doubled click leaves room for the next."""
    first, second, third = rivals
    talk = await room(first)
    token = (await first.conversations.invite(talk, max_uses=2)).token
    async with first.open():
        await first.conversations.accept(token, user="bob")
        waiting = await second.waits(second.conversations.accept(token, user="bob"))
    await waiting
    await third.conversations.accept(token, user="eve")

    assert await people(first, talk) == {"ada", "bob", "eve"}
    joined = await first.messages.recent(talk)
    assert [m.content for m in joined.data] == ["bob joined", "eve joined"]


async def test_an_invitation_to_what_is_being_erased_leads_nowhere(rivals: list[Session]) -> None:
    """Nobody joins a conversation that is gone."""
    first, second, _ = rivals
    talk = await room(first)
    token = (await first.conversations.invite(talk)).token
    async with first.open():
        await first.conversations.erase(talk)
        waiting = await second.waits(second.conversations.accept(token, user="bob"))

    with pytest.raises(NotFound):
        await waiting
    assert (await first.conversations.list(user="bob")).data == []


async def test_two_who_join_at_once_are_told_one_after_the_other(rivals: list[Session]) -> None:
    """Each joining is a message and a rev of its own."""
    first, second, _ = rivals
    talk = await room(first)
    async with first.open():
        one = await first.conversations.join(talk, "bob")
        waiting = await second.waits(second.conversations.join(talk, "eve"))

    assert await waiting == one + 1
    found = await first.messages.recent(talk)
    assert [(m.seq, m.content) for m in found.data] == [(1, "bob joined"), (2, "eve joined")]


async def test_who_joins_two_rooms_at_once_has_both_in_their_list(rivals: list[Session]) -> None:
    """The list counts both, in the order of their commits."""
    first, second, _ = rivals
    one, other = await room(first), await room(first)
    async with first.open():
        await first.conversations.join(one, "bob")
        waiting = await second.waits(second.conversations.join(other, "bob"))
    await waiting

    found = await first.conversations.list(user="bob")
    assert {c.id for c in found.data} == {one, other}
    assert found.list_rev == 2


async def test_a_room_that_is_handed_over_twice_at_once_has_one_owner(
    rivals: list[Session],
) -> None:
    """The second is decided by who owns it then: the former owner no longer may."""
    first, second, _ = rivals
    talk = await room(first, bob="member", eve="member")
    async with first.open():
        await first.conversations.join(talk, "bob", role="owner", actor="ada")
        waiting = await second.waits(
            second.conversations.join(talk, "eve", role="owner", actor="ada")
        )

    with pytest.raises(Forbidden):
        await waiting
    assert (await first.conversations.get(talk)).owner_id == "bob"


async def test_who_is_removed_while_they_leave_is_removed_once(rivals: list[Session]) -> None:
    """The room is told once."""
    first, second, _ = rivals
    talk = await room(first, bob="member")
    async with first.open():
        await first.conversations.leave(talk, "bob", actor="bob")
        waiting = await second.waits(second.conversations.leave(talk, "bob", actor="ada"))

    with pytest.raises(NotFound):
        await waiting
    assert [m.content for m in (await first.messages.recent(talk)).data] == ["bob left"]


async def test_nobody_joins_what_is_being_erased(rivals: list[Session]) -> None:
    """It is gone, and no list shows it."""
    first, second, _ = rivals
    talk = await room(first)
    async with first.open():
        await first.conversations.erase(talk)
        waiting = await second.waits(second.conversations.join(talk, "bob"))

    with pytest.raises(Gone):
        await waiting
    assert (await first.conversations.list(user="bob")).data == []


async def test_a_room_that_is_handed_over_frees_its_subject(rivals: list[Session]) -> None:
    """A subject is its owner's: words on it that waited begin a conversation of their own."""
    first, second, _ = rivals
    made = await first.conversations.create(
        owner="ada", kind="room", subject="maths", participants={"bob": "member"}
    )
    async with first.open():
        await first.conversations.join(made.id, "bob", role="owner", actor="ada")
        waiting = await second.waits(second.say("maths", "Bonjour", user="ada"))

    assert (await waiting).conversation_id != made.id
    assert (await first.conversations.get(made.id)).subject is None


async def test_a_room_handed_over_while_it_is_brought_back_takes_no_subject(
    rivals: list[Session],
) -> None:
    """It has none any more, so nothing keeps it archived and nobody's subject is taken."""
    first, second, _ = rivals
    made = await first.conversations.create(
        owner="ada", kind="room", subject="maths", participants={"bob": "member"}
    )
    await first.conversations.archive(made.id)
    async with first.open():
        await first.conversations.join(made.id, "bob", role="owner", actor="ada")
        waiting = await second.waits(second.conversations.update(made.id, archived=False))

    assert (await waiting).archived_at is None
    assert await first.live.fetchval("select count(*) from subject_slots") == 0
