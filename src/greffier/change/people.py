"""Who is in a conversation: join, leave, invite, and how far everybody has read."""

from __future__ import annotations

import hashlib
import secrets
from datetime import datetime, timedelta
from typing import NamedTuple
from uuid import UUID

from greffier.errors import Invalid, NotFound
from greffier.model import person
from greffier.model.ids import uuid7
from greffier.store.database import Database

SET = "select set_participant_v1($1, $2, $3, $4, $5, $6, $7)"
REMOVE = "select remove_participant_v1($1, $2, $3, $4, $5)"
INVITE = "select invite_v1($1, $2, $3, $4, $5, $6, $7, $8)"
REVOKE = "select revoke_invitation_v1($1, $2, $3)"
ACCEPT = "select accept_invitation_v1($1, $2, $3)"
READ = "select last_read_seq, rev from read_upto_v1($1, $2, $3)"

#: An invitation's life when nothing is said, and the longest one.
LIFETIME = timedelta(days=7)
LONGEST = timedelta(days=365)


async def set_participant(
    database: Database,
    conversation_id: UUID,
    user: str,
    role: str,
    actor: str | None,
    *,
    must_exist: bool = False,
) -> int:
    """Bring somebody in, or change their role; the owner may.

    Making somebody ``owner`` hands a room over to them; the former owner stays as a member.

    Returns:
        The conversation's rev afterwards; the same as before when nothing changed.

    Raises:
        Invalid: The user's id cannot be one, or only a room is handed over.
        NotFound: No such conversation, or (``must_exist``) no such participant.
        Forbidden: Only the owner manages people, and stays the owner until somebody else is.
    """
    person.check(user, "/user_id")
    if role not in ("owner", "member", "viewer"):
        raise Invalid.at("/role", "role", "One of owner, member, viewer.")
    try:
        (row,) = await database.verb(
            SET,
            conversation_id,
            actor,
            user,
            role,
            must_exist,
            actor or "service",
            uuid7(),
            again=True,
            touches=conversation_id,
            people=True,
        )
    except Invalid:
        raise Invalid.at(
            "/role", "no-handover", "Only a room is handed over, and to somebody who is in it."
        ) from None
    return int(row[0])


async def remove_participant(
    database: Database, conversation_id: UUID, user: str, actor: str | None
) -> int:
    """Take somebody out, or leave; from this rev on they see nothing more.

    Returns:
        The conversation's rev afterwards.

    Raises:
        NotFound: No such conversation or participant.
        Forbidden: Only the owner removes others, and the owner cannot leave.
    """
    (row,) = await database.verb(
        REMOVE,
        conversation_id,
        actor,
        user,
        actor or "service",
        uuid7(),
        again=False,
        touches=conversation_id,
        people=True,
    )
    return int(row[0])


class Invited(NamedTuple):
    """A new invitation: its id, and the token that is shown this once and never stored."""

    id: UUID
    token: str
    expires_at: datetime


def token_hash(token: str) -> bytes:
    """What is stored of a token: SHA-256, which for 256 random bits needs no salt."""
    return hashlib.sha256(token.encode()).digest()


async def invite(
    database: Database,
    conversation_id: UUID,
    actor: str | None,
    *,
    role: str = "member",
    expires_in: float | None = None,
    max_uses: int | None = None,
    by: str | None = None,
) -> Invited:
    """Make an invitation that whoever has its token may accept.

    Args:
        database: Where.
        conversation_id: To which conversation.
        actor: By whom; owners and members may.
        role: ``member`` or ``viewer``.
        expires_in: Seconds it lives; a week when not given, a year at most.
        max_uses: How many people it lets in; any number when not given.
        by: Who is named as its maker, when that is not the actor.

    Raises:
        Invalid: A value is out of range.
        NotFound, Forbidden, Gone: See the errors.
    """
    if role not in ("member", "viewer"):
        raise Invalid.at("/role", "role", "One of member, viewer.")
    lifetime = LIFETIME
    if expires_in is not None:
        if not 1 <= expires_in <= LONGEST.total_seconds():
            raise Invalid.at("/expires_in", "range", "From 1 second to a year.")
        lifetime = timedelta(seconds=expires_in)
    if max_uses is not None and not 1 <= max_uses < 1 << 31:
        raise Invalid.at("/max_uses", "range", "A number from 1.")
    token = "gri_" + secrets.token_urlsafe(32)
    id_ = uuid7()
    made = await database.verb(
        INVITE,
        conversation_id,
        actor,
        id_,
        token_hash(token),
        role,
        lifetime,
        max_uses,
        actor or by or "service",
        again=False,
    )
    return Invited(id_, token, made[0][0])


async def revoke(
    database: Database, conversation_id: UUID, invitation_id: UUID, actor: str | None
) -> None:
    """Let an invitation let nobody in any more.

    Raises:
        NotFound: There is no living one with this id.
        Forbidden: Somebody else made it, and the actor is not the owner.
    """
    await database.verb(REVOKE, conversation_id, actor, invitation_id, again=False)


async def accept(database: Database, token: str, user: str) -> UUID:
    """Join by an invitation's token.  Who is in already uses none of its uses up.

    Returns:
        The conversation's id.

    Raises:
        Invalid: Nobody is called so.
        NotFound: The token is unknown, revoked, expired, or used up.
    """
    person.check(user, "/user_id")
    if not token.startswith("gri_") or not token.isascii():
        raise NotFound
    (row,) = await database.verb(ACCEPT, token_hash(token), user, uuid7(), again=True)
    found: UUID = row[0]
    database.committed(found, 0, people=True)
    return found


class Mark(NamedTuple):
    """How far somebody has read, and the conversation's rev."""

    last_read_seq: int
    rev: int


async def read_upto(database: Database, conversation_id: UUID, user: str, seq: int) -> Mark:
    """Move a user's mark forward, never back, at most to the last message.

    Raises:
        Invalid: ``seq`` is negative.
        NotFound, Gone: The conversation is not theirs to see.
    """
    if not 0 <= seq < 1 << 63:
        raise Invalid.at("/seq", "range", "A seq is a number from 0.")
    (row,) = await database.verb(
        READ, conversation_id, user, seq, again=True, touches=conversation_id
    )
    return Mark(row["last_read_seq"], row["rev"])
