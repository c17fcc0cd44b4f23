"""Greffier's own exports, read back: ``jsonl`` and ``json`` (``read/export.py`` writes them).

A conversation keeps its id, so that in the database it came from it is found and not doubled, and a
restored one answers to the same id.  Its numbers (seq, rev) are given anew.
"""

from __future__ import annotations

from typing import Any, Final, Literal
from uuid import UUID

import msgspec

from greffier.imports.scrub import Notes, UnfitError, storable
from greffier.imports.times import TimeError, read_time
from greffier.model.draft import Speaker
from greffier.model.ids import foreign, parse_uuid
from greffier.model.message import Draft, Role, ToolCall

#: Who brought a message that an import wrote.
WRITTEN_BY: Final = "import"
#: The metadata key of what a message was in the record it comes from and cannot be here.
SEEN: Final = "greffier:export"


class OwnConversation(msgspec.Struct, frozen=True):
    """What is taken over of an exported conversation."""

    id: UUID
    owner_id: str
    kind: Literal["assistant", "room"] = "assistant"
    title: str = ""
    subject: str | None = None
    agent_id: UUID | None = None
    history_limit: int = 30
    metadata: dict[str, Any] = {}
    archived_at: str | None = None

    @classmethod
    def read(cls, value: Any) -> OwnConversation:
        """Read the ``conversation`` of an export.

        Raises:
            UnfitError: It is none.
        """
        try:
            return msgspec.convert(storable(value, Notes()), cls)
        except (msgspec.ValidationError, RecursionError) as error:
            raise UnfitError("no-conversation", f"This conversation is none: {error}") from error

    def id_for(self, owner: str) -> UUID:
        """Its own id for its own owner; a copy for somebody else has another, always the same."""
        return self.id if owner == self.owner_id else foreign("greffier", owner, str(self.id))


class _Message(msgspec.Struct, frozen=True):
    id: UUID
    role: Role
    conversation_id: UUID
    author_id: str | None = None
    author_name: str | None = None
    content: str | None = None
    parts: list[dict[str, Any]] | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None
    name: str | None = None
    reasoning: str | None = None
    status: str = "complete"
    created_at: str | None = None
    said_at: str | None = None
    edited_at: str | None = None
    deleted_at: str | None = None
    metadata: dict[str, Any] = {}


def is_message(value: Any) -> bool:
    """Whether this is a message line of an export."""
    return isinstance(value, dict) and {"conversation_id", "seq", "id", "role"} <= value.keys()


def conversation_id(message: Any) -> UUID | None:
    """Which conversation a message line belongs to."""
    found = message.get("conversation_id")
    return parse_uuid(found) if isinstance(found, str) else None


def draft(source: Any, *, was_owner: str, owner: str) -> tuple[Draft, Speaker, set[str]] | None:
    """Make a draft of an exported message; None for a deleted one, whose words are not there.

    Args:
        source: The message as it was parsed.
        was_owner: Whom the exported conversation belonged to.
        owner: Whom the imported one belongs to, who then has said what the former owner said.

    Raises:
        UnfitError: It is none.
    """
    notes = Notes()
    try:
        message = msgspec.convert(storable(source, notes), _Message)
        if message.deleted_at is not None:
            return None
        said_at = read_time(message.said_at or message.created_at, None)
    except (msgspec.ValidationError, TimeError, RecursionError) as error:
        raise UnfitError("not-a-message", f"This message is none of ours: {error}") from error
    seen = {
        key: value
        for key, value in (
            ("created_at", message.created_at if message.said_at else None),
            ("edited_at", message.edited_at),
            ("status", None if message.status == "complete" else message.status),
        )
        if value is not None
    }
    author = owner if message.author_id == was_owner else message.author_id
    return (
        Draft(
            id=message.id,
            role=message.role,
            content=message.content,
            parts=message.parts,
            tool_calls=message.tool_calls,
            tool_call_id=message.tool_call_id,
            name=message.name,
            reasoning=message.reasoning,
            # what an earlier import noted is nearer to the origin, and stays
            metadata={**({SEEN: seen} if seen else {}), **message.metadata} or None,
            said_at=said_at,
        ),
        Speaker(None, author, message.author_name if author else None, WRITTEN_BY),
        notes.names(),
    )
