"""Models behind the chat completions of OpenAI, by its official SDK.

Most servers of models offer them: OpenAI, Ollama, vLLM, llama.cpp, Mistral, xAI, DeepSeek,
OpenRouter.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final

from greffier.agents.providers import faults
from greffier.agents.providers.chunks import Chunks
from greffier.agents.providers.protocol import Ask, ProviderError
from greffier.agents.providers.streaming import SdkProvider, Stream
from greffier.agents.providers.trying import Patience, Watch

if TYPE_CHECKING:
    from openai import AsyncOpenAI

OPENAI: Final = "https://api.openai.com/v1"
#: What a request is made of; an agent's parameters do not change it.
_OURS: Final = frozenset(
    {"model", "messages", "stream", "stream_options", "tools", "functions", "n", "script"}
)
#: Parameters that are refused without tools.
_WITH_TOOLS: Final = frozenset({"tool_choice", "parallel_tool_calls"})


class OpenAIProvider(SdkProvider["AsyncOpenAI"]):
    """A server that speaks the chat completions of OpenAI."""

    package = "openai"

    def __init__(
        self,
        *,
        base_url: str | None = None,
        key: str | None = None,
        patience: Patience | None = None,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        """See ``SdkProvider``; the address is OpenAI's own by default, and goes up to ``/v1``."""
        super().__init__(base_url=base_url or OPENAI, key=key, patience=patience, sleep=sleep)
        # Whether it is asked to say what was used; some servers refuse a request that asks.
        self._asks_usage = True

    def _make(self) -> AsyncOpenAI:
        import openai  # noqa: PLC0415 - see SdkProvider

        patience = self.patience
        return openai.AsyncOpenAI(
            base_url=self.base_url,
            api_key=self._key or "none",
            max_retries=0,
            http_client=openai.DefaultAsyncHttpx2Client(
                # Reading is watched by us; a redirect would carry a conversation elsewhere.
                timeout=openai.Timeout(
                    None, connect=patience.connect, write=patience.first, pool=patience.first
                ),
                follow_redirects=False,
            ),
        )

    async def _begin(self, client: AsyncOpenAI, ask: Ask, watch: Watch) -> Stream:
        import openai  # noqa: PLC0415 - see SdkProvider

        # Variables of the environment that are meant for OpenAI are not for another server, so what
        # is not set here is said to be absent.
        absent = ["OpenAI-Organization", "OpenAI-Project"]
        if not self._key:
            absent.append("Authorization")
        if not (ask.messages or ask.instructions):
            raise ProviderError("provider-refused", "Nothing was said that could be answered.")
        while True:
            asks_usage = self._asks_usage
            try:
                return await watch.next(
                    client.post(
                        "/chat/completions",
                        body=request(ask, usage=asks_usage),
                        options={"headers": dict.fromkeys(absent, openai.Omit())},
                        cast_to=object,
                        stream=True,
                        stream_cls=openai.AsyncStream[object],
                    )
                )
            except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
                said = faults.read(error.status_code, error.body)
                if not (asks_usage and said.mentions("stream_options")):
                    raise
                self._asks_usage = False

    def _reader(self) -> Chunks:
        return Chunks()

    def _failures(self) -> tuple[type[Exception], ...]:
        import openai  # noqa: PLC0415 - see SdkProvider

        return (openai.APIError,)


def request(ask: Ask, *, usage: bool = True) -> dict[str, Any]:
    """Write the body of a request.

    Args:
        ask: What is asked.
        usage: Whether to ask for what was used.
    """
    messages = list(ask.messages)
    if ask.instructions:
        messages.insert(0, {"role": "system", "content": ask.instructions})
    left_out = _OURS if ask.tools else _OURS | _WITH_TOOLS
    body: dict[str, Any] = {
        **{name: value for name, value in ask.params.items() if name not in left_out},
        "model": ask.model,
        "messages": messages,
        "stream": True,
    }
    if usage:
        body["stream_options"] = {"include_usage": True}
    if ask.tools:
        body["tools"] = [
            {
                "type": "function",
                "function": {
                    "name": tool.name,
                    "description": tool.description,
                    "parameters": dict(tool.parameters),
                },
            }
            for tool in ask.tools
        ]
    return body
