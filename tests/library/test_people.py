"""What people in a conversation may count on: who is in it, who may come in, who has read what."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from greffier.access import SEE_USER
from greffier.change.feedback import LONGEST, unrate
from greffier.change.people import revoke, set_participant
from greffier.errors import Forbidden, Gone, IdReused, Invalid, NotFound, PayloadTooLarge
from greffier.library import Greffier
from greffier.model.ids import uuid7
from greffier.read.changes import changes
from greffier.read.people import invitations
from greffier.store.database import Database
from helpers.long import lengthen
from helpers.postgres import connected


async def a_room(g: Greffier, **participants: str) -> UUID:
    """A room of ada's with these people in it."""
    made = await g.conversations.create(owner="ada", kind="room", participants=participants)
    return made.id


async def roles(g: Greffier, room: UUID) -> dict[str, str]:
    """Who is what in it, in the order they came."""
    return {one.user_id: one.role for one in await g.conversations.participants(room)}


async def unread(g: Greffier, room: UUID, user: str) -> int:
    """How many messages wait for somebody."""
    me = (await g.conversations.get(room, actor=user)).me
    assert me is not None
    return me.unread


async def called(store: Database, user: str, name: str) -> None:
    """Let a user be known by a name."""
    await store.verb(SEE_USER, user, name, None, again=True)


# -- Coming and going


async def test_who_joins_is_announced_to_all(g: Greffier, store: Database) -> None:
    """A system message says so, with what a program needs to say it in its own words."""
    room = await a_room(g)
    await called(store, "bob", "Bob the builder")

    await g.conversations.join(room, "bob", actor="ada")
    await g.conversations.join(room, "eve")

    first, second = (await g.messages.recent(room, actor="bob")).data
    assert (first.role, first.content) == ("system", "Bob the builder joined")
    assert first.metadata == {"greffier_event": "joined", "user_id": "bob"}
    assert (first.author_id, first.written_by, first.seq, first.rev) == (None, "ada", 1, 2)
    assert (second.content, second.written_by) == ("eve joined", "service")
    assert await roles(g, room) == {"ada": "owner", "bob": "member", "eve": "member"}
    assert (await g.conversations.get(room)).message_count == 2


async def test_an_event_is_for_people_and_not_for_a_model(g: Greffier) -> None:
    """A context does without it, and nobody has it among what waits to be read."""
    room = await a_room(g, cleo="viewer")
    await g.conversations.join(room, "bob")
    await g.messages.append(room, content="hello", actor="bob")

    assert [line["content"] for line in (await g.context(room)).messages] == ["hello"]
    assert await unread(g, room, "cleo") == 1


async def test_the_id_of_an_event_is_refused_to_everybody(g: Greffier) -> None:
    """Nothing that is sent later passes for it, nor is taken for having been said."""
    room = await a_room(g)
    await g.conversations.join(room, "bob")
    event = await g.messages.get(room, 1)

    for content in ("bob joined", "something else"):
        with pytest.raises(IdReused):
            await g.messages.append(room, role="system", content=content, id=event.id)


async def test_who_leaves_is_announced_and_sees_nothing_any_more(g: Greffier) -> None:
    """From the rev of the leaving on nothing reaches them, by whatever way they ask."""
    room = await a_room(g, bob="member", cleo="viewer")
    said = await g.messages.append(room, content="hello", actor="bob")

    left = await g.conversations.leave(room, "bob", actor="bob")

    event = (await g.messages.recent(room, actor="cleo")).data[-1]
    assert (event.content, event.rev) == ("bob left", left)
    assert event.metadata == {"greffier_event": "left", "user_id": "bob"}
    asked: dict[str, Callable[[], Awaitable[object]]] = {
        "the conversation": lambda: g.conversations.get(room, actor="bob"),
        "a page": lambda: g.messages.recent(room, actor="bob"),
        "one message": lambda: g.messages.get(room, said.seq, actor="bob"),
        "its versions": lambda: g.messages.versions(room, said.seq, actor="bob"),
        "its readers": lambda: g.messages.readers(room, said.seq, actor="bob"),
        "changes": lambda: changes(g.database, room, "bob", left - 1),
        "who is in it": lambda: g.conversations.participants(room, actor="bob"),
        "branches": lambda: g.conversations.branches(room, actor="bob"),
        "a context": lambda: g.context(room, actor="bob"),
        "counts": lambda: g.conversations.stats(room, actor="bob"),
        "invitations": lambda: invitations(g.database, room, "bob"),
        "a file": lambda: anext(g.conversations.export(room, actor="bob")),
        "saying something": lambda: g.messages.append(room, content="hi", actor="bob"),
        "editing": lambda: g.messages.edit(room, said.seq, "hi", actor="bob"),
        "deleting": lambda: g.messages.delete(room, said.seq, actor="bob"),
        "reading": lambda: g.conversations.read(room, 1, user="bob"),
        "a thumb": lambda: g.conversations.rate(room, 1, user="bob"),
        "inviting": lambda: g.conversations.invite(room, actor="bob"),
        "leaving again": lambda: g.conversations.leave(room, "bob", actor="bob"),
    }
    for what, ask in asked.items():
        try:
            await ask()
        except NotFound:
            continue
        pytest.fail(f"bob still gets at {what}")
    assert (await g.conversations.list(user="bob")).data == []
    assert (await g.conversations.get(room)).rev == left


