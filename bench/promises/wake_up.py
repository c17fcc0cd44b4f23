"""What one process commits is seen by who follows another, soon after PostgreSQL could tell.

From the start of a write to its arrival: ours is a POST to one server, with its access check, and
an event with the change at another; by hand it is an INSERT, its COMMIT and a NOTIFY, which says
that there is something and not what.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

from greffier.bench.places import Place, place
from greffier.bench.results import Goal, Line, Pace, times, value
from greffier.bench.talks import WORDS
from greffier.bench.turns import one_by_one, take_turns
from greffier.store.connection import Connection
from lab.crowd import Speaker
from lab.serving import Served, serve, token
from lab.world import World

_CHANGE = re.compile(rb'"seq" ?: ?\d+')
_INSERT = "insert into greffier_bench_wake (content) values ($1)"


async def measure(world: World) -> list[Line]:
    """Measure one message after the other."""
    owner = token("bench-0")
    with contextlib.ExitStack() as folders:
        here_folder, there_folder = (
            Path(folders.enter_context(tempfile.TemporaryDirectory(dir=world.folder)))
            for _ in range(2)
        )
        async with (
            place(world.server, talks=1) as where,
            serve(here_folder, database_url=where.dsn) as here,
            serve(there_folder, database_url=where.dsn) as there,
            _follow(there, f"/v1/conversations/{where.talks[0]}/events", owner) as events,
            _by_hand(where) as by_hand,
        ):
            speaker = Speaker(here.url, f"/v1/conversations/{where.talks[0]}/messages", owner)
            answers: list[float] = []

            async def across() -> None:
                began = time.perf_counter()
                await speaker.post(json.dumps({"content": WORDS}))
                answers.append(time.perf_counter() - began)
                await events.get()

            async def ours(seconds: float) -> Pace:
                return await one_by_one(across, seconds)

            async def hand(seconds: float) -> Pace:
                return await one_by_one(by_hand, seconds)

            found = await take_turns(world.scale.effort, {"hand": hand, "ours": ours})
            speaker.close()
    what = "write in one process to a follower of another"
    middle = 1000 * sorted(answers)[len(answers) // 2]
    return [
        times(what, "COMMIT + NOTIFY to a listener, by hand", found["ours"], found["hand"],
              Goal("≤", 2), f"the writer has its answer after {middle:.2f} ms, half of the time"),
        value(f"{what}: p99", [one.p99 or 0.0 for one in found["ours"]], Goal("≤", 50, "ms")),
    ]  # fmt: skip


@contextlib.asynccontextmanager
async def _follow(served: Served, path: str, user: str) -> AsyncIterator[asyncio.Queue[bytes]]:
    """Follow a conversation as server-sent events; each that brings a message is put there."""
    place_ = urlsplit(served.url)
    reader, writer = await asyncio.open_connection(place_.hostname, place_.port)
    writer.write(
        f"GET {path} HTTP/1.1\r\nHost: {place_.netloc}\r\nAuthorization: Bearer {user}\r\n\r\n"
        .encode()
    )  # fmt: skip
    # The first event says where it stands: from then on it follows.
    await reader.readuntil(b"event: change")
    await reader.readuntil(b"\n\n")
    events: asyncio.Queue[bytes] = asyncio.Queue()

    async def read() -> None:
        while True:
            event = await reader.readuntil(b"\n\n")
            if _CHANGE.search(event):
                events.put_nowait(event)

    task = asyncio.create_task(read())
    try:
        yield events
    finally:
        task.cancel()
        writer.close()


@contextlib.asynccontextmanager
async def _by_hand(where: Place) -> AsyncIterator[_Hand]:
    async with where.connection() as writes, where.connection() as listens:
        await writes.execute("create table greffier_bench_wake (content text)")
        hand = _Hand(writes)
        await listens.add_listener("greffier_bench_wake", hand.heard)
        yield hand


class _Hand:
    """An INSERT, and the NOTIFY after its COMMIT, heard by another connection."""

    def __init__(self, writes: Connection) -> None:
        self._writes = writes
        self._heard = asyncio.Event()

    def heard(self, *_: object) -> None:
        """Hear the notification."""
        self._heard.set()

    async def __call__(self) -> None:
        self._heard.clear()
        await self._writes.execute(_INSERT, WORDS)
        await self._writes.execute("notify greffier_bench_wake, 'there is something'")
        await self._heard.wait()
