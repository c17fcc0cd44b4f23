"""Answers that are files: streamed, a few at a time, and refused before they begin."""

from __future__ import annotations

from collections.abc import AsyncIterator

from greffier.server.answers import Stream, attachment
from greffier.server.call import Call


async def file(call: Call, pieces: AsyncIterator[bytes], media: str, name: str) -> Stream:
    """Answer with a file; its connection is broken when something goes wrong half-way.

    Each holds a connection to the database and a snapshot for as long as it is read, so that only
    so many are written at a time.

    Args:
        call: Who asks.
        pieces: What is in the file; nothing of it was asked for yet.
        media: Of which type it is.
        name: What it is called; plain ASCII.
    """
    admitted = _admitted(call, pieces)
    # Whether there is anything to send is decided before the status is.
    first = await anext(admitted)
    return attachment(_from(first, admitted), media, name)


async def _admitted(call: Call, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    async with call.service.exports:
        try:
            async for piece in pieces:
                yield piece
        finally:
            await pieces.aclose()  # type: ignore[attr-defined]


async def _from(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    try:
        yield first
        async for piece in rest:
            yield piece
    finally:
        await rest.aclose()  # type: ignore[attr-defined]
