"""A thumb up or down, and a word about it."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

import msgspec

from greffier.errors import Invalid, NotFound, PayloadTooLarge
from greffier.model import text
from greffier.store.database import Database

RATE = "select rate_v1($1, $2, $3, $4, $5)"

#: Bytes of a comment.
LONGEST = 4096


class Feedback(msgspec.Struct, frozen=True):
    """What somebody thinks of a message, or of the conversation."""

    rating: int
    comment: str | None
    user_id: str
    at: datetime


async def rate(
    database: Database,
    conversation_id: UUID,
    seq: int | None,
    user: str,
    rating: int,
    comment: str | None = None,
) -> Feedback:
    """Give or change one's feedback on a message, or on the conversation (``seq`` None).

    Raises:
        Invalid: The rating is neither 1 nor -1.
        NotFound, Gone: There is no such message or conversation, or it is not theirs to see.
    """
    if rating not in (1, -1):
        raise Invalid.at("/rating", "range", "1 or -1.")
    if comment is not None:
        if problem := text.faults(comment, "/comment"):
            raise Invalid(problems=(problem,))
        if len(comment.encode()) > LONGEST:
            raise PayloadTooLarge(f"/comment has more than {LONGEST} bytes.")
    at = _at(seq)
    (row,) = await database.verb(RATE, conversation_id, user, at, rating, comment, again=True)
    return Feedback(rating, comment, user, row[0])


async def unrate(database: Database, conversation_id: UUID, seq: int | None, user: str) -> None:
    """Take one's feedback back; there is none afterwards, whether or not there was one.

    Raises:
        NotFound, Gone: There is no such message or conversation, or it is not theirs to see.
    """
    await database.verb(RATE, conversation_id, user, _at(seq), None, None, again=True)


def _at(seq: int | None) -> int:
    """Where it is kept: under a message's number, or 0 for the whole conversation."""
    if seq is None:
        return 0
    if not 1 <= seq < 1 << 63:
        raise NotFound
    return seq
