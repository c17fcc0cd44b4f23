"""A few connections, for which callers wait first come, first served.

``asyncpg.Pool`` lets some of them wait for ever under load (a page's p99 was 108 ms instead of 5),
and it runs a reset query at each release (a quarter of the throughput).
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import asyncpg
import asyncpg.prepared_stmt

from greffier.errors import EmbeddedError
from greffier.store import connection
from greffier.store.queries import queries

#: What a slot asks is found by key, and its plan is kept: one made while a table is still empty
#: would read all of it, until somebody analyses it (appends with ids to a new database took ten
#: times the time within seconds).
BY_KEY = {"enable_seqscan": "off"}

#: Brings the server back when it is ours (embedded); called after a connection could not be made.
Revive = Callable[[], Awaitable[None]]
#: Looks at a new connection before it is used: it may lead to a server that was promoted meanwhile.
Enter = Callable[[connection.Connection], Awaitable[None]]


class Slot:
    """One place for one connection, opened on first use and again after it was lost."""

    def __init__(
        self,
        dsn: str,
        settings: dict[str, str],
        revive: Revive | None,
        enter: Enter | None = None,
    ) -> None:
        self._dsn = dsn
        self._settings = {**BY_KEY, **settings}
        self._revive = revive
        self._enter = enter
        self._connection: connection.Connection | None = None
        self._prepared: dict[str, asyncpg.prepared_stmt.PreparedStatement[Any]] = {}
        self._names = itertools.count()

    async def open(self) -> connection.Connection:
        """Give the live connection, making one when there is none.

        Raises:
            OSError, asyncpg.PostgresError: The server does not let us in now.
        """
        if self._connection is not None and not self._connection.is_closed():
            return self._connection
        self._prepared.clear()
        self._connection = None
        live = await self._connect()
        if self._enter is not None:
            try:
                with self._in_words(live):
                    await self._enter(live)
            except BaseException:
                live.terminate()
                raise
        self._connection = live
        return live

    async def _connect(self) -> connection.Connection:
        try:
            return await connection.connect(self._dsn, self._settings)
        except connection.LOST:
            if self._revive is None:
                raise
            try:
                await self._revive()
            except EmbeddedError as error:
                # To whoever waits for an answer it is away, like any other; it may come back.
                raise ConnectionRefusedError(str(error)) from error
            return await connection.connect(self._dsn, self._settings)

    async def prepare(self, sql: str) -> asyncpg.prepared_stmt.PreparedStatement[Any]:
        """Give the statement prepared on this slot's connection."""
        live = await self.open()
        statement = self._prepared.get(sql)
        if statement is None:
            # Named by us: without its own cache asyncpg gives no name, and PostgreSQL would then
            # parse and plan at every call (a page took 1.5 ms of its CPU instead of 0.35).
            name = f"greffier_{next(self._names)}"
            with self._in_words():
                statement = self._prepared[sql] = await live.prepare(sql, name=name)
        return statement

    async def fetch(self, sql: str, *args: object) -> list[asyncpg.Record]:
        """Run a prepared statement; a statement the server no longer knows is prepared again."""
        statement = await self.prepare(sql)
        try:
            with self._in_words():
                return await statement.fetch(*args)
        except (
            asyncpg.exceptions.InvalidCachedStatementError,
            asyncpg.exceptions.InvalidSQLStatementNameError,
        ):
            # Somebody migrated under us: the plan's result type changed, nothing has run.
            del self._prepared[sql]
            statement = await self.prepare(sql)
            with self._in_words():
                return await statement.fetch(*args)

    @contextlib.contextmanager
    def _in_words(self, entered: connection.Connection | None = None) -> Iterator[None]:
        """Take the driver's confusion at a connection that broke under it for what it is."""
        try:
            yield
        except asyncpg.InternalClientError as error:
            # It has lost track of the connection, which it may still take for open: seen when a
            # server was killed while a statement was prepared.
            raise ConnectionResetError(str(error)) from error
        except asyncpg.InterfaceError as error:
            # Its word for a misuse, and for a connection that closed meanwhile.
            live = entered or self._connection
            if live is None or live.is_closed():
                raise ConnectionResetError(str(error)) from error
            raise

    def drop(self) -> None:
        """Forget the connection without a word; the server undoes what it had open."""
        if self._connection is not None:
            self._connection.terminate()
        self._connection = None
        self._prepared.clear()

    async def close(self) -> None:
        """Close the connection politely."""
        if self._connection is not None and not self._connection.is_closed():
            with contextlib.suppress(*connection.LOST):
                await self._connection.close(timeout=2)
        self._connection = None
        self._prepared.clear()