async def test_who_comes_back_sees_all_that_was_said(g: Greffier) -> None:
    """Also what was said while they were away; what they had read they have read."""
    room = await a_room(g, bob="member")
    await g.messages.append(room, content="one", actor="ada")
    await g.conversations.read(room, 1, user="bob")
    await g.conversations.leave(room, "bob", actor="ada")
    await g.messages.append(room, content="two", actor="ada")

    await g.conversations.join(room, "bob", role="viewer")

    found = await g.messages.recent(room, actor="bob")
    assert [message.content for message in found.data] == ["one", "bob left", "two", "bob joined"]
    assert await unread(g, room, "bob") == 1
    assert list(await roles(g, room)) == ["ada", "bob"]
    assert [one.id for one in (await g.conversations.list(user="bob")).data] == [room]


async def test_a_new_role_is_not_a_new_arrival(g: Greffier) -> None:
    """Who was there already is announced to nobody; the role is changed, in one rev."""
    room = await a_room(g, bob="member")
    joined = (await g.conversations.participants(room))[1].joined_at

    assert await g.conversations.join(room, "bob", role="viewer") == 2
    assert await g.conversations.join(room, "bob", role="viewer") == 2

    assert await roles(g, room) == {"ada": "owner", "bob": "viewer"}
    assert (await g.conversations.participants(room))[1].joined_at == joined
    assert (await g.conversations.get(room)).last_seq == 0


async def test_the_owner_manages_people_and_everybody_may_leave(g: Greffier) -> None:
    """Members bring nobody in and throw nobody out; the owner stays until somebody else is it."""
    room = await a_room(g, bob="member", cleo="viewer")

    for actor, refusal in (("bob", Forbidden), ("cleo", Forbidden), ("eve", NotFound)):
        with pytest.raises(refusal):
            await g.conversations.join(room, "eve", actor=actor)
        with pytest.raises(refusal):
            await g.conversations.join(room, actor, role="owner", actor=actor)
        with pytest.raises(refusal):
            await g.conversations.leave(room, "ada", actor=actor)
    for manager in ("ada", None):
        with pytest.raises(Forbidden):
            await g.conversations.leave(room, "ada", actor=manager)
        with pytest.raises(Forbidden):
            await g.conversations.join(room, "ada", role="member", actor=manager)
        with pytest.raises(NotFound):
            await g.conversations.leave(room, "eve", actor=manager)
    with pytest.raises(NotFound):
        await set_participant(g.database, room, "eve", "member", "ada", must_exist=True)
    await g.conversations.leave(room, "cleo", actor="cleo")
    await g.conversations.leave(room, "bob", actor="ada")

    assert await roles(g, room) == {"ada": "owner"}


async def test_a_participant_is_somebody_in_a_role_there_is(g: Greffier) -> None:
    """An empty name, one that cannot be stored or is too long, and made-up roles are refused."""
    room = await a_room(g)
    for user in ("", "nul\x00", "half\ud800", "x" * 257):
        with pytest.raises(Invalid):
            await g.conversations.join(room, user)
    with pytest.raises(Invalid):
        await g.conversations.join(room, "bob", role="god")  # type: ignore[arg-type]


