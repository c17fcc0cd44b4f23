"""A server that waits for work takes less than 90 MiB besides PostgreSQL."""

from __future__ import annotations

import tempfile
from pathlib import Path

from greffier.bench.results import Goal, Line, value
from lab.serving import memory, serve
from lab.world import World


async def measure(world: World) -> list[Line]:
    """Measure the server's process, with PostgreSQL embedded, after its first answer."""
    taken = []
    for _ in range(world.scale.effort.rounds):
        with tempfile.TemporaryDirectory(dir=world.folder) as folder:
            async with serve(Path(folder)) as served:
                taken.append(memory(served.pid))
    return [value("memory of serve, idle", taken, Goal("≤", 90, "MiB"))]
