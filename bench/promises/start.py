"""A server whose data are there answers within a second and a half, its own PostgreSQL included."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from greffier.bench.results import Goal, Line, value
from greffier.embedded import open_cluster
from lab.serving import serve
from lab.world import World


async def measure(world: World) -> list[Line]:
    """Measure from the start of the process to its first answer."""
    took: list[float] = []
    database: list[float] = []
    with tempfile.TemporaryDirectory(dir=world.folder) as name:
        folder = Path(name)
        async with serve(folder) as first:
            made = first.took
        for _ in range(world.scale.effort.rounds):
            began = time.perf_counter()
            async with open_cluster(folder / "data"):
                database.append(time.perf_counter() - began)
            async with serve(folder) as served:
                took.append(served.took)
    notes = (
        f"PostgreSQL alone: {min(database):.2f} s",
        f"the first start, which makes the data: {made:.2f} s",
    )
    return [value("start of serve on data that are there", took, Goal("≤", 1.5, "s"), *notes)]
