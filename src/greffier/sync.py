"""The library without ``await``: the same names, run on a loop in a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from concurrent.futures import Future
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

    def iterate(self, source: AsyncGenerator[T, None]) -> Iterator[T]:
        # Who is interrupted takes back their question, which has to end before the source does.
        turn = asyncio.Lock()
        try:
            while True:
                try:
                    yield self.call(_next(source, turn))
                except StopAsyncIteration:
                    return
        finally:
            # Who leaves it half-way follows no more; who lets go of it later finds all closed.
            if not self._loop.is_closed():
                self.call(_close(source, turn))

    @contextlib.contextmanager
    def hold(self, context: contextlib.AbstractAsyncContextManager[T]) -> Iterator[T]:
        """Hold a context open; one task enters and leaves it, as a group of tasks asks for."""
        entered: Future[T] = Future()
        left = asyncio.Event()
        held = asyncio.run_coroutine_threadsafe(_hold(context, entered, left), self._loop)
        try:
            yield entered.result()
        finally:
            self._loop.call_soon_threadsafe(left.set)
            held.result()

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


async def _next(source: AsyncGenerator[T, None], turn: asyncio.Lock) -> T:
    async with turn:
        return await anext(source)


async def _close(source: AsyncGenerator[T, None], turn: asyncio.Lock) -> None:
    async with turn:
        await source.aclose()


async def _hold(
    context: contextlib.AbstractAsyncContextManager[T], entered: Future[T], left: asyncio.Event
) -> None:
    try:
        async with context as value:
            entered.set_result(value)
            await left.wait()
    except BaseException as error:
        if entered.done():
            raise
        entered.set_exception(error)


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

    def __dir__(self) -> list[str]:
        return dir(self._inner)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if isinstance(found, PARTS):
            return Sync(found, self._loop)
        way = self._way(found)
        if way is None:
            return found

        @functools.wraps(found)
        def waited_for(*args: Any, **options: Any) -> Any:
            return way(found(*args, **options))

        return waited_for

    def _way(self, found: Any) -> Callable[[Any], Any] | None:
        if inspect.iscoroutinefunction(found):
            return self._loop.call
        if inspect.isasyncgenfunction(found):
            return self._loop.iterate
        if inspect.isasyncgenfunction(inspect.unwrap(found)):
            return self._loop.hold
        return None


@contextlib.contextmanager
def open_sync(
    url: str | None = None, *, data_dir: Path | str | None = None, migrate: bool | None = None
) -> Iterator[Any]:
    """Open a record for code without an event loop; see ``greffier.open`` for the arguments.

    Every method has the same name and arguments, and returns instead of being awaited; what is an
    ``async for`` or ``async with`` there is a ``for`` or ``with`` here.
    """
    loop = _Loop()
    try:
        with loop.hold(library.open(url, data_dir=data_dir, migrate=migrate)) as record:
            yield Sync(record, loop)
    finally:
        loop.close()
