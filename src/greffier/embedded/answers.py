"""Whether a server really answers: the only sign of life that a connection can rely on."""

from __future__ import annotations

import asyncio
import enum
from dataclasses import dataclass

import asyncpg
from asyncpg.connect_utils import SessionAttribute

from greffier.embedded.folder import PORT
from greffier.embedded.server import DATABASE, USER
from greffier.errors import EmbeddedError

# The connection broke.  The last one: asyncpg says so when the server's last words reach it
# between two of its own steps (met when the postmaster is killed again and again).
_BROKEN = (OSError, asyncpg.PostgresConnectionError, asyncpg.InternalClientError)

#: A server that says nothing for this long is stopped, swamped or gone.
PATIENCE = 5.0

# Creating a database writes some 7 MB and flushes them: 30 ms here, longer on a slow disk.
CREATION = 60.0


class Answer(enum.Enum):
    """What came of trying to connect."""

    YES = enum.auto()
    #: It serves, but our database is not there yet.
    NO_DATABASE = enum.auto()
    #: It is starting, recovering or stopping.
    NOT_NOW = enum.auto()
    #: Nobody listens there.
    NOBODY = enum.auto()
    #: Somebody listens and says nothing.
    SILENCE = enum.auto()


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer, and the version that came with a yes."""

    answer: Answer
    version: str | None = None


async def ask(socket_dir: str) -> Reply:
    """Connect to our database once and let go again."""
    try:
        async with asyncio.timeout(PATIENCE):
            connection = await _connect(socket_dir, DATABASE)
            version: str = connection.get_settings().server_version
            await connection.close()
    except asyncpg.InvalidCatalogNameError:
        return Reply(Answer.NO_DATABASE)
    except asyncpg.OperatorInterventionError:
        return Reply(Answer.NOT_NOW)
    except TimeoutError:
        return Reply(Answer.SILENCE)
    except _BROKEN:
        return Reply(Answer.NOBODY)
    except asyncpg.PostgresError:
        # With all its places taken, or short of memory, it is well alive: the caller's own
        # connection will hear what is the matter.
        return Reply(Answer.YES)
    # Debian's says "15.18 (Debian 15.18-0+deb12u1)"
    return Reply(Answer.YES, version.partition(" ")[0])


async def create_database(socket_dir: str) -> None:
    """Create our database; the caller holds ``control.lock``, so nobody else is at it.

    Raises:
        EmbeddedError: PostgreSQL refuses, for want of room perhaps.
    """
    try:
        async with asyncio.timeout(CREATION):
            connection = await _connect(socket_dir, "postgres")
            try:
                # template0: nobody can be connected to it, which CREATE DATABASE would refuse
                await connection.execute(f"CREATE DATABASE {DATABASE} TEMPLATE template0")
            finally:
                await connection.close()
    except (*_BROKEN, asyncpg.OperatorInterventionError):
        return  # the server is going; whoever looks next sees to it
    except asyncpg.PostgresError as error:
        raise EmbeddedError(f"PostgreSQL could not create its database: {error}") from error


async def _connect(socket_dir: str, database: str) -> asyncpg.Connection[asyncpg.Record]:
    return await asyncpg.connect(
        host=socket_dir,
        port=PORT,
        user=USER,
        database=database,
        password="",  # given, so that ~/.pgpass is not read
        ssl=False,
        target_session_attrs=SessionAttribute.any,  # given, so that the environment does not say
    )
