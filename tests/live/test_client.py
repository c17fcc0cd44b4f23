"""``greffier.client`` offers the library's names over HTTP: the same values, the same errors."""

from __future__ import annotations

import asyncio
import sys
import uuid
from contextlib import aclosing, suppress
from typing import Any

import msgspec
import pytest
import socketio

import greffier
from greffier.change import agent as agents
from greffier.client import Unanswered, connect, connection, outbox
from greffier.client.live import Follower, Via
from greffier.client.wire import Change
from greffier.errors import Forbidden, Gone, IdReused, Invalid, NotFound, Unauthenticated
from greffier.model.agent import NewAgent
from greffier.model.message import Draft
from greffier.server.auth import issue
from helpers.api import SECRET
from helpers.crowd import token
from helpers.patience import PATIENCE
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


async def key_of_a_service(server: Running) -> str:
    """A key of scope service."""
    root = issue(SECRET.encode(), a_name("root"), admin=True, lifetime=60)
    async with connect(server.url, root) as g:
        made = await g.wire.write("POST", "/v1/keys", {"scope": "service", "name": a_name("bot")})
    found: str = msgspec.json.decode(made)["key"]
    return found


async def test_people_are_invited_and_say_what_they_think(server: Running) -> None:
    """By a token that is accepted; a thumb on a message, and one on the conversation."""
    eva, bob = a_name("eva"), a_name("bob")
    async with connect(server.url, token(eva)) as g, connect(server.url, token(bob)) as b:
        talk = await g.conversations.create(kind="room")
        said = await g.messages.append(talk.id, content="words")
        invited = await g.conversations.invite(talk.id, role="viewer", max_uses=1)
        joined = await b.conversations.accept(invited.token, user=bob)
        given = await b.conversations.rate(talk.id, -1, seq=said.seq, comment="no", user=bob)
        whole = await b.conversations.rate(talk.id, 1)
        assert await b.conversations.feedback(talk.id, seq=said.seq, user=bob) == given
        assert await b.conversations.feedback(talk.id) == whole

    assert (joined.id, joined.kind) == (talk.id, "room")
    assert (given.rating, given.comment, given.user_id) == (-1, "no", bob)
    assert (whole.rating, whole.comment) == (1, None)


async def test_what_was_given_is_taken_back(server: Running) -> None:
    """An invitation, a thumb, and oneself; before that everything of one's own is taken along."""
    eva, bob = a_name("eva"), a_name("bob")
    async with connect(server.url, token(eva)) as g, connect(server.url, token(bob)) as b:
        talk = await g.conversations.create(kind="room", participants={bob: "member"})
        said = await b.messages.append(talk.id, content="words of bob")
        invited = await g.conversations.invite(talk.id, max_uses=1)
        (listed,) = await g.conversations.invitations(talk.id)
        with pytest.raises(Forbidden):
            await b.conversations.revoke(talk.id, invited.id)
        await g.conversations.revoke(talk.id, invited.id)
        none = await g.conversations.invitations(talk.id)
        await g.conversations.rate(talk.id, 1, seq=said.seq)
        await g.conversations.unrate(talk.id, seq=said.seq)
        counted = await g.conversations.stats(talk.id)
        mine = await b.stats()
        file = b"".join([piece async for piece in b.export(bob)])
        await b.forget()
        left = await g.messages.get(talk.id, said.seq)

    assert (listed.id, listed.max_uses, none) == (invited.id, 1, [])
    assert (counted.feedback.up, mine.conversations) == (0, 1)
    assert b"words of bob" in file
    assert (left.content, left.author_id == bob) == ("words of bob", False)


async def test_paths_and_earlier_texts_are_read_and_taken_along(server: Running) -> None:
    """A branch is listed and made active again; a file of it all comes piece by piece."""
    async with connect(server.url, token(a_name("eva"))) as g:
        talk = await g.conversations.create()
        for content in ("one", "two"):
            await g.messages.append(talk.id, content=content)
        await g.messages.edit(talk.id, 1, "One")
        versions = await g.messages.versions(talk.id, 1)
        await g.messages.rewind(talk.id, after_seq=1)
        (branch,) = await g.conversations.branches(talk.id)
        rev = await g.conversations.activate(talk.id, branch.id)
        now = await g.conversations.get(talk.id)
        file = b"".join([piece async for piece in g.conversations.export(talk.id)])
        with pytest.raises(NotFound):
            async for _ in g.conversations.export(uuid.uuid4()):
                pass

    assert [one.content for one in versions] == ["one"]
    assert (branch.last_seq, rev) == (2, now.rev)
    assert [msgspec.json.decode(line).get("content") for line in file.splitlines()] == [
        None,
        "One",
        "two",
    ]


