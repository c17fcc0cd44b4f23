"""What a provider of models is asked, what it answers piece by piece, and how it can fail.

A provider speaks to one service and knows nothing of runs, conversations or the database.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Protocol, TypeAlias

FinishReason: TypeAlias = Literal["stop", "tool_calls", "length", "content_filter"]

#: The codes by which an answer fails, as they stand in a run's ``run.failed``, and what they mean.
FAILURES: Final[Mapping[str, str]] = {
    "provider-refused": "The provider will not answer this: the key, the model or a parameter is "
    "wrong, the credit is used up, or the request breaks its rules. Trying again changes nothing.",
    "provider-unavailable": "The provider could not be reached, broke off, said nothing for too "
    "long or sent what makes no sense.",
    "provider-rate-limited": "The provider asks to wait, and was asked as often as its settings "
    "allow.",
    "context-too-long": "The conversation is longer than the model can read; a smaller "
    "`history_limit` or fewer instructions and tools make it fit.",
    "answer-too-long": "The model said more, or called for more tools, than is kept of an answer.",
    "too-many-steps": "The model called for tools again and again, without coming to an answer.",
    "provider-not-configured": "The agent names a provider that this server's settings do not "
    "have, or whose package is not installed.",
}


@dataclass(frozen=True, slots=True)
class ToolSpec:
    """A function that the model may call: its name, what it is for, its arguments' JSON Schema."""

    name: str
    description: str
    parameters: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Ask:
    """One request for an answer.

    Attributes:
        model: The model's name, as the provider calls it.
        instructions: What the agent is told before everything else.
        messages: The conversation in the OpenAI chat format, as ``read.context`` makes it.
        tools: What the model may call.
        params: What the agent adds to the request (``temperature``, ``max_tokens`` …).  What the
            request is made of (model, messages, tools, streaming) cannot be changed by it.
    """

    model: str
    instructions: str | None
    messages: Sequence[dict[str, Any]]
    tools: Sequence[ToolSpec] = ()
    params: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Content:
    """More of the answer.  Also a refusal in words, which then ends as ``content_filter``."""

    text: str


@dataclass(frozen=True, slots=True)
class Reasoning:
    """More of what the model thinks before it answers."""

    text: str


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A whole call; those of one answer come in the model's order, with ids of their own.

    ``arguments`` is what the model wrote and may be no JSON; where it wrote nothing it is ``{}``.
    """

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class ToolResult:
    """What a tool answered; only a script, which plays whole runs, says this itself."""

    id: str
    content: str


@dataclass(frozen=True, slots=True)
class Used:
    """The tokens of this call so far, as the provider counts them: the last one said holds.

    What failed tries used is in it.  Without a word of the provider there is no ``Used`` at all.

    Attributes:
        input_tokens: What was sent, cached or not.
        output_tokens: What was answered, reasoning included.
        cached_tokens: How many of the input tokens came from the provider's cache.
    """

    input_tokens: int
    output_tokens: int
    cached_tokens: int = 0

    def __add__(self, other: Used) -> Used:
        """Both together."""
        return Used(
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.cached_tokens + other.cached_tokens,
        )


@dataclass(frozen=True, slots=True)
class Finished:
    """The answer is whole, as far as the reason says; nothing comes after it."""

    reason: FinishReason


Piece: TypeAlias = Content | Reasoning | ToolCall | ToolResult | Used | Finished
Answer: TypeAlias = AsyncGenerator[Piece, None]


class Provider(Protocol):
    """Answers for models of one service."""

    def answer(self, ask: Ask) -> Answer:
        """Answer piece by piece; the last is ``Finished``.

        Texts are such that PostgreSQL can keep them.  Close what you do not read to its end
        (``contextlib.aclosing``): closing it, or cancelling the task that reads it, closes the
        connection at once, so that nobody pays for words that nobody hears.

        Raises:
            ProviderError: It failed.  It tried again by itself as long as it had said nothing;
                after the first piece (``Used`` aside) a fault is final.
        """

    async def close(self) -> None:
        """Close what is open; nothing is asked after that."""


class ProviderError(Exception):
    """A provider failed: ``code`` is one of ``FAILURES`` or of a script's own.

    Attributes:
        code: Stable, for programs.
        detail: For people, those who talk to the agent too: no key, no address, and of the
            provider's own words at most a line.
        retry_after: Seconds after which the provider would have us back.
        retryable: Whether the same request may succeed at another time.
    """

    def __init__(
        self,
        code: str,
        detail: str,
        retry_after: float | None = None,
        *,
        retryable: bool = False,
    ) -> None:
        self.code = code
        self.detail = detail
        self.retry_after = retry_after
        self.retryable = retryable
        super().__init__(f"{code}: {detail}")
