"""One connection to PostgreSQL, set up as Greffier needs it, and its errors in our words."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TypeAlias

import asyncpg

from greffier.errors import SQLSTATES, Error, Forbidden, Unavailable

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

#: What every connection of ours runs with, whatever the server's defaults are.
SETTINGS = {
    "application_name": "greffier",
    "search_path": "greffier",
    "timezone": "UTC",
    # P1: an acknowledged message is on disk, whatever the database's default is
    "synchronous_commit": "on",
    # Our plans are by primary key and never depend on a parameter: planning once per connection
    # is faster (a batch of one: 0.6 ms instead of 1.0), and a plan cannot flip after five calls.
    "plan_cache_mode": "force_generic_plan",
    "jit": "off",
    "idle_in_transaction_session_timeout": "60s",
}

#: The connection is gone or the server is going away: the same call may succeed on a new one.
LOST = (
    OSError,
    EOFError,
    asyncio.TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.exceptions.AdminShutdownError,
    asyncpg.exceptions.CrashShutdownError,
    asyncpg.exceptions.CannotConnectNowError,
    asyncpg.exceptions.TooManyConnectionsError,
    asyncpg.exceptions.IdleInTransactionSessionTimeoutError,
    asyncpg.exceptions.IdleSessionTimeoutError,
    # "cannot switch to state 11; another operation (2) is in progress": the server's last word was
    # read, and the end of the connection not yet seen; nothing can be sent on it any more.
    asyncpg.InternalClientError,
)

#: It is there, and this role or this database is not, or the password is wrong.
NO_ENTRY = (
    asyncpg.exceptions.InvalidAuthorizationSpecificationError,
    asyncpg.exceptions.InvalidCatalogNameError,
)

#: The statement was undone whole and may be run again as it is.
TRY_AGAIN = (
    asyncpg.exceptions.DeadlockDetectedError,
    asyncpg.exceptions.SerializationError,
)


async def connect(dsn: str, settings: Mapping[str, str] | None = None) -> Connection:
    """Open one connection.

    Args:
        dsn: A ``postgresql://`` URL.
        settings: Session settings beyond ``SETTINGS``.
    """
    return await asyncpg.connect(
        dsn,
        timeout=10,
        server_settings={**SETTINGS, **(settings or {})},
        # Prepared statements are kept by our slots, by name.
        statement_cache_size=0,
    )


def busy() -> Unavailable:
    """Say that somebody else has held for too long what is needed."""
    return Unavailable("The conversation is busy; try again shortly.", retry_after=1)


def _sentence(words: str) -> str:
    return f"{words[:1].upper()}{words[1:]}."


def translate(error: BaseException) -> BaseException:
    """Put an error of the driver into our words; what is already ours, or a bug, stays as it is."""
    if isinstance(error, Error):
        return error
    if isinstance(error, asyncpg.PostgresError) and error.sqlstate in SQLSTATES:
        refusal = SQLSTATES[error.sqlstate]
        # Who may see it is told why not, in fixed words of ours; others are told nothing.
        return Forbidden(_sentence(error.args[0])) if refusal is Forbidden else refusal()
    if isinstance(error, LOST):
        return Unavailable("The database is away; try again shortly.", retry_after=1)
    if isinstance(error, NO_ENTRY):
        # Why is for whoever operates it, who finds it in the cause: no caller's business.
        return Unavailable("The database does not let us in.", retry_after=5)
    if isinstance(error, (*TRY_AGAIN, asyncpg.exceptions.LockNotAvailableError)):
        return busy()
    if isinstance(error, asyncpg.exceptions.QueryCanceledError):
        return Unavailable("The database took too long; try again shortly.", retry_after=1)
    if isinstance(
        error, (asyncpg.exceptions.DiskFullError, asyncpg.exceptions.OutOfMemoryError)
    ) or (isinstance(error, asyncpg.PostgresError) and (error.sqlstate or "").startswith("53")):
        return Unavailable("The database is out of room.", retry_after=30)
    if isinstance(error, asyncpg.exceptions.ReadOnlySQLTransactionError):
        return Unavailable("The database takes no writes now.", retry_after=5)
    return error
