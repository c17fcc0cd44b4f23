"""Messages as they would stand on record, made by hand for tests of pure functions."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec

from greffier.model.message import Draft, Function, Message, ToolCall

_BEGIN = datetime(2025, 1, 1, tzinfo=UTC)
_CONVERSATION = UUID(int=1)


def call(call_id: str, name: str = "look", arguments: str = "{}") -> ToolCall:
    """A tool call."""
    return ToolCall(id=call_id, function=Function(name=name, arguments=arguments))


def user(content: str | None = "hello", **more: Any) -> Draft:
    """What a user says."""
    return Draft(role="user", content=content, **more)


def assistant(content: str | None = None, *calls: ToolCall, **more: Any) -> Draft:
    """What an assistant says or asks for."""
    return Draft(role="assistant", content=content, tool_calls=list(calls) or None, **more)


def tool(call_id: str | None, content: str | None = "found", **more: Any) -> Draft:
    """What a tool returned."""
    return Draft(role="tool", tool_call_id=call_id, content=content, **more)


def system(content: str | None = "be kind", **more: Any) -> Draft:
    """An instruction."""
    return Draft(role="system", content=content, **more)


def record(drafts: Iterable[Draft]) -> list[Message]:
    """Number drafts 1, 2, 3 … as one conversation."""
    return [
        Message(
            conversation_id=_CONVERSATION,
            seq=seq,
            id=UUID(int=seq),
            parent_seq=seq - 1 or None,
            role=draft.role,
            written_by="ada",
            content=draft.content,
            parts=draft.parts,
            tool_calls=draft.tool_calls,
            tool_call_id=draft.tool_call_id,
            name=draft.name,
            reasoning=draft.reasoning,
            created_at=_BEGIN + timedelta(seconds=seq),
            said_at=draft.said_at,
            rev=seq,
            metadata=draft.metadata or {},
        )
        for seq, draft in enumerate(drafts, 1)
    ]


def deleted(message: Message) -> Message:
    """The same message after a soft delete, its content still there (a reader may hide it)."""
    return msgspec.structs.replace(message, deleted_at=message.created_at)


def from_chat(messages: Iterable[dict[str, Any]]) -> list[Message]:
    """Record messages in the OpenAI chat format, as an import would."""
    return record(
        Draft(
            role=line["role"],
            content=line["content"] if isinstance(line["content"], str) else None,
            parts=line["content"] if isinstance(line["content"], list) else None,
            tool_calls=msgspec.convert(line.get("tool_calls"), list[ToolCall] | None),
            tool_call_id=line.get("tool_call_id"),
            name=line.get("name"),
        )
        for line in messages
    )
