"""An answer that an official SDK streams: one try of it, whatever the service.

The SDK makes the request, follows its service's rules of headers and errors, and splits the stream
into events.  These are taken as plain JSON: to make the SDK's objects of each one took three times
as long as all the rest of the way from the socket to a piece, and servers that only resemble the
service do not fit them.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack
from importlib import import_module
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from greffier.agents.providers import faults
from greffier.agents.providers.calls import MalformedError
from greffier.agents.providers.protocol import Answer, Ask, Piece, ProviderError
from greffier.agents.providers.trying import Patience, Watch, persistently


class Reader(Protocol):
    """Makes pieces of the events of one answer; see ``chunks`` and ``anthropic_events``."""

    @property
    def begun(self) -> bool:
        """Whether anything of the answer came, said or not."""

    @property
    def ended(self) -> bool:
        """Whether the answer is whole."""

    def feed(self, event: Any, /) -> Iterator[Piece]:
        """Take the next event; MalformedError when it is none."""

    def end(self) -> Iterator[Piece]:
        """Give what is left when the stream has ended; ProviderError when the answer had not."""


class Stream(Protocol):
    """What both SDKs give back."""

    def __aiter__(self) -> AsyncIterator[object]:
        """Iterate over its events."""

    async def __anext__(self) -> object:
        """Wait for the next event."""

    async def close(self) -> None:
        """Close the connection."""


class Client(Protocol):
    """What is closed at the end."""

    async def close(self) -> None:
        """Close all connections."""


C = TypeVar("C", bound=Client)


class SdkProvider(ABC, Generic[C]):
    """A service that is asked by its SDK, imported when it is first asked."""

    #: The SDK's package, and what to install when it is missing.
    package: ClassVar[str]
    extra: ClassVar[str] = "greffier"

    def __init__(
        self,
        *,
        base_url: str,
        key: str | None = None,
        patience: Patience | None = None,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        """Name the server.

        Args:
            base_url: Its address.
            key: What it lets us in by, if it asks for anything.
            patience: How long and how often to wait for it.
            sleep: Waits between two tries.
        """
        self.base_url = base_url
        self._key = key
        self.patience = patience or Patience()
        self._sleep = sleep
        self._client: C | None = None
        self._making = asyncio.Lock()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.base_url}>"

    def answer(self, ask: Ask) -> Answer:
        """See ``Provider.answer``."""
        return persistently(
            lambda watch: self._attempt(ask, watch), self.patience, sleep=self._sleep
        )

    async def close(self) -> None:
        """See ``Provider.close``."""
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    async def _attempt(self, ask: Ask, watch: Watch) -> Answer:
        client = await self._ready()
        reader = self._reader()
        failures: tuple[type[Exception], ...] = (
            ProviderError,
            ValueError,
            RecursionError,
            *self._failures(),
        )
        try:
            async with AsyncExitStack() as closing:
                stream = await self._begin(client, ask, watch)
                closing.push_async_callback(stream.close)
                while True:
                    try:
                        event = await watch.next(anext(stream))
                    except StopAsyncIteration:
                        break
                    for piece in reader.feed(event):
                        yield piece
                    watch.begun, watch.ended = reader.begun, reader.ended
        except failures as error:
            # What breaks after the end takes nothing from a whole answer.
            if not reader.ended:
                raise self._fault(error) from None
        try:
            for piece in reader.end():
                yield piece
        except MalformedError:
            raise faults.malformed() from None

    async def _ready(self) -> C:
        """Make the client, once."""
        if self._client is not None:
            return self._client
        # One at a time: those who ask first ask together, after a restart.
        async with self._making:
            if self._client is None:
                try:
                    # 0.6 s of CPU for the package, 0.1 for a client and its certificates: in a
                    # thread, so that nobody else waits for it.
                    self._client = await asyncio.to_thread(self._load)
                except ModuleNotFoundError as error:
                    if error.name != self.package:
                        raise
                    raise ProviderError(
                        "provider-not-configured",
                        f"This server cannot ask {self.package}: install {self.extra}.",
                    ) from None
            return self._client

    def _load(self) -> C:
        import_module(self.package)
        return self._make()

    def _fault(self, error: BaseException) -> ProviderError:
        """Say what an exception means."""
        if isinstance(error, ProviderError):
            return error
        if isinstance(error, ValueError | RecursionError):
            return faults.malformed()
        status: int | None = getattr(error, "status_code", None)
        body: object = getattr(error, "body", None)
        if status is None and body is None:
            return faults.unreachable()
        # An error told within the stream has no status, or that of the stream's beginning.
        headers: Mapping[str, str] = getattr(getattr(error, "response", None), "headers", {})
        said = faults.read(status if status and status >= 300 else None, body, headers)
        return faults.classify(said, secret=self._key or "")

    @abstractmethod
    def _make(self) -> C:
        """Make the SDK's client; in a thread."""

    @abstractmethod
    async def _begin(self, client: C, ask: Ask, watch: Watch) -> Stream:
        """Send the request and wait, by ``watch.next``, for the head of the answer."""

    @abstractmethod
    def _reader(self) -> Reader:
        """Make what reads one answer."""

    @abstractmethod
    def _failures(self) -> tuple[type[Exception], ...]:
        """The exceptions by which the SDK fails."""
