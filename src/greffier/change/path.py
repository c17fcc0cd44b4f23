"""Rewind a conversation, and bring back a path that was left."""

from __future__ import annotations

from typing import NamedTuple
from uuid import UUID

from greffier.errors import Invalid
from greffier.model.ids import uuid7
from greffier.store.database import Database

REWIND = "select removed, rev from rewind_v1($1, $2, $3, $4)"
ACTIVATE = "select activate_branch_v1($1, $2, $3, $4)"


class Rewound(NamedTuple):
    """How many undeleted messages left the path, and the conversation's rev afterwards."""

    removed: int
    rev: int


async def rewind(
    database: Database, conversation_id: UUID, after_seq: int, actor: str | None
) -> Rewound:
    """Take everything after a message off the active path; it stays on record as a branch.

    One row changes, however much that is.  Nothing to remove is no change.

    Raises:
        Invalid: ``after_seq`` is neither 0 nor on the active path.
        NotFound, Forbidden, Gone: Only its owner rewinds a conversation.
        Archived: The conversation is archived.
    """
    check_seq(after_seq, "/after_seq")
    # A second call finds nothing left to remove.
    try:
        (row,) = await database.verb(
            REWIND, conversation_id, actor, after_seq, uuid7(), again=False, touches=conversation_id
        )
    except Invalid:
        raise off_path("/after_seq") from None
    return Rewound(row["removed"], row["rev"])


def check_seq(after_seq: int, pointer: str) -> None:
    """Refuse what is no seq at all.

    Raises:
        Invalid: It is negative, or larger than any.
    """
    if not 0 <= after_seq < 1 << 53:
        raise Invalid.at(pointer, "range", "It is 0 or a seq on the active path.")


def off_path(pointer: str) -> Invalid:
    """Refuse a seq that a conversation cannot be rewound to."""
    return Invalid.at(pointer, "off-path", "It is 0 or a seq on the active path.")


async def activate(
    database: Database, conversation_id: UUID, branch_id: UUID, actor: str | None
) -> int:
    """Make a branch's path the active one; the path that was active becomes a branch.

    Returns:
        The conversation's rev afterwards.

    Raises:
        NotFound: There is no such branch, or the conversation is not the actor's to see.
        Forbidden: Only its owner chooses the path.
        Archived: The conversation is archived.
    """
    (row,) = await database.verb(
        ACTIVATE, conversation_id, actor, branch_id, uuid7(), again=False, touches=conversation_id
    )
    return int(row[0])