#: What a caller does with the connection after its statement.
Then = Callable[[Slot], Awaitable[None]]


class Slots:
    """A fixed number of slots and a queue before them."""

    def __init__(
        self,
        dsn: str,
        size: int,
        *,
        settings: dict[str, str] | None = None,
        revive: Revive | None = None,
        enter: Enter | None = None,
        patience: float = 10.0,
    ) -> None:
        """Make the slots; connections open as they are needed.

        Args:
            dsn: Where PostgreSQL is.
            size: How many connections at most.
            settings: Session settings of these connections.
            revive: Brings an embedded server back.
            enter: Looks at each new connection before it is used.
            patience: Seconds to go on trying while the database is away.
        """
        self._all = [Slot(dsn, settings or {}, revive, enter) for _ in range(size)]
        self._free = deque(self._all)
        self._waiting: deque[asyncio.Future[Slot]] = deque()
        self._patience = patience

    @contextlib.asynccontextmanager
    async def use(self) -> AsyncIterator[Slot]:
        """Hold a slot; who came first gets it first."""
        if self._free:
            # The one that was used last, which has planned what is asked most: taken in turns, each
            # had to plan it (the second answer of a process began 31 ms late, and not 7).
            slot = self._free.pop()
        else:
            turn: asyncio.Future[Slot] = asyncio.get_running_loop().create_future()
            self._waiting.append(turn)
            try:
                slot = await turn
            except asyncio.CancelledError:
                # Cancelled in the same tick in which our turn came: pass it on.
                if turn.done() and not turn.cancelled():
                    self._give_back(turn.result())
                raise
        try:
            # A cancelled statement is no trouble: asyncpg cancels it on the server, and the next
            # one on this connection waits until that is done.
            yield slot
        finally:
            self._give_back(slot)

    def _give_back(self, slot: Slot) -> None:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(slot)
                return
        self._free.append(slot)

    async def read(self, name: str, *args: object) -> list[asyncpg.Record]:
        """Run a named query, over again on a new connection while the database is away."""
        return await self.run(queries()[name], *args, again=True)

    async def run(
        self, sql: str, *args: object, again: bool, then: Then | None = None
    ) -> list[asyncpg.Record]:
        """Run one statement.

        Args:
            sql: The statement; it is prepared once a connection.
            args: Its parameters.
            then: Done with the same connection right after it.
            again: It may run twice without harm, so a lost connection is only a delay.  Otherwise a
                connection lost under way is refused as unavailable: nobody knows what came of it.

        Raises:
            Error: A refusal of the statement, or unavailable.
        """
        until = time.monotonic() + self._patience
        pause = 0.02
        while True:
            sent = False
            async with self.use() as slot:
                try:
                    await slot.prepare(sql)
                    sent = True
                    rows = await slot.fetch(sql, *args)
                    if then is not None:
                        await then(slot)
                    return rows
                except connection.TRY_AGAIN as error:
                    if time.monotonic() > until:
                        raise connection.translate(error) from error
                except connection.LOST as error:
                    slot.drop()
                    if (sent and not again) or time.monotonic() > until:
                        raise connection.translate(error) from error
                except asyncpg.PostgresError as error:
                    ours = connection.translate(error)
                    if ours is error:
                        raise
                    raise ours from error
            # Nothing signals that a server is back; look again a little later each time.
            await asyncio.sleep(pause)
            pause = min(pause * 2, 0.5)

    async def close(self) -> None:
        """Close every connection."""
        for slot in self._all:
            await slot.close()
