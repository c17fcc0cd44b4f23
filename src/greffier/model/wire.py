"""A message that was just stored, as the API shows it, without reading it back.

``message_json`` in ``sql/schema/30_messages.sql`` builds the same object for everything that is
read; a test holds the two equal for every kind of message.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Protocol
from uuid import UUID

import msgspec

_encode = msgspec.json.Encoder().encode


class _Said(Protocol):
    @property
    def id(self) -> UUID: ...
    @property
    def role(self) -> str: ...
    @property
    def author_name(self) -> str | None: ...
    @property
    def written_by(self) -> str: ...
    @property
    def content(self) -> str | None: ...
    @property
    def parts(self) -> str | None: ...
    @property
    def tool_calls(self) -> str | None: ...
    @property
    def tool_call_id(self) -> str | None: ...
    @property
    def name(self) -> str | None: ...
    @property
    def reasoning(self) -> str | None: ...
    @property
    def metadata(self) -> str | None: ...
    @property
    def said_at(self) -> datetime | None: ...


class _Numbered(Protocol):
    @property
    def seq(self) -> int: ...
    @property
    def parent_seq(self) -> int | None: ...
    @property
    def rev(self) -> int | None: ...
    @property
    def created_at(self) -> datetime | None: ...
    @property
    def author_id(self) -> str | None: ...


def rfc3339(at: datetime) -> str:
    """Write a time in UTC with microseconds, always of the same length."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f").rjust(26, "0") + "Z"


def message(conversation_id: UUID, row: _Said, stored: _Numbered) -> bytes:
    """Encode a new message: what was said, and the numbers it got."""
    created_at = stored.created_at
    return _encode(
        {
            "conversation_id": conversation_id,
            "seq": stored.seq,
            "id": row.id,
            "parent_seq": stored.parent_seq,
            "role": row.role,
            "author_id": stored.author_id,
            "author_name": row.author_name,
            "written_by": row.written_by,
            "content": row.content,
            "parts": _raw(row.parts),
            "tool_calls": _raw(row.tool_calls),
            "tool_call_id": row.tool_call_id,
            "name": row.name,
            "reasoning": row.reasoning,
            "status": "complete",
            "run_id": None,
            "created_at": rfc3339(created_at) if created_at else None,
            "said_at": rfc3339(row.said_at) if row.said_at else None,
            "edited_at": None,
            "deleted_at": None,
            "rev": stored.rev,
            "metadata": _raw(row.metadata) or {},
        }
    )


def _raw(document: str | None) -> msgspec.Raw | None:
    return None if document is None else msgspec.Raw(document.encode())
