"""Who missed ten thousand changes catches up for little more than reading those rows.

All of it: each change asked for from the rev before, as the API's ``next`` says, until there is no
more; as JSON ready to be sent, with everything the rows say.
"""

from __future__ import annotations

from statistics import median

from greffier.bench.places import place
from greffier.bench.results import Goal, Line, Pace, pairs, times
from greffier.bench.talks import fill
from greffier.bench.turns import one_by_one, take_turns
from greffier.read.changes import changes
from lab.world import World

_ROWS = "select * from messages where conversation_id = $1 and rev > $2 order by seq"
#: The same rows as the API shows them, in one answer: what writing JSON takes of it.
_SHOWN = (
    "select string_agg(message_json(m, 16384), ',' order by m.seq) "
    "from messages m where m.conversation_id = $1 and m.rev > $2"
)


async def measure(world: World) -> list[Line]:
    """Measure from the rev before the first message to the last."""
    async with place(world.server, talks=1) as here, here.connection() as live:
        talk, database = here.talks[0], here.greffier.database
        await fill(live, [talk], world.scale.missed)
        await live.execute("vacuum analyze")
        start = await live.fetchval("select min(rev) - 1 from messages")
        end = await live.fetchval("select rev from conversations where id = $1", talk)
        rows, shown = await live.prepare(_ROWS), await live.prepare(_SHOWN)
        answers = size = 0

        async def ours() -> None:
            nonlocal answers, size
            answers = size = 0
            rev = start
            while True:
                found = await changes(database, talk, None, rev)
                if found.reset:
                    raise RuntimeError("it cannot be continued from there")
                rev = found.rev
                answers, size = answers + 1, size + len(found.body())
                if not found.more:
                    break
            assert rev == end

        async def floor() -> None:
            found = await rows.fetch(talk, start)
            assert len(found) == world.scale.missed

        async def caught(seconds: float) -> Pace:
            return await one_by_one(ours, seconds)

        async def selected(seconds: float) -> Pace:
            return await one_by_one(floor, seconds)

        async def written(seconds: float) -> Pace:
            return await one_by_one(lambda: shown.fetchval(talk, start), seconds)

        sides = {"rows": selected, "json": written, "changes": caught}
        found = await take_turns(world.scale.effort, sides)
        json = median((one.p50 or 0) / (row.p50 or 1) for one, row in
                      pairs(found["json"], found["rows"]))  # fmt: skip
    return [
        times(
            f"catching up {world.scale.missed:,} changes", "SELECT of the same rows",
            found["changes"], found["rows"], Goal("≤", 2),
            f"{answers} answers, {size / 2**20:.2f} MiB of JSON",
            f"the rows written as JSON by PostgreSQL, in one answer: {json:.2f} x of the same",
        )
    ]  # fmt: skip
