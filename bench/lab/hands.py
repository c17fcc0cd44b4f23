"""A worker process of ours or of a peer, whose deliveries do nothing but say that they happened.

    python hands.py WHO DSN

Its first record says that it is ready; it begins when a line comes, and ends when its input does.
Each delivery is written at once, so that whoever counts them knows when all are there; the last
record says how much processor it took.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import struct
import sys
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import asyncpg
import structlog
import uvloop

from greffier.deliver.lanes import Claim, LaneKind, release
from greffier.deliver.worker import Held, Lost, Worker
from greffier.store.database import Database, open_database

#: A delivery: conversation, seq, and nanoseconds by the machine's own clock.
RECORD = struct.Struct("<QQQ")
#: The conversation of the first and the last record, whose nanoseconds are those of the processor.
NOBODY = (1 << 64) - 1
#: Lanes, or jobs, under way at the same time in one process, and connections for them.
AT_ONCE = 50
CONNECTIONS = 4

_MESSAGES = (
    "select seq, content from messages where conversation_id = $1 and seq >= $2 and seq <= $3 "
    "order by seq limit 100"
)
_INTEND = "select intend_v1($1, $2, $3, $4, '5 s')"
# The end of one and the beginning of the next in one commit: between them nothing happens.
_NEXT = """
select done, case when done then intend_v1($1, $2, $3, $5, '5 s') end as intended
from (select done_v1($1, $2, $3, $4, 'accepted', null, null, '30 s') as done offset 0) d
"""
_DONE = "select done_v1($1, $2, $3, $4, 'accepted', null, null, null)"


def deliver(conversation: int, seq: int) -> None:
    """Deliver to nobody."""
    os.write(1, RECORD.pack(conversation, seq, time.perf_counter_ns()))


class NoOp:
    """Delivers what a conversation's lane has, one message after the other (``worker.Kind``)."""

    name: LaneKind = "out"
    concurrency = AT_ONCE
    lease = 30.0
    max_tries: int | None = 3

    def __init__(self, database: Database) -> None:
        self._call = database.verb
        self._database = database

    async def work(self, held: Held) -> None:
        """Deliver up to the tail; what came behind it meanwhile makes the lane due again."""
        claim = held.claim
        key = (claim.conversation_id, claim.lane_id, claim.token)
        seq = claim.head_seq
        while seq <= claim.tail_seq:
            # The second of two statements: its snapshot is newer than the claim.
            rows = await self._call(
                _MESSAGES, claim.conversation_id, seq, claim.tail_seq, again=True
            )
            seqs = [row["seq"] for row in rows]
            if not seqs:
                await release(self._database, claim)
                return
            _hold((await self._call(_INTEND, *key, seqs[0], again=True))[0][0] == "go")
            for seq, after in itertools.pairwise(seqs):
                deliver(_number(claim), seq)
                ((done, intended),) = await self._call(_NEXT, *key, seq, after, again=True)
                _hold(done and intended == "go")
            seq = seqs[-1]
            deliver(_number(claim), seq)
            if seq < claim.tail_seq:
                raise RuntimeError("there are more messages than a bench's lane has")
            _hold((await self._call(_DONE, *key, seq, again=True))[0][0])
            seq += 1


def _hold(held: bool) -> None:
    if not held:
        raise Lost


def _number(claim: Claim) -> int:
    return claim.conversation_id.int & 0xFFFF_FFFF_FFFF


#: What a peer's worker does, and who ends it.
Work = tuple[Callable[[], Any], Callable[[], None]]


@asynccontextmanager
async def greffier(dsn: str) -> AsyncGenerator[Work, None]:
    """Our worker, with a kind whose channel is nobody's."""
    async with open_database(dsn) as database:
        worker = Worker(database, [NoOp(database)], log=structlog.get_logger())
        yield worker.run, worker.stop


@asynccontextmanager
async def procrastinate(dsn: str) -> AsyncGenerator[Work, None]:
    """Procrastinate's worker; a conversation is a ``lock``."""
    from lab.peers import procrastinate_app  # noqa: PLC0415 - others need not load it

    app = procrastinate_app(dsn, deliver)
    async with app.open_async():
        task: list[asyncio.Task[None]] = []

        async def run() -> None:
            task.append(
                asyncio.create_task(
                    app.run_worker_async(
                        concurrency=AT_ONCE, install_signal_handlers=False,
                        fetch_job_polling_interval=0.1,
                    )
                )
            )  # fmt: skip
            await asyncio.wait(task)

        def stop() -> None:
            task[0].cancel()

        yield run, stop


@asynccontextmanager
async def pgqueuer(dsn: str) -> AsyncGenerator[Work, None]:
    """PgQueuer's worker, which knows no keys."""
    from pgqueuer.models import Job  # noqa: PLC0415 - others need not load it
    from pgqueuer.qm import QueueManager  # noqa: PLC0415
    from pgqueuer.queries import Queries  # noqa: PLC0415

    async with asyncpg.create_pool(dsn, min_size=CONNECTIONS, max_size=CONNECTIONS) as pool:
        manager = QueueManager(Queries.from_asyncpg_pool(pool))

        @manager.entrypoint("deliver")
        async def delivered(job: Job) -> None:
            deliver(*json.loads(job.payload or b""))

        async def run() -> None:
            await manager.run(dequeue_timeout=timedelta(seconds=0.1), batch_size=10)

        yield run, manager.shutdown.set


WHO = {"greffier": greffier, "procrastinate": procrastinate, "pgqueuer": pgqueuer}


async def main(who: str, dsn: str) -> None:
    """Work until the input ends."""
    async with WHO[who](dsn) as (run, stop):
        os.write(1, RECORD.pack(NOBODY, 0, 0))
        await asyncio.to_thread(sys.stdin.readline)
        cpu = time.process_time_ns()
        running = asyncio.create_task(run())
        await asyncio.to_thread(sys.stdin.readline)
        stop()
        await running
        os.write(1, RECORD.pack(NOBODY, 0, time.process_time_ns() - cpu))


if __name__ == "__main__":
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    uvloop.run(main(*sys.argv[1:]))
