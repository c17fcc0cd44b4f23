"""Find API keys: the one that somebody brings, and those that somebody has."""

from __future__ import annotations

from greffier.model.key import ApiKey, key_hash
from greffier.store.database import Database


async def find(database: Database, key: str) -> ApiKey | None:
    """Find the living key that somebody brings."""
    rows = await database.read("find_key", key_hash(key))
    return ApiKey(**dict(rows[0])) if rows else None


async def listing(database: Database, user: str | None) -> list[ApiKey]:
    """List a user's keys, or all of them for an admin (None), newest first."""
    rows = await database.read("list_keys", user)
    return [ApiKey(**dict(row)) for row in rows]
