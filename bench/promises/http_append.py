"""Over HTTP, with a token, an id and an access check, a message costs little more than its INSERT.

One server process, which shares two processors with the load and with PostgreSQL.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from greffier.bench import appends
from greffier.bench.places import place
from greffier.bench.results import Goal, Line, Pace, rates, value
from greffier.bench.talks import WORDS
from greffier.bench.turns import Side, take_turns
from lab.load import Load, Target
from lab.serving import serve, token
from lab.world import World

OWNERS = 100
#: Connections → how many times the floor the answers should come to.
CROWDS = {32: Goal("≥", 0.6), 128: Goal("≥", 0.75)}
SLOWEST = Goal("≤", 20, "ms")


async def measure(world: World) -> list[Line]:
    """Measure POST …/messages."""
    tokens = [token(f"bench-{number}") for number in range(OWNERS)]
    with tempfile.TemporaryDirectory(dir=world.folder) as folder:
        async with (
            place(world.server, talks=world.scale.talks, owners=OWNERS) as here,
            serve(Path(folder), database_url=here.dsn) as served,
        ):
            load = Load(
                [
                    Target(f"/v1/conversations/{talk}/messages", tokens[number % OWNERS])
                    for number, talk in enumerate(here.talks, start=1)
                ],
                WORDS,
            )

            def crowd(connections: int) -> Side:
                async def side(seconds: float) -> Pace:
                    return await load.run(served.url, connections, seconds)

                return side

            sides: dict[str, Side] = {"bare": lambda seconds: appends.bare(here, seconds)}
            sides |= {f"{connections}": crowd(connections) for connections in CROWDS}
            found = await take_turns(world.scale.effort, sides)
    lines: list[Line] = []
    for connections, goal in CROWDS.items():
        ours = found[f"{connections}"]
        what = f"HTTP append, {connections} connections"
        floor = appends.bare_floor(here)
        lines.append(rates(what, floor, ours, found["bare"], goal, load.by))
        lines.append(value(f"{what}: p99", [one.p99 or 0.0 for one in ours], SLOWEST))
    return lines
