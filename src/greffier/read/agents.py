"""Read agents: one, or all of them in pages."""

from __future__ import annotations

from uuid import UUID

from greffier.errors import Invalid, NotFound
from greffier.model.ids import parse_uuid
from greffier.store.database import Database


async def get(database: Database, agent_id: UUID) -> tuple[bytes, int]:
    """Read one agent.

    Returns:
        Its JSON, and its version.

    Raises:
        NotFound: There is none, or it was deleted.
    """
    rows = await database.read("get_agent", agent_id)
    if not rows:
        raise NotFound
    return rows[0]["body"].encode(), rows[0]["version"]


async def listing(
    database: Database, *, limit: int = 20, cursor: str | None = None
) -> tuple[list[bytes], str | None]:
    """List the agents, the oldest first.

    Returns:
        Their JSON, and a cursor for what follows (None at the end).

    Raises:
        Invalid: The limit is out of range, or the cursor is none of ours.
    """
    if not 1 <= limit <= 100:
        raise Invalid.at("/limit", "range", "From 1 to 100.")
    after = None if cursor is None else parse_uuid(cursor)
    if cursor is not None and after is None:
        raise Invalid.at("/cursor", "cursor", "This is no cursor of ours.")
    rows = await database.read("list_agents", after, limit + 1)
    following = str(rows[limit - 1]["id"]) if len(rows) > limit else None
    return [row["body"].encode() for row in rows[:limit]], following
