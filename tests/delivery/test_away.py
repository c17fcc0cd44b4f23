"""Promises of the worker when the database was away: no lane waits for the end of a lease."""

from __future__ import annotations

import asyncio

import structlog
from structlog.testing import capture_logs

from greffier.deliver.lanes import LaneKind
from greffier.deliver.worker import Held, Worker
from greffier.errors import Unavailable
from greffier.store.database import open_database
from helpers.lanes import Hand
from helpers.postgres import connected

#: So long that nobody lives to see its end.
LEASE = 36_000.0


class Away:
    """Work that finds the database away the first time."""

    name: LaneKind = "out"
    concurrency = 4
    lease = LEASE
    max_tries: int | None = 3

    def __init__(self) -> None:
        self.claims: list[Held] = []
        self.again = asyncio.Event()

    async def work(self, held: Held) -> None:
        """Work on a lane."""
        self.claims.append(held)
        if len(self.claims) == 1:
            raise Unavailable("The database is away; try again shortly.")
        self.again.set()
        await asyncio.Event().wait()


async def test_a_lane_is_let_go_when_the_database_is_back(database: str) -> None:
    """It is taken up again at once, and that the database was away is nobody's try."""
    work = Away()
    log = structlog.get_logger()
    async with connected(database) as live, open_database(database) as opened:
        lane = await Hand(live).lane(1)
        worker = Worker(opened, [work], log=log, poll=0.05, grace=0)
        with capture_logs() as said:
            running = asyncio.create_task(worker.run())
            async with asyncio.timeout(30):
                await work.again.wait()
            worker.stop()
            await running

    first, second = (held.claim for held in work.claims)
    assert first.lane_id == second.lane_id == lane.id
    assert (second.fence, second.tries) == (first.fence + 1, 0)
    assert worker.counts.broken == worker.counts.lost == 0
    assert [line["event"] for line in said] == ["lane left, the database is away"]