async def test_a_room_is_handed_over_to_somebody_in_it(g: Greffier) -> None:
    """The new owner manages it, the former stays a member; nothing is said about it in the room."""
    room = await a_room(g, bob="viewer")
    with pytest.raises(Invalid):
        await g.conversations.join(room, "eve", role="owner", actor="ada")

    await g.conversations.join(room, "bob", role="owner", actor="ada")

    assert await roles(g, room) == {"ada": "member", "bob": "owner"}
    found = await g.conversations.get(room, actor="ada")
    assert (found.owner_id, found.last_seq, found.rev) == ("bob", 0, 2)
    with pytest.raises(Forbidden):
        await g.conversations.update(room, title="Mine", actor="ada")
    await g.conversations.leave(room, "ada", actor="bob")
    await g.conversations.erase(room, actor="bob")
    with pytest.raises(Gone):
        await g.conversations.get(room, actor="bob")


async def test_an_assistants_conversation_stays_its_owners(g: Greffier) -> None:
    """Others may read or write in it, and it is handed over to nobody."""
    talk = await g.conversations.create(owner="ada", participants={"bob": "member"})

    with pytest.raises(Invalid):
        await g.conversations.join(talk.id, "bob", role="owner", actor="ada")
    await g.messages.append(talk.id, content="hello", actor="bob")
    with pytest.raises(Forbidden):
        await g.messages.append(talk.id, role="assistant", content="hm", actor="bob")


async def test_a_list_counts_which_conversations_somebody_has(g: Greffier) -> None:
    """Created, joined, left, archived, erased are each one more; what is said in them is none."""

    async def counted(user: str) -> int:
        return (await g.conversations.list(user=user)).list_rev

    room = await a_room(g, bob="member")
    assert (await counted("ada"), await counted("bob"), await counted("eve")) == (1, 1, 0)
    await g.messages.append(room, content="hello", actor="bob")
    await g.conversations.read(room, 1, user="ada")
    await g.conversations.update(room, title="Plans")
    await g.conversations.join(room, "bob", role="viewer")
    assert (await counted("ada"), await counted("bob")) == (1, 1)
    await g.conversations.join(room, "eve")
    assert (await counted("ada"), await counted("eve")) == (1, 1)
    await g.conversations.archive(room)
    assert (await counted("ada"), await counted("bob"), await counted("eve")) == (2, 2, 2)
    await g.conversations.leave(room, "eve")
    await g.conversations.erase(room)
    assert (await counted("ada"), await counted("bob"), await counted("eve")) == (3, 3, 3)


# -- Invitations


async def test_whoever_has_the_token_comes_in(g: Greffier) -> None:
    """In the role the invitation says, announced like anybody else, written by themselves."""
    room = await a_room(g)
    invited = await g.conversations.invite(room, role="viewer", actor="ada")

    found = await g.conversations.accept(invited.token, user="bob")

    assert found.id == room
    assert found.me is not None
    assert found.me.role == "viewer"
    event = (await g.messages.recent(room)).data[0]
    assert (event.content, event.written_by) == ("bob joined", "bob")


async def test_a_token_is_shown_once_and_kept_as_a_hash(g: Greffier, database: str) -> None:
    """Who reads the whole database finds nothing to come in by."""
    room = await a_room(g)
    token = (await g.conversations.invite(room)).token

    assert len(token) > 40
    async with connected(database) as connection:
        texts = await connection.fetch(
            "select i::text from invitations i union all select t::text from invitation_tokens t"
        )
        hashed = await connection.fetchval("select token_hash from invitation_tokens")
    assert len(texts) == 2
    assert not any(token in row[0] or token[4:] in row[0] for row in texts)
    assert hashed == hashlib.sha256(token.encode()).digest()
    (listed,) = await invitations(g.database, room, "ada")
    assert token not in repr(listed)


async def test_an_invitation_ends(g: Greffier, database: str) -> None:
    """Expired, revoked, used up or unknown: one refusal for all, which tells nothing more."""
    room = await a_room(g)
    expired, revoked, used = [await g.conversations.invite(room, max_uses=1) for _ in range(3)]
    async with connected(database) as connection:
        await connection.execute(
            "update invitations set expires_at = now() - interval '1 second' where id = $1",
            expired.id,
        )
    await revoke(g.database, room, revoked.id, "ada")
    await g.conversations.accept(used.token, user="bob")

    for token in (expired.token, revoked.token, used.token, "gri_unknown", "", "gri_é"):
        with pytest.raises(NotFound):
            await g.conversations.accept(token, user="eve")
    assert await roles(g, room) == {"ada": "owner", "bob": "member"}
    assert await invitations(g.database, room, None) == []
    with pytest.raises(NotFound):
        await revoke(g.database, room, revoked.id, "ada")


