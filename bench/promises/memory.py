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
    people = world.scale.sockets
    with tempfile.TemporaryDirectory(dir=world.folder) as folder:
        async with room(world, Path(folder), people) as here, crowd() as listeners:
            before = memory(here.served.pid)
            await listeners.connect(here.sockets, here.guests())
            full = memory(here.served.pid)
    each = f"{1024 * (full - before) / people:.0f} KiB a socket, each another user in one room"
    return [
        value("memory of serve, idle", taken, Goal("≤", 90, "MiB")),
        value(f"memory of serve, {people:,} sockets", [full], Goal("≤", 150, "MiB"), each),
    ]
