"""Who is in a conversation, who may come in, and who has read what."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple
from uuid import UUID

import msgspec

from greffier.errors import NotFound
from greffier.model.conversation import MemberRole
from greffier.read.pages import why_absent
from greffier.store.database import Database


class Participant(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody in a conversation, under today's name."""

    user_id: str
    name: str | None
    role: MemberRole
    joined_at: datetime
    last_read_seq: int


class Invitation(msgspec.Struct, frozen=True, kw_only=True):
    """A way in; its token was shown once, when it was made."""

    id: UUID
    role: MemberRole
    expires_at: datetime | None
    max_uses: int | None
    uses: int
    created_by: str


class Reader(msgspec.Struct, frozen=True):
    """Somebody who has read a message, and when."""

    user_id: str
    at: datetime


decode_participants = msgspec.json.Decoder(list[Participant]).decode


async def role_in(database: Database, conversation_id: UUID, user: str) -> str | None:
    """Say what somebody is in a conversation; None for nobody."""
    rows = await database.read("role_in", conversation_id, user)
    return rows[0]["role"] if rows else None


class Thumb(NamedTuple):
    """What somebody gave as feedback, and when."""

    rating: int
    comment: str | None
    at: datetime


async def feedback(database: Database, conversation_id: UUID, user: str, seq: int | None) -> Thumb:
    """Read somebody's own feedback on a message, or on the conversation (``seq`` None).

    Raises:
        NotFound, Gone: They gave none, or what it is about is not theirs to see any more.
    """
    if seq is not None and not 1 <= seq < 1 << 63:
        raise NotFound
    rows = await database.read("my_feedback", conversation_id, user, seq or 0)
    if not rows:
        raise await why_absent(database, conversation_id)
    return Thumb(*rows[0])


async def participants(
    database: Database, conversation_id: UUID, reader: str | None
) -> list[Participant]:
    """List who is in a conversation, in the order they came.

    Raises:
        NotFound, Gone: It is not there, or not the reader's.
    """
    rows = await database.read("participants", conversation_id, reader)
    if not rows:
        raise await why_absent(database, conversation_id)
    return decode_participants(rows[0]["body"])


async def invitations(
    database: Database, conversation_id: UUID, reader: str | None
) -> list[Invitation]:
    """List the invitations that still let somebody in, newest first.

    The owner sees all, everybody else their own.

    Raises:
        NotFound, Gone: The conversation is not there, or not the reader's.
    """
    rows = await database.read("invitations", conversation_id, reader)
    if not rows:
        raise await why_absent(database, conversation_id)
    return [
        Invitation(
            id=row["id"],
            role=row["role"],
            expires_at=row["expires_at"],
            max_uses=row["max_uses"],
            uses=row["uses"],
            created_by=row["created_by"],
        )
        for row in rows
        if row["id"] is not None
    ]


async def readers(
    database: Database, conversation_id: UUID, reader: str | None, seq: int
) -> list[Reader]:
    """Say who has read a message, and when; never its author.

    Raises:
        NotFound, Gone: There is no such message, or it is not the reader's to see.
    """
    if not 1 <= seq < 1 << 63:
        raise NotFound
    rows = await database.read("readers", conversation_id, reader, seq)
    if not rows:
        raise await why_absent(database, conversation_id)
    return [Reader(row["user_id"], row["at"]) for row in rows if row["user_id"] is not None]
