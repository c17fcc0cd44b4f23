"""P11: what was erased is gone at once from every table, and what must stay, stays."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

import pytest

from greffier.access import SEE_USER
from greffier.change.append import append
from greffier.change.forget import ForgottenAccount, forget_user
from greffier.change.keys import make
from greffier.change.message import edit
from greffier.errors import Forbidden, Gone, NotFound
from greffier.library import Greffier
from greffier.model.draft import Speaker
from greffier.model.ids import uuid7
from greffier.model.message import Draft, Function, ToolCall
from greffier.read.audit import audit
from greffier.store.database import Database
from helpers.dump import Words, dump, sampled
from helpers.postgres import connected
from helpers.sessions import Session, until_waiting
from helpers.view import caught_up, look

#: Every column that can hold words, names or who somebody is, and who sees to it that it is erased:
#: a message's erasure, its conversation's, its person's.  "no" holds nothing of people: numbers,
#: choices from a list, random ids.
ERASED_WITH = {
    "users.id": "person",
    "users.name": "person",
    "users.email": "person",
    "api_keys.scope": "no",
    "api_keys.user_id": "person",
    "api_keys.name": "person",
    "api_keys.created_by": "person",
    "api_keys.key_hash": "person",
    "database_roles.role_name": "person",
    "database_roles.user_id": "person",
    "conversations.kind": "no",
    "conversations.title": "conversation",
    "conversations.subject": "conversation",
    "conversations.owner_id": "conversation, person",
    "conversations.metadata": "conversation",
    "participants.user_id": "conversation, person",
    "participants.role": "no",
    "listings.user_id": "person",
    "listings.kind": "no",
    "listings.subject": "conversation, person",
    "subject_slots.owner_id": "conversation, person",
    "subject_slots.subject": "conversation, person",
    "messages.request_hash": "message, conversation",
    "messages.role": "no",
    "messages.author_id": "conversation, person",
    "messages.author_name": "conversation, person",
    "messages.written_by": "conversation, person",
    "messages.content": "message, conversation",
    "messages.parts": "message, conversation",
    "messages.tool_calls": "message, conversation",
    "messages.tool_call_id": "message, conversation",
    "messages.name": "message, conversation, person",
    "messages.reasoning": "message, conversation",
    "messages.status": "no",
    "messages.metadata": "message, conversation",
    "message_versions.content": "message, conversation",
    "message_versions.parts": "message, conversation",
    "message_versions.replaced_by": "conversation, person",
    "feedback.user_id": "conversation, person",
    "feedback.comment": "message, conversation, person",
    "read_marks.user_id": "conversation, person",
    "invitations.token_hash": "conversation",
    "invitations.role": "no",
    "invitations.created_by": "conversation, person",
    "invitation_tokens.token_hash": "conversation",
    "agents.name": "no",
    "agents.provider": "no",
    "agents.model": "no",
    "agents.instructions": "no",
    "agents.tools": "no",
    "agents.params": "no",
    "runs.asked_by": "conversation, person",
    "runs.origin": "no",
    "runs.status": "no",
    "runs.request_hash": "conversation",
    "runs.agent": "conversation",
    "runs.error_code": "no",
    "runs.error_detail": "conversation",
    "run_events.event": "no",
    "run_events.body": "conversation",
    "run_steps.call_id": "conversation",
    "run_steps.name": "no",
    "lanes.kind": "no",
    "lanes.owner": "no",
    "lanes.park_reason": "conversation",
    "attempts.outcome": "no",
    "attempts.detail": "conversation",
    "attempts.external_id": "conversation",
    "endpoints.channel": "no",
    "endpoints.target": "conversation",
    "endpoints.secrets": "conversation",
    "endpoints.settings": "conversation",
    "endpoints.roles": "no",
    "endpoints.ordering": "no",
    "endpoints.on_uncertain": "no",
    "endpoints.request_hash": "conversation",
    "endpoints.created_by": "conversation, person",
    "endpoints.disabled_reason": "conversation",
    "conversation_endpoints.target": "conversation",
    "receipts.external_id": "conversation",
    "receipts.status": "no",
    "sources.name": "no",
    "sources.owner_id": "person",
    "sources.created_by": "person",
    "sources.adapter": "no",
    "sources.secrets": "no",
    "sources.request_hash": "no",
    "source_contacts.contact": "conversation",
    "inbox.external_hash": "no",
    "usage.user_id": "person",
    "usage.provider": "no",
    "usage.model": "no",
    "quotas.user_id": "person",
    "admin_log.actor": "person",
    "admin_log.action": "no",
    "admin_log.subject": "person",
    "admin_log.before": "person",
    "admin_log.after": "person",
    "workers.id": "no",
    "workers.host": "no",
    "workers.version": "no",
    "workers.kinds": "no",
    "alerts.code": "no",
    "alerts.detail": "no",
    "alerts.told": "no",
    "identity.epoch": "no",
    "identity.channel_key": "no",
    "schema_changes.name": "no",
    "schema_changes.checksum": "no",
    "schema_changes.applied_by": "no",
}


async def fill(g: Greffier, talk: UUID, words: Words, actor: str | None = None) -> list[UUID]:
    """Say something in every field that can hold words, edit what can be; their ids."""
    picture = {"type": "image_url", "image_url": {"url": f"https://{words('url')}.example/"}}
    said: list[dict[str, Any]] = [
        {
            "parts": [{"type": "text", "text": words("part")}, picture],
            "name": words("name"),
            "metadata": {words("key"): [words("value")]},
        }
    ]
    if actor is None:
        call = ToolCall(words("call"), Function(words("function"), f'{{"{words("argument")}": 1}}'))
        said += [
            {"role": "assistant", "tool_calls": [call], "reasoning": words("reasoning")},
            {"role": "tool", "content": words("result"), "tool_call_id": call.id},
            {"role": "assistant", "content": words("answer"), "name": words("name")},
        ]
    messages = await g.messages.append_many(talk, said, actor=actor)
    for message in messages:
        if message.content:
            await g.messages.edit(talk, message.seq, words("edited"), actor=actor)
            await g.messages.edit(talk, message.seq, words("again"), actor=actor)
    return [message.id for message in messages]


# -- A message


@pytest.mark.parametrize("deleted", [False, True], ids=["at once", "deleted before"])
async def test_an_erased_message_is_nowhere_any_more(
    g: Greffier, database: str, deleted: bool
) -> None:
    """Every field, every earlier text and what was said about it; its number and id stay."""
    gone, kept = Words(), Words()
    room = await g.conversations.create(
        owner="ada", kind="room", title=kept("title"), participants={"bob": "member"}
    )
    await fill(g, room.id, kept)
    ids = await fill(g, room.id, gone)
    await fill(g, room.id, kept, "bob")
    for seq in range(5, 9):
        await g.conversations.rate(room.id, 1, user="bob", seq=seq, comment=gone("comment"))
    await g.conversations.rate(room.id, 1, user="bob", seq=1, comment=kept("comment"))
    async with connected(database) as connection:
        await connection.execute("analyze")
    assert len(gone.found_in(await dump(database))) == len(gone.made)

    for seq in range(5, 9):
        if deleted:
            await g.messages.delete(room.id, seq, actor="ada")
        await g.messages.delete(room.id, seq, erase=True, actor="ada")

    left = await dump(database)
    assert gone.found_in(left) == []
    assert kept.found_in(left) == kept.made
    assert gone.found_in(await sampled(database)) == []
    for seq, message_id in enumerate(ids, start=5):
        tombstone = await g.messages.get(room.id, seq)
        assert tombstone.id == message_id
        assert tombstone.deleted_at is not None
        assert await g.messages.versions(room.id, seq) == []
        assert f"{message_id}" in left
    conversation = await g.conversations.get(room.id)
    assert (conversation.last_seq, conversation.message_count) == (9, 5)
    assert (await audit(g.database)).clean


async def test_what_an_event_said_is_erased_too(g: Greffier, database: str) -> None:
    """That somebody joined names them: it goes as any message does."""
    gone = Words()
    name = gone("name")
    await g.database.verb(SEE_USER, "bob", name, None, again=True)
    room = await g.conversations.create(owner="ada", kind="room")
    await g.conversations.join(room.id, "bob")
    await g.messages.delete(room.id, 1)
    await g.messages.delete(room.id, 1, erase=True, actor="ada")

    async with connected(database) as connection:
        row = await connection.fetchval("select m::text from messages m")
    assert name not in row


async def test_an_erased_message_sent_again_is_what_is_left_of_it(g: Greffier) -> None:
    """An old outbox cannot bring it back, nor put anything in its place; alone or among others."""
    talk = await g.conversations.create(owner="ada")
    message_id = uuid7()
    await g.messages.append(talk.id, content="oops", id=message_id, actor="ada")
    await g.messages.delete(talk.id, 1, erase=True, actor="ada")

    for content in ("oops", "other"):
        again = await g.messages.append(talk.id, content=content, id=message_id, actor="ada")
        assert (again.seq, again.content, again.rev) == (1, None, 3)
        assert again.deleted_at is not None
        among, _ = await g.messages.append_many(
            talk.id, [{"content": content, "id": message_id}, {"content": "more"}]
        )
        assert among == again
    assert [message.content for message in (await g.messages.recent(talk.id)).data] == (
        [None, "more", "more"]
    )


async def test_who_may_delete_may_erase(g: Greffier) -> None:
    """One's own words, or as the owner all; nobody else's as a member."""
    room = await g.conversations.create(
        owner="ada", kind="room", participants={"bob": "member", "cleo": "member"}
    )
    for actor in ("ada", "bob", "bob"):
        await g.messages.append(room.id, content="hello", actor=actor)

    for actor, refusal in (("cleo", Forbidden), ("eve", NotFound)):
        with pytest.raises(refusal):
            await g.messages.delete(room.id, 2, erase=True, actor=actor)
    await g.messages.delete(room.id, 2, erase=True, actor="bob")
    await g.messages.delete(room.id, 3, erase=True, actor="ada")


# -- A conversation


async def test_an_erased_conversation_leaves_its_id_alone(g: Greffier, database: str) -> None:
    """Not what was said in it, how it was called, who invited whom; others are untouched."""
    gone, kept = Words(), Words()
    for words in (gone, kept):
        talk = await g.conversations.create(
            owner="ada",
            title=words("title"),
            subject=words("subject"),
            metadata={words("key"): words("value")},
            participants={"bob": "member"},
        )
        await fill(g, talk.id, words)
        await fill(g, talk.id, words, "bob")
        await g.conversations.rate(talk.id, -1, user="bob", comment=words("comment"))
        await g.conversations.rate(talk.id, 1, user="bob", seq=1, comment=words("comment"))
        await g.messages.rewind(talk.id, after_seq=2)
        await g.conversations.read(talk.id, 2, user="bob")
        await g.conversations.invite(talk.id, actor="bob")
        await g.conversations.leave(talk.id, "bob")
        if words is gone:
            erased = talk.id
    async with connected(database) as connection:
        await connection.execute("analyze")
    assert len(gone.found_in(await dump(database))) == len(gone.made)

    with pytest.raises(NotFound):
        await g.conversations.erase(erased, actor="bob")
    await g.conversations.erase(erased, actor="ada")

    left = await dump(database)
    assert gone.found_in(left) == []
    assert kept.found_in(left) == kept.made
    assert gone.found_in(await sampled(database)) == []
    async with connected(database) as connection:
        tables = await connection.fetch(
            """
            select c.relname from pg_attribute a join pg_class c on c.oid = a.attrelid
            where c.relnamespace = 'greffier'::regnamespace and c.relkind = 'r'
              and a.attname = 'conversation_id' and c.relname not in ('erased', 'listings')
            """
        )
        assert len(tables) > 5
        for (table,) in tables:
            many = await connection.fetchval(
                f"select count(*) from {table} where conversation_id = $1", erased
            )
            assert (table, many) == (table, 0)
    assert (await audit(g.database)).clean


async def test_an_erased_conversation_does_not_come_back(g: Greffier) -> None:
    """Whatever is asked of its id is answered with gone, and an old outbox stores nothing."""
    room = await g.conversations.create(owner="ada", kind="room", participants={"bob": "member"})
    message_id = uuid7()
    await g.messages.append(room.id, content="hello", id=message_id)
    with pytest.raises(Forbidden):
        await g.conversations.erase(room.id, actor="bob")
    await g.conversations.erase(room.id, actor="ada")

    for asking in (
        g.conversations.get(room.id, actor="bob"),
        g.conversations.create(
            owner="ada", kind="room", id=room.id, participants={"bob": "member"}
        ),
        g.conversations.update(room.id, title="again"),
        g.conversations.erase(room.id, actor="ada"),
        g.conversations.join(room.id, "bob"),
        g.conversations.read(room.id, 1, user="bob"),
        g.conversations.rate(room.id, 1, user="bob"),
        g.messages.append(room.id, content="hello", id=message_id),
        g.messages.append_many(room.id, [{"content": "a"}, {"content": "b"}]),
        g.messages.edit(room.id, 1, "again"),
        g.messages.delete(room.id, 1),
        g.messages.rewind(room.id, after_seq=0),
        g.messages.recent(room.id),
        g.messages.get(room.id, 1),
        g.context(room.id),
    ):
        with pytest.raises(Gone):
            await asking
    assert (await g.conversations.list(user="bob")).data == []


# -- A person


async def known(store: Database, user: str, words: Words) -> None:
    """Let a user have a name and an e-mail."""
    email = f"{words('mail')}@example.org"
    await store.verb(SEE_USER, user, words("name"), email, again=True)


async def test_a_forgotten_person_is_named_nowhere_any_more(
    g: Greffier, store: Database, database: str
) -> None:
    """Their own is erased, a room goes to its oldest member, what they said to others stays."""
    gone, kept = Words(), Words()
    ada, bob, cleo = gone("ada"), kept("bob"), kept("cleo")
    await known(store, ada, gone)
    await known(store, bob, kept)
    (name,) = [word for word in gone.made if word.startswith("name")]

    # what is theirs alone
    mine = await g.conversations.create(owner=ada, title=gone("title"), subject=gone("subject"))
    await fill(g, mine.id, gone)
    old = await g.conversations.create(owner=ada, subject=gone("subject"))
    await g.conversations.archive(old.id)
    alone = await g.conversations.create(owner=ada, kind="room", title=gone("title"))
    await g.conversations.join(alone.id, cleo)
    await g.conversations.leave(alone.id, cleo)
    # a room of theirs with others in it
    ours = await g.conversations.create(
        owner=ada,
        kind="room",
        title=kept("title"),
        subject=gone("subject"),
        participants={cleo: "viewer"},
    )
    await g.conversations.join(ours.id, bob, actor=ada)
    await g.messages.append(ours.id, content=kept("said"), actor=ada)
    # a room of bob's: they wrote, edited, rated, read, invited, were called by a name of their own
    theirs = await g.conversations.create(owner=bob, kind="room", title=kept("title"))
    await g.conversations.join(theirs.id, ada, actor=bob)
    await g.messages.edit(theirs.id, 1, f"welcome {name}")
    speaker = Speaker(ada, ada, name, ada)
    said = Draft(content=kept("said"), name=gone("name"), metadata={"user_id": kept("theirs")})
    await append(store, theirs.id, [said], speaker)
    await edit(store, theirs.id, 2, kept("edited"), speaker)
    await g.messages.append(theirs.id, content=kept("answer"), actor=bob)
    for seq in (None, 3):
        await g.conversations.rate(theirs.id, 1, user=ada, seq=seq, comment=gone("comment"))
    await g.conversations.rate(theirs.id, 1, user=bob, seq=2, comment=kept("comment"))
    await g.conversations.read(theirs.id, 3, user=ada)
    invited = await g.conversations.invite(theirs.id, actor=ada)
    # a room they left, and a conversation they were never in, as an admin
    left = await g.conversations.create(owner=bob, kind="room", participants={ada: "member"})
    await g.messages.append(left.id, content=kept("said"), actor=ada)
    await g.conversations.leave(left.id, ada, actor=ada)
    helped = await g.conversations.create(owner=cleo)
    await append(store, helped.id, [Draft(content=kept("help"))], Speaker(None, ada, name, ada))
    await g.messages.append(helped.id, role="assistant", content=kept("before"))
    await edit(store, helped.id, 2, kept("after"), Speaker(None, ada, name, ada))
    # a conversation erased before, keys, and a role of the database
    before = await g.conversations.create(owner=ada, title=gone("title"))
    await g.conversations.erase(before.id)
    await make(store, scope="user", user=ada, name=gone("key"), created_by=ada)
    await make(store, scope="service", user=None, name=kept("key"), created_by=ada)
    async with connected(database) as connection:
        await connection.execute(
            "insert into database_roles (role_name, user_id) values ($1, $2)", gone("role"), ada
        )
        await connection.execute("analyze")
    views = {one.id: await look(store, one.id) for one in (ours, theirs, left, helped)}
    assert len(gone.found_in(await dump(database))) >= len(gone.made) - 1

    account = await forget_user(store, ada)

    dumped = await dump(database)
    assert gone.found_in(dumped) == []
    assert kept.found_in(dumped) == kept.made
    assert gone.found_in(await sampled(database)) == []
    assert account == ForgottenAccount(ada, erased=3, anonymous=4)
    for one in (mine, old, alone, before):
        with pytest.raises(Gone):
            await g.conversations.get(one.id)
    handed = await g.conversations.get(ours.id)
    assert (handed.owner_id, handed.subject) == (bob, None)
    assert [p.user_id for p in await g.conversations.participants(ours.id)] == [cleo, bob]
    with pytest.raises(NotFound):
        await g.conversations.accept(invited.token, user="eve")

    # numbers and ids stay, and one name that says nothing stands for them in each conversation
    names = set()
    for talk_id, view in views.items():
        fresh = await look(store, talk_id)
        assert list(fresh.messages) == list(view.messages)
        assert [one["id"] for one in fresh.messages.values()] == [
            one["id"] for one in view.messages.values()
        ]
        assert (await caught_up(view, store, talk_id)).messages == fresh.messages
        found = await g.messages.recent(talk_id)
        strangers = {
            one.author_id for one in found.data if one.author_id not in (None, bob, cleo)
        } | {one.written_by for one in found.data if one.written_by not in (bob, cleo, "service")}
        assert len(strangers) == 1
        names |= strangers
        for stranger in strangers & found.authors.keys():
            assert (found.authors[stranger].name, found.authors[stranger].role) == (None, None)
    assert len(names) == 4
    assert (await g.messages.get(theirs.id, 1)).content == "Somebody joined"
    assert (await g.messages.get(left.id, 2)).content == "Somebody left"
    assert (await g.messages.get(theirs.id, 2)).metadata == said.metadata
    assert (await audit(store)).clean


async def test_forgetting_is_one_rev_of_each_conversation(g: Greffier, store: Database) -> None:
    """Also where a room changes hands by it; who was never here is forgotten without a trace."""
    room = await g.conversations.create(owner="ada", kind="room", participants={"bob": "member"})
    await g.messages.append(room.id, content="hello", actor="ada")

    await forget_user(store, "ada")
    assert (await g.conversations.get(room.id)).rev == 3
    assert await forget_user(store, "ada") == ForgottenAccount("ada", 0, 0)
    assert await forget_user(store, "nobody") == ForgottenAccount("nobody", 0, 0)
    assert (await g.conversations.get(room.id)).rev == 3


async def test_a_room_goes_to_a_member_before_a_viewer(g: Greffier, store: Database) -> None:
    """Who may write comes first, then who has been there longest."""
    room = await g.conversations.create(owner="ada", kind="room", participants={"cleo": "viewer"})
    for user in ("zoe", "bob"):
        await g.conversations.join(room.id, user)

    for heir in ("zoe", "bob", "cleo"):
        await forget_user(store, (await g.conversations.get(room.id)).owner_id)
        assert (await g.conversations.get(room.id)).owner_id == heir
    await forget_user(store, "cleo")
    with pytest.raises(Gone):
        await g.conversations.get(room.id)


async def test_who_comes_again_after_being_forgotten_is_somebody_new(
    g: Greffier, store: Database
) -> None:
    """A token that still names them opens nothing of what was theirs."""
    room = await g.conversations.create(owner="bob", kind="room", participants={"ada": "member"})
    await g.messages.append(room.id, content="hello", actor="ada")
    await forget_user(store, "ada")

    with pytest.raises(NotFound):
        await g.messages.edit(room.id, 1, "bye", actor="ada")
    listed = await g.conversations.list(user="ada")
    assert (listed.data, listed.list_rev) == ([], 0)
    await g.conversations.join(room.id, "ada")
    with pytest.raises(Forbidden):
        await g.messages.edit(room.id, 1, "bye", actor="ada")


async def test_a_person_half_forgotten_is_forgotten_by_asking_again(
    g: Greffier, store: Database, rival: Session
) -> None:
    """Each conversation is done or not; who was stopped in the middle does the rest later."""
    talks = [(await g.conversations.create(owner="ada")).id for _ in range(3)]
    async with rival.open():
        # Conversations are gone through in the order of their ids.
        await rival.live.execute(
            "select from conversations where id = $1 for no key update", sorted(talks)[1]
        )
        task = asyncio.create_task(forget_user(store, "ada"))
        async with connected(store.dsn) as watch:
            await until_waiting(watch, 1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            # What was under way hears of it only now.
            while await watch.fetchval("select exists (select from pg_locks where not granted)"):
                pass

    assert [one.id for one in (await g.conversations.list(user="ada")).data] == (
        sorted(talks, reverse=True)[:2]
    )
    assert await forget_user(store, "ada") == ForgottenAccount("ada", erased=2, anonymous=0)
    assert (await audit(store)).clean


async def test_who_is_brought_into_a_room_while_forgotten_is_forgotten_there_too(
    g: Greffier, store: Database, rival: Session
) -> None:
    """The one who brings them in comes first, and the erasure looks again."""
    await g.conversations.create(owner="ada")
    async with rival.open():
        room = await rival.conversations.create(
            owner="bob", kind="room", participants={"ada": "member"}
        )
        task = asyncio.create_task(forget_user(store, "ada"))
        async with connected(store.dsn) as watch:
            await until_waiting(watch, 1)

    assert await task == ForgottenAccount("ada", erased=1, anonymous=1)
    assert [p.user_id for p in await g.conversations.participants(room.id)] == ["bob"]
    assert (await audit(store)).clean


async def test_who_is_brought_into_a_room_after_being_forgotten_has_it_in_their_list(
    g: Greffier, store: Database, rival: Session
) -> None:
    """Who waited for the erasure to end finds somebody new, not nobody."""
    await store.verb(SEE_USER, "ada", "Ada", None, again=True)
    async with rival.open():
        await rival.live.execute("select forget_user_v1('ada', 'nobody')")
        task = asyncio.create_task(
            g.conversations.create(owner="bob", kind="room", participants={"ada": "member"})
        )
        async with connected(store.dsn) as watch:
            await until_waiting(watch, 1)

    room = await task
    assert [one.id for one in (await g.conversations.list(user="ada")).data] == [room.id]
    assert (await g.conversations.participants(room.id))[0].name is None
    assert (await audit(store)).clean


# -- Nothing is forgotten here


async def test_of_every_column_that_can_hold_words_it_is_said_what_erases_it(database: str) -> None:
    """A new column, or table, says here how it is erased, and one of the tests above fills it."""
    async with connected(database) as connection:
        rows = await connection.fetch(
            """
            select c.relname || '.' || a.attname
            from pg_attribute a join pg_class c on c.oid = a.attrelid
            where c.relnamespace = 'greffier'::regnamespace and c.relkind in ('r', 'p', 'm')
              and a.attnum > 0 and not a.attisdropped
              and a.atttypid in ('text'::regtype, 'varchar'::regtype, 'name'::regtype,
                  'json'::regtype, 'jsonb'::regtype, 'bytea'::regtype, 'tsvector'::regtype,
                  'text[]'::regtype, 'tsquery'::regtype, 'xml'::regtype)
            """
        )
    assert {row[0] for row in rows} == set(ERASED_WITH)


async def test_what_can_be_erased_is_never_sampled_for_the_planner(database: str) -> None:
    """A sample would outlive what it was taken from, in a catalogue that no erasure reaches."""
    async with connected(database) as connection:
        rows = await connection.fetch(
            """
            select c.relname || '.' || a.attname
            from pg_attribute a join pg_class c on c.oid = a.attrelid
            where c.relnamespace = 'greffier'::regnamespace and a.attnum > 0
              and a.attstattarget = 0
            """
        )
    assert {row[0] for row in rows} == {
        column for column, erased_with in ERASED_WITH.items() if erased_with != "no"
    }
