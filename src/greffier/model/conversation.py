"""A conversation: who owns it, which agent answers in it, how far its numbers have come."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal
from uuid import UUID

import msgspec

Kind = Literal["assistant", "room"]
MemberRole = Literal["owner", "member", "viewer"]


class LastMessage(msgspec.Struct, frozen=True, kw_only=True):
    """The newest message on the active path that is not deleted, for a list."""

    seq: int
    role: str
    author_id: str | None = None
    preview: str | None = None
    created_at: datetime


class Membership(msgspec.Struct, frozen=True, kw_only=True):
    """What the reader is here: role, how far they have read, how many wait (at most 1000)."""

    role: MemberRole
    last_read_seq: int
    unread: int


class Conversation(msgspec.Struct, frozen=True, kw_only=True):
    """A conversation as its reader sees it; ``me`` is null for a reader who is no participant.

    ``subject`` is its owner's, who has one active conversation on it.  ``history_limit`` bounds
    what a model is sent.  ``last_seq`` is the number of the newest message, ``message_count`` how
    many are on the active path and not deleted.  ``rev`` counts its changes, of whatever kind, and
    ``epoch`` names the history of the database in which these numbers mean something.
    """

    id: UUID
    kind: Kind
    title: str
    subject: str | None = None
    agent_id: UUID | None = None
    owner_id: str
    history_limit: int
    metadata: dict[str, Any]
    created_at: datetime
    updated_at: datetime
    archived_at: datetime | None = None
    first_seq: int
    last_seq: int
    message_count: int
    rev: int
    epoch: str
    last_message: LastMessage | None = None
    active_run_id: UUID | None = None
    me: Membership | None = None


class NewParticipant(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Somebody to be in a conversation from its start."""

    user_id: str
    role: MemberRole = "member"


class NewConversation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A conversation as a caller asks for it; ``id`` is its idempotency key."""

    id: UUID | None = None
    kind: Kind = "assistant"
    title: str | None = None
    subject: str | None = None
    agent_id: UUID | None = None
    history_limit: int = 30
    metadata: dict[str, Any] | None = None
    participants: list[NewParticipant] | None = None


class ConversationPatch(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What may change on a conversation; what is left unset stays as it is."""

    title: str | msgspec.UnsetType | None = msgspec.UNSET
    metadata: dict[str, Any] | msgspec.UnsetType = msgspec.UNSET
    history_limit: int | msgspec.UnsetType = msgspec.UNSET
    archived: bool | msgspec.UnsetType = msgspec.UNSET
    agent_id: UUID | msgspec.UnsetType | None = msgspec.UNSET
