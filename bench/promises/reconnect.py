"""A thousand sockets that come back at once are soon all live again, with what they missed.

Each connects, is let in by its token, and joins with the rev it knew; meanwhile something was said.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from urllib.parse import urlsplit

from greffier.bench.results import Goal, Line, value
from greffier.bench.talks import WORDS
from greffier.store.connection import connect
from lab.crowd import crowd, processor
from lab.room import room
from lab.world import World

#: Messages that were said while they were away.
SAID = 5


async def measure(world: World) -> list[Line]:
    """Measure from the first connection to the last answer of a join."""
    people = world.scale.sockets
    took: list[float] = []
    ours: list[float] = []
    theirs: list[float] = []
    with tempfile.TemporaryDirectory(dir=world.folder) as folder:
        async with room(world, Path(folder), people) as here, crowd() as listeners:
            before = await _queries(here.dsn)
            known = (await listeners.connect(here.sockets, here.guests()))["known"]
            for _ in range(world.scale.effort.rounds):
                await listeners.close()
                for _ in range(SAID):
                    await here.greffier.messages.append(here.id, content=WORDS)
                cpu = processor(here.served.pid)
                guests = here.guests(epoch=known["epoch"], rev=known["rev"])
                back = await listeners.connect(here.sockets, guests, at_once=people)
                if back["recovered"] != people:
                    raise RuntimeError(f"{back['recovered']} of {people} recovered")
                known = back["known"]
                took.append(back["seconds"])
                ours.append(1000 * (processor(here.served.pid) - cpu) / people)
                theirs.append(1000 * back["cpu"] / people)
            await listeners.close()
            queries = await _queries(here.dsn) - before
    joins = people * (1 + world.scale.effort.rounds)
    notes = (
        f"processor of the server {min(ours):.2f} ms a socket, of the listeners {min(theirs):.2f}",
        f"about {queries / joins:.1f} queries a socket, all of the database's",
    )
    what = f"{people:,} sockets join again at once, {SAID} messages later"
    return [value(what, took, Goal("≤", 5, "s"), *notes)]


async def _queries(dsn: str) -> int:
    """Count the transactions of a database, each a query here: what its connections told so far.

    They tell once a second while they are busy, so that the last ones may be missing.
    """
    live = await connect(dsn)
    try:
        name = urlsplit(dsn).path[1:]
        found: int = await live.fetchval(
            "select xact_commit from pg_stat_database where datname = $1", name
        )
        return found
    finally:
        await live.close()
