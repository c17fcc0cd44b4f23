"""What somebody may count on when processes are killed, ours or PostgreSQL's."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import asyncpg
import msgspec
import pytest

from embedded.conftest import Hold
from greffier.embedded import account, answers, find, open_cluster, processes
from greffier.embedded.binaries import environment
from greffier.embedded.folder import Folder
from greffier.embedded.server import read_pidfile, read_record, write_record
from greffier.errors import EmbeddedError
from helpers.holders import alive, connected, gone, kill, say, until, words

pytestmark = pytest.mark.slow


async def test_two_processes_share_and_the_last_one_stops_it(data_dir: Path, hold: Hold) -> None:
    """Whoever comes second finds the server; the first to leave does not take it away."""
    first = await hold(data_dir)
    one = await first.heard()
    second = await hold(data_dir)
    assert await second.heard() == one
    await first.leave()
    assert await words(one["dsn"]) == ["ok"]
    await second.leave()
    assert gone(one["pid"])


async def test_many_processes_at_once_make_one_server(tmp_path: Path, hold: Hold) -> None:
    """Workers started together on a new folder do not race to make it."""
    holders = [await hold(tmp_path / "data") for _ in range(3)]
    pids = {(await holder.heard())["pid"] for holder in holders}
    assert len(pids) == 1
    await asyncio.gather(*(holder.leave() for holder in holders))
    assert gone(pids.pop())


async def test_a_killed_owner_does_not_keep_the_server_for_ever(data_dir: Path, hold: Hold) -> None:
    """The kernel forgets a dead holder, so the clean exit of the other stops the server."""
    starter = await hold(data_dir)
    server = await starter.heard()
    other = await hold(data_dir)
    await other.heard()
    await starter.killed()
    assert await words(server["dsn"]) == ["ok"]
    await other.leave()
    assert gone(server["pid"])


async def test_a_server_without_owners_is_adopted(data_dir: Path, hold: Hold) -> None:
    """After all owners were killed, the next one takes the server over, and stops it at its end."""
    owners = [await hold(data_dir), await hold(data_dir)]
    server = await owners[0].heard()
    await owners[1].heard()
    for owner in owners:
        await owner.killed()
    assert alive(server["pid"])
    async with open_cluster(data_dir) as cluster:
        assert cluster.pid == server["pid"]
        assert await words(cluster.dsn) == ["ok"]
    assert gone(server["pid"])


async def test_a_killed_server_comes_back_with_all_that_was_committed(data_dir: Path) -> None:
    """ensure_running finds out that it is dead, though its socket and its files are still there."""
    async with open_cluster(data_dir) as cluster:
        await say(cluster.dsn, "committed")
        before, dsn = cluster.pid, cluster.dsn
        await kill(before)
        await cluster.ensure_running()
        assert cluster.pid != before
        assert cluster.dsn == dsn
        assert await words(dsn) == ["ok", "committed"]
        await cluster.ensure_running()


async def test_a_zombie_is_not_taken_for_a_server(data_dir: Path, hold: Hold) -> None:
    """Dead, but not reaped by its parent (a stopped process, PID 1 of a container).

    It still has its process id, and PostgreSQL itself would refuse to start for that.
    """
    starter = await hold(data_dir)
    server = await starter.heard()
    async with open_cluster(data_dir) as cluster:
        await starter.stopped()
        await kill(server["pid"])
        assert processes.state(server["pid"]) == "Z", "no zombie: the test shows nothing"
        await cluster.ensure_running()
        assert cluster.pid != server["pid"]
        assert await words(cluster.dsn) == ["ok"]
        starter.send(signal.SIGCONT)
        starter.ask_to_ensure()
        assert (await starter.heard())["pid"] == cluster.pid
        await starter.leave()
        assert alive(cluster.pid)


async def test_of_several_that_restart_it_one_does(data_dir: Path, hold: Hold) -> None:
    """Two processes and this one call ensure_running at once and meet the same new server."""
    holders = [await hold(data_dir), await hold(data_dir)]
    before = {(await holder.heard())["pid"] for holder in holders}.pop()
    async with open_cluster(data_dir) as cluster:
        starts = (data_dir / "postgres.log").read_text().count("starting PostgreSQL")
        await kill(before)
        for holder in holders:
            holder.ask_to_ensure()
        await asyncio.gather(cluster.ensure_running(), cluster.ensure_running())
        assert {(await holder.heard())["pid"] for holder in holders} == {cluster.pid}
        log = (data_dir / "postgres.log").read_text()
        assert log.count("starting PostgreSQL") == starts + 1
        assert await words(cluster.dsn) == ["ok"]


async def test_a_busy_backend_does_not_outlive_its_server_for_long(data_dir: Path) -> None:
    """A backend in a long computation does not notice that the postmaster is dead.

    PostgreSQL does not start beside it, so ensure_running ends it.
    """
    async with open_cluster(data_dir) as cluster, connected(cluster.dsn) as connection:
        backend = connection.get_server_pid()
        long = asyncio.create_task(
            connection.execute("SELECT count(*) FROM generate_series(1, 4000000000)")
        )
        async with connected(cluster.dsn) as other:
            while not await other.fetchval(
                "SELECT state = 'active' FROM pg_stat_activity WHERE pid = $1", backend
            ):
                pass
        await kill(cluster.pid)
        assert alive(backend), "it ended by itself: the test shows nothing"
        await cluster.ensure_running()
        assert gone(backend)
        assert await words(cluster.dsn) == ["ok"]
        with pytest.raises((asyncpg.PostgresError, OSError)):
            await long


async def test_a_lost_socket_is_made_again(data_dir: Path) -> None:
    """A cleaner of temporary files may take the socket away from a living server."""
    async with open_cluster(data_dir) as cluster:
        (cluster.socket_dir / ".s.PGSQL.5432").unlink()
        await cluster.ensure_running()
        assert await words(cluster.dsn) == ["ok"]


async def test_an_interrupted_first_start_blocks_nothing(tmp_path: Path, hold: Hold) -> None:
    """Killed while the data were being made, by us or with initdb itself, the next start works."""
    folder = tmp_path / "data"
    first = await hold(folder)
    unfinished = folder / "pg.new"
    await until((unfinished / "PG_VERSION").exists)
    await first.killed()
    assert not (folder / "pg").exists()
    (unfinished / "half a file").write_text("…")
    async with open_cluster(folder) as cluster, connected(cluster.dsn) as connection:
        assert await connection.fetchval("SELECT 1") == 1
    assert not unfinished.exists()


async def test_a_start_whose_starter_was_killed_is_taken_over(data_dir: Path, hold: Hold) -> None:
    """At whatever moment the starter dies, the next one finds or makes a server that serves."""
    for turns in range(0, 60, 12):
        starter = await hold(data_dir)
        await until((data_dir / "postgres.log").exists)
        await asyncio.sleep(turns / 1000)
        await starter.killed()
        async with open_cluster(data_dir) as cluster:
            assert await words(cluster.dsn) == ["ok"]
        assert gone(cluster.pid)
        (data_dir / "postgres.log").unlink()


@pytest.mark.parametrize("content", ["stranger", "empty"])
async def test_a_pid_file_left_behind_does_not_block(data_dir: Path, content: str) -> None:
    """After a crash of the machine the number in it may be anybody's, or it may be cut short."""
    pidfile = data_dir / "pg" / "postmaster.pid"
    async with open_cluster(data_dir) as cluster:
        lines = pidfile.read_text().split("\n")
        await kill(cluster.pid)
    # The parent of pytest is as strange to PostgreSQL's data as any.
    text = "\n".join([str(os.getppid()), *lines[1:]]) if content == "stranger" else ""
    pidfile.write_text(text)
    async with open_cluster(data_dir) as cluster:
        assert await words(cluster.dsn) == ["ok"]


