"""What no client of ours sends, and how clients leave: no error of ours, and not kept for ever."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import pytest
import socketio
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as websocket
from websockets.exceptions import ConnectionClosed

from greffier.publish.arrivals import Arrival, Arrivals
from greffier.server import engine
from greffier.server.packets import event
from helpers.patience import PATIENCE
from live.conftest import Running
from live.test_packets import until
from live.test_sockets import room, say

#: A conversation of nobody.
NONE = "00000000-0000-7000-8000-000000000000"


@contextlib.asynccontextmanager
async def raw(server: Running, user: str | None = None) -> AsyncIterator[ClientConnection]:
    """Speak to the engine in frames of one's own, as somebody who came in or not yet."""
    url = server.url.replace("http", "ws") + "/socket.io/?EIO=4&transport=websocket"
    async with websocket(url, compression=None) as wire:
        assert str(await wire.recv()).startswith("0{")
        if user is not None:
            await wire.send("40" + json.dumps({"token": server.token(user)}))
            assert str(await wire.recv()).startswith("40{")
        yield wire


async def answer(wire: ClientConnection, frame: str) -> Any:
    """Send an event that asks for the acknowledgement 7, and give that."""
    await wire.send(frame)
    async with asyncio.timeout(PATIENCE):
        while not (found := str(await wire.recv())).startswith("437["):
            pass
    return json.loads(found[3:])[0]


async def ended(wire: ClientConnection) -> None:
    """Wait until the server has ended a connection."""
    async with asyncio.timeout(PATIENCE):
        with contextlib.suppress(ConnectionClosed):
            while True:
                await wire.recv()


