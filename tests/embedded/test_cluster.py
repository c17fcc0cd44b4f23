"""What somebody may count on who opens the private PostgreSQL, alone and undisturbed."""

from __future__ import annotations

import asyncio
import os
import shutil
import stat
import sys
from pathlib import Path

import pytest

from greffier.embedded import Cluster, locks, open_cluster
from greffier.embedded.folder import LONGEST_SOCKET_PATH
from greffier.errors import EmbeddedError, SettingsError
from helpers.holders import alive, connected, gone, say, words


def locks_open_in(pid: int) -> set[Path]:
    """Give the lock files that a process has open."""
    opened = (link.readlink() for link in Path(f"/proc/{pid}/fd").iterdir())
    return {path for path in opened if path.suffix == ".lock"}


async def test_a_new_folder_serves_and_is_stopped_with_its_only_holder(tmp_path: Path) -> None:
    """Nothing but a name is needed: database, user and encoding are there, and nothing stays."""
    async with open_cluster(tmp_path / "data") as cluster:
        async with connected(cluster.dsn) as connection:
            row = await connection.fetchrow(
                "SELECT current_database() || '/' || current_user AS who, datlocprovider = 'b'"
                " AS builtin, pg_encoding_to_char(encoding) AS encoding"
                " FROM pg_database WHERE datname = current_database()"
            )
            assert row is not None
            assert row["who"] == "greffier/greffier"
            assert row["encoding"] == "UTF8"
            assert row["builtin"] or int(cluster.version.split(".")[0]) < 17
        pid = cluster.pid
        assert alive(pid)
    assert gone(pid)
    assert not (tmp_path / "data" / "pg" / "postmaster.pid").exists()


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("fsync", "on"),
        ("full_page_writes", "on"),
        ("synchronous_commit", "on"),
        ("data_checksums", "on"),
        ("listen_addresses", ""),
        ("TimeZone", "UTC"),
    ],
)
async def test_nothing_acknowledged_is_in_memory_only(
    running: Cluster, setting: str, value: str
) -> None:
    """The server flushes every commit, mends torn pages, notices rot, and is on no network."""
    async with connected(running.dsn) as connection:
        assert await connection.fetchval("SELECT current_setting($1)", setting) == value


async def test_data_outlive_the_server(data_dir: Path) -> None:
    """What was committed is there at the next start, and the data are made only once."""
    async with open_cluster(data_dir) as first:
        await say(first.dsn, "again")
    async with open_cluster(data_dir) as second:
        assert second.pid != first.pid
        assert await words(second.dsn) == ["ok", "again"]


async def test_two_blocks_of_one_process_share_one_server(data_dir: Path) -> None:
    """A library within an application may open the same folder; the inner one stops nothing."""
    async with open_cluster(data_dir) as outer:
        async with open_cluster(data_dir) as inner:
            assert inner.pid == outer.pid
        assert await words(outer.dsn) == ["ok"]
    assert gone(outer.pid)


async def test_settings_of_the_caller_win_over_ours(data_dir: Path) -> None:
    """A caller may tune the server."""
    async with (
        open_cluster(data_dir, settings={"max_connections": "20"}) as cluster,
        connected(cluster.dsn) as connection,
    ):
        assert await connection.fetchval("SHOW max_connections") == "20"


async def test_settings_that_would_hide_the_server_are_refused(data_dir: Path) -> None:
    """The socket's place is the folder's to decide, since all holders must find it."""
    with pytest.raises(SettingsError, match="port"):
        async with open_cluster(data_dir, settings={"port": "1"}):
            pass


async def test_a_server_that_cannot_start_says_why(data_dir: Path) -> None:
    """The end of PostgreSQL's log is part of the message, and nothing stays claimed."""
    with pytest.raises(EmbeddedError, match=r"shared_buffers(.|\n)*lots"):
        async with open_cluster(data_dir, settings={"shared_buffers": "lots"}):
            pass
    async with open_cluster(data_dir) as cluster:
        assert await words(cluster.dsn) == ["ok"]


async def test_ctrl_c_at_the_terminal_does_not_reach_the_server(running: Cluster) -> None:
    """It has a session of its own, so we decide when it ends: after our last answer."""
    assert os.getsid(running.pid) == running.pid


async def test_the_server_has_none_of_our_claims(running: Cluster) -> None:
    """It holds the lock that says it lives, and not those that say who uses it."""
    assert locks_open_in(running.pid) == {running.data_dir / "server.lock"}


