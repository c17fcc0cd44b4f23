"""Catching up: what a reader who knows an earlier rev lacks."""

from __future__ import annotations

from typing import NamedTuple
from uuid import UUID

from greffier.errors import Invalid
from greffier.model.limits import DEFAULT, Limits
from greffier.read.pages import why_absent
from greffier.store.database import Database


class Changes(NamedTuple):
    """What spans ``(since, rev]``, as JSON pieces; ``more`` says that rev is not the end yet."""

    since: int
    rev: int
    reset: bool
    more: bool
    messages: bytes
    superseded: bytes
    conversation: bytes
    participants: bytes
    epoch: str

    def body(self) -> bytes:
        """Put it together as the API shows it (contract.md, changes)."""
        return (
            b'{"epoch":"%b","since":%d,"rev":%d,"reset":%b,"next":%b,"messages":[%b],'
            b'"superseded":%b,"conversation":%b,"participants":%b}'
        ) % (
            self.epoch.encode(),
            self.since,
            self.rev,
            b"true" if self.reset else b"false",
            b"true" if self.more else b"false",
            self.messages,
            self.superseded,
            self.conversation,
            self.participants,
        )


async def changes(
    database: Database,
    conversation_id: UUID,
    reader: str | None,
    since: int,
    *,
    epoch: str | None = None,
    limits: Limits = DEFAULT,
) -> Changes:
    """Read what changed since a rev: each message once, as it is now.

    Applied to what was seen at ``since`` it gives what a fresh read gives at the returned rev.

    Args:
        database: Where.
        conversation_id: Which.
        reader: For whom; None is the service.
        since: The rev the reader knows.
        epoch: The history it belongs to; another one than ours is a reset.
        limits: How much at most.

    Raises:
        Invalid: ``since`` is negative.
        NotFound: There is no such conversation, or it is not the reader's.
        Gone: It was erased.
    """
    if not 0 <= since < 1 << 63:
        raise Invalid.at("/since", "range", "A rev is a number from 0.")
    # Of another history every number means something else: ask from beyond the end.
    asked = since if epoch in (None, database.epoch) else (1 << 62)
    rows = await database.read(
        "changes",
        conversation_id,
        reader,
        asked,
        database.epoch,
        limits.cut,
        limits.page_bytes,
    )
    if not rows:
        raise await why_absent(database, conversation_id)
    row = rows[0]
    return Changes(
        since,
        row["upto"],
        row["reset"],
        row["more"],
        row["messages"].encode(),
        row["superseded"].encode(),
        row["conversation"].encode(),
        (row["participants"] or "null").encode(),
        database.epoch,
    )
