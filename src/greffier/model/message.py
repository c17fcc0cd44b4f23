"""A message: what was said, by whom, under which number."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal, get_args
from uuid import UUID

import msgspec

Role = Literal["user", "assistant", "tool", "system"]
Status = Literal["complete", "interrupted", "cancelled", "failed"]
ROLES: tuple[str, ...] = get_args(Role)


class Function(msgspec.Struct, frozen=True):
    """The function a tool call names, its arguments as the model wrote them (a JSON text)."""

    name: str
    arguments: str


class ToolCall(msgspec.Struct, frozen=True):
    """One call an assistant message asks for."""

    id: str
    function: Function
    type: Literal["function"] = "function"


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """One message as it stands on record.

    ``seq`` numbers it within its conversation in commit order, from 1, without gap or double;
    ``parent_seq`` is the message it followed.  ``author_id`` is who said it, under the name they
    had then, and ``written_by`` who brought it: a user, ``service:NAME`` for a key of that name,
    ``service``, or ``import``.  ``content`` is the text of ``parts`` where there are any, and null
    once deleted.  ``created_at`` is our time, ``said_at`` what a service or an import claims.
    ``rev`` is the conversation's rev that last changed it.  ``truncated`` and ``size`` (bytes) are
    there where a page cut a content of more than 16 KiB.
    """

    conversation_id: UUID
    seq: int
    id: UUID
    parent_seq: int | None = None
    role: Role
    author_id: str | None = None
    author_name: str | None = None
    written_by: str
    content: str | None = None
    parts: list[dict[str, Any]] | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None
    name: str | None = None
    reasoning: str | None = None
    status: Status = "complete"
    run_id: UUID | None = None
    created_at: datetime
    said_at: datetime | None = None
    edited_at: datetime | None = None
    deleted_at: datetime | None = None
    rev: int
    metadata: dict[str, Any] = {}
    truncated: bool | msgspec.UnsetType = msgspec.UNSET
    size: int | msgspec.UnsetType = msgspec.UNSET


class Draft(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A message as a caller says it, before it has a number.

    ``id`` is the caller's own UUID and the idempotency key: the same id sent again is the same
    message.  ``parts`` are OpenAI content parts, kept as given; ``content`` is then their text.
    """

    id: UUID | None = None
    role: Role = "user"
    content: str | None = None
    parts: list[dict[str, Any]] | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None
    name: str | None = None
    reasoning: str | None = None
    metadata: dict[str, Any] | None = None
    said_at: datetime | None = None