async def test_who_is_in_already_uses_nothing_up(g: Greffier) -> None:
    """A link clicked twice, or by the owner, is still good for the next; and changes no role."""
    room = await a_room(g, cleo="viewer")
    invited = await g.conversations.invite(room, max_uses=1)
    before = (await g.conversations.get(room)).rev

    for user in ("ada", "cleo"):
        assert (await g.conversations.accept(invited.token, user=user)).id == room
    assert (await g.conversations.get(room)).rev == before
    await g.conversations.accept(invited.token, user="bob")
    await g.conversations.accept(invited.token, user="bob")

    assert await roles(g, room) == {"ada": "owner", "cleo": "viewer", "bob": "member"}


async def test_nobody_invites_above_themselves(g: Greffier) -> None:
    """Members invite members and viewers; viewers and strangers nobody; nobody invites an owner."""
    room = await a_room(g, bob="member", cleo="viewer")
    with pytest.raises(Invalid):
        await g.conversations.invite(room, role="owner", actor="ada")
    with pytest.raises(Forbidden):
        await g.conversations.invite(room, role="viewer", actor="cleo")
    with pytest.raises(NotFound):
        await g.conversations.invite(room, actor="eve")
    await g.conversations.invite(room, role="member", actor="bob")


@pytest.mark.parametrize("how", ["removed", "left", "viewer"])
async def test_an_invitation_does_not_outlive_its_makers_place(g: Greffier, how: str) -> None:
    """Who was removed has no way back of their own making, and who only reads lets no writer in."""
    room = await a_room(g, bob="member")
    theirs = await g.conversations.invite(room, actor="bob")
    owners = await g.conversations.invite(room, actor="ada")
    if how == "viewer":
        await g.conversations.join(room, "bob", role="viewer", actor="ada")
    else:
        await g.conversations.leave(room, "bob", actor="ada" if how == "removed" else "bob")

    for user in ("bob", "eve"):
        if how != "viewer" or user != "bob":
            with pytest.raises(NotFound):
                await g.conversations.accept(theirs.token, user=user)
    assert [one.id for one in await invitations(g.database, room, None)] == [owners.id]
    assert (await g.conversations.accept(owners.token, user="eve")).id == room


async def test_open_invitations_are_seen_by_the_owner_and_by_who_made_them(g: Greffier) -> None:
    """Others' ways in are nobody else's business, nor theirs to close."""
    room = await a_room(g, bob="member", cleo="member")
    first = await g.conversations.invite(room, actor="ada", expires_in=60, max_uses=3)
    second = await g.conversations.invite(room, actor="bob", role="viewer")
    await g.conversations.accept(first.token, user="dan")

    listed = await invitations(g.database, room, "ada")
    assert [one.id for one in listed] == [second.id, first.id]
    assert (listed[1].role, listed[1].uses, listed[1].max_uses) == ("member", 1, 3)
    assert listed[1].expires_at is not None
    assert timedelta() < listed[1].expires_at - datetime.now(UTC) <= timedelta(seconds=60)
    assert [one.id for one in await invitations(g.database, room, "bob")] == [second.id]
    assert await invitations(g.database, room, "cleo") == []
    with pytest.raises(Forbidden):
        await revoke(g.database, room, first.id, "cleo")
    with pytest.raises(NotFound):
        await revoke(g.database, room, uuid7(), "ada")
    await revoke(g.database, room, second.id, "ada")
    assert await invitations(g.database, room, "bob") == []


async def test_an_invitation_is_for_some_time_and_some_people(g: Greffier) -> None:
    """From a second to a year, for one person at least."""
    room = await a_room(g)
    for expires_in in (0.5, 366 * 86400):
        with pytest.raises(Invalid):
            await g.conversations.invite(room, expires_in=expires_in)
    for max_uses in (0, 1 << 31):
        with pytest.raises(Invalid):
            await g.conversations.invite(room, max_uses=max_uses)


