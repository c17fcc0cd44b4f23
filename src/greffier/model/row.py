"""A message on its way to the store, and what the store makes of it."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple
from uuid import UUID


class Row(NamedTuple):
    """One message as the SQL functions take it, checked and hashed; JSON columns are texts."""

    id: UUID
    request_hash: bytes
    role: str
    author_id: str | None
    author_name: str | None
    written_by: str
    content: str | None
    parts: str | None
    tool_calls: str | None
    tool_call_id: str | None
    name: str | None
    reasoning: str | None
    metadata: str | None
    said_at: datetime | None


class Stored(NamedTuple):
    """What became of one message, as the SQL functions say it.

    ``outcome`` is ``stored``, with all its numbers, or ``replayed``, with its seq alone.
    """

    outcome: str
    seq: int
    parent_seq: int | None
    rev: int
    created_at: datetime
    author_id: str | None

    @property
    def replayed(self) -> bool:
        """It was on record before: read it for the rest."""
        return self.outcome == "replayed"
