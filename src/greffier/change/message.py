"""Edit, delete and erase a message."""

from __future__ import annotations

from uuid import UUID

from greffier.errors import Invalid, NotFound, PayloadTooLarge, Stale
from greffier.model import text
from greffier.model.draft import Speaker
from greffier.model.limits import DEFAULT, Limits
from greffier.store.database import Database

EDIT = "select edit_message_v1($1, $2, $3, $4, $5, $6)"
DELETE = "select delete_message_v1($1, $2, $3, $4)"


async def edit(
    database: Database,
    conversation_id: UUID,
    seq: int,
    content: str,
    speaker: Speaker,
    *,
    if_rev: int | None = None,
    limits: Limits = DEFAULT,
) -> int:
    """Give a message a new text; the earlier one stays among its versions.

    Args:
        database: Where.
        conversation_id: In which conversation.
        seq: Which message.
        content: The new text, not empty.
        speaker: By whom: its author, or an assistant conversation's owner.
        if_rev: Refuse when the message was changed at another rev than this.
        limits: How large it may be.

    Returns:
        The conversation's rev afterwards; the same as before when the text is the same.

    Raises:
        Invalid: The text cannot be stored, or the message has no words to edit.
        NotFound: There is no such message, or it was deleted.
        Forbidden: Somebody else said it.
        Stale: It is no longer at ``if_rev``.
        Archived: The conversation is archived.
    """
    if not content:
        raise Invalid.at("/content", "empty", "An edited message still says something.")
    if problem := text.faults(content, "/content"):
        raise Invalid(problems=(problem,))
    if len(content.encode()) > limits.content:
        raise PayloadTooLarge(f"/content has more than {limits.content} bytes.")
    _check(seq)
    if if_rev is not None and not 0 <= if_rev < 1 << 63:
        raise Stale
    try:
        rows = await database.verb(
            EDIT,
            conversation_id,
            speaker.actor,
            seq,
            content,
            if_rev,
            speaker.written_by,
            again=if_rev is None,
            touches=conversation_id,
        )
    except Invalid:
        raise Invalid.at(
            "/content", "no-words", "A message without words has none to edit."
        ) from None
    return int(rows[0][0])


async def delete(
    database: Database, conversation_id: UUID, seq: int, actor: str | None, *, erase: bool = False
) -> int:
    """Delete a message; nobody sees its content any more.  Erased, it is nowhere any more.

    Its author, the conversation's owner and the service may.  Deleting again changes nothing, and
    what was deleted can still be erased.

    Returns:
        The conversation's rev afterwards.

    Raises:
        NotFound: There is no such message, or the conversation is not the actor's to see.
        Forbidden: Somebody else said it.
    """
    _check(seq)
    rows = await database.verb(
        DELETE, conversation_id, actor, seq, erase, again=True, touches=conversation_id
    )
    return int(rows[0][0])


def _check(seq: int) -> None:
    """Refuse a number that PostgreSQL has no room for; of others the record says what they are."""
    if not -1 << 63 <= seq < 1 << 63:
        raise NotFound
