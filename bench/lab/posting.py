"""Posting to a sink: the product's channel, and the client below it alone."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from uuid import UUID, uuid4

import httpcore2

from greffier.bench.results import Pace
from greffier.bench.talks import WORDS
from greffier.deliver.channels.protocol import Outgoing, Target
from greffier.deliver.channels.signatures import new_secret
from greffier.deliver.channels.webhook import Webhook
from greffier.deliver.keeping import Endpoints
from greffier.deliver.targets import ChannelTargets
from lab.leaving import Leaving
from lab.serving import process

#: Requests under way at the same time: lanes that one process delivers from (``deliver.out``).
AT_ONCE = 64
# As many bytes as a message's event has, about, and headers like it.
_MESSAGE = json.dumps(
    {
        "id": str(UUID(int=2)), "seq": 1, "role": "user", "content": WORDS, "author": None,
        "created_at": "2026-11-26T06:00:00.000000Z", "metadata": {}, "parts": None,
    }
).encode()  # fmt: skip
_BODY = b'{"type":"message.created","conversation_id":"%b","message":%b}' % (
    str(UUID(int=1)).encode(), _MESSAGE,
)  # fmt: skip
_HEADERS: dict[bytes | str, bytes | str] = {
    "User-Agent": "bare", "Content-Type": "application/json",
    "webhook-id": f"msg_{UUID(int=3).hex}", "webhook-timestamp": "1790000000",
    "webhook-signature": f"v1,{secrets.token_hex(22)}", "Greffier-Seq": "1",
    "Greffier-Fence": "1", "Content-Length": str(len(_BODY)),
}  # fmt: skip


@contextlib.asynccontextmanager
async def sink() -> AsyncIterator[str]:
    """Run a receiver in a process of its own; gives its URL."""
    with tempfile.TemporaryDirectory(prefix="greffier-bench-") as folder:
        program = [sys.executable, str(Path(__file__).with_name("sink.py"))]
        running = process(program, {}, Path(folder, "sink.log"))
        served = await asyncio.to_thread(running.__enter__)
        try:
            yield served.url
        finally:
            await asyncio.to_thread(running.__exit__, None, None, None)


async def to_sink(one: Leaving, url: str) -> UUID:
    """Make an endpoint that leads there, as anybody would; gives its id."""
    endpoints = Endpoints(one.here.greffier.database, ChannelTargets(one.channels))
    made = await endpoints.create(channel="webhook", target=url, id=uuid4(), everywhere=False)
    return made.id


async def bare(url: str, many: int) -> Pace:
    """Post as many by the same client, and nothing else.

    Raises:
        RuntimeError: An answer was no success.
    """
    async with httpcore2.AsyncConnectionPool(
        max_connections=AT_ONCE, max_keepalive_connections=AT_ONCE
    ) as connections:

        async def post() -> None:
            answer = await connections.request("POST", url, headers=_HEADERS, content=_BODY)
            if answer.status != 200:
                raise RuntimeError(f"the sink answered {answer.status}")

        return await _in_turn(post, many)


async def channel(url: str, many: int) -> Pace:
    """Post as many by the product's channel, which signs and checks, without any record.

    Raises:
        RuntimeError: An answer was no success.
    """
    webhook = Webhook(allow_private=True)
    target = Target("webhook", url, (new_secret(),))
    message = Outgoing(f"msg_{UUID(int=3).hex}", UUID(int=1), "", _MESSAGE, 1, 1)

    async def post() -> None:
        result = await webhook.send(target, message, timeout=20.0)
        if result.outcome != "accepted":
            raise RuntimeError(f"the sink did not take it: {result.detail}")

    try:
        return await _in_turn(post, many)
    finally:
        await webhook.close()


async def _in_turn(post: Callable[[], Awaitable[None]], many: int) -> Pace:
    """Post by loops, each of which posts the next when it has its answer."""
    left = iter(range(many))

    async def client() -> None:
        for _ in left:
            await post()

    began = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(AT_ONCE)))
    return Pace(rate=many / (time.perf_counter() - began))
