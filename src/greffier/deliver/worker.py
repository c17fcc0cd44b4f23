"""The worker: claims lanes that are due, works on them while their leases last, and lets go.

Polling is the truth and a wake-up only shortens the wait, so a lost one costs a poll.  A worker
trusts its own clock for one thing: to stop before its lease can be over.  That it did not is found
out by the database, which refuses each write of whoever holds a lane no longer.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID, uuid4

from structlog.typing import FilteringBoundLogger

from greffier.deliver import lanes
from greffier.deliver.lanes import Claim, LaneKind
from greffier.deliver.roster import Doing, Roster
from greffier.errors import Error, Unavailable
from greffier.store.database import Database

#: Seconds between two looks for lanes that are due, when nobody calls.
POLL = 1.0
#: Renewals in a lease: five may fail before it is over.
RENEWALS = 6
#: Lanes claimed in one statement at most, and at first: one that finds as many as it asked for is
#: followed by one for twice as many.  So whoever hears first of fifty lanes leaves some to those
#: who hear of them a moment later, and of thousands everybody soon has all they can hold.
AT_ONCE = 50
AT_FIRST = 8


#: Seconds after which a lane is taken up again whose work broke.
BROKEN = 5.0


class Lost(Exception):
    """The lane is no longer ours: drop everything."""


class Held:
    """A lane while a worker holds it."""

    def __init__(self, claim: Claim, lease: float, until: float) -> None:
        """Hold a lane.

        Args:
            claim: The lane, and with what it is held.
            lease: Seconds a renewal lasts.
            until: When the lease may be over at the earliest, by the event loop's clock: counted
                from before the claim was asked for.
        """
        self.claim = claim
        self.lease = lease
        self.until = until
        self.lost = False
        #: Whether its last write is under way, whose own answer says whether it was still ours.
        self.settling = False
        self._deadline: asyncio.Timeout | None = None

    def renewed(self, asked_at: float) -> None:
        """Hear that the lease was renewed by a call that began at a time of the loop's clock."""
        self.until = max(self.until, asked_at + self.lease)
        if self._deadline is not None and not self._deadline.expired():
            self._deadline.reschedule(self.until)

    def written(self, asked_at: float) -> None:
        """Hear that a write was taken: five sixths of a lease are left at least (``renewed``)."""
        self.renewed(asked_at - self.lease / 6)

    def lose(self) -> None:
        """Hear that the lane is somebody else's: whoever works on it is stopped."""
        if self.settling:
            # A renewal that comes behind the last write finds the lane let go, by ourselves.
            return
        self.lost = True
        if self._deadline is not None and not self._deadline.expired():
            self._deadline.reschedule(asyncio.get_running_loop().time())

    @contextlib.asynccontextmanager
    async def within_lease(self) -> AsyncIterator[None]:
        """Run a block that is stopped when the lease may be over, or is known to be.

        Raises:
            Lost: It was stopped.
        """
        try:
            async with asyncio.timeout_at(self.until) as deadline:
                self._deadline = deadline
                try:
                    yield
                finally:
                    # A renewal may be under way yet, and its answer come when nobody is left whom
                    # it concerns: a deadline that is over takes no other, and said so by an error.
                    self._deadline = None
        except TimeoutError:
            if not deadline.expired():
                raise
            self.lost = True
            raise Lost from None


class Kind(Protocol):
    """What to do with lanes of one kind."""

    name: LaneKind
    #: Lanes worked on at the same time in one process.
    concurrency: int
    #: Seconds a lane is ours without renewal.
    lease: float
    #: Lost leases after which a lane is parked; None: never.
    max_tries: int | None

    async def work(self, held: Held) -> None:
        """Work on a lane, and settle it by a call that brings its token.

        Cancelled when the worker stops and its time is up; then too the lane is to be settled or
        left as it is, and it is released if it is still held.

        Raises:
            Lost: A write was refused.
        """


