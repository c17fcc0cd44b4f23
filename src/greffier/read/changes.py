"""Catching up: what a reader who knows an earlier rev lacks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple
from uuid import UUID

import msgspec

from greffier.errors import Invalid
from greffier.model.limits import DEFAULT, Limits
from greffier.read.pages import why_absent
from greffier.store.database import Database

_NOBODY, _AFTER_ME = b'"me":null}', b',"participants":'


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

    def around_me(self) -> tuple[bytes, bytes]:
        """Give the body as two pieces, between which belongs the ``me`` of whoever reads it."""
        body = self.body()
        at = len(body) - len(_AFTER_ME) - len(self.participants) - 1
        assert body.endswith(_NOBODY, 0, at)
        return body[: at - len(b"null}")], body[at - 1 :]


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
    return _changes(rows[0], since, database.epoch)


def _changes(row: Any, since: int, epoch: str) -> Changes:
    return Changes(
        since,
        row["upto"],
        row["reset"],
        row["more"],
        row["messages"].encode(),
        row["superseded"].encode(),
        row["conversation"].encode(),
        (row["participants"] or "null").encode(),
        epoch,
    )


class Arrivals(NamedTuple):
    """What several people who come at once are told, all of one snapshot.

    ``changes`` are as the service sees them.  ``everybody`` is None when who takes part is as it
    was at the rev that was known; ``mine`` holds the ``me`` of each of those who came.
    """

    changes: Changes
    people_rev: int
    everybody: bytes | None
    mine: dict[str, msgspec.Raw]


_mine = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


async def arrivals(
    database: Database,
    conversation_id: UUID,
    since: int,
    people_rev: int,
    users: Sequence[str],
    *,
    limits: Limits = DEFAULT,
) -> Arrivals:
    """Read once what many who come at the same time lack.

    Who of them may see it is for the caller to decide, by who takes part.

    Args:
        database: Where.
        conversation_id: Which.
        since: The rev they know.
        people_rev: The one of the people that are known; they are not told again.
        users: Who came.
        limits: How much at most.

    Raises:
        NotFound, Gone: There is no such conversation.
    """
    rows = await database.read(
        "arrivals",
        conversation_id,
        since,
        database.epoch,
        limits.cut,
        limits.page_bytes,
        people_rev,
        users,
    )
    if not rows:
        raise await why_absent(database, conversation_id)
    row = rows[0]
    everybody = row["everybody"]
    return Arrivals(
        _changes(row, since, database.epoch),
        row["people_rev"],
        None if everybody is None else everybody.encode(),
        _mine(row["mine"]),
    )