async def test_an_agent_is_asked_and_followed_to_its_end(server: Running) -> None:
    """Every event once, also from one in the middle on; waited for, counted, taken back."""
    script = [{"event": "content.delta", "data": {"text": text}} for text in ("Il ", "fait beau.")]
    new = NewAgent(name="Script", provider="script", model="x", params={"script": script})
    agent_id, _ = await agents.create(server.app.service.database, new)
    eva, work = a_name("eva"), server.app.service.work
    assert work is not None
    async with asyncio.timeout(60), connect(server.url, token(eva)) as g, work.running():
        agent = await g.agents.get(agent_id)
        listed = await g.agents.list(limit=100)
        talk = await g.conversations.create(agent=agent_id)
        asked = uuid.uuid4()
        run = await g.runs.start(talk.id, content="Quel temps ?", id=asked, actor=eva)
        events = [one async for one in g.runs.events(run.id)]
        rest = [one async for one in g.runs.events(run.id, after=events[0].id)]
        none = [one async for one in g.runs.events(run.id, after=events[-1].id)]
        over = await g.runs.wait(run.id)
        again = await g.runs.cancel(run.id)
        usage = await g.usage(eva)
        page = await g.messages.recent(talk.id)
        with pytest.raises(NotFound):
            await g.runs.wait(uuid.uuid4())

    assert agent in listed.data
    assert (run.id, over.status, again) == (asked, "completed", over)
    assert [one.id for one in events] == list(range(1, len(events) + 1))
    assert (events[0].name, events[-1].name) == ("run.started", "run.completed")
    assert (rest, none) == (events[1:], [])
    assert [one.content for one in page.data] == ["Quel temps ?", "Il fait beau."]
    assert usage.totals.runs == 1


@pytest.mark.parametrize("via", ["socket", "events"])
async def test_a_service_follows_and_counts_for_a_user(server: Running, via: Via) -> None:
    """It is told what that user is told, and nothing of what is not theirs."""
    eva, bob = a_name("eva"), a_name("bob")
    key = await key_of_a_service(server)
    async with connect(server.url, token(eva)) as g, connect(server.url, key) as service:
        talk = await g.conversations.create()
        following = service.follow(talk.id, since=talk.rev, epoch=talk.epoch, actor=eva, via=via)
        async with asyncio.timeout(PATIENCE), aclosing(following) as changes:  # type: ignore[type-var]
            await g.messages.append(talk.id, content="Bonjour")
            change = await anext(changes)
        with pytest.raises(NotFound):
            await anext(service.follow(talk.id, since=0, actor=bob, via=via))
        usage = await service.usage(eva)

    assert [one.content for one in change.messages] == ["Bonjour"]
    assert usage.totals.runs == 0


