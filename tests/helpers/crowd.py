"""People who write and follow through real servers, and the history of what they did and saw."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Literal
from uuid import UUID

import httpx2
import msgspec

from greffier.client import Client, Failed, Outbox, connect
from greffier.client.calls import Stored, path
from greffier.client.live import Via
from greffier.client.outbox import comes_again
from greffier.client.wire import Change
from greffier.errors import Error, NotFound, Unavailable
from greffier.model.ids import uuid7
from greffier.model.message import Draft, Message
from greffier.read.history import Branch
from greffier.server.auth import issue
from greffier.testing.consistency import Attempt, Finding, History, Seen, check
from helpers.api import SECRET
from helpers.patience import PATIENCE

OWNER = "ada"


class _Branches(msgspec.Struct):
    data: list[Branch]


class _Activated(msgspec.Struct):
    rev: int


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
        self.history.started(name, rev=page.rev, user=user, base=map(seen, page.data))
        self.followers.append(follower)
        changes = client.follow(self.talk, since=page.rev, epoch=page.epoch, via=via)
        self._tasks[name] = asyncio.create_task(self._note(follower, changes))
        return follower

    @property
    def acknowledged(self) -> int:
        """How many writes were, so far."""
        return sum(one.outcome == "ok" for one in self.history.attempts)

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
        self,
        client: Client,
        user: str,
        contents: Sequence[str],
        *,
        reads: bool = True,
        alters: bool = False,
        turns: bool = False,
    ) -> None:
        """Say these, one after the other, whatever happens; and read after each.

        Args:
            client: Theirs.
            user: Who.
            contents: What they say.
            reads: Whether they read a page after each.
            alters: Whether they also edit, delete and erase what they said.
            turns: Whether they, the owner, also rewind and bring branches back.
        """
        waiting: dict[UUID | None, Attempt] = {}
        mine: list[Message] = []
        chance = random.Random(user)

        def told(_: UUID, how: Stored | Failed) -> None:
            if isinstance(how, Stored):
                mine.append(how.message)
                self.history.ok(waiting[how.message.id], seq=how.message.seq, rev=how.rev)
            elif how.definite:
                self.history.fail(waiting[how.draft.id])
            else:
                self.history.unknown(waiting[how.draft.id])

        outbox = Outbox(client.messages.put, told)
        sending = asyncio.create_task(outbox.run())
        try:
            for number, content in enumerate(contents):
                draft = Draft(id=uuid7(), content=content)
                assert draft.id is not None
                waiting[draft.id] = self.history.invoke(user, draft.id)
                outbox.send(self.talk, draft)
                await outbox.drained()
                if alters and mine and number % 2:
                    await self._alter(client, user, chance.choice(mine), number)
                if turns and mine and number % 5 == 4:
                    await self._turn(client, user, chance)
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

    async def _alter(self, client: Client, user: str, message: Message, number: int) -> None:
        """Do something to a message of one's own, once."""
        kind: Literal["edit", "delete", "erase"]
        kind = ("edit", "delete", "edit", "erase")[number // 2 % 4]
        content = f"{message.content}, edited {number}" if kind == "edit" else None
        alteration = self.history.altering(user, message.id, kind, content)
        try:
            if content is not None:
                rev = (await client.messages.edit(self.talk, message.seq, content)).rev
            else:
                await client.messages.delete(self.talk, message.seq, erase=kind == "erase")
                # At the latest: what says that it is done names no rev.
                rev = (await client.messages.get(self.talk, message.seq)).rev
        except Error as error:
            (self.history.unknown if comes_again(error) else self.history.fail)(alteration)
        else:
            self.history.done(alteration, rev=rev)

    async def _turn(self, client: Client, user: str, chance: random.Random) -> None:
        """Rewind a little, or bring the path back that was left last."""
        try:
            branches = (await client.wire.get(path(self.talk, "branches"), _Branches)).data
            page = await client.messages.recent(self.talk, limit=5)
        except Unavailable:
            return
        if branches and chance.random() < 0.5:
            last = max(branches, key=lambda one: one.left_at_rev)
            turn = self.history.turning(user, path=last.path)
            work = self._activated(client, last.id)
        else:
            after = page.data[0].seq
            turn = self.history.turning(user, after=after)
            work = self._rewound(client, after)
        try:
            rev = await work
        except Error as error:
            # A branch that is not there may have been made the path by a first try whose answer was
            # lost: the client asks again by itself.
            unsure = comes_again(error) or isinstance(error, NotFound)
            (self.history.unknown if unsure else self.history.fail)(turn)
        else:
            self.history.done(turn, rev=rev)

    async def _rewound(self, client: Client, after: int) -> int:
        return (await client.messages.rewound(self.talk, after)).rev

    async def _activated(self, client: Client, branch: UUID) -> int:
        body = await client.wire.write("POST", path(self.talk, "branches", branch, "activate"))
        return msgspec.json.decode(body, type=_Activated).rev

    async def _whole(self, client: Client, *, superseded: bool) -> tuple[list[Seen], int]:
        """Read all pages of the record, or of the path, and the rev of the last."""
        found: list[Seen] = []
        while True:
            at = found[-1].seq if found else 0
            page = await client.messages.after(self.talk, at, limit=200, superseded=superseded)
            found += map(seen, page.data)
            if not page.has_after:
                return found, page.rev

    async def verdict(self, client: Client) -> list[Finding]:
        """Read the whole record, wait until all have come to it, and judge."""
        record, rev = await self._whole(client, superseded=True)
        active, _ = await self._whole(client, superseded=False)
        self.history.final(record, rev=rev, active=[one.seq for one in active])
        with contextlib.suppress(TimeoutError):
            # Who does not come is what the checker then finds.
            async with asyncio.timeout(PATIENCE):
                for follower in self.followers:
                    await follower.reach(rev)
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
