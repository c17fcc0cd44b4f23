"""A strict judge of message lists in the OpenAI chat format, written apart from what it judges.

It follows the official request types (``ChatCompletionMessageParam`` of openai-python 3.57) and the
order rules the service enforces: every tool call is answered before anything else is said, and
nothing is answered that was not asked.  Where providers differ it takes the stricter side: content
is never empty except a tool's, and call ids are unique within their message.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

_NAME = re.compile(r"^[a-zA-Z0-9_-]{1,64}\Z")
_KEYS = {
    "system": {"role", "content", "name"},
    "user": {"role", "content", "name"},
    "assistant": {"role", "content", "name", "tool_calls"},
    "tool": {"role", "content", "tool_call_id"},
}
_PARTS = {"text": str, "image_url": dict, "input_audio": dict, "file": dict}


class InvalidChatError(AssertionError):
    """The list would be refused; the message says where and why."""


def validate(messages: Sequence[dict[str, Any]]) -> None:
    """Pass a list that a provider of the OpenAI chat format accepts.

    Raises:
        InvalidChatError: At the first fault.
    """
    open_calls: set[str] = set()
    for index, message in enumerate(messages):
        where = f"messages[{index}]"
        _demand(isinstance(message, dict), where, "is no object")
        role = message.get("role")
        _demand(role in _KEYS, where, f"has the role {role!r}")
        assert isinstance(role, str)
        _demand(set(message) <= _KEYS[role], where, f"has the keys {sorted(message)} as {role}")
        _demand("content" in message, where, "has no content")
        if "name" in message:
            name = message["name"]
            _demand(isinstance(name, str) and bool(_NAME.match(name)), where, f"is named {name!r}")
        if role == "tool":
            call_id = message.get("tool_call_id")
            _demand(isinstance(call_id, str), where, "answers no id")
            _demand(call_id in open_calls, where, f"answers {call_id!r}, which is not open")
            open_calls.remove(str(call_id))
            _demand(isinstance(message["content"], str), where, "has a result that is no text")
            continue
        _demand(not open_calls, where, f"comes while {sorted(open_calls)} wait for results")
        calls = message.get("tool_calls")
        if calls is not None:
            open_calls = _calls(calls, where)
        if message["content"] is None:
            _demand(bool(calls), where, "has neither content nor tool calls")
        else:
            _content(role, message["content"], where)
    _demand(not open_calls, "the end", f"leaves {sorted(open_calls)} without results")
    json.dumps(messages, allow_nan=False).encode()


def _content(role: str, content: Any, where: str) -> None:
    _demand(bool(content), where, "has empty content")
    if isinstance(content, str):
        return
    _demand(isinstance(content, list), where, f"has content of type {type(content).__name__}")
    _demand(role in ("user", "system"), where, f"has parts as {role}")
    for part in content:
        _demand(isinstance(part, dict), where, "has a part that is no object")
        kind = part.get("type")
        _demand(kind in _PARTS, where, f"has a part of type {kind!r}")
        _demand(role == "user" or kind == "text", where, f"has a part {kind!r} as {role}")
        _demand(isinstance(part.get(kind), _PARTS[kind]), where, f"has a part without its {kind}")


def _calls(calls: Any, where: str) -> set[str]:
    _demand(isinstance(calls, list) and bool(calls), where, "has tool_calls that are no list")
    ids: set[str] = set()
    for call in calls:
        _demand(isinstance(call, dict), where, "has a call that is no object")
        _demand(set(call) == {"id", "type", "function"}, where, f"has a call of {sorted(call)}")
        _demand(isinstance(call["id"], str) and bool(call["id"]), where, "has a call without id")
        _demand(call["id"] not in ids, where, f"has two calls {call['id']!r}")
        ids.add(call["id"])
        _demand(call["type"] == "function", where, f"has a call of type {call['type']!r}")
        function = call["function"]
        _demand(set(function) == {"name", "arguments"}, where, "has a call of no function")
        _demand(isinstance(function["name"], str) and function["name"], where, "calls no name")
        _demand(isinstance(function["arguments"], str), where, "has arguments that are no text")
    return ids


def _demand(condition: object, where: str, fault: str) -> None:
    if not condition:
        raise InvalidChatError(f"{where} {fault}")
