"""The schema's versions: which one a database has, and the way from there to this release's.

``sql/schema`` is the schema as it is today, ``sql/migrations`` the way to it, forward only; a test
holds both equal.  A new database gets the first in one transaction and counts as having taken every
step of the second.  What was applied stands in the ledger, ``greffier.schema_changes``.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import TypeAlias

import asyncpg

from greffier.errors import SchemaError, Unavailable
from greffier.store import connection as connections
from greffier.store.connection import Connection
from greffier.store.identity import fsync_on, identity
from greffier.store.migrations import (
    LOCK,
    Applied,
    Migration,
    Status,
    everything,
    judge,
    migrations,
    script,
    stamp,
    statements,
)
from greffier.store.queries import folder

__all__ = [
    "Applied",
    "Patience",
    "Status",
    "apply",
    "fsync_on",
    "identity",
    "migrate",
    "require_current",
    "script",
    "status",
]

#: PostgreSQL 15 is the oldest that the tests run on.
OLDEST_SERVER = 15

#: Takes one line for a person.
Log: TypeAlias = Callable[[str], object]


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a migration tries for tables that are in use."""

    #: Seconds to wait for a table in one attempt: all who come later queue behind that wait, so a
    #: long transaction would stop everybody through us.
    lock_timeout: float = 2.0
    #: How often to try, with growing pauses in which the others go on.
    attempts: int = 10


def check_server(major: int, encoding: str) -> None:
    """Refuse a server that cannot hold the record.

    Raises:
        SchemaError: It is too old, or the database is not in UTF-8.
    """
    if major < OLDEST_SERVER:
        raise SchemaError(
            f"Greffier needs PostgreSQL {OLDEST_SERVER} or newer; this server has version {major}."
        )
    if encoding != "UTF8":
        raise SchemaError(
            f"Greffier needs a database in UTF-8; this one is in {encoding}. Make another one: "
            "create database greffier encoding 'UTF8' template template0"
        )


async def status(dsn: str) -> Status:
    """Say where a database stands; nothing is changed.

    Raises:
        SchemaError: The server is none we can work with, or the ledger is not for this role.
        Unavailable: The database is away.
    """
    async with _session(dsn) as connection:
        return await _look(connection)


async def require_current(connection: Connection) -> None:
    """Let a server start only on the schema it was written for.

    Raises:
        SchemaError: It is another one; the message says what to run.
    """
    found = await _look(connection)
    if found.state != "current":
        raise SchemaError(found.detail)


async def migrate(
    dsn: str, *, log: Log = lambda _: None, patience: Patience = Patience()
) -> list[str]:
    """Bring a database to this release's schema, from nothing or from an earlier one.

    Any number of processes may do it at once: one migrates, the others wait and find it done.  Each
    migration takes effect whole or not at all, so a killed process leaves nothing to clean up.

    Args:
        dsn: Where PostgreSQL is; the role must own what is there.
        log: Told what is done and waited for.
        patience: How long to try for tables that are in use.

    Returns:
        The names of what was applied, in order.

    Raises:
        SchemaError: The database is newer or altered (and was left alone), a migration failed (and
            was undone), or its tables were in use all the time.
        Unavailable: The database is away.
    """
    async with _session(dsn) as connection:
        if (await _look(connection)).state == "current":
            return []
        if await connection.fetchval("select pg_is_in_recovery()"):
            raise SchemaError("This is a standby; migrate its primary, and it follows.")
        await _be_alone(connection, log)
        found = await _look(connection)
        if found.state in ("newer", "altered"):
            raise SchemaError(found.detail)
        if found.state == "absent":
            log("Making the schema")
            await _whole(connection, "The new schema", everything(), log, patience)
            return list(found.pending)
        steps = migrations()[len(found.applied) :]
        for step in steps:
            log(f"Applying {step.name}")
            await apply(connection, step, log=log, patience=patience)
        return [step.name for step in steps]


async def apply(
    connection: Connection,
    step: Migration,
    *,
    log: Log = lambda _: None,
    patience: Patience = Patience(),
) -> None:
    """Apply one migration and write it into the ledger; the caller sees to the order.

    Raises:
        SchemaError: It failed, or its tables were in use all the time.
    """
    if step.transactional:
        await _whole(connection, step.name, step.text + stamp([step]), log, patience)
        return
    for statement in [*statements(step.text), stamp([step])]:
        try:
            await connection.execute(statement)
        except connections.LOST:
            raise
        except asyncpg.PostgresError as error:
            raise SchemaError(
                f"{step.name} stopped half-way: {error.message}. What it did stays, and it is made "
                "to be run again: greffier db migrate"
            ) from error


