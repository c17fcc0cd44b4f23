"""A conversation in the OpenAI chat format, written as a request to Anthropic's Messages API.

What is another way there:

- System messages are no messages: all of them go into ``system``, in their order, wherever they
  stood.  As a user's words they would lose their weight, and anybody could forge them.
- Calls and results are blocks, results a user's; neighbours of one role become one message, and the
  first is a user's.
- Ids of calls are unique in the whole request; ours need be so only in their message.
- Text that is blank, and tools without a definition, are refused.
- There is no ``name``: where several people talk, it stands before what they say.
- With ``thinking``, an answer that goes on after its tools has to begin with the thoughts it had,
  signed.  Those are not kept, so it goes on without thinking.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, TypeAlias

from greffier.agents.providers.protocol import Ask

Block: TypeAlias = dict[str, Any]

#: Tokens of an answer where the agent does not say: Anthropic must be told a number.
MAX_TOKENS: Final = 8192
#: What stands first when the beginning of a conversation was left out.
BEGINNING: Final = "[the beginning is left out]"

_OURS: Final = frozenset(
    {
        *("model", "messages", "system", "stream", "stream_options", "tools", "n", "script"),
        # Written in another way.
        *("max_tokens", "max_completion_tokens", "stop", "tool_choice", "parallel_tool_calls"),
    }
)
_CHOICES: Final = {"auto": "auto", "none": "none", "required": "any"}
_DATA = re.compile(r"data:(?P<kind>[\w.+-]+/[\w.+-]+);base64,(?P<data>.+)", re.DOTALL)


def request(ask: Ask) -> dict[str, Any]:
    """Write the body of a request."""
    params = {name: value for name, value in ask.params.items() if name not in _OURS}
    messages = conversation(ask.messages)
    if _goes_on(messages):
        params.pop("thinking", None)
    body: dict[str, Any] = {
        **params,
        "model": ask.model,
        "max_tokens": ask.params.get("max_tokens")
        or ask.params.get("max_completion_tokens")
        or MAX_TOKENS,
        "messages": messages,
        "stream": True,
    }
    if system := "\n\n".join(_instructions(ask)):
        body["system"] = system
    if stop := ask.params.get("stop"):
        body["stop_sequences"] = [stop] if isinstance(stop, str) else list(stop)
    body.update(_tools(ask, messages))
    return body


def conversation(chat: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Write the messages."""
    written: list[dict[str, Any]] = []
    names = {message["name"] for message in chat if message["role"] == "user" and "name" in message}
    used: set[str] = set()
    calls: dict[str, str] = {}
    for message in chat:
        role = message["role"]
        if role == "system":
            continue
        if role == "tool":
            blocks = [_result(message, calls)]
        else:
            blocks = list(_blocks(message))
            if len(names) > 1 and "name" in message:
                blocks.insert(0, _text(f"{message['name']}:"))
        if message.get("tool_calls"):
            calls = {call["id"]: _fresh(call["id"], used) for call in message["tool_calls"]}
            blocks += (_call(call, calls[call["id"]]) for call in message["tool_calls"])
        if not blocks:
            continue
        there = "assistant" if role == "assistant" else "user"
        if written and written[-1]["role"] == there:
            written[-1]["content"] += blocks
        else:
            written.append({"role": there, "content": blocks})
    if written and written[0]["role"] != "user":
        written.insert(0, {"role": "user", "content": [_text(BEGINNING)]})
    return written


def _instructions(ask: Ask) -> Iterator[str]:
    if ask.instructions and ask.instructions.strip():
        yield ask.instructions
    for message in ask.messages:
        if message["role"] == "system":
            said = "\n".join(block["text"] for block in _blocks(message) if "text" in block)
            if said:
                yield said


def _blocks(message: Mapping[str, Any]) -> Iterator[Block]:
    content = message.get("content")
    if isinstance(content, str):
        if content.strip():
            yield _text(content)
        return
    for part in content or ():
        text = part.get("text")
        if isinstance(text, str):
            if text.strip():
                yield _text(text)
        else:
            yield _attachment(part)


def _text(text: str) -> Block:
    return {"type": "text", "text": text}


def _attachment(part: Mapping[str, Any]) -> Block:
    """A picture or a document; of what Anthropic cannot read, its type."""
    kind = str(part.get("type"))
    inner = part.get(kind)
    inner = inner if isinstance(inner, Mapping) else {"url": inner}
    address = inner.get("url") or inner.get("file_url") or inner.get("file_data")
    block = {"image_url": "image", "file": "document"}.get(kind)
    if block is None or not isinstance(address, str):
        return _text(f"[{kind}]")
    if address.startswith(("https://", "http://")):
        return {"type": block, "source": {"type": "url", "url": address}}
    if data := _DATA.fullmatch(address):
        source = {"type": "base64", "media_type": data["kind"], "data": data["data"]}
        return {"type": block, "source": source}
    return _text(f"[{kind}]")


def _call(call: Mapping[str, Any], call_id: str) -> Block:
    arguments = call["function"]["arguments"]
    try:
        given = json.loads(arguments or "{}")
    except (ValueError, RecursionError):
        given = None
    return {
        "type": "tool_use",
        "id": call_id,
        "name": _safe(call["function"]["name"]),
        # What the model wrote is no object, and it shall see that.
        "input": given if isinstance(given, dict) else {"arguments": arguments},
    }


def _result(message: Mapping[str, Any], calls: Mapping[str, str]) -> Block:
    block: Block = {"type": "tool_result", "tool_use_id": calls[message["tool_call_id"]]}
    if message["content"].strip():
        block["content"] = message["content"]
    return block


def _fresh(call_id: str, used: set[str]) -> str:
    safe = fresh = _safe(call_id)
    number = 1
    while fresh in used:
        number += 1
        fresh = f"{safe}-{number}"
    used.add(fresh)
    return fresh


def _safe(name: str) -> str:
    return re.sub(r"[^a-zA-Z0-9_-]", "_", name)[:64] or "_"


def _goes_on(messages: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the last words are results, so that the answer goes on."""
    return bool(messages) and any(
        block["type"] == "tool_result" for block in messages[-1]["content"]
    )


def _tools(ask: Ask, messages: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Define the tools, and which of them may be called."""
    if ask.tools:
        tools = [
            {
                "name": tool.name,
                "description": tool.description,
                "input_schema": dict(tool.parameters),
            }
            for tool in ask.tools
        ]
        choice = _choice(ask.params)
        return {"tools": tools, **({"tool_choice": choice} if choice else {})}
    called = dict.fromkeys(
        block["name"]
        for message in messages
        for block in message["content"]
        if block["type"] == "tool_use"
    )
    if not called:
        return {}
    # Called before, and not to be called now: a call without a definition is refused.
    return {
        "tools": [{"name": name, "input_schema": {"type": "object"}} for name in called],
        "tool_choice": {"type": "none"},
    }


def _choice(params: Mapping[str, Any]) -> dict[str, Any] | None:
    said = params.get("tool_choice")
    choice: dict[str, Any] | None = None
    if isinstance(said, str):
        choice = {"type": _CHOICES.get(said, said)}
    elif isinstance(said, Mapping):
        function = said.get("function")
        if isinstance(function, Mapping):
            choice = {"type": "tool", "name": function.get("name")}
        else:
            choice = dict(said)
    if params.get("parallel_tool_calls") is False:
        choice = choice or {"type": "auto"}
        if choice["type"] != "none":
            choice["disable_parallel_tool_use"] = True
    return choice
