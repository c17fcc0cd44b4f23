"""A conversation as a file: one snapshot, streamed, whole contents."""

from __future__ import annotations

from collections.abc import AsyncIterator
from uuid import UUID

from greffier.errors import Invalid
from greffier.read.formats import MEDIA, Language, form
from greffier.read.pages import why_absent
from greffier.store.database import Database
from greffier.store.queries import queries

#: Form → media type; ``jsonl`` and ``json`` are what an import reads back.
FORMATS = MEDIA

#: Rows fetched ahead; a message may be 16 MiB, so few.
_PREFETCH = 20


async def export(
    database: Database,
    conversation_id: UUID,
    reader: str | None,
    format_: str,
    *,
    language: Language = "en",
) -> AsyncIterator[bytes]:
    """Write out a conversation's active path, oldest first, as of one moment.

    Args:
        database: Where.
        conversation_id: Which.
        reader: For whom; None is the service.
        format_: One of ``FORMATS``; ``greffier.read.formats`` says what each is.
        language: In which language the words around the messages are.

    Raises:
        Invalid: There is no such format.
        NotFound: The conversation is not there, or not the reader's.
        Gone: It was erased.
    """
    if format_ not in FORMATS:
        raise Invalid.at("/format", "format", f"One of {', '.join(FORMATS)}.")
    async with database.snapshot() as live:
        head = await live.fetchrow(
            queries()["get_conversation"], conversation_id, reader, database.epoch
        )
        if head is None:
            raise await why_absent(database, conversation_id)
        writer = form(format_, head["body"].encode(), language)
        yield writer.head()
        async for row in live.cursor(
            queries()["export_messages"], conversation_id, prefetch=_PREFETCH
        ):
            yield writer.message(row["body"].encode())
        if end := writer.tail():
            yield end