async def test_letting_go_in_the_instant_of_connecting_ends(
    server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever stops following is not held by a socket that did not hear of it."""
    connected, connect_really = asyncio.Event(), socketio.AsyncClient.connect

    async def deaf(self: socketio.AsyncClient, *args: Any, **options: Any) -> None:
        # What asyncio.wait_for does before Python 3.12 with a cancellation in that instant.
        await connect_really(self, *args, **options)
        connected.set()
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()

    monkeypatch.setattr(socketio.AsyncClient, "connect", deaf)
    eva, key = a_name("eva"), await key_of_a_service(server)
    async with connect(server.url, token(eva)) as g, connect(server.url, key) as service:
        talk = await g.conversations.create()
        following = service.follow(talk.id, since=talk.rev, epoch=talk.epoch, actor=eva)

        async def wait() -> None:
            await anext(following)

        waits = asyncio.create_task(wait())
        async with asyncio.timeout(PATIENCE):
            await connected.wait()
            waits.cancel()
            await asyncio.wait({waits})

    assert waits.cancelled()


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits long for a second try."""
    monkeypatch.setattr(outbox, "LONGEST", 0.2)


@pytest.mark.usefixtures("soon")
async def test_a_token_that_is_refused_meanwhile_is_told_to_who_follows(
    server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who follows is not left waiting for what will never come."""
    eva = a_name("eva")
    async with connect(server.url, token(eva)) as g, asyncio.timeout(PATIENCE):
        talk = await g.conversations.create()
        following = g.follow(talk.id, since=talk.rev, epoch=talk.epoch)
        waits: asyncio.Task[Change] = asyncio.create_task(anext(following))  # type: ignore[arg-type]
        sockets = server.app.sockets
        while not sockets._places:  # noqa: ASYNC110 - nothing signals that somebody has joined
            await asyncio.sleep(0.01)

        async def refuse(_token: str) -> Any:
            raise Unauthenticated

        monkeypatch.setattr(server.app.service.authenticator, "identify", refuse)
        (sid,) = sockets._sessions
        await sockets.server.disconnect(sid)
        with pytest.raises(Unauthenticated):
            await waits


@pytest.mark.usefixtures("soon")
async def test_where_no_websocket_gets_through_all_comes_late(
    server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing depends on the socket but delay: changes, a view and a list come over HTTP."""

    async def refused(*_: Any, **__: Any) -> None:
        raise socketio.exceptions.ConnectionError("a proxy that knows no WebSockets")

    monkeypatch.setattr(socketio.AsyncClient, "connect", refused)
    eva = a_name("eva")
    async with connect(server.url, token(eva)) as g, connect(server.url, token(eva)) as other:
        talk = await g.conversations.create()
        following = g.follow(talk.id, since=talk.rev, epoch=talk.epoch)
        async with (
            asyncio.timeout(PATIENCE),
            g.view(talk.id) as view,
            g.board() as board,
            aclosing(following) as changes,  # type: ignore[type-var]
        ):
            seen = asyncio.Event()
            board.hear(lambda now: seen.set() if len(now.rows) == 2 else None)
            await view.until(lambda now: now.state.base is not None)
            await other.messages.append(talk.id, content="Bonjour")
            await other.conversations.create()
            change = await anext(changes)
            await view.until(lambda now: len(now.items) == 1)
            await seen.wait()

    assert [one.content for one in change.messages] == ["Bonjour"]


@pytest.mark.usefixtures("soon")
async def test_an_answer_older_than_what_was_heard_is_asked_for_again(
    server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A standby may have what one wrote and not yet what one was told of."""
    eva = a_name("eva")
    async with connect(server.url, token(eva)) as g, asyncio.timeout(PATIENCE):
        talk = await g.conversations.create()
        ask, late = g.conversations.changes, 3
        old = await ask(talk.id, since=talk.rev, epoch=talk.epoch)

        async def behind(*args: Any, **options: Any) -> Any:
            nonlocal late
            late -= 1
            return old if late >= 0 else await ask(*args, **options)

        monkeypatch.setattr(g.conversations, "changes", behind)
        # Of the signals only the last comes, as if the others had been lost.
        follower = Follower(g.live, talk.id, talk.rev, talk.epoch)
        await g.messages.append(talk.id, content="one")
        said = await g.messages.append(talk.id, content="two")
        follower.reached(said.rev)
        change = await anext(follower)

    assert [one.content for one in change.messages] == ["one", "two"]


async def test_who_waits_to_ask_again_asks_when_something_is_heard(
    server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that is back is not waited for as long as it was away."""
    monkeypatch.setattr(outbox, "FIRST", 3600.0)
    monkeypatch.setattr(outbox, "LONGEST", 3600.0)
    eva = a_name("eva")
    async with connect(server.url, token(eva)) as g, asyncio.timeout(PATIENCE):
        talk = await g.conversations.create()
        ask, asked = g.conversations.changes, asyncio.Event()

        async def away(*_: Any, **__: Any) -> Any:
            monkeypatch.setattr(g.conversations, "changes", ask)
            asked.set()
            raise Unanswered

        monkeypatch.setattr(g.conversations, "changes", away)
        follower = Follower(g.live, talk.id, talk.rev, talk.epoch)
        said = await g.messages.append(talk.id, content="Bonjour")
        waits = asyncio.create_task(anext(follower))
        await asked.wait()
        await asyncio.sleep(0)
        follower.reached(said.rev)
        change = await waits

    assert [one.content for one in change.messages] == ["Bonjour"]


async def test_a_letting_go_that_is_let_go_of_is_no_end_of_the_other() -> None:
    """Cancelled while it waits for what runs beside it, a block ends as cancelled."""
    asked, goes = asyncio.Event(), asyncio.Event()

    async def slow() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            asked.set()
            await goes.wait()

    async def block() -> None:
        async with connection._beside(slow()):
            await asyncio.sleep(0)

    task = asyncio.create_task(block())
    await asked.wait()
    task.cancel()
    await asyncio.wait({task})
    goes.set()

    assert task.cancelled()


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


async def test_a_url_that_leads_nowhere_is_refused_at_once(server: Running) -> None:
    """Instead of being asked for ever; the API's own prefix may stand there or not."""
    for wrong in ("chat.example.org", "127.0.0.1:8080", "ftp://x/", "", "http://", "http://[::1"):
        with pytest.raises(Invalid):
            async with connect(wrong, "token"):
                pass
    async with connect(f"{server.url}/v1/", token(a_name("eva"))) as g:
        assert (await g.conversations.list()).data == []


async def test_without_its_extra_the_client_says_what_is_missing(
    server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Instead of following nothing; over server-sent events it follows as ever."""
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    async with connect(server.url, token(a_name("eva"))) as g:
        talk = await g.conversations.create()
        with pytest.raises(ModuleNotFoundError, match=r"greffier\[client\]"):
            async for _ in g.follow(talk.id):
                pass
        with pytest.raises(ModuleNotFoundError):
            async with g.view(talk.id):
                pass
        with pytest.raises(ModuleNotFoundError):
            async with g.board():
                pass
        async with aclosing(g.follow(talk.id, since=0, via="events")) as changes:  # type: ignore[type-var]
            assert (await anext(changes)).rev == talk.rev


async def test_reads_carry_the_position_of_the_last_write(server: Running) -> None:
    """So that a standby too answers with what was written."""
    async with connect(server.url, token(a_name("eva"))) as g:
        assert g.wire.position is None
        talk = await g.conversations.create()
        first = g.wire.position
        await g.messages.recent(talk.id)

    assert first is not None
    assert first.startswith("1.")
