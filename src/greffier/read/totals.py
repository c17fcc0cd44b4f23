"""How much is on record: in the whole database, or in a user's conversations."""

from __future__ import annotations

from datetime import datetime

import msgspec

from greffier.read.stats import RoleCounts
from greffier.store.database import Database


class Totals(msgspec.Struct, frozen=True):
    """Everything on record, superseded and deleted messages too; ``bytes`` are those of texts."""

    conversations: int
    archived: int
    messages: int
    deleted: int
    roles: RoleCounts
    bytes: int
    first_at: datetime | None
    last_at: datetime | None


async def totals(database: Database, user: str | None) -> Totals:
    """Count everything, or what is in the conversations a user takes part in; it reads it all.

    Raises:
        Unavailable: The database is away.
    """
    (row,) = await database.read("totals", user)
    return Totals(
        conversations=row["conversations"],
        archived=row["archived"],
        messages=row["messages"],
        deleted=row["deleted"],
        roles=RoleCounts(row["user"], row["assistant"], row["tool"], row["system"]),
        bytes=row["bytes"],
        first_at=row["first_at"],
        last_at=row["last_at"],
    )
