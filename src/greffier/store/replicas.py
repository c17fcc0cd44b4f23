"""Standbys: reads that may come from elsewhere without ever going back in time.

A reader who wrote holds the position of that write.  A standby answers once it has replayed it; the
server waits a moment for that and then asks the primary.  Who holds no position reads the primary.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Sequence

import asyncpg

from greffier.errors import Unavailable
from greffier.store import connection
from greffier.store.position import Position
from greffier.store.slots import Slots

#: Seconds a read waits for a standby to reach its position.
PATIENCE = 0.15
#: Seconds between two looks at how far it has come: nothing tells us.
LOOK = 0.01
#: Seconds for which a standby that failed is left alone.
SHUNNED = 5.0

REPLAYED = (
    "select pg_is_in_recovery(),"
    " (coalesce(pg_last_wal_replay_lsn(), '0/0') - '0/0'::pg_lsn)::bigint,"
    " (select epoch from identity)"
)


class Replica:
    """One standby, and how far it was when last seen; that never goes back within an epoch."""

    def __init__(self, dsn: str, size: int) -> None:
        self.slots = Slots(dsn, size, patience=0.0)
        self.lsn = 0
        self.shunned_until = 0.0
        self._look: asyncio.Task[str] | None = None

    async def reaches(self, position: Position, until: float) -> bool:
        """Wait until this standby has replayed a position, or a moment has come.

        Raises:
            Unavailable: It does not answer.
        """
        while self.lsn < position.lsn:
            # All who wait share one look.
            if self._look is None or self._look.done():
                self._look = asyncio.create_task(self._look_at_it())
            epoch = await asyncio.shield(self._look)
            if epoch != position.epoch:
                # Promoted, or of another history: its numbers say nothing about ours.
                raise Unavailable
            if self.lsn < position.lsn:
                if time.monotonic() + LOOK > until:
                    return False
                await asyncio.sleep(LOOK)
        return True

    async def _look_at_it(self) -> str:
        """Learn how far it is, and of which history; none when it is no standby any more."""
        ((standby, lsn, epoch),) = await self.slots.run(REPLAYED, again=True)
        if not standby:
            return ""
        self.lsn = max(self.lsn, int(lsn))
        return str(epoch)


class Replicas:
    """The standbys of one primary, asked in turn."""

    def __init__(self, dsns: Sequence[str], *, size: int = 4) -> None:
        """Describe them; connections open as they are needed.

        Args:
            dsns: Where they are.
            size: Connections to each.
        """
        self._all = [Replica(dsn, size) for dsn in dsns]
        self._turn = itertools.count()
        #: Reads that a standby answered, and those that went to the primary after all.
        self.answered = 0
        self.late = 0

    def __bool__(self) -> bool:
        return bool(self._all)

    async def read(
        self, position: Position, sql: str, *args: object
    ) -> list[asyncpg.Record] | None:
        """Run a read on a standby that has reached a position; None when none has in time.

        Raises:
            Error: A refusal of the statement.
        """
        until = time.monotonic() + PATIENCE
        first = next(self._turn)
        for place in range(len(self._all)):
            replica = self._all[(first + place) % len(self._all)]
            if time.monotonic() < replica.shunned_until:
                continue
            try:
                if not await replica.reaches(position, until):
                    continue
                rows = await replica.slots.run(sql, *args, again=True)
            except (Unavailable, asyncpg.PostgresError, *connection.LOST):
                # Away, restarting, or it cancelled us for the sake of its replay.
                replica.shunned_until = time.monotonic() + SHUNNED
                continue
            self.answered += 1
            return rows
        self.late += 1
        return None

    async def close(self) -> None:
        """Close every connection."""
        for replica in self._all:
            await replica.slots.close()
