"""Messages that leave, by the worker of this process, and when each of them did."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import ClassVar
from uuid import UUID, uuid4, uuid5

from greffier.bench.places import Place
from greffier.bench.talks import WORDS
from greffier.deliver.channels import Channels
from greffier.deliver.channels.protocol import Outgoing, Result, Target
from greffier.deliver.channels.webhook import Webhook
from greffier.store.connection import Connection
from lab import lanes
from lab.answers import Answering, at_work
from lab.hands import CHANNEL, Nobody
from lab.lanes import ENDPOINT

#: Seconds without a delivery after which what does not leave is given up.
PATIENCE = 30.0


class Departures:
    """Waits for messages to leave."""

    def __init__(self) -> None:
        self._expected: dict[str, asyncio.Future[float]] = {}
        #: Of those that nobody expects by name, how many have not left.
        self.missing = 0
        self._none_missing = asyncio.Event()

    def left(self, outgoing: Outgoing) -> None:
        """Hear that one did."""
        found = self._expected.pop(outgoing.webhook_id, None)
        if found is not None:
            found.set_result(time.perf_counter())
            return
        self.missing -= 1
        if self.missing == 0:
            self._none_missing.set()

    def expect(self, message_id: UUID) -> asyncio.Future[float]:
        """Give the moment at which a message leaves, by ``perf_counter``."""
        future = asyncio.get_running_loop().create_future()
        self._expected[f"msg_{uuid5(ENDPOINT, str(message_id)).hex}"] = future
        return future

    def count(self, many: int) -> None:
        """Count so many, besides those that are expected."""
        self.missing = many
        self._none_missing.clear()

    async def all_left(self) -> None:
        """Wait until so many did.

        Raises:
            TimeoutError: They stand still.
        """
        while not self._none_missing.is_set():
            missing = self.missing
            try:
                async with asyncio.timeout(PATIENCE):
                    await self._none_missing.wait()
            except TimeoutError:
                if self.missing == missing:
                    raise


class Noted(Nobody):
    """Leads nowhere, and says so."""

    name: ClassVar[str] = CHANNEL

    def __init__(self, departures: Departures) -> None:
        super().__init__()
        self._departures = departures

    async def send(self, target: Target, outgoing: Outgoing, *, timeout: float) -> Result:
        """Let it leave, at once."""
        del target, timeout
        self._departures.left(outgoing)
        return Result("accepted", "")


class NotedWebhook(Webhook):
    """The product's own, for receivers on this machine."""

    def __init__(self, departures: Departures) -> None:
        super().__init__(allow_private=True)
        self._departures = departures

    async def send(self, target: Target, outgoing: Outgoing, *, timeout: float) -> Result:
        """Post it.

        Raises:
            RuntimeError: It was not taken: then nothing was measured.
        """
        result = await super().send(target, outgoing, timeout=timeout)
        if result.outcome != "accepted":
            raise RuntimeError(f"the sink did not take it: {result.detail}")
        self._departures.left(outgoing)
        return result


@dataclass(frozen=True, slots=True)
class Leaving:
    """A record whose messages leave."""

    here: Place
    live: Connection
    channels: Channels
    departures: Departures
    working: Answering

    async def say(self, talk: UUID) -> float:
        """Append a message; gives when it left, by ``perf_counter``."""
        message = uuid4()
        leaves = self.departures.expect(message)
        await self.here.greffier.messages.append(talk, content=WORDS, id=message)
        return await leaves

    async def due(
        self, talks: Sequence[UUID], tail: int, many: int, endpoint: UUID = ENDPOINT
    ) -> float:
        """Let lanes be due, all at once; gives the seconds until the last message has left.

        Args:
            talks: Whose.
            tail: Up to which message.
            many: How many that is.
            endpoint: Where they go.
        """
        self.departures.count(many)
        await lanes.work_for(self.live, talks, tail, endpoint)
        began = time.perf_counter()
        self.working.work.worker.wake("out")
        await self.departures.all_left()
        return time.perf_counter() - began


@contextlib.asynccontextmanager
async def leaving(here: Place, live: Connection) -> AsyncIterator[Leaving]:
    """Deliver in this process, as ``greffier serve`` does, every message to nobody."""
    departures = Departures()
    channels = Channels([Noted(departures), NotedWebhook(departures)])
    await lanes.deliver_everything(live)
    async with at_work(here, channels) as working:
        yield Leaving(here, live, channels, departures, working)
