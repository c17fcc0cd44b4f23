"""What a stream of Anthropic's Messages API says, as pieces."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from greffier.agents.providers import faults
from greffier.agents.providers.calls import Calls, MalformedError
from greffier.agents.providers.chunks import count
from greffier.agents.providers.mending import Mending
from greffier.agents.providers.protocol import (
    Content,
    Finished,
    FinishReason,
    Piece,
    Reasoning,
    Used,
)

_CUT: Final[Mapping[str, FinishReason]] = {
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "refusal": "content_filter",
}
_COUNTS: Final = (
    "input_tokens",
    "cache_creation_input_tokens",
    "cache_read_input_tokens",
    "output_tokens",
)


class Events:
    """Reads the events of one answer."""

    def __init__(self) -> None:
        self._content = Mending()
        self._reasoning = Mending()
        self._calls = Calls()
        self._counts: dict[str, int] = {}
        self._used: Used | None = None
        self._reason: str | None = None
        #: Whether anything of the answer came, said or not.
        self.begun = False

    @property
    def ended(self) -> bool:
        """Whether the answer is whole."""
        return self._reason is not None

    def feed(self, event: Any) -> Iterator[Piece]:
        """Take the next event.

        Raises:
            MalformedError: It is none.
            ProviderError: There is more than is kept of an answer.
        """
        kind = _object(event).get("type")
        if kind == "message_start":
            yield from self._count(_object(event.get("message")).get("usage"))
        elif kind == "content_block_start":
            yield from self._block(event.get("index"), _object(event.get("content_block")))
        elif kind == "content_block_delta":
            yield from self._block(event.get("index"), _object(event.get("delta")))
        elif kind == "message_delta":
            reason = _object(event.get("delta")).get("stop_reason")
            self._reason = None if reason is None else str(reason)
            yield from self._count(event.get("usage"))

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
        cut = _CUT.get(self._reason)
        called = False
        for call in self._calls.done(cut=cut is not None):
            called = True
            yield call
        yield Finished(cut or ("tool_calls" if called else "stop"))

    def _block(self, index: Any, block: Mapping[str, Any]) -> Iterator[Piece]:
        """Take the beginning of a block, or more of it."""
        kind = block.get("type")
        index = index if isinstance(index, int) else None
        if kind in ("text", "text_delta"):
            if text := self._content.feed(_str(block.get("text"))):
                self.begun = True
                yield Content(text)
        elif kind in ("thinking", "thinking_delta"):
            if text := self._reasoning.feed(_str(block.get("thinking"))):
                self.begun = True
                yield Reasoning(text)
        elif kind == "tool_use":
            self.begun = True
            self._calls.add(index, _str(block.get("id")), _str(block.get("name")), "")
        elif kind == "input_json_delta":
            self._calls.add(index, "", "", _str(block.get("partial_json")))
        elif kind == "redacted_thinking":
            self.begun = True

    def _count(self, usage: Any) -> Iterator[Piece]:
        """Take what was used so far: each number is the sum up to here."""
        if not isinstance(usage, Mapping):
            return
        for name in _COUNTS:
            if usage.get(name) is not None:
                self._counts[name] = count(usage[name])
        fresh, written, cached, output = (self._counts.get(name, 0) for name in _COUNTS)
        used = Used(fresh + written + cached, output, cached)
        if used != self._used:
            self._used = used
            yield used


def _object(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise MalformedError("no object where there is one")
    return value


def _str(value: Any) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise MalformedError("no text where there is one")
    return value