@pytest.mark.parametrize(
    "frame",
    [
        "",
        "z",
        "4",
        "4z",
        "²",
        "49",
        '44{"message":"no"}',
        "3" + "[" * 30_000,
        '42["join"',
        "42" + "[" * 30_000,
        '42{"join":1}',
        "42[]",
        "42[1]",
        "42",
        "42" + "9" * 120 + '["join"]',
        '42["connect",{},{"token":"x"}]',
        '42["disconnect"]',
        '451-["join",{"_placeholder":true,"num":0}]',
        b"\x04binary",
    ],
    ids=lambda frame: repr(frame[:12]),
)
async def test_what_is_no_packet_ends_the_connection_and_nothing_else(
    server: Running, frame: str | bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """It is the client's mistake: no line of the log blames us, and nobody else notices."""
    async with server.socket("ada") as ada, raw(server, "eve") as eve:
        await eve.send(frame)
        await ended(eve)
        assert (await ada.call("leave", conversation_id=NONE))["ok"]
        await until(lambda: len(server.app.sockets._sessions) == 1)

    assert [one for one in caplog.records if one.levelno >= logging.WARNING] == []


async def test_an_event_that_is_none_of_ours_is_refused(server: Running) -> None:
    """With a code: whoever asked does not wait for ever."""
    async with raw(server, "eve") as eve:
        refused = await answer(eve, '427["shout",{}]')

    assert refused == {"ok": False, "code": "validation"}


async def test_more_events_than_may_wait_are_refused(server: Running) -> None:
    """One after the other they are answered, and a crowd of them takes no memory without end."""
    async with server.socket("eve") as eve:
        await eve.wait("list")
        (session,) = server.app.sockets._sessions.values()
        async with session.turn:
            crowd = [
                asyncio.create_task(eve.call("leave", conversation_id=NONE))
                for _ in range(server_waiting() + 5)
            ]
            refused = [await one for one in crowd[-5:]]
        kept = await asyncio.gather(*crowd[:-5])

    assert refused == [{"ok": False, "code": "rate-limited"}] * 5
    assert kept == [{"ok": True}] * server_waiting()


def server_waiting() -> int:
    """How many may wait."""
    from greffier.server import sockets

    return sockets.WAITING


async def test_who_hangs_up_while_let_in_is_not_there(
    server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No ghost is online, and nothing of theirs is kept."""
    authenticator = server.app.service.authenticator
    identify = authenticator.identify
    asked, goes = asyncio.Event(), asyncio.Event()

    async def held(token: str) -> Any:
        asked.set()
        await goes.wait()
        return await identify(token)

    monkeypatch.setattr(authenticator, "identify", held)
    sockets = server.app.sockets
    async with server.http("bob") as http:
        # Over polling, where one request lets in and another hangs up.
        where = "/socket.io/?EIO=4&transport=polling"
        opened = await http.get(where)
        where += "&sid=" + json.loads(opened.text[1:])["sid"]
        hello = "40" + json.dumps({"token": server.token("bob")})
        coming = asyncio.create_task(http.post(where, content=hello))
        await asked.wait()
        await http.post(where, content="1")
        assert not sockets.server.environ
        goes.set()
        await coming
    await until(lambda: not sockets.server.manager.pending_connect)
    await until(lambda: not sockets._tasks)

    assert sockets._sessions == {}
    assert sockets.server.manager.rooms == {}
    assert "bob" not in server.app.service.signals._connections


async def test_who_does_not_come_in_is_hung_up(
    server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection that never says who it is, and one that was sent away and does not go."""
    async with raw(server, "bob") as bob:
        # Not before bob is in, who may take his time.
        monkeypatch.setattr(engine, "STRANGER", 0.1)
        async with raw(server) as nobody:
            await ended(nobody)
        (sid,) = server.app.sockets._sessions
        await server.app.sockets.server.disconnect(sid)
        await ended(bob)
    await until(lambda: not server.app.sockets.server.environ)

    assert server.app.sockets.server._strangers == {}


async def test_a_post_that_is_too_large_is_answered(server: Running) -> None:
    """Over polling too: the session ends, and the request does not wait for somebody to poll."""
    async with server.http("eve") as http:
        where = "/socket.io/?EIO=4&transport=polling"
        opened = await http.get(where)
        sid = json.loads(opened.text[1:])["sid"]
        refused = await http.post(f"{where}&sid={sid}", content=b"4" * (65 << 10), timeout=PATIENCE)
        after = await http.get(f"{where}&sid={sid}", timeout=PATIENCE)

    assert (refused.status_code, after.status_code) == (400, 400)


async def test_who_reads_nothing_is_cut_off(
    server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once their socket has ended: their kernel would keep the connection for days."""
    monkeypatch.setattr(engine, "LINGER", 0.0)
    sockets = server.app.sockets
    async with raw(server, "bob") as bob:
        (sid,) = sockets._sessions
        eio = sockets._wire.socket(sid)
        protocol = eio.protocol
        bob.transport.pause_reading()
        while protocol.writable.is_set():
            sockets._wire.send(sid, event("noise", b'"%b"' % (b"x" * 60_000)))
            await asyncio.sleep(0)
        await sockets.server.hang_up(eio.sid)
        await until(lambda: protocol.disconnected)

        assert protocol.transport.get_write_buffer_size() == 0


async def test_a_recovery_ends_with_its_socket(server: Running) -> None:
    """What waits for a client that is gone is taken by nobody, and nobody waits for that."""
    talk = await room(server, "bob")
    sockets = server.app.sockets
    async with server.socket("bob") as bob:
        await bob.call("join", conversation_id=talk)
        (sid,) = sockets._sessions
        eio = sockets._wire.socket(sid)
        eio.protocol.pause_writing()
        for _ in range(3):
            sockets._wire.send(sid, event("noise", b"1"))
        (joined,) = sockets._places
        sockets._fall_behind(joined)
        await asyncio.sleep(0)
        eio.protocol.transport.abort()
        await until(lambda: not sockets._sessions)
        await until(lambda: not sockets._tasks)


class Held:
    """Holds up the answers to joins."""

    def __init__(self, arrivals: Arrivals, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked, self.goes = asyncio.Event(), asyncio.Event()
        answer_now = arrivals.answer

        async def held(talk: UUID, user: str | None, since: int | None) -> Arrival:
            self.asked.set()
            await self.goes.wait()
            return await answer_now(talk, user, since)

        monkeypatch.setattr(arrivals, "answer", held)


async def test_a_stranger_is_told_nothing_while_their_join_is_looked_at(
    server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither what is said nor what an agent says, before it is known whether they may hear it."""
    talk = await room(server, "bob")
    async with server.socket("bob") as bob, server.socket("eve") as eve:
        assert (await bob.call("join", conversation_id=talk))["ok"]
        (sid,) = server.app.sockets._present(UUID(talk))
        held = Held(server.app.sockets._arrivals, monkeypatch)
        joining = asyncio.create_task(eve.call("join", conversation_id=talk))
        await held.asked.wait()
        assert len(server.app.sockets._rooms[UUID(talk)]) == 2
        assert server.app.sockets._present(UUID(talk)) == [sid]
        await say(server, talk, "secret")
        await bob.wait("change", rev=2)
        held.goes.set()
        refused = await joining

    assert refused == {"ok": False, "code": "not-found"}
    assert "secret" not in str(eve.events)


async def test_who_joins_hides_nobody_s_coming_from_the_others(
    server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a join is looked at the room's other sockets hear who is there as ever."""
    talk = await room(server, "bob", "carl")
    sockets = server.app.sockets
    async with server.socket("bob") as bob, server.socket("ada") as ada:
        await bob.call("join", conversation_id=talk)
        held = Held(sockets._arrivals, monkeypatch)
        joining = asyncio.create_task(ada.call("join", conversation_id=talk))
        await held.asked.wait()
        found = sockets._rooms[UUID(talk)]
        # Whichever of the two a set gives first.
        first, second = sorted(found, key=lambda one: one.admitted)
        sockets._rooms[UUID(talk)] = dict.fromkeys((first, second))  # type: ignore[assignment]
        async with server.socket("carl"):
            seen = await bob.wait("presence")
        sockets._rooms[UUID(talk)] = found
        held.goes.set()
        assert (await joining)["ok"]

    assert [one["user_id"] for one in seen["users"]] == ["carl"]


async def test_people_heard_of_during_a_join_stay(
    server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The join's own read may be older than what was heard meanwhile."""
    talk = await room(server, "bob")
    arrivals = server.app.sockets._arrivals
    answer_now = arrivals.answer
    asked, goes = asyncio.Event(), asyncio.Event()

    async def late(conversation_id: UUID, user: str | None, since: int | None) -> Arrival:
        found = await answer_now(conversation_id, user, since)
        asked.set()
        await goes.wait()
        return found

    monkeypatch.setattr(arrivals, "answer", late)
    async with server.socket("bob") as bob, server.http("ada") as http:
        joining = asyncio.create_task(bob.call("join", conversation_id=talk))
        await asked.wait()
        where = f"/v1/conversations/{talk}/participants"
        assert (await http.post(where, json={"user_id": "carl"})).status_code in (200, 201)
        (joined,) = server.app.sockets._places
        await until(lambda: joined.heard)
        goes.set()
        await joining

        assert joined.people == {"ada", "bob", "carl"}


async def test_a_client_of_the_library_still_comes_and_goes(server: Running) -> None:
    """It connects by polling, is upgraded, leaves the namespace, and comes back on a new wire."""
    client = socketio.AsyncClient(reconnection=False)
    for _ in range(2):
        await client.connect(server.url, auth={"token": server.token("ada")})
        assert (await client.call("leave", {"conversation_id": NONE}))["ok"]
        await client.disconnect()
    await until(lambda: not server.app.sockets._sessions)
