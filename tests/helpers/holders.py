"""Real processes that hold an embedded cluster, and what a test asks and does to its server."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import select
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import asyncpg

from greffier.embedded import processes


class Holder:
    """A process of ours that uses a data folder."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.pid = process.pid

    @property
    def _stdin(self) -> asyncio.StreamWriter:
        assert self._process.stdin is not None
        return self._process.stdin

    async def heard(self) -> dict[str, Any]:
        """Give the next thing it says."""
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        assert line, "the holder ended without a word"
        said: dict[str, Any] = json.loads(line)
        return said

    def ask_to_ensure(self) -> None:
        """Have it call ensure_running; it says so when it has come back."""
        self._stdin.write(b"ensure\n")

    async def leave(self) -> None:
        """Have it leave the cluster and end."""
        self._stdin.close()
        assert await self._process.wait() == 0

    async def killed(self, signum: signal.Signals = signal.SIGKILL) -> None:
        """Kill it and wait for its end."""
        self.send(signum)
        await self._process.wait()

    def send(self, signum: signal.Signals) -> None:
        """Signal it."""
        self._process.send_signal(signum)

    async def stopped(self) -> None:
        """Stop it, as Ctrl-Z does, and wait until it stands still."""
        self.send(signal.SIGSTOP)
        # A stop reaches each thread by itself; one of them would still reap a dead server.
        threads = Path(f"/proc/{self.pid}/task")
        await until(lambda: all(processes.state(int(t.name)) == "T" for t in threads.iterdir()))

    async def discard(self) -> None:
        """End it if it is still there, and let go of its pipes."""
        if self._process.returncode is None:
            await self.killed()
        self._stdin.close()


@contextlib.asynccontextmanager
async def connected(dsn: str) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    """Connect as anybody would, with the URL alone."""
    connection = await asyncpg.connect(dsn)
    try:
        yield connection
    finally:
        await connection.close()


async def words(dsn: str) -> list[str]:
    """Read the table of ``made``."""
    async with connected(dsn) as connection:
        return [row["words"] for row in await connection.fetch("SELECT words FROM said")]


async def say(dsn: str, text: str) -> None:
    """Commit one more row to the table of ``made``."""
    async with connected(dsn) as connection:
        await connection.execute("INSERT INTO said VALUES ($1)", text)


async def until(happened: Callable[[], bool]) -> None:
    """Come back soon after something has happened in the file system, which tells nobody."""
    while not happened():  # noqa: ASYNC110
        await asyncio.sleep(0.001)


def alive(pid: int) -> bool:
    """Say whether a process lives; a zombie does not."""
    return processes.born(pid) is not None


def gone(pid: int) -> bool:
    """Say whether a process is dead, soon: the kernel lets go of its locks a moment before."""
    try:
        watch = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([watch], [], [], 10)[0])
    finally:
        os.close(watch)


async def kill(pid: int) -> None:
    """Kill a process as the kernel does when memory runs out, and wait until it is dead."""
    watch = os.pidfd_open(pid)
    try:
        os.kill(pid, signal.SIGKILL)
        await asyncio.to_thread(select.select, [watch], [], [])
    finally:
        os.close(watch)