@contextlib.asynccontextmanager
async def _session(dsn: str) -> AsyncIterator[Connection]:
    """A connection for one task, with the driver's errors in our words."""
    try:
        # A time limit meant for queries must not cut a migration short.
        live = await connections.connect(dsn, {"statement_timeout": "0"})
    except connections.LOST as error:
        raise connections.translate(error) from error
    except asyncpg.PostgresError as error:
        # No such database, a wrong password: PostgreSQL says it best.
        raise Unavailable(f"The database does not let us in: {error.message}.") from error
    try:
        yield live
    except (asyncpg.PostgresError, asyncpg.InterfaceError, *connections.LOST) as error:
        if live.is_closed():
            # The driver's last word may then be about the transaction it could not roll back.
            raise connections.translate(ConnectionResetError()) from error
        ours = connections.translate(error)
        if ours is error:
            raise
        raise ours from error
    finally:
        with contextlib.suppress(*connections.LOST):
            await live.close(timeout=2)


async def _look(connection: Connection) -> Status:
    check_server(connection.get_server_version().major, connection.get_settings().server_encoding)
    # One statement, so one snapshot: the schema may be in the making.
    found = await connection.fetchrow(
        """
        select coalesce(bool_or(o.name = 'schema_changes'), false) as ledger, count(*) as objects
        from pg_namespace n
        join (
            select relnamespace as schema, relname::text as name from pg_class
            union all
            select pronamespace, null from pg_proc
        ) o on o.schema = n.oid
        where n.nspname = 'greffier'
        """
    )
    assert found is not None
    if not found["ledger"]:
        return _without_ledger(found["objects"])
    try:
        rows = await connection.fetch(
            "select id, name, checksum, applied_at, applied_by from greffier.schema_changes "
            "order by id"
        )
    except asyncpg.exceptions.InsufficientPrivilegeError as error:
        raise SchemaError(
            "This role may not read greffier.schema_changes; connect as the owner of the schema."
        ) from error
    return judge([Applied(*row) for row in rows], migrations())


def _without_ledger(objects: int) -> Status:
    names = tuple(step.name for step in migrations())
    if objects == 0:
        # Also with an empty schema: an administrator made it for a role that may not.
        return Status("absent", (), names, "Nothing is here yet. Run: greffier db migrate")
    return Status(
        "altered",
        (),
        names,
        "There is a schema greffier with things in it, but without our ledger "
        "(greffier.schema_changes): it is not Greffier's, or only half restored. Use another "
        "database, or rename that schema.",
    )


async def _be_alone(connection: Connection, log: Log) -> None:
    """Wait until nobody else migrates this database; ends with the connection, even if killed."""
    said = False
    # Asked over and over, because whoever waits inside pg_advisory_lock() holds a snapshot there,
    # and CREATE INDEX CONCURRENTLY waits for all snapshots: the two would wait for each other.
    while not await connection.fetchval("select pg_try_advisory_lock($1)", LOCK):
        if not said:
            log("Another process is migrating this database; waiting for it")
            said = True
        await asyncio.sleep(0.1)


async def _whole(
    connection: Connection, title: str, sql: str, log: Log, patience: Patience
) -> None:
    """Run SQL in one transaction, again and again while its tables are in use."""
    pause = patience.lock_timeout
    for attempt in range(1, patience.attempts + 1):
        try:
            async with connection.transaction():
                await connection.execute(
                    f"set local lock_timeout = '{round(patience.lock_timeout * 1000)}ms'"
                )
                await connection.execute(sql)
            return
        except (
            asyncpg.exceptions.LockNotAvailableError,
            asyncpg.exceptions.DeadlockDetectedError,
        ) as error:
            culprit = await _oldest_transaction(connection)
            if attempt == patience.attempts:
                raise SchemaError(
                    f"{title} could not get its tables in {attempt} attempts and changed nothing; "
                    f"they are in use{culprit}. Run it again: greffier db migrate"
                ) from error
            log(f"{title} waits for tables that are in use{culprit}")
        except connections.LOST:
            raise
        except asyncpg.PostgresError as error:
            # The message alone: the error's detail may quote somebody's row.
            raise SchemaError(f"{title} failed and changed nothing: {error.message}") from error
        # Nothing signals that a transaction has ended; meanwhile all who queued behind us go on.
        await asyncio.sleep(pause)
        pause = min(pause * 2, 10.0)


async def _oldest_transaction(connection: Connection) -> str:
    """Name the likely culprit, as far as this role may see it."""
    row = await connection.fetchrow(
        """
        select pid, coalesce(nullif(application_name, ''), 'unnamed') as name,
            date_trunc('second', clock_timestamp() - xact_start)::text as age
        from pg_stat_activity
        where datname = current_database() and pid <> pg_backend_pid() and xact_start is not null
        order by xact_start limit 1
        """
    )
    if row is None:
        return ""
    return f" (oldest transaction: process {row['pid']}, {row['name']}, since {row['age']})"


async def grant(connection: Connection) -> None:
    """Give and take the rights that the schema gives and takes, after a restore without any."""
    for text in folder("schema").values():
        for statement in statements(text):
            lines = [line for line in statement.splitlines() if not line.lstrip().startswith("--")]
            plain = "\n".join(lines).strip()
            if plain.lower().startswith(("grant ", "revoke ")):
                await connection.execute(plain)
