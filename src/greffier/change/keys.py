"""Make and revoke API keys."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime
from uuid import UUID

from greffier.errors import Invalid, NotFound
from greffier.model import text
from greffier.model.ids import uuid7
from greffier.model.key import PREFIX, ApiKey, Scope, key_hash
from greffier.model.limits import DEFAULT
from greffier.store.database import Database

LAST_YEAR = 9999

MAKE = (
    "insert into api_keys (id, key_hash, scope, user_id, name, created_by, expires_at)"
    " values ($1, $2, $3, $4, $5, $6, $7) returning created_at"
)
REVOKE = "delete from api_keys where id = $1 and ($2::text is null or user_id = $2) returning id"


async def make(
    database: Database,
    *,
    scope: Scope,
    user: str | None,
    name: str,
    created_by: str,
    expires_at: datetime | None = None,
) -> tuple[ApiKey, str]:
    """Make a key.

    Args:
        database: Where.
        scope: ``user`` acts as ``user``, ``service`` for whom it names, ``ops`` sees operations.
        user: The user of a key of scope ``user``, and of no other.
        name: For people: what it is for.
        created_by: Who makes it.
        expires_at: From when it is refused; never, when not given.

    Returns:
        The key as it is listed, and the key itself.

    Raises:
        Invalid: A value makes no sense.
    """
    if (scope == "user") != (user is not None):
        raise Invalid.at("/user_id", "scope", "A key of scope user, and no other, has a user.")
    for value, pointer in ((name, "/name"), (user, "/user_id")):
        if value is None:
            continue
        if problem := text.faults(value, pointer):
            raise Invalid(problems=(problem,))
        if not 0 < len(value.encode()) <= DEFAULT.name:
            raise Invalid.at(pointer, "length", f"From 1 to {DEFAULT.name} bytes.")
    if expires_at is not None:
        if expires_at.tzinfo is None:
            raise Invalid.at("/expires_at", "no-time-zone", "A time names its offset from UTC.")
        if expires_at.year >= LAST_YEAR:
            # The last moment of all is infinite to the driver, and an offset may lead beyond it.
            raise Invalid.at("/expires_at", "range", f"It lies before the year {LAST_YEAR}.")
        if expires_at <= datetime.now(UTC):
            raise Invalid.at("/expires_at", "past", "It lies in the future.")
        expires_at = expires_at.astimezone(UTC)
    key = PREFIX + secrets.token_urlsafe(32)
    id_ = uuid7()
    (row,) = await database.verb(
        MAKE, id_, key_hash(key), scope, user, name, created_by, expires_at, again=False
    )
    made = ApiKey(
        id=id_,
        scope=scope,
        user_id=user,
        name=name,
        created_by=created_by,
        created_at=row[0],
        expires_at=expires_at,
    )
    return made, key


async def revoke(database: Database, key_id: UUID, user: str | None) -> None:
    """Let a key open nothing any more.

    Args:
        database: Where.
        key_id: Which.
        user: Whose it must be; None is an admin, who may revoke any.

    Raises:
        NotFound: There is no such key, or it is another's.
    """
    if not await database.verb(REVOKE, key_id, user, again=False):
        raise NotFound
