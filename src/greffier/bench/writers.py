"""Writers: many callers of the library who append one message after the other."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from uuid import UUID

from greffier.bench.results import Pace, pace
from greffier.bench.talks import WORDS
from greffier.library import Greffier


async def append_for(
    greffier: Greffier, talks: Sequence[UUID], writers: int, seconds: float
) -> Pace:
    """Let writers append for a while, each to a conversation drawn anew for each message.

    Args:
        greffier: The record.
        talks: The conversations to draw from; one alone is a hot one.
        writers: How many wait for an answer at the same time.
        seconds: How long.
    """
    append = greffier.messages.append
    draw = random.Random(writers).random  # noqa: S311 - the same conversations in each run
    count = len(talks)
    times: list[float] = []
    until = time.perf_counter() + seconds

    async def writer() -> None:
        # At least one each: on a machine that starved us for the whole round there is still a pace.
        now = time.perf_counter()
        while True:
            await append(talks[int(draw() * count)], content=WORDS)
            done = time.perf_counter()
            times.append(done - now)
            now = done
            if now >= until:
                return

    cpu = time.process_time()
    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(writers):
            group.create_task(writer())
    return pace(time.perf_counter() - began, times, time.process_time() - cpu)
