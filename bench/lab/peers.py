"""Procrastinate and PgQueuer as their documents say: the same messages, in the same PostgreSQL.

A conversation is a ``lock`` to Procrastinate; PgQueuer has no keys.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import timedelta
from typing import Any
from uuid import uuid4

import asyncpg
import procrastinate
from pgqueuer.models import Job
from pgqueuer.queries import EntrypointExecutionParameter, Queries
from pgqueuer.types import QueueEntrypoint
from procrastinate.exceptions import ConnectorException
from procrastinate.jobs import Status

#: A conversation, and a number in it.
Message = tuple[int, int]
#: What PgQueuer's workers do.
DELIVER = QueueEntrypoint("deliver")
#: Connections that enqueue.
WRITERS = 4


def procrastinate_app(
    dsn: str, deliver: Callable[[int, int], None] = lambda *_: None
) -> procrastinate.App:
    """Make its application, with a task that delivers."""
    app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=dsn))

    @app.task(name="deliver")
    async def delivered(conversation: int, seq: int) -> None:
        deliver(conversation, seq)

    return app


async def install(dsn: str) -> None:
    """Install both in an empty database."""
    app = procrastinate_app(dsn)
    async with app.open_async():
        await app.schema_manager.apply_schema_async()
    async with asyncpg.create_pool(dsn, min_size=1, max_size=1) as pool:
        await Queries.from_asyncpg_pool(pool).install()


async def enqueue_procrastinate(dsn: str, messages: Sequence[Message]) -> None:
    """Defer jobs, one a commit."""
    app = procrastinate_app(dsn)
    async with app.open_async():

        async def writer(mine: Sequence[Message]) -> None:
            for conversation, seq in mine:
                task = app.configure_task("deliver", lock=f"conversation-{conversation}")
                await task.defer_async(conversation=conversation, seq=seq)

        await asyncio.gather(*(writer(mine) for mine in _dealt(messages)))


async def enqueue_pgqueuer(dsn: str, messages: Sequence[Message]) -> None:
    """Enqueue jobs, one a commit."""
    async with asyncpg.create_pool(dsn, min_size=WRITERS, max_size=WRITERS) as pool:
        queries = Queries.from_asyncpg_pool(pool)

        async def writer(mine: Sequence[Message]) -> None:
            for message in mine:
                await queries.enqueue("deliver", json.dumps(message).encode())

        await asyncio.gather(*(writer(mine) for mine in _dealt(messages)))


def _dealt(messages: Sequence[Message]) -> list[list[Message]]:
    """Deal messages out so that one writer has all of a conversation, as its lock would."""
    return [[one for one in messages if one[0] % WRITERS == hand] for hand in range(WRITERS)]


@contextlib.asynccontextmanager
async def blocked_procrastinate(
    dsn: str, locks: int, behind: int
) -> AsyncIterator[Callable[[], Any]]:
    """Keep so many locks busy with jobs behind them; gives a fetch, which finds nothing."""
    app = procrastinate_app(dsn)
    async with app.open_async():
        if not await app.check_connection_async():
            await app.schema_manager.apply_schema_async()
        run, manager = app.connector.execute_query_async, app.job_manager
        worker = await manager.register_worker()
        await run(
            "insert into procrastinate_jobs (queue_name, task_name, lock, args)"
            " select 'default', 'deliver', 'conversation-' || mod(n, %(locks)s), '{}'"
            " from generate_series(1, %(many)s) n",
            locks=locks,
            many=locks + behind,
        )
        await run(
            "update procrastinate_jobs set status = 'doing', worker_id = %(worker)s"
            " where id in (select id from procrastinate_jobs where status = 'todo'"
            " order by id limit %(locks)s)",
            locks=locks,
            worker=worker,
        )
        await run("analyze procrastinate_jobs")
        yield lambda: manager.fetch_job(None, worker)


async def zombie_procrastinate(dsn: str) -> tuple[int, int, int]:
    """Let a worker that was thought dead say what came of a job that another has by now.

    Returns:
        Writes it tried, those that were accepted, and jobs of one lock under way at the same time.
    """
    app = procrastinate_app(dsn)
    async with app.open_async():
        manager = app.job_manager
        first, second = await manager.register_worker(), await manager.register_worker()
        accepted = together = 0
        for way in ("succeeded", "retry"):
            for seq in (1, 2):
                task = app.configure_task("deliver", lock=f"zombie-{way}")
                await task.defer_async(conversation=1, seq=seq)
            job = await manager.fetch_job(None, first)
            assert job is not None
            # As its documents' periodic task for stalled jobs does.
            await manager.retry_job(job)
            again = await manager.fetch_job(None, second)
            assert again is not None
            assert again.id == job.id
            with contextlib.suppress(ConnectorException):
                if way == "succeeded":
                    await manager.finish_job(job, Status.SUCCEEDED, delete_job=False)
                else:
                    await manager.retry_job(job)
                accepted += 1
            # The second is still at work on it.
            other = await manager.fetch_job(None, first)
            together += other is not None
            for left in (again, other):
                if left is not None:
                    with contextlib.suppress(ConnectorException):
                        await manager.finish_job(left, Status.SUCCEEDED, delete_job=False)
            await app.connector.execute_query_async("delete from procrastinate_jobs")
    return 2, accepted, together


async def zombie_pgqueuer(dsn: str) -> tuple[int, int]:
    """The same with PgQueuer: its success, its retry and its heartbeat.

    Returns:
        Writes it tried, and those that were accepted.
    """
    async with asyncpg.create_pool(dsn, min_size=1, max_size=1) as pool:
        queries = Queries.from_asyncpg_pool(pool)
        first, second = uuid4(), uuid4()
        accepted = 0
        table = queries.qbq.settings.queue_table
        look = f"select q::text from {table} q where id = $1"

        async def pick(who: Any) -> Job:
            (job,) = await queries.dequeue(
                1, {DELIVER: EntrypointExecutionParameter(0)}, who, None, timedelta(seconds=30)
            )
            return job

        for way in ("successful", "retry", "heartbeat"):
            await queries.enqueue("deliver", b"[1, 1]")
            job = await pick(first)
            await pool.execute(f"update {table} set heartbeat = now() - interval '1 hour'")
            await pick(second)
            before = await pool.fetchval(look, job.id)
            if way == "successful":
                await queries.log_jobs([(job, "successful", None)])
            elif way == "retry":
                await queries.retry_job(job, timedelta(0), None)
            else:
                await queries.update_heartbeat([job.id])
            accepted += await pool.fetchval(look, job.id) != before
            await queries.clear_queue()
    return 3, accepted
