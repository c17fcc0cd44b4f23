"""All that works on lanes in one process: put together for ``serve`` and for ``worker`` alike."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from uuid import UUID

import structlog
from structlog.typing import FilteringBoundLogger

from greffier.agents.follow import FollowedRuns
from greffier.agents.providers.registry import Providers
from greffier.agents.run import CONCURRENCY, ProviderBook, RunLanes
from greffier.agents.tool_endpoint import EndpointTools
from greffier.agents.tools import Tools
from greffier.deliver.channels import Channels, open_channels
from greffier.deliver.channels.signatures import check_secret
from greffier.deliver.out import OutLanes
from greffier.deliver.worker import POLL, Kind, Worker
from greffier.errors import SettingsError, Unavailable
from greffier.publish.bus import Wake
from greffier.publish.feed import Feed
from greffier.settings import Settings
from greffier.store.database import Database

#: Seconds for which it is remembered whether there are endpoints at all.
ENDPOINTS_KEPT = 5.0
#: Seconds between two looks that changes ask for: under load many share one.
GATHER = 0.01


class Work:
    """The worker of this process, what it does with which lanes, and who wakes it."""

    def __init__(
        self,
        database: Database,
        feed: Feed,
        runs: FollowedRuns,
        providers: ProviderBook,
        *,
        log: FilteringBoundLogger,
        channels: Channels | None = None,
        tools: Tools | None = None,
        run_lease: float = 30.0,
        run_concurrency: int = CONCURRENCY,
        lease: float = 600.0,
        max_attempts: int = 3,
        batch: int = 10,
        grace: float = 10.0,
        poll: float = POLL,
    ) -> None:
        """Put it together; it works while ``run`` does.

        Args:
            database: Where the lanes are.
            feed: Hears of lanes that are due in other processes.
            runs: Told of what runs say.
            providers: Who answers for agents; closed at the end.
            channels: The ways to the outside, closed at the end; without them nothing is delivered.
            log: Told how runs ended, and what went wrong.
            tools: What models may call here.
            run_lease: Seconds after which a silent worker has lost its run.
            run_concurrency: Runs at the same time.
            lease: Seconds after which a silent worker has lost a lane it delivers from.
            max_attempts: Tries of a message whose endpoint says nothing else.
            batch: Messages that leave under one claim.
            grace: Seconds that work under way has to end in when it is stopped.
            poll: Seconds between two looks for lanes that are due, when nobody calls.
        """
        self.tools = tools or Tools()
        self._providers = providers
        self.answers = RunLanes(
            database, providers, self.tools, runs, log=log, lease=run_lease,
            concurrency=run_concurrency,
        )  # fmt: skip
        self._channels = channels
        kinds: list[Kind] = [self.answers]
        self.out: OutLanes | None = None
        if channels is not None:
            self.out = OutLanes(
                database, channels, log=log, lease=lease, max_tries=max_attempts, batch=batch
            )
            kinds.append(self.out)
        self.worker = Worker(database, kinds, log=log, poll=poll, grace=grace)
        self._database = database
        self._endpoints = False
        self._looked = self._woken = -ENDPOINTS_KEPT
        self._looking: asyncio.Task[None] | None = None
        self._gathering: asyncio.TimerHandle | None = None
        feed.listen_for_work(self.heard)

    def heard(self, wake: Wake | None) -> None:
        """Hear a wake-up: something is due, or it may be."""
        if wake is None or wake.due:
            self.worker.wake()
        elif wake.changed and self.out is not None:
            self._changed()

    def _changed(self) -> None:
        """Hear that something was said, perhaps: where there are endpoints it may have to leave."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        if self._looking is None and now - self._looked > ENDPOINTS_KEPT:
            self._looking = loop.create_task(self._look())
        if not self._endpoints or self._gathering is not None:
            return
        # At once when it is the first for a while, else together with those that come meanwhile:
        # each look is a query, and a busy record changes thousands of times in a second.
        wait = self._woken + GATHER - now
        if wait <= 0:
            self._send()
        else:
            self._gathering = loop.call_later(wait, self._send)

    def _send(self) -> None:
        self._gathering = None
        self._woken = asyncio.get_running_loop().time()
        self.worker.wake("out")

    async def _look(self) -> None:
        """Learn whether there are endpoints; the poll delivers what is said until then."""
        try:
            rows = await self._database.read("any_endpoint")
        except Unavailable:
            # As it was: the next change asks again.
            pass
        else:
            self._looked = asyncio.get_running_loop().time()
            if rows[0]["found"] and not self._endpoints:
                self.worker.wake("out")
            self._endpoints = rows[0]["found"]
        finally:
            self._looking = None

    def stop(self) -> None:
        """Begin nothing more; ``run`` ends when what is under way has ended or time is up."""
        self.worker.stop()

    async def run(self) -> None:
        """Work until stopped or cancelled."""
        storing = asyncio.get_running_loop().create_task(self.answers.run())
        working = asyncio.get_running_loop().create_task(self.worker.run())
        try:
            # Who stores breaks only by a fault of ours; then nothing may go on unheard.
            await asyncio.wait({storing, working}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            # What is cut short stores its last words yet.
            working.cancel()
            await asyncio.wait({working})
            storing.cancel()
            await asyncio.wait({storing})
            if self._gathering is not None:
                self._gathering.cancel()
            if self._looking is not None:
                self._looking.cancel()
                await asyncio.wait({self._looking})
            await self._providers.close()
            if self._channels is not None:
                await self._channels.close()
            if self.tools.endpoint is not None:
                await self.tools.endpoint.close()
        for task in (storing, working):
            if not task.cancelled() and (error := task.exception()) is not None:
                raise error

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[asyncio.Task[None]]:
        """Work beside a block; at its end what is under way has its grace, and is then let go."""
        task = asyncio.get_running_loop().create_task(self.run())
        try:
            yield task
        finally:
            self.stop()
            await asyncio.wait({task})
            if not task.cancelled() and (error := task.exception()) is not None:
                raise error


def from_settings(
    database: Database,
    settings: Settings,
    feed: Feed,
    runs: FollowedRuns,
    *,
    log: FilteringBoundLogger | None = None,
    tools: Tools | None = None,
    providers: ProviderBook | None = None,
) -> Work:
    """Put together what works on lanes as the settings say.

    Args:
        database: Where the lanes are.
        settings: Providers, channels, leases.
        feed: Hears of lanes that are due in other processes.
        runs: Told of what runs say.
        log: Told how runs ended; structlog's own when not given.
        tools: What models may call here.
        providers: Who answers, instead of the settings' providers.

    Raises:
        SettingsError: A setting cannot be.
    """
    tools = tools or Tools()
    if tools.endpoint is None:
        secret = settings.tool_secret and settings.tool_secret.get_secret_value()
        if secret and (fault := check_secret(secret, "")):
            raise SettingsError(f"TOOL_SECRET: {fault.detail}")
        private = settings.allow_private_targets
        tools.reach(EndpointTools(secret or None, allow_private=private))
    return Work(
        database,
        feed,
        runs,
        providers or Providers(settings),
        channels=open_channels(settings),
        tools=tools,
        log=log or _quiet(),
        run_lease=settings.run_lease_seconds,
        run_concurrency=settings.run_concurrency,
        lease=settings.lease_seconds,
        max_attempts=settings.max_attempts,
        batch=settings.batch_size,
        grace=settings.shutdown_seconds,
    )


def _quiet() -> FilteringBoundLogger:
    """Give the log of a program of somebody else's: its ``logging``, under our name."""
    log: FilteringBoundLogger = structlog.wrap_logger(
        logging.getLogger("greffier"),
        processors=[structlog.stdlib.filter_by_level, structlog.processors.KeyValueRenderer()],
        wrapper_class=structlog.stdlib.BoundLogger,
    )
    return log


def due(feed: Feed, work: Work | None, conversation_id: UUID) -> None:
    """Tell this process and the others that a conversation's lanes are due."""
    feed.say(Wake(conversation_id, 0, people=False, due=True))
    if work is not None:
        work.worker.wake()
