"""What a user's list looks like to somebody who follows it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple
from uuid import UUID

import msgspec

from greffier.store.database import Database

#: Entries in one change of a list.
MOST = 100


class ListChanges(NamedTuple):
    """What spans ``(since, list_rev]`` of a user's list; ``more`` says that it goes on."""

    since: int
    list_rev: int
    more: bool
    conversations: list[bytes]
    removed: list[UUID]

    def body(self) -> bytes:
        """Write it as it is sent (contract.md, ``list``)."""
        return b'{"since":%d,"list_rev":%d,"conversations":[%b],"removed":%b}' % (
            self.since,
            self.list_rev,
            b",".join(self.conversations),
            msgspec.json.encode(self.removed),
        )


async def rev(database: Database, user: str) -> int:
    """Say how often a user's list has changed."""
    rows = await database.read("list_rev", user)
    found: int = rows[0][0]
    return found


async def changes(database: Database, user: str, since: int) -> ListChanges | None:
    """Read what joined or left a user's list since a list_rev; None when nothing did.

    A list_rev ahead of ours is of a history that is no more: everything is told again from 0.
    """
    now = await rev(database, user)
    if since == now:
        return None
    asked = since if since < now else 0
    rows = await database.read("list_changes", user, database.epoch, asked, MOST + 1)
    more = len(rows) > MOST
    rows = rows[:MOST]
    return ListChanges(
        since,
        rows[-1]["list_rev"] if more else max(now, *(row["list_rev"] for row in rows), 0),
        more,
        [row["body"].encode() for row in rows if row["body"] is not None],
        [row["conversation_id"] for row in rows if row["body"] is None],
    )


async def members(database: Database, conversations: Sequence[UUID]) -> dict[UUID, frozenset[str]]:
    """Say who takes part in each of these; one that is gone is not there."""
    rows = await database.read("members", conversations)
    return {row["conversation_id"]: frozenset(row["user_ids"]) for row in rows}


async def newest(database: Database, user: str) -> list[tuple[UUID, int]]:
    """Give a user's most recently listed conversations with their revs."""
    return [(row["id"], row["rev"]) for row in await database.read("newest_of", user)]


class Activity(NamedTuple):
    """What a conversation shows of itself to one of its people."""

    user_id: str
    rev: int
    body: bytes


async def activities(
    database: Database, conversation_id: UUID, users: Sequence[str]
) -> list[Activity]:
    """Say for each of these who takes part: rev, last message, and how many wait."""
    rows = await database.read("activities", conversation_id, users)
    return [Activity(row["user_id"], row["rev"], row["body"].encode()) for row in rows]
