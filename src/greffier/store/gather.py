"""Reads that wait are answered together: one statement for many callers, as the writer stores.

No timer: what is asked while the lanes are busy goes with the next statement.  Of a page's time in
PostgreSQL more than half is the statement's and not the page's (alone 180 us, in a statement of
sixteen 85 us each, of 9 KB), and Python's share of asking falls with it.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

import asyncpg

from greffier.errors import Error
from greffier.store.slots import Slots

#: Statements under way: with one PostgreSQL would wait while we answer the callers.
LANES = 2
#: Calls in one statement: twice as many bring a tenth more, and the first waits for the last.
MOST = 16


class _Asked(NamedTuple):
    args: tuple[object, ...]
    rows: asyncio.Future[list[asyncpg.Record]]


class Gathered:
    """One query of at most one row, asked for many at a time whenever several callers wait."""

    def __init__(self, slots: Slots, sql: str, types: Sequence[str]) -> None:
        """Describe it.

        Args:
            slots: Whose connections are asked.
            sql: The query, in which each table is reached by key: it is run once for each caller.
            types: The types of its parameters.
        """
        self._slots = slots
        self._sql = sql
        self._many = together(sql, types)
        self._waiting: deque[_Asked] = deque()
        self._lanes: set[asyncio.Task[None]] = set()

    async def read(self, *args: object) -> list[asyncpg.Record]:
        """Ask it; what is on record when this is called is seen.

        Raises:
            Error: Unavailable, or a refusal of the query.
        """
        asked = _Asked(args, asyncio.get_running_loop().create_future())
        self._waiting.append(asked)
        if len(self._lanes) < LANES:
            lane = asyncio.get_running_loop().create_task(self._work())
            self._lanes.add(lane)
            # Of one that was cancelled before it began.
            lane.add_done_callback(self._lanes.discard)
        return await asked.rows

    async def _work(self) -> None:
        try:
            while batch := self._take():
                await self._tell(batch)
        finally:
            # In the same turn in which nobody waited: who asks in the next, when we have ended and
            # our callbacks have not run, must not rely on us.
            self._lanes.discard(asyncio.current_task())

    async def _tell(self, batch: list[_Asked]) -> None:
        try:
            await self._answer(batch)
        except BaseException as error:
            for asked in batch:
                if not asked.rows.done():
                    asked.rows.set_exception(error)
            if not isinstance(error, Exception):
                raise

    def _take(self) -> list[_Asked]:
        batch: list[_Asked] = []
        while self._waiting and len(batch) < MOST:
            asked = self._waiting.popleft()
            # Whoever left is asked for no more.
            if not asked.rows.done():
                batch.append(asked)
        return batch

    async def _answer(self, batch: list[_Asked]) -> None:
        if len(batch) == 1:
            _resolve(batch[0], await self._slots.run(self._sql, *batch[0].args, again=True))
            return
        columns = map(list, zip(*(asked.args for asked in batch), strict=True))
        try:
            found = await self._slots.run(self._many, *columns, again=True)
        except Error:
            raise
        except Exception:  # noqa: BLE001 - one of them broke the call: each then has its own
            for asked in batch:
                await self._alone(asked)
            return
        rows: list[list[asyncpg.Record]] = [[] for _ in batch]
        for row in found:
            rows[row["asked_no"] - 1].append(row)
        for asked, mine in zip(batch, rows, strict=True):
            _resolve(asked, mine)

    async def _alone(self, asked: _Asked) -> None:
        try:
            await self._answer([asked])
        except Exception as error:  # noqa: BLE001 - told to whoever asked
            if not asked.rows.done():
                asked.rows.set_exception(error)


def _resolve(asked: _Asked, rows: list[asyncpg.Record]) -> None:
    if not asked.rows.done():
        asked.rows.set_result(rows)


def together(sql: str, types: Sequence[str]) -> str:
    """Write the query for many callers: an array for each parameter, and ``asked_no`` beside it."""
    names = [f"p{number}" for number in range(1, len(types) + 1)]
    arrays = ", ".join(f"${number}::{kind}[]" for number, kind in enumerate(types, start=1))
    body = re.sub(r"\$(\d+)", r"asked.p\1", sql)
    return (
        f"select asked.asked_no, found.*\n"
        f"from unnest({arrays}) with ordinality as asked ({', '.join(names)}, asked_no)\n"
        f"cross join lateral (\n{body}\n) found"
    )
