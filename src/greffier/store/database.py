"""The database as the rest of Greffier sees it: reads, verbs, the writer, and its health."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Protocol
from uuid import UUID

import asyncpg

from greffier.store import connection, schema
from greffier.store.gather import Gathered
from greffier.store.position import Position
from greffier.store.queries import queries
from greffier.store.replicas import Replicas
from greffier.store.slots import Revive, Slot, Slots, Then
from greffier.store.writer import Writer

#: Connections for reads: beyond this they only wait for each other.
READ_CONNECTIONS = 8
#: Verbs have their own: they may wait for a conversation that somebody else holds, reads never do.
VERB_CONNECTIONS = 4

#: Queries of which one statement may answer several callers, and their parameters' types.
GATHERED = {
    "page": ("uuid", "text", "bigint", "integer", "integer", "boolean", "integer", "bigint"),
    "outgoing": ("uuid", "uuid", "uuid"),
}
#: Queries that read whole tables: planned so, and not by key as what a slot asks.
WHOLE = frozenset({"totals", "usage_of_all", "statement_of_all"})

#: How far the log was flushed, in bytes: at least to a commit that was acknowledged before.
WAL = "select (pg_current_wal_flush_lsn() - '0/0'::pg_lsn)::bigint"


class Committed(Protocol):
    """Hears of commits: a hint to look, never the truth."""

    def __call__(self, conversation_id: UUID, rev: int, /, *, people: bool) -> None:
        """Hear that a conversation changed.

        Args:
            conversation_id: Which.
            rev: The rev it has reached, 0 when that is not known.
            people: Whether who has it in their list may have changed.
        """


def _nobody(_conversation_id: UUID, _rev: int, /, *, people: bool) -> None:
    """Nobody follows."""


class Database:
    """One PostgreSQL, this process's connections to it, and its epoch."""

    def __init__(
        self,
        dsn: str,
        *,
        replicas: Sequence[str] = (),
        revive: Revive | None = None,
        patience: float = 10.0,
    ) -> None:
        """Describe the database; ``open_database`` opens it.

        Args:
            dsn: A ``postgresql://`` URL.
            replicas: URLs of its standbys, which may answer readers who hold a position.
            revive: Brings an embedded server back after a crash.
            patience: Seconds a call may go on trying while the database is away, or wait for a
                conversation that somebody else holds.
        """
        self.dsn = dsn
        self.epoch = ""
        self.slots = Slots(
            dsn, READ_CONNECTIONS, revive=revive, enter=self._enter, patience=patience
        )
        self._gathered = {
            name: Gathered(self.slots, queries()[name], types) for name, types in GATHERED.items()
        }
        self.verbs = Slots(
            dsn,
            VERB_CONNECTIONS,
            settings={"lock_timeout": str(round(patience * 1000))},
            revive=revive,
            enter=self._enter,
            patience=patience,
        )
        self.writer = Writer(dsn, revive=revive, enter=self._enter, patience=patience)
        #: Told after each commit that changed a conversation; see ``publish.feed``.
        self.committed: Committed = _nobody
        self.writer.committed = lambda conversation_id, rev: self.committed(
            conversation_id, rev, people=False
        )

        self.replicas = Replicas(replicas)
        self._lsn = 0
        self._then: Then | None = None
        if self.replicas:
            self._then = self.writer.afterwards = self._look_at_wal

    async def _enter(self, live: connection.Connection) -> None:
        """See, before a new connection is used, into which history it leads.

        A standby that was promoted is found behind the same address: from here on its epoch is
        told, and what this process claimed in the history that was left is nobody's any more.
        """
        if self.epoch:
            self.epoch = await schema.identity(live)

    @property
    def position(self) -> Position:
        """Where every write that was acknowledged here is on record.

        Without standbys it names the epoch alone: every read sees every write.
        """
        return Position(self.epoch, 0, self._lsn)

    async def _look_at_wal(self, slot: Slot) -> None:
        """Learn, after a commit, up to where the log has come: at least to that commit."""
        ((lsn,),) = await slot.fetch(WAL)
        self._lsn = max(self._lsn, lsn)

    async def read(
        self,
        name: str,
        *args: object,
        position: Position | None = None,
        together: bool = False,
    ) -> list[asyncpg.Record]:
        """Run a named query of ``sql/queries``.

        Args:
            name: Its name.
            args: Its parameters.
            position: What the reader must see at least; then a standby may answer.  A position of
                another epoch is of no use, and without one the primary answers.
            together: Whether one statement may answer several callers: for those of ``GATHERED``,
                when little is asked, so that nobody waits long for another's rows.
        """
        if self.replicas and position is not None and position.epoch == self.epoch:
            rows = await self.replicas.read(position, queries()[name], *args)
            if rows is not None:
                return rows
        if together:
            return await self._gathered[name].read(*args)
        if name in WHOLE:
            async with self.snapshot() as live:
                return await live.fetch(queries()[name], *args)
        return await self.slots.read(name, *args)

    def at(self, position: Position | None) -> Database:
        """Give the database as a reader sees it who holds this position."""
        if not self.replicas or position is None:
            return self
        return _At(self, position)

    async def verb(
        self,
        sql: str,
        *args: object,
        again: bool,
        touches: UUID | None = None,
        people: bool = False,
    ) -> list[asyncpg.Record]:
        """Call a function that changes something, in a transaction of its own.

        Args:
            sql: ``select f($1, …)``, alone.
            args: Its parameters.
            again: Whether a call whose fate is unknown may be made again.
            touches: The conversation it changes, for those who follow it.
            people: Whether it may change who has the conversation in their list.
        """
        rows = await self.verbs.run(sql, *args, again=again, then=self._then)
        if touches is not None:
            self.committed(touches, 0, people=people)
        return rows

    @contextlib.asynccontextmanager
    async def snapshot(self) -> AsyncIterator[connection.Connection]:
        """Hold a connection of its own inside one read-only snapshot, for exports and audits."""
        try:
            live = await connection.connect(self.dsn)
        except connection.LOST as error:
            raise connection.translate(error) from error
        try:
            async with live.transaction(isolation="repeatable_read", readonly=True):
                yield live
        except (*connection.LOST, asyncpg.PostgresError) as error:
            raise connection.translate(error) from error
        finally:
            with contextlib.suppress(*connection.LOST):
                await live.close(timeout=2)

    async def why_not_ready(self) -> str | None:
        """Say why this database cannot be trusted with words now, or None when it can."""
        try:
            async with asyncio.timeout(3):
                live = await connection.connect(self.dsn)
        except connection.LOST as error:
            return f"The database does not answer: {type(error).__name__}."
        except asyncpg.PostgresError as error:
            return f"The database refuses us: {error.sqlstate}."
        try:
            async with asyncio.timeout(3):
                if await live.fetchval("select pg_is_in_recovery()"):
                    return "The database is a standby and takes no writes."
                if not await schema.fsync_on(live):
                    return "fsync is off: an acknowledged message could be lost with the power."
                status = await schema.status(self.dsn)
                if status.state != "current":
                    return f"The schema is {status.state}: {status.detail}"
        except (*connection.LOST, asyncpg.PostgresError) as error:
            return f"The database does not answer: {type(error).__name__}."
        finally:
            with contextlib.suppress(*connection.LOST):
                await live.close(timeout=2)
        return None


