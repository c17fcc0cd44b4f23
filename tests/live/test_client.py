"""``greffier.client`` offers the library's names over HTTP: the same values, the same errors."""

from __future__ import annotations

import uuid

import msgspec
import pytest

import greffier
from greffier.client import Unanswered, connect
from greffier.errors import Forbidden, Gone, IdReused, Invalid, NotFound, Unauthenticated
from greffier.model.message import Draft
from greffier.server.auth import issue
from helpers.api import SECRET
from helpers.crowd import token
from live.conftest import Running, a_name


async def test_messages_are_the_library_s_values(server: Running) -> None:
    """Appended, read in pages, edited, deleted, rewound; each answer is the frozen value."""
    async with connect(server.url, token(a_name("eva"))) as g:
        talk = await g.conversations.create(title="Plans", metadata={"a": 1})
        one = await g.messages.append(talk.id, content="one")
        two, three = await g.messages.append_many(
            talk.id, [Draft(role="assistant", content="two"), Draft(content="three")]
        )
        pages = [
            await g.messages.recent(talk.id, limit=2),
            await g.messages.before(talk.id, 3, limit=1),
            await g.messages.after(talk.id, 1, limit=1),
            await g.messages.around(talk.id, 2, limit=1),
        ]
        edited = await g.messages.edit(talk.id, one.seq, "One")
        whole = await g.messages.get(talk.id, one.seq)
        context = await g.context(talk.id, max_messages=2)
        stats = await g.conversations.stats(talk.id)
        await g.messages.delete(talk.id, two.seq, erase=True)
        erased = await g.messages.get(talk.id, two.seq)
        removed = await g.messages.rewind(talk.id, after_seq=1)
        change = await g.conversations.changes(talk.id, since=talk.rev, epoch=talk.epoch)

    assert isinstance(one, greffier.Message)
    assert isinstance(talk, greffier.Conversation)
    assert [[m.seq for m in page.data] for page in pages] == [[2, 3], [2], [2], [2]]
    assert (edited.content, whole) == ("One", edited)
    assert [m["content"] for m in context.messages] == ["two", "three"]
    assert (stats.messages.user, stats.messages.assistant) == (2, 1)
    assert erased.content is None
    assert removed == 1
    assert [m.content for m in change.messages] == ["One"]
    assert change.superseded == [(2, 3)]
    assert three.seq == 3


async def test_the_same_program_runs_on_a_server(server: Running) -> None:
    """Whose it is may be said as in the library: by that user, and for anybody by a service."""
    root, service, eva = a_name("root"), a_name("bot"), a_name("élodie")
    async with connect(server.url, issue(SECRET.encode(), root, admin=True, lifetime=60)) as g:
        made = await g.wire.write("POST", "/v1/keys", {"scope": "service", "name": service})
    key = msgspec.json.decode(made)["key"]

    for who, written_by in ((token(eva), eva), (key, f"service:{service}")):
        async with connect(server.url, who) as g:
            talk = await g.conversations.create(owner=eva, title="Plans", agent=None)
            said = await g.messages.append(talk.id, content="Bonjour", actor=eva)
            listed = await g.conversations.list(user=eva, limit=1)
            context = await g.context(talk.id, max_messages=30, actor=eva)
            read = await g.conversations.read(talk.id, said.seq, user=eva)
            removed = await g.messages.rewind(talk.id, after_seq=0, actor=eva)

        assert (talk.owner_id, said.author_id, said.written_by) == (eva, eva, written_by)
        assert [one.id for one in listed.data] == [talk.id]
        assert [one["content"] for one in context.messages] == ["Bonjour"]
        assert (read.last_read_seq, removed) == (1, 1)


async def test_nobody_but_a_service_acts_for_another(server: Running) -> None:
    """A user who names somebody else is refused."""
    async with connect(server.url, token(a_name("eva"))) as g:
        with pytest.raises(Forbidden):
            await g.conversations.create(owner=a_name("bob"))


async def test_conversations_are_changed_and_erased(server: Running) -> None:
    """Listed, renamed, archived, gone."""
    async with connect(server.url, token(a_name("eva"))) as g:
        talk = await g.conversations.create(title="Plans")
        listed = await g.conversations.list()
        renamed = await g.conversations.update(talk.id, title="Other plans")
        archived = await g.conversations.archive(talk.id)
        active = await g.conversations.list()
        await g.conversations.erase(talk.id)
        with pytest.raises(Gone):
            await g.conversations.get(talk.id)

    assert [one.id for one in listed.data] == [talk.id]
    assert renamed.title == "Other plans"
    assert archived.archived_at is not None
    assert active.data == []


async def test_people_come_and_read(server: Running) -> None:
    """Joined, marked, left."""
    eva, bob = a_name("eva"), a_name("bob")
    async with connect(server.url, token(eva)) as g, connect(server.url, token(bob)) as b:
        talk = await g.conversations.create(kind="room")
        joined = await g.conversations.join(talk.id, bob)
        said = await g.messages.append(talk.id, content="words")
        mark = await b.conversations.read(talk.id, said.seq)
        readers = await g.messages.readers(talk.id, said.seq)
        people = await g.conversations.participants(talk.id)
        await b.conversations.leave(talk.id, bob)
        with pytest.raises(NotFound):
            await b.messages.recent(talk.id)

    assert (joined.user_id, joined.role) == (bob, "member")
    assert mark.last_read_seq == said.seq
    assert [one.user_id for one in readers] == [bob]
    assert {one.user_id for one in people} == {eva, bob}


async def test_refusals_are_the_library_s_errors(server: Running) -> None:
    """By their code, a validation with its faults; no answer at all is ``Unanswered``."""
    eva, bob = a_name("eva"), a_name("bob")
    async with connect(server.url, token(eva)) as g, connect(server.url, token(bob)) as b:
        talk = await g.conversations.create(kind="room", participants={bob: "viewer"})
        said = uuid.uuid4()
        await g.messages.append(talk.id, content="one", id=said)
        with pytest.raises(IdReused):
            await g.messages.append(talk.id, content="two", id=said)
        with pytest.raises(Forbidden):
            await b.messages.append(talk.id, content="words")
        with pytest.raises(Invalid) as invalid:
            await g.messages.recent(talk.id, limit=0)
        async with connect(server.url, "nonsense") as nobody:
            with pytest.raises(Unauthenticated):
                await nobody.conversations.list()
        async with connect("http://127.0.0.1:9", token(eva)) as nowhere:
            with pytest.raises(Unanswered):
                await nowhere.conversations.list()

    assert [(one.pointer, one.code) for one in invalid.value.problems] == [("/limit", "range")]


async def test_reads_carry_the_position_of_the_last_write(server: Running) -> None:
    """So that a standby too answers with what was written."""
    async with connect(server.url, token(a_name("eva"))) as g:
        assert g.wire.position is None
        talk = await g.conversations.create()
        first = g.wire.position
        await g.messages.recent(talk.id)

    assert first is not None
    assert first.startswith("1.")
