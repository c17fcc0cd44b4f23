"""Answers at a pace of one's own, by the machinery that ``serve`` and ``worker`` run, and bare."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from uuid import UUID

import structlog

from greffier.agents.follow import FollowedRuns
from greffier.agents.providers.protocol import Answer, Ask, Content, Finished, Used
from greffier.agents.work import Work, due
from greffier.bench.places import Place
from greffier.change.agent import create
from greffier.change.run import start
from greffier.deliver.channels import Channels
from greffier.model.agent import NewAgent
from greffier.model.draft import SERVICE
from greffier.publish.bus import PostgresBus
from greffier.publish.feed import Feed
from greffier.settings import Price

#: What is said, over and over: five bytes each, as tokens have them about, and so many different
#: ones that nothing is won by compression that would not be with words.
_LETTERS = random.Random(5)
TOKENS = ["".join(_LETTERS.choices("aeinorst bdclmpu", k=5)) for _ in range(1_000)]
_ASK = Ask("paced", None, [])


@dataclass(frozen=True, slots=True)
class Pace:
    """So many tokens, and how many a second."""

    tokens: int
    rate: float


class Paced:
    """A provider that answers as fast as it is told to, and so late as nobody reads it."""

    def __init__(self) -> None:
        self.pace = Pace(1, 1)
        #: Lowered, an answer does not end behind its last word.
        self.may_end = asyncio.Event()
        self.may_end.set()

    async def answer(self, ask: Ask) -> Answer:
        """Say every token when its time has come."""
        del ask
        loop = asyncio.get_running_loop()
        began, pace = loop.time(), self.pace
        for number in range(pace.tokens):
            early = began + number / pace.rate - loop.time()
            if early > 0:
                await asyncio.sleep(early)
            yield Content(TOKENS[number % len(TOKENS)])
        await self.may_end.wait()
        yield Used(10, pace.tokens)
        yield Finished("stop")

    async def close(self) -> None:
        """Close nothing."""

    # -- the book it stands in (run.ProviderBook), alone

    def get(self, _name: str) -> Paced:
        """Give it, whatever is asked for."""
        return self

    def price(self, _name: str, _model: str) -> Price | None:
        """It costs nothing."""
        return None


async def bare(provider: Paced) -> float:
    """Read an answer and nothing else; gives the seconds to its first word."""
    began, first = time.perf_counter(), 0.0
    async with aclosing(provider.answer(_ASK)) as pieces:
        async for piece in pieces:
            if not first and isinstance(piece, Content):
                first = time.perf_counter() - began
    return first


@dataclass(frozen=True, slots=True)
class Answering:
    """A record whose conversations have an agent, and a worker in this process."""

    here: Place
    provider: Paced
    feed: Feed
    runs: FollowedRuns
    work: Work

    async def ask(self, talk: UUID) -> UUID:
        """Ask for an answer."""
        asked = await start(self.here.greffier.database, talk, SERVICE)
        due(self.feed, self.work, talk)
        return asked.run_id

    async def answer(self, talk: UUID) -> float:
        """Ask for an answer and follow it to its end; gives the seconds to its first word."""
        began, first = time.perf_counter(), 0.0
        run_id = await self.ask(talk)
        async with self.runs.follow(run_id, None) as follower:
            while (events := await follower.next()) is not None:
                if not first and any(event.name == "content.delta" for event in events):
                    first = time.perf_counter() - began
        return first

    async def heard(self, run_id: UUID, tokens: int) -> None:
        """Follow a run until so many tokens were heard."""
        missing = sum(len(TOKENS[number % len(TOKENS)]) for number in range(tokens))
        async with self.runs.follow(run_id, None) as follower:
            while missing > 0:
                for event in await follower.next() or ():
                    if event.name == "content.delta":
                        missing -= len(event.data) - len(b'{"text":""}')


@contextlib.asynccontextmanager
async def answering(here: Place, talks: Sequence[UUID]) -> AsyncIterator[Answering]:
    """Give conversations an agent, and work for it as ``greffier serve`` does."""
    database = here.greffier.database
    agent, _ = await create(database, NewAgent(name="Paced", provider="paced", model="paced"))
    async with here.connection() as live:
        await live.execute(
            "update conversations set agent_id = $1 where id = any ($2)", agent, list(talks)
        )
    async with at_work(here) as working:
        yield working


@contextlib.asynccontextmanager
async def at_work(here: Place, channels: Channels | None = None) -> AsyncIterator[Answering]:
    """Work in this process as ``greffier serve`` does.

    Args:
        here: For which record.
        channels: The ways to the outside; without them nothing is delivered.
    """
    database = here.greffier.database
    # What each run says of itself is not what is measured.
    quiet = structlog.make_filtering_bound_logger("critical")
    log = structlog.wrap_logger(structlog.PrintLogger(), wrapper_class=quiet)
    feed = Feed(database, PostgresBus(here.dsn))
    runs = FollowedRuns(database, feed.say)
    feed.listen_for_work(runs.heard)
    provider = Paced()
    work = Work(database, feed, runs, provider, channels=channels, log=log)
    following = asyncio.create_task(feed.run())
    try:
        async with work.running():
            yield Answering(here, provider, feed, runs, work)
    finally:
        runs.close()
        following.cancel()
        await asyncio.wait({following})
