"""Choosing what a model is sent costs little more than reading it, of however long a record."""

from __future__ import annotations

from greffier.bench import reads
from greffier.bench.places import place
from greffier.bench.results import Line
from greffier.bench.talks import conversation, fill
from lab.world import World


async def measure(world: World) -> list[Line]:
    """Measure the library's context."""
    talk, messages = conversation(1), world.scale.context
    async with place(world.server, talks=1) as here:
        async with here.connection() as live:
            await fill(live, [talk], messages)
            await live.execute("vacuum analyze")
        return await reads.contexts(here, world.scale.effort, (talk, messages))
