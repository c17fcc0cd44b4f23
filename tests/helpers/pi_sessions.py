"""Sessions of the agent "pi" as drafts, for tests that need a long and rough real history.

One JSON line is one entry.  Messages become drafts, with their thinking as reasoning; what the
session says about itself (its header, models, compactions) is no message and is passed over.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any

from greffier.model.message import Draft, Function, ToolCall


def drafts(lines: Iterable[str]) -> Iterator[Draft]:
    """Turn the lines of a session file into drafts, in the order of the file."""
    for line in lines:
        entry = json.loads(line)
        if entry["type"] == "message":
            yield _draft(entry["message"], datetime.fromisoformat(entry["timestamp"]))


def _draft(said: dict[str, Any], said_at: datetime) -> Draft:
    match said["role"]:
        case "user":
            return Draft(role="user", content=_texts(said["content"], "text"), said_at=said_at)
        case "assistant":
            calls = [
                ToolCall(
                    id=part["id"],
                    function=Function(name=part["name"], arguments=json.dumps(part["arguments"])),
                )
                for part in said["content"]
                if part["type"] == "toolCall"
            ]
            return Draft(
                role="assistant",
                content=_texts(said["content"], "text"),
                reasoning=_texts(said["content"], "thinking"),
                tool_calls=calls or None,
                said_at=said_at,
            )
        case "toolResult":
            return Draft(
                role="tool",
                content=_texts(said["content"], "text") or "",
                tool_call_id=said["toolCallId"],
                name=said["toolName"],
                said_at=said_at,
            )
        case "bashExecution":  # a command of the user's own, which pi shows to the model like this
            text = f"Ran `{said['command']}`\n{said['output']}"
            return Draft(role="user", content=text, said_at=said_at)
        case role:
            raise ValueError(f"no such role in a pi session: {role}")


def _texts(parts: list[dict[str, Any]], kind: str) -> str | None:
    """Join the parts of one kind, or None if there is none (an aborted turn has no parts)."""
    return "\n".join(part[kind] for part in parts if part["type"] == kind) or None
