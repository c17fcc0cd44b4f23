"""A wire to PostgreSQL that can be cut."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import parse_qs, quote, urlsplit, urlunsplit

_SOCKET = ".s.PGSQL.5432"


class Proxy:
    """Passes bytes on between its own socket and a server's, until it is told otherwise."""

    def __init__(self, upstream: str, folder: Path) -> None:
        self._upstream = urlsplit(upstream)
        self._folder = folder
        self._server: asyncio.Server | None = None
        self._clients: list[asyncio.StreamWriter] = []
        self._servers: list[asyncio.StreamWriter] = []
        self._pumps: set[asyncio.Task[None]] = set()
        self._flows = asyncio.Event()
        self._flows.set()

    @property
    def upstream(self) -> str:
        """The database itself."""
        return urlunsplit(self._upstream)

    @property
    def dsn(self) -> str:
        """The database as seen through here."""
        login, _, _ = self._upstream.netloc.rpartition("@")
        query = f"host={quote(str(self._folder), safe='')}&port=5432"
        return urlunsplit(self._upstream._replace(netloc=f"{login}@", query=query))

    async def up(self) -> None:
        """Let clients in."""
        self._server = await asyncio.start_unix_server(self._pass_on, self._folder / _SOCKET)

    async def down(self) -> None:
        """Let nobody in and cut off those who are: the database is away."""
        assert self._server is not None
        self._server.close()
        (self._folder / _SOCKET).unlink(missing_ok=True)
        self.cut()
        self.forget()

    def cut(self) -> None:
        """Cut the clients off; the server is not told, and goes on with what it is at."""
        for pump in self._pumps:
            pump.cancel()
        while self._clients:
            self._clients.pop().transport.abort()

    def stall(self) -> None:
        """Pass on nothing more of who is in, and tell neither side; who comes now gets on."""
        self._flows.clear()
        self._flows = asyncio.Event()
        self._flows.set()

    def forget(self) -> None:
        """Tell the server that its clients are gone; what it was at is undone if it still is."""
        while self._servers:
            self._servers.pop().close()

    async def _pass_on(
        self, from_client: asyncio.StreamReader, to_client: asyncio.StreamWriter
    ) -> None:
        where = parse_qs(self._upstream.query)
        if "host" in where:
            port = where.get("port", ["5432"])[0]
            from_server, to_server = await asyncio.open_unix_connection(
                f"{where['host'][0]}/.s.PGSQL.{port}"
            )
        else:
            from_server, to_server = await asyncio.open_connection(
                self._upstream.hostname, self._upstream.port or 5432
            )
        self._clients.append(to_client)
        self._servers.append(to_server)
        for source, target in ((from_client, to_server), (from_server, to_client)):
            pump = asyncio.create_task(_pump(source, target, self._flows))
            self._pumps.add(pump)
            pump.add_done_callback(self._pumps.discard)


async def _pump(
    source: asyncio.StreamReader, target: asyncio.StreamWriter, flows: asyncio.Event
) -> None:
    with contextlib.suppress(OSError):
        while data := await source.read(1 << 16):
            await flows.wait()
            target.write(data)
            await target.drain()
    target.close()


@contextlib.asynccontextmanager
async def proxied(dsn: str) -> AsyncIterator[Proxy]:
    """Put a proxy before a database."""
    # Not pytest's folder: the path of a socket has 107 bytes at most.
    with tempfile.TemporaryDirectory(prefix="greffier-") as folder:
        proxy = Proxy(dsn, Path(folder))
        await proxy.up()
        try:
            yield proxy
        finally:
            await proxy.down()
            if proxy._pumps:
                await asyncio.wait(proxy._pumps)
