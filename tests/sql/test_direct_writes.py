"""Promises of writing with a database role: the rules and the numbers are those of the server."""

from __future__ import annotations

import asyncio
import json
import re
from uuid import UUID, uuid4

import msgspec
import pytest

from greffier.errors import Error, IdReused
from greffier.model.draft import Speaker, check
from greffier.model.ids import uuid7
from greffier.model.message import Draft
from greffier.publish.bus import PostgresBus, Wake
from helpers.direct import Person, Town
from helpers.postgres import undone


async def room_of(town: Town, owner: str = "ada", **people: str) -> UUID:
    """A room with these participants; returns its id."""
    room = await town.service.conversations.create(owner=owner, kind="room", participants=people)
    return room.id


async def assistant_of(town: Town, owner: str = "ada") -> UUID:
    """An assistant conversation; returns its id."""
    return (await town.service.conversations.create(owner=owner)).id


async def contents(town: Town, conversation: UUID) -> list[str | None]:
    """What the service reads there."""
    page = await town.service.messages.recent(conversation, limit=100)
    return [message.content for message in page.data]


# -- Every verb


async def test_a_conversation_is_led_from_its_beginning_to_its_end(town: Town) -> None:
    """Each function does what the verb of its name does, and the server sees it."""
    talks, messages = town.service.conversations, town.service.messages
    async with town.person("ada") as ada, town.person("bob") as bob:
        room = await ada.one("select create_conversation('Plans', 'room')")
        assert (await talks.get(room, actor="ada")).title == "Plans"
        assert await ada.one("select append($1, 'one')", room) == 1
        many = json.dumps([{"content": "two"}, {"content": "thre"}])
        assert await ada.one("select append_many($1, $2)", room, many) == [2, 3]
        rev = await ada.one("select edit($1, 3, 'three')", room)
        assert (await talks.get(room)).rev == rev == 4
        assert [v.content for v in await messages.versions(room, 3)] == ["thre"]
        assert await ada.one("select delete_message($1, 1)", room) == 5
        assert await contents(town, room) == [None, "two", "three"]

        assert await ada.one("select rewind($1, 2)", room) == 1
        assert await ada.one("select append($1, 'other')", room) == 4
        [branch] = await talks.branches(room)
        await ada.one("select activate_branch($1, $2)", room, branch.id)
        assert await contents(town, room) == [None, "two", "three"]

        token = await ada.one("select invite($1, 'member', '1 hour', 1)", room)
        assert await bob.one("select join_by($1)", token) == room
        assert await bob.refusal("select join_by('gri_x')") == "GR404"
        assert await bob.one("select read_upto($1, 3)", room) == 3
        await bob.rows("select rate($1, -1, 3, 'no')", room)
        stats = await talks.stats(room)
        assert (stats.feedback.up, stats.feedback.down) == (0, 1)
        await bob.rows("select rate($1, null, 3)", room)
        token = await ada.one("select invite($1)", room)
        [invitation] = await ada.rows("select id from invitations")
        await ada.rows("select revoke_invitation($1, $2)", room, *invitation)
        assert await bob.refusal("select join_by($1)", token) == "GR404"

        await ada.rows("select set_participant($1, 'zoe', 'viewer')", room)
        await bob.rows("select leave($1)", room)
        await ada.rows("select leave($1, 'zoe')", room)
        assert [p.user_id for p in await talks.participants(room)] == ["ada"]

        await ada.rows("select set_title($1, 'Done')", room)
        await ada.rows("select archive($1)", room)
        assert await ada.refusal("select append($1, 'x')", room) == "GR419"
        await ada.rows("select archive($1, false)", room)
        assert (await talks.get(room)).title == "Done"
        await ada.rows("select erase_conversation($1)", room)
        assert await ada.refusal("select append($1, 'x')", room) == "GR410"


