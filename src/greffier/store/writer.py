"""The writer: appends that wait are stored together, in one call and one commit.

No timer: what arrives while one call is under way goes with the next.  That makes a hot
conversation fast, where nothing in SQL can: the row's lock is held through the disk's flush, and
one commit for many is the only way around it.  Of many that wait a call takes half, and the other
half is sent before the callers of the first are told: PostgreSQL works on the one while we answer
the other and hear what they say next, instead of each in turn.

Two kinds of places hold requests:

* the *queue*, whose worker stores it over one connection.
* the *side*: a conversation whose row somebody else holds (a slow rewind, an erasure) is set aside
  with everything that comes for it meanwhile, in order, and waits for the lock on a connection of
  its own, so that it delays nobody else.

A request is never lost between them: it leaves its place only when its future is resolved.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import defaultdict, deque
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any
from uuid import UUID

import asyncpg

from greffier.errors import Unavailable
from greffier.model.row import Row, Stored
from greffier.store import connection
from greffier.store.refusals import refusal
from greffier.store.slots import Enter, Revive, Slot, Then

#: Messages in one call: more brings nothing (measured: 64 → 0.92 of 256).
BATCH_MESSAGES = 250
#: Bytes of text in one call, so that one commit stays short.
BATCH_BYTES = 4 << 20
#: Requests that a call takes although they are more than half: PostgreSQL spends 0.45 ms on a call
#: whatever is in it, which smaller halves would cost more than they win.
HALF = 64
#: Conversations waited for at the same time.
SIDE_CONNECTIONS = 4
#: How long the side waits for a row before it lets another conversation try, in milliseconds.
SIDE_LOCK_TIMEOUT = 2000


@dataclass(slots=True, eq=False)
class Request:
    """Messages of one conversation that stand or fall together."""

    conversation_id: UUID
    actor: str | None
    rows: Sequence[Row]
    size: int
    # every id was made for this call and never sent, so that none need be looked for
    fresh: bool
    # counts requests as they come, to keep them in order wherever they wait
    turn: int
    until: float
    done: asyncio.Future[list[Stored]] = field(repr=False)

    def resolve(self, stored: list[Stored]) -> None:
        """Tell the caller, unless they left: then it is on record all the same."""
        if not self.done.done():
            self.done.set_result(stored)

    def refuse(self, error: BaseException) -> None:
        """Tell the caller that it was not, or that nobody knows."""
        if not self.done.done():
            self.done.set_exception(error)


@dataclass(slots=True)
class Pressure:
    """What waits now, for back-pressure and metrics."""

    messages: int = 0
    size: int = 0
    batches: int = 0
    stored: int = 0
    replayed: int = 0
    set_aside: int = 0


class Writer:
    """Appends messages, many at a time, whenever some wait.  Stop it with ``drain``."""

    def __init__(
        self,
        dsn: str,
        *,
        revive: Revive | None = None,
        enter: Enter | None = None,
        queue_messages: int = 20_000,
        queue_bytes: int = 64 << 20,
        patience: float = 10.0,
    ) -> None:
        """Make a writer; it connects when the first message comes.

        Args:
            dsn: Where PostgreSQL is.
            revive: Brings an embedded server back.
            enter: Looks at each new connection before it is used.
            queue_messages: Messages that may wait; beyond it an append is unavailable.
            queue_bytes: Bytes of text that may wait.
            patience: Seconds a message may wait for a database that is away, or for a row that is
                held, before it is refused as unavailable.
        """
        self.pressure = Pressure()
        #: Told of each conversation that has new messages on record, and its rev.
        self.committed: Callable[[UUID, int], None] = _nobody
        #: Done with the connection after each commit, before anybody is answered.
        self.afterwards: Then | None = None
        self._limit_messages = queue_messages
        self._limit_bytes = queue_bytes
        self._patience = patience
        self._queue: deque[Request] = deque()
        self._turns = itertools.count()
        self._slot = Slot(dsn, {}, revive, enter)
        self._busy = False
        self._aside: dict[UUID, deque[Request]] = {}
        self._side_turn = asyncio.Semaphore(SIDE_CONNECTIONS)
        settings = {"lock_timeout": str(SIDE_LOCK_TIMEOUT)}
        self._side_slots = [Slot(dsn, settings, revive, enter) for _ in range(SIDE_CONNECTIONS)]
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    async def append(
        self,
        conversation_id: UUID,
        actor: str | None,
        rows: Sequence[Row],
        *,
        size: int,
        fresh: bool,
    ) -> list[Stored]:
        """Put messages on record, all or none, and say which numbers they have.

        A caller that is cancelled while its request waits takes it back; once the call is under way
        the messages are stored and nobody is told, as after a lost answer.

        Args:
            conversation_id: Where.
            actor: Who wants to write; None is the service.
            rows: The messages, at most ``BATCH_MESSAGES``.
            size: Bytes of their texts, for the bounds.
            fresh: Their ids were made for this call.

        Raises:
            Error: A refusal; nothing was stored.
            Unavailable: Too much waits, or the database is away.  After the latter the messages may
                be on record: sending them again with the same ids tells, and doubles nothing.
        """
        pressure = self.pressure
        if self._closed:
            raise Unavailable("The service is stopping.", retry_after=1)
        if (
            pressure.messages + len(rows) > self._limit_messages
            or pressure.size + size > self._limit_bytes
        ):
            raise Unavailable("Too many messages wait to be stored.", retry_after=1)
        request = Request(
            conversation_id,
            actor,
            rows,
            size,
            fresh,
            next(self._turns),
            time.monotonic() + self._patience,
            asyncio.get_running_loop().create_future(),
        )
        pressure.messages += len(rows)
        pressure.size += size
        try:
            self._enqueue(request)
            return await request.done
        finally:
            pressure.messages -= len(rows)
            pressure.size -= size

    async def drain(self) -> None:
        """Take nothing more, finish what was taken, and close the connections."""
        self._closed = True
        while self._tasks:
            await asyncio.wait(self._tasks)
        for slot in (self._slot, *self._side_slots):
            await slot.close()

    # -- choosing ------------------------------------------------------------------------------

    def _enqueue(self, request: Request) -> None:
        if self._aside and (aside := self._aside.get(request.conversation_id)) is not None:
            aside.append(request)
            return
        self._queue.append(request)
        self._wake()

    def _wake(self) -> None:
        if self._queue and not self._busy:
            self._busy = True
            self._start(self._work())

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _take(self, behind: int = 0) -> list[Request]:
        """Take the next batch: in order, within the bounds, no message id twice.

        Args:
            behind: How many are stored and not told yet, who may ask again.
        """
        half = max(HALF, (len(self._queue) + behind + 1) // 2)
        batch: list[Request] = []
        ids: set[tuple[UUID, UUID]] = set()
        messages = size = 0
        while self._queue and len(batch) < half:
            request = self._queue[0]
            if request.done.cancelled():
                self._queue.popleft()
                continue
            if batch and (
                messages + len(request.rows) > BATCH_MESSAGES or size + request.size > BATCH_BYTES
            ):
                break
            if not request.fresh:
                keys = {(request.conversation_id, row.id) for row in request.rows}
                if not ids.isdisjoint(keys):
                    # The same message again: it waits until the first is on record.
                    break
                ids |= keys
            self._queue.popleft()
            batch.append(request)
            messages += len(request.rows)
            size += request.size
        return batch

    # -- working -------------------------------------------------------------------------------

    async def _work(self) -> None:
        batch: list[Request] = []
        try:
            while True:
                if batch:
                    batch = self._take(behind=len(batch))
                if not batch:
                    # One turn of the loop: callers that are ready in the same tick go together, and
                    # who was just answered and says more at once (batches of 128 for 73).
                    await asyncio.sleep(0)
                    batch = self._take()
                if not batch:
                    break
                await self._store(self._slot, batch, wait=False)
        finally:
            self._busy = False
            self._wake()

    async def _store(self, slot: Slot, batch: list[Request], *, wait: bool) -> None:
        """Store a batch and answer its callers, however often the connection is lost under it.

        Every message has an id, so a call whose fate is unknown is simply made again with the ids
        looked for: what it had stored is then found as a replay.
        """
        pause = 0.02
        while batch:
            try:
                answers = await self._call(slot, batch, wait=wait)
                if self._queue and not any(answer[0] == "busy" for answer in answers):
                    # Behind the next call, which this task sends first.
                    asyncio.get_running_loop().call_soon(self._answer, batch, answers)
                else:
                    # Who is set aside must be so before others of their conversation are sent.
                    self._answer(batch, answers)
            except connection.LOST as error:
                slot.drop()
                for request in batch:
                    # The server may still be at it: also ids of our own may be there already.
                    request.fresh = False
                batch = self._still_patient(batch, error)
                # Nothing signals that a server is back; look again a little later each time.
                await asyncio.sleep(pause)
                pause = min(pause * 2, 0.5)
                continue
            except connection.TRY_AGAIN as error:
                batch = self._still_patient(batch, error)
                continue
            except asyncpg.exceptions.LockNotAvailableError as error:
                # On the side only: somebody else's turn to wait for a row.
                self._set_aside(self._still_patient(batch, error))
            except (asyncpg.PostgresError, asyncpg.exceptions.DataError, ValueError) as error:
                if len(batch) == 1:
                    batch[0].refuse(connection.translate(error))
                else:
                    # One of them broke the call: look for it in the halves, so that it breaks
                    # only its own.
                    middle = len(batch) // 2
                    for half in (batch[:middle], batch[middle:]):
                        await self._store(slot, self._in_turn(half, wait=wait), wait=wait)
            except BaseException as error:
                for request in batch:
                    request.refuse(connection.translate(error))
                if not isinstance(error, Exception):
                    raise
            return

    def _in_turn(self, batch: list[Request], *, wait: bool) -> list[Request]:
        """Set those aside again that would overtake a request of theirs that waits there."""

        def overtakes(request: Request) -> bool:
            aside = self._aside.get(request.conversation_id)
            if not wait or not aside:
                return not wait and aside is not None
            # It is the side itself that asks, which keeps the place of what it works on.
            return aside[0].turn < request.turn

        behind = [request for request in batch if overtakes(request)]
        self._set_aside(behind)
        return [request for request in batch if request not in behind]

    async def _call(self, slot: Slot, batch: list[Request], *, wait: bool) -> list[asyncpg.Record]:
        answers = await self._append(slot, batch, wait=wait)
        if self.afterwards is not None:
            await self.afterwards(slot)
        return answers

    async def _append(
        self, slot: Slot, batch: list[Request], *, wait: bool
    ) -> list[asyncpg.Record]:
        fresh = all(request.fresh for request in batch)
        if len(batch) == 1 and len(batch[0].rows) == 1:
            request = batch[0]
            return await slot.fetch(
                APPEND_ONE,
                request.conversation_id,
                request.actor,
                *request.rows[0],
                fresh,
                wait,
            )
        columns = zip(*(row for request in batch for row in request.rows), strict=True)
        return await slot.fetch(
            APPEND_BATCH,
            0,
            [request.conversation_id for request in batch],
            _used([request.actor for request in batch]),
            _sizes(batch),
            *map(_used, columns),
            not fresh,
            wait,
        )

    def _answer(self, batch: list[Request], answers: list[asyncpg.Record]) -> None:
        pressure = self.pressure
        pressure.batches += 1
        busy: list[Request] = []
        revs: dict[UUID, int] = {}
        at = 0
        for request in batch:
            mine = answers[at : at + len(request.rows)]
            at += len(request.rows)
            outcome: str = mine[0][0]
            if outcome == "stored" and len(mine) == 1:
                # As nearly all are; the general way below takes three times as long.
                one = Stored._make(mine[0])
                pressure.stored += 1
                revs[request.conversation_id] = one.rev
                request.resolve([one])
            elif outcome in ("stored", "replayed"):
                stored = list(map(Stored._make, mine))
                replayed = sum(one.outcome == "replayed" for one in stored)
                pressure.stored += len(stored) - replayed
                pressure.replayed += replayed
                if replayed < len(stored):
                    # Requests of one conversation are in the order of their revs.
                    revs[request.conversation_id] = max(one.rev or 0 for one in stored)
                request.resolve(stored)
            elif outcome == "busy":
                busy.append(request)
            else:
                request.refuse(refusal(outcome))
        for conversation_id, rev in revs.items():
            self.committed(conversation_id, rev)
        if busy:
            self._set_aside(busy)

    def _still_patient(self, batch: list[Request], error: BaseException) -> list[Request]:
        now = time.monotonic()
        still = []
        for request in batch:
            if request.done.done():
                continue
            if request.until < now:
                request.refuse(connection.translate(error))
                continue
            still.append(request)
        return still

    # -- the side ------------------------------------------------------------------------------

    def _set_aside(self, requests: list[Request]) -> None:
        """Let conversations whose row is held wait elsewhere, each with all that comes for it."""
        new = {request.conversation_id for request in requests} - self._aside.keys()
        moved = list(requests)
        if new:
            moved += [one for one in self._queue if one.conversation_id in new]
            others = [one for one in self._queue if one.conversation_id not in new]
            self._queue.clear()
            self._queue.extend(others)
        by_conversation: defaultdict[UUID, list[Request]] = defaultdict(list)
        for request in moved:
            by_conversation[request.conversation_id].append(request)
        for conversation_id, mine in by_conversation.items():
            aside = self._aside.setdefault(conversation_id, deque())
            # In the order in which they came, whichever way each of them came here.
            together = sorted([*mine, *aside], key=attrgetter("turn"))
            aside.clear()
            aside.extend(together)
        for conversation_id in new:
            self.pressure.set_aside += 1
            self._start(self._wait_for(conversation_id))

    async def _wait_for(self, conversation_id: UUID) -> None:
        """Store what was set aside for one conversation, waiting for its row."""
        aside = self._aside[conversation_id]
        while aside:
            # Served as they come, for SIDE_LOCK_TIMEOUT at most.
            async with self._side_turn:
                slot = self._side_slots.pop()
                try:
                    batch = self._take_aside(aside)
                    if batch:
                        await self._store(slot, batch, wait=True)
                finally:
                    self._side_slots.append(slot)
        del self._aside[conversation_id]

    def _take_aside(self, aside: deque[Request]) -> list[Request]:
        batch: list[Request] = []
        ids: set[UUID] = set()
        messages = size = 0
        now = time.monotonic()
        while aside:
            request = aside[0]
            if request.until < now:
                # Also those that would not be in this batch, and have waited as long.
                request.refuse(connection.busy())
            if request.done.done():
                aside.popleft()
                continue
            keys = {row.id for row in request.rows}
            if batch and (
                messages + len(request.rows) > BATCH_MESSAGES
                or size + request.size > BATCH_BYTES
                or not ids.isdisjoint(keys)
            ):
                break
            aside.popleft()
            ids |= keys
            batch.append(request)
            messages += len(request.rows)
            size += request.size
        return batch


def _nobody(_conversation_id: UUID, _rev: int) -> None:
    """Nobody follows."""


def _sizes(batch: Sequence[Request]) -> list[int] | None:
    """Say how many messages each request has; None is one each, which takes the function less."""
    sizes = [len(request.rows) for request in batch]
    return None if sum(sizes) == len(sizes) else sizes


def _used(column: Sequence[object]) -> Sequence[object] | None:
    """Send a column that nobody uses as NULL, which unnest pads: the driver looks at each item."""
    return None if column.count(None) == len(column) else column


_ROW = "$3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16"
APPEND_ONE = f"select * from append_message_v1($1, $2, {_ROW}, $17, $18)"
APPEND_BATCH = (
    "select * from append_batch_v1("
    + ", ".join(f"${n}" for n in range(1, 4 + len(Row._fields) + 3))
    + ")"
)
