"""What a stream of chat completion chunks says, as pieces.

The form is OpenAI's; where servers differ, what they do instead is taken for what they mean:
reasoning as ``reasoning_content`` (DeepSeek, older vLLM, xAI) or ``reasoning`` (vLLM, Ollama,
OpenRouter) or as parts of the content (Mistral); usage in a chunk of its own, in the last one, in
every one, in the choice (Moonshot) or in ``x_groq``; ``stop`` where there are tool calls.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from greffier.agents.providers import faults
from greffier.agents.providers.calls import Calls, MalformedError
from greffier.agents.providers.mending import Mending
from greffier.agents.providers.protocol import (
    Content,
    Finished,
    FinishReason,
    Piece,
    Reasoning,
    Used,
)

#: Reasons that are no end of an answer but of a server (OpenRouter, vLLM, DeepSeek, Gemini).
_BROKEN: Final = frozenset(
    {"error", "abort", "insufficient_system_resource", "malformed_function_call"}
)
_CUT: Final[Mapping[str, FinishReason]] = {
    "length": "length",
    "max_tokens": "length",
    "model_length": "length",
    "content_filter": "content_filter",
}


class Chunks:
    """Reads the chunks of one answer."""

    def __init__(self) -> None:
        self._content = Mending()
        self._reasoning = Mending()
        self._calls = Calls()
        self._refused = False
        self._reason: str | None = None
        self._used: Used | None = None
        #: Whether anything of the answer came, said or not.
        self.begun = False

    @property
    def ended(self) -> bool:
        """Whether the answer is whole."""
        return self._reason is not None

    def feed(self, chunk: Any) -> Iterator[Piece]:
        """Take the next chunk.

        Raises:
            MalformedError: It is none.
            ProviderError: It says that the server failed.
        """
        if not isinstance(chunk, Mapping):
            raise MalformedError("a chunk that is no object")
        choice = _first(chunk.get("choices"))
        if choice is not None:
            delta = choice.get("delta") or {}
            if not isinstance(delta, Mapping):
                raise MalformedError("a delta that is no object")
            yield from self._delta(delta)
            reason = choice.get("finish_reason")
            if reason is not None and not isinstance(reason, str):
                raise MalformedError("a reason that is no text")
            if reason in _BROKEN:
                raise faults.unfinished()
            self._reason = reason or self._reason
        used = _used(chunk, choice)
        if used is not None and used != self._used:
            self._used = used
            yield used

    def end(self) -> Iterator[Piece]:
        """Give what is left when the stream has ended.

        Raises:
            MalformedError: A tool call has no name.
            ProviderError: The answer had not.
        """
        if self._reason is None:
            raise faults.unfinished()
        if text := self._reasoning.end():
            yield Reasoning(text)
        if text := self._content.end():
            yield Content(text)
        cut = "content_filter" if self._refused else _CUT.get(self._reason)
        called = False
        for call in self._calls.done(cut=cut is not None):
            called = True
            yield call
        yield Finished(cut or ("tool_calls" if called else "stop"))

    def _delta(self, delta: Mapping[str, Any]) -> Iterator[Piece]:
        yield from self._think(delta.get("reasoning_content") or delta.get("reasoning"))
        content = delta.get("content")
        if content:
            if isinstance(content, list):
                yield from self._parts(content)
            else:
                yield from self._say(content)
        if refusal := delta.get("refusal"):
            self._refused = True
            yield from self._say(refusal)
        if calls := delta.get("tool_calls"):
            if not isinstance(calls, list):
                raise MalformedError("tool calls that are no list")
            self.begun = True
            for call in calls:
                self._calls.feed(call)

    def _parts(self, parts: list[Any]) -> Iterator[Piece]:
        for part in parts:
            if not isinstance(part, Mapping):
                raise MalformedError("a part that is no object")
            if part.get("type") == "thinking":
                thoughts = part.get("thinking")
                for thought in thoughts if isinstance(thoughts, list) else ():
                    if isinstance(thought, Mapping):
                        yield from self._think(thought.get("text"))
            else:
                yield from self._say(part.get("text"))

    def _say(self, text: Any) -> Iterator[Piece]:
        if text is None:
            return
        if not isinstance(text, str):
            raise MalformedError("a text that is none")
        self.begun = True
        if text := self._content.feed(text):
            yield Content(text)

    def _think(self, text: Any) -> Iterator[Piece]:
        # No part of the form, so what is no text is some server's own and not malformed.
        if not text or not isinstance(text, str):
            return
        self.begun = True
        if text := self._reasoning.feed(text):
            yield Reasoning(text)


def _first(choices: Any) -> Mapping[str, Any] | None:
    """The choice that we read: one is asked for, and a chunk of usage has none."""
    if not choices:
        return None
    if not isinstance(choices, list):
        raise MalformedError("choices that are no list")
    for choice in choices:
        if not isinstance(choice, Mapping):
            raise MalformedError("a choice that is no object")
        if not choice.get("index"):
            return choice
    return None


def _used(chunk: Mapping[str, Any], choice: Mapping[str, Any] | None) -> Used | None:
    groq = chunk.get("x_groq")
    for found in (
        chunk.get("usage"),
        choice and choice.get("usage"),
        isinstance(groq, Mapping) and groq.get("usage"),
    ):
        if isinstance(found, Mapping) and (
            "prompt_tokens" in found or "completion_tokens" in found
        ):
            details = found.get("prompt_tokens_details")
            cached = details.get("cached_tokens") if isinstance(details, Mapping) else None
            if cached is None:
                # DeepSeek; Moonshot.
                cached = found.get("prompt_cache_hit_tokens", found.get("cached_tokens"))
            return Used(
                count(found.get("prompt_tokens")),
                count(found.get("completion_tokens")),
                count(cached),
            )
    return None


def count(value: Any) -> int:
    """A number of tokens; what is none counts as none."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0
