"""Running: a run lane is claimed, its agent's model is asked, and what it says becomes the answer.

The record decides everything: whether the run may begin, whether each batch of words is still
ours to say, and what the answer is, which it puts together itself of what was stored.  Here only
the model is listened to.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Mapping
from datetime import timedelta
from decimal import Decimal
from typing import Protocol
from uuid import UUID

import msgspec
from structlog.typing import FilteringBoundLogger

from greffier.agents.follow import FollowedRuns
from greffier.agents.providers.protocol import (
    Provider,
    ProviderError,
    ToolCall,
    Used,
)
from greffier.agents.providers.registry import cost
from greffier.agents.speaking import Agent, Ended, Speaking
from greffier.agents.tools import ToolRun, Tools
from greffier.agents.voice import Voice, Voices
from greffier.deliver.lanes import Claim, LaneKind, heartbeat
from greffier.deliver.times import Times
from greffier.deliver.worker import Held, Lost
from greffier.errors import Error, Unavailable
from greffier.read.context import Question, question
from greffier.settings import Price
from greffier.store.database import Database

#: Runs that answer at the same time in one process.
CONCURRENCY = 256
#: How often a run that the inbox asked for is tried when its workers are lost.
INBOX_TRIES = 3
#: By which bounds it is counted how long runs take.
RUN_SECONDS = (0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0)

_BEGIN = "select * from begin_run_v1($1, $2, $3, $4, $5)"
_FINISH = "select finish_run_v1($1, $2, $3, $4, $5, $6)"
_BEGIN_STEP = "select begin_step_v1($1, $2, $3, $4, $5, $6)"
_FINISH_STEP = "select finish_step_v1($1, $2, $3, $4, $5, $6)"


class ProviderBook(Protocol):
    """The providers of this server, by the names of its settings."""

    def get(self, name: str) -> Provider:
        """Give a provider.

        Raises:
            ProviderError: There is none of that name.
        """

    def price(self, name: str, model: str) -> Price | None:
        """Give a model's price; None when the settings say none."""

    async def close(self) -> None:
        """Close what is open."""


_agent = msgspec.json.Decoder(Agent).decode


