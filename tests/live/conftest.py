"""Real servers on loopback, each a process's worth of the service in this one."""

from __future__ import annotations

import asyncio
import contextlib
import io
import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx2
import pytest_asyncio
import socketio

from greffier.publish.bus import Bus, PostgresBus
from greffier.publish.signals import Signals
from greffier.server import create_app
from greffier.server.auth import issue
from greffier.server.edge import Edge
from greffier.server.logs import make_logger
from greffier.server.run import Server, Stop, listen
from greffier.store.database import open_database
from greffier.store.listen import Channel
from helpers.api import SECRET, settings
from helpers.patience import PATIENCE


@dataclass
class Socket:
    """A connected client, and what it was sent."""

    client: socketio.AsyncClient
    events: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    something: asyncio.Event = field(default_factory=asyncio.Event)

    async def call(self, name: str, **data: Any) -> dict[str, Any]:
        """Send an event and wait for its answer."""
        answer: dict[str, Any] = await self.client.call(name, data, timeout=PATIENCE)
        return answer

    async def wait(self, name: str, **wanted: Any) -> dict[str, Any]:
        """Wait until an event with these values was sent, and give the first such."""
        async with asyncio.timeout(PATIENCE):
            while True:
                for event, data in self.events:
                    if event == name and all(data.get(key) == wanted[key] for key in wanted):
                        return data
                self.something.clear()
                await self.something.wait()


@dataclass
class Running:
    """A server, and people who come to it."""

    url: str
    app: Edge
    stop: Stop
    token_of: dict[str, str] = field(default_factory=dict)

    def token(self, user: str, *, lifetime: float = 3600) -> str:
        """A token for a user."""
        return issue(SECRET.encode(), user, lifetime=lifetime, name=user.capitalize())

    def http(self, user: str) -> httpx2.AsyncClient:
        """Call over HTTP as a user."""
        return httpx2.AsyncClient(
            base_url=self.url, headers={"authorization": f"Bearer {self.token(user)}"}
        )

    async def connected(self, user: str, token: str | None = None) -> Socket:
        """Connect a socket as a user, who disconnects it or sees it end."""
        client = socketio.AsyncClient(reconnection=False)
        socket = Socket(client)

        async def heard(name: str, data: dict[str, Any]) -> None:
            socket.events.append((name, data))
            socket.something.set()

        client.on("*", heard)
        await client.connect(
            self.url, auth={"token": token or self.token(user)}, transports=["websocket"]
        )
        return socket

    @contextlib.asynccontextmanager
    async def socket(self, user: str, token: str | None = None) -> AsyncIterator[Socket]:
        """Connect a socket as a user, for a while."""
        socket = await self.connected(user, token)
        try:
            yield socket
        finally:
            await socket.client.disconnect()


def listens(channel: Channel) -> asyncio.Event:
    """Say when a process hears the others: a sign of typing said before is lost for good."""
    listening, listen = asyncio.Event(), channel.listen

    async def noted(hear: Callable[[str | None], None]) -> None:
        def heard(text: str | None) -> None:
            if text is None:
                listening.set()
            hear(text)

        await listen(heard)

    channel.listen = noted  # type: ignore[method-assign]
    return listening


@contextlib.asynccontextmanager
async def running(
    dsn: str, *, bus: Bus | None = None, replicas: Sequence[str] = (), port: int = 0
) -> AsyncIterator[Running]:
    """Serve a database on a free port or this one, as one process of the service would."""
    configured = settings(port=port)
    async with open_database(dsn, replicas=replicas) as database:
        with listen(configured) as listener:
            stop = Stop()
            signals = Signals(dsn)
            bus = bus or PostgresBus(dsn)
            channels = [signals._channel, getattr(bus, "_channel", None)]
            listening = [listens(one) for one in channels if one is not None]
            app = create_app(
                database,
                configured,
                log=make_logger("info", "json", io.BytesIO()),
                bus=bus,
                signals=signals,
            )
            started = asyncio.Event()
            server = Server(app, listener, stop, grace=5)
            task = asyncio.create_task(server.run(started.set))
            await started.wait()
            for one in listening:
                await one.wait()
            host, port = listener.getsockname()[:2]
            try:
                yield Running(f"http://{host}:{port}", app, stop)
            finally:
                stop()
                await task


@pytest_asyncio.fixture
async def server(database: str) -> AsyncIterator[Running]:
    """One server."""
    async with running(database) as one:
        yield one


@pytest_asyncio.fixture
async def servers(database: str) -> AsyncIterator[tuple[Running, Running]]:
    """Two servers of one service."""
    async with running(database) as one, running(database) as other:
        yield one, other


def a_name(stem: str) -> str:
    """A user of a test's own."""
    return f"{stem}-{secrets.token_hex(3)}"
