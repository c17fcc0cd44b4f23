"""Work on lanes in a process that serves nobody: what ``greffier worker`` does."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Callable
from typing import NamedTuple

from greffier._version import __version__
from greffier.agents.follow import FollowedRuns
from greffier.agents.work import from_settings
from greffier.deliver.watch import from_settings as watch_from
from greffier.publish.bus import PostgresBus
from greffier.publish.feed import Feed
from greffier.server.app import limits
from greffier.server.backlog import Backlog
from greffier.server.logs import make_logger, take_over
from greffier.server.measured import measuring
from greffier.server.metrics import Metrics
from greffier.server.run import (
    Stop,
    Unhandled,
    listen_at,
    loop_factory,
    open_database_of,
    url_of,
)
from greffier.settings import Settings


class Ready(NamedTuple):
    """That a worker works: what it is called, and where it tells its metrics, if anywhere."""

    name: str
    metrics: str | None

    @property
    def line(self) -> str:
        """Say so to the person who started it."""
        told = "" if self.metrics is None else f" (metrics: {self.metrics})"
        return f"Greffier {__version__} works as {self.name}{told}"


def tell(ready: Ready) -> None:
    """Tell the person who started it, on standard error."""
    print(ready.line, file=sys.stderr, flush=True)  # noqa: T201


def run(settings: Settings, ready: Callable[[Ready], None] = tell) -> None:
    """Work until a signal says to stop, on a loop of its own.

    Args:
        settings: What to do.
        ready: Told when it works.

    Raises:
        SettingsError, ListenError, SchemaError, EmbeddedError, Unavailable: It cannot start.
    """
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(serve(settings, ready))


async def serve(settings: Settings, ready: Callable[[Ready], None] = tell) -> None:
    """Answer for agents and deliver, until SIGTERM or SIGINT.

    Then nothing new is begun, and what is under way has ``SHUTDOWN_SECONDS`` to end in; a second
    signal does not wait for it: a run is then ended as interrupted, with what it has said.

    Args:
        settings: What to do.
        ready: Told when it works.

    Raises:
        SettingsError, ListenError: Its metrics cannot be told there.
        SchemaError, EmbeddedError, Unavailable: There is no database to work for.
    """
    log = make_logger(settings.log_level, settings.log_format)
    take_over(log, settings.log_level)
    asyncio.get_running_loop().set_exception_handler(Unhandled(log))
    stop = Stop()
    port = settings.metrics_port
    at = None if port is None else listen_at(settings.host, port, "METRICS_PORT")
    with at or contextlib.nullcontext(), stop.on_signals():
        async with stop.cuts_short(), open_database_of(settings) as database:
            stop.waits()
            feed = Feed(database, PostgresBus(database.dsn), limits=limits(settings))
            runs = FollowedRuns(database, feed.say, limits=limits(settings))
            feed.listen_for_work(runs.heard)
            job = from_settings(database, settings, feed, runs, log=log)
            feeding = asyncio.create_task(feed.run())
            try:
                watch = watch_from(database, settings, log)
                metrics = Metrics(database.writer.pressure, Backlog(database), job)
                async with (
                    job.running() as working,
                    watch.watching(),
                    measuring(at, metrics),
                ):
                    ready(Ready(job.worker.owner, None if at is None else f"{url_of(at)}/metrics"))
                    asked = asyncio.create_task(stop.asked.wait())
                    # A worker that broke says why and is started again by whoever looks after it.
                    await asyncio.wait(
                        {asked, working, feeding}, return_when=asyncio.FIRST_COMPLETED
                    )
                    asked.cancel()
                    job.stop()
                    hurry = asyncio.create_task(stop.hurry.wait())
                    await asyncio.wait({hurry, working}, return_when=asyncio.FIRST_COMPLETED)
                    hurry.cancel()
                    working.cancel()
            finally:
                feeding.cancel()
                await asyncio.wait({feeding})
    log.info("stopped")
