"""Receivers of webhooks, as their authors write them: with the official package, in a few lines."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

from standardwebhooks import Webhook as Verifier

from helpers.receivers import Line, Server, read_request, response, serving


@dataclass
class Arrival:
    """One call that was verified."""

    id: str
    seq: int
    fence: int
    event: dict[str, Any]
    path: str
    signatures: int

    @property
    def content(self) -> str:
        """What was said."""
        return str(self.event["message"]["content"])


@dataclass
class Hook:
    """Somebody's program: verifies, keeps, and answers as it is told to."""

    secrets: list[str] = field(default_factory=list)
    arrivals: list[Arrival] = field(default_factory=list)
    #: What is answered next; when there is nothing left, ``usual``.
    answers: deque[bytes | Callable[[Line], Any]] = field(default_factory=deque)
    usual: bytes | Callable[[Line], Any] = field(default_factory=lambda: response(200))
    port: int = 0
    busy: int = 0
    most: int = 0
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.port}/hook"

    @property
    def contents(self) -> list[str]:
        """What came, in the order in which it came."""
        return [one.content for one in self.arrivals]

    async def __call__(self, line: Line) -> None:
        """Serve one connection."""
        while not line.reader.at_eof():
            request = await read_request(line)
            self.busy += 1
            self.most = max(self.most, self.busy)
            try:
                for secret in self.secrets:
                    Verifier(secret).verify(request.body, request.headers)
                self.arrivals.append(
                    Arrival(
                        request.headers["webhook-id"],
                        int(request.headers["greffier-seq"]),
                        int(request.headers["greffier-fence"]),
                        json.loads(request.body),
                        request.path,
                        len(request.headers["webhook-signature"].split(" ")),
                    )
                )
                self._news.set()
                answer = self.answers.popleft() if self.answers else self.usual
                if isinstance(answer, bytes):
                    await line.say(answer)
                else:
                    await answer(line)
            finally:
                self.busy -= 1

    async def until(self, count: int) -> list[Arrival]:
        """Wait until so many calls came."""
        while len(self.arrivals) < count:
            self._news.clear()
            await self._news.wait()
        return self.arrivals


@contextlib.asynccontextmanager
async def hooked(*secrets: str) -> AsyncIterator[Hook]:
    """Receive webhooks until the end of the block."""
    hook = Hook([*secrets])
    async with serving(hook) as server:
        assert isinstance(server, Server)
        hook.port = server.port
        yield hook


async def slowly(line: Line) -> None:
    """Answer after what a far side takes, so that there is always something on its way."""
    await asyncio.sleep(random.uniform(0.05, 0.25))
    await line.say(response(200))


async def hang_up(line: Line) -> None:
    """Break the connection off without an answer."""
    line.reset()


class Gate:
    """Holds answers back until it is opened."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer
        self._open = asyncio.Event()
        self.reached = asyncio.Event()

    async def __call__(self, line: Line) -> None:
        """Wait, then answer."""
        self.reached.set()
        await self._open.wait()
        await line.say(self._answer)

    def open(self) -> None:
        """Let the answers go."""
        self._open.set()