async def test_all_of_it_is_private(running: Cluster) -> None:
    """Nobody else can reach the data or the socket, on whose privacy the login relies."""
    root = running.data_dir
    for path in (root, root / "pg", running.socket_dir):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700, path
    for path in (running.socket_dir / ".s.PGSQL.5432", root / "postgres.log"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


async def test_modes_of_the_parents_are_left_alone(data_dir: Path, tmp_path: Path) -> None:
    """A private home stays private, as root too: PostgreSQL is never let in by opening it."""
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    shutil.move(data_dir, home / "data")
    before = [(path, path.stat().st_mode) for path in (home / "data").parents]
    async with open_cluster(home / "data") as cluster:
        assert await words(cluster.dsn) == ["ok"]
    assert [(path, path.stat().st_mode) for path in (home / "data").parents] == before


async def test_a_folder_with_things_in_it_keeps_its_mode(tmp_path: Path) -> None:
    """Who opened a folder to their group meant it; an empty one is made private."""
    for name, content, mode in (("mine", ["notes"], 0o750), ("empty", [], 0o700)):
        folder = tmp_path / name
        folder.mkdir()
        folder.chmod(0o750)
        for file in content:
            (folder / file).touch()
        with pytest.raises(SettingsError):
            async with open_cluster(folder, settings={"port": "1"}):
                pass
        assert stat.S_IMODE(folder.stat().st_mode) == mode


@pytest.mark.parametrize(
    "name",
    ["Données de l'été (n° 1)", 'a, "b" \\ c', "long-" * 30, "%41+&?#=:@"],
    ids=["accents", "list-signs", "long", "url-signs"],
)
async def test_any_name_of_the_folder_will_do(data_dir: Path, tmp_path: Path, name: str) -> None:
    """Spaces, accents, the signs of lists and URLs, and paths too long for a socket all work."""
    folder = tmp_path / name / "data"
    folder.parent.mkdir()
    shutil.move(data_dir, folder)
    async with open_cluster(folder) as cluster:
        socket = cluster.socket_dir / ".s.PGSQL.5432"
        assert len(os.fsencode(socket)) <= LONGEST_SOCKET_PATH
        assert stat.S_IMODE(cluster.socket_dir.stat().st_mode) == 0o700
        assert await words(cluster.dsn) == ["ok"]
    outside = cluster.socket_dir != folder / "run"
    assert not outside or not cluster.socket_dir.exists()


async def test_a_socket_directory_made_by_somebody_else_is_not_used(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Among the temporary files a stranger may have taken the name first, be it with a link."""
    folder = tmp_path / ("long-" * 30)
    shutil.move(data_dir, folder)
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    async with open_cluster(folder) as cluster:
        expected = cluster.socket_dir
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    expected.symlink_to(elsewhere)
    try:
        async with open_cluster(folder) as cluster:
            assert cluster.socket_dir != expected
            assert await words(cluster.dsn) == ["ok"]
        assert list(elsewhere.iterdir()) == []
    finally:
        expected.unlink()


async def test_another_major_version_is_refused_in_clear_words(data_dir: Path) -> None:
    """The message tells both versions and the way to take the data along; nothing is touched."""
    (data_dir / "pg" / "PG_VERSION").write_text("14\n")
    with pytest.raises(EmbeddedError) as refusal:
        async with open_cluster(data_dir):
            pass
    said = str(refusal.value)
    assert "made by PostgreSQL 14" in said
    for part in ("GREFFIER_PG_BIN", "greffier backup", "greffier restore", "new data folder"):
        assert part in said
    assert not (data_dir / "pg" / "postmaster.pid").exists()


async def test_a_cancelled_start_leaves_no_server(data_dir: Path) -> None:
    """Whenever it strikes, cancellation leaves nothing that runs and nothing that is locked."""
    for turns in (1, 3, 10, 40):

        async def begin() -> None:
            async with open_cluster(data_dir):
                await asyncio.Event().wait()

        task = asyncio.create_task(begin())
        for _ in range(turns):
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        lock = os.open(data_dir / "server.lock", os.O_RDWR | os.O_CREAT)
        try:
            assert locks.try_lock(lock)
        finally:
            os.close(lock)


async def test_a_cluster_that_was_left_says_so(data_dir: Path) -> None:
    """Nobody without a claim can start a server that nobody would stop."""
    async with open_cluster(data_dir) as cluster:
        pass
    with pytest.raises(EmbeddedError, match="open it again"):
        await cluster.ensure_running()


async def test_a_forked_child_holds_nothing(data_dir: Path) -> None:
    """A process forked without exec (multiprocessing) neither keeps the server nor stops it."""
    script = """
import asyncio, os, sys
from pathlib import Path
from greffier.embedded import open_cluster, processes

async def main():
    reader, writer = os.pipe()
    async with open_cluster(Path(sys.argv[1])) as cluster:
        child = os.fork()
        if child == 0:
            os.close(writer)
            os.read(reader, 1)  # until the parent has left
            os._exit(0)
        pid = cluster.pid
    assert processes.born(pid) is None, "the child kept the server"
    os.close(writer)
    os.waitpid(child, 0)

asyncio.run(main())
"""
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", script, data_dir)
    assert await process.wait() == 0