async def test_a_subject_has_one_conversation_whoever_makes_it(town: Town) -> None:
    """Said here and over the API, on one subject, it is one conversation."""
    async with town.person("ada") as ada:
        [(first, seq)] = await ada.rows("select * from say('maths', 'one')")
        second = await town.service.say("maths", "two", user="ada")
        assert (second.conversation_id, seq, second.seq) == (first, 1, 2)
        mine = uuid4()
        for _ in range(2):
            assert await ada.rows("select * from say('maths', 'three', $1)", mine) == [(first, 3)]
        # The same words are the same request, said or appended.
        assert await ada.one("select append($1, 'three', $2)", first, mine) == 3
        assert await ada.refusal("select say('maths', 'x', agent_id => $1)", mine) == "GR439"
        assert await ada.refusal("select say('', 'x')") == "GR422"
        assert await ada.refusal("select create_conversation(subject => 'maths')") == "GR429"


async def test_tables_can_be_written_as_tables(town: Town) -> None:
    """INSERT, UPDATE, DELETE and COPY do what the functions do, and RETURNING shows the outcome."""
    async with town.person("ada") as ada, town.person("bob") as bob:
        [(room, title, role, archived)] = await ada.rows(
            "insert into conversations (kind, title) values ('room', 'Plans')"
            " returning id, title, my_role, archived"
        )
        assert (title, role, archived) == ("Plans", "owner", False)
        assert await ada.rows(
            "insert into messages (conversation_id, content) values ($1, 'one'), ($1, 'two')"
            " returning seq, content, role, author_id, author_name, written_by, metadata::text",
            room,
        ) == [
            (1, "one", "user", "ada", "Ada", "ada", "{}"),
            (2, "two", "user", "ada", "Ada", "ada", "{}"),
        ]
        await ada.live.copy_records_to_table(
            "messages", columns=["conversation_id", "content"], records=[(room, "three")] * 2
        )
        assert await ada.rows(
            "update messages set content = content || '!' where seq > 1 returning seq, content"
        ) == [(2, "two!"), (3, "three!"), (4, "three!")]
        assert await ada.rows("delete from messages where seq = 4 returning seq") == [(4,)]
        assert await contents(town, room) == ["one", "two!", "three!", None]

        assert await ada.rows(
            "insert into participants (conversation_id, user_id) values ($1, 'bob')"
            " returning user_id, name, role",
            room,
        ) == [("bob", "Bob", "member")]
        assert await bob.rows(
            "update conversations set last_read_seq = last_seq returning last_read_seq"
        ) == [(5,)]
        assert await bob.rows(
            "insert into feedback (conversation_id, seq, rating) values ($1, 1, 1)"
            " returning seq, rating",
            room,
        ) == [(1, 1)]
        assert await bob.rows("update feedback set comment = 'yes' returning comment") == [("yes",)]
        await bob.rows("delete from feedback")
        assert (await town.service.conversations.stats(room)).feedback.up == 0
        await ada.rows("update participants set role = 'viewer' where user_id = 'bob'")
        assert (
            await bob.refusal(
                "insert into messages (conversation_id, content) values ($1, 'x')", room
            )
            == "GR403"
        )
        await bob.rows("delete from participants where user_id = 'bob'")

        assert await ada.rows(
            "update conversations set title = 'Old', metadata = '{\"a\": 1}', archived = true"
            " returning title, metadata::text, archived"
        ) == [("Old", '{"a": 1}', True)]
        await ada.rows("delete from conversations where id = $1", room)
        assert await ada.refusal("select append($1, 'x')", room) == "GR410"


NO_WAY_IN = (
    "insert into messages (conversation_id, seq, content) values (':room', 7, 'x')",
    "insert into messages (conversation_id, content, author_id) values (':room', 'x', 'bob')",
    "insert into messages (conversation_id, content, created_at) values (':room', 'x', now())",
    "update messages set seq = seq + 1",
    "update messages set author_id = 'bob'",
    "update messages set deleted_at = null",
    "update conversations set owner_id = 'bob'",
    "update conversations set last_seq = 7",
    "update conversations set agent_id = id",
    "update participants set last_read_seq = 7",
    "insert into record (conversation_id, seq, content) values (':room', 7, 'x')",
    "update record set content = 'x'",
    "delete from record",
    "delete from versions",
    "delete from branches",
    "delete from read_marks",
    "update me set user_id = 'bob'",
    "truncate messages",
)


