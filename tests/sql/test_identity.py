"""Promises of the epoch: it names one history of the database, and nobody misses its end."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from uuid import uuid4

import pytest

from greffier.deliver import lanes
from greffier.embedded import open_cluster
from greffier.errors import SchemaError
from greffier.store import schema
from greffier.store.connection import Connection
from greffier.store.database import open_database
from helpers.lanes import Hand
from helpers.postgres import connected, undone, wait_for_lock

# A role belongs to the whole server, but goes with the transaction that made it.
BECOME_TENANT = """
    create role greffier_test_tenant;
    grant usage on schema greffier to greffier_test_tenant;
    grant select, insert, update on greffier.identity to greffier_test_tenant;
    revoke execute on function pg_control_system() from public;
    set local role greffier_test_tenant;
"""


async def recorded(connection: Connection) -> tuple[int, int]:
    """The pair on record: which cluster, which timeline."""
    row = await connection.fetchrow("select system_identifier, timeline from identity")
    assert row is not None
    return row[0], row[1]


async def test_the_epoch_is_made_once(database: str) -> None:
    """Every server of a database tells its clients the same epoch, today and tomorrow."""
    async with connected(database) as one, connected(database) as other:
        epoch = await schema.identity(one)

        assert len(epoch) == 12
        assert set(epoch) <= set("0123456789abcdef")
        assert await schema.identity(one) == epoch
        assert await schema.identity(other) == epoch
        assert await one.fetchval("select count(*) from identity") == 1


async def test_servers_that_start_together_agree_on_the_first_epoch(database: str) -> None:
    """Of two that find none, the second waits for the first and takes its epoch."""
    async with connected(database) as first, connected(database) as second:
        start = first.transaction()
        await start.start()
        epoch = await schema.identity(first)
        task = asyncio.create_task(schema.identity(second))
        await wait_for_lock(first, "insert into greffier.identity")
        await start.commit()

        assert await task == epoch


async def test_another_cluster_or_timeline_begins_a_new_epoch(database: str) -> None:
    """Restored elsewhere or promoted, the numbers may mean something else: the epoch changes."""
    async with connected(database) as connection:
        epochs = [await schema.identity(connection)]
        here = await recorded(connection)
        for change in ("system_identifier = system_identifier + 1", "timeline = timeline + 1"):
            await connection.execute(f"update identity set {change}, since = '2001-01-01'")
            epochs.append(await schema.identity(connection))

            assert await schema.identity(connection) == epochs[-1]
            assert await recorded(connection) == here
            assert await connection.fetchval("select since > '2001-01-02' from identity")

        assert len(set(epochs)) == 3


async def test_servers_that_notice_a_promotion_together_agree(database: str) -> None:
    """Of two that find another timeline, one begins the epoch and the other takes it."""
    async with connected(database) as first, connected(database) as second:
        old = await schema.identity(first)
        await first.execute("update identity set timeline = timeline + 1")
        notice = first.transaction()
        await notice.start()
        epoch = await schema.identity(first)
        task = asyncio.create_task(schema.identity(second))
        await wait_for_lock(first, "insert into greffier.identity")
        await notice.commit()

        assert await task == epoch != old


async def test_an_epoch_can_be_begun_by_hand(database: str) -> None:
    """A restore into the same cluster leaves no trace there, so who restores says it."""
    async with connected(database) as connection:
        before = await schema.identity(connection)
        await connection.execute("delete from identity")

        assert await schema.identity(connection) != before


async def test_where_the_provider_forbids_to_ask_the_epoch_stands(database: str) -> None:
    """Without the right to ask which cluster this is, the recorded epoch is good for ever."""
    async with connected(database) as connection, undone(connection):
        await connection.execute(BECOME_TENANT)
        epoch = await schema.identity(connection)

        assert await recorded(connection) == (0, 0)
        assert await schema.identity(connection) == epoch

        # The same tenant beside a role that may ask, and did.
        await connection.execute("update identity set system_identifier = 7, timeline = 7")

        assert await schema.identity(connection) == epoch
        assert await recorded(connection) == (7, 7)


async def test_who_may_not_ask_changes_nothing_that_another_wrote(database: str) -> None:
    """Of two that find none, one without the right to ask takes the other's epoch as it is."""
    async with connected(database) as first, connected(database) as tenant, undone(tenant):
        start = first.transaction()
        await start.start()
        epoch = await schema.identity(first)
        here = await recorded(first)
        await tenant.execute(BECOME_TENANT)
        task = asyncio.create_task(schema.identity(tenant))
        await wait_for_lock(first, "insert into greffier.identity")
        await start.commit()

        assert await task == epoch
        assert await recorded(tenant) == here


