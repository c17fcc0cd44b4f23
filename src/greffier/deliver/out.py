"""Outgoing: a lane's messages leave for its endpoint, one after the other.

Before a message leaves, that it is about to is on record; after it, what came of it is.  Between
the two lies what nobody can know when a process dies there, and what is done then is the endpoint's
setting: send again, ask, or leave it to a person.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections import Counter
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Final
from uuid import UUID, uuid5

from structlog.typing import FilteringBoundLogger

from greffier.deliver.channels.protocol import Channel, Outgoing, Result, Target
from greffier.deliver.lanes import Claim, LaneKind
from greffier.deliver.settling import Settling
from greffier.deliver.times import Times
from greffier.deliver.worker import Held, Lost
from greffier.errors import Error, Unavailable
from greffier.model.queue import NOT_MADE
from greffier.model.retry import STANDARD, Retry
from greffier.store.database import Database

#: Lanes that one process delivers from at the same time.
CONCURRENCY = 64
#: Seconds one message may take to leave.
TIMEOUT = 20.0
#: Seconds of the lease that must be left when a message leaves, beyond what it may take; of a short
#: lease a fifth.
MARGIN = 5.0
#: Seconds in which what came of a message is put on record when we are stopped.
SETTLING = 5.0
#: After so long of nothing but failures an endpoint is disabled.
PATIENCE = timedelta(days=5)
#: By which bounds it is counted how long a message takes to leave.
SEND_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0)

_FAIL = "select fail_v1($1, $2, $3, $4, $5, $6, $7, $8, $9)"
_ASIDE = "select set_aside_v1($1, $2, $3, $4, $5, $6, $7, $8, $9)"
_TAKE_BACK = "select take_back_v1($1, $2, $3, $4)"
_ABANDON = "select abandon_v1($1, $2, $3)"
_DEFER = "select defer_v1($1, $2, $3, $4)"
_ADMIT = "select * from admit_v1($1, $2, $3)"
_REPORT = "select report_v1($1, $2, $3, $4, $5)"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An endpoint as one lane sees it."""

    id: UUID
    channel: str
    target: Target
    roles: Sequence[str] | None
    ordering: str
    on_uncertain: str | None
    max_attempts: int | None
    gated: bool
    title: str
    previous: tuple[str, ...]
    #: Whether the lane is the conversation's own, and not one message's (``set_aside_v1``).
    main: bool
    #: Whether it points to the contact of this conversation, who speaks for no other.
    contact: bool


