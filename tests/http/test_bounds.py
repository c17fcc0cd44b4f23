"""Promise: nobody holds a connection by sending or taking nothing, or fills it with headers."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from greffier.server.protocol import Protocol
from helpers.api import SECRET
from helpers.postgres import new_database
from helpers.serving import headers, started

HEAD = b"POST /anything HTTP/1.1\r\nHost: here\r\n"


class Place:
    """What listens, and what its application saw."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.left = asyncio.Event()
        self.answered = asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer with the body's length; ``/early`` before it is here, ``/endless`` for ever."""
        start = {"type": "http.response.start", "status": 200, "headers": []}
        if scope["path"] == "/endless":
            await send(start)
            while not self.left.is_set():
                await send({"type": "http.response.body", "body": b"x" * 65536, "more_body": True})
                self.left.set() if (await _gone(receive)) else None
            return
        if scope["path"] == "/large":
            await send(start)
            body = b"x" * (64 << 20) + b"the end"
            await send({"type": "http.response.body", "body": body})
            return
        body = b""
        more = scope["path"] != "/early"
        while more:
            message = await receive()
            if message["type"] != "http.request":
                self.left.set()
                return
            body += message["body"]
            more = message["more_body"]
        self.bodies.append(body)
        await send(start)
        await send({"type": "http.response.body", "body": b"%d" % len(body)})
        self.answered.set()


