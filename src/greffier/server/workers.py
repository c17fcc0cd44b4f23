"""Several server processes on one port, looked after by a parent that serves nobody itself.

The parent opens the port and the database, so that both are there before the first worker and after
the last; a worker that dies is replaced, and workers whose parent died stop by themselves.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from multiprocessing.process import BaseProcess
from typing import TYPE_CHECKING, Any, TypeAlias

from greffier.errors import SettingsError
from greffier.settings import Settings
from greffier.store.database import Database

if TYPE_CHECKING:
    from greffier.server.run import Ready

Work: TypeAlias = Callable[[Settings, socket.socket], None]
Open: TypeAlias = Callable[[Settings], AbstractAsyncContextManager[Database]]

#: Seconds after which a worker that died young is replaced: a fault of ours must not spin.
PAUSE = 1.0
#: Seconds a stopping worker has beyond its own grace.
SLACK = 5.0


@contextlib.contextmanager
def orphaned(stop: Callable[[], None]) -> Iterator[None]:
    """Stop this worker when its parent is gone, however it went."""
    parent = multiprocessing.parent_process()
    if parent is None:
        yield
        return
    loop = asyncio.get_running_loop()

    def gone() -> None:
        loop.remove_reader(parent.sentinel)
        stop()

    loop.add_reader(parent.sentinel, gone)
    try:
        yield
    finally:
        loop.remove_reader(parent.sentinel)


async def supervise(
    settings: Settings, work: Work, open_: Open, ready: Callable[[Ready], None]
) -> None:
    """Run the workers until a signal says to stop.

    Args:
        settings: What they do.
        work: One worker, run in a process of its own.
        open_: Opens the database, which stays open until the last worker has left it.
        ready: Told where they listen.

    Raises:
        SettingsError: Local mode serves one person; one process is enough.
        ListenError: The port is taken.
    """
    if settings.local_mode:
        raise SettingsError(
            "WORKERS: local mode is for the person at this machine, whom one process serves; "
            "set JWT_SECRET or JWKS_URL to serve others with several."
        )
    from greffier.server.run import Ready, listen, url_of  # noqa: PLC0415 - it imports us

    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, stopping.set)
    with listen(settings) as listener:
        async with open_(settings):
            listener.set_inheritable(True)
            ready(Ready(url_of(listener), None, settings.workers))
            async with asyncio.TaskGroup() as group:
                for _ in range(settings.workers):
                    group.create_task(_keep(settings, listener, work, stopping))


async def _keep(
    settings: Settings, listener: socket.socket, work: Work, stopping: asyncio.Event
) -> None:
    """Keep one worker running until it is time to stop."""
    spawn = multiprocessing.get_context("spawn")
    while not stopping.is_set():
        worker = spawn.Process(target=work, args=(settings, listener), name="greffier worker")
        began = time.monotonic()
        worker.start()
        async with _ended(worker) as ended:
            stop = asyncio.ensure_future(stopping.wait())
            both: set[asyncio.Future[Any]] = {stop, ended}
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            stop.cancel()
            if not ended.done():
                worker.terminate()
                await asyncio.wait({ended}, timeout=settings.shutdown_seconds + SLACK)
                if not ended.done():
                    worker.kill()
                    await ended
        worker.join()
        worker.close()
        if not stopping.is_set() and time.monotonic() - began < PAUSE:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PAUSE):
                    await stopping.wait()


@contextlib.asynccontextmanager
async def _ended(worker: BaseProcess) -> AsyncIterator[asyncio.Future[None]]:
    """A future that is done when a process has ended."""
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()

    def note() -> None:
        loop.remove_reader(worker.sentinel)
        if not ended.done():
            ended.set_result(None)

    loop.add_reader(worker.sentinel, note)
    try:
        yield ended
    finally:
        loop.remove_reader(worker.sentinel)
