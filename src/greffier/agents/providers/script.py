"""The built-in ``script``: plays what the agent's ``params.script`` says, for tests and demos.

A script is a list of ``{after_ms, event, data}``.  It says its own tools' results, so that it can
play a whole run.  Where it calls tools and does not say the results, the answer ends with the
calls; when they come back, it goes on behind them.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from greffier.agents.providers.protocol import (
    Answer,
    Ask,
    Content,
    Finished,
    Piece,
    ProviderError,
    Reasoning,
    ToolCall,
    ToolResult,
    Used,
)
from greffier.errors import Problem
from greffier.model.text import deep_faults

#: Entries of a script, and the longest wait before one: an hour.
ENTRIES: Final = 10_000
WAIT_MS: Final = 3_600_000
#: What each event says, and its data: all texts but those of usage, which are numbers.
EVENTS: Final[Mapping[str, tuple[str, ...]]] = {
    "content.delta": ("text",),
    "reasoning.delta": ("text",),
    "tool.call": ("id", "name", "arguments"),
    "tool.result": ("id", "content"),
    "usage": ("input_tokens", "output_tokens", "cached_tokens"),
    "run.failed": ("code", "detail"),
}
#: What may be said between calls and their results.
_ROUND: Final = frozenset({"tool.call", "tool.result", "usage"})
_OPTIONAL: Final = frozenset({"cached_tokens"})
_CODE = re.compile(r"[a-z][a-z0-9]*(?:-[a-z0-9]+)*")


class Script:
    """Plays the script of an agent."""

    async def answer(self, ask: Ask) -> Answer:
        """Play, from behind the tool calls that the conversation has the results of."""
        script = ask.params.get("script") or ()
        if check_script(script):
            raise ProviderError("provider-refused", "The agent's script cannot be played.")
        waiting: set[str] = set()
        for begins, entry in _rest(script, _rounds(ask.messages)):
            if begins and waiting:
                break
            if entry.get("after_ms"):
                await asyncio.sleep(entry["after_ms"] / 1000)
            piece = _piece(entry)
            if isinstance(piece, ToolCall):
                waiting.add(piece.id)
            elif isinstance(piece, ToolResult):
                waiting.discard(piece.id)
            yield piece
        yield Finished("tool_calls" if waiting else "stop")

    async def close(self) -> None:
        """Close nothing."""


def check_script(script: Any, pointer: str = "") -> list[Problem]:
    """Say everything that is wrong with a script.

    Args:
        script: What was given as one.
        pointer: Where it stands in what was sent, as a JSON pointer.
    """
    if not isinstance(script, Sequence) or isinstance(script, str | bytes):
        return [Problem(pointer, "type", "A script is a list.")]
    if len(script) > ENTRIES:
        return [Problem(pointer, "too-long", f"A script has at most {ENTRIES} entries.")]
    if unfit := deep_faults(list(script), pointer):
        return [unfit]
    problems: list[Problem] = []
    for index, entry in enumerate(script):
        problems += _entry(entry, f"{pointer}/{index}")
    return problems


def _entry(entry: Any, here: str) -> Iterator[Problem]:
    if not isinstance(entry, Mapping):
        yield Problem(here, "type", "An entry is an object.")
        return
    for name in entry.keys() - {"after_ms", "event", "data"}:
        yield Problem(f"{here}/{name}", "unknown", "An entry has after_ms, event and data.")
    wait = entry.get("after_ms", 0)
    if not _whole(wait) or wait > WAIT_MS:
        yield Problem(f"{here}/after_ms", "range", f"A number of milliseconds, 0 to {WAIT_MS}.")
    event = entry.get("event")
    if not isinstance(event, str) or event not in EVENTS:
        yield Problem(f"{here}/event", "unknown", f"One of {', '.join(EVENTS)}.")
        return
    data = entry.get("data")
    if not isinstance(data, Mapping):
        yield Problem(f"{here}/data", "type", f"The data of {event} is an object.")
        return
    names = EVENTS[event]
    for name in data.keys() - set(names):
        yield Problem(f"{here}/data/{name}", "unknown", f"The data of {event} has no {name}.")
    for name in names:
        value = data.get(name)
        if event == "usage":
            if not _whole(0 if value is None and name in _OPTIONAL else value):
                yield Problem(f"{here}/data/{name}", "range", "A number of tokens, 0 or more.")
        elif not isinstance(value, str):
            yield Problem(f"{here}/data/{name}", "type", "A text.")
        elif name in ("id", "name") and not value:
            yield Problem(f"{here}/data/{name}", "empty", "It is not empty.")
        elif name == "code" and not _CODE.fullmatch(value):
            yield Problem(f"{here}/data/{name}", "format", "Small words, joined by hyphens.")


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _piece(entry: Mapping[str, Any]) -> Piece:
    data = entry["data"]
    match entry["event"]:
        case "content.delta":
            return Content(data["text"])
        case "reasoning.delta":
            return Reasoning(data["text"])
        case "tool.call":
            return ToolCall(data["id"], data["name"], data["arguments"])
        case "tool.result":
            return ToolResult(data["id"], data["content"])
        case "usage":
            return Used(data["input_tokens"], data["output_tokens"], data.get("cached_tokens") or 0)
        case _:
            raise ProviderError(data["code"], data["detail"])


def _rounds(messages: Sequence[Mapping[str, Any]]) -> int:
    """How often tools were called since the user spoke."""
    rounds = 0
    for message in reversed(messages):
        if message["role"] == "user":
            break
        rounds += bool(message.get("tool_calls"))
    return rounds


def _rest(
    script: Sequence[Mapping[str, Any]], rounds: int
) -> Iterator[tuple[bool, Mapping[str, Any]]]:
    """What is left of a script after so many rounds of calls and results.

    Gives each entry, and whether what the model says begins anew there: a round is the calls made
    together and their results, and ends where anything else is said.
    """
    called = answered = False
    for entry in script:
        event = entry["event"]
        begins = called and (event not in _ROUND if event != "tool.call" else answered)
        if begins:
            rounds -= 1
            called = answered = False
        if rounds <= 0:
            yield begins, entry
        called = called or event == "tool.call"
        answered = answered or event == "tool.result"
