"""Read endpoints and sources: one, or all of them in pages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple
from uuid import UUID

from greffier.errors import Invalid, NotFound
from greffier.model.ids import parse_uuid
from greffier.store.database import Database


async def get(
    database: Database, endpoint_id: UUID, actor: str | None, *, everything: bool
) -> tuple[bytes, int]:
    """Read one endpoint.

    Args:
        database: Where.
        endpoint_id: Which.
        actor: Whose conversations' endpoints are seen; None for everybody's.
        everything: Whether also those for no single conversation are.

    Returns:
        Its JSON, and its version.

    Raises:
        NotFound: There is none that may be seen.
    """
    rows = await database.read("get_endpoint", endpoint_id, actor, everything)
    if not rows:
        raise NotFound
    return rows[0]["body"].encode(), rows[0]["version"]


async def listing(
    database: Database,
    actor: str | None,
    *,
    everything: bool,
    conversation_id: UUID | None = None,
    limit: int = 20,
    cursor: str | None = None,
) -> tuple[list[bytes], str | None]:
    """List endpoints, the oldest first; see ``get`` for who sees which.

    Returns:
        Their JSON, and a cursor for what follows (None at the end).

    Raises:
        Invalid: The limit is out of range, or the cursor is none of ours.
    """
    after = _after(limit, cursor)
    rows = await database.read(
        "list_endpoints", actor, everything, conversation_id, after, limit + 1
    )
    following = str(rows[limit - 1]["id"]) if len(rows) > limit else None
    return [row["body"].encode() for row in rows[:limit]], following


class Opening(NamedTuple):
    """What is needed to let a source's messages in: its secrets, adapter and endpoint."""

    secrets: Sequence[str]
    adapter: str | None
    endpoint_id: UUID | None


async def opening(database: Database, source_id: UUID) -> Opening | None:
    """Read what a source's senders sign with; None when there is no such source."""
    rows = await database.read("source_secrets", source_id)
    return Opening(*rows[0]) if rows else None


async def get_source(database: Database, source_id: UUID) -> tuple[bytes, int]:
    """Read one source: its JSON, and its version.

    Raises:
        NotFound: There is none.
    """
    rows = await database.read("get_source", source_id)
    if not rows:
        raise NotFound
    return rows[0]["body"].encode(), rows[0]["version"]


async def sources(
    database: Database, *, limit: int = 20, cursor: str | None = None
) -> tuple[list[bytes], str | None]:
    """List sources, in the order of their ids.

    Raises:
        Invalid: The limit is out of range, or the cursor is none of ours.
    """
    rows = await database.read("list_sources", _after(limit, cursor), limit + 1)
    following = str(rows[limit - 1]["id"]) if len(rows) > limit else None
    return [row["body"].encode() for row in rows[:limit]], following


def _after(limit: int, cursor: str | None) -> UUID | None:
    if not 1 <= limit <= 100:
        raise Invalid.at("/limit", "range", "From 1 to 100.")
    after = None if cursor is None else parse_uuid(cursor)
    if cursor is not None and after is None:
        raise Invalid.at("/cursor", "cursor", "This is no cursor of ours.")
    return after
