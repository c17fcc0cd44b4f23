"""Create, change, archive and erase a conversation."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from typing import Any
from uuid import UUID

import msgspec

from greffier.errors import AgentFixed, Invalid, PayloadTooLarge, Problem, Stale
from greffier.model import jsonb, person, text
from greffier.model.conversation import ConversationPatch, NewConversation
from greffier.model.ids import uuid7
from greffier.model.limits import DEFAULT, Limits
from greffier.store.database import Database

_encode = msgspec.json.Encoder(order="deterministic").encode

CREATE = "select create_conversation_v1($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)"
PATCH = "select patch_conversation_v1($1, $2, $3, $4, $5, $6, $7)"
ERASE = "select erase_conversation_v1($1, $2)"

#: More than any model's window; a context is bounded by tokens and bytes anyway.
HISTORY_LIMIT = 10_000


async def create(
    database: Database, new: NewConversation, owner: str, *, limits: Limits = DEFAULT
) -> tuple[UUID, bool]:
    """Create a conversation; the same request again finds it.

    Returns:
        Its id, and whether it was made now.

    Raises:
        Invalid: The request breaks a rule, or there is no such agent.
        IdReused: The id names a conversation made by another request.
        SubjectTaken: The owner has an active conversation on this subject.
        Gone: The id is that of an erased conversation.
    """
    problems = _problems(limits, title=new.title, subject=new.subject, limit=new.history_limit)
    if found := person.fault(owner, "/owner_id"):
        problems.append(found)
    members: dict[str, str] = {}
    for index, participant in enumerate(new.participants or ()):
        pointer = f"/participants/{index}"
        if found := person.fault(participant.user_id, f"{pointer}/user_id"):
            problems.append(found)
        elif participant.user_id in members:
            detail = "This person stands twice."
            problems.append(Problem(f"{pointer}/user_id", "duplicate", detail))
        elif participant.user_id != owner:
            members[participant.user_id] = participant.role
        if participant.role == "owner" and participant.user_id != owner:
            problems.append(
                Problem(f"{pointer}/role", "one-owner", "Whoever creates it is the owner.")
            )
    metadata = _metadata(new.metadata, limits, problems)
    if problems:
        raise Invalid(problems=tuple(problems))
    id_ = new.id or uuid7()
    asked = _encode(
        (
            new.kind,
            new.title or "",
            new.subject,
            new.agent_id,
            new.history_limit,
            new.metadata or {},
            sorted(members.items()),
            owner,
        )
    )
    digest = UUID(bytes=blake2b(asked, digest_size=16).digest())
    try:
        rows = await database.verb(
            CREATE,
            id_,
            digest,
            new.kind,
            new.title or "",
            new.subject,
            new.agent_id,
            owner,
            new.history_limit,
            metadata or "{}",
            list(members),
            list(members.values()),
            again=True,
            touches=id_,
            people=True,
        )
    except Invalid:
        raise no_such_agent() from None
    return id_, bool(rows[0][0])


async def patch(
    database: Database,
    conversation_id: UUID,
    change: ConversationPatch,
    actor: str | None,
    *,
    if_rev: int | None = None,
    limits: Limits = DEFAULT,
) -> int:
    """Change title, metadata, history limit or archiving, together and in one rev.

    Args:
        database: Where.
        conversation_id: Which.
        change: What; unset fields stay as they are.
        actor: Who; None is the service.
        if_rev: Refuse when the conversation is no longer at this rev.
        limits: How large things may be.

    Returns:
        The conversation's rev afterwards; the same as before when nothing changed.

    Raises:
        AgentFixed: The agent was to be changed.
        Stale: It is no longer at ``if_rev``.
        SubjectTaken: It cannot come back while another conversation has its subject.
    """
    unset = msgspec.UNSET
    if change.agent_id is not unset:
        raise AgentFixed
    title = None if change.title is unset else (change.title or "")
    limit = None if change.history_limit is unset else change.history_limit
    problems = _problems(limits, title=title, limit=limit)
    given = None if change.metadata is unset else change.metadata
    metadata = _metadata(given, limits, problems)
    if problems:
        raise Invalid(problems=tuple(problems))
    archived = None if change.archived is unset else change.archived
    # Without If-Match a second call finds the first one's work and changes nothing.
    if if_rev is not None and not 0 <= if_rev < 1 << 63:
        raise Stale
    rows = await database.verb(
        PATCH,
        conversation_id,
        actor,
        if_rev,
        title,
        metadata,
        limit,
        archived,
        again=if_rev is None,
        touches=conversation_id,
        people=archived is not None,
    )
    return int(rows[0][0])


async def erase(database: Database, conversation_id: UUID, actor: str | None) -> None:
    """Erase a conversation with everything in it; only its id is remembered, as gone.

    Raises:
        NotFound: It is not there, or not the actor's to see.
        Forbidden: Only its owner erases it.
        Gone: It was erased before.
    """
    await database.verb(
        ERASE, conversation_id, actor, again=False, touches=conversation_id, people=True
    )


def no_such_agent() -> Invalid:
    """Refuse an agent that is not there, or not any more."""
    return Invalid.at("/agent_id", "unknown-agent", "There is no agent with this id.")


def _problems(
    limits: Limits,
    *,
    title: str | None = None,
    subject: str | None = None,
    limit: int | None = None,
) -> list[Problem]:
    problems: list[Problem] = []
    for value, field, longest in (
        (title, "title", limits.title),
        (subject, "subject", limits.name),
    ):
        if value is None:
            continue
        if found := text.faults(value, f"/{field}"):
            problems.append(found)
        elif len(value.encode()) > longest:
            problems.append(Problem(f"/{field}", "too-long", f"At most {longest} bytes."))
        elif not value and field != "title":
            problems.append(Problem(f"/{field}", "empty", "It may be left out, not be empty."))
    if limit is not None and not 0 <= limit <= HISTORY_LIMIT:
        problems.append(Problem("/history_limit", "range", f"From 0 to {HISTORY_LIMIT}."))
    return problems


def _metadata(
    given: Mapping[str, Any] | None, limits: Limits, problems: list[Problem]
) -> str | None:
    if given is None:
        return None
    try:
        encoded = jsonb.encode(given)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        problems.append(Problem("/metadata", "not-json", f"This is no JSON value: {error}"))
        return None
    if len(encoded) > limits.metadata:
        raise PayloadTooLarge(
            f"/metadata has {len(encoded)} bytes; at most {limits.metadata} are accepted."
        )
    if b"\\u0000" in encoded and (found := text.deep_faults(dict(given), "/metadata")):
        problems.append(found)
    return encoded.decode()
