"""Conversations as a file: one snapshot, streamed, whole contents."""

from __future__ import annotations

from collections.abc import AsyncIterator
from uuid import UUID

from greffier.errors import Invalid
from greffier.read.formats import MEDIA, Language, form
from greffier.read.pages import why_absent
from greffier.store.connection import Connection
from greffier.store.database import Database
from greffier.store.queries import queries

#: Form → media type; ``jsonl`` and ``json`` are what an import reads back.
FORMATS = MEDIA

#: Ids of conversations fetched ahead.
_IDS = 1000

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
        absent = True
        async for piece in _write(live, database.epoch, conversation_id, reader, format_, language):
            absent = False
            yield piece
        if absent:
            raise await why_absent(database, conversation_id)


async def export_all(database: Database, user: str | None, format_: str) -> AsyncIterator[bytes]:
    """Write out all that a user takes part in, or all there is (user None), as of one moment.

    Conversations come in the order of their ids.  ``jsonl`` is one export after the other, ``json``
    a list of them.

    Raises:
        Invalid: Only these two hold several conversations.
    """
    if format_ not in ("jsonl", "json"):
        raise Invalid.at("/format", "format", "Several conversations are written as jsonl or json.")
    before = b"[" if format_ == "json" else b""
    last = UUID(int=0)
    async with database.snapshot() as live:
        while ids := await live.fetch(queries()["conversation_ids"], user, last, _IDS):
            last = ids[-1]["id"]
            for row in ids:
                if before:
                    yield before
                    before = b","
                async for piece in _write(live, database.epoch, row["id"], None, format_, "en"):
                    yield piece
    if format_ == "json":
        yield b"[]\n" if before == b"[" else b"]\n"


async def _write(
    live: Connection,
    epoch: str,
    conversation_id: UUID,
    reader: str | None,
    format_: str,
    language: Language,
) -> AsyncIterator[bytes]:
    """Write out one conversation; nothing when it is not there for the reader."""
    head = await live.fetchrow(queries()["get_conversation"], conversation_id, reader, epoch)
    if head is None:
        return
    writer = form(format_, head["body"].encode(), language)
    yield writer.head()
    async for row in live.cursor(queries()["export_messages"], conversation_id, prefetch=_PREFETCH):
        yield writer.message(row["body"].encode())
    if end := writer.tail():
        yield end
