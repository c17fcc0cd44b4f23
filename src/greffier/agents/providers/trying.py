"""Ask again, as long as nothing was said, and bound how long an answer may take.

After the first word somebody has read it: asking again would say another beginning.  So a fault
after that is final.  A tool call is given when it is whole, so that one cut in its arguments was
not said yet.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final, TypeVar

from greffier.agents.providers import faults
from greffier.agents.providers.protocol import Answer, ProviderError, Used
from greffier.settings import ProviderSettings

T = TypeVar("T")

#: A provider that asks for a longer wait is not asked again: the caller may come back by itself.
LONGEST_WAIT: Final = 30.0
_FIRST_WAIT: Final = 0.5
#: For what may follow a whole answer; a server that keeps the connection open owes nothing more.
LAST_WAIT: Final = 5.0


@dataclass(frozen=True, slots=True)
class Patience:
    """How long and how often a provider is waited for; seconds.

    Attributes:
        whole: For one answer, with what is tried again.
        connect: Until it is reached.
        first: Until its first word, thought or tool call.
        silence: Between two chunks after that.
        tries: How often it is asked.
        longest_wait: Between two tries.
    """

    whole: float = 900
    connect: float = 10
    first: float = 120
    silence: float = 60
    tries: int = 3
    longest_wait: float = LONGEST_WAIT

    @classmethod
    def of(cls, settings: ProviderSettings) -> Patience:
        """As the settings say."""
        return cls(
            whole=settings.timeout,
            connect=settings.connect_timeout,
            first=settings.first_token_timeout,
            silence=settings.silence_timeout,
            tries=settings.tries,
        )

    def pause(self, tried: int, error: ProviderError, chance: float) -> float | None:
        """Decide how long to wait after the n-th try, or that there is no other.

        Args:
            tried: How often it was asked.
            error: How the last try ended.
            chance: From 0 to 1, so that those who failed together do not come back together.
        """
        if not error.retryable or tried >= self.tries:
            return None
        grown = min(_FIRST_WAIT * 2.0 ** (tried - 1), self.longest_wait)
        own = grown * (0.5 + chance / 2)
        if error.retry_after is None:
            return own
        # What it asks for is the least; a wait longer than ours would be answered in the same way.
        return None if error.retry_after > self.longest_wait else error.retry_after + own / 5


class Watch:
    """The time of one try: until the next chunk, and until the whole answer must be there."""

    def __init__(self, patience: Patience, until: float) -> None:
        """Begin now.

        Args:
            patience: How long things may take.
            until: When the whole answer must be there, by the loop's clock.
        """
        self.patience = patience
        self.until = until
        self.since = asyncio.get_running_loop().time()
        #: Whether a word, a thought or a call came: from here on silence counts.
        self.begun = False
        #: Whether the answer is whole, and only its usage may follow.
        self.ended = False

    async def next(self, coming: Awaitable[T]) -> T:
        """Wait for what comes next, as long as it may take.

        Raises:
            ProviderError: It took too long.
        """
        patience, now = self.patience, asyncio.get_running_loop().time()
        if self.ended:
            end = now + min(patience.silence, LAST_WAIT)
        elif self.begun:
            end = now + patience.silence
        else:
            end = self.since + patience.first
        try:
            async with asyncio.timeout_at(min(end, self.until)):
                return await coming
        except TimeoutError:
            if end > self.until:
                raise ProviderError(
                    "provider-unavailable", f"The answer was not whole after {patience.whole:g} s."
                ) from None
            limit = patience.silence if self.begun else patience.first
            raise faults.silence(limit, begun=self.begun) from None


async def persistently(
    attempt: Callable[[Watch], Answer],
    patience: Patience,
    *,
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
) -> Answer:
    """Answer by the first try that says something.

    Args:
        attempt: Asks once.
        patience: How often, and how long.
        sleep: Waits between two tries.
    """
    clock = asyncio.get_running_loop().time
    until = clock() + patience.whole
    spent = Used(0, 0, 0)
    tried = 0
    while True:
        tried += 1
        said = False
        used = Used(0, 0, 0)
        try:
            async with aclosing(attempt(Watch(patience, until))) as pieces:
                async for piece in pieces:
                    if isinstance(piece, Used):
                        used = piece
                        yield spent + piece
                        continue
                    said = True
                    yield piece
            return
        except ProviderError as error:
            pause = None if said else patience.pause(tried, error, random.random())  # noqa: S311
            if pause is None or clock() + pause >= until:
                raise
        spent += used
        await sleep(pause)
