"""A message that was just stored, as the API shows it, without reading it back.

``message_json`` in ``sql/schema/30_messages.sql`` builds the same object for everything that is
read; a test holds the two equal for every kind of message.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import msgspec

from greffier.model.message import Message, ToolCall
from greffier.model.row import Row, Stored

_encode = msgspec.json.Encoder().encode


def rfc3339(at: datetime) -> str:
    """Write a time in UTC with microseconds, always of the same length."""
    if at.tzinfo is not UTC:
        at = at.astimezone(UTC)
    # A third of the time that isoformat takes, but it leaves out a fraction that is nothing.
    text = _encode(at)[1:-2].decode()
    return f"{text}Z" if at.microsecond else f"{text}.000000Z"


class _Wire(msgspec.Struct, kw_only=True, gc=False):
    """A message in the order of ``message_json``; a struct is written faster than a dict."""

    conversation_id: UUID
    seq: int
    id: UUID
    parent_seq: int | None
    role: str
    author_id: str | None
    author_name: str | None
    written_by: str
    content: str | None
    parts: msgspec.Raw | None
    tool_calls: msgspec.Raw | None
    tool_call_id: str | None
    name: str | None
    reasoning: str | None
    status: str = "complete"
    run_id: None = None
    created_at: str
    said_at: str | None
    edited_at: None = None
    deleted_at: None = None
    rev: int
    metadata: msgspec.Raw


_NO_METADATA = msgspec.Raw(b"{}")


def message(conversation_id: UUID, row: Row, stored: Stored) -> bytes:
    """Encode a new message: what was said, and the numbers it got."""
    return _encode(
        _Wire(
            conversation_id=conversation_id,
            seq=stored.seq,
            id=row.id,
            parent_seq=stored.parent_seq,
            role=row.role,
            author_id=stored.author_id,
            author_name=row.author_name,
            written_by=row.written_by,
            content=row.content,
            parts=_raw(row.parts),
            tool_calls=_raw(row.tool_calls),
            tool_call_id=row.tool_call_id,
            name=row.name,
            reasoning=row.reasoning,
            created_at=rfc3339(stored.created_at),
            said_at=rfc3339(row.said_at) if row.said_at else None,
            rev=stored.rev,
            metadata=_raw(row.metadata) or _NO_METADATA,
        )
    )


def value(conversation_id: UUID, row: Row, stored: Stored) -> Message:
    """The same as a value."""
    return Message(
        conversation_id=conversation_id,
        seq=stored.seq,
        id=row.id,
        parent_seq=stored.parent_seq,
        role=row.role,  # type: ignore[arg-type]  # checked when it was a draft
        author_id=stored.author_id,
        author_name=row.author_name,
        written_by=row.written_by,
        content=row.content,
        parts=_parts(row.parts) if row.parts else None,
        tool_calls=_calls(row.tool_calls) if row.tool_calls else None,
        tool_call_id=row.tool_call_id,
        name=row.name,
        reasoning=row.reasoning,
        created_at=stored.created_at,
        said_at=row.said_at.astimezone(UTC) if row.said_at else None,
        rev=stored.rev,
        metadata=_metadata(row.metadata) if row.metadata else {},
    )


_parts = msgspec.json.Decoder(list[dict[str, Any]]).decode
_calls = msgspec.json.Decoder(list[ToolCall]).decode
_metadata = msgspec.json.Decoder(dict[str, Any]).decode


def _raw(document: str | None) -> msgspec.Raw | None:
    return None if document is None else msgspec.Raw(document.encode())
