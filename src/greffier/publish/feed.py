"""The feed: what this process's followers see of the record.

One feed per process.  It reads each conversation that somebody follows here once per burst of
commits, whoever made them, and hands the same bytes to all.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator, Callable
from uuid import UUID

import msgspec

from greffier.errors import Gone, Invalid, NotFound, Unavailable
from greffier.model.limits import DEFAULT, Limits
from greffier.publish.bus import Bus, LocalBus, Wake
from greffier.publish.change import Change
from greffier.publish.stream import Follower, Follows, Stream
from greffier.read.changes import Changes, changes
from greffier.read.people import Participant, decode_participants
from greffier.store.database import Database

#: Seconds between looks at every followed conversation: what a lost wake-up costs.
POLL = 5.0
#: Seconds between two tries of a follower to catch up while the record is away.
AWAY = 0.5
#: A rev that no conversation reaches: who asks from there is told only where it is.
BEYOND = 1 << 62


class Feed:
    """Streams of the conversations that somebody follows in this process."""

    def __init__(
        self, database: Database, bus: Bus | None = None, *, limits: Limits = DEFAULT
    ) -> None:
        """Make a feed; it lives while ``run`` does.

        Args:
            database: The record.
            bus: Tells other processes, and hears them; alone when not given.
            limits: How large one change may be.
        """
        self._database = database
        self._bus = bus or LocalBus()
        self._limits = limits
        self._streams: dict[UUID, Stream] = {}
        self._tasks: dict[UUID, asyncio.Task[None]] = {}
        self._asking: dict[UUID, asyncio.Task[Changes]] = {}
        self._listeners: list[Callable[[Wake | None], None]] = []
        self._others: list[Callable[[Wake | None], None]] = []
        self.closed = False

    @property
    def epoch(self) -> str:
        """The history that is followed."""
        return self._database.epoch

    def committed(self, conversation_id: UUID, rev: int, /, *, people: bool) -> None:
        """Hear of a commit of this process (``store.database.Committed``)."""
        wake = Wake(conversation_id, rev, people)
        self._bus.say(wake)
        self._heard(wake)

    def listen(self, hear: Callable[[Wake | None], None]) -> None:
        """Tell somebody else of every wake-up too (the users' own feeds)."""
        self._listeners.append(hear)

    def listen_for_work(self, hear: Callable[[Wake | None], None]) -> None:
        """Tell somebody of all that, and of runs and lanes too, which are no change."""
        self._others.append(hear)

    def say(self, wake: Wake) -> None:
        """Tell the other processes."""
        self._bus.say(wake)

    async def run(self) -> None:
        """Follow until cancelled; then every follower's stream ends."""
        self._database.committed = self.committed
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._bus.run(self._heard))
                group.create_task(self._poll())
        finally:
            self.close()

    def close(self) -> None:
        """End every follower's stream: they come back, here or elsewhere, with their position."""
        self.closed = True
        for task in list(self._tasks.values()):
            task.cancel()
        for stream in list(self._streams.values()):
            for follower in list(stream.followers):
                follower.revoke()

    def _heard(self, wake: Wake | None) -> None:
        for hear in self._others:
            hear(wake)
        if wake is not None and not wake.changed:
            return
        if wake is None:
            for stream in self._streams.values():
                stream.wake()
        else:
            stream_or_none = self._streams.get(wake.conversation_id)
            if stream_or_none is not None and (wake.rev == 0 or wake.rev > stream_or_none.rev):
                stream_or_none.wake()
        for hear in self._listeners:
            hear(wake)

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(POLL)
            followed = list(self._streams)
            if not followed:
                continue
            try:
                rows = await self._database.read("revs", followed)
            except Unavailable:
                continue
            revs = {row["id"]: row["rev"] for row in rows}
            for conversation_id in followed:
                stream = self._streams.get(conversation_id)
                # A conversation that is gone is looked at too: its followers are to be told.
                if stream is not None and revs.get(conversation_id, -1) != stream.rev:
                    stream.wake()

    # -- following -----------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def follow(
        self, conversation_id: UUID, user: str | None, since: int | None, epoch: str | None = None
    ) -> AsyncIterator[Following]:
        """Follow a conversation from a rev on.

        Joins first and reads then, so that what is committed in between is heard twice rather than
        never; what was seen is skipped by its rev.

        Args:
            conversation_id: Which.
            user: Who; they must take part. None is the service.
            since: The rev they know; None starts at the present one.
            epoch: The history it belongs to; another one than ours is a reset.

        Raises:
            Invalid: ``since`` is no rev.
            NotFound, Gone: There is no such conversation, or it is not theirs.
            Unavailable: The record cannot be read now.
        """
        if since is not None and not 0 <= since < 1 << 63:
            # Before anybody is told that they follow.
            raise Invalid.at("/since", "range", "A rev is a number from 0.")
        if self.closed:
            raise Unavailable("The service is stopping.", retry_after=1)
        look = asyncio.Event()
        follower = Follower(user, look.set)
        stream = await self.join(conversation_id, user, follower)
        try:
            yield Following(self, stream, follower, look, since, epoch)
        finally:
            self.leave(stream, follower)

    async def join(self, conversation_id: UUID, user: str | None, follower: Follows) -> Stream:
        """Let somebody hear of a conversation's changes from now on; they read what was before.

        Args:
            conversation_id: Which.
            user: Who; they must take part.  None is the service.
            follower: Hears the changes, from before this returns.

        Raises:
            NotFound, Gone: There is no such conversation, or it is not theirs.
        """
        stream = await self.hear(conversation_id, follower)
        try:
            await self._admit(conversation_id, user)
        except BaseException:
            self.leave(stream, follower)
            raise
        return stream

    async def hear(self, conversation_id: UUID, follower: Follows) -> Stream:
        """Let somebody hear of changes as ``join`` does; whether they may, the caller asks next.

        Raises:
            NotFound, Gone: There is no such conversation.
        """
        if self.closed:
            raise Unavailable("The service is stopping.", retry_after=1)
        stream = self._streams.get(conversation_id)
        if stream is not None:
            stream.followers.add(follower)
            return stream
        # Of many who come at once one asks where it is.
        asking = self._asking.get(conversation_id)
        if asking is None:
            read = changes(self._database, conversation_id, None, BEYOND, limits=self._limits)
            asking = self._asking[conversation_id] = asyncio.get_running_loop().create_task(read)
            asking.add_done_callback(functools.partial(self._asked, conversation_id))
        found = await asyncio.shield(asking)
        stream = self._streams.get(conversation_id)
        if stream is None:
            if self.closed:
                raise Unavailable("The service is stopping.", retry_after=1)
            stream = Stream(conversation_id, found.rev, self._next)
            self._streams[conversation_id] = stream
            task = asyncio.get_running_loop().create_task(stream.run())
            self._tasks[conversation_id] = task
            task.add_done_callback(functools.partial(self._ended, stream))
            # What was committed between the read and now.
            stream.wake()
        stream.followers.add(follower)
        return stream

    def _asked(self, conversation_id: UUID, asking: asyncio.Task[Changes]) -> None:
        del self._asking[conversation_id]
        if not asking.cancelled():
            # Told to those who wait; when all of them have gone, to nobody.
            asking.exception()

    async def _admit(self, conversation_id: UUID, user: str | None) -> None:
        """Refuse who does not take part; asked after joining, so that a removal is not missed."""
        if user is not None:
            await changes(self._database, conversation_id, user, BEYOND, limits=self._limits)

    def leave(self, stream: Stream, follower: Follows) -> None:
        """Let somebody hear nothing more; a stream that nobody follows ends."""
        stream.followers.discard(follower)
        if not stream.followers and self._streams.get(stream.conversation_id) is stream:
            del self._streams[stream.conversation_id]
            task = self._tasks.pop(stream.conversation_id, None)
            if task is not None:
                task.cancel()

    def _ended(self, stream: Stream, task: asyncio.Task[None]) -> None:
        """A stream that ended, gone or broken, leaves nobody waiting: they come back and see."""
        for follower in list(stream.followers):
            follower.revoke()
        if self._streams.get(stream.conversation_id) is stream:
            del self._streams[stream.conversation_id]
            self._tasks.pop(stream.conversation_id, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            task.get_loop().call_exception_handler(
                {"message": "a conversation's stream broke", "exception": error, "task": task}
            )

    # -- reading -------------------------------------------------------------------------------

    async def _next(self, conversation_id: UUID, rev: int) -> Change | None:
        found = await changes(self._database, conversation_id, None, rev, limits=self._limits)
        if found.rev == rev and not found.reset:
            return None
        return encode(conversation_id, found)

    async def catch_up(
        self, conversation_id: UUID, user: str | None, rev: int, epoch: str | None
    ) -> Change | None:
        """Read the change that follows a rev, for a follower who fell behind."""
        found = await changes(
            self._database, conversation_id, user, rev, epoch=epoch, limits=self._limits
        )
        if found.rev == rev and not found.reset:
            return None
        return encode(conversation_id, found)


class Following:
    """One follower's way along a conversation: every change once, in order."""

    def __init__(
        self,
        feed: Feed,
        stream: Stream,
        follower: Follower,
        look: asyncio.Event,
        since: int | None,
        epoch: str | None,
    ) -> None:
        self._feed = feed
        self._stream = stream
        self._follower = follower
        self._look = look
        #: The rev that was handed out.
        self.rev = stream.rev if since is None else since
        # Of another history every rev means something else, also one that looks like ours.
        self._epoch = epoch
        self._foreign = epoch is not None and epoch != feed.epoch
        self._behind = self._foreign or (since is not None and since != stream.rev)

    @property
    def revoked(self) -> bool:
        """Whether they may see nothing more."""
        return self._follower.revoked

    async def next(self) -> Change | None:
        """Wait for the next change; None when there will be none any more (see ``revoked``)."""
        while not self._follower.revoked:
            if self._behind or self._follower.lagging:
                change = await self._catch_up()
                if change is not None:
                    return change
                continue
            while (waiting := self._follower.take()) is not None:
                if waiting.rev <= self.rev:
                    continue
                if waiting.since > self.rev:
                    # Something between was missed: read from our own position.
                    self._behind = True
                    break
                self.rev = waiting.rev
                return waiting
            if self._behind or self._follower.lagging:
                continue
            await self._look.wait()
            self._look.clear()
        return None

    async def _catch_up(self) -> Change | None:
        if self._follower.lagging:
            # From now on changes wait for us again; what we read may repeat some of them.
            self._follower.lagging = False
        kept = None if self._foreign else self._stream.since(self.rev)
        if kept is not None:
            if not kept:
                self._behind = False
                return None
            change = kept[0]
        else:
            try:
                found = await self._feed.catch_up(
                    self._stream.conversation_id,
                    self._follower.user,
                    self.rev,
                    self._epoch if self._foreign else None,
                )
            except (NotFound, Gone):
                # Removed, or erased, while they were behind.
                self._follower.revoke()
                return None
            except Unavailable:
                # Nothing signals that the record is back.
                await asyncio.sleep(AWAY)
                return None
            self._foreign = False
            if found is None:
                self._behind = False
                return None
            change = found
        if self._follower.revoked:
            # Removed while we read: nothing of what was read is theirs to see.
            return None
        self.rev = change.rev
        self._behind = change.rev < self._stream.rev
        return change


def encode(conversation_id: UUID, found: Changes) -> Change:
    """Write a change as it is sent to everybody; ``me`` is nobody's and so null."""
    body = b'{"conversation_id":"%b",%b' % (str(conversation_id).encode(), found.body()[1:])
    people = None
    adds = _adds(found)
    if found.participants != b"null":
        everybody: list[Participant] = decode_participants(found.participants)
        people = frozenset(one.user_id for one in everybody)
    return Change(
        conversation_id,
        found.epoch,
        found.since,
        found.rev,
        body,
        people,
        reset=found.reset,
        adds=adds,
    )


class _Said(msgspec.Struct):
    """What of a message tells whether it is new."""

    rev: int
    deleted_at: str | None = None


_said = msgspec.json.Decoder(list[_Said]).decode


def _adds(found: Changes) -> bool:
    """Say whether a change is known to take nothing back: it is messages alone, or people alone.

    A message may be erased that is not on the path, of which the change says nothing; so each rev
    has to be some message's, or the one rev that of people.
    """
    if found.reset or found.superseded != b"[]":
        return False
    if not found.messages:
        return found.rev == found.since + 1 and found.participants != b"null"
    said = _said(b"[%b]" % found.messages)
    if any(one.deleted_at is not None for one in said):
        return False
    return len({one.rev for one in said if one.rev > found.since}) == found.rev - found.since
