"""The small suite: half a minute on the operator's own database settings."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import msgspec

from greffier.bench import appends, reads
from greffier.bench.machine import Machine, Noise, describe, listen
from greffier.bench.places import nearest, place, server
from greffier.bench.results import Line
from greffier.bench.talks import conversation, fill, make_conversations
from greffier.bench.turns import Effort

ROUNDS = 3
#: Conversations to append to, and the lengths of those that are read.
TALKS = 2_000
LONG = 100_000
SHORT = 1_000


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured, on what, and how quiet it was before and after."""

    machine: Machine
    before: Noise
    after: Noise
    lines: list[Line]


async def run(
    url: str | None,
    data_dir: Path,
    *,
    seconds: float = 1.0,
    long: int = LONG,
    say: Callable[[str], None] = lambda _: None,
) -> Report:
    """Measure in a scratch database that is dropped afterwards; nobody's record is touched.

    Args:
        url: The operator's own server; None for the embedded one.
        data_dir: Where the embedded one keeps its data; the scratch data lie beside it.
        seconds: Of each side in each of three rounds.
        long: Messages of the long conversation.
        say: Told what is being done.
    """
    async with server(url, data_dir) as dsn, place(dsn, talks=TALKS) as here:
        folder = Path(tempfile.gettempdir()) if url is not None else nearest(data_dir)
        before = listen(folder)
        async with here.connection() as live:
            found = await describe(live)
            say("Making a long conversation to read")
            long_talk, short_talk = conversation(TALKS + 1), conversation(TALKS + 2)
            await make_conversations(live, TALKS + 1, 2, owners=1, name="reader")
            await fill(live, [long_talk], long)
            await fill(live, [short_talk], SHORT)
            await live.execute("vacuum analyze")
        say("Appending")
        lines = await appends.measure(here, Effort(ROUNDS, seconds))
        say("Reading")
        effort = Effort(ROUNDS, seconds / 4)
        lines += await reads.pages(here, effort, (long_talk, long), (short_talk, SHORT))
        lines += await reads.contexts(here, effort, (long_talk, long))
        after = listen(folder)
    return Report(machine=found, before=before, after=after, lines=lines)
