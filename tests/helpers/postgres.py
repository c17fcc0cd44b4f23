"""Databases of one PostgreSQL: make them, drop them, speak to them."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import AsyncIterator
from urllib.parse import urlsplit, urlunsplit

from greffier.store.connection import Connection, connect


def named(dsn: str, database: str) -> str:
    """Give the URL of another database of the same server."""
    return urlunsplit(urlsplit(dsn)._replace(path=f"/{database}"))


@contextlib.asynccontextmanager
async def connected(dsn: str) -> AsyncIterator[Connection]:
    """Open a connection as Greffier's own are, and close it."""
    connection = await connect(dsn)
    try:
        yield connection
    finally:
        await connection.close()


@contextlib.asynccontextmanager
async def new_database(server: str, options: str = "") -> AsyncIterator[str]:
    """Make a database under a random name, give its URL, and drop it, whoever is still in it.

    Args:
        server: A superuser's URL.
        options: What else CREATE DATABASE is told.
    """
    # Not from random: its seed is the same for each test.
    name = f"greffier_test_{secrets.token_hex(6)}"
    async with connected(server) as connection:
        await connection.execute(f"create database {name} {options}")
        try:
            yield named(server, name)
        finally:
            # 13 ms; 110 when a test left a connection behind, for which the server then waits.
            await connection.execute(f"drop database {name} with (force)")


@contextlib.asynccontextmanager
async def undone(connection: Connection) -> AsyncIterator[None]:
    """Run a block in a transaction that is rolled back at the end."""
    transaction = connection.transaction()
    await transaction.start()
    try:
        yield
    finally:
        await transaction.rollback()


async def wait_for_lock(connection: Connection, like: str) -> int:
    """Wait until a session of this database waits for a lock in a statement like this one.

    Returns:
        Its process id.
    """
    while True:
        # Within a transaction, which may be what the other one waits for, the view stands still.
        await connection.execute("select pg_stat_clear_snapshot()")
        found: int | None = await connection.fetchval(
            "select pid from pg_stat_activity where datname = current_database() "
            "and wait_event_type = 'Lock' and query ilike $1 and pid <> pg_backend_pid()",
            f"%{like}%",
        )
        if found is not None:
            return found
