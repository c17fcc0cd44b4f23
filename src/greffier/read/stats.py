"""How much was said in a conversation, and how fast it was answered."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

import msgspec

from greffier.model.tokens import BYTES_PER_TOKEN, PER_MESSAGE
from greffier.read.pages import why_absent
from greffier.store.database import Database


class RoleCounts(msgspec.Struct, frozen=True):
    """Undeleted messages on the active path, by role."""

    user: int
    assistant: int
    tool: int
    system: int


class Quantiles(msgspec.Struct, frozen=True):
    """Seconds; null when nothing was answered."""

    p50: float | None
    p95: float | None


class FeedbackCounts(msgspec.Struct, frozen=True):
    """Thumbs on this conversation and its messages."""

    up: int
    down: int


class Stats(msgspec.Struct, frozen=True):
    """``GET …/stats``; ``tokens`` is an estimate (model/tokens.py)."""

    messages: RoleCounts
    tokens: int
    first_at: datetime | None
    last_at: datetime | None
    response_seconds: Quantiles
    feedback: FeedbackCounts


async def stats(database: Database, conversation_id: UUID, reader: str | None) -> Stats:
    """Count a conversation's messages; it reads them all, so it costs as it is long.

    Raises:
        NotFound: It is not there, or not the reader's.
        Gone: It was erased.
    """
    (row,) = await database.read("stats", conversation_id, reader)
    if not row["visible"]:
        raise await why_absent(database, conversation_id)
    return Stats(
        messages=RoleCounts(row["user"], row["assistant"], row["tool"], row["system"]),
        tokens=round(row["bytes"] / BYTES_PER_TOKEN) + PER_MESSAGE * row["messages"],
        first_at=row["first_at"],
        last_at=row["last_at"],
        response_seconds=Quantiles(row["p50"], row["p95"]),
        feedback=FeedbackCounts(row["up"], row["down"]),
    )
