"""A server that waits for work takes less than 90 MiB, with a thousand sockets less than 150 MiB.

PostgreSQL, which has a process of its own for each connection, is not counted.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from greffier.bench.results import Goal, Line, value
from lab.crowd import crowd
from lab.room import room
from lab.serving import memory, serve
from lab.world import World


async def measure(world: World) -> list[Line]:
    """Measure the server's process after its first answer, and when all have joined."""
    taken = []
    for _ in range(world.scale.effort.rounds):
        with tempfile.TemporaryDirectory(dir=world.folder) as folder:
            async with serve(Path(folder)) as served:
                taken.append(memory(served.pid))
    goal = Goal("≤", 150, "MiB")
    sockets = world.scale.sockets
    few, crowded = await _joined(world, 2), await _joined(world, sockets)
    note = f"each join is answered with all {sockets:,} names"
    return [
        value("memory of serve, idle", taken, Goal("≤", 90, "MiB")),
        value(f"memory of serve, {sockets:,} sockets of two people", [few], goal),
        value(f"memory of serve, {sockets:,} sockets of as many people", [crowded], goal, note),
    ]


async def _joined(world: World, people: int) -> float:
    """Measure when all sockets have joined a room of so many people."""
    with tempfile.TemporaryDirectory(dir=world.folder) as folder:
        async with room(world, Path(folder), people) as here, crowd() as listeners:
            who = (here.guests() * world.scale.sockets)[: world.scale.sockets]
            await listeners.connect(here.sockets, who)
            return memory(here.served.pid)
