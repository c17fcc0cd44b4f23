"""What a message said before, and the paths that were left."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from greffier.errors import NotFound
from greffier.read.pages import why_absent
from greffier.store.database import Database


class Version(msgspec.Struct, frozen=True, kw_only=True):
    """An earlier text of a message: what it was, and when and by whom it was replaced."""

    content: str | None
    parts: list[dict[str, Any]] | None
    written_at: datetime
    replaced_at: datetime
    replaced_by: str
    rev: int


class Branch(msgspec.Struct, frozen=True, kw_only=True):
    """A path that was left: its stretches of seqs, when, and how its last message begins."""

    id: UUID
    path: list[tuple[int, int]]
    left_at_rev: int
    last_seq: int
    preview: str | None


_path = msgspec.json.Decoder(list[tuple[int, int]]).decode
_parts = msgspec.json.Decoder(list[dict[str, Any]]).decode


async def versions(
    database: Database, conversation_id: UUID, reader: str | None, seq: int
) -> list[Version]:
    """List the earlier texts of a message, oldest first; a deleted message shows none.

    Raises:
        NotFound, Gone: There is no such message, or it is not the reader's to see.
    """
    if not 1 <= seq < 1 << 63:
        raise NotFound
    rows = await database.read("versions", conversation_id, reader, seq)
    if not rows:
        raise await why_absent(database, conversation_id)
    return [
        Version(
            content=row["content"],
            parts=_parts(row["parts"]) if row["parts"] else None,
            written_at=row["written_at"],
            replaced_at=row["replaced_at"],
            replaced_by=row["replaced_by"],
            rev=row["rev"],
        )
        for row in rows
        if row["rev"] is not None
    ]


async def branches(database: Database, conversation_id: UUID, reader: str | None) -> list[Branch]:
    """List the paths that were left, the last left first.

    Raises:
        NotFound, Gone: The conversation is not there, or not the reader's.
    """
    rows = await database.read("branches", conversation_id, reader)
    if not rows:
        raise await why_absent(database, conversation_id)
    return [
        Branch(
            id=row["id"],
            path=_path(row["path"]),
            left_at_rev=row["left_at_rev"],
            last_seq=row["last_seq"],
            preview=row["preview"],
        )
        for row in rows
        if row["id"] is not None
    ]
