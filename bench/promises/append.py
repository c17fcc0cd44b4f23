"""Messages of many writers are stored more than twice as fast as one INSERT a commit each.

Also when all of them write in one conversation, where a lock, a MAX and an INSERT reach a tenth of
it; and a lone writer waits little longer than for the SQL function alone.
"""

from __future__ import annotations

from greffier.bench import appends
from greffier.bench.places import place
from greffier.bench.results import Line
from lab.world import World


async def measure(world: World) -> list[Line]:
    """Measure the library's appends."""
    async with place(world.server, talks=world.scale.talks, owners=100) as here:
        return await appends.measure(here, world.scale.effort)
