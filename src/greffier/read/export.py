"""A conversation as a file: one snapshot, streamed, whole contents."""

from __future__ import annotations

from collections.abc import AsyncIterator
from uuid import UUID

from greffier.errors import Invalid
from greffier.read.pages import why_absent
from greffier.store.database import Database
from greffier.store.queries import queries

FORMATS = {"jsonl": "application/x-ndjson", "json": "application/json"}

#: Rows fetched ahead; a message may be 16 MiB, so few.
_PREFETCH = 20


async def export(
    database: Database, conversation_id: UUID, reader: str | None, form: str
) -> AsyncIterator[bytes]:
    """Write out a conversation's active path, oldest first, as of one moment.

    ``jsonl`` is the conversation on its first line and one message a line after it; ``json`` is one
    object ``{"conversation": …, "messages": […]}``.  Both are what an import reads back.

    Raises:
        Invalid: There is no such format.
        NotFound: The conversation is not there, or not the reader's.
        Gone: It was erased.
    """
    if form not in FORMATS:
        raise Invalid.at("/format", "format", f"One of {', '.join(FORMATS)}.")
    async with database.snapshot() as live:
        head = await live.fetchrow(
            queries()["get_conversation"], conversation_id, reader, database.epoch
        )
        if head is None:
            raise await why_absent(database, conversation_id)
        conversation = head["body"].encode()
        yield (
            b'{"conversation":' + conversation + b"}\n"
            if form == "jsonl"
            else b'{"conversation":' + conversation + b',"messages":['
        )
        first = True
        async for row in live.cursor(
            queries()["export_messages"], conversation_id, prefetch=_PREFETCH
        ):
            body = row["body"].encode()
            if form == "jsonl":
                yield body + b"\n"
            else:
                yield body if first else b",\n" + body
            first = False
        if form == "json":
            yield b"]}\n"
