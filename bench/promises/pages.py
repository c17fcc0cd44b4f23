"""Opening a conversation costs the same with a thousand messages or five million.

At its end or anywhere in the middle, also after most of it was rewound; and over HTTP a page costs
not much more than sending its bytes.
"""

from __future__ import annotations

import http.client
import json
import sys
import tempfile
from pathlib import Path
from urllib.parse import urlsplit
from uuid import UUID

from greffier.bench import reads
from greffier.bench.places import Place, place
from greffier.bench.results import Goal, Line, Pace, rates, times, value
from greffier.bench.talks import WORDS, conversation, fill
from greffier.bench.turns import Side, take_turns
from greffier.store.queries import queries
from lab import floor, serving
from lab.load import Load, Target
from lab.world import World

SHORT = 1_000
#: Conversations read over HTTP, and how many messages each has.
SERVED = 500
EACH = 30


async def measure(world: World) -> list[Line]:
    """Measure pages in the library, then over HTTP."""
    return [*await _depth(world), *await _served(world)]


async def _depth(world: World) -> list[Line]:
    messages = world.scale.long
    long, short = conversation(1), conversation(2)
    effort = world.scale.effort
    async with place(world.server, talks=2) as here:
        async with here.connection() as live:
            await fill(live, [long], messages)
            await fill(live, [short], SHORT)
            await live.execute("vacuum analyze")
        lines = await reads.pages(here, effort, (long, messages), (short, SHORT))
        lines.append(await _buffers(here, long, f"page of {reads.PAGE} at {messages:,} messages"))
        for left in (messages * 4 // 5, messages // 50):
            what = f"the same after rewinding {messages - left:,} of {messages:,}"
            await here.greffier.messages.rewind(long, after_seq=left)
            for _ in range(5):
                # So that the page lies on both sides of what was cut out.
                await here.greffier.messages.append(long, content=WORDS)
            found = await take_turns(
                effort,
                {
                    "short": reads.reader(here, short, reads.latest()),
                    "long": reads.reader(here, long, reads.latest()),
                },
            )
            lines.append(
                times(what, f"at {SHORT:,}", found["long"], found["short"], Goal("≤", 1.2))
            )
            lines.append(await _buffers(here, long, what))
    return lines


async def _buffers(here: Place, talk: UUID, what: str) -> Line:
    """Count the pages of the database that a page of messages touches: no clock, no noise."""
    async with here.connection() as live:
        await live.execute(f"prepare page as {queries()['page']}")
        call = f"execute page('{talk}', null, null, {reads.PAGE}, 0, false, 16384, 1048576)"
        # Once before: the first call of a connection also reads what PostgreSQL knows of tables.
        await live.execute(call)
        raw = await live.fetchval(f"explain (analyze, buffers, format json) {call}")
    plan = json.loads(raw)[0]["Plan"]
    touched = plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]
    return value(f"{what}: buffers", [touched], Goal("≤", 10, "buffers"))


async def _served(world: World) -> list[Line]:
    with tempfile.TemporaryDirectory(dir=world.folder) as name:
        folder = Path(name)
        async with place(world.server, talks=SERVED, owners=SERVED) as here:
            async with here.connection() as live:
                await fill(live, list(here.talks), EACH)
                await live.execute("vacuum analyze")
            load = Load(
                [
                    Target(f"/v1/conversations/{talk}/messages", serving.token(f"bench-{owner}"))
                    for owner, talk in zip([*range(1, SERVED), 0], here.talks, strict=True)
                ]
            )
            async with serving.serve(folder, database_url=here.dsn) as ours:
                (folder / "answer").write_bytes(_answer(ours.url, load.targets[0]))
                return await _against_floor(world, folder, ours.url, load)


async def _against_floor(world: World, folder: Path, url: str, load: Load) -> list[Line]:
    program = [sys.executable, str(Path(floor.__file__)), str(folder / "answer")]
    with serving.process(program, {}, folder / "floor.log") as bare:

        def side(where: str) -> Side:
            async def run(seconds: float) -> Pace:
                return await load.run(where, 32, seconds)

            return run

        found = await take_turns(world.scale.effort, {"bare": side(bare.url), "ours": side(url)})
    spread = [(one.p99 or 0.0) / (one.p50 or 1.0) for one in found["ours"]]
    what = f"HTTP page of {reads.PAGE}, 32 connections"
    return [
        rates(what, "the same bytes by Starlette and uvicorn", found["ours"], found["bare"],
              Goal("≥", 0.4), load.by),
        value(f"{what}: p99 against p50", spread, Goal("≤", 2)),
    ]  # fmt: skip


def _answer(url: str, target: Target) -> bytes:
    """Give the server's answer as it came: header lines and body."""
    place = urlsplit(url)
    connection = http.client.HTTPConnection(place.hostname or "", place.port)
    connection.request("GET", target.path, headers={"Authorization": f"Bearer {target.token}"})
    answer = connection.getresponse()
    body = answer.read()
    assert answer.status == 200, body
    # The date is uvicorn's, and it sends its own.
    lines = [f"{name}: {text}" for name, text in answer.getheaders() if name.lower() != "date"]
    connection.close()
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body
