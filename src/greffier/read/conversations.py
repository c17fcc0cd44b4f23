"""One conversation, and a user's list of them."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from greffier.errors import Invalid
from greffier.read.pages import why_absent
from greffier.store.database import Database

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
#: Before the first of a list: later than every activity.
_START = (datetime(9999, 12, 31, tzinfo=UTC), UUID(int=(1 << 128) - 1))


async def get(database: Database, conversation_id: UUID, reader: str | None) -> tuple[bytes, int]:
    """Read one conversation as its reader sees it.

    Returns:
        Its JSON, and its rev.

    Raises:
        NotFound: It is not there, or not the reader's.
        Gone: It was erased.
    """
    rows = await database.read("get_conversation", conversation_id, reader, database.epoch)
    if not rows:
        raise await why_absent(database, conversation_id)
    return rows[0]["body"].encode(), rows[0]["rev"]


@dataclass(frozen=True, slots=True)
class Filter:
    """Which of a user's conversations."""

    kind: str | None = None
    subject: str | None = None
    archived: bool = False


async def listing(
    database: Database,
    user: str,
    which: Filter,
    *,
    limit: int = 20,
    cursor: str | None = None,
) -> tuple[list[bytes], str | None, int]:
    """List a user's conversations, last activity first.

    The list's rev is read before the rows: what a client then asks for since that rev may repeat
    something it has, and never lacks anything.

    Returns:
        The conversations' JSON, a cursor for what follows (None at the end), and the list's rev.

    Raises:
        Invalid: The limit is out of range, or the cursor is none of ours.
    """
    if not 1 <= limit <= 100:
        raise Invalid.at("/limit", "range", "From 1 to 100.")
    at, after = _read_cursor(cursor) if cursor else _START
    (rev,) = await database.read("list_rev", user)
    rows = await database.read(
        "list_conversations",
        user,
        database.epoch,
        which.archived,
        which.kind,
        which.subject,
        at,
        after,
        limit + 1,
    )
    more = len(rows) > limit
    rows = rows[:limit]
    following = _cursor(rows[-1]["updated_at"], rows[-1]["id"]) if more else None
    return [row["body"].encode() for row in rows], following, rev[0]


def _cursor(at: datetime, after: UUID) -> str:
    microseconds = (at - _EPOCH) // timedelta(microseconds=1)
    raw = microseconds.to_bytes(8, "big") + after.bytes
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def _read_cursor(cursor: str) -> tuple[datetime, UUID]:
    try:
        raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        at = _EPOCH + timedelta(microseconds=int.from_bytes(raw[:8], "big"))
        return at, UUID(bytes=raw[8:])
    except (ValueError, OverflowError, binascii.Error) as error:
        raise Invalid.at("/cursor", "cursor", "This is no cursor of ours.") from error
