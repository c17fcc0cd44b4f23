"""Ask an agent for an answer, and take the request back."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from hashlib import blake2b
from typing import Literal, TypeAlias
from uuid import UUID

from greffier.change.path import check_seq, off_path
from greffier.errors import Error, IdReused, Invalid, NotFound, QuotaExceeded, RunActive
from greffier.model.draft import Checked, Speaker, check
from greffier.model.ids import uuid7
from greffier.model.limits import DEFAULT, Limits
from greffier.model.message import Draft
from greffier.model.row import Row
from greffier.store.database import Database
from greffier.store.refusals import refusal

#: Who asks: a caller who waits for it, or the inbox, whose runs are tried again by themselves.
Origin: TypeAlias = Literal["api", "inbox"]

_START = (
    "select * from start_run_v1($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15,"
    " $16, $17, $18, $19, $20, $21, $22, $23)"
)
_CANCEL = "select run, rev from cancel_run_v1($1, $2, $3)"
#: Seconds after which somebody who was refused because of another run may ask again.
TRY_AGAIN = 1.0


@dataclass(frozen=True, slots=True)
class Asked:
    """What became of asking.

    Attributes:
        run_id: The run, new or found.
        body: It as the API shows it.
        created: Whether it is new; otherwise the same request had been made before.
        message_stored: Whether the message that came with it is new.
        rev: The conversation's rev.
    """

    run_id: UUID
    body: bytes
    created: bool
    message_stored: bool
    rev: int


async def start(
    database: Database,
    conversation_id: UUID,
    speaker: Speaker,
    *,
    run_id: UUID | None = None,
    message: Draft | None = None,
    rewind_after: int | None = None,
    asked_by: str | None = None,
    origin: Origin = "api",
    delay: float = 0.0,
    limits: Limits = DEFAULT,
) -> Asked:
    """Ask the conversation's agent for an answer.

    First the conversation is rewound if that is asked for, then the message is put on record if
    there is one; all of it or nothing.  The same id again finds the run.

    Args:
        database: Where.
        conversation_id: In which conversation.
        speaker: Who asks, and who says the message.
        run_id: The caller's own id for the run, its idempotency key.
        message: What is said before.
        rewind_after: The last seq that stays on the active path.
        asked_by: Who pays; the conversation's owner when not given.
        origin: Whether it is tried again by itself.
        delay: Seconds after which it begins at the earliest.
        limits: How large a message may be.

    Raises:
        Invalid: The conversation has no agent, or the message breaks a rule.
        RunActive: Another run answers here; nothing was stored.
        QuotaExceeded: Whoever pays has used up their month; nothing was stored.
        IdReused: The id names another run, or the message's id another message.
        NotFound, Gone, Forbidden, Archived, Unavailable: See the errors.
    """
    if rewind_after is not None:
        check_seq(rewind_after, "/rewind_after")
    made = run_id or uuid7()
    checked = (
        None if message is None else check(message, speaker, limits=limits, pointer="/message")
    )
    row = None if checked is None else Row._make(checked.columns)
    try:
        found = await database.verb(
            _START,
            conversation_id,
            speaker.actor,
            made,
            _hash(checked, rewind_after),
            asked_by,
            origin,
            timedelta(seconds=delay),
            rewind_after,
            uuid7(),
            *((None,) * len(Row._fields) if row is None else row),
            # With an id of the caller's own a second call finds the first; ours is known to nobody,
            # so that it does the same.
            again=True,
        )
    except Invalid:
        raise off_path("/rewind_after") from None
    answer = found[0]
    outcome: str = answer["outcome"]
    if outcome not in ("created", "attached"):
        raise _refusal(outcome, answer["detail"])
    database.committed(conversation_id, answer["rev"], people=False)
    return Asked(
        made,
        answer["run"].encode(),
        outcome == "created",
        bool(answer["message_stored"]),
        answer["rev"],
    )


def _hash(checked: Checked | None, rewind_after: int | None) -> bytes:
    """Hash what is asked for, so that another request under the same id is refused."""
    digest = blake2b(digest_size=16)
    if checked is not None:
        digest.update(checked.request_hash)
        # An id that we made is another one each time, and says nothing.
        digest.update(b"" if checked.fresh else checked.id.bytes)
    digest.update(b"/" if rewind_after is None else b"/%d" % rewind_after)
    return digest.digest()


def _refusal(outcome: str, detail: str | None) -> Error:
    match outcome:
        case "run-active":
            return RunActive(retry_after=TRY_AGAIN)
        case "quota-exceeded":
            return QuotaExceeded(None if detail is None else f"{detail[:1].upper()}{detail[1:]}.")
        case "no-agent":
            return Invalid.at("", "no-agent", "This conversation has no agent that could answer.")
        case "id-reused":
            return IdReused()
        case _:
            return refusal(outcome)


async def cancel(
    database: Database, conversation_id: UUID, run_id: UUID, actor: str | None
) -> bytes:
    """End a run as cancelled, with what it had said; one that was over stays as it was.

    Returns:
        The run as the API shows it.

    Raises:
        NotFound, Gone, Forbidden, Unavailable: See the errors.
    """
    rows = await database.verb(_CANCEL, conversation_id, actor, run_id, again=True)
    if not rows:
        raise NotFound
    database.committed(conversation_id, rows[0]["rev"], people=False)
    body: str = rows[0]["run"]
    return body.encode()