async def test_an_erased_conversation_has_no_way_in(g: Greffier) -> None:
    """Its tokens are as unknown as any."""
    room = await a_room(g)
    invited = await g.conversations.invite(room)
    await g.conversations.erase(room)

    with pytest.raises(NotFound):
        await g.conversations.accept(invited.token, user="bob")


# -- Who has read what


async def test_a_mark_goes_forward_never_back_and_not_beyond_the_last(g: Greffier) -> None:
    """Late and doubled reports of other devices do no harm; each advance is one rev."""
    room = await a_room(g, bob="member")
    await g.messages.append_many(room, [{"content": str(number)} for number in range(5)])

    marks = [await g.conversations.read(room, seq, user="bob") for seq in (0, 2, 1, 2, 99, 3)]

    assert marks == [(0, 2), (2, 3), (2, 3), (2, 3), (5, 4), (5, 4)]
    (_, bob) = await g.conversations.participants(room)
    assert bob.last_read_seq == 5
    with pytest.raises(Invalid):
        await g.conversations.read(room, -1, user="bob")
    with pytest.raises(NotFound):
        await g.conversations.read(room, 1, user="eve")


async def test_reading_is_no_activity(g: Greffier) -> None:
    """A list keeps its order when somebody reads, whoever that is."""
    first, second = await a_room(g, bob="member"), await a_room(g, bob="member")
    for room in (first, second):
        await g.messages.append(room, content="hello", actor="ada")
    before = await g.conversations.get(first)

    await g.conversations.read(first, 1, user="bob")

    for user in ("ada", "bob"):
        listed = (await g.conversations.list(user=user)).data
        assert [one.id for one in listed] == [second, first]
    after = await g.conversations.get(first)
    assert (after.updated_at, after.rev) == (before.updated_at, before.rev + 1)


async def test_a_message_knows_who_has_read_it_and_when_they_first_had(g: Greffier) -> None:
    """Everybody whose mark has passed it but its author, with the time of the first that did."""
    room = await a_room(g, bob="member", cleo="viewer")
    for number in range(3):
        await g.messages.append(room, content=str(number), actor="bob")
    for user, seq in (("bob", 3), ("cleo", 1), ("ada", 3), ("cleo", 2), ("cleo", 3)):
        await g.conversations.read(room, seq, user=user)

    first = await g.messages.readers(room, 1, actor="cleo")
    last = await g.messages.readers(room, 3)

    assert [reader.user_id for reader in first] == ["cleo", "ada"]
    assert [reader.user_id for reader in last] == ["ada", "cleo"]
    assert first[1].at == last[0].at
    assert first[0].at < last[1].at
    await g.conversations.leave(room, "cleo")
    assert [reader.user_id for reader in await g.messages.readers(room, 1)] == ["ada"]
    with pytest.raises(NotFound):
        await g.messages.readers(room, 99)


async def test_unread_are_others_messages_that_are_still_there(g: Greffier) -> None:
    """Not one's own, not events, not what was deleted or rewound away: the exact number."""
    room = await a_room(g, bob="member", cleo="viewer")
    for actor in ("ada", "bob", "ada", "bob", None):
        await g.messages.append(room, content="hello", actor=actor)
    await g.conversations.join(room, "dan")
    assert [await unread(g, room, user) for user in ("ada", "bob", "cleo", "dan")] == [3, 3, 5, 5]

    await g.messages.delete(room, 1)
    await g.messages.delete(room, 4, erase=True)
    assert [await unread(g, room, user) for user in ("ada", "bob", "cleo", "dan")] == [2, 2, 3, 3]

    await g.conversations.read(room, 2, user="cleo")
    await g.messages.rewind(room, after_seq=3)
    assert [await unread(g, room, user) for user in ("ada", "bob", "cleo")] == [1, 1, 1]
    shown = (await g.conversations.list(user="cleo")).data[0].me
    assert shown is not None
    assert shown.unread == 1


async def test_at_most_a_thousand_are_counted_as_unread(g: Greffier, database: str) -> None:
    """Who was away for long is told "1000", at a cost that is bounded; what they read is exact."""
    room = await a_room(g, bob="member")
    async with connected(database) as connection:
        await lengthen(connection, room, 1500)
    assert await unread(g, room, "bob") == 1000
    await g.conversations.read(room, 501, user="bob")
    assert await unread(g, room, "bob") == 999
    # every other message is ada's own
    assert await unread(g, room, "ada") == 750


