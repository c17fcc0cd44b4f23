"""A server that speaks Anthropic's Messages API over real HTTP; its ways are ``openai_server``'s.

with anthropic_server() as server:
    server.say("Bon", "jour")
    server.say(thinking("Hm."), *tool_use(1, "toolu_1", "weather", '{"city": ', '"Lyon"}'))
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

from helpers.openai_server import Raw, Reply, Request, ScriptedServer, Step, event, failing
from helpers.openai_validator import InvalidChatError

USAGE = {"input_tokens": 11, "output_tokens": 1}
_ID = re.compile(r"[a-zA-Z0-9_-]+")


def named(data: Mapping[str, Any]) -> Raw:
    """An event, which here has a name."""
    return Raw(f"event: {data['type']}\n".encode() + event(data).data)


def start(**usage: Any) -> Raw:
    """The event that begins an answer."""
    message: dict[str, Any] = {"id": "msg_1", "type": "message", "role": "assistant", "content": [],
               "model": "test", "stop_reason": None, "usage": {**USAGE, **usage}}  # fmt: skip
    return named({"type": "message_start", "message": message})


def block(index: int, **fields: Any) -> Raw:
    """The event that begins a block."""
    return named({"type": "content_block_start", "index": index, "content_block": fields})


def delta(index: int = 0, **fields: Any) -> Raw:
    """More of a block."""
    return named({"type": "content_block_delta", "index": index, "delta": fields})


def text(words: str, index: int = 0) -> Raw:
    """More text."""
    return delta(index, type="text_delta", text=words)


def thinking(words: str, index: int = 0) -> Raw:
    """More thoughts."""
    return delta(index, type="thinking_delta", thinking=words)


def tool_use(index: int, call_id: str, name: str, *arguments: str) -> list[Raw]:
    """A tool call, its arguments in pieces."""
    return [
        block(index, type="tool_use", id=call_id, name=name, input={}),
        *(delta(index, type="input_json_delta", partial_json=one) for one in arguments),
        named({"type": "content_block_stop", "index": index}),
    ]


def ending(reason: str = "end_turn", **usage: Any) -> list[Raw]:
    """The events that end an answer."""
    return [
        named(
            {
                "type": "message_delta",
                "delta": {"stop_reason": reason, "stop_sequence": None},
                "usage": {"output_tokens": 7, **usage},
            }
        ),
        named({"type": "message_stop"}),
    ]


class AnthropicServer(ScriptedServer):
    """A scripted service in the manner of Anthropic."""

    path = "/v1/messages"

    def say(self, *steps: Step, reason: str = "end_turn", **usage: Any) -> None:
        """Answer the next request by these events, with a beginning and an end."""
        self.put(
            Reply(
                (start(**usage), named({"type": "ping"}), *steps, *ending(reason)),
            )
        )

    def fail(self, status: int, kind: str, message: str = "no", **headers: str) -> None:
        """Refuse the next request in Anthropic's form."""
        self.put(failing(status, body=error(kind, message), headers=headers))

    def write(self, step: Step) -> bytes:
        """A text is more text."""
        if isinstance(step, str):
            step = text(step)
        assert isinstance(step, Raw)
        return step.data

    def check(self, request: Request) -> None:
        """Judge a request by what the service documents and refuses."""
        body = request.body
        _demand(isinstance(body.get("model"), str), "there is no model")
        _demand(isinstance(body.get("max_tokens"), int), "there is no max_tokens")
        _demand(body.get("stream") is True, "it does not ask for a stream")
        messages = body.get("messages")
        _demand(bool(messages), "there are no messages")
        assert isinstance(messages, list)
        _demand(messages[0]["role"] == "user", "a user is not the first")
        for one, other in pairwise(messages):
            _demand(one["role"] != other["role"], "two messages of one role follow")
        open_ids: set[str] = set()
        used: set[str] = set()
        for message in messages:
            open_ids = _message(message, open_ids, used)
        _demand(not open_ids, f"{open_ids} have no results")
        tools = {tool["name"] for tool in body.get("tools", ())}
        for tool in body.get("tools", ()):
            _demand(tool["input_schema"].get("type") == "object", "a tool takes no object")
        _demand(not used or bool(tools), "there are calls and no tools")
        _demand("tool_choice" not in body or bool(tools), "a choice of no tools")


def error(kind: str, message: str = "no") -> dict[str, Any]:
    """An error in Anthropic's form."""
    return {"type": "error", "error": {"type": kind, "message": message}}


def _message(message: dict[str, Any], open_ids: set[str], used: set[str]) -> set[str]:
    """Judge a message; give the calls that it leaves open."""
    _demand(set(message) == {"role", "content"}, f"a message has {sorted(message)}")
    blocks = message["content"]
    _demand(bool(blocks), "a message is empty")
    kinds = [block["type"] for block in blocks]
    results = [one for one in blocks if one["type"] == "tool_result"]
    _demand(kinds[: len(results)] == ["tool_result"] * len(results), "results do not come first")
    _demand({one["tool_use_id"] for one in results} == open_ids, f"{open_ids} are not answered")
    opened: set[str] = set()
    for one in blocks:
        if one["type"] == "text":
            _demand(bool(one["text"].strip()), "a text is blank")
        if one["type"] == "tool_use":
            _demand(message["role"] == "assistant", "a user calls a tool")
            _demand(bool(_ID.fullmatch(one["id"])), f"a call is {one['id']!r}")
            _demand(one["id"] not in used, f"two calls are {one['id']!r}")
            _demand(isinstance(one["input"], dict), "arguments are no object")
            used.add(one["id"])
            opened.add(one["id"])
    return opened


def _demand(condition: object, fault: str) -> None:
    if not condition:
        raise InvalidChatError(fault)


@contextlib.contextmanager
def anthropic_server(port: int = 0) -> Iterator[AnthropicServer]:
    """Run a scripted service on a free port; at the end, every request it got was right."""
    server = AnthropicServer()
    with server.running(port):
        yield server
    assert server.faults == []
