"""One conversation's stream in one process: read once, handed to all who follow it here."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Protocol
from uuid import UUID

from greffier.errors import Gone, NotFound, Unavailable
from greffier.publish.change import Change

#: Reads the change that follows a rev, as the service sees it; None when there is none.
Read = Callable[[UUID, int], Awaitable[Change | None]]

#: Bytes of changes kept for those who come back: a thousand at once are answered from here.
KEPT_BYTES = 256 << 10
#: Changes and bytes that wait for one follower; beyond that it catches up by itself.
QUEUE_CHANGES = 512
QUEUE_BYTES = 1 << 20


class Follows(Protocol):
    """Somebody who follows one conversation.  Neither method waits."""

    def push(self, change: Change) -> None:
        """Hear of a change, in the order of revs; some may come twice, and some not at all."""

    def revoke(self) -> None:
        """See nothing more."""


class Follower:
    """Somebody who takes changes at their own pace."""

    def __init__(self, user: str | None, wake: Callable[[], None]) -> None:
        """Make a follower.

        Args:
            user: Who must take part; None is the service and always may.
            wake: Called when there is something to take.
        """
        self.user = user
        self._wake = wake
        self._queue: deque[Change] = deque()
        self._size = 0
        #: They fell behind: what waited was dropped, and they read from their own position.
        self.lagging = False
        #: They may see nothing more.
        self.revoked = False

    def push(self, change: Change) -> None:
        """Hand over a change; who does not take it in time reads it for themselves later."""
        if self.revoked:
            return
        if change.people is not None and self.user is not None and self.user not in change.people:
            self.revoke()
            return
        if self.lagging:
            return
        if self._queue and not change.adds:
            # Something that waits may have been deleted: they read what is left of it.
            self._fall_behind()
            return
        self._queue.append(change)
        self._size += len(change.body)
        if len(self._queue) > QUEUE_CHANGES or self._size > QUEUE_BYTES:
            self._fall_behind()
            return
        self._wake()

    def _fall_behind(self) -> None:
        self._queue.clear()
        self._size = 0
        self.lagging = True
        self._wake()

    def revoke(self) -> None:
        """Show them nothing more: not even what already waits."""
        self.revoked = True
        self._queue.clear()
        self._size = 0
        self._wake()

    def take(self) -> Change | None:
        """Take the next change that waits."""
        if not self._queue:
            return None
        change = self._queue.popleft()
        self._size -= len(change.body)
        return change


class Stream:
    """Follows the record of one conversation for all its followers in this process."""

    def __init__(self, conversation_id: UUID, rev: int, read: Read) -> None:
        """Make a stream that has reached ``rev``; ``run`` it while it has followers."""
        self.conversation_id = conversation_id
        self.rev = rev
        self.followers: set[Follows] = set()
        self._read = read
        self._look = asyncio.Event()
        self._kept: deque[Change] = deque()
        self._kept_size = 0

    def wake(self) -> None:
        """Look again."""
        self._look.set()

    async def run(self) -> None:
        """Hand on what is committed, in the order of its revs, until cancelled."""
        while True:
            await self._look.wait()
            # Before the read: whoever commits during it raises the flag again.
            self._look.clear()
            try:
                while (change := await self._read(self.conversation_id, self.rev)) is not None:
                    self.publish(change)
            except (NotFound, Gone):
                for follower in list(self.followers):
                    follower.revoke()
                return
            except Unavailable:
                # The poll looks again.
                continue

    def publish(self, change: Change) -> None:
        """Hand a change to everybody, and keep it for those who come back."""
        self.rev = change.rev
        if not change.adds:
            # What was said before may have been deleted, and is told to nobody any more.
            self._kept.clear()
            self._kept_size = 0
        if not change.reset:
            self._kept.append(change)
            self._kept_size += len(change.body)
            while self._kept_size > KEPT_BYTES:
                self._kept_size -= len(self._kept.popleft().body)
        for follower in list(self.followers):
            follower.push(change)

    def since(self, rev: int) -> list[Change] | None:
        """Give what follows a rev from memory; None when the record must be asked."""
        if rev == self.rev:
            return []
        found = [change for change in self._kept if change.rev > rev]
        if found and found[0].since <= rev <= self.rev:
            return found
        return None
