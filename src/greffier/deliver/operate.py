"""What a person does to a lane; the schema decides, under the lane's lock, whether it is done."""

from __future__ import annotations

from greffier.model.queue import Lane
from greffier.store.database import Database

_UNLOCK = "select unlock_v1($1, $2, $3, $4, $5)"
_RETRY = "select retry_v1($1, $2)"
_SKIP = "select skip_head_v1($1, $2, $3)"
_PAUSE = "select pause_v1($1, $2, $3)"


async def unlock(
    database: Database, lane: Lane, max_attempts: int, *, force: bool, steal: bool
) -> str | None:
    """Make a lane ready again, with all its tries; whoever held it can write no more.

    Args:
        database: Where.
        lane: Which.
        max_attempts: Tries its messages have: used up, it takes ``force``.
        force: Also when its tries are used up.
        steal: Also when somebody works on it.

    Returns:
        What it was: ``expired``, ``parked`` or ``stolen``; None when nothing was done.
    """
    rows = await database.verb(
        _UNLOCK, lane.conversation_id, lane.id, max_attempts, force, steal, again=False
    )
    was: str | None = rows[0][0]
    return was


async def retry(database: Database, lane: Lane) -> bool:
    """Try a lane's head now, with all its tries; False when somebody is at it, or all is done."""
    rows = await database.verb(_RETRY, lane.conversation_id, lane.id, again=True)
    return bool(rows[0][0])


async def skip(database: Database, lane: Lane, by: str) -> int | None:
    """Give up the message at a lane's head; the journal says who did.

    Returns:
        What was given up; None when somebody works on it, it has nothing to do, or it is for runs.
    """
    rows = await database.verb(_SKIP, lane.conversation_id, lane.id, by, again=False)
    seq: int | None = rows[0][0]
    return seq


async def pause(database: Database, lane: Lane, *, paused: bool) -> bool:
    """Let nothing begin in a lane, or let it go on; False when it stood so already."""
    rows = await database.verb(_PAUSE, lane.conversation_id, lane.id, paused, again=True)
    return bool(rows[0][0])


def can_skip(lane: Lane) -> bool:
    """Say whether ``skip`` would give something up, as far as one can see."""
    held = lane.state in ("leased", "expired")
    return lane.kind == "out" and not held and lane.head_seq <= lane.tail_seq