class _At(Database):
    """A database whose reads a standby may answer; everything else is the primary's."""

    def __init__(self, primary: Database, position: Position) -> None:
        self.__dict__.update(primary.__dict__)
        self._primary = primary
        self._at = position

    @property
    def position(self) -> Position:
        return self._primary.position

    async def read(
        self,
        name: str,
        *args: object,
        position: Position | None = None,
        together: bool = False,
    ) -> list[asyncpg.Record]:
        position = position or self._at
        return await self._primary.read(name, *args, position=position, together=together)

    async def verb(
        self,
        sql: str,
        *args: object,
        again: bool,
        touches: UUID | None = None,
        people: bool = False,
    ) -> list[asyncpg.Record]:
        rows = await self._primary.verb(sql, *args, again=again, touches=touches, people=people)
        # What this caller reads next must show what they just wrote.
        self._at = self._primary.position
        return rows


@contextlib.asynccontextmanager
async def open_database(
    dsn: str,
    *,
    replicas: Sequence[str] = (),
    revive: Revive | None = None,
    migrate: bool = False,
    patience: float = 10.0,
) -> AsyncIterator[Database]:
    """Open a database whose schema is this release's.

    On the way out everything acknowledged has been stored, and what waited is stored too.

    Args:
        dsn: A ``postgresql://`` URL.
        replicas: URLs of its standbys.
        revive: Brings an embedded server back after a crash.
        migrate: Bring the schema up to date first (embedded mode, tests); otherwise a schema that
            is behind is refused with the command to run.
        patience: Seconds a call may go on trying while the database is away.

    Raises:
        SchemaError: The schema is behind, newer, or altered.
        Unavailable: The database does not answer.
    """
    database = Database(dsn, replicas=replicas, revive=revive, patience=patience)
    if migrate:
        await schema.migrate(dsn)
    try:
        live = await connection.connect(dsn)
    except (*connection.LOST, *connection.NO_ENTRY) as error:
        raise connection.translate(error) from error
    try:
        await schema.require_current(live)
        database.epoch = await schema.identity(live)
    finally:
        await live.close(timeout=2)
    try:
        yield database
    finally:
        await database.writer.drain()
        await database.verbs.close()
        await database.slots.close()
        await database.replicas.close()
