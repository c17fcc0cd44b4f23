"""Speak on a subject: one active conversation per person and subject, made by the first message."""

from __future__ import annotations

from hashlib import blake2b
from typing import NamedTuple
from uuid import UUID

from greffier.change.append import Appended
from greffier.change.conversation import no_such_agent
from greffier.errors import AgentFixed, Invalid
from greffier.model import person, text
from greffier.model.draft import Speaker, check
from greffier.model.ids import uuid7
from greffier.model.limits import DEFAULT, Limits
from greffier.model.message import Draft
from greffier.model.row import Row, Stored
from greffier.store.database import Database
from greffier.store.refusals import refusal

SAY = (
    "select outcome, seq, parent_seq, rev, created_at, author_id, conversation_id, created"
    " from say_on_subject_v1($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)"
)


class Said(NamedTuple):
    """The message, and whether its conversation was made for it."""

    appended: Appended
    created: bool


async def say(
    database: Database,
    subject: str,
    draft: Draft,
    owner: str,
    speaker: Speaker,
    *,
    agent_id: UUID | None = None,
    limits: Limits = DEFAULT,
) -> Said:
    """Append words to the owner's active conversation on a subject, made if there is none.

    An id already said on this subject, also in a conversation archived since, is that message.

    Raises:
        Invalid: The subject or the message breaks a rule, or there is no such agent.
        AgentFixed: The conversation has another agent.
        IdReused: The id names another message on this subject.
    """
    person.check(owner, "/user_id")
    if not subject:
        raise Invalid.at("/subject", "empty", "A subject has a name.")
    if problem := text.faults(subject, "/subject"):
        raise Invalid(problems=(problem,))
    if len(subject.encode()) > limits.name:
        raise Invalid.at("/subject", "too-long", f"At most {limits.name} bytes.")
    checked = check(draft, speaker, limits=limits)
    row = Row._make(checked.columns)
    made = uuid7()
    # Its id is ours, so nobody can ask for the same conversation by another request.
    request_hash = UUID(bytes=blake2b(made.bytes, digest_size=16).digest())
    try:
        (found,) = await database.verb(
            SAY,
            owner,
            subject,
            agent_id,
            made,
            request_hash,
            checked.id,
            checked.request_hash,
            row.author_name,
            row.written_by,
            row.content,
            checked.fresh,
            # A call whose fate is unknown is made again with the same id, looked for.
            again=not checked.fresh,
        )
    except Invalid:
        raise no_such_agent() from None
    database.committed(found["conversation_id"], found["rev"] or 0, people=found["created"])
    if found["outcome"] == "agent-fixed":
        raise AgentFixed
    if found["outcome"] not in ("stored", "replayed"):
        raise refusal(found["outcome"])
    stored = Stored._make(list(found.values())[:6])
    appended = await Appended.complete(database, found["conversation_id"], [row], [stored])
    return Said(appended, found["created"])
