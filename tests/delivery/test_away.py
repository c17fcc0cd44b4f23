"""Promises of the worker when something broke or was away: no lane waits for the end of a lease."""

from __future__ import annotations

import asyncio

import pytest
import structlog
from structlog.testing import capture_logs

from greffier.deliver import worker as worker_module
from greffier.deliver.lanes import LaneKind
from greffier.deliver.worker import Held, Worker
from greffier.errors import Unavailable
from greffier.store.database import open_database
from helpers.delivering import PATIENCE
from helpers.lanes import Hand
from helpers.postgres import connected, wait_for_lock
from helpers.proxy import proxied

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
            async with asyncio.timeout(PATIENCE):
                await work.again.wait()
            worker.stop()
            await running

    first, second = (held.claim for held in work.claims)
    assert first.lane_id == second.lane_id == lane.id
    assert (second.fence, second.tries) == (first.fence + 1, 0)
    assert worker.counts.broken == worker.counts.lost == 0
    assert [line["event"] for line in said] == ["lane left, the database is away"]


class Breaking(Away):
    """Work that breaks the first time, in a way that nobody thought of."""

    async def work(self, held: Held) -> None:
        """Work on a lane."""
        try:
            await super().work(held)
        except Unavailable:
            raise ZeroDivisionError from None


async def test_what_breaks_once_does_not_wait_for_the_end_of_its_lease(database: str) -> None:
    """It is taken up again a few seconds later, and that counts as a try."""
    work = Breaking()
    async with connected(database) as live, open_database(database) as opened:
        hand = Hand(live)
        lane = await hand.lane(1)
        worker = Worker(opened, [work], log=structlog.get_logger(), poll=0.05, grace=0)
        with capture_logs() as said:
            running = asyncio.create_task(worker.run())
            async with asyncio.timeout(PATIENCE):
                await work.again.wait()
            worker.stop()
            await running

    first, second = (held.claim for held in work.claims)
    assert first.lane_id == second.lane_id == lane.id
    assert (second.fence, second.tries) == (first.fence + 1, 1)
    assert (worker.counts.broken, worker.counts.lost) == (1, 0)
    assert [(line["event"], line["error"]) for line in said] == [
        ("work broke", "ZeroDivisionError")
    ]


class Kept:
    """Work that is never done."""

    name: LaneKind = "out"
    concurrency = 100
    lease = LEASE
    max_tries: int | None = 3

    def __init__(self, many: int) -> None:
        self.claims: list[Held] = []
        self.all = asyncio.Event()
        self._many = many

    async def work(self, held: Held) -> None:
        """Work on a lane."""
        self.claims.append(held)
        if len(self.claims) == self._many:
            self.all.set()
        await asyncio.Event().wait()


async def test_a_claim_whose_answer_was_lost_is_found_again(database: str) -> None:
    """The server made it and nobody heard: the lanes are worked on, under that very claim."""
    work = Kept(3)
    async with (
        connected(database) as live,
        connected(database) as other,
        proxied(database) as wire,
        open_database(wire.dsn) as opened,
    ):
        hand = Hand(live)
        for _ in range(3):
            await hand.lane(1)
        worker = Worker(opened, [work], log=structlog.get_logger(), poll=0.05, grace=0)
        holding = other.transaction()
        await holding.start()
        await other.execute("lock table lanes in exclusive mode")
        running = asyncio.create_task(worker.run())
        await wait_for_lock(live, "%claim_lanes_v1%")
        wire.cut()
        await wait_for_lock(live, "%claimed_v1%")
        await holding.commit()
        async with asyncio.timeout(PATIENCE):
            await work.all.wait()
        worker.stop()
        await running

        assert {(one.claim.fence, one.claim.tries) for one in work.claims} == {(1, 0)}
        assert await live.fetchval("select count(*) from lanes where token is not null") == 0


async def test_who_is_stopped_as_it_claims_leaves_no_lease(database: str) -> None:
    """What the server gives to who has gone is given back."""
    work = Kept(3)
    async with (
        connected(database) as live,
        connected(database) as other,
        proxied(database) as wire,
        open_database(wire.dsn) as opened,
    ):
        await Hand(live).lane(1)
        worker = Worker(opened, [work], log=structlog.get_logger(), grace=0)
        holding = other.transaction()
        await holding.start()
        await other.execute("lock table lanes in exclusive mode")
        running = asyncio.create_task(worker.run())
        await wait_for_lock(live, "%claim_lanes_v1%")
        wire.cut()
        await wait_for_lock(live, "%claimed_v1%")
        running.cancel()
        await holding.commit()
        await asyncio.wait({running})

        assert work.claims == []
        row = await live.fetchrow("select fence, tries, token, owner from lanes")
        assert row is not None
        assert tuple(row) == (1, 0, None, None)


async def test_who_hears_first_leaves_some_to_others(database: str) -> None:
    """Few are claimed at first, and twice as many each time that there are as many as were asked.

    What was claimed at once has one token.
    """
    work = Kept(40)
    async with connected(database) as live, open_database(database) as opened:
        hand = Hand(live)
        for _ in range(40):
            await hand.lane(1)
        worker = Worker(opened, [work], log=structlog.get_logger(), grace=0)
        running = asyncio.create_task(worker.run())
        async with asyncio.timeout(PATIENCE):
            await work.all.wait()
        tokens = [held.claim.token for held in work.claims]
        worker.stop()
        await running

    assert [tokens.count(token) for token in dict.fromkeys(tokens)] == [8, 16, 16]


class Brief:
    """Work that ends when it is told to; the second time it says that it was reached."""

    name: LaneKind = "out"
    concurrency = 4
    lease = LEASE
    max_tries: int | None = 3

    def __init__(self) -> None:
        self.begun, self.end, self.again = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.tasks: list[asyncio.Task[object]] = []

    async def work(self, held: Held) -> None:
        """Work on a lane, and leave it as it is."""
        task = asyncio.current_task()
        assert task is not None
        self.tasks.append(task)
        (self.again if self.end.is_set() else self.begun).set()
        await self.end.wait()


async def test_a_renewal_that_comes_after_the_work_stops_nobody(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its answer concerns nobody by then, and the worker goes on to the next lane."""
    # All the time, so that none has to be waited for.
    monkeypatch.setattr(worker_module, "RENEWALS", LEASE * 20)
    work = Brief()
    async with (
        connected(database) as live,
        connected(database) as other,
        open_database(database) as opened,
    ):
        hand = Hand(live)
        await hand.lane(1)
        worker = Worker(opened, [work], log=structlog.get_logger(), poll=0.05, grace=0)
        running = asyncio.create_task(worker.run())
        holding = other.transaction()
        await work.begun.wait()
        await holding.start()
        await other.execute("select from lanes for update")
        await wait_for_lock(live, "%heartbeat_v1%")
        work.end.set()
        await asyncio.wait(work.tasks)
        await holding.commit()
        await hand.lane(1)
        async with asyncio.timeout(PATIENCE):
            await work.again.wait()
        worker.stop()
        await running
