"""A record whose messages leave for far sides on this machine, worked on in this process."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from greffier.agents.follow import FollowedRuns
from greffier.agents.providers.registry import Providers
from greffier.agents.work import Work
from greffier.deliver.channels import Channel, Channels
from greffier.deliver.channels.webhook import Webhook
from greffier.deliver.keeping import Endpoints
from greffier.deliver.targets import ChannelTargets
from greffier.library import Greffier
from greffier.model.endpoint import MadeEndpoint
from greffier.publish.bus import LocalBus
from greffier.publish.feed import Feed
from greffier.read.audit import audit
from greffier.server.logs import make_logger
from greffier.settings import load
from greffier.store.database import Database, open_database
from helpers.hooks import Hook
from helpers.lanes import Hand
from helpers.postgres import connected

#: Longer than anything here takes, so that what hangs says where.
PATIENCE = 180


@dataclass
class Delivery:
    """A record and the worker that delivers from it."""

    g: Greffier
    database: Database
    hand: Hand
    work: Work
    log: io.BytesIO

    async def hook(self, hook: Hook, **more: Any) -> MadeEndpoint:
        """Let messages leave for a receiver, which knows the secret."""
        made = await self.g.endpoints.create(**{"channel": "webhook", "target": hook.url, **more})
        if made.secret is not None:
            hook.secrets.append(made.secret)
        return made

    async def talk(self, *said: str, **more: Any) -> UUID:
        """Make a conversation in which this is said."""
        talk = await self.g.conversations.create(owner="ada", **more)
        for words in said:
            await self.say(talk.id, words)
        return talk.id

    async def say(self, talk: UUID, words: str, role: Any = "user") -> int:
        """Say something."""
        return (await self.g.messages.append(talk, content=words, role=role)).seq

    async def until(self, query: str, *values: Any) -> Any:
        """Ask the database until it says so."""
        async with asyncio.timeout(PATIENCE):
            # Nobody calls, and the processors are for who delivers.
            while not (found := await self.hand.live.fetchval(query, *values)):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        return found

    async def idle(self) -> None:
        """Wait until there is nothing in any outgoing lane but what is parked."""
        await self.until(
            "select not exists (select from lanes where kind = 'out' and parked_at is null"
            " and head_seq <= tail_seq)"
        )

    async def later(self, hours: float) -> None:
        """Let the lanes' clock jump."""
        await self.hand.shift(hours)
        self.work.worker.wake()

    async def journal(self) -> list[tuple[int, str | None]]:
        """What was tried, in order: the seq, and what came of it."""
        rows = await self.hand.live.fetch(
            "select seq, outcome from attempts order by conversation_id, fence, seq, intended_at"
        )
        return [tuple(row) for row in rows]

    async def parked(self) -> list[str]:
        """Why lanes are parked."""
        rows = await self.hand.live.fetch(
            "select park_reason from lanes where parked_at is not null order by park_reason"
        )
        return [row[0] for row in rows]


@contextlib.asynccontextmanager
async def delivering(
    dsn: str, channels: Sequence[Channel] | None = None, **more: Any
) -> AsyncIterator[Delivery]:
    """Deliver from a database until the end of the block; it audits clean afterwards."""
    log = io.BytesIO()
    open_ = Channels(channels or [Webhook(allow_private=True)])
    async with open_database(dsn) as database, connected(dsn) as live:
        feed = Feed(database, LocalBus())
        runs = FollowedRuns(database, feed.say)
        feed.listen_for_work(runs.heard)
        settings = load({"database_url": dsn})
        work = Work(
            database, feed, runs, Providers(settings), channels=open_,
            log=make_logger("info", "json", log), grace=1, **more,
        )  # fmt: skip
        g = Greffier(database)
        g.endpoints = _endpoints(database, open_)
        feeding = asyncio.create_task(feed.run())
        async with work.running():
            yield Delivery(g, database, Hand(live), work, log)
        feeding.cancel()
        await asyncio.wait({feeding})
        await g.close()
        report = await audit(database)
        assert report.clean, report.findings
    broken = [line for line in log.getvalue().splitlines() if b'"level":"error"' in line]
    assert broken == [], json.loads(broken[0])


def _endpoints(database: Database, channels: Channels) -> Endpoints:
    return Endpoints(database, ChannelTargets(channels))