@dataclass(slots=True)
class Counts:
    """What a worker met, since it began."""

    claimed: int = 0
    #: Leases that ended, or were taken, while somebody worked on them.
    lost: int = 0
    #: Of these, the ones that a refused write told.
    refused: int = 0
    #: Work that ended with an error nobody had thought of.
    broken: int = 0


class Worker:
    """Works on lanes of some kinds, in this process."""

    def __init__(
        self,
        database: Database,
        kinds: Sequence[Kind],
        *,
        log: FilteringBoundLogger,
        poll: float = POLL,
        grace: float = 10.0,
    ) -> None:
        """Make a worker; it works while ``run`` does.

        Args:
            database: Where the lanes are.
            kinds: What to do with which.
            log: Told of what went wrong.
            poll: Seconds between two looks when nobody calls.
            grace: Seconds that work under way has to end after ``stop``.
        """
        self._database = database
        self._kinds = kinds
        self._log = log
        self._poll = poll
        self._grace = grace
        self._looks = {kind.name: asyncio.Event() for kind in kinds}
        # By kind, the token of a claim whose answer has not come, and when it was asked for.
        self._unheard: dict[LaneKind, tuple[UUID, float]] = {}
        # Claims whose lanes are to be let go when the database is back.
        self._abandoned: list[Claim] = []
        self._away = asyncio.Event()
        self._held: dict[asyncio.Task[None], tuple[Kind, Held]] = {}
        self._stopping = asyncio.Event()
        self.owner = f"{socket.gethostname()}:{os.getpid()}"
        self.counts = Counts()
        self._roster = Roster(
            database, self.owner, os.getpid(), [kind.name for kind in kinds], self._doing
        )

    @property
    def busy(self) -> int:
        """How many lanes it works on."""
        return len(self._held)

    def _doing(self) -> Doing:
        counts = self.counts
        return Doing(self.busy, counts.claimed, counts.lost, counts.refused, counts.broken)

    def wake(self, kind: LaneKind | None = None) -> None:
        """Look now, for lanes of one kind or of all; a hint, which may be lost."""
        for name, look in self._looks.items():
            if kind in (None, name):
                look.set()

    def stop(self) -> None:
        """Claim nothing more; ``run`` ends when what is under way has ended, or time is up."""
        self._stopping.set()
        self.wake()

    async def run(self) -> None:
        """Work until stopped or cancelled; whatever is held is settled or released then."""
        try:
            async with asyncio.TaskGroup() as group:
                living = group.create_task(self._roster.run())
                renewing = group.create_task(self._renew())
                letting_go = group.create_task(self._let_go())
                claiming = [group.create_task(self._claim(kind)) for kind in self._kinds]
                await self._stopping.wait()
                await asyncio.wait(claiming)
                if self._held:
                    await asyncio.wait(list(self._held), timeout=self._grace)
                await self._end()
                renewing.cancel()
                letting_go.cancel()
                living.cancel()
        finally:
            await self._end()

    async def _end(self) -> None:
        """Cancel what is still under way, and wait until it has let go."""
        tasks = list(self._held)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        unheard, self._unheard = self._unheard, {}
        if unheard:
            with contextlib.suppress(Error, TimeoutError):
                async with asyncio.timeout(2):
                    for kind, (token, _) in unheard.items():
                        for claim in await lanes.claimed(self._database, kind, token):
                            await lanes.release(self._database, claim)

    # -- claiming ------------------------------------------------------------------------------

    async def _claim(self, kind: Kind) -> None:
        look = self._looks[kind.name]
        most = AT_FIRST
        while not self._stopping.is_set():
            # Lowered before the look: whoever calls during it is heard in the next.
            look.clear()
            working = sum(one is kind for one, _ in self._held.values())
            room = min(kind.concurrency - working, most)
            found = 0
            if room > 0:
                # The poll comes back; nothing tells when a database does.
                with contextlib.suppress(Unavailable):
                    found = await self._take(kind, room)
                most = min(2 * most, AT_ONCE) if found >= room else AT_FIRST
            if found < room or room <= 0:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._poll):
                        await look.wait()

    async def _take(self, kind: Kind, most: int) -> int:
        """Claim lanes and begin on them; how many.

        After a claim whose answer was lost it is that claim's lanes that are looked for.

        Raises:
            Unavailable: The database is away, or nobody knows what came of it.
        """
        if kind.name in self._unheard:
            token, asked_at = self._unheard[kind.name]
            found = await lanes.claimed(self._database, kind.name, token)
        else:
            token, asked_at = uuid4(), asyncio.get_running_loop().time()
            self._unheard[kind.name] = token, asked_at
            found = await lanes.claim(
                self._database, kind.name, self.owner, most, kind.lease, kind.max_tries, token
            )
        del self._unheard[kind.name]
        for claim in found:
            self._begin(kind, Held(claim, kind.lease, asked_at + kind.lease))
        return len(found)

    def _begin(self, kind: Kind, held: Held) -> None:
        self.counts.claimed += 1
        task = asyncio.get_running_loop().create_task(self._work(kind, held))
        self._held[task] = (kind, held)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        kind, _ = self._held.pop(task)
        # There is room again, and its lane may be due again.
        self._looks[kind.name].set()

    async def _work(self, kind: Kind, held: Held) -> None:
        claim = held.claim
        try:
            async with held.within_lease():
                await kind.work(held)
        except Lost:
            self.counts.lost += 1
            # What the clock or a renewal tells is known before the work hears of it.
            self.counts.refused += not held.lost
            held.lost = True
            self._log.warning(
                "lane lost", kind=kind.name, conversation_id=str(claim.conversation_id),
                fence=claim.fence,
            )  # fmt: skip
        except asyncio.CancelledError:
            if not held.lost:
                with contextlib.suppress(Error):
                    await lanes.release(self._database, claim)
            raise
        except Unavailable:
            # The database was away for longer than anybody waits.  That is nobody's try, and the
            # lane is not to wait for the end of its lease when it is back.
            self._log.warning(
                "lane left, the database is away", kind=kind.name,
                conversation_id=str(claim.conversation_id), fence=claim.fence,
            )  # fmt: skip
            if not held.lost:
                self._abandoned.append(claim)
                self._away.set()
        except Exception as error:  # noqa: BLE001 - one lane's trouble is not the others'
            self.counts.broken += 1
            self._log.error(
                "work broke", kind=kind.name, conversation_id=str(claim.conversation_id),
                fence=claim.fence, error=type(error).__name__,
            )  # fmt: skip
            if not held.lost:
                # Its lease runs out, soon, which counts as a try: what always breaks is parked in
                # the end, and what broke once keeps its conversation waiting for seconds.
                held.lost = True
                with contextlib.suppress(Error):
                    await lanes.heartbeat(self._database, [claim], min(BROKEN, kind.lease))

    async def _let_go(self) -> None:
        """Release what was abandoned, as soon as the database is back."""
        while True:
            await self._away.wait()
            self._away.clear()
            abandoned, self._abandoned = self._abandoned, []
            for place, claim in enumerate(abandoned):
                try:
                    await lanes.release(self._database, claim)
                except Unavailable:
                    self._abandoned += abandoned[place:]
                    self._away.set()
                    # Nothing tells when a database is back.
                    await asyncio.sleep(self._poll)
                    break
            else:
                self.wake()

    # -- renewing ------------------------------------------------------------------------------

    async def _renew(self) -> None:
        """Renew, six times in a lease, what did not renew itself by what it wrote."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(min(kind.lease for kind in self._kinds) / RENEWALS)
            for kind in self._kinds:
                now = loop.time()
                old = [
                    held
                    for one, held in self._held.values()
                    if one is kind
                    and not held.lost
                    and held.until - now < kind.lease * (RENEWALS - 1) / RENEWALS
                ]
                if not old:
                    continue
                try:
                    kept = await lanes.heartbeat(
                        self._database, [held.claim for held in old], kind.lease
                    )
                except Unavailable:
                    # There are more tries in each lease; then its deadline stops the work.
                    continue
                for held in old:
                    if held.claim.lane_id in kept:
                        held.renewed(now)
                    elif any(one is held for _, one in self._held.values()):
                        held.lose()
