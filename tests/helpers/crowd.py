"""People who write and follow through real servers, and the history of what they did and saw."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from uuid import UUID

import httpx2

from greffier.client import Client, Failed, Outbox, connect
from greffier.client.calls import Stored
from greffier.client.live import Via
from greffier.client.wire import Change
from greffier.errors import Unavailable
from greffier.model.ids import uuid7
from greffier.model.message import Draft, Message
from greffier.server.auth import issue
from greffier.testing.consistency import Attempt, Finding, History, Seen, check
from helpers.api import SECRET

OWNER = "ada"


def token(user: str) -> str:
    """A token for a user."""
    return issue(SECRET.encode(), user, lifetime=3600)


class Answerless(httpx2.AsyncBaseTransport):
    """A way to a server on which some answers are lost, after what they answer was done."""

    def __init__(self, seed: int, lost: float = 0.2) -> None:
        self._random = random.Random(seed)
        self._lost = lost
        self._inner = httpx2.AsyncHTTPTransport()

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Ask, and perhaps lose the answer."""
        answer = await self._inner.handle_async_request(request)
        if request.method == "POST" and self._random.random() < self._lost:
            await answer.aread()
            raise httpx2.ReadError("cut between commit and answer")
        return answer

    async def aclose(self) -> None:
        """Close it."""
        await self._inner.aclose()


def seen(message: Message) -> Seen:
    """A message as the checker wants it."""
    return Seen(message.seq, message.id, message.rev, message.content)


@dataclass
class Follower:
    """Somebody who follows, and where they are."""

    name: str
    rev: int = 0
    moved: asyncio.Event = field(default_factory=asyncio.Event)
    #: While it is not set they take nothing.
    goes: asyncio.Event = field(default_factory=asyncio.Event)

    async def reach(self, rev: int) -> None:
        """Wait until they are there."""
        while self.rev < rev:
            self.moved.clear()
            await self.moved.wait()


@dataclass
class Crowd:
    """Everybody in one room."""

    talk: UUID
    history: History = field(default_factory=History)
    followers: list[Follower] = field(default_factory=list)
    _tasks: dict[str, asyncio.Task[None]] = field(default_factory=dict)

    async def follow(
        self, client: Client, name: str, *, user: str, via: Via = "socket"
    ) -> Follower:
        """Let somebody follow from what a page shows them."""
        page = await client.messages.recent(self.talk)
        follower = Follower(name, page.rev)
        follower.goes.set()
        self.history.started(name, rev=page.rev, user=user)
        self.followers.append(follower)
        changes = client.follow(self.talk, since=page.rev, epoch=page.epoch, via=via)
        self._tasks[name] = asyncio.create_task(self._note(follower, changes))
        return follower

    def gone(self, follower: Follower) -> asyncio.Task[None]:
        """What ends with the error that tells a follower that they may see no more."""
        self.followers.remove(follower)
        return self._tasks.pop(follower.name)

    async def _note(self, follower: Follower, changes: AsyncIterator[Change]) -> None:
        async with contextlib.aclosing(changes) as followed:  # type: ignore[type-var]
            async for change in followed:
                assert not change.reset
                await follower.goes.wait()
                if change.rev == change.since:
                    # Where a stream of events begins: it says only where it stands.
                    continue
                self.history.delivered(
                    follower.name,
                    since=change.since,
                    rev=change.rev,
                    seen=map(seen, change.messages),
                    superseded=change.superseded,
                )
                follower.rev = max(follower.rev, change.rev)
                follower.moved.set()

    async def write(
        self, client: Client, user: str, contents: Sequence[str], *, reads: bool = True
    ) -> None:
        """Say these, one after the other, whatever happens; and read after each."""
        waiting: dict[UUID | None, Attempt] = {}

        def told(_: UUID, how: Stored | Failed) -> None:
            if isinstance(how, Stored):
                self.history.ok(waiting[how.message.id], seq=how.message.seq, rev=how.rev)
            elif how.definite:
                self.history.fail(waiting[how.draft.id])
            else:
                self.history.unknown(waiting[how.draft.id])

        outbox = Outbox(client.messages.put, told)
        sending = asyncio.create_task(outbox.run())
        try:
            for content in contents:
                draft = Draft(id=uuid7(), content=content)
                assert draft.id is not None
                waiting[draft.id] = self.history.invoke(user, draft.id)
                outbox.send(self.talk, draft)
                await outbox.drained()
                if reads:
                    invoked = self.history.clock()
                    with contextlib.suppress(Unavailable):
                        page = await client.messages.recent(self.talk, limit=5)
                        self.history.read(
                            user, invoked=invoked, rev=page.rev, seen=map(seen, page.data)
                        )
        finally:
            sending.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await sending

    async def verdict(self, client: Client) -> list[Finding]:
        """Read the whole record, wait until all have come to it, and judge."""
        record: list[Seen] = []
        while True:
            at = record[-1].seq if record else 0
            page = await client.messages.after(self.talk, at, limit=200, superseded=True)
            record += map(seen, page.data)
            if not page.has_after:
                break
        self.history.final(record, rev=page.rev)
        with contextlib.suppress(TimeoutError):
            # Who does not come is what the checker then finds.
            async with asyncio.timeout(30):
                for follower in self.followers:
                    await follower.reach(page.rev)
        return check(self.history)

    async def close(self) -> None:
        """Let everybody go; who broke down says so."""
        for task in self._tasks.values():
            task.cancel()
        for how in await asyncio.gather(*self._tasks.values(), return_exceptions=True):
            if isinstance(how, Exception):
                raise how


@contextlib.asynccontextmanager
async def room(url: str, members: Sequence[str]) -> AsyncIterator[tuple[Crowd, Client]]:
    """A room of ada's with these members, and ada's client."""
    async with connect(url, token(OWNER)) as ada:
        made = await ada.conversations.create(
            kind="room", participants=dict.fromkeys(members, "member")
        )
        crowd = Crowd(made.id)
        try:
            yield crowd, ada
        finally:
            await crowd.close()
