"""What lives beside an open record: following, and working on lanes, begun when first needed."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING
from uuid import UUID

from greffier.agents.follow import FollowedRuns
from greffier.agents.tools import Tools
from greffier.publish.bus import PostgresBus
from greffier.publish.feed import Feed
from greffier.store.database import Database

if TYPE_CHECKING:
    from greffier.agents.run import ProviderBook
    from greffier.agents.work import Work
    from greffier.settings import Settings


class Live:
    """The feed of a record that was opened by the library, and its worker when it has one."""

    def __init__(self, database: Database) -> None:
        """Begin to follow; ``close`` ends it."""
        self._database = database
        self.feed = Feed(database, PostgresBus(database.dsn))
        self.runs = FollowedRuns(database, self.feed.say)
        self.feed.listen_for_work(self.runs.heard)
        self._work: Work | None = None
        self._task = asyncio.get_running_loop().create_task(self.feed.run())

    def due(self, conversation_id: UUID) -> None:
        """Tell whoever works, here and elsewhere, that a conversation's lanes are due."""
        from greffier.agents.work import due  # noqa: PLC0415 - brings channels and providers

        due(self.feed, self._work, conversation_id)

    @contextlib.asynccontextmanager
    async def working(
        self, settings: Settings | None, tools: Tools, providers: ProviderBook | None
    ) -> AsyncIterator[None]:
        """Work on lanes in this process for the length of a block."""
        # Settings, providers and channels take their time to import, and few need them.
        from greffier.agents.work import from_settings  # noqa: PLC0415
        from greffier.settings import load  # noqa: PLC0415

        settings = settings or load()
        self._work = from_settings(
            self._database, settings, self.feed, self.runs, tools=tools, providers=providers
        )
        try:
            async with self._work.running():
                yield
        finally:
            self._work = None

    async def close(self) -> None:
        """End every follower's stream, and what was begun."""
        self.runs.close()
        self._task.cancel()
        await asyncio.wait({self._task})
