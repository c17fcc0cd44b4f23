"""What a client sees of an answer on the wire, whatever it is made of."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import pytest_asyncio
import uvicorn
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle
from uvicorn.server import ServerState

from greffier.server.call import Call
from greffier.server.protocol import Protocol
from helpers.api import SECRET, Served
from helpers.postgres import new_database
from helpers.serving import headers, started

#: What a request is to uvicorn and to us.
KEPT = (Call, RequestResponseCycle)


@pytest_asyncio.fixture(scope="module")
async def url(postgres: str, template: str) -> AsyncIterator[str]:
    """A server in a process of its own."""
    async with new_database(postgres, f"template {template}") as dsn:
        with started(DATABASE_URL=dsn, JWT_SECRET=SECRET) as server:
            yield server.until(r"listens on (http://127\.0\.0\.1:\d+) ")[1]


class Wire:
    """A connection on which bytes are sent and what comes is seen as it comes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def ask(self, line: str, body: str = "", *, close: bool = False) -> None:
        """Send a request as ada."""
        lines = [f"{line} HTTP/1.1", "Host: here", f"Authorization: {headers()['authorization']}"]
        if body:
            lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
        if close:
            lines.append("Connection: close")
        self.writer.write(("\r\n".join(lines) + "\r\n\r\n" + body).encode())

    async def answer(self) -> tuple[str, bytes]:
        """Read an answer with a length: its head and its body."""
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode()
        length = next(
            (line for line in head.lower().split("\r\n") if line.startswith("content-length")), ":0"
        )
        return head, await self.reader.readexactly(int(length.partition(":")[2]))


@contextlib.asynccontextmanager
async def connected(url: str) -> AsyncIterator[Wire]:
    """Connect, and hang up."""
    place = urlsplit(url)
    wire = Wire(*await asyncio.open_connection(place.hostname, place.port))
    try:
        yield wire
    finally:
        wire.writer.close()
        with contextlib.suppress(OSError):
            await wire.writer.wait_closed()


async def test_answers_come_in_the_order_of_what_was_asked(url: str) -> None:
    """Also when several requests were sent without waiting, with bodies and without."""
    async with connected(url) as wire:
        for _ in range(3):
            wire.ask("GET /v1/me")
            wire.ask("HEAD /v1/me")
            wire.ask("POST /v1/conversations", "{}")
            wire.ask("GET /nothing/there")
        for _ in range(3):
            head, body = await wire.answer()
            assert head.startswith("HTTP/1.1 200")
            length = len(body)
            head = (await wire.reader.readuntil(b"\r\n\r\n")).decode()
            assert head.startswith("HTTP/1.1 200")
            assert f"content-length: {length}\r\n" in head
            assert (await wire.answer())[0].startswith("HTTP/1.1 201")
            assert (await wire.answer())[0].startswith("HTTP/1.1 404")


async def test_the_last_answer_is_whole_before_the_connection_is_closed(url: str) -> None:
    """Whether the client asked for the end or what it sent was no HTTP."""
    async with connected(url) as wire:
        wire.ask("GET /openapi.json", close=True)
        head, body = await wire.answer()
        assert head.startswith("HTTP/1.1 200")
        assert "\r\nconnection: close\r\n" in head
        assert body.endswith(b"}")
        assert await wire.reader.read() == b""

    async with connected(url) as wire:
        wire.writer.write(b"what is this\r\n\r\n")
        assert (await wire.reader.read()).startswith(b"HTTP/1.1 400")


async def test_a_stream_begins_before_it_has_anything_to_say(url: str) -> None:
    """Its head is not kept for the first event, which may be hours away."""
    async with connected(url) as wire:
        wire.ask("GET /v1/events")
        head = await wire.reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200")
        assert b"text/event-stream" in head


async def test_who_asks_first_whether_to_send_is_told_at_once(url: str) -> None:
    """100 Continue does not wait for the answer it makes possible."""
    async with connected(url) as wire:
        wire.writer.write(
            b"POST /v1/conversations HTTP/1.1\r\nHost: here\r\nExpect: 100-continue\r\n"
            + f"Authorization: {headers()['authorization']}\r\n".encode()
            + b"Content-Type: application/json\r\nContent-Length: 2\r\n\r\n"
        )
        assert (await wire.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100")
        wire.writer.write(b"{}")
        assert (await wire.answer())[0].startswith("HTTP/1.1 201")


async def test_a_request_that_was_answered_leaves_nothing_behind(served: Served) -> None:
    """Nothing of it waits for Python to look for garbage, whatever was asked and answered."""
    config = uvicorn.Config(served.app, http=Protocol, lifespan="off", log_config=None)
    config.load()
    state = ServerState()
    loop = asyncio.get_running_loop()
    listener = await loop.create_server(lambda: Protocol(config, state, {}), "127.0.0.1", 0)
    host, port = listener.sockets[0].getsockname()
    gc.collect()
    gc.disable()
    try:
        async with connected(f"http://{host}:{port}") as wire:
            for _ in range(3):
                wire.ask("GET /v1/me")
                wire.ask("POST /v1/conversations", "{}")
                wire.ask("GET /nothing/there")
            for status in (200, 201, 404) * 3:
                assert (await wire.answer())[0].startswith(f"HTTP/1.1 {status}")

            left = [type(one) for one in gc.get_objects() if isinstance(one, KEPT)]

        # Its last one is known to the connection.
        assert left == [RequestResponseCycle]
    finally:
        gc.enable()
        listener.close()
