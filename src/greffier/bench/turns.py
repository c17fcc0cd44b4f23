"""Taking turns: A B A B …, so that whatever else the machine does befalls all sides alike."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from greffier.bench.results import Pace, pace

#: Does its work for so many seconds and says how it went.
Side = Callable[[float], Awaitable[Pace]]


@dataclass(frozen=True, slots=True)
class Effort:
    """How long to measure: rounds, and the seconds of each side in each."""

    rounds: int
    seconds: float


async def take_turns(effort: Effort, sides: Mapping[str, Side]) -> dict[str, list[Pace]]:
    """Let each side go once a round; a shorter round before them warms all up and is not counted.

    Args:
        effort: How many rounds, and how long.
        sides: By name.
    """
    for side in sides.values():
        await side(effort.seconds / 4)
    found: dict[str, list[Pace]] = {name: [] for name in sides}
    for _ in range(effort.rounds):
        for name, side in sides.items():
            found[name].append(await side(effort.seconds))
    return found


async def one_by_one(operation: Callable[[], Awaitable[object]], seconds: float) -> Pace:
    """Do one operation after the other for a while, once at least."""
    times: list[float] = []
    cpu = time.process_time()
    began = now = time.perf_counter()
    until = began + seconds
    while True:
        await operation()
        done = time.perf_counter()
        times.append(done - now)
        now = done
        if now >= until:
            break
    return pace(now - began, times, time.process_time() - cpu)