async def test_a_server_started_by_hand_is_refused_not_harmed(data_dir: Path) -> None:
    """Data that somebody else's PostgreSQL is using are left to it."""
    folder = Folder.at(data_dir)
    runner, binaries = account.choose(folder, find())
    output = folder.open_log()
    with account.handed_over(runner, folder.pg, folder.run) as handed:
        options = ["-D", handed.paths[0], "-k", handed.paths[1], "-c", "listen_addresses="]
        server = processes.Child(
            [*runner.prefix, str(binaries.program("postgres")), *options],
            environment=environment(),
            output=output,
            keep=handed.descriptors,
            identity=runner.identity,
        )
    os.close(output)
    try:
        await until(lambda: (pid := read_pidfile(folder.pg)) is not None and pid.status == "ready")
        with pytest.raises(EmbeddedError, match=f"did not start, process {server.pid}"):
            async with open_cluster(data_dir):
                pass
        assert alive(server.pid)
    finally:
        os.kill(server.pid, signal.SIGINT)
        assert await server.wait() == 0


async def test_a_silent_server_is_not_killed(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stopped server may be in somebody's debugger; the refusal says what is seen."""
    monkeypatch.setattr(answers, "PATIENCE", 0.1)
    async with open_cluster(data_dir) as cluster:
        os.kill(cluster.pid, signal.SIGSTOP)
        try:
            with pytest.raises(EmbeddedError, match="does not answer"):
                await cluster.ensure_running()
        finally:
            os.kill(cluster.pid, signal.SIGCONT)
        monkeypatch.undo()
        await cluster.ensure_running()
        assert await words(cluster.dsn) == ["ok"]


async def test_data_in_use_on_another_machine_are_refused(data_dir: Path) -> None:
    """On a disk that two machines share, the second one does not start PostgreSQL beside the first.

    The other machine is told by its record; its lock, here as on such a disk, is the kernel's.
    """
    async with open_cluster(data_dir) as cluster:
        lock = os.open(data_dir / "server.lock", os.O_RDWR)
        try:
            true = read_record(lock)
            assert true is not None
            gone = str(data_dir / "not here")
            write_record(lock, msgspec.structs.replace(true, place="there", socket_dir=gone))
            with pytest.raises(EmbeddedError, match="another machine"):
                async with open_cluster(data_dir):
                    pass
            assert alive(cluster.pid)
            write_record(lock, true)
        finally:
            os.close(lock)


async def test_a_record_cut_short_is_made_up_for(data_dir: Path) -> None:
    """Killed between starting the server and noting which it is, we are replaced all the same."""
    async with open_cluster(data_dir) as cluster:
        lock = os.open(data_dir / "server.lock", os.O_RDWR)
        record = read_record(lock)
        assert record is not None
        for left in (b"", msgspec.json.encode(record)[:-9]):
            os.ftruncate(lock, 0)
            os.pwrite(lock, left, 0)
            async with open_cluster(data_dir) as other:
                assert other.pid == cluster.pid
                assert await words(other.dsn) == ["ok"]
        os.close(lock)
    assert gone(cluster.pid)
