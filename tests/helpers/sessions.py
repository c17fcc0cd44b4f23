"""Races that are forced: one side stops in its transaction, the other is seen to wait for it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine, Sequence
from typing import Any, TypeVar
from uuid import UUID

import asyncpg

from greffier.library import Greffier
from greffier.model.row import Row, Stored
from greffier.store import connection as connections
from greffier.store.connection import Connection
from greffier.store.database import Database
from greffier.store.position import Position
from greffier.store.queries import queries
from greffier.store.refusals import refusal
from greffier.store.writer import APPEND_BATCH, APPEND_ONE, Writer
from helpers.postgres import connected

T = TypeVar("T")


class _Inline(Writer):
    """A writer whose appends run on the session's own connection, in its open transaction."""

    def __init__(self, live: Connection) -> None:
        super().__init__("")
        self._live = live

    async def append(
        self,
        conversation_id: UUID,
        actor: str | None,
        rows: Sequence[Row],
        *,
        size: int,
        fresh: bool,
    ) -> list[Stored]:
        if len(rows) == 1:
            found = await self._live.fetch(
                APPEND_ONE, conversation_id, actor, *rows[0], fresh, True
            )
        else:
            columns = map(list, zip(*rows, strict=True))
            found = await self._live.fetch(
                APPEND_BATCH,
                0,
                [conversation_id],
                [actor],
                [len(rows)],
                *columns,
                not fresh,
                True,
            )
        if found[0]["outcome"] not in ("stored", "replayed"):
            raise refusal(found[0]["outcome"])
        return [Stored(*row) for row in found]


class Session(Database):
    """Greffier on one connection, whose transaction the test begins and ends.

    Every verb and every read runs here as it does in production; only when it commits is chosen.
    """

    def __init__(self, live: Connection, watch: Connection) -> None:
        super().__init__("")
        self.live = live
        self.writer = _Inline(live)
        greffier = Greffier(self)
        self.say = greffier.say
        self.context = greffier.context
        self.messages = greffier.messages
        self.conversations = greffier.conversations
        self.watch = watch

    async def verb(
        self,
        sql: str,
        *args: object,
        again: bool,
        touches: UUID | None = None,
        people: bool = False,
    ) -> list[asyncpg.Record]:
        """Call a function in the transaction that is open, else in one of its own."""
        try:
            return await self.live.fetch(sql, *args)
        except asyncpg.PostgresError as error:
            raise connections.translate(error) from error

    async def read(
        self,
        name: str,
        *args: object,
        position: Position | None = None,
        together: bool = False,
    ) -> list[asyncpg.Record]:
        """Run a named query on this connection."""
        return await self.live.fetch(queries()[name], *args)

    @contextlib.asynccontextmanager
    async def open(self, *, undo: bool = False) -> AsyncIterator[None]:
        """Hold a transaction open; commit it at the end of the block, or undo it."""
        transaction = self.live.transaction()
        await transaction.start()
        try:
            yield
        except BaseException:
            await transaction.rollback()
            raise
        await (transaction.rollback() if undo else transaction.commit())

    async def waits(self, doing: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Start something here, and come back when PostgreSQL says that it waits for a lock."""
        task = asyncio.create_task(doing)
        await until_blocked(self.watch, self.live.get_server_pid(), task)
        return task


async def until_blocked(watch: Connection, pid: int, task: asyncio.Task[Any]) -> None:
    """Come back when this session waits for a lock; fail if what it does ends before."""
    # pg_locks is read afresh at each look, unlike pg_stat_activity within a transaction.
    while not await watch.fetchval(
        "select exists (select from pg_locks where pid = $1 and not granted)", pid
    ):
        assert not task.done(), f"it did not wait: {task}"


async def until_waiting(watch: Connection, sessions: int) -> None:
    """Come back when so many sessions of this database wait for locks."""
    waiting = 0
    while waiting < sessions:
        waiting = await watch.fetchval(
            "select count(distinct l.pid) from pg_locks l join pg_stat_activity a using (pid) "
            "where not l.granted and a.datname = current_database()"
        )


@contextlib.asynccontextmanager
async def sessions(dsn: str, many: int = 2) -> AsyncIterator[list[Session]]:
    """Open sessions on a database, and one more connection that looks who waits for whom."""
    async with contextlib.AsyncExitStack() as stack:
        watch = await stack.enter_async_context(connected(dsn))
        yield [Session(await stack.enter_async_context(connected(dsn)), watch) for _ in range(many)]