@dataclass(frozen=True, slots=True)
class Message:
    """A message that is to leave, as of ``rev``; ``unsure``: it may have, in an earlier try."""

    seq: int
    id: UUID
    rev: int
    body: bytes
    unsure: bool


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is done with a message after a try.

    Attributes:
        done: It is settled, and the lane goes on behind it.
        retry_in: Otherwise, seconds until the next try.
        park: Or why a person has to look.
    """

    done: bool
    retry_in: float = 0.0
    park: str | None = None


def judge(
    result: Result,
    tries: int,
    *,
    ordering: str,
    on_uncertain: str,
    most: int,
    chance: float,
    retry: Retry = STANDARD,
) -> Verdict:
    """Decide what is done after a try.

    Args:
        result: What came of it.
        tries: How many were made before this one.
        ordering: ``strict``, ``skip`` or ``unordered``.
        on_uncertain: ``resend``, ``probe`` or ``park``.
        most: Tries a message has.
        chance: A random number from 0 to 1, the caller's.
        retry: When to try again.
    """
    if result.outcome == "accepted":
        return Verdict(done=True)
    if result.disable:
        # Its endpoint is disabled: there it waits, whatever the order, until somebody enables it.
        return Verdict(done=False)
    if result.outcome == "uncertain" and on_uncertain == "park":
        return Verdict(done=False, park=f"uncertain: {result.detail}")
    wait = retry.wait(tries + 1, random=chance, retry_after=result.retry_after, most=most)
    final = wait is None or not (result.retryable or result.outcome == "uncertain")
    if not final and wait is not None:
        return Verdict(done=False, retry_in=wait)
    if ordering == "skip":
        return Verdict(done=True)
    times = "once" if tries == 0 else f"{tries + 1} times"
    return Verdict(done=False, park=f"{result.outcome}, tried {times}: {result.detail}")


class OutLanes:
    """Works on outgoing lanes (``deliver.worker.Kind``)."""

    name: LaneKind = "out"

    def __init__(
        self,
        database: Database,
        channels: Mapping[str, Channel],
        *,
        log: FilteringBoundLogger,
        lease: float = 600.0,
        max_tries: int = 3,
        batch: int = 10,
        concurrency: int = CONCURRENCY,
        timeout: float = TIMEOUT,
    ) -> None:
        """Make the worker's part for what leaves.

        Args:
            database: Where.
            channels: The ways to the outside, by name.
            log: Told of what failed.
            lease: Seconds after which a silent worker has lost its lane.
            max_tries: Tries of a message whose endpoint says nothing else, and lost leases.
            batch: Messages that leave under one claim.
            concurrency: Lanes at the same time.
            timeout: Seconds one message may take to leave.
        """
        self.lease = lease
        self.max_tries: int | None = max_tries
        self.concurrency = concurrency
        self._most = max_tries
        self._batch = batch
        self._database = database
        self._channels = channels
        self._log = log
        margin = min(MARGIN, lease / 5)
        self._timeout = min(timeout, lease / 2 - margin)
        #: What has to be left of a lease, and after which a place that was taken is free.
        self._needed = timedelta(seconds=self._timeout + margin)
        self._settling = Settling(database, lease=lease, needed=self._needed)
        self._random = random.Random()  # noqa: S311 - jitter
        #: How often which outcome came of which channel.
        self.sends: Counter[tuple[str, str]] = Counter()
        #: How often a message was sent of which an earlier try may have arrived.
        self.doubles = 0
        #: How long each channel took.
        self.took = Times(SEND_SECONDS)

    async def work(self, held: Held) -> None:
        """Send a lane's next messages, as many as go under one claim."""
        claim = held.claim
        assert claim.endpoint_id is not None, "an outgoing lane leads somewhere"
        endpoint = await self._endpoint(claim.conversation_id, claim.lane_id, claim.endpoint_id)
        if endpoint is None:
            held.settling = True
            await self._database.verb(
                _ABANDON, claim.conversation_id, claim.lane_id, claim.token, again=True
            )
            return
        channel = self._channels.get(endpoint.channel)
        if channel is None:
            # It belongs to a package that this process does not have; another may.
            await self.defer(held, 60.0)
            return
        rows = await self._database.read(
            "outgoing_messages", claim.conversation_id, claim.lane_id, claim.head_seq,
            claim.tail_seq, endpoint.roles, self._batch, claim.tries, endpoint.id,
        )  # fmt: skip
        messages = [
            Message(row["seq"], row["id"], row["rev"], row["body"].encode(), row["unsure"])
            for row in rows
        ]
        wanted = [
            message
            for message in messages
            if channel.passes_over(self.outgoing(held, endpoint, message)) is None
        ]
        if not wanted:
            # Nothing of it is for this endpoint.
            upto = messages[-1].seq if len(messages) == self._batch else claim.tail_seq
            await self.done(held, endpoint.id, upto, None)
            return
        await _Delivery(self, held, endpoint, channel, wanted).run()

    async def _endpoint(
        self, conversation_id: UUID, lane_id: UUID, endpoint_id: UUID
    ) -> Endpoint | None:
        rows = await self._database.read(
            "outgoing", conversation_id, lane_id, endpoint_id, together=True
        )
        if not rows:
            return None
        row = rows[0]
        settings: dict[str, Any] = json.loads(row["settings"])
        return Endpoint(
            row["id"],
            row["channel"],
            Target(row["channel"], row["target"], tuple(row["secrets"]), settings),
            row["roles"],
            row["ordering"],
            row["on_uncertain"],
            row["max_attempts"],
            row["gated"],
            row["title"],
            tuple(dict.fromkeys(row["previous"])),
            row["main"],
            row["contact"],
        )

    # -- calls, each refused when the lane is not ours any more ----------------------------------

    async def defer(self, held: Held, wait: float | None) -> None:
        """Let the lane go for so many seconds, or until its endpoint goes on; no try is counted."""
        held.settling = True
        await self._write(
            held, _DEFER, None if wait is None else timedelta(seconds=wait),
        )  # fmt: skip

    async def intend(self, held: Held, message: Message) -> str:
        """Put on record that a message is about to leave (``intend_v1``)."""
        saying = self._settling.intend(held.claim, message.seq, message.rev)
        return str(await self._ended(held, saying))

    async def take_back(self, held: Held, seq: int) -> None:
        """Put on record that it did not leave after all, and let the lane go."""
        held.settling = True
        await self._write(held, _TAKE_BACK, seq)

    async def done(
        self,
        held: Held,
        endpoint_id: UUID,
        seq: int,
        result: Result | None,
        *,
        keep: bool = False,
        then: Message | None = None,
    ) -> str:
        """Put on record what came of a message; without a result, that it was for nobody here.

        Args:
            held: The lane.
            endpoint_id: Where it went.
            seq: The message.
            result: What came of it.
            keep: Whether the lane stays ours, if there is more.
            then: The message whose intent is put on record in the same commit.
        """
        asked_at = asyncio.get_running_loop().time()
        held.settling = not keep
        known = (None,) * 3 if result is None else (
            result.outcome, result.detail, result.external_id
        )  # fmt: skip
        following = None if then is None else (then.seq, then.rev)
        answer = await self._ended(
            held,
            self._settling.done(held.claim, seq, known, endpoint_id, keep=keep, then=following),
        )
        if answer == "zombie":
            raise Lost
        if keep:
            held.written(asked_at)
        return str(answer)

    async def failed(self, held: Held, seq: int, result: Result, verdict: Verdict) -> None:
        """Put on record that a message did not leave, and when it is tried again, or not."""
        held.settling = True
        await self._write(
            held, _FAIL, seq, result.outcome, result.detail, timedelta(seconds=verdict.retry_in),
            None, verdict.park,
        )  # fmt: skip

    async def set_aside(
        self, held: Held, seq: int, result: Result, verdict: Verdict, *, keep: bool
    ) -> None:
        """Give a message that did not leave a lane of its own."""
        asked_at = asyncio.get_running_loop().time()
        held.settling = not keep
        await self._write(
            held, _ASIDE, seq, result.outcome, result.detail, timedelta(seconds=verdict.retry_in),
            verdict.park, timedelta(seconds=self.lease) if keep else None,
        )  # fmt: skip
        if keep:
            held.written(asked_at)

    async def _write(self, held: Held, sql: str, *args: object) -> None:
        if not await self._say(held, sql, *args):
            raise Lost

    async def _say(self, held: Held, sql: str, *args: object) -> object:
        """Call a function that takes the lane and its token."""
        return await self._ended(held, self._call(held.claim, sql, *args))

    async def _call(self, claim: Claim, sql: str, *args: object) -> object:
        ((answer,),) = await self._database.verb(
            sql, claim.conversation_id, claim.lane_id, claim.token, *args, again=True
        )
        answered: object = answer
        return answered

    async def _ended(self, held: Held, saying: Coroutine[Any, Any, object]) -> object:
        """Say something of a lane, which ends even when we are stopped."""
        call = asyncio.ensure_future(saying)
        try:
            answer = await asyncio.shield(call)
        except asyncio.CancelledError:
            # What has left is on record as that, or it would leave again.
            await asyncio.wait({call}, timeout=SETTLING)
            call.cancel()
            held.lost = held.lost or held.settling
            raise
        if answer not in (False, None, "zombie"):
            # Let go by ourselves: nothing is to be released any more.
            held.lost = held.lost or held.settling
        return answer

    async def admitted(self, held: Held, endpoint: Endpoint) -> bool:
        """Ask whether a message may leave for an endpoint now; otherwise the lane is let go."""
        if not endpoint.gated:
            return True
        # Again: a holder that has a place keeps it, and at worst one more of its minute is used up.
        # Not again would leave the lane to its lease, for a connection that broke.
        (answer,) = await self._database.verb(
            _ADMIT, endpoint.id, _holder(held),
            self._needed, again=True,
        )  # fmt: skip
        if answer["answer"] == "go":
            return True
        wait: timedelta | None = answer["wait"]
        await self.defer(held, None if wait is None else wait.total_seconds())
        return False

    async def report(self, held: Held, endpoint: Endpoint, result: Result | None) -> None:
        """Tell how the endpoint does, so that a failing one is left alone for a while.

        Without a result only the place among those that leave at the same time is given back.
        """
        ok = None if result is None else result.outcome == "accepted"
        if result is not None and not result.retryable and not result.disable:
            # It works, and would not have this message; or that could not even leave, whatever the
            # endpoint does, which says nothing of it.
            ok = True if result.outcome == "rejected" else None
        if ok is not False and not endpoint.gated:
            return
        disable = result.detail if result is not None and result.disable else None
        try:
            ((disabled,),) = await self._database.verb(
                _REPORT, endpoint.id, _holder(held), ok, disable, PATIENCE, again=False
            )
        except Unavailable:
            # The next try tells; a place that was taken is free when its time is over.
            return
        if disabled:
            self._log.warning("endpoint disabled", endpoint_id=str(endpoint.id), why=disable)

    def outgoing(self, held: Held, endpoint: Endpoint, message: Message) -> Outgoing:
        """Give a message as a channel takes it."""
        return Outgoing(
            webhook_id=f"msg_{uuid5(endpoint.id, str(message.id)).hex}",
            conversation_id=held.claim.conversation_id,
            conversation_title=endpoint.title,
            message=message.body,
            seq=message.seq,
            fence=held.claim.fence,
            previous=endpoint.previous,
        )

    async def send(
        self, held: Held, endpoint: Endpoint, channel: Channel, message: Message
    ) -> Result:
        """Try once; when an earlier try may have arrived, ask first where that can be asked."""
        outgoing = self.outgoing(held, endpoint, message)
        if message.unsure:
            policy = endpoint.on_uncertain or channel.default_on_uncertain
            if policy == "park":
                return Result("uncertain", NOT_MADE)
            if policy == "probe":
                found = await channel.probe(endpoint.target, outgoing, timeout=self._timeout)
                if found is None or found.outcome in ("accepted", "uncertain"):
                    return found or Result("uncertain", NOT_MADE)
        began = asyncio.get_running_loop().time()
        self.doubles += message.unsure
        result = await channel.send(endpoint.target, outgoing, timeout=self._timeout)
        self.took.add(channel.name, asyncio.get_running_loop().time() - began)
        self.sends[channel.name, result.outcome] += 1
        # A contact who wants no more says so for nobody else.
        return replace(result, disable=False) if endpoint.contact else result

    def judge(self, result: Result, tries: int, endpoint: Endpoint, channel: Channel) -> Verdict:
        """Decide what is done after a try."""
        policy = endpoint.on_uncertain or channel.default_on_uncertain
        if policy == "probe" and result.outcome == "uncertain" and not _can_probe(channel):
            policy = "park"
        return judge(
            result,
            tries,
            ordering=endpoint.ordering,
            on_uncertain=policy,
            most=endpoint.max_attempts or self._most,
            chance=self._random.random(),
        )


