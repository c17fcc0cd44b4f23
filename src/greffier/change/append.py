"""Append: put messages on record."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

import msgspec

from greffier.model import wire
from greffier.model.draft import Checked, Speaker, check, check_all
from greffier.model.limits import DEFAULT, Limits
from greffier.model.message import Draft
from greffier.store.database import Database
from greffier.store.writer import Row, Stored


class Appended(msgspec.Struct, frozen=True, kw_only=True):
    """What an append answers: the messages as they stand, and the conversation's rev then.

    ``created`` is false when every one was there before.  ``bodies`` are JSON objects.
    """

    bodies: list[bytes]
    rev: int
    created: bool


async def append(
    database: Database,
    conversation_id: UUID,
    drafts: Sequence[Draft],
    speaker: Speaker,
    *,
    limits: Limits = DEFAULT,
    lenient: bool = False,
) -> Appended:
    """Append messages to one conversation, all or none, in one rev.

    Each message's id is its idempotency key: sent again, from anywhere, at once, it is one message,
    and the answer is the message as it now stands.

    Raises:
        Invalid: A draft breaks a rule.
        IdReused: An id names another message here.
        NotFound, Gone, Forbidden, Archived: The conversation is not there, or not to be written to.
        Unavailable: Too much waits, or the database is away.
    """
    if len(drafts) == 1:
        checked = [check(drafts[0], speaker, limits=limits, lenient=lenient)]
    else:
        checked = check_all(list(drafts), speaker, limits=limits, lenient=lenient)
    return await append_checked(database, conversation_id, checked, speaker)


async def append_checked(
    database: Database,
    conversation_id: UUID,
    checked: Sequence[Checked],
    speaker: Speaker,
) -> Appended:
    """Append messages that were already checked."""
    rows = [Row._make(one.columns) for one in checked]
    stored = await database.writer.append(
        conversation_id,
        speaker.actor,
        rows,
        size=sum(one.size for one in checked),
        fresh=all(one.fresh for one in checked),
    )
    bodies = [
        b"" if one.replayed else wire.message(conversation_id, row, one)
        for row, one in zip(rows, stored, strict=True)
    ]
    rev = max((one.rev or 0 for one in stored), default=0)
    if any(one.replayed for one in stored):
        rev = await _read_replayed(database, conversation_id, stored, bodies)
    return Appended(bodies=bodies, rev=rev, created=not all(one.replayed for one in stored))


async def _read_replayed(
    database: Database,
    conversation_id: UUID,
    stored: Sequence[Stored],
    bodies: list[bytes],
) -> int:
    """Fill in the messages that were there before, as they stand now."""
    seqs = [one.seq for one in stored if one.replayed]
    found = await database.read("messages_by_seq", conversation_id, seqs)
    by_seq = {row["seq"]: row["body"] for row in found}
    rev = 0
    for index, one in enumerate(stored):
        if one.replayed and one.seq in by_seq:
            bodies[index] = by_seq[one.seq].encode()
    for row in found:
        rev = max(rev, row["rev"])
    return rev
