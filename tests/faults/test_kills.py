"""What was acknowledged survives kill -9, of ours and of PostgreSQL's processes (P1, P2, P3)."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import UUID

import asyncpg
import pytest
import pytest_asyncio

import greffier
from faults.writers import id_of, place_of
from greffier.embedded import Cluster, open_cluster
from greffier.embedded.folder import Folder
from greffier.embedded.server import read_pidfile
from greffier.read.audit import audit
from greffier.store.database import Database
from helpers.holders import kill

pytestmark = pytest.mark.slow

WRITERS = Path(__file__).with_name("writers.py")
MANY = 10_000
KILLS = 10


class Record:
    """A record in a data folder, and what was acknowledged to have been said in it."""

    def __init__(self, cluster: Cluster, talks: list[UUID]) -> None:
        self.cluster = cluster
        self.talks = talks
        #: number → seq
        self.acknowledged: dict[int, int] = {}
        self.process: asyncio.subprocess.Process | None = None

    async def start(self, many: int = MANY) -> None:
        """Start a process that says so many of the numbers that are not acknowledged."""
        self.process = process = await asyncio.create_subprocess_exec(
            sys.executable,
            WRITERS,
            self.cluster.data_dir,
            *map(str, self.talks),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            # It may be ahead of us by what fits into here and into the pipe: some 4600 numbers.
            limit=4096,
        )
        assert process.stdin is not None
        due = [number for number in range(MANY) if number not in self.acknowledged]
        process.stdin.write(json.dumps(due[:many]).encode())
        process.stdin.close()

    async def hear(self, many: int) -> None:
        """Listen to so many acknowledgements."""
        assert self.process is not None
        assert self.process.stdout is not None
        for _ in range(many):
            line = await self.process.stdout.readline()
            assert line.endswith(b"\n"), "the writers have ended before"
            self.note(line)

    async def hear_out(self) -> int:
        """Listen to the end, which may be in the middle of a word, and give the exit code."""
        assert self.process is not None
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            if line.endswith(b"\n"):
                self.note(line)
        return await self.process.wait()

    def note(self, line: bytes) -> None:
        """Keep what was acknowledged."""
        number, seq = map(int, line.split())
        # Who was told twice was told the same.
        assert self.acknowledged.setdefault(number, seq) == seq

    async def ask(self, query: str) -> list[asyncpg.Record]:
        """Ask the server as soon as it answers: nobody tells us when it is back."""
        while True:
            connection = None
            try:
                connection = await asyncpg.connect(self.cluster.dsn)
                return await connection.fetch(query)
            except (OSError, asyncpg.PostgresError):
                assert self.process is not None
                assert self.process.returncode is None, "nobody is left to revive it"
                await asyncio.sleep(0.01)
            finally:
                if connection is not None:
                    connection.terminate()

    async def kill_server(self) -> None:
        """Kill the postmaster; its children end by themselves."""
        await self.ask("select 1")
        found = read_pidfile(Folder.at(self.cluster.data_dir).pg)
        assert found is not None
        await kill(found.pid)

    async def kill_session(self) -> None:
        """Kill the session that was last at work; the server ends all, and starts them again."""
        killed = False
        while not killed:
            for (pid,) in await self.ask(
                "select pid from pg_stat_activity where datname = current_database() "
                "and pid <> pg_backend_pid() order by state_change desc limit 1"
            ):
                with contextlib.suppress(ProcessLookupError):
                    await kill(pid)
                    killed = True

    async def check(self) -> None:
        """See that everything is there, once, and everything acknowledged as it was said."""
        assert len(self.acknowledged) == MANY
        rows = await self.ask("select conversation_id, seq, id, content from greffier.messages")
        assert sorted(int(row["content"]) for row in rows) == list(range(MANY))
        for row in rows:
            number = int(row["content"])
            assert row["conversation_id"] == place_of(number, self.talks)
            assert row["id"] == id_of(number)
            assert row["seq"] == self.acknowledged[number]
        report = await audit(Database(self.cluster.dsn))
        assert report.clean, report.findings
        assert report.messages == MANY


@pytest_asyncio.fixture
async def record(tmp_path: Path) -> AsyncIterator[Record]:
    """A new record of seven conversations."""
    folder = tmp_path / "data"
    async with open_cluster(folder) as cluster:
        async with greffier.open(data_dir=folder) as g:
            talks = [(await g.conversations.create(owner="ada")).id for _ in range(7)]
        found = Record(cluster, talks)
        yield found
        if found.process is not None and found.process.returncode is None:
            found.process.kill()
            await found.hear_out()


async def test_what_a_killed_process_was_told_is_there(record: Record) -> None:
    """A server of ours that dies while it writes has lost nothing it has acknowledged.

    And what it may have stored without a word is found by whoever sends it again, not doubled.
    """
    for _ in range(KILLS):
        await record.start(MANY // KILLS)
        await record.hear(random.randint(1, MANY // KILLS // 2))
        assert record.process is not None
        record.process.kill()
        # What it had written before that was acknowledged too.
        await record.hear_out()
    await record.start()

    assert await record.hear_out() == 0
    await record.check()


async def test_what_a_killed_postgresql_has_committed_is_there(record: Record) -> None:
    """Ten times the whole server, and between them one of its sessions: the load goes on by itself.

    Nobody has to start anything: whoever finds the server dead revives it.
    """
    await record.start()
    for turn in range(KILLS):
        await record.hear(random.randint(1, 400))
        if turn % 2:
            await record.kill_session()
            await record.hear(200)
        await record.kill_server()

    assert await record.hear_out() == 0
    await record.check()
