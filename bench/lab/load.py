"""Load over HTTP: so many connections, each with one request under way.

By wrk when it is there.  Otherwise by a loader in Python, which takes so much of the processors
itself that its numbers are lower for both sides; a note then says so.
"""

from __future__ import annotations

import asyncio
import json
import random
import secrets
import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple, cast
from urllib.parse import urlsplit

import httptools

from greffier.bench.results import Pace, pace

_SCRIPT = Path(__file__).with_name("wrk.lua")


class Target(NamedTuple):
    """Whom to ask for what."""

    path: str
    token: str


@dataclass(frozen=True, slots=True)
class Load:
    """What to send."""

    targets: Sequence[Target]
    #: The words to POST, each time under an id of its own; None is a GET.
    words: str | None = None

    async def run(self, url: str, connections: int, seconds: float) -> Pace:
        """Send it over and over.

        Raises:
            Refused: An answer was no success: then nothing was measured.
        """
        program = shutil.which("wrk")
        # wrk knows whole seconds only.
        if program is not None and seconds >= 1:
            return await _wrk(program, self, url, connections, round(seconds))
        return await _python(self, url, connections, seconds)

    @property
    def by(self) -> str:
        """Who makes the load, in words."""
        if shutil.which("wrk"):
            return "load by wrk, one thread"
        return "load by a loader in Python (install wrk): both sides lower than they are"


class Refused(Exception):
    """The server refused some of the requests."""


async def _wrk(program: str, load: Load, url: str, connections: int, seconds: int) -> Pace:
    with tempfile.NamedTemporaryFile("w", prefix="greffier-bench-", suffix=".txt") as file:
        file.writelines(f"{path} {token}\n" for path, token in load.targets)
        file.flush()
        words = [] if load.words is None else [secrets.token_hex(2), load.words]
        process = await asyncio.create_subprocess_exec(
            program, "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "30s",
            "-s", str(_SCRIPT), url, "--", file.name, *words,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        out, _ = await process.communicate()
    last = out.decode().strip().splitlines()[-1]
    if process.returncode != 0 or not last.startswith("{"):
        raise Refused(out.decode())
    found = json.loads(last)
    if found["errors"]:
        raise Refused(f"{found['errors']} of {found['requests']} requests failed")
    return Pace(
        rate=found["requests"] / found["seconds"], p50=found["p50"] / 1000, p99=found["p99"] / 1000
    )


async def _python(load: Load, url: str, connections: int, seconds: float) -> Pace:
    place = urlsplit(url)
    times: list[float] = []
    began = time.perf_counter()
    until = began + seconds
    loop = asyncio.get_running_loop()
    clients = [_Client(load, place.netloc, until, times, number) for number in range(connections)]
    host, port = place.hostname or "", place.port or 80
    for client in clients:
        await loop.create_connection(partial(_itself, client), host, port)
    await asyncio.gather(*(client.done for client in clients))
    return pace(time.perf_counter() - began, times)


def _itself(client: _Client) -> _Client:
    return client


class _Client(asyncio.Protocol):
    """One connection: the next request when the last was answered."""

    def __init__(
        self, load: Load, host: str, until: float, times: list[float], number: int
    ) -> None:
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._load = load
        self._host = host
        self._until = until
        self._times = times
        self._random = random.Random(number)
        self._began = 0.0
        self._transport: asyncio.WriteTransport | None = None
        self._parser = httptools.HttpResponseParser(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.WriteTransport", transport)  # uvloop's own is no subclass
        self._send()

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(Refused(f"the server hung up: {exc}"))

    def on_message_complete(self) -> None:
        """Hear from the parser that the answer is whole."""
        now = time.perf_counter()
        self._times.append(now - self._began)
        status = self._parser.get_status_code()
        if status >= 300:
            self.done.set_exception(Refused(f"it answered {status}"))
        elif now >= self._until:
            self.done.set_result(None)
        else:
            self._parser = httptools.HttpResponseParser(self)
            self._send()
            return
        assert self._transport is not None
        self._transport.close()

    def _send(self) -> None:
        target = self._random.choice(self._load.targets)
        body = b""
        extra = ""
        if self._load.words is not None:
            id_ = f"{self._random.getrandbits(32):08x}-0000-4000-8000-{secrets.token_hex(6)}"
            body = json.dumps({"id": id_, "content": self._load.words}).encode()
            extra = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        head = (
            f"{'GET' if self._load.words is None else 'POST'} {target.path} HTTP/1.1\r\n"
            f"Host: {self._host}\r\nAuthorization: Bearer {target.token}\r\n{extra}\r\n"
        )
        assert self._transport is not None
        self._began = time.perf_counter()
        self._transport.write(head.encode() + body)