async def test_flushing_is_told(database: str) -> None:
    """A server says whether what it acknowledges is on disk; the tests run on one that does."""
    async with connected(database) as connection:
        assert await schema.fsync_on(connection)


def make_standby(folder: Path) -> None:
    """Let the cluster of a data folder start as a standby the next time."""
    mark = folder / "pg" / "standby.signal"
    mark.touch()
    owner = mark.with_name("PG_VERSION").stat()
    os.chown(mark, owner.st_uid, owner.st_gid)


async def test_a_promotion_begins_a_new_epoch_at_once(tmp_path: Path) -> None:
    """A standby tells its primary's epoch and lets itself be used; promoted, it begins its own.

    Not minutes later, when the first checkpoint of the new timeline is through.
    """
    async with open_cluster(tmp_path) as cluster:
        await schema.migrate(cluster.dsn)
        async with connected(cluster.dsn) as connection:
            before = await schema.identity(connection)
            # Stopped without a checkpoint, it has much to write after the promotion.
            make_standby(tmp_path)
            gone = asyncio.Event()
            connection.add_termination_listener(lambda _: gone.set())
            os.kill(cluster.pid, signal.SIGQUIT)
            await gone.wait()
        await cluster.ensure_running()
        async with connected(cluster.dsn) as connection:
            assert await schema.identity(connection) == before
            assert await schema.migrate(cluster.dsn) == []

            await connection.execute("select pg_promote()")
            after = await schema.identity(connection)

            assert after != before
            assert await schema.identity(connection) == after


async def test_who_works_on_takes_up_the_new_history_as_it_connects_again(tmp_path: Path) -> None:
    """Behind the same address a standby was promoted: what was claimed before is nobody's.

    Without a restart, and before the first statement there: a process that went on with its claims
    would send under fences that this history may give to others.
    """
    async with open_cluster(tmp_path) as cluster:
        await schema.migrate(cluster.dsn)
        async with open_database(cluster.dsn) as database:
            before = database.epoch
            async with connected(cluster.dsn) as connection:
                lane = await Hand(connection).lane(1)
                (claim,) = await lanes.claim(database, "out", "worker", 1, 600, 3, uuid4())
                make_standby(tmp_path)
                gone = asyncio.Event()
                connection.add_termination_listener(lambda _: gone.set())
                os.kill(cluster.pid, signal.SIGQUIT)
                await gone.wait()
            await cluster.ensure_running()
            async with connected(cluster.dsn) as connection:
                await connection.execute("select pg_promote()")

                assert await lanes.heartbeat(database, [claim], 600) == set()
                assert database.epoch != before
                row = await Hand(connection).look(lane)
                assert (row["fence"], row["token"]) == (claim.fence + 1_000_000, None)

                # Another connection, in the same history: nothing is begun again.
                after = database.epoch
                await database.read("lane", lane.id)
                assert database.epoch == after
                assert (await Hand(connection).look(lane))["fence"] == row["fence"]


async def test_a_standby_is_not_migrated(tmp_path: Path) -> None:
    """On a standby without the schema the way is told: migrate the primary."""
    async with open_cluster(tmp_path):
        pass
    make_standby(tmp_path)
    async with open_cluster(tmp_path) as cluster:
        with pytest.raises(SchemaError, match="migrate its primary"):
            await schema.migrate(cluster.dsn)
