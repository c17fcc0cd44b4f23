"""Reading ahead: files are read and parsed in a thread, while what came before is stored."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Final

from greffier.imports.piece import Piece

#: Pieces that the reading thread hands over at a time: at most so many, of so many bytes.
CHUNK_PIECES: Final = 64
CHUNK_BYTES: Final = 256 << 10


async def in_thread(plan: Iterator[Piece]) -> AsyncIterator[Piece]:
    """Read and parse in a thread of its own, one chunk ahead.

    A daemon, so that a program may end while it waits for a terminal or a pipe.
    """
    loop = asyncio.get_running_loop()
    chunks: asyncio.Queue[list[Piece] | BaseException | None] = asyncio.Queue()
    room = threading.Semaphore(2)
    stopped = threading.Event()

    def hand_over(found: list[Piece] | BaseException | None) -> None:
        room.acquire()
        if not stopped.is_set():
            with contextlib.suppress(RuntimeError):  # the loop has been closed meanwhile
                loop.call_soon_threadsafe(chunks.put_nowait, found)

    def read() -> None:
        try:
            for chunk in _chunks(plan):
                hand_over(chunk)
                if stopped.is_set():
                    return
        except BaseException as error:  # noqa: BLE001 - it is raised where it is waited for
            hand_over(error)
        else:
            hand_over(None)

    threading.Thread(target=read, name="greffier-import", daemon=True).start()
    try:
        while (found := await chunks.get()) is not None:
            if isinstance(found, BaseException):
                raise found
            room.release()
            for piece in found:
                yield piece
    finally:
        stopped.set()
        room.release()


def _chunks(plan: Iterator[Piece]) -> Iterator[list[Piece]]:
    chunk: list[Piece] = []
    size = 0
    for piece in plan:
        chunk.append(piece)
        size += piece.size
        if len(chunk) == CHUNK_PIECES or size >= CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk
