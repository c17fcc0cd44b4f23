"""What is a user's own: how much it is, and all of it as a file."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime
from uuid import UUID

import msgspec

from greffier.model.tokens import BYTES_PER_TOKEN, PER_MESSAGE
from greffier.read.stats import RoleCounts
from greffier.store.connection import Connection
from greffier.store.database import Database
from greffier.store.queries import queries

#: Ids of conversations fetched ahead.
_IDS = 1000
#: Rows fetched ahead; a message may be 16 MiB, so few.
_PREFETCH = 20


class MyStats(msgspec.Struct, frozen=True):
    """How much is in one's conversations; ``tokens`` is an estimate (model/tokens.py).

    Messages are the undeleted ones on the active paths; ``unread`` is at most 1000 a conversation.
    """

    conversations: int
    archived: int
    messages: RoleCounts
    tokens: int
    unread: int
    first_at: datetime | None
    last_at: datetime | None


async def my_stats(database: Database, user: str) -> MyStats:
    """Count what is in a user's conversations; it reads them all, so it costs as they are long.

    Raises:
        Unavailable: The database is away.
    """
    (row,) = await database.read("my_stats", user)
    return MyStats(
        conversations=row["conversations"],
        archived=row["archived"],
        messages=RoleCounts(row["user"], row["assistant"], row["tool"], row["system"]),
        tokens=round(row["bytes"] / BYTES_PER_TOKEN) + PER_MESSAGE * row["messages"],
        unread=row["unread"],
        first_at=row["first_at"],
        last_at=row["last_at"],
    )


async def export_mine(database: Database, user: str) -> AsyncIterator[bytes]:
    """Write out everything of a user's, one JSON object a line, as of one moment.

    The first line is ``{"profile": …, "keys": […]}``.  Each conversation they are in follows, in
    the order of the ids: ``{"conversation": …, "participants": […], "feedback": […], "read_marks":
    […], "invitations": […]}`` (of the last three their own), then its active path, a message a
    line, as in the conversation's own export, which an import reads back; then ``{"superseded":
    message}`` for what was rewound, and ``{"version": …}`` for the earlier texts of what was
    edited.  At the end come ``{"usage": run}`` for each run of theirs on the ledger.

    Raises:
        Unavailable: The database is away.
    """
    last = UUID(int=0)
    async with database.snapshot() as live:
        async for line in _lines(live, "my_profile", user):
            yield line
        while ids := await live.fetch(queries()["my_conversations"], user, last, _IDS):
            last = ids[-1]["id"]
            for row in ids:
                found = row["id"]
                async for line in _lines(live, "my_part", found, user, database.epoch):
                    yield line
                async for line in _lines(live, "export_messages", found):
                    yield line
                async for line in _lines(live, "superseded_messages", found, within="superseded"):
                    yield line
                async for line in _lines(live, "all_versions", found, within="version"):
                    yield line
        async for line in _lines(live, "my_usage", user, within="usage"):
            yield line


async def _lines(
    live: Connection, query: str, *args: object, within: str | None = None
) -> AsyncIterator[bytes]:
    before, after = (f'{{"{within}":'.encode(), b"}\n") if within else (b"", b"\n")
    async for row in live.cursor(queries()[query], *args, prefetch=_PREFETCH):
        yield before + row["body"].encode() + after