async def test_what_is_given_and_not_chosen_cannot_be_written(town: Town) -> None:
    """Numbers, authors, times and traces have no way in."""
    room = await room_of(town)
    async with town.person("ada") as ada:
        await ada.rows("select append($1, 'one')", room)
        for statement in NO_WAY_IN:
            state = await ada.refusal(statement.replace(":room", str(room)))
            assert state in ("42501", "55000", "42809"), statement


# -- The rules


RULES = {
    # as a stranger: nothing tells whether it is there
    "bob: select append(':hers', 'x')": "GR404",
    "bob: select append_many(':hers', json_agg(json_build_object('content', 'x')))": "GR404",
    "bob: select edit(':hers', 1, 'x')": "GR404",
    "bob: select delete_message(':hers', 1)": "GR404",
    "bob: select rewind(':hers', 0)": "GR404",
    "bob: select set_title(':hers', 'x')": "GR404",
    "bob: select archive(':hers')": "GR404",
    "bob: select erase_conversation(':hers')": "GR404",
    "bob: select read_upto(':hers', 1)": "GR404",
    "bob: select rate(':hers', 1)": "GR404",
    "bob: select invite(':hers')": "GR404",
    "bob: select leave(':hers')": "GR404",
    "bob: select set_participant(':hers', 'bob', 'owner')": "GR404",
    "bob: insert into messages (conversation_id, content) values (':hers', 'x')": "GR404",
    "bob: insert into participants (conversation_id, user_id) values (':hers', 'bob')": "GR404",
    # as a member of a room
    "bob: select append(':room', 'x', role => 'assistant')": "GR403",
    "bob: select append(':room', 'x', role => 'system')": "GR403",
    "bob: select edit(':room', 1, 'x')": "GR403",
    "bob: update messages set content = 'x'": "GR403",
    "bob: delete from messages": "GR403",
    "bob: select rewind(':room', 0)": "GR403",
    "bob: select set_title(':room', 'x')": "GR403",
    "bob: update conversations set archived = true": "GR403",
    "bob: delete from conversations": "GR403",
    "bob: select set_participant(':room', 'bob', 'owner')": "GR403",
    "bob: select leave(':room', 'ada')": "GR403",
    # as its owner
    "ada: select append(':room', 'x', role => 'assistant')": "GR403",
    "ada: select leave(':room')": "GR403",
    "ada: select rewind(':room', 99)": "GR422",
    "ada: select rewind(':room', null)": "GR422",
    "ada: select edit(':room', 99, 'x')": "GR404",
    "ada: select edit(':room', 1, '')": "GR422",
    "ada: select edit(':room', 1, 'x', if_rev => 99)": "GR412",
    "ada: select activate_branch(':room', ':room')": "GR404",
    "ada: select rate(':room', 5)": "GR422",
    "ada: select rate(':room', 1, 99)": "GR404",
    "ada: select rate(':room', 1, comment => repeat('x', 5000))": "GR422",
    "ada: select invite(':room', 'owner')": "GR422",
    "ada: select invite(':room', expires_in => '2 years')": "GR422",
    "ada: select invite(':room', max_uses => 0)": "GR422",
    "ada: select set_participant(':room', '')": "GR422",
    "ada: select set_participant(':room', 'zoe', 'king')": "GR422",
    "ada: select set_title(':room', repeat('x', 1001))": "GR422",
    "ada: update conversations set history_limit = -1": "GR422",
    "ada: update conversations set metadata = '[]'": "GR422",
    "ada: select create_conversation(kind => 'party')": "GR422",
    "ada: select create_conversation(subject => '')": "GR422",
    "ada: select create_conversation(history_limit => 10001)": "GR422",
    "ada: select create_conversation(members => array[''])": "GR422",
    "ada: select create_conversation(metadata => to_jsonb(repeat('x', 9)))": "GR422",
    "ada: select create_conversation("
    "metadata => jsonb_build_object('a', repeat('x', 20000)))": "GR422",
    "ada: select append(null, 'x')": "GR404",
    "ada: select append(':room', null)": "GR422",
    "ada: select append_many(':room', null)": "GR422",
    "ada: select append_many(':room', '[]')": "GR422",
    "ada: select append_many(':room', '{}')": "GR422",
    "ada: select append_many(':room', '[7]')": "GR422",
    "ada: select append_many(':room', json_agg(json_build_object('content', 'x')))"
    " from generate_series(1, 101)": "GR422",
    "ada: select append_many(':room', json_agg(json_build_object('content', 'x', 'id', ':room')))"
    " from generate_series(1, 2)": "GR422",
    "ada: update request set verb = 'fly', arguments = '{}'": "GR422",
    "ada: update request set verb = null, arguments = null": "GR422",
    "ada: update request set verb = 'append', arguments = null": "GR422",
}


