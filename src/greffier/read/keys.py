"""Find API keys: the one that somebody brings, and those that somebody has."""

from __future__ import annotations

from typing import NamedTuple
from uuid import UUID

from greffier.errors import Invalid
from greffier.model.ids import parse_uuid
from greffier.model.key import ApiKey, key_hash
from greffier.store.database import Database

#: Above every id of ours: where a list begins.
_START = UUID(int=(1 << 128) - 1)


class Found(NamedTuple):
    """A living key, with the name and e-mail of its user, who may not have been seen yet."""

    key: ApiKey
    user_name: str | None
    user_email: str | None


async def find(database: Database, key: str) -> Found | None:
    """Find the living key that somebody brings."""
    rows = await database.read("find_key", key_hash(key))
    if not rows:
        return None
    found = dict(rows[0])
    name, email = found.pop("user_name"), found.pop("user_email")
    return Found(ApiKey(**found), name, email)


async def listing(
    database: Database, user: str | None, *, limit: int = 20, cursor: str | None = None
) -> tuple[list[ApiKey], str | None]:
    """List a user's keys, or all of them for an admin (None), newest first.

    Returns:
        The keys, and a cursor for what follows (None at the end).

    Raises:
        Invalid: The limit is out of range, or the cursor is none of ours.
    """
    if not 1 <= limit <= 100:
        raise Invalid.at("/limit", "range", "From 1 to 100.")
    before = _START if cursor is None else parse_uuid(cursor)
    if before is None:
        raise Invalid.at("/cursor", "cursor", "This is no cursor of ours.")
    rows = await database.read("list_keys", user, before, limit + 1)
    keys = [ApiKey(**dict(row)) for row in rows[:limit]]
    return keys, str(keys[-1].id) if len(rows) > limit else None
