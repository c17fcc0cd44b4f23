"""Pages of messages, and one message whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple
from uuid import UUID

import msgspec

from greffier.errors import Error, Gone, Invalid, NotFound
from greffier.model.limits import DEFAULT, Limits
from greffier.store.database import Database


@dataclass(frozen=True, slots=True)
class Where:
    """Which stretch: the latest, or at most one of before, after and around (a seq)."""

    limit: int = 15
    before: int | None = None
    after: int | None = None
    around: int | None = None
    superseded: bool = False

    def window(self) -> tuple[int | None, int, int]:
        """Say it as the query does: an anchor, how many up to it, how many above it."""
        if self.before is not None:
            return self.before - 1, self.limit, 0
        if self.after is not None:
            return self.after, 0, self.limit
        if self.around is not None:
            upto = (self.limit + 1) // 2
            return self.around, upto, self.limit - upto
        return None, self.limit, 0


class Found(NamedTuple):
    """A page as it came: JSON pieces, and the numbers around them."""

    data: bytes
    authors: bytes
    has_before: bool
    has_after: bool
    total: int
    rev: int
    epoch: str
    #: the rev that last changed the active path: two pages with the same one are of one path
    path_rev: int

    def body(self) -> bytes:
        """Put the page together as the API shows it (contract.md, messages)."""
        return (
            b'{"data":[%b],"has_before":%b,"has_after":%b,"total":%d,"authors":{%b},"rev":%d,"epoch":"%b"}'
            % (
                self.data,
                b"true" if self.has_before else b"false",
                b"true" if self.has_after else b"false",
                self.total,
                self.authors,
                self.rev,
                self.epoch.encode(),
            )
        )


#: Pages of more messages, and whole ones, are read by themselves: no small one waits for them.
SMALL = 60

#: PostgreSQL's bigint; a larger anchor is beyond every conversation.
_MAX = (1 << 63) - 2


def check(where: Where, limits: Limits) -> None:
    """Refuse a stretch that makes no sense.

    Raises:
        Invalid: More than one of before, after and around, or a number out of range.
    """
    if sum(one is not None for one in (where.before, where.after, where.around)) > 1:
        raise Invalid.at("", "exclusive", "At most one of before, after and around.")
    if not 1 <= where.limit <= limits.page_messages:
        raise Invalid.at("/limit", "range", f"From 1 to {limits.page_messages}.")
    for name in ("before", "after", "around"):
        value = getattr(where, name)
        if value is not None and not 0 <= value <= _MAX:
            raise Invalid.at(f"/{name}", "range", "A seq is a number from 0.")


async def page(
    database: Database,
    conversation_id: UUID,
    reader: str | None,
    where: Where,
    *,
    limits: Limits = DEFAULT,
    whole: bool = False,
) -> Found:
    """Read a page of the active path, or of the whole record.

    It costs the same wherever it lies and however long the conversation is.  It ends early when its
    messages would be more than ``limits.page_bytes``, but never before the first.

    Args:
        database: Where.
        conversation_id: Which.
        reader: For whom; None is the service.
        where: Which stretch.
        limits: How much at most, and from where a content is cut.
        whole: Do not cut contents (for contexts and exports).

    Raises:
        Invalid: The stretch makes no sense.
        NotFound: There is no such conversation, or it is not the reader's.
        Gone: It was erased.
    """
    check(where, limits)
    anchor, upto, above = where.window()
    rows = await database.read(
        "page",
        conversation_id,
        reader,
        anchor,
        upto,
        above,
        where.superseded,
        None if whole else limits.cut,
        limits.page_bytes,
        together=where.limit <= SMALL and not whole,
    )
    if not rows:
        raise await why_absent(database, conversation_id)
    row = rows[0]
    low, high = row["lo"], row["hi"]
    first, last = row["path_lo"], row["path_hi"]
    if low is None:
        # Nothing in this stretch: what lies on either side of the anchor?
        edge = last if anchor is None else anchor
        has_before = first is not None and edge is not None and first <= edge
        has_after = last is not None and edge is not None and last > edge
    else:
        has_before, has_after = first < low, last > high
    return Found(
        (row["data"] or "").encode(),
        (row["authors"] or "").encode(),
        has_before,
        has_after,
        row["total"],
        row["rev"],
        database.epoch,
        row["path_rev"],
    )


async def with_readers(database: Database, conversation_id: UUID, found: Found) -> Found:
    """Add to each message of a page who has read it and when (``read_by``), never its author.

    It is read after the page and may know of a reader more; it costs as many marks as the page has
    messages times participants, and so only on request.
    """
    messages = _messages(b"[%b]" % found.data)
    rows = await database.read("readers_of", conversation_id, [one["seq"] for one in messages])
    by_seq = {row["seq"]: msgspec.Raw(row["body"].encode()) for row in rows}
    for one in messages:
        one["read_by"] = by_seq.get(one["seq"], [])
    return found._replace(data=msgspec.json.encode(messages)[1:-1])


_messages = msgspec.json.Decoder(list[dict[str, Any]]).decode


async def one(
    database: Database, conversation_id: UUID, reader: str | None, seq: int
) -> tuple[bytes, int]:
    """Read one message, whole, on the active path or not.

    Returns:
        Its JSON, and the rev that last changed it.

    Raises:
        NotFound: There is no such message, or it is not the reader's to see.
    """
    if not 1 <= seq <= _MAX:
        raise NotFound
    rows = await database.read("get_message", conversation_id, reader, seq)
    if not rows:
        raise await why_absent(database, conversation_id)
    return rows[0]["body"].encode(), rows[0]["rev"]


async def known(
    database: Database, conversation_id: UUID, reader: str | None, ids: Sequence[UUID]
) -> int:
    """Count how many of these are messages of role ``user`` that the reader may see here."""
    (row,) = await database.read("known_messages", conversation_id, reader, ids)
    return int(row["known"])


async def known_on_subject(
    database: Database, owner: str, subject: str, ids: Sequence[UUID]
) -> int:
    """Count how many of these were said on a subject of its owner's, archived or not."""
    (row,) = await database.read("known_on_subject", owner, subject, ids)
    return int(row["known"])


async def why_absent(database: Database, conversation_id: UUID) -> Error:
    """Say why a conversation was not found: erased, or not there for this reader."""
    rows = await database.read("why_absent", conversation_id)
    return Gone() if rows[0][0] == "gone" else NotFound()
