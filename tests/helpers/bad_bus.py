"""A bus between feeds of one test process that loses, doubles, delays and reorders wake-ups."""

from __future__ import annotations

import asyncio
import random

from greffier.publish.bus import Heard, Wake


class BadHub:
    """Carries between the buses made from it: 30 % are lost, 10 % doubled, all come late."""

    def __init__(self, seed: int, *, lost: float = 0.3, doubled: float = 0.1) -> None:
        self._random = random.Random(seed)
        self._lost = lost
        self._doubled = doubled
        self._heard: list[tuple[BadBus, Heard]] = []

    def bus(self) -> BadBus:
        """One process's end."""
        return BadBus(self)

    def carry(self, sender: BadBus, wake: Wake) -> None:
        """Carry a wake-up to everybody else, badly."""
        loop = asyncio.get_running_loop()
        for bus, heard in self._heard:
            if bus is sender or self._random.random() < self._lost:
                continue
            for _ in range(2 if self._random.random() < self._doubled else 1):
                loop.call_later(self._random.random() * 0.03, heard, wake)


class BadBus:
    """One end of a ``BadHub``."""

    def __init__(self, hub: BadHub) -> None:
        self._hub = hub

    def say(self, wake: Wake) -> None:
        """Tell the others, perhaps."""
        self._hub.carry(self, wake)

    async def run(self, heard: Heard) -> None:
        """Hear until cancelled."""
        entry = (self, heard)
        self._hub._heard.append(entry)
        try:
            await asyncio.Event().wait()
        finally:
            self._hub._heard.remove(entry)
