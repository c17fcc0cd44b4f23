"""Following a run: a stream of its events, in process or over real HTTP, one event at a time."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterable
from typing import Any, NamedTuple

import httpx2

from greffier.server.edge import Edge
from helpers.api import Person

#: Longer than anything here takes, so that what hangs says where.
PATIENCE = 60
ENDS = ("run.completed", "run.cancelled", "run.interrupted", "run.failed")


class Event(NamedTuple):
    """An event as it came."""

    id: int
    name: str
    data: dict[str, Any]


class Parser:
    """Takes a stream of server-sent events apart, however it was cut."""

    def __init__(self) -> None:
        self._rest = b""
        #: Lines that were sent only to be heard.
        self.comments = 0

    def feed(self, piece: bytes) -> list[Event]:
        """Give the events that are whole now."""
        *whole, self._rest = (self._rest + piece).split(b"\n\n")
        events = []
        for block in whole:
            if block.startswith(b":"):
                self.comments += 1
                continue
            fields = dict(line.split(b": ", 1) for line in block.split(b"\n"))
            assert set(fields) == {b"event", b"id", b"data"}, block
            events.append(
                Event(int(fields[b"id"]), fields[b"event"].decode(), json.loads(fields[b"data"]))
            )
        return events


class Following:
    """A stream that an application answers with, read in this process, as slowly as we like."""

    def __init__(self, app: Edge, method: str, path: str, headers: dict[str, str], body: Any):
        self._app = app
        self._scope = {
            "type": "http",
            "method": method,
            "path": path.partition("?")[0],
            "query_string": path.partition("?")[2].encode(),
            "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        }
        self._body = b"" if body is None else json.dumps(body).encode()
        # One piece: whoever does not read holds the sender up, as a full socket does.
        self._pieces: asyncio.Queue[bytes | None] = asyncio.Queue(1)
        self._left = asyncio.Event()
        self._started = asyncio.Event()
        self._asked = False
        self._parser = Parser()
        self._events: list[Event] = []
        self.status = 0
        self.headers: dict[str, str] = {}
        #: What came, when it was no stream.
        self.raw = b""
        #: What was read.
        self.seen: list[Event] = []

    async def run(self) -> None:
        """Let the application answer."""
        try:
            await self._app(self._scope, self._receive, self._send)
        finally:
            self._started.set()
            if not self._left.is_set():
                await self._pieces.put(None)

    async def _receive(self) -> dict[str, Any]:
        if not self._asked:
            self._asked = True
            return {"type": "http.request", "body": self._body}
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {name.decode(): value.decode() for name, value in message["headers"]}
            return
        self._started.set()
        if not self._left.is_set():
            await self._pieces.put(message.get("body", b""))

    async def started(self) -> None:
        """Wait until it answers: from then on nothing is missed."""
        await asyncio.wait_for(self._started.wait(), PATIENCE)

    async def next(self) -> Event | None:
        """Wait for an event; None when the stream has ended."""
        while not self._events:
            piece = await asyncio.wait_for(self._pieces.get(), PATIENCE)
            if piece is None:
                await self._pieces.put(None)
                return None
            if self.status != 200:
                self.raw += piece
            else:
                self._events = self._parser.feed(piece)
        event = self._events.pop(0)
        self.seen.append(event)
        return event

    async def until(self, name: str) -> Event:
        """Read on until an event of this name."""
        while (event := await self.next()) is not None:
            if event.name == name:
                return event
        raise AssertionError(f"no {name} came, but {[one.name for one in self.seen]}")

    async def rest(self) -> list[Event]:
        """Read all that is left, and give all that was read."""
        while await self.next() is not None:
            pass
        return self.seen

    def leave(self) -> None:
        """Close the connection."""
        self._left.set()
        while not self._pieces.empty():
            self._pieces.get_nowait()


@contextlib.asynccontextmanager
async def following(
    app: Edge, person: Person, path: str, body: Any = None, **headers: str
) -> AsyncIterator[Following]:
    """Follow as somebody; with a body it is sent, and its answer followed.

    Headers are named as in Python: ``last_event_id``.
    """
    sent = {"accept": "text/event-stream", "authorization": person.http.headers["authorization"]}
    sent |= {name.replace("_", "-"): value for name, value in headers.items()}
    if body is not None:
        sent |= {"content-type": "application/json"}
    found = Following(app, "GET" if body is None else "POST", path, sent, body)
    task = asyncio.create_task(found.run())
    try:
        await found.started()
        yield found
    finally:
        found.leave()
        await asyncio.wait_for(task, PATIENCE)


async def events_of(answer: httpx2.Response) -> AsyncIterator[Event]:
    """The events of a stream over real HTTP."""
    parser = Parser()
    async for piece in answer.aiter_bytes():
        for event in parser.feed(piece):
            yield event


def text_of(events: Iterable[Event], name: str = "content.delta") -> str:
    """What the deltas say together."""
    return "".join(one.data["text"] for one in events if one.name == name)


def whole(events: list[Event], after: int = 0) -> None:
    """See that they are a run's events from one on: each once, in order, and one end."""
    assert [one.id for one in events] == list(range(after + 1, after + 1 + len(events)))
    assert after or events[0].name == "run.started"
    assert [one.name in ENDS for one in events] == [False] * (len(events) - 1) + [True]
