"""Whether a server really answers: the only sign of life that a connection can rely on."""

from __future__ import annotations

import asyncio
import enum
from dataclasses import dataclass

import asyncpg
from asyncpg.connect_utils import SessionAttribute

from greffier.embedded.folder import PORT
from greffier.embedded.server import DATABASE, USER

#: A server that says nothing for this long is stopped, swamped or gone.
PATIENCE = 5.0


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
    except asyncpg.TooManyConnectionsError:
        return Reply(Answer.YES)  # a server with all its places taken is well alive
    except asyncpg.CannotConnectNowError:
        return Reply(Answer.NOT_NOW)
    except TimeoutError:
        return Reply(Answer.SILENCE)
    except (OSError, asyncpg.PostgresConnectionError):
        return Reply(Answer.NOBODY)
    # Debian's says "15.18 (Debian 15.18-0+deb12u1)"
    return Reply(Answer.YES, version.partition(" ")[0])


async def create_database(socket_dir: str) -> None:
    """Create our database; the caller holds ``control.lock``, so nobody else is at it."""
    connection = await _connect(socket_dir, "postgres")
    try:
        # template0: nobody can be connected to it, which CREATE DATABASE would refuse
        await connection.execute(f"CREATE DATABASE {DATABASE} TEMPLATE template0")
    finally:
        await connection.close()


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
