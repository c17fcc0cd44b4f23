"""A user's own feed: which conversations they have, and what is new in each.

``list`` says what joined or left a user's list, in the order of their ``list_rev``.  ``activity``
says that a conversation of theirs moved: its rev, its last message, how many wait.  An activity is
the state it had when it was read; one that is lost is made up for by the next, or by the poll.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict, deque
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Literal
from uuid import UUID

from greffier.errors import Invalid, Unavailable
from greffier.publish.bus import Wake
from greffier.publish.feed import Feed
from greffier.read import lists as reads
from greffier.store.database import Database

#: Seconds in which activities of one conversation are gathered, for its first 60 local members;
#: a room with more takes longer, for each member's count is asked for.
GATHER = 0.3
MEMBERS_A_SECOND = 200
#: Members told of an activity before others have a turn.
AT_ONCE = 25
#: Seconds between looks at each user's list and newest conversations: what a lost wake-up costs.
POLL = 15.0
#: Conversations whose members are remembered.
REMEMBERED = 50_000
#: Events that wait for one follower; beyond that it starts again from its list_rev.
QUEUE = 256


@dataclass(frozen=True, slots=True)
class Event:
    """What is sent: its name, its JSON, and for a list the list_rev it brings the user to.

    ``about`` are conversations of which no activity that was made before it may be told any more.
    """

    name: Literal["list", "activity"]
    body: bytes
    list_rev: int | None = None
    about: frozenset[UUID] = frozenset()


class OwnFollower:
    """One place where a user follows their own feed."""

    def __init__(self) -> None:
        self._queue: deque[Event] = deque()
        self._look = asyncio.Event()
        self.closed = False
        self.overrun = False

    def push(self, event: Event) -> None:
        """Hand over an event; who is too slow is told to start again."""
        if self._queue and event.about:
            # The newer says it all; the older may hold words that were deleted since.
            self._queue = deque(
                one
                for one in self._queue
                if one.name != "activity" or one.about.isdisjoint(event.about)
            )
        if len(self._queue) >= QUEUE:
            self._queue.clear()
            self.overrun = True
        self._queue.append(event)
        self._look.set()

    def close(self) -> None:
        """Hand over nothing more."""
        self.closed = True
        self._look.set()

    async def next(self) -> Event | None:
        """Wait for the next event; None when there will be none any more."""
        while not self._queue:
            if self.closed or self.overrun:
                return None
            await self._look.wait()
            self._look.clear()
        return self._queue.popleft()


class _User:
    """A user with followers in this process."""

    def __init__(self) -> None:
        #: None while it is being read for the first follower.
        self.list_rev: int | None = None
        #: A commit was heard meanwhile, when there was no place to look from.
        self.missed = False
        self.followers: set[OwnFollower] = set()
        self.seen: dict[UUID, int] = {}

    def push(self, event: Event) -> None:
        for follower in list(self.followers):
            follower.push(event)


class OwnFeeds:
    """The own feeds of the users who follow theirs in this process."""

    def __init__(self, database: Database, feed: Feed) -> None:
        """Make the feeds; they live while ``run`` does.

        Args:
            database: The record.
            feed: Hears the wake-ups.
        """
        self._database = database
        self._users: dict[str, _User] = {}
        self._members: OrderedDict[UUID, frozenset[str]] = OrderedDict()
        self._lists: set[str] = set()
        self._people: set[UUID] = set()
        self._moved: dict[UUID, float] = {}
        self._something = asyncio.Event()
        self._everything = False
        self.closed = False
        feed.listen(self._heard)

    # -- hearing -------------------------------------------------------------------------------

    def _heard(self, wake: Wake | None) -> None:
        if not self._users:
            self._members.clear()
            return
        if wake is None:
            self._everything = True
        elif wake.people or wake.conversation_id not in self._members:
            self._people.add(wake.conversation_id)
        elif not self._members[wake.conversation_id].isdisjoint(self._users):
            self._move(wake.conversation_id)
        else:
            return
        self._something.set()

    def _move(self, conversation_id: UUID) -> None:
        if conversation_id not in self._moved:
            many = len(self._members.get(conversation_id, ()))
            pause = max(GATHER, many / MEMBERS_A_SECOND)
            self._moved[conversation_id] = asyncio.get_running_loop().time() + pause

    # -- working -------------------------------------------------------------------------------

    async def run(self) -> None:
        """Follow until cancelled; then every follower's feed ends."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._work())
                group.create_task(self._poll())
        finally:
            self.close()

    def close(self) -> None:
        """End every follower's feed."""
        self.closed = True
        for user in self._users.values():
            for follower in list(user.followers):
                follower.close()

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(POLL)
            self._everything = True
            self._something.set()

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            wait = None
            if self._moved:
                wait = max(0.0, min(self._moved.values()) - loop.time())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._something.wait()
            self._something.clear()
            try:
                await self._look(loop.time())
            except Unavailable:
                # The poll looks again.
                self._everything = True

    async def _look(self, now: float) -> None:
        if self._everything:
            self._everything = False
            self._lists |= set(self._users)
            await self._look_at_newest()
        if self._people:
            people, self._people = self._people, set()
            await self._look_at_people(people)
        if self._lists:
            lists, self._lists = self._lists, set()
            for name in lists:
                await self._tell_list(name)
        due = [one for one, at in self._moved.items() if at <= now]
        for conversation_id in due:
            del self._moved[conversation_id]
            await self._tell_activity(conversation_id)

    async def _look_at_people(self, conversations: set[UUID]) -> None:
        """Learn who is in these now; whoever came or went has a changed list."""
        found = await reads.members(self._database, list(conversations))
        for conversation_id in conversations:
            before = self._members.get(conversation_id)
            now = found.get(conversation_id, frozenset())
            self._members[conversation_id] = now
            self._members.move_to_end(conversation_id)
            if len(self._members) > REMEMBERED:
                self._members.popitem(last=False)
            here = set(self._users)
            # Not known before: whoever is here may be among those who just left.
            gone = here if before is None and not now else (before or frozenset()) & here
            self._lists |= (now & here) | gone
            if now & here:
                self._move(conversation_id)

    async def _look_at_newest(self) -> None:
        """Find what moved in the newest conversations of each user, should a wake-up be lost."""
        for name, user in list(self._users.items()):
            for conversation_id, rev in await reads.newest(self._database, name):
                if name not in self._members.get(conversation_id, (name,)):
                    # They came and nobody told us: of what happens there they would hear nothing.
                    self._people.add(conversation_id)
                if rev > user.seen.get(conversation_id, 0):
                    self._move(conversation_id)

    async def _tell_list(self, name: str) -> None:
        user = self._users.get(name)
        if user is not None and user.list_rev is None:
            user.missed = True
            return
        while user is not None and user.list_rev is not None:
            found = await reads.changes(self._database, name, user.list_rev)
            if found is None:
                return
            user.list_rev = found.list_rev
            user.push(_listed(found))
            if not found.more:
                return

    async def _tell_activity(self, conversation_id: UUID) -> None:
        here = [name for name in self._members.get(conversation_id, ()) if name in self._users]
        if conversation_id not in self._members:
            here = list(self._users)
        rows = await reads.activities(self._database, conversation_id, here)
        for number, row in enumerate(rows, start=1):
            if number % AT_ONCE == 0:
                # A room of a thousand would hold up everybody's changes for as many sends.
                await asyncio.sleep(0)
            user = self._users.get(row.user_id)
            if user is not None and row.rev > user.seen.get(conversation_id, 0):
                user.seen[conversation_id] = row.rev
                user.push(Event("activity", row.body, about=frozenset((conversation_id,))))

    # -- following -----------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def follow(self, name: str, since: int | None = None) -> AsyncIterator[OwnFollower]:
        """Follow a user's own feed.

        The first event says where they stand: what changed since the list_rev they know, or the
        present one.

        Args:
            name: The user.
            since: The list_rev they know.

        Raises:
            Invalid: ``since`` is no list_rev.
            Unavailable: The record cannot be read now.
        """
        if since is not None and not 0 <= since < 1 << 63:
            raise Invalid.at("/list_rev", "range", "A list_rev is a number from 0.")
        if self.closed:
            raise Unavailable("The service is stopping.", retry_after=1)
        follower = OwnFollower()
        user = self._users.get(name)
        if user is None:
            user = self._users[name] = _User()
        # Joins first and reads then: what is committed in between is heard twice, never missed.
        user.followers.add(follower)
        try:
            await self._begin(name, user, follower, since)
            yield follower
        finally:
            user.followers.discard(follower)
            if not user.followers and self._users.get(name) is user:
                del self._users[name]

    async def _begin(
        self, name: str, user: _User, follower: OwnFollower, since: int | None
    ) -> None:
        fresh = user.list_rev is None
        if user.list_rev is None:
            now = await reads.rev(self._database, name)
            if user.list_rev is None:
                user.list_rev = now
            if user.missed:
                user.missed = False
                self._lists.add(name)
                self._something.set()
        position, told = user.list_rev if since is None else since, False
        if fresh and since is None:
            # Read just now, after joining: the first of a crowd costs one small read each.
            follower.push(_standing(position))
            return
        while (found := await reads.changes(self._database, name, position)) is not None:
            follower.push(_listed(found))
            position, told = found.list_rev, True
            if not found.more:
                break
        if not told:
            follower.push(_standing(position))


def _standing(list_rev: int) -> Event:
    """Say where somebody stands."""
    return _listed(reads.ListChanges(list_rev, list_rev, False, [], []))


def _listed(found: reads.ListChanges) -> Event:
    return Event("list", found.body(), found.list_rev, frozenset(found.removed))
