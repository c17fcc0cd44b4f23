"""So many operations a second, whatever becomes of the others."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from greffier.bench.results import Pace, pace

#: Begins the n-th operation; gives when it was over, by ``perf_counter``: uvloop's own clock knows
#: milliseconds only.
Operation = Callable[[int], Awaitable[float]]


async def steadily(rate: float, seconds: float, operation: Operation) -> Pace:
    """Begin operations at their moments, also while earlier ones are under way.

    Each counts from the moment it was to begin at, so that what is slow is not asked less often
    and what waited for this process is not forgotten.

    Args:
        rate: Operations a second.
        seconds: For how long they are begun; the last are waited for.
        operation: Of any kind.
    """
    began = time.perf_counter()

    async def one(number: int, moment: float) -> float:
        # A timer may be early by a part of a millisecond.
        start = min(moment, time.perf_counter())
        return await operation(number) - start

    under_way: list[asyncio.Task[float]] = []
    for number in range(max(round(rate * seconds), 1)):
        moment = began + number / rate
        early = moment - time.perf_counter()
        if early > 0:
            await asyncio.sleep(early)
        under_way.append(asyncio.create_task(one(number, moment)))
    times = await asyncio.gather(*under_way)
    return pace(time.perf_counter() - began, times)
