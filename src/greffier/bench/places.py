"""Where it is measured: a scratch database with conversations, dropped afterwards."""

from __future__ import annotations

import contextlib
import secrets
import tempfile
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit
from uuid import UUID

from greffier.bench.pgbench import BARE_TABLE, Pgbench, find_pgbench
from greffier.bench.talks import conversation, make_conversations
from greffier.embedded import open_cluster
from greffier.errors import Unavailable
from greffier.library import Greffier
from greffier.store.connection import Connection, connect
from greffier.store.database import open_database


@dataclass(frozen=True, slots=True)
class Place:
    """A scratch database, open."""

    dsn: str
    greffier: Greffier
    #: Conversations to append to.
    talks: Sequence[UUID]
    #: None when there is none here, or none that the server lets in.
    pgbench: Pgbench | None

    @contextlib.asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """Hold a connection to it, set up as the library's are."""
        live = await connect(self.dsn)
        try:
            yield live
        finally:
            await live.close()


@contextlib.asynccontextmanager
async def server(url: str | None, beside: Path) -> AsyncIterator[str]:
    """Give the URL of a server: the operator's own, or one made for this and removed again.

    Args:
        url: Their own.
        beside: The folder that keeps, or would keep, the embedded data: the scratch data lie on
            the same disk, for the disk is what is measured.
    """
    if url is not None:
        yield url
        return
    with tempfile.TemporaryDirectory(prefix=".greffier-bench-", dir=nearest(beside)) as folder:
        async with open_cluster(Path(folder)) as cluster:
            yield cluster.dsn


def nearest(folder: Path) -> Path:
    """Give a folder, or the nearest one above it that is there."""
    return folder if folder.is_dir() else nearest(folder.parent)


@contextlib.asynccontextmanager
async def scratch(url: str) -> AsyncIterator[str]:
    """Make an empty database on a server, give its URL, and drop it.

    Raises:
        Unavailable: This role may not make one.
    """
    name = f"greffier_bench_{secrets.token_hex(4)}"
    live = await connect(url)
    try:
        if not await live.fetchval(
            "select rolcreatedb or rolsuper from pg_roles where rolname = current_user"
        ):
            raise Unavailable("Measuring needs a database of its own: a role with CREATEDB.")
        await live.execute(f"create database {name} encoding 'UTF8' template template0")
        try:
            yield urlunsplit(urlsplit(url)._replace(path=f"/{name}"))
        finally:
            await live.execute(f"drop database {name} with (force)")
    finally:
        await live.close()


@contextlib.asynccontextmanager
async def place(url: str, *, talks: int, owners: int = 1) -> AsyncIterator[Place]:
    """Make a scratch database with empty conversations, open it, and drop it afterwards.

    Args:
        url: A server.
        talks: How many conversations, numbered from 1.
        owners: Users among whom they are dealt out.
    """
    async with scratch(url) as dsn, open_database(dsn, migrate=True) as database:
        live = await connect(dsn)
        try:
            await make_conversations(live, 1, talks, owners=owners)
            await live.execute(BARE_TABLE)
            await live.execute("vacuum analyze")
        finally:
            await live.close()
        yield Place(
            dsn,
            Greffier(database),
            [conversation(n) for n in range(1, talks + 1)],
            await find_pgbench(dsn, talks),
        )
