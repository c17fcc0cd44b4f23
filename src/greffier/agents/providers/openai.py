"""Models behind the chat completions of OpenAI, by its official SDK.

Most servers of models offer them: OpenAI, Ollama, vLLM, llama.cpp, Mistral, xAI, DeepSeek,
OpenRouter.  The SDK makes the request, follows its rules of headers and errors, and splits the
stream into events.  Chunks are taken as plain JSON: making the SDK's objects of each one costs more
than all we do with it, and servers that differ from them are the usual case (``chunks``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from greffier.agents.providers import faults
from greffier.agents.providers.calls import MalformedError
from greffier.agents.providers.chunks import Chunks
from greffier.agents.providers.protocol import Answer, Ask, ProviderError
from greffier.agents.providers.trying import Patience, Watch, persistently

if TYPE_CHECKING:
    from openai import AsyncOpenAI, AsyncStream

OPENAI: Final = "https://api.openai.com/v1"
#: What a request is made of; an agent's parameters do not change it.
_OURS: Final = frozenset(
    {"model", "messages", "stream", "stream_options", "tools", "functions", "n", "script"}
)
#: Parameters that are refused without tools.
_WITH_TOOLS: Final = frozenset({"tool_choice", "parallel_tool_calls"})


class OpenAIProvider:
    """A server that speaks the chat completions of OpenAI."""

    def __init__(
        self,
        *,
        base_url: str | None = None,
        key: str | None = None,
        patience: Patience | None = None,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        """Name the server; it is spoken to when it is first asked.

        Args:
            base_url: Its address up to ``/v1``; OpenAI itself by default.
            key: What it lets us in by, if it asks for anything.
            patience: How long and how often to wait for it.
            sleep: Waits between two tries.
        """
        self._base_url = base_url or OPENAI
        self._key = key
        self._patience = patience or Patience()
        self._sleep = sleep
        self._client: AsyncOpenAI | None = None
        #: Whether it is asked to say what was used; some servers refuse a request that asks.
        self._asks_usage = True

    def __repr__(self) -> str:
        return f"<OpenAIProvider {self._base_url}>"

    def answer(self, ask: Ask) -> Answer:
        """See ``Provider.answer``."""
        return persistently(
            lambda watch: self._attempt(ask, watch), self._patience, sleep=self._sleep
        )

    async def close(self) -> None:
        """See ``Provider.close``."""
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    async def _attempt(self, ask: Ask, watch: Watch) -> Answer:
        client = await self._ready()
        import openai  # noqa: PLC0415 - see _ready

        chunks = Chunks()
        try:
            async with AsyncExitStack() as closing:
                stream = await self._begin(client, ask, watch)
                closing.push_async_callback(stream.close)
                while True:
                    try:
                        chunk = await watch.next(anext(stream))
                    except StopAsyncIteration:
                        break
                    for piece in chunks.feed(chunk):
                        yield piece
                    watch.begun, watch.ended = chunks.begun, chunks.ended
        except (
            openai.APIError,
            MalformedError,
            ProviderError,
            ValueError,
            RecursionError,
        ) as error:
            # What breaks after the end takes nothing from a whole answer.
            if not chunks.ended:
                raise self._fault(error) from None
        try:
            for piece in chunks.end():
                yield piece
        except MalformedError:
            raise faults.malformed() from None

    async def _begin(self, client: AsyncOpenAI, ask: Ask, watch: Watch) -> AsyncStream[object]:
        """Send the request and wait for the head of the answer."""
        import openai  # noqa: PLC0415

        # Variables of the environment that are meant for OpenAI are not for another server, so what
        # is not set here is said to be absent.
        absent = ["OpenAI-Organization", "OpenAI-Project"]
        if not self._key:
            absent.append("Authorization")
        headers = dict.fromkeys(absent, openai.Omit())
        while True:
            asks_usage = self._asks_usage
            try:
                return await watch.next(
                    client.post(
                        "/chat/completions",
                        body=request(ask, usage=asks_usage),
                        options={"headers": headers},
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

    def _fault(self, error: Exception) -> ProviderError:
        import openai  # noqa: PLC0415

        if isinstance(error, ProviderError):
            return error
        if isinstance(error, openai.APIStatusError):
            said = faults.read(error.status_code, error.body, error.response.headers)
            return faults.classify(said, secret=self._key or "")
        if isinstance(error, openai.APIConnectionError):
            return faults.unreachable()
        if isinstance(error, openai.APIError):
            return faults.classify(faults.read(None, error.body), secret=self._key or "")
        return faults.malformed()

    async def _ready(self) -> AsyncOpenAI:
        """Make the client, once."""
        if self._client is None:
            # 0.6 s of CPU: in a thread, so that nobody else waits for it.
            await asyncio.to_thread(import_module, "openai")
            if (made := self._client) is None:  # by another answer, meanwhile
                made = self._client = self._make()
            return made
        return self._client

    def _make(self) -> AsyncOpenAI:
        import openai  # noqa: PLC0415

        patience = self._patience
        return openai.AsyncOpenAI(
            base_url=self._base_url,
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
