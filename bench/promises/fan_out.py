"""What is said in a room of a thousand reaches all of them, nearly as cheaply as bare WebSockets.

Messages are posted over HTTP, to Greffier and to two floors set as it is, and one delivery is one
frame that reached one socket, however many messages it carries: folding messages together earns
nothing here.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from greffier.bench.results import Goal, Line, Pace, rates, value
from greffier.bench.talks import WORDS
from greffier.bench.turns import take_turns
from lab import mark
from lab.crowd import Crowd, Speaker, crowd, processor
from lab.room import SOCKETS, Room, room
from lab.serving import process, token
from lab.world import World

#: Messages a second of a lively room.
LIVELY = 20
#: Posts under way at the same time when as many are sent as go: one, so that nothing is folded.
POSTERS = 1
_BROADCAST = Path(__file__).resolve().parents[1] / "lab" / "broadcast.py"


@dataclass(eq=False)
class Side:
    """One server with its crowd."""

    crowd: Crowd
    pid: int
    people: int
    speakers: list[Speaker]
    #: Makes the body of a post, marked with the moment.
    body: Callable[[], str]
    #: Of the last rounds: frames that carried messages, and the messages in them.
    frames: int = 0
    messages: int = 0

    async def lively(self, seconds: float) -> Pace:
        """Post at the pace of a lively room."""
        return await self._measured(self._paced(seconds))

    async def burst(self, seconds: float) -> Pace:
        """Post as fast as posts are answered."""
        return await self._measured(self._crammed(seconds))

    async def _measured(self, posts: Any) -> Pace:
        cpu = processor(self.pid)
        began = time.perf_counter_ns()
        posted = await posts
        found = await self.crowd.take(posted * self.people)
        cpu = processor(self.pid) - cpu
        self.frames += found["deliveries"]
        self.messages += found["messages"]
        if found["messages"] < posted * self.people:
            raise RuntimeError(f"{found['messages']} of {posted * self.people} arrived")
        return Pace(
            rate=found["deliveries"] / ((found["last"] - began) / 1e9),
            p50=found["p50"],
            p99=found["p99"],
            cpu=1e6 * cpu / found["deliveries"],
        )

    async def _paced(self, seconds: float) -> int:
        loop = asyncio.get_running_loop()
        began = loop.time()
        count = max(2, round(seconds * LIVELY))
        for number in range(count):
            await asyncio.sleep(began + number / LIVELY - loop.time())
            await self.speakers[0].post(self.body())
        return count

    async def _crammed(self, seconds: float) -> int:
        until = time.perf_counter() + seconds
        posted = 0

        async def post(speaker: Speaker) -> None:
            nonlocal posted
            while True:
                await speaker.post(self.body())
                posted += 1
                if time.perf_counter() >= until:
                    break

        await asyncio.gather(*(post(speaker) for speaker in self.speakers))
        return posted


async def measure(world: World) -> list[Line]:
    """Measure a lively room, and as much as goes."""
    people, effort = world.scale.sockets, world.scale.effort
    async with contextlib.AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=world.folder)))
        here = await stack.enter_async_context(room(world, folder, people))
        ours = await stack.enter_async_context(_greffier(here))
        # The same bytes: one frame of ours, with another moment in it.
        await ours.speakers[0].post(ours.body())
        frame = (await ours.crowd.take(people))["sample"]
        sides = {"ours": ours}
        for kind in ("plain", "socketio"):
            sides[kind] = await stack.enter_async_context(_floor(kind, people, frame, folder))
        lively = await take_turns(effort, {name: one.lively for name, one in sides.items()})
        for side in sides.values():
            side.frames = side.messages = 0
        burst = await take_turns(effort, {name: one.burst for name, one in sides.items()})
    what = f"fan-out to {people:,} sockets"
    folded = ours.messages / max(ours.frames, 1)
    return [
        rates(
            f"{what}, deliveries", "bare WebSocket broadcast", burst["ours"], burst["plain"],
            Goal("≥", 0.7), f"frames of {len(frame)} bytes, with {folded:.2f} messages each",
            _processors(burst),
        ),
        rates(
            f"{what}, deliveries", "python-socketio's emit", burst["ours"], burst["socketio"],
            Goal("≥", 3),
        ),
        value(
            f"{what}, {LIVELY} messages/s: p99 from post to arrival",
            [one.p99 or 0.0 for one in lively["ours"]], Goal("≤", 30, "ms"),
            *(f"{_NAMES[name]}: p50 / p99 {_of(paces, 'p50'):.1f} / {_of(paces, 'p99'):.1f} ms"
              for name, paces in lively.items()),
            _processors(lively),
        ),
    ]  # fmt: skip


_NAMES = {"ours": "Greffier", "plain": "bare WebSockets", "socketio": "python-socketio"}


def _of(paces: list[Pace], name: str) -> float:
    return float(median(getattr(one, name) for one in paces))


def _processors(found: dict[str, list[Pace]]) -> str:
    each = ", ".join(f"{_NAMES[name]} {_of(paces, 'cpu'):.1f}" for name, paces in found.items())
    return f"the server's processor, µs a delivery: {each}"


@contextlib.asynccontextmanager
async def _greffier(here: Room) -> AsyncIterator[Side]:
    owner = token(here.people[0])
    speakers = [Speaker(here.served.url, here.messages, owner) for _ in range(POSTERS)]
    async with crowd() as listeners:
        await listeners.connect(here.sockets, here.guests())
        yield Side(
            listeners, here.served.pid, len(here.people), speakers,
            lambda: json.dumps({"content": f"{mark.now()} {WORDS}"}),
        )  # fmt: skip
        for speaker in speakers:
            speaker.close()


@contextlib.asynccontextmanager
async def _floor(kind: str, people: int, frame: str, folder: Path) -> AsyncIterator[Side]:
    def body() -> str:
        return mark.ANY.sub(mark.now(), frame)

    running = process([sys.executable, str(_BROADCAST), kind], {}, folder / f"{kind}.log")
    served = await asyncio.to_thread(running.__enter__)
    try:
        async with crowd() as listeners:
            who: dict[str, Any] = {} if kind == "plain" else {"hello": "40"}
            path = "/listen" if kind == "plain" else SOCKETS
            await listeners.connect(served.url + path, [who] * people)
            speakers = [Speaker(served.url, "/say") for _ in range(POSTERS)]
            yield Side(listeners, served.pid, people, speakers, body)
            for speaker in speakers:
                speaker.close()
    finally:
        await asyncio.to_thread(running.__exit__, None, None, None)
