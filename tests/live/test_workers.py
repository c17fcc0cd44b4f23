"""Several processes on one port behave as one, and outlive each other."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest

from greffier.server.auth import issue
from helpers.api import SECRET
from helpers.patience import PATIENCE

pytestmark = pytest.mark.slow


@contextlib.asynccontextmanager
async def served(database: str, tmp_path: Path) -> AsyncIterator[tuple[str, int]]:
    """A real ``greffier serve --workers 2``; gives its URL and its process id."""
    environment = os.environ | {
        "GREFFIER_DATABASE_URL": database,
        "GREFFIER_DATA_DIR": str(tmp_path),
        "GREFFIER_JWT_SECRET": SECRET,
        "GREFFIER_RATE_LIMIT": "off",
        "GREFFIER_LOG_LEVEL": "error",
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "greffier", "serve", "--workers", "2", "--port", "0",
        env=environment, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stderr is not None
    try:
        async with asyncio.timeout(PATIENCE):
            line = (await process.stderr.readline()).decode()
            found = re.search(r"http://\S+", line)
            assert found, line
        yield found[0], process.pid
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        async with asyncio.timeout(PATIENCE):
            await process.wait()


def children(pid: int) -> set[int]:
    """The worker processes of a parent."""
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    found = {int(one) for one in text.split()}
    return {one for one in found if b"spawn_main" in Path(f"/proc/{one}/cmdline").read_bytes()}


async def until(condition: object, what: str) -> None:
    """Wait until something holds that only the process table tells."""
    assert callable(condition)
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - the process table tells nobody
            await asyncio.sleep(0.05)
    assert what


async def test_workers_share_a_port_and_one_that_dies_is_replaced(
    database: str, tmp_path: Path
) -> None:
    """What one took another shows; ``kill -9`` of a worker is a moment's delay."""
    token = issue(SECRET.encode(), "ada", lifetime=600)
    headers = {"authorization": f"Bearer {token}"}
    async with served(database, tmp_path) as (url, pid):
        await until(lambda: len(children(pid)) == 2, "both are there")
        before = children(pid)
        made: list[str] = []
        for _ in range(20):
            # A connection of its own each time, so that both workers get some.
            async with httpx2.AsyncClient(base_url=url, headers=headers, timeout=PATIENCE) as http:
                answer = await http.post("/v1/conversations", json={})
                made.append(answer.json()["id"])
        os.kill(min(before), signal.SIGKILL)
        await until(lambda: len(children(pid) - {min(before)}) == 2, "it was replaced")
        async with httpx2.AsyncClient(base_url=url, headers=headers, timeout=PATIENCE) as http:
            seen = (await http.get("/v1/conversations?limit=100")).json()["data"]

    assert {one["id"] for one in seen} == set(made)


async def test_workers_end_with_their_parent(database: str, tmp_path: Path) -> None:
    """However the parent went, nobody is left listening."""
    async with served(database, tmp_path) as (_, pid):
        await until(lambda: len(children(pid)) == 2, "both are there")
        workers = children(pid)
        os.kill(pid, signal.SIGKILL)
        await until(lambda: not any(Path(f"/proc/{one}").exists() for one in workers), "all ended")