# -- Feedback


async def test_each_has_one_thumb_for_a_message_and_one_for_the_conversation(
    g: Greffier, store: Database
) -> None:
    """Given again it is the new one, taken back it is gone; it changes no conversation."""
    room = await a_room(g, bob="member", cleo="viewer")
    await g.messages.append(room, role="assistant", content="hm")
    before = await g.conversations.get(room)

    async def thumbs() -> tuple[int, int]:
        found = (await g.conversations.stats(room)).feedback
        return found.up, found.down

    await g.conversations.rate(room, -1, user="bob", seq=1, comment="too short")
    await g.conversations.rate(room, 1, user="bob")
    await g.conversations.rate(room, 1, user="cleo", seq=1)
    assert await thumbs() == (2, 1)
    given = await g.conversations.rate(room, 1, user="bob", seq=1)
    assert (given.rating, given.comment, given.user_id) == (1, None, "bob")
    assert await thumbs() == (3, 0)
    await unrate(store, room, 1, "bob")
    await unrate(store, room, 1, "bob")
    await unrate(store, room, None, "bob")
    assert await thumbs() == (1, 0)
    assert await g.conversations.get(room) == before


async def test_a_thumb_is_a_participants_for_something_that_is_there(g: Greffier) -> None:
    """Strangers rate nothing, nobody rates what is gone, and a comment has an end."""
    room = await a_room(g, bob="member")
    await g.messages.append_many(room, [{"content": "one"}, {"content": "two"}])
    await g.messages.delete(room, 1)

    for seq in (1, 9):
        with pytest.raises(NotFound):
            await g.conversations.rate(room, 1, user="bob", seq=seq)
    with pytest.raises(NotFound):
        await g.conversations.rate(room, 1, user="eve", seq=2)
    with pytest.raises(Invalid):
        await g.conversations.rate(room, 2, user="bob", seq=2)
    with pytest.raises(Invalid):
        await g.conversations.rate(room, 1, user="bob", comment="nul \x00")
    with pytest.raises(PayloadTooLarge):
        await g.conversations.rate(room, 1, user="bob", comment="x" * (LONGEST + 1))


async def test_the_library_takes_back_what_it_gave(g: Greffier) -> None:
    """An invitation, a thumb, a person; and gives them everything of theirs before."""
    room = await a_room(g, bob="member")
    said = await g.messages.append(room, content="words of bob", actor="bob")
    invited = await g.conversations.invite(room, actor="ada")
    (listed,) = await g.conversations.invitations(room, actor="ada")
    with pytest.raises(Forbidden):
        await g.conversations.revoke(room, invited.id, actor="bob")
    await g.conversations.revoke(room, invited.id, actor="ada")
    await g.conversations.rate(room, 1, user="ada", seq=said.seq)
    await g.conversations.unrate(room, user="ada", seq=said.seq)
    counted = (await g.conversations.stats(room)).feedback, (await g.stats("bob")).conversations
    file = b"".join([piece async for piece in g.export("bob")])
    since = await g.conversations.get(room)
    await g.forget("bob")
    change = await g.conversations.changes(room, since=since.rev, epoch=since.epoch)

    assert (listed.id, await g.conversations.invitations(room)) == (invited.id, [])
    assert (counted[0].up, counted[1]) == (0, 1)
    assert b"words of bob" in file
    assert await g.conversations.list(user="bob") == await g.conversations.list(user="nobody")
    assert change.rev > since.rev
    assert "bob" not in {one.author_id for one in (await g.messages.after(room, 0)).data}


async def test_the_whole_record_is_read_from_a_seq_on(g: Greffier) -> None:
    """With ``superseded`` what was rewound is there too, so that nobody misses a number."""
    talk = (await g.conversations.create(owner="ada")).id
    for content in ("one", "two"):
        await g.messages.append(talk, content=content)
    await g.messages.rewind(talk, after_seq=1)
    await g.messages.append(talk, content="three")

    path = await g.messages.after(talk, 0)
    record = await g.messages.after(talk, 0, superseded=True)
    assert [one.seq for one in path.data] == [1, 3]
    assert [one.seq for one in record.data] == [1, 2, 3]
