"""Promise: what a benchmark counts of deliveries, and of what they cost, is counted as it says."""

from __future__ import annotations

import asyncio
import importlib
import time
from pathlib import Path
from types import ModuleType

import pytest

from helpers.postgres import connected

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def lab(monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let the benchmarks' own modules be found."""
    monkeypatch.syspath_prepend(str(ROOT / "bench"))
    return ROOT / "bench" / "lab"


def module(name: str) -> ModuleType:
    """One of them."""
    return importlib.import_module(f"lab.{name}")


@pytest.mark.usefixtures("lab")
def test_doubles_and_disorder_are_told_apart() -> None:
    """A message again is a double; one that comes after a later one of its talk is out of order."""
    faults = module("drain").faults

    assert faults([(10, 1, 1), (20, 1, 2), (15, 2, 1), (30, 1, 3)]) == (0, 0)
    assert faults([(10, 1, 1), (20, 1, 2), (30, 1, 1)]) == (1, 0)
    assert faults([(10, 1, 2), (20, 1, 1), (30, 1, 3)]) == (0, 1)
    # By when they were made, whoever told of them first.
    assert faults([(20, 1, 2), (10, 1, 1)]) == (0, 0)


@pytest.mark.usefixtures("lab")
async def test_what_is_slow_is_not_asked_less_often() -> None:
    """What is offered steadily begins while what came before it is still under way."""
    steady = module("steady")
    began: list[int] = []
    all_began = asyncio.Event()

    async def operation(number: int) -> float:
        began.append(number)
        if len(began) == 5:
            all_began.set()
        await all_began.wait()
        return time.perf_counter()

    went = await steady.steadily(1_000, 0.005, operation)

    assert began == [0, 1, 2, 3, 4]
    # Also the first waited for the last, which was to begin four thousandths later.
    assert went.p99 >= 4


@pytest.mark.usefixtures("lab")
async def test_the_servers_work_is_counted(postgres: str) -> None:
    """Processor and log grow with what a server does, also in processes that have ended since."""
    spent = module("spent")
    async with connected(postgres) as live:
        meter = await spent.Meter.of(live)
        before = await meter.read()
        async with connected(postgres) as other:
            await other.execute("create temporary table t as select generate_series(1, 200000) n")
            await other.execute("create table public.bench_spent (n integer)")
            await other.execute("insert into public.bench_spent select n from t")
        after = await meter.read() - before
        await live.execute("drop table public.bench_spent")

    assert after.cpu > 0
    assert after.wal > 200_000 * 4