async def _gone(receive: Any) -> bool:
    """Say whether the client is away, without waiting for it."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0):
            return bool((await receive())["type"] == "http.disconnect")
    return False


@contextlib.asynccontextmanager
async def listening(place: Place, **bounds: Any) -> AsyncIterator[int]:
    """Serve with these bounds; gives the port."""
    config = uvicorn.Config(place, lifespan="off", log_config=None)
    config.load()
    state = ServerState()
    loop = asyncio.get_running_loop()
    listener = await loop.create_server(
        lambda: Protocol(config, state, {}, **bounds), "127.0.0.1", 0
    )
    try:
        yield listener.sockets[0].getsockname()[1]
    finally:
        listener.close()


@contextlib.asynccontextmanager
async def connected(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Connect, and hang up."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


def problem(answer: bytes) -> dict[str, Any]:
    """Read a refusal, and see that it is the last word and has its form."""
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"content-type: application/problem+json\r\n" in head
    assert b"connection: close" in head
    found: dict[str, Any] = json.loads(body)
    assert f"x-request-id: {found['request_id']}".encode() in head
    assert head.startswith(f"HTTP/1.1 {found['status']} ".encode())
    return found


@pytest.mark.parametrize(
    "sent",
    [
        HEAD[:-10],
        HEAD + b"Content-Length: 20\r\n\r\n",
        HEAD + b"Content-Length: 20\r\n\r\nhalf of it",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n8\r\nhal",
    ],
    ids=["head", "no body", "body", "chunk"],
)
async def test_a_request_that_does_not_come_whole_is_refused(sent: bytes) -> None:
    """``request-timeout`` after CLIENT_SECONDS, and nothing waits for the rest."""
    place = Place()
    async with listening(place, client_seconds=0.2) as port, connected(port) as (reader, writer):
        writer.write(sent)

        assert problem(await reader.read())["code"] == "request-timeout"
        assert place.bodies == []
        if not HEAD.startswith(sent):
            await place.left.wait()


async def test_each_piece_does_not_begin_the_time_anew() -> None:
    """A byte now and then, before the time is over, keeps no connection."""
    place = Place()
    async with listening(place, client_seconds=0.3) as port, connected(port) as (reader, writer):
        writer.write(HEAD + b"Content-Length: 100000\r\n\r\n")
        answer = asyncio.create_task(reader.read())
        while not answer.done():
            writer.write(b"x")
            await asyncio.wait([answer], timeout=0.02)

        assert problem(answer.result())["code"] == "request-timeout"


async def test_a_connection_without_a_request_is_closed() -> None:
    """Without a word: there is nothing to answer."""
    async with listening(Place(), client_seconds=0.1) as port, connected(port) as (reader, _):
        assert await reader.read() == b""


async def test_who_had_their_answer_before_they_sent_all_is_closed_as_well() -> None:
    """And reads no second answer after the first."""
    place = Place()
    async with listening(place, client_seconds=0.2) as port, connected(port) as (reader, writer):
        writer.write(HEAD.replace(b"anything", b"early") + b"Content-Length: 20\r\n\r\nhalf")

        answer = await reader.read()
        assert answer.startswith(b"HTTP/1.1 200")
        assert answer.count(b"HTTP/1.1") == 1


async def test_time_passes_only_while_something_is_missing() -> None:
    """A connection may be used for long, by requests that each come in time."""
    place = Place()
    loop = asyncio.get_running_loop()
    async with listening(place, client_seconds=0.2) as port, connected(port) as (reader, writer):
        end = loop.time() + 0.5
        while loop.time() < end:
            writer.write(HEAD + b"Expect: 100-continue\r\nContent-Length: 10\r\n\r\n")
            await reader.readuntil(b"100 Continue\r\n\r\n")
            writer.write(b"all of it!")
            assert (await reader.readuntil(b"0\r\n\r\n")).startswith(b"HTTP/1.1 200")

    assert set(place.bodies) == {b"all of it!"}


@pytest.mark.parametrize("headers", [b"X: " + b"x" * 2000 + b"\r\n", b"X: x\r\n" * 400])
async def test_a_head_that_is_too_large_is_refused(headers: bytes) -> None:
    """In one header or in many."""
    place = Place()
    async with listening(place, limit_head=1000) as port, connected(port) as (reader, writer):
        writer.write(HEAD + headers + b"\r\n")

        assert problem(await reader.read())["code"] == "headers-too-large"
        assert place.bodies == []


async def test_a_head_without_an_end_is_not_waited_for() -> None:
    """Once it is too large the connection is over, however much is still on its way."""
    async with listening(Place(), limit_head=1000) as port, connected(port) as (reader, writer):
        writer.write(HEAD + b"X: ")
        with contextlib.suppress(ConnectionError):
            while not reader.at_eof():
                writer.write(b"x" * 300)
                await asyncio.wait([asyncio.ensure_future(writer.drain())])
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0.01):
                        await reader.read(1 << 16)


async def test_a_head_is_measured_and_not_what_comes_with_it() -> None:
    """A body in the same piece, however large, and requests that follow at once are not counted."""
    place = Place()
    async with listening(place, limit_head=200) as port, connected(port) as (reader, writer):
        body = b"y" * 50_000
        writer.write((HEAD + b"Content-Length: 50000\r\n\r\n" + body) * 3)
        for _ in range(3):
            assert (await reader.readuntil(b"0\r\n\r\n")).startswith(b"HTTP/1.1 200")

    assert place.bodies == [body] * 3


@pytest.mark.parametrize("first", [b"", HEAD + b"Content-Length: 0\r\n\r\n"])
async def test_what_is_no_request_is_told_so(first: bytes) -> None:
    """``bad-request``, also after requests that were fine, and the connection ends."""
    place = Place()
    async with listening(place) as port, connected(port) as (reader, writer):
        if first:
            writer.write(first)
            await reader.readuntil(b"0\r\n\r\n")
            await place.answered.wait()
        writer.write(b"BREW /coffee HTCPCP/1.0\r\n\r\n")

        assert problem(await reader.read())["code"] == "bad-request"


async def test_an_answer_that_nobody_takes_is_given_up() -> None:
    """So that an export lets go of its snapshot, whatever the client does."""
    place = Place()
    async with listening(place, client_seconds=0.2) as port, connected(port) as (_, writer):
        writer.write(b"GET /endless HTTP/1.1\r\nHost: here\r\n\r\n")

        await place.left.wait()


async def test_an_answer_that_is_taken_slowly_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as some of it is taken each time we look, it is not given up."""
    looked = asyncio.Queue[int]()
    look = Protocol._look_whether_taken

    def seen(self: Protocol) -> None:
        look(self)
        looked.put_nowait(self.transport.get_write_buffer_size())

    monkeypatch.setattr(Protocol, "_look_whether_taken", seen)
    place = Place()
    async with listening(place, client_seconds=0.5) as port, connected(port) as (reader, writer):
        writer.write(b"GET /large HTTP/1.1\r\nHost: here\r\n\r\n")
        left = [await looked.get()]
        for _ in range(2):
            await reader.readexactly(8 << 20)
            left.append(await looked.get())
        rest = b""
        while not rest.endswith(b"the end\r\n0\r\n\r\n"):
            rest = rest[-20:] + await reader.read(1 << 20)

    assert left == sorted(left, reverse=True)


async def test_the_bounds_are_settings(postgres: str, template: str) -> None:
    """CLIENT_SECONDS and LIMIT_HEAD, of the server that is started."""
    async with new_database(postgres, f"template {template}") as dsn:
        bounds = partial(
            started, DATABASE_URL=dsn, JWT_SECRET=SECRET, CLIENT_SECONDS="0.5", LIMIT_HEAD="1 KiB"
        )
        with bounds() as server:
            port = int(server.until(r"listens on http://127\.0\.0\.1:(\d+) ")[1])
            async with connected(port) as (reader, writer):
                writer.write(b"GET /v1/me HTTP/1.1\r\nX: " + b"x" * 2000 + b"\r\n\r\n")
                assert problem(await reader.read())["status"] == 431
            async with connected(port) as (reader, writer):
                writer.write(
                    b"POST /v1/conversations HTTP/1.1\r\nHost: here\r\nContent-Length: 9\r\n"
                    b"Content-Type: application/json\r\n"
                    + f"Authorization: {headers()['authorization']}\r\n\r\n".encode()
                )
                assert problem(await reader.read())["status"] == 408
