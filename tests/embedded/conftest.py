"""A data folder made once and copied per test, and real processes that hold one."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path

import pytest
import pytest_asyncio

from greffier.embedded import Cluster, open_cluster, processes
from helpers.holders import Holder, connected

HOLDER = Path(__file__).with_name("holder.py")

Hold = Callable[..., Awaitable[Holder]]


@pytest_asyncio.fixture
async def hold() -> AsyncIterator[Hold]:
    """Start holders; what is left of them and of their servers at the end is ended."""
    holders: list[Holder] = []
    folders: set[Path] = set()

    async def start(
        data_dir: Path,
        *,
        user: int | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> Holder:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            HOLDER,
            data_dir,
            *([] if user is None else [str(user)]),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, **(environment or {})},
            cwd="/",
        )
        holder = Holder(process)
        holders.append(holder)
        folders.add(data_dir)
        return holder

    yield start
    for holder in holders:
        await holder.discard()
    for folder in folders:
        for pid, born in processes.inside(folder.resolve() / "pg"):
            processes.send(pid, born, signal.SIGKILL)


@pytest_asyncio.fixture(scope="session")
async def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with a table of one row, made once; its server is stopped."""
    root = tmp_path_factory.mktemp("made") / "data"
    async with open_cluster(root) as cluster, connected(cluster.dsn) as connection:
        await connection.execute("CREATE TABLE said (words text); INSERT INTO said VALUES ('ok')")
    return root


@pytest.fixture
def data_dir(made: Path, tmp_path: Path) -> Path:
    """A data folder of the test's own, with the row of ``made`` in it."""
    return Path(shutil.copytree(made, tmp_path / "data"))


@pytest_asyncio.fixture(scope="session")
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Cluster]:
    """A running cluster for tests that only look."""
    async with open_cluster(tmp_path_factory.mktemp("running") / "data") as cluster:
        yield cluster