class RunLanes:
    """Works on run lanes (``deliver.worker.Kind``)."""

    name: LaneKind = "run"
    #: A lost run is ended by whoever finds it, and never parked.
    max_tries: int | None = None

    def __init__(
        self,
        database: Database,
        providers: ProviderBook,
        tools: Tools,
        runs: FollowedRuns,
        *,
        log: FilteringBoundLogger,
        lease: float = 30.0,
        concurrency: int = CONCURRENCY,
    ) -> None:
        """Make the worker's part for runs; ``run`` stores what they say, beside the worker.

        Args:
            database: Where.
            providers: Who answers.
            tools: What the models may call here.
            runs: Told of what is stored, for those who follow.
            log: Told how runs ended.
            lease: Seconds after which a silent worker has lost its run.
            concurrency: Runs at the same time.
        """
        self.lease = lease
        self.concurrency = concurrency
        #: How runs ended here, those included that were found lost; and how long the others took.
        self.ended: Counter[str] = Counter()
        self.took = Times(RUN_SECONDS)
        self._database = database
        self._providers = providers
        self._tools = tools
        self._runs = runs
        self._log = log
        self._voices = Voices(database, lease, runs.stored)
        self._speaking: dict[UUID, Voice] = {}
        self._doubted: set[UUID] = set()
        self._doubt = asyncio.Event()
        runs.on_end(self.look)

    async def run(self) -> None:
        """Store what runs say until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._voices.run())
            group.create_task(self._check())

    def look(self, conversation_id: UUID) -> None:
        """See whether a conversation's run is still ours: somebody may have ended it."""
        if conversation_id in self._speaking:
            self._doubted.add(conversation_id)
            self._doubt.set()

    async def _check(self) -> None:
        """Ask for all that are doubted at once; who comes meanwhile goes with the next."""
        loop = asyncio.get_running_loop()
        while True:
            await self._doubt.wait()
            self._doubt.clear()
            doubted, self._doubted = self._doubted, set()
            voices = [
                voice
                for conversation_id in doubted
                if (voice := self._speaking.get(conversation_id)) and not voice.held.lost
            ]
            if not voices:
                continue
            now = loop.time()
            try:
                kept = await heartbeat(
                    self._database, [voice.held.claim for voice in voices], self.lease
                )
            except Unavailable:
                # The next renewal finds out.
                continue
            for voice in voices:
                claim = voice.held.claim
                if claim.lane_id in kept:
                    voice.held.renewed(now)
                elif self._speaking.get(claim.conversation_id) is voice and not voice.held.lost:
                    voice.held.lose()
                    # Whoever ended it may not have known that there was a run.
                    self._runs.ended(claim.conversation_id, voice.run_id)

    async def work(self, held: Held) -> None:
        """Answer in a conversation, or end a run that was lost."""
        # Beside the beginning, which waits for the disk: one behind the other, the first word came
        # after 5.1 ms instead of 4.6.
        reading = asyncio.get_running_loop().create_task(
            question(self._database, held.claim.conversation_id)
        )
        try:
            await self._work(held, reading)
        finally:
            reading.cancel()
            await asyncio.wait({reading})
            if not reading.cancelled():
                # So that it is no fault of ours where nobody asked for what was read.
                reading.exception()

    async def _work(self, held: Held, reading: asyncio.Task[Question]) -> None:
        claim = held.claim
        try:
            (begun,) = await self._database.verb(
                _BEGIN, claim.conversation_id, claim.lane_id, claim.token,
                timedelta(seconds=self.lease), INBOX_TRIES, again=False,
            )  # fmt: skip
        except Unavailable:
            # Nobody knows whether it has begun, and it begins once: its lease tells what is next.
            raise Lost from None
        outcome: str = begun["outcome"]
        if outcome == "zombie":
            raise Lost
        if outcome == "none":
            return
        run_id: UUID = begun["run_id"]
        if outcome == "ended":
            self._log.warning(
                "run interrupted", run_id=str(run_id), conversation_id=str(claim.conversation_id)
            )
            self.ended["interrupted"] += 1
            self._over(claim.conversation_id, run_id, begun["rev"])
            return
        began = asyncio.get_running_loop().time()
        self._runs.stored(claim.conversation_id, run_id, 0, [("run.started", "")])
        voice = self._speaking[claim.conversation_id] = self._voices.open(held, run_id)
        try:
            speaking = Speaking(self, voice, _agent(begun["agent"]), begun["asked_by"])
            ended = await self._listen(speaking, claim, reading, begun["rev"])
            await voice.drained()
            if voice.refused and ended.status == "completed":
                ended = self._broken(voice.refused)
            await self._finish(held, run_id, ended, began)
        except asyncio.CancelledError:
            # The worker stops: what was said is kept, and whoever follows learns at once that
            # there will be no more, instead of when the lease is over.
            if not held.lost:
                with contextlib.suppress(Error, Lost, TimeoutError):
                    async with asyncio.timeout(5):
                        await voice.drained()
                        await self._finish(held, run_id, Ended("interrupted"), began)
            raise
        finally:
            self._voices.close(voice)
            if self._speaking.get(claim.conversation_id) is voice:
                del self._speaking[claim.conversation_id]

    async def _listen(
        self, speaking: Speaking, claim: Claim, reading: asyncio.Task[Question], rev: int
    ) -> Ended:
        try:
            asked = await reading
            if asked.rev < rev:
                # Somebody said, edited or erased something before the run began: the model is
                # asked with that.
                asked = await question(self._database, claim.conversation_id)
            return await speaking.answer(asked.messages)
        except ProviderError as error:
            return Ended("failed", error.code, error.detail)
        except Error as error:
            # Of the record, when it was read for the model: away for longer than we wait.
            return Ended("failed", error.code, error.detail)
        except Lost:
            raise
        except Exception as error:  # noqa: BLE001 - whoever waits is told now, not when the lease ends
            return self._broken(error)

    def _broken(self, error: Exception) -> Ended:
        self._log.error("run broke", error=type(error).__name__, exc_info=error)
        return Ended("failed", "internal", "Something broke on our side; the log says what.")

    async def _finish(self, held: Held, run_id: UUID, ended: Ended, began: float) -> None:
        claim = held.claim
        held.settling = True
        while True:
            try:
                ((rev,),) = await self._database.verb(
                    _FINISH, claim.conversation_id, run_id, claim.token, ended.status, ended.code,
                    ended.detail, again=True,
                )  # fmt: skip
                break
            except Unavailable:
                # All of it is stored; the lease says how long there is still something to end.
                continue
        if rev is None:
            raise Lost
        # Ours no longer, and not to be released.
        held.lost = True
        self.ended[ended.status] += 1
        self.took.add(ended.status, asyncio.get_running_loop().time() - began)
        self._log.info(
            "run ended", run_id=str(run_id), status=ended.status, code=ended.code,
            conversation_id=str(claim.conversation_id),
        )  # fmt: skip
        self._over(claim.conversation_id, run_id, rev)

    def _over(self, conversation_id: UUID, run_id: UUID, rev: int) -> None:
        self._database.committed(conversation_id, rev, people=False)
        self._runs.ended(conversation_id, run_id)

    # -- what a run that speaks needs ------------------------------------------------------------

    def provider(self, name: str) -> Provider:
        """Give a provider."""
        return self._providers.get(name)

    def cost(self, agent: Agent, used: Used) -> Decimal:
        """Give what a call costs; nothing when the settings know no price."""
        price = self._providers.price(agent.provider, agent.model)
        return Decimal(0) if price is None else cost(used, price)

    async def call_tool(
        self, voice: Voice, step: int, call: ToolCall, urls: Mapping[str, str], run: ToolRun
    ) -> str:
        """Call a tool: the intent is on record before, that it answered after.

        Raises:
            Lost: The run is no longer ours, so that nothing may be called for it.
        """
        claim = voice.held.claim
        key = (claim.conversation_id, voice.run_id, claim.token, step, call.id)
        ((begun,),) = await self._database.verb(_BEGIN_STEP, *key, call.name, again=True)
        if not begun:
            raise Lost
        result, failed = await self._tools.call(call.name, call.arguments, urls, run)
        ((kept,),) = await self._database.verb(_FINISH_STEP, *key, failed, again=True)
        if not kept:
            raise Lost
        return result

    def answers(self, name: str, urls: Mapping[str, str]) -> bool:
        """Say whether a tool is called here, and not by the client."""
        return self._tools.answers(name, urls)
