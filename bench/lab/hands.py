"""A worker process of ours or of a peer, whose deliveries do nothing but say that they happened.

    python hands.py WHO DSN

Its first record says that it is ready; it begins when a line comes, and ends when its input does.
Each delivery is written at once, so that whoever counts them knows when all are there; the last
record says how much processor it took.
"""

from __future__ import annotations

import asyncio
import json
import os
import struct
import sys
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import timedelta
from functools import partial
from typing import Any, ClassVar

import asyncpg
import structlog
import uvloop

from greffier.deliver.channels.protocol import Channel, OnUncertain, Outgoing, Result, Target
from greffier.deliver.out import OutLanes
from greffier.deliver.worker import Worker
from greffier.errors import Problem
from greffier.store.database import open_database

#: A delivery: conversation, seq, and nanoseconds by the machine's own clock.
RECORD = struct.Struct("<QQQ")
#: The conversation of the first and the last record, whose nanoseconds are those of the processor.
NOBODY = (1 << 64) - 1
#: The channel of ours that leads nowhere.
CHANNEL = "nobody"
#: Seconds of the lease of a worker that is to be killed, and which its deliveries take it after
#: they were made: in these nobody knows of them but the far side.
SHORT, HESITATING = 1.0, 0.005
#: Lanes, or jobs, under way at the same time in one process, and connections for them.
AT_ONCE = 50
CONNECTIONS = 4


def deliver(conversation: int, seq: int) -> None:
    """Deliver to nobody."""
    os.write(1, RECORD.pack(conversation, seq, time.perf_counter_ns()))


class Nobody(Channel):
    """A channel that leads nowhere: all else is the product's."""

    name: ClassVar[str] = CHANNEL
    default_on_uncertain: ClassVar[OnUncertain] = "resend"
    idempotent: ClassVar[bool] = True

    def __init__(self, hesitating: float = 0.0) -> None:
        """Take so many seconds between a delivery and saying that it was made."""
        self._hesitating = hesitating

    def check_target(self, target: Target) -> tuple[Problem, ...]:
        """Find nothing wrong."""
        del target
        return ()

    async def send(
        self,
        target: Target,
        outgoing: Outgoing,
        *,
        timeout: float,
    ) -> Result:
        """Deliver it, at once."""
        del target, timeout
        deliver(outgoing.conversation_id.int & 0xFFFF_FFFF_FFFF, outgoing.seq)
        if self._hesitating:
            await asyncio.sleep(self._hesitating)
        return Result("accepted", "")

    async def close(self) -> None:
        """Close nothing."""


#: What a peer's worker does, and who ends it.
Work = tuple[Callable[[], Any], Callable[[], None]]


@asynccontextmanager
async def greffier(
    dsn: str, lease: float = 600.0, hesitating: float = 0.0
) -> AsyncGenerator[Work, None]:
    """Our worker, with a channel that leads nowhere."""
    async with open_database(dsn) as database:
        log = structlog.get_logger()
        channels = {CHANNEL: Nobody(hesitating)}
        out = OutLanes(database, channels, log=log, lease=lease, concurrency=AT_ONCE)
        worker = Worker(database, [out], log=log)
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


WHO: dict[str, Callable[[str], AbstractAsyncContextManager[Work]]] = {
    "greffier": greffier,
    "mortal": partial(greffier, lease=SHORT, hesitating=HESITATING),
    "procrastinate": procrastinate,
    "pgqueuer": pgqueuer,
}


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