async def test_the_rules_are_those_of_the_server(town: Town) -> None:
    """Who may not do it over the API may not do it here, and hears the same code."""
    places = {"hers": await room_of(town), "room": await room_of(town, bob="member")}
    async with town.person("ada") as ada, town.person("bob") as bob:
        for place in places.values():
            await ada.rows("select append($1, 'one')", place)
        before = [await town.service.conversations.get(place) for place in places.values()]
        for line, state in RULES.items():
            name, _, statement = line.partition(": ")
            person = {"ada": ada, "bob": bob}[name]
            said = re.sub(r":(hers|room)\b", lambda m: str(places[m[1]]), statement)
            assert await person.refusal(said) == state, line
        after = [await town.service.conversations.get(place) for place in places.values()]
    assert after == before


CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
TEXT = {"type": "text", "text": "a"}
IMAGE = {"type": "image_url", "image_url": {"url": "u"}}
LONG = 256 * 1024

#: Messages as somebody may send them, right and wrong.
DRAFTS: tuple[dict[str, object], ...] = (
    {"content": "hello"},
    {"content": ""},
    {},
    {"content": None},
    {"content": 7},
    {"content": "é \x01 😀"},
    {"content": "a\0b"},
    {"content": "half \ud83d"},
    {"role": "king", "content": "x"},
    {"role": None, "content": "x"},
    {"role": "assistant"},
    {"role": "assistant", "content": ""},
    {"role": "assistant", "content": "x", "reasoning": "y", "name": "z"},
    {"role": "system"},
    {"role": "system", "content": ""},
    {"role": "tool", "content": "x"},
    {"role": "tool", "content": "x", "tool_call_id": ""},
    {"role": "tool", "content": "x", "tool_call_id": "c"},
    {"role": "tool", "tool_call_id": "c"},
    {"content": "x", "tool_call_id": "c"},
    {"content": "x", "reasoning": "c"},
    {"content": "x", "surprise": 1},
    {"content": "x", "author_id": "bob"},
    {"content": "x", "name": "n" * 256},
    {"content": "x", "name": "n" * 257},
    {"content": "x" * LONG},
    {"content": "x" * LONG + "x"},
    {"content": "x", "metadata": {"a": [1, 2.5, "é"]}},
    {"content": "x", "metadata": {}},
    {"content": "x", "metadata": []},
    {"content": "x", "metadata": {"a": "\0"}},
    {"content": "x", "metadata": {"a": "x" * 16384}},
    {"parts": [TEXT, IMAGE, {"text": "b", "type": "text"}]},
    {"content": "a", "parts": [TEXT]},
    {"content": "b", "parts": [TEXT]},
    {"parts": [IMAGE]},
    {"parts": []},
    {"content": "x", "parts": []},
    {"parts": {}},
    {"parts": [7]},
    {"parts": [{"text": "a"}]},
    {"parts": [{"type": "text"}]},
    {"parts": [{"type": "text", "text": "\0"}]},
    {"role": "assistant", "tool_calls": [CALL]},
    {"role": "assistant", "tool_calls": [{"id": "c", "function": {"name": "f", "arguments": ""}}]},
    {"role": "assistant", "tool_calls": []},
    {"role": "assistant", "tool_calls": [{"id": "c"}]},
    {"role": "assistant", "tool_calls": [{**CALL, "id": 1}]},
    {"role": "assistant", "tool_calls": [{**CALL, "type": "other"}]},
    {"role": "user", "content": "x", "tool_calls": [CALL]},
    {"content": "x", "said_at": "2024-05-06T07:08:09+02:00"},
    {"content": "x", "said_at": "2024-05-06T07:08:09.123456Z"},
    {"content": "x", "said_at": "2024-05-06T07:08:09"},
    {"content": "x", "said_at": "yesterday"},
    {"content": "x", "said_at": "9999-12-31T23:59:59Z"},
    {"content": "x", "id": "0190f3c4-0000-7000-8000-00000000abcd"},
    {"content": "x", "id": "me"},
)


