"""What a person sends, on its way: in order, under one id however often, and never silently lost.

A send whose answer did not come may be on record, so that it is sent again under its id until an
answer comes; the record keeps it once.  Only a refusal that will not change ends it.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from uuid import UUID

from greffier.client.calls import Stored
from greffier.client.http import Unanswered
from greffier.errors import Error, QuotaExceeded, RateLimited, RunActive, Unavailable
from greffier.model.message import Draft

#: Seconds before the second try, and at most between two: doubled each time, with jitter, so that
#: the clients of a server that comes back do not all come at once.
FIRST, LONGEST = 0.25, 20.0


@dataclass(frozen=True)
class Failed:
    """A send that ended without an acknowledgement.

    Attributes:
        draft: What was sent.
        error: The refusal.
        definite: It is not on record; False when an earlier try of it went without an answer and
            may be, however the later one was refused.
    """

    draft: Draft
    error: Error
    definite: bool


Put = Callable[[UUID, Draft], Awaitable[Stored]]
#: Told of each send that ended, one way or the other.
Told = Callable[[UUID, Stored | Failed], None]
#: Told of each try whose outcome is not known, or that has to wait.
Waits = Callable[[UUID, Draft, Error, float], None]


def pause(tries: int, error: Error, chance: float) -> float:
    """Say how long to wait after this many tries: what the server asks for, else doubling.

    Args:
        tries: How many there were.
        error: What the last one ended with.
        chance: From 0 to 1.
    """
    backoff = min(LONGEST, FIRST * 2.0 ** min(tries - 1, 10)) * (0.5 + chance / 2)
    if error.retry_after is None:
        return backoff
    # Never before it, and not all of us at the same moment after it.
    return error.retry_after + chance * FIRST


def comes_again(error: Error) -> bool:
    """Say whether the same request may succeed later."""
    if isinstance(error, QuotaExceeded):
        return False
    return isinstance(error, (Unavailable, RateLimited, RunActive)) or error.status >= 500


class Outbox:
    """Sends in progress, one line per conversation."""

    def __init__(
        self,
        put: Put,
        told: Told,
        *,
        waits: Waits = lambda *_: None,
        chance: Callable[[], float] = random.random,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """Describe the outbox; it lives while ``run`` does.

        Args:
            put: Makes one try.
            told: Hears how each send ended.
            waits: Hears of each try after which it waits, and for how long.
            chance: Jitter, from 0 to 1.
            sleep: Waits; for tests.
        """
        self._put = put
        self._told = told
        self._waits = waits
        self._chance = chance
        self._sleep = sleep
        self._lines: dict[UUID, list[Draft]] = {}
        self._new: asyncio.Queue[UUID] = asyncio.Queue()
        self._empty = asyncio.Event()
        self._empty.set()

    def send(self, conversation_id: UUID, draft: Draft) -> None:
        """Send a draft after those of its conversation that were given before.

        Raises:
            ValueError: It has no id, and could not be sent again.
        """
        if draft.id is None:
            raise ValueError("What may be sent again needs an id.")
        self._empty.clear()
        line = self._lines.get(conversation_id)
        if line is None:
            self._lines[conversation_id] = [draft]
            self._new.put_nowait(conversation_id)
        elif all(one.id != draft.id for one in line):
            line.append(draft)

    def waiting(self, conversation_id: UUID) -> tuple[Draft, ...]:
        """What of a conversation is on its way, in order: to be kept through a restart."""
        return tuple(self._lines.get(conversation_id, ()))

    async def drained(self) -> None:
        """Wait until everything that was given has ended."""
        await self._empty.wait()

    async def run(self) -> None:
        """Send until cancelled; what had no answer by then is not known to be on record."""
        async with asyncio.TaskGroup() as group:
            while True:
                group.create_task(self._line(await self._new.get()))

    async def _line(self, conversation_id: UUID) -> None:
        line = self._lines[conversation_id]
        while line:
            told = await self._one(conversation_id, line[0])
            del line[0]
            self._told(conversation_id, told)
        del self._lines[conversation_id]
        if not self._lines:
            self._empty.set()

    async def _one(self, conversation_id: UUID, draft: Draft) -> Stored | Failed:
        tries, unsure = 0, False
        while True:
            tries += 1
            try:
                return await self._put(conversation_id, draft)
            except Error as error:
                # A 5xx too may come after the commit: only a 4xx says that nothing was stored.
                unsure = unsure or isinstance(error, Unanswered) or error.status >= 500
                if not comes_again(error):
                    return Failed(draft, error, definite=not unsure)
                seconds = pause(tries, error, self._chance())
                self._waits(conversation_id, draft, error, seconds)
            await self._sleep(seconds)
