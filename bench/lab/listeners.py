"""Listeners in a process of their own: so many WebSockets that only count what reaches them.

    python -m lab.listeners    # one command, a line of JSON, after the other; each is answered so

Engine.IO and Socket.IO are spoken by hand, and frames are taken apart by hand, so that a listener
costs less than whoever sends to it.  ``time.perf_counter_ns`` is one clock for all processes of a
machine: a message carries the moment it was sent at (``bench/lab/mark.py``).
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import time
from array import array
from functools import partial
from typing import Any, cast
from urllib.parse import urlsplit

import uvloop

from lab.mark import MARK

_KEY = base64.b64encode(bytes(16)).decode()
_TEXT, _CLOSE, _PING = 1, 8, 9
#: One answer of a join to look into: the position to come back with.
_JOINED = b"430"


class Counted:
    """What reached all listeners since it was last asked."""

    def __init__(self) -> None:
        self.waits = array("q")
        self.messages = 0
        self.last = 0
        self.sample = b""
        self._wanted = 0
        self._enough = asyncio.Event()

    def frame(self, payload: bytes) -> None:
        """Count a frame that carries messages; one delivery, however many they are."""
        marks = MARK.findall(payload)
        if not marks:
            return
        self.last = time.perf_counter_ns()
        self.waits.append(self.last - int(marks[0]))
        self.messages += len(marks)
        self.sample = payload
        if self.messages >= self._wanted:
            self._enough.set()

    async def take(self, messages: int, patience: float) -> dict[str, Any]:
        """Wait for so many messages, not for ever; say what was counted, and start again."""
        self._wanted = messages
        self._enough.clear()
        if self.messages < messages:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(patience):
                    await self._enough.wait()
        waits = sorted(self.waits)
        found = {
            "deliveries": len(waits),
            "messages": self.messages,
            "last": self.last,
            "sample": self.sample.decode(),
        }
        if waits:
            found["p50"] = waits[len(waits) // 2] / 1e6
            found["p99"] = waits[len(waits) * 99 // 100] / 1e6
        self.waits, self.messages = array("q"), 0
        return found


class Listener(asyncio.Protocol):
    """One WebSocket."""

    def __init__(self, counted: Counted, place: Any, who: dict[str, Any]) -> None:
        """Make a listener.

        Args:
            counted: Counts for all of them.
            place: Where the socket is.
            who: ``hello``: the packet to begin with, if any; ``join``: the one to go on with.
        """
        loop = asyncio.get_running_loop()
        self.live: asyncio.Future[dict[str, Any]] = loop.create_future()
        self.transport: asyncio.Transport | None = None
        self._counted = counted
        self._place = place
        self._who = who
        self._shaken = False
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask to be a WebSocket."""
        self.transport = cast("asyncio.Transport", transport)  # uvloop's own is no subclass
        place = self._place
        self.transport.write(
            f"GET {place.path}?{place.query} HTTP/1.1\r\nHost: {place.netloc}\r\n"
            "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
            f"Sec-WebSocket-Key: {_KEY}\r\n\r\n".encode()
        )

    def data_received(self, data: bytes) -> None:
        """Take the frames that are whole."""
        if self._rest:
            data = self._rest + data
        if not self._shaken:
            head, end, data = data.partition(b"\r\n\r\n")
            if not end:
                self._rest = head
                return
            if b" 101 " not in head.partition(b"\r\n")[0]:
                self._fail(head.decode(errors="replace"))
                return
            self._shaken = True
            if "hello" not in self._who:
                self.live.set_result({})
        at = 0
        while (found := _frame(data, at)) is not None:
            opcode, payload, at = found
            self._heard(opcode, payload)
        self._rest = data[at:]

    def _heard(self, opcode: int, payload: bytes) -> None:
        if opcode == _PING:
            self._write(0x8A, payload)
        elif opcode == _CLOSE:
            self._fail("it closed the socket")
        elif payload.startswith(b"42"):
            self._counted.frame(payload)
        elif payload == b"2":
            self._write(0x81, b"3")
        elif payload.startswith(b"0"):
            self._write(0x81, self._who["hello"].encode())
        elif payload.startswith(b"40"):
            if "join" in self._who:
                self._write(0x81, self._who["join"].encode())
            else:
                self.live.set_result({})
        elif payload.startswith(_JOINED):
            answer = json.loads(payload[len(_JOINED) :])[0]
            if answer.get("ok"):
                self.live.set_result(
                    {key: answer.get(key) for key in ("epoch", "rev", "recovered")}
                )
            else:
                self._fail(str(answer))
        elif payload.startswith(b"44"):
            self._fail(payload.decode())

    def _write(self, first: int, payload: bytes) -> None:
        assert self.transport is not None
        size = len(payload)
        length = bytes((0x80 | size,)) if size < 126 else b"\xfe" + size.to_bytes(2, "big")
        # A mask of zeros is a mask.
        self.transport.write(bytes((first,)) + length + bytes(4) + payload)

    def _fail(self, why: str) -> None:
        if not self.live.done():
            self.live.set_exception(ConnectionError(why))

    def connection_lost(self, exc: Exception | None) -> None:
        """Note that it is over."""
        self._fail(f"it hung up: {exc}")


def _frame(data: bytes, at: int) -> tuple[int, bytes, int] | None:
    """Take a server's frame, not masked, out of what was read; None when not all is there."""
    if len(data) < at + 2:
        return None
    size, head = data[at + 1], 2
    if size >= 126:
        head = 4 if size == 126 else 10
        size = int.from_bytes(data[at + 2 : at + head], "big")
    end = at + head + size
    if len(data) < end:
        return None
    return data[at] & 15, data[at + head : end], end


async def connect(counted: Counted, command: dict[str, Any]) -> tuple[list[Listener], Any]:
    """Open sockets, so many at once, and wait until all are live."""
    place = urlsplit(command["url"])
    gate = asyncio.Semaphore(command["at_once"])
    loop = asyncio.get_running_loop()
    took: list[float] = []

    async def one(who: dict[str, Any]) -> tuple[Listener, dict[str, Any]]:
        async with gate:
            began = time.perf_counter()
            _, listener = await loop.create_connection(
                partial(Listener, counted, place, who), place.hostname or "", place.port or 80
            )
            known = await listener.live
            took.append(time.perf_counter() - began)
            return listener, known

    cpu = time.process_time()
    began = time.perf_counter()
    both = await asyncio.gather(*(one(who) for who in command["who"]))
    answer = {
        "seconds": time.perf_counter() - began,
        "p50": sorted(took)[len(took) // 2],
        "cpu": time.process_time() - cpu,
        "known": both[0][1],
        "recovered": sum(bool(known.get("recovered")) for _, known in both),
    }
    return [listener for listener, _ in both], answer


async def main() -> None:
    """Do as told until there is nobody to tell."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=64 << 20)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(0, "rb"))
    counted = Counted()
    listeners: list[Listener] = []
    while line := await reader.readline():
        command = json.loads(line)
        answer: Any = {}
        match command["do"]:
            case "connect":
                listeners, answer = await connect(counted, command)
            case "take":
                answer = await counted.take(command["messages"], command["patience"])
            case "close":
                for listener in listeners:
                    if listener.transport is not None:
                        listener.transport.abort()
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    uvloop.run(main())