def _holder(held: Held) -> UUID:
    """Name a lane while it is ours: what was claimed at once has one token."""
    return uuid5(held.claim.token, str(held.claim.lane_id))


def _can_probe(channel: Channel) -> bool:
    return type(channel).probe is not Channel.probe


#: What is on record of a message whose sending was cut off by our own stop.
_CUT: Final = Result("uncertain", "the worker stopped while it was on its way")


class _Delivery:
    """Some messages of one lane, under one claim."""

    def __init__(
        self,
        lanes: OutLanes,
        held: Held,
        endpoint: Endpoint,
        channel: Channel,
        messages: Sequence[Message],
    ) -> None:
        self._lanes = lanes
        self._held = held
        self._endpoint = endpoint
        self._channel = channel
        self._messages = messages
        self._tries = held.claim.tries
        #: Of which the intent is on record and nothing has left, and which was found deleted then.
        self._intended = self._over = 0

    async def run(self) -> None:
        """Send them in order, until one does not go through that the others have to wait for."""
        try:
            for place in range(len(self._messages)):
                if not await self._next(place):
                    break
            if not self._held.lost:
                # The last was taken back before it left.
                await self._lanes.defer(self._held, 0.0)
        except asyncio.CancelledError:
            if self._intended and not self._held.lost:
                # It did not leave: that nobody knows would be a person's to decide, for some.
                with contextlib.suppress(Error, Lost):
                    await self._lanes.take_back(self._held, self._intended)
            raise

    async def _next(self, place: int) -> bool:
        """Send one; whether to go on with the next."""
        lanes, held, endpoint = self._lanes, self._held, self._endpoint
        message = self._messages[place]
        last = place + 1 == len(self._messages)
        if message.seq == self._over:
            return True
        if self._intended != message.seq:
            if not await lanes.admitted(held, endpoint):
                return False
            answer = await lanes.intend(held, message)
            if answer != "go":
                # Whoever was let through and does not go gives its place back.
                await lanes.report(held, endpoint, None)
            if answer == "zombie":
                raise Lost
            if answer == "late":
                await lanes.defer(held, 0.0)
                return False
            if answer == "skip":
                self._tries = 0
                return True
            self._intended = message.seq
        result = await self._try(message)
        if result.external_id is not None and result.outcome == "accepted":
            # The next of this claim goes behind it in its thread.
            before = (*endpoint.previous[:1], result.external_id)
            self._endpoint = endpoint = replace(endpoint, previous=before)
        verdict = lanes.judge(result, self._tries, endpoint, self._channel)
        self._tries = 0
        if verdict.done:
            # Where it has to be asked first whether the next may leave, its intent comes after.
            then = None if last or endpoint.gated else self._messages[place + 1]
            answer = await lanes.done(
                held, endpoint.id, message.seq, result, keep=not last, then=then
            )
            self._intended = then.seq if then and answer == "go" else 0
            self._over = then.seq if then and answer == "skip" else 0
            await lanes.report(held, endpoint, result)
            if answer == "late":
                # Paused meanwhile, the next was edited, or the lease is nearly over.
                await lanes.defer(held, 0.0)
                return False
            return True
        if result.disable:
            # First, so that whoever takes the lane next finds its endpoint disabled.
            await lanes.report(held, endpoint, result)
        aside = endpoint.ordering == "unordered" and endpoint.main
        goes_on = aside and not result.disable
        if aside:
            await lanes.set_aside(held, message.seq, result, verdict, keep=goes_on and not last)
        else:
            await lanes.failed(held, message.seq, result, verdict)
        if not result.disable:
            await lanes.report(held, endpoint, result)
        return goes_on

    async def _try(self, message: Message) -> Result:
        lanes, held = self._lanes, self._held
        self._intended = 0
        try:
            return await lanes.send(held, self._endpoint, self._channel, message)
        except asyncio.CancelledError:
            if not held.lost:
                verdict = lanes.judge(_CUT, self._tries, self._endpoint, self._channel)
                with contextlib.suppress(Error, Lost, TimeoutError):
                    async with asyncio.timeout(SETTLING):
                        await lanes.failed(held, message.seq, _CUT, verdict)
            raise
