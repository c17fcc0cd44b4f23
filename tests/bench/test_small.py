"""Promise: ``greffier bench`` measures in a database of its own and leaves nothing behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from greffier.bench import pgbench, places, small
from greffier.bench.pgbench import Pgbench
from helpers.postgres import connected


async def databases(url: str) -> set[str]:
    """Name the databases of a server."""
    async with connected(url) as connection:
        return {row[0] for row in await connection.fetch("select datname from pg_database")}


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the suite be over at once."""
    monkeypatch.setattr(small, "ROUNDS", 1)
    monkeypatch.setattr(small, "TALKS", 20)


@pytest.mark.usefixtures("tiny")
async def test_it_measures_on_the_operators_server(postgres: str, tmp_path: Path) -> None:
    """On a server of one's own the scratch database is dropped when the numbers are there."""
    before = await databases(postgres)

    report = await small.run(postgres, tmp_path, seconds=0.05, long=1_500)

    assert await databases(postgres) == before
    assert {line.floor for line in report.lines} >= {"page of 60", "at 1,000"}
    assert all(line.value > 0 for line in report.lines)


@pytest.mark.usefixtures("tiny")
async def test_it_does_without_pgbench(
    postgres: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where there is no pgbench the floors come over our own driver, and say so."""

    async def none(_dsn: str, _conversations: int) -> Pgbench | None:
        return None

    monkeypatch.setattr(places, "find_pgbench", none)

    report = await small.run(postgres, tmp_path, seconds=0.05, long=1_500)

    floors = {line.floor for line in report.lines}
    assert "our driver, 8 clients, bare INSERT" in floors
    assert "our driver, same function" in floors


async def test_a_pgbench_that_is_let_in_is_found(postgres: str) -> None:
    """Of several programs the first that this server lets in is used."""
    found = await pgbench.find_pgbench(postgres, 1)

    if found is not None:
        assert (await found.run("select 1;", 1, 0)).rate > 0


async def test_a_pgbench_that_is_refused_is_none(tmp_path: Path) -> None:
    """A server that lets no pgbench in is measured without."""
    assert await pgbench.find_pgbench(f"postgresql://nobody@/none?host={tmp_path}", 1) is None
