"""The library without ``await``: the same names, run on a loop in a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

from greffier import library
from greffier.agents.asking import Runs
from greffier.deliver.keeping import Endpoints, Sources

T = TypeVar("T")


class _Loop:
    """One event loop in one thread, for as long as the record is open."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="greffier", daemon=True)
        self._thread.start()

    def call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def iterate(self, source: AsyncIterator[T]) -> Iterator[T]:
        while True:
            try:
                yield self.call(_next(source))
            except StopAsyncIteration:
                return

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


async def _next(source: AsyncIterator[T]) -> T:
    return await anext(source)


#: What is wrapped as the whole is: the parts of an open record.
PARTS = (
    library.Conversations,
    library.Messages,
    library.Agents,
    Runs,
    Endpoints,
    Sources,
)


class Sync:
    """Any part of the library, its coroutines called and waited for; safe from several threads."""

    def __init__(self, inner: object, loop: _Loop) -> None:
        self._inner = inner
        self._loop = loop

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if inspect.iscoroutinefunction(found):
            return lambda *args, **options: self._loop.call(found(*args, **options))
        if inspect.isasyncgenfunction(found):
            return lambda *args, **options: self._loop.iterate(found(*args, **options))
        if isinstance(found, PARTS):
            return Sync(found, self._loop)
        return found


@contextlib.contextmanager
def open_sync(
    url: str | None = None, *, data_dir: Path | str | None = None, migrate: bool | None = None
) -> Iterator[Any]:
    """Open a record for code without an event loop; see ``greffier.open`` for the arguments.

    Every method has the same name and arguments, and returns instead of being awaited.
    """
    loop = _Loop()
    try:
        opened = library.open(url, data_dir=data_dir, migrate=migrate)
        inner = loop.call(opened.__aenter__())
        try:
            yield Sync(inner, loop)
        finally:
            loop.call(opened.__aexit__(None, None, None))
    finally:
        loop.close()