async def test_a_message_must_be_what_it_must_be_over_the_api(town: Town) -> None:
    """Each draft is taken or refused as there, and what is taken is stored as there."""
    room = await assistant_of(town)
    async with town.person("ada") as ada:
        for draft in DRAFTS:
            sent = json.dumps([draft])
            try:
                [said] = msgspec.json.decode(sent, type=list[Draft])
                checked = check(said, Speaker("ada", "ada", "Ada", "ada"))
            except (Error, msgspec.DecodeError):
                state = await ada.refusal("select append_many($1, $2)", room, sent)
                # A text that is no uuid, no time or no text at all is refused by its type.
                assert state in ("GR422", "22P02", "22007", "22P05"), draft
                continue
            [[[seq]]] = await ada.rows("select append_many($1, $2)", room, sent)
            [row] = await ada.rows(
                "select role, author_id, author_name, written_by, content, parts::jsonb,"
                " tool_calls::jsonb, tool_call_id, name, reasoning, nullif(metadata, '{}'), said_at"
                " from record where seq = $1",
                seq,
            )
            assert list(map(loaded, row)) == list(map(loaded, checked.columns[2:])), draft
    assert (await town.service.messages.recent(room, limit=100)).data


def loaded(value: object) -> object:
    """A JSON text as its value, so that spelling does not count."""
    return json.loads(value) if isinstance(value, str) and value.startswith(("[", "{")) else value


# -- The numbers


async def test_an_id_is_one_message_for_ever(town: Town) -> None:
    """Sent again it is the same; with other words, or over another way in, it is refused."""
    room, mine = await assistant_of(town), uuid7()
    async with town.person("ada") as ada:
        for _ in range(3):
            assert await ada.one("select append($1, 'one', $2)", room, mine) == 1
        await ada.rows("select edit($1, 1, 'edited')", room)
        assert await ada.one("select append($1, 'one', $2)", room, mine) == 1
        [row] = await ada.rows(
            "insert into messages (conversation_id, id, content) values ($1, $2, 'one')"
            " returning seq, content",
            room,
            mine,
        )
        assert row == (1, "edited")
        assert await ada.refusal("select append($1, 'other', $2)", room, mine) == "GR409"
        assert await ada.refusal("select append($1, 'one', $2, 'system')", room, mine) == "GR409"
        with pytest.raises(IdReused):
            await town.service.messages.append(room, id=mine, content="one", actor="ada")

        # A time is the same time in any zone.
        draft = json.dumps(
            [{"id": str(uuid7()), "content": "x", "said_at": "2024-05-06T12:00:00+02:00"}]
        )
        for zone in ("UTC", "Asia/Kathmandu"):
            await ada.live.execute(f"set timezone = '{zone}'")
            assert await ada.one("select append_many($1, $2)", room, draft) == [2]

        made = await ada.one("select create_conversation('x', id => $1)", mine)
        assert made == mine == await ada.one("select create_conversation('x', id => $1)", mine)
        assert await ada.refusal("select create_conversation('y', id => $1)", mine) == "GR409"
        await ada.rows("select erase_conversation($1)", mine)
        assert await ada.refusal("select create_conversation('x', id => $1)", mine) == "GR410"


async def test_who_writes_here_and_there_at_once_shares_one_row_of_numbers(town: Town) -> None:
    """Appends of two people with roles and of the server, all at once: no gap and no double."""
    room = await room_of(town, bob="member")

    async def insist(person: Person) -> list[int]:
        return [await person.one("select append($1, 'x')", room) for _ in range(15)]

    async with (
        town.person("ada") as ada,
        town.person("bob") as bob,
        asyncio.TaskGroup() as group,
    ):
        direct = [group.create_task(insist(person)) for person in (ada, bob)]
        served = [
            group.create_task(town.service.messages.append(room, content="x", actor="ada"))
            for _ in range(30)
        ]
    seqs = [seq for task in direct for seq in task.result()]
    seqs += [task.result().seq for task in served]
    assert sorted(seqs) == list(range(1, 61))


async def test_what_is_rolled_back_was_never_said(town: Town) -> None:
    """A transaction of several statements is one, and gives its numbers back."""
    room = await room_of(town)
    async with town.person("ada") as ada:
        async with undone(ada.live):
            assert await ada.one("select append($1, 'x')", room) == 1
            assert await ada.one("select count(*) from messages") == 1
        assert await ada.one("select append($1, 'y')", room) == 1
        # A refusal undoes the statement it is in, all its rows.
        state = await ada.refusal(
            "insert into messages (conversation_id, content) values ($1, 'z'), ($1, '')", room
        )
        assert state == "GR422"
    assert await contents(town, room) == ["y"]


async def test_writing_needs_the_isolation_the_rules_were_made_for(town: Town) -> None:
    """Under an older snapshot an erased id would look free: only reads are let through."""
    room = await room_of(town)
    async with town.person("ada") as ada:
        for isolation in ("repeatable read", "serializable"):
            await ada.live.execute(f"set default_transaction_isolation = '{isolation}'")
            assert await ada.refusal("select append($1, 'x')", room) == "25000"
            assert await ada.one("select count(*) from conversations") == 1


async def test_what_is_acknowledged_is_on_disk(town: Town) -> None:
    """A role whose commits need not be durable by default still has them so when it writes."""
    room = await room_of(town)
    async with town.person("ada", {"synchronous_commit": "off"}) as ada:
        async with ada.live.transaction():
            await ada.rows("select append($1, 'x')", room)
            assert await ada.one("select current_setting('synchronous_commit')") == "on"
        assert await ada.one("select current_setting('synchronous_commit')") == "off"


async def test_those_who_follow_hear_of_it(town: Town) -> None:
    """The server's processes are woken as by its own writes."""
    room = await room_of(town, bob="member")
    heard: asyncio.Queue[Wake | None] = asyncio.Queue()
    ears = asyncio.create_task(PostgresBus(town.dsn).run(heard.put_nowait))
    try:
        assert await heard.get() is None  # it listens
        async with town.person("bob") as bob:
            await bob.rows("select append($1, 'x')", room)
            assert await heard.get() == Wake(room, 0, people=False)
            made = await bob.one("select create_conversation()")
            assert await heard.get() == Wake(made, 0, people=True)
            await bob.rows("select rate($1, 1)", room)
            await bob.rows("select leave($1)", room)
            assert await heard.get() == Wake(room, 0, people=True)
    finally:
        ears.cancel()
        with pytest.raises(asyncio.CancelledError):
            await ears


async def test_an_open_transaction_holds_its_own_conversation_only(town: Town) -> None:
    """Whoever forgets to commit keeps back those who write in the same one, nobody else."""
    room, other = await room_of(town, bob="member"), await room_of(town, bob="member")
    async with town.person("bob") as bob, town.person("ada") as ada:
        async with undone(bob.live):
            await bob.rows("select append($1, 'x')", room)
            await ada.rows("select append($1, 'x')", other)
            await ada.live.execute("set lock_timeout = '10ms'")
            assert await ada.refusal("select append($1, 'x')", room) == "55P03"
        await ada.rows("select append($1, 'x')", room)
