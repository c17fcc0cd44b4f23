"""Models of Anthropic, by its official SDK, which ``greffier[anthropic]`` brings."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final

from greffier.agents.providers.anthropic_events import Events
from greffier.agents.providers.anthropic_messages import request
from greffier.agents.providers.protocol import Ask
from greffier.agents.providers.streaming import SdkProvider, Stream
from greffier.agents.providers.trying import Patience, Watch

if TYPE_CHECKING:
    from anthropic import AsyncAnthropic

ANTHROPIC: Final = "https://api.anthropic.com"


class AnthropicProvider(SdkProvider["AsyncAnthropic"]):
    """A server that speaks Anthropic's Messages API."""

    package = "anthropic"
    extra = "greffier[anthropic]"

    def __init__(
        self,
        *,
        key: str,
        base_url: str | None = None,
        patience: Patience | None = None,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        """See ``SdkProvider``; the address is Anthropic's own by default, without ``/v1``."""
        super().__init__(base_url=base_url or ANTHROPIC, key=key, patience=patience, sleep=sleep)

    def _make(self) -> AsyncAnthropic:
        import anthropic  # noqa: PLC0415 - see SdkProvider

        patience = self.patience
        return anthropic.AsyncAnthropic(
            base_url=self.base_url,
            api_key=self._key,
            max_retries=0,
            http_client=anthropic.DefaultAsyncHttpxClient(
                # Reading is watched by us; a redirect would carry a conversation elsewhere.
                timeout=anthropic.Timeout(
                    None, connect=patience.connect, write=patience.first, pool=patience.first
                ),
                follow_redirects=False,
            ),
        )

    async def _begin(self, client: AsyncAnthropic, ask: Ask, watch: Watch) -> Stream:
        import anthropic  # noqa: PLC0415 - see SdkProvider

        return await watch.next(
            client.post(
                "/v1/messages",
                body=request(ask),
                cast_to=object,
                stream=True,
                stream_cls=anthropic.AsyncStream[object],
            )
        )

    def _reader(self) -> Events:
        return Events()

    def _failures(self) -> tuple[type[Exception], ...]:
        import anthropic  # noqa: PLC0415 - see SdkProvider
        import httpx2  # noqa: PLC0415 - see SdkProvider

        # While it reads a stream, this SDK lets the errors of the network through.
        return (anthropic.APIError, httpx2.HTTPError)
