"""Following a run: every event once, in order, from any event on, in any process.

What a run of this process says is handed on as it is stored; a run of another process is read when
it is known, or after a while thought, that there is more.  Either way a follower keeps its own
position, and reads from there whenever it is not sure.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from typing import TypeAlias
from uuid import UUID

from greffier.agents.events import Event, Said, data, said
from greffier.errors import Unavailable
from greffier.model.limits import DEFAULT, Limits
from greffier.publish.bus import Wake
from greffier.store.database import Database

#: Seconds between two looks at a run that nothing is heard of: what a lost wake-up costs.
POLL = 2.0
#: Events that wait for a follower; one who is slower than that reads from the record.
QUEUE = 64


#: Reads what a run has said: which run, for whom, after which event.
Read: TypeAlias = Callable[[UUID, str | None, int], Awaitable[Said]]


class FollowedRuns:
    """The runs that somebody follows in this process; they are asked for elsewhere."""

    def __init__(
        self,
        database: Database,
        say: Callable[[Wake], None],
        *,
        limits: Limits = DEFAULT,
    ) -> None:
        """Make the place where runs are followed.

        Args:
            database: Where runs are.
            say: Tells the other processes of a wake-up.
            limits: Above which size the text of a stored message is cut.
        """
        self._database = database
        self._say = say
        self._limits = limits
        self._followers: dict[UUID, set[Follower]] = {}
        self._ended: list[Callable[[UUID], None]] = []
        self._speaking: list[Callable[[UUID, UUID], None]] = []
        self.closed = False

    def on_said(self, hear: Callable[[UUID, UUID], None]) -> None:
        """Tell somebody of each conversation and run that may have said something."""
        self._speaking.append(hear)

    def on_end(self, hear: Callable[[UUID], None]) -> None:
        """Tell somebody of each conversation whose run may be over: whoever works on it looks."""
        self._ended.append(hear)

    def stored(
        self, conversation_id: UUID, run_id: UUID, after: int, said_now: Sequence[tuple[str, str]]
    ) -> None:
        """Hear what a run of this process has said (``voice.Stored``), and tell everybody."""
        self._say(Wake(conversation_id, 0, people=False, run=run_id))
        for hear in self._speaking:
            hear(conversation_id, run_id)
        followers = self._followers.get(run_id)
        if not followers:
            return
        events = [
            Event(number, name, data(name, body, run_id, conversation_id))
            for number, (name, body) in enumerate(said_now, after + 1)
        ]
        for follower in followers:
            follower.hear(events)

    def ended(self, conversation_id: UUID, run_id: UUID) -> None:
        """Hear that a run is over, here, and tell everybody."""
        self._say(Wake(conversation_id, 0, people=False, run=run_id))
        self.look(run_id)
        self._may_be_over(conversation_id)

    def heard(self, wake: Wake | None) -> None:
        """Hear a wake-up; None says that some may have been lost."""
        if wake is None:
            for run_id in self._followers:
                self.look(run_id)
        elif wake.run is not None:
            self.look(wake.run)
            for hear in self._speaking:
                hear(wake.conversation_id, wake.run)
            self._may_be_over(wake.conversation_id)
        elif wake.changed:
            # It may have been archived, rewound or erased.
            self._may_be_over(wake.conversation_id)
            if wake.people:
                # Somebody may have been removed: whoever reads next is asked for their right.
                for followers in self._followers.values():
                    for follower in followers:
                        if follower.conversation_id == wake.conversation_id:
                            follower.look()

    def _may_be_over(self, conversation_id: UUID) -> None:
        for hear in self._ended:
            hear(conversation_id)

    def following(self) -> int:
        """How many follow a run here."""
        return sum(map(len, self._followers.values()))

    def look(self, run_id: UUID) -> None:
        """Let a run's followers read from the record."""
        for follower in self._followers.get(run_id, ()):
            follower.look()

    def close(self) -> None:
        """End every follower's stream: they come back, here or elsewhere, with their position."""
        self.closed = True
        for followers in self._followers.values():
            for follower in followers:
                follower.end()

    @contextlib.asynccontextmanager
    async def follow(
        self, run_id: UUID, reader: str | None, after: int = 0
    ) -> AsyncIterator[Follower]:
        """Follow a run from an event on.

        Args:
            run_id: Which.
            reader: Who, a participant of its conversation; None is the service.
            after: The id of the last event they know; 0 for all.

        Raises:
            NotFound: There is no such run, or it is not theirs to see.
            Unavailable: The record cannot be read now.
        """
        if self.closed:
            raise Unavailable("The service is stopping.", retry_after=1)
        follower = Follower(self._read, run_id, reader, after)
        self._followers.setdefault(run_id, set()).add(follower)
        try:
            # Joined first and read then: what is said in between is seen twice, and not never.
            await follower.begin()
            yield follower
        finally:
            followers = self._followers[run_id]
            followers.discard(follower)
            if not followers:
                del self._followers[run_id]

    async def _read(self, run_id: UUID, reader: str | None, after: int) -> Said:
        return await said(self._database, run_id, reader, after, limits=self._limits)


class Follower:
    """One follower's way along a run."""

    def __init__(self, read: Read, run_id: UUID, reader: str | None, after: int) -> None:
        self._read = read
        self._run_id = run_id
        self._reader = reader
        #: The id of the last event that was handed out.
        self.last = after
        self.conversation_id: UUID | None = None
        self._waiting: deque[Event] = deque()
        self._something = asyncio.Event()
        self._unsure = True
        self._over = False
        self._ended = False

    async def begin(self) -> None:
        """Read where the run is, and whether they may see it."""
        await self._catch_up()

    def hear(self, events: Sequence[Event]) -> None:
        """Hear events as they are stored."""
        newest = self._waiting[-1].id if self._waiting else self.last
        if not events or self._unsure:
            pass
        elif events[0].id == newest + 1 and len(self._waiting) < QUEUE:
            self._waiting.extend(events)
        elif events[-1].id > newest:
            self._unsure = True
        self._something.set()

    def look(self) -> None:
        """Read from the record next."""
        self._unsure = True
        self._something.set()

    def end(self) -> None:
        """Hand out nothing more."""
        self._ended = True
        self._something.set()

    async def next(self) -> list[Event] | None:
        """Wait for the next events; None when the run is over and all was handed out, or we stop.

        Raises:
            NotFound: They may see no more, or the conversation was erased.
        """
        while True:
            if self._ended:
                return None
            self._something.clear()
            if self._unsure and not self._over:
                # Away is a delay: the position stays.
                with contextlib.suppress(Unavailable):
                    await self._catch_up()
            if self._waiting:
                return list(self._taken())
            if self._over:
                return None
            try:
                async with asyncio.timeout(POLL):
                    await self._something.wait()
            except TimeoutError:
                self._unsure = True

    def _taken(self) -> Iterator[Event]:
        while self._waiting:
            event = self._waiting.popleft()
            self.last = event.id
            yield event

    async def _catch_up(self) -> None:
        newest = self._waiting[-1].id if self._waiting else self.last
        # Lowered before the read: what is stored during it is not missed.
        self._unsure = False
        try:
            found = await self._read(self._run_id, self._reader, newest)
        except BaseException:
            self._unsure = True
            raise
        self.conversation_id = found.conversation_id
        self._over = found.over
        # What was heard during the read may be among it.
        newest = self._waiting[-1].id if self._waiting else self.last
        self._waiting.extend(event for event in found.events if event.id > newest)
