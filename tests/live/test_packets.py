"""Events on their way to sockets: written at once where that is possible, in order everywhere."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import msgspec
import socketio

from greffier.server.packets import Event, Outbox, event
from helpers.patience import PATIENCE
from live.conftest import Running, Socket


def numbered(number: int) -> Event:
    """An event that says which it is."""
    return event("noise", msgspec.json.encode({"n": number}))


def heard(socket: Socket) -> list[int]:
    """The numbers that were heard."""
    return [data["n"] for name, data in socket.events if name == "noise"]


async def until(true: Callable[[], Any]) -> None:
    """Let the server go on until something is so."""
    async with asyncio.timeout(PATIENCE):
        while not true():  # noqa: ASYNC110 - the engine signals nothing of it
            await asyncio.sleep(0)


async def settled(server: Running, socket: Socket) -> tuple[str, Any]:
    """The socket's id, and the engine's side of it once its writer waits for work."""
    # The answer to a call is behind whatever was sent before it.
    await socket.call("leave", conversation_id="00000000-0000-7000-8000-000000000000")
    (sid,) = server.app.sockets._sessions
    eio = server.app.sockets._wire.socket(sid)
    await until(lambda: eio.queue.idle)
    return sid, eio


async def test_an_event_is_written_at_once_where_nothing_waits(server: Running) -> None:
    """It takes no turn of the queue; larger ones than a frame's short length come whole, too."""
    wire = server.app.sockets._wire
    async with server.socket("ada") as ada:
        await ada.wait("list")
        sid, eio = await settled(server, ada)
        long = "é" * 40_000

        assert wire.send(sid, numbered(1))
        assert wire.send(sid, event("long", msgspec.json.encode({"text": long})))
        assert eio.queue.idle
        found = await ada.wait("long")

    assert heard(ada) == [1]
    assert found["text"] == long


async def test_a_transport_that_takes_no_more_keeps_the_order(server: Running) -> None:
    """While it is paused events wait in the queue, and none overtakes those that wait."""
    wire = server.app.sockets._wire
    async with server.socket("ada") as ada:
        await ada.wait("list")
        sid, eio = await settled(server, ada)

        wire.send(sid, numbered(0))
        eio.protocol.pause_writing()
        for number in range(1, 4):
            wire.send(sid, numbered(number))
        # The writer takes one and waits with it: the queue is emptier than the way is free.
        await until(eio.queue.empty)
        eio.protocol.resume_writing()
        for number in range(4, 8):
            wire.send(sid, numbered(number))
        await ada.wait("noise", n=7)

    assert heard(ada) == list(range(8))


async def test_who_begins_with_polling_is_written_to_at_once_after_the_upgrade(
    server: Running,
) -> None:
    """Until then events wait in the queue; none is lost or doubled in between."""
    client = socketio.AsyncClient(reconnection=False)
    ada = Socket(client)

    async def noise(data: dict[str, Any]) -> None:
        ada.events.append(("noise", data))
        ada.something.set()

    client.on("noise", noise)
    wire = server.app.sockets._wire
    connecting = asyncio.create_task(
        client.connect(server.url, auth={"token": server.token("ada")})
    )
    await until(lambda: server.app.sockets._sessions)
    (sid,) = server.app.sockets._sessions
    number = 0
    while not connecting.done():
        number += wire.send(sid, numbered(number))
        await asyncio.sleep(0.002)
    await connecting
    assert client.transport() == "websocket"
    sid, eio = await settled(server, ada)
    assert wire.send(sid, numbered(number))
    assert eio.queue.idle
    await ada.wait("noise", n=number)
    await client.disconnect()

    assert heard(ada) == list(range(number + 1))


async def test_an_answer_in_pieces_is_the_same_on_every_way(server: Running) -> None:
    """Written at once, out of the queue of a paused transport, and over polling."""
    async with server.http("ada") as http:
        made = await http.post("/v1/conversations", json={"title": "é" * 200})
        talk = made.json()["id"]
    polling = socketio.AsyncClient(reconnection=False)
    await polling.connect(server.url, auth={"token": server.token("ada")}, transports=["polling"])
    (polled,) = server.app.sockets._sessions
    asked = {"conversation_id": talk, "epoch": made.json()["epoch"], "rev": 0}
    by_polling = await polling.call("join", asked)
    async with server.socket("ada") as ada:
        await ada.wait("list")
        at_once = await ada.call("join", **asked)
        (sid,) = set(server.app.sockets._sessions) - {polled}
        eio = server.app.sockets._wire.socket(sid)
        eio.protocol.pause_writing()
        waiting = asyncio.create_task(ada.call("join", **asked))
        await until(lambda: not eio.queue.idle)
        eio.protocol.resume_writing()
        queued = await waiting
    await polling.disconnect()

    def lasting(answer: dict[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in answer.items() if key != "presence"}

    assert by_polling["changes"]["conversation"]["title"] == "é" * 200
    assert lasting(by_polling) == lasting(at_once) == lasting(queued)


async def test_what_is_taken_back_leaves_the_rest_in_order() -> None:
    """Of one conversation's changes; and whoever waits until all was taken is not kept waiting."""
    mine, other = uuid4(), uuid4()
    queue = Outbox()
    for number in range(6):
        one = numbered(number)
        if number in (1, 3):
            one.about = (mine, 10 + number)
        if number == 4:
            one.about = (other, 5)
        queue.put_nowait(one)
    queue.put_nowait(None)

    assert queue.recall(mine) == 11
    assert queue.recall(mine) is None
    left = []
    while (one_left := await queue.get()) is not None:
        left.append(one_left.data)
        queue.task_done()
    queue.task_done()
    await queue.join()
    assert left == [numbered(number).data for number in (0, 2, 4, 5)]
