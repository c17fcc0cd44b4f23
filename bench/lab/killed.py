"""A worker killed while it delivers, and another that finds out by the lease alone."""

from __future__ import annotations

import asyncio
import time
from asyncio.subprocess import Process
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from greffier.store.connection import Connection
from lab import lanes
from lab.drain import PATIENCE, faults, read, say, start

_HELD = "select conversation_id from lanes where token is not null"
# Two intents of a message, of which the later one has the greater fence, explain a double.
_EXPLAINED = """
select conversation_id, seq, count(*) as intents
from (
    select *, lag(fence) over (
        partition by conversation_id, lane_id, seq order by intended_at) as before
    from attempts
) a
group by conversation_id, lane_id, seq
having count(*) > 1 and bool_and(coalesce(fence > before, true))
"""


@dataclass(frozen=True, slots=True)
class Recovered:
    """How it went."""

    #: Seconds from the kill until each lane that was held went on.
    took: list[float]
    deliveries: int
    doubles: int
    disorders: int
    #: Deliveries of a message beyond its intents on record.
    unexplained: int


async def kill_and_recover(
    dsn: str, live: Connection, talks: Sequence[UUID], each: int
) -> Recovered:
    """Kill the only worker amid its work; another goes on.

    Args:
        dsn: Where.
        live: A connection there.
        talks: Conversations with messages that wait for nobody else.
        each: How many messages of each.
    """
    many = len(talks) * each
    found: list[tuple[int, int, int]] = []
    some = asyncio.Event()
    await lanes.work_for(live, talks, each)
    first, second = await asyncio.gather(start("mortal", dsn), start("mortal", dsn))
    try:
        reading = [asyncio.create_task(read(first, found, many // 4, some))]
        say(first)
        await _soon(some)
        killed = time.perf_counter_ns()
        first.kill()
        await asyncio.gather(first.wait(), *reading)
        held = {row[0].int & 0xFFFF_FFFF_FFFF for row in await live.fetch(_HELD)}
        before = len(found)
        say(second)
        rest = asyncio.create_task(read(second, found, many, asyncio.Event()))
        await _settled(live)
        assert second.stdin is not None
        second.stdin.close()
        await rest
        await second.wait()
    finally:
        for worker in (first, second):
            await _end(worker)
    went_on: dict[int, int] = {}
    for at, talk, _ in found[before:]:
        if talk in held:
            went_on.setdefault(talk, at)
    rows = await live.fetch(_EXPLAINED)
    intents = {(row[0].int & 0xFFFF_FFFF_FFFF, row[1]): row[2] for row in rows}
    times = Counter((talk, seq) for _, talk, seq in found)
    unexplained = sum(max(n - intents.get(key, 1), 0) for key, n in times.items())
    took = [(at - killed) / 1e9 for at in went_on.values()]
    return Recovered(took, len(found), *faults(found), unexplained)


async def _soon(event: asyncio.Event) -> None:
    async with asyncio.timeout(PATIENCE):
        await event.wait()


async def _settled(live: Connection) -> None:
    """Wait until no lane is due: from outside there is no signal for it."""
    async with asyncio.timeout(PATIENCE):
        while await live.fetchval("select exists (select from lanes where due_at is not null)"):
            await asyncio.sleep(0.02)


async def _end(worker: Process) -> None:
    if worker.returncode is None:
        worker.kill()
        await worker.wait()
