"""Append: put messages on record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple
from uuid import UUID

import msgspec.json

from greffier.errors import Gone
from greffier.model import wire
from greffier.model.draft import Checked, Speaker, check, check_all
from greffier.model.limits import DEFAULT, Limits
from greffier.model.message import Draft, Message
from greffier.model.row import Row, Stored
from greffier.store.database import Database

_decode = msgspec.json.Decoder(Message).decode


class Appended(NamedTuple):
    """What an append answers: the messages as they stand, and the rev that brought them.

    ``created`` is false when every one was there before.
    """

    conversation_id: UUID
    rows: Sequence[Row]
    stored: Sequence[Stored]
    rev: int
    created: bool
    #: JSON of those that were there before, as they stand now, by seq
    earlier: Mapping[int, bytes]

    @classmethod
    async def complete(
        cls,
        database: Database,
        conversation_id: UUID,
        rows: Sequence[Row],
        stored: Sequence[Stored],
    ) -> Appended:
        """Make the answer; messages that were there before are read as they stand now.

        Raises:
            Gone: Their conversation was erased between the write and this read.
        """
        seqs = [one.seq for one in stored if one.outcome == "replayed"]
        if not seqs:
            return cls(conversation_id, rows, stored, stored[-1].rev, True, {})
        found = await database.read("messages_by_seq", conversation_id, seqs)
        earlier = {row["seq"]: row["body"].encode() for row in found}
        if len(earlier) < len(set(seqs)):
            raise Gone
        news = [one.rev for one in stored if not one.replayed]
        rev = max([*news, *(row["rev"] for row in found)])
        return cls(conversation_id, rows, stored, rev, created=bool(news), earlier=earlier)

    def bodies(self) -> list[bytes]:
        """The messages as the API shows them."""
        return [
            self.earlier[one.seq] if one.replayed else wire.message(self.conversation_id, row, one)
            for row, one in zip(self.rows, self.stored, strict=True)
        ]

    def messages(self) -> list[Message]:
        """The messages as values."""
        return [
            _decode(self.earlier[one.seq])
            if one.replayed
            else wire.value(self.conversation_id, row, one)
            for row, one in zip(self.rows, self.stored, strict=True)
        ]


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
    if len(checked) == 1:
        # As most are: what follows is a tenth of an append's time in Python.
        (alone,) = checked
        rows, size, fresh = [Row._make(alone.columns)], alone.size, alone.fresh
    else:
        rows = [Row._make(one.columns) for one in checked]
        size = sum(one.size for one in checked)
        fresh = all(one.fresh for one in checked)
    stored = await database.writer.append(
        conversation_id, speaker.actor, rows, size=size, fresh=fresh
    )
    if len(stored) == 1 and stored[0].outcome == "stored":
        return Appended(conversation_id, rows, stored, stored[0].rev, True, {})
    return await Appended.complete(database, conversation_id, rows, stored)
