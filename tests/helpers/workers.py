"""Workers in processes of their own that deliver from a record, and its journal afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import ExitStack
from itertools import pairwise
from signal import SIGKILL
from typing import Any
from uuid import UUID

from greffier.deliver.channels import Channels
from greffier.deliver.channels.webhook import Webhook
from greffier.deliver.keeping import Endpoints
from greffier.deliver.targets import ChannelTargets
from greffier.library import Greffier
from greffier.read.audit import audit
from greffier.store.database import open_database
from helpers.hooks import Arrival
from helpers.postgres import connected
from helpers.serving import Running, started

PROGRAM = "from greffier.server.work import run; from greffier.settings import load; run(load())"
LEASE = 5


class Workers:
    """Processes of ``greffier worker``, and a record they deliver from."""

    def __init__(self, g: Greffier, live: Any, stack: ExitStack) -> None:
        self.g, self.live, self._stack = g, live, stack
        self.running: list[Running] = []

    async def start(self, count: int = 1, **more: str) -> None:
        """Start workers, and wait until they work."""
        settings = {
            "DATABASE_URL": self.g.database.dsn,
            "ALLOW_PRIVATE_TARGETS": "true",
            "LEASE_SECONDS": str(LEASE),
            "MAX_ATTEMPTS": "20",
            **more,
        }
        new = [
            self._stack.enter_context(started(program=PROGRAM, **settings)) for _ in range(count)
        ]
        await asyncio.gather(*(asyncio.to_thread(one.until, " works as ") for one in new))
        for one in new:
            one.let_it_talk()
        self.running += new

    async def kill(self) -> None:
        """Kill one of them, whichever; of those that are at work, if any is.

        Whoever hears of fifty lanes first has them all, and the others have little to lose.
        """
        rows = await self.live.fetch("select distinct owner from lanes where token is not null")
        owners = {int(row[0].rpartition(":")[2]) for row in rows}
        busy = [one for one in self.running if one.process.pid in owners]
        one = random.choice(busy or self.running)
        self.running.remove(one)
        one.process.send_signal(SIGKILL)
        await asyncio.to_thread(one.ended)

    async def until(self, query: str, *values: Any) -> Any:
        """Ask the database until it says so."""
        # Nobody calls, and the processors are for the workers.
        while not (found := await self.live.fetchval(query, *values)):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        return found

    async def settled(self) -> None:
        """Wait until nothing is on its way or to be sent."""
        await self.until(
            "select not exists (select from lanes where kind = 'out' and parked_at is null"
            " and head_seq <= tail_seq)"
        )


@contextlib.asynccontextmanager
async def delivered_by_workers(database: str) -> AsyncIterator[Workers]:
    """Open a record whose messages other processes deliver; it audits clean afterwards."""
    channels = Channels([Webhook(allow_private=True)])
    with ExitStack() as stack:
        async with open_database(database) as store, connected(database) as live:
            g = Greffier(store)
            g.endpoints = Endpoints(store, ChannelTargets(channels))
            yield Workers(g, live, stack)
            report = await audit(store)
            assert report.clean, report.findings


async def holds(workers: Workers, arrivals: dict[str, list[Arrival]], talks: dict[str, UUID],
                many: int, *, order: str = "settled_at, seq") -> int:  # fmt: skip
    """Compare what receivers got with the journal; how many doubles there were.

    I1 nothing is lost, I2 each accepted once, I3 and I4 in order, I5 each double is explained by
    intents with rising fences.  Where the clock itself went back, its times are no order.
    """
    doubles = 0
    for path, talk in talks.items():
        got = arrivals[path]
        first = list(dict.fromkeys(one.seq for one in got))
        assert first == list(range(1, many + 1)), (path, first)
        rows = await workers.live.fetch(
            f"select seq, fence, outcome from attempts where conversation_id = $1 order by {order}",
            talk,
        )
        accepted = [row["seq"] for row in rows if row["outcome"] == "accepted"]
        assert accepted == list(range(1, many + 1)), path
        intents: dict[int, list[int]] = defaultdict(list)
        for row in rows:
            intents[row["seq"]].append(row["fence"])
        calls: dict[int, list[Arrival]] = defaultdict(list)
        for one in got:
            calls[one.seq].append(one)
        for seq, same in calls.items():
            fences = [one.fence for one in same]
            assert len({one.id for one in same}) == 1
            assert len(set(fences)) == len(fences), (path, seq, fences)
            assert set(fences) <= set(intents[seq]), (path, seq)
            assert all(a < b for a, b in pairwise(fences)), (path, seq, fences)
            doubles += len(same) - 1
    return doubles
