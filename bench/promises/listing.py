"""A user's list shows its latest twenty in a moment, whether they have twenty or ten thousand."""

from __future__ import annotations

import json

from greffier.bench.places import Place, place
from greffier.bench.results import Goal, Line, Pace, times, value
from greffier.bench.talks import conversation, fill, make_conversations
from greffier.bench.turns import one_by_one, take_turns
from greffier.read.conversations import Filter, listing
from greffier.store.queries import queries
from lab.world import World

FEW = 20


async def measure(world: World) -> list[Line]:
    """Measure the library's list of conversations, as it is served: JSON, not decoded."""
    many, others = world.scale.many, world.scale.lists
    async with place(world.server, talks=1) as here:
        async with here.connection() as live:
            await make_conversations(live, 2, many, owners=1, name="many")
            await make_conversations(live, 2 + many, FEW, owners=1, name="few")
            rest = others - many - FEW - 1
            await make_conversations(
                live, 2 + many + FEW, rest, owners=max(1, rest // 1_000), name="other"
            )
            said_in = [conversation(n) for n in range(2, 2 + many + FEW)]
            await fill(live, said_in, 6)
            await live.execute("vacuum analyze")
        database = here.greffier.database

        async def side(user: str, seconds: float) -> Pace:
            return await one_by_one(lambda: listing(database, user, Filter()), seconds)

        found = await take_turns(
            world.scale.effort,
            {
                "few": lambda seconds: side("few-0", seconds),
                "many": lambda seconds: side("many-0", seconds),
            },
        )
        took = [await _server_ms(here, "many-0") for _ in range(20)]
    what = f"list of 20 of {many:,} conversations, {others:,} in all"
    return [
        times(what, f"the list of a user with {FEW}", found["many"], found["few"], Goal("≤", 5)),
        value(f"{what}: time in PostgreSQL", took, Goal("≤", 15, "ms")),
    ]


async def _server_ms(here: Place, user: str) -> float:
    async with here.connection() as live:
        await live.execute(f"prepare list as {queries()['list_conversations']}")
        call = (
            f"execute list('{user}', 'e', false, null, null, "
            "'9999-12-31', 'ffffffff-ffff-ffff-ffff-ffffffffffff', 21)"
        )
        await live.execute(call)
        raw = await live.fetchval(f"explain (analyze, format json) {call}")
    took: float = json.loads(raw)[0]["Execution Time"]
    return took
