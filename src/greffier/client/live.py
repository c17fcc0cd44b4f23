"""Following live: one socket for all that a client follows, and exactness by numbers.

The socket only announces.  A follower keeps its own (epoch, rev): what fits is handed on, what is
known is skipped, and a gap, a reconnection or a doubt is settled by asking ``changes`` over HTTP.
So nothing depends on the socket but delay.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any, Literal
from uuid import UUID

import httpx2
import msgspec
import socketio

from greffier.client.calls import Conversations, path
from greffier.client.http import Wire
from greffier.client.once import Once
from greffier.client.outbox import comes_again, pause
from greffier.client.wire import Activity, Change, ListChange
from greffier.errors import CODES, Error, NotFound, Unavailable

#: Changes that wait for a follower; who takes them slower asks from their own position.
QUEUE = 256
#: Seconds without a word on a stream of events, which says something every 15, until it is dead.
SILENCE = 40.0

#: Hears what concerns the person: their list, and what moves in it.
Own = Callable[[ListChange | Activity | None], None]


class Follower:
    """One way along a conversation: every change once, in order, whatever the socket does."""

    def __init__(
        self, live: Live, conversation_id: UUID, since: int | None, epoch: str | None
    ) -> None:
        self.conversation_id = conversation_id
        self.rev = since
        self.epoch = epoch
        self._live = live
        self._queue: deque[Change] = deque()
        self._look = asyncio.Event()
        self._ended: Error | None = None
        self._once = Once()
        #: The highest rev anybody told of, in the history that is followed.
        self._heard = 0
        #: Something may have been missed; the record is to be asked.
        self._behind = True

    def push(self, change: Change) -> None:
        """Hear of a change."""
        if change.epoch == self.epoch:
            self._heard = max(self._heard, change.rev)
        if len(self._queue) >= QUEUE:
            self._queue.clear()
            self._behind = True
        else:
            self._queue.append(change)
        self._look.set()

    def doubt(self) -> None:
        """Hear that something may have been missed."""
        self._behind = True
        self._look.set()

    def end(self, error: Error) -> None:
        """Hand on nothing more."""
        self._ended = error
        self._look.set()

    def reached(self, rev: int) -> None:
        """Hear where the conversation is."""
        self._heard = max(self._heard, rev)
        if self.rev is None or rev > max(self.rev, *(one.rev for one in self._queue), 0):
            self.doubt()

    def __aiter__(self) -> Follower:
        return self

    async def __anext__(self) -> Change:
        """Wait for the next change.

        Raises:
            NotFound, Gone: It may not be seen any more.
        """
        while True:
            if self._ended is not None:
                raise self._ended
            if self._behind:
                self._behind = False
                try:
                    change = await self._catch_up()
                except BaseException:
                    self._behind = True
                    raise
                if change is not None:
                    return change
                continue
            while self._queue:
                change = self._queue.popleft()
                if change.epoch != self.epoch or (self.rev is None or change.since > self.rev):
                    self._behind = True
                    break
                if change.rev > self.rev:
                    change = self._once.new(change, self.rev)
                    self.rev = change.rev
                    return change
            if not self._behind:
                self._look.clear()
                await self._look.wait()

    async def _catch_up(self) -> Change | None:
        tries = 0
        while self._ended is None:
            try:
                if self.rev is None:
                    # From now on: where that is comes with the conversation.
                    now = await self._live.conversations.get(
                        self.conversation_id, actor=self._live.actor
                    )
                    self.rev, self.epoch = now.rev, now.epoch
                    return None
                change = await self._live.conversations.changes(
                    self.conversation_id,
                    since=self.rev,
                    epoch=self.epoch,
                    actor=self._live.actor,
                )
            except Error as error:
                if not comes_again(error):
                    raise
                tries += 1
                await self._nap(pause(tries, error, random.random()))  # noqa: S311 - jitter
                continue
            if change.reset:
                self._heard = 0
            elif change.rev <= self.rev:
                if self._heard <= self.rev:
                    return None
                # Of a standby that has what we wrote, and not yet what we were told of.
                tries += 1
                await asyncio.sleep(pause(tries, Unavailable(), random.random()))  # noqa: S311
                continue
            self._behind = self._behind or change.next or change.rev < self._heard
            change = self._once.new(change, self.rev)
            self.rev, self.epoch = change.rev, change.epoch
            return change
        return None

    async def _nap(self, seconds: float) -> None:
        """Wait, or until something is heard: who tells it is back."""
        self._look.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._look.wait()


class Live:
    """The socket of a client, opened when something is followed and again when it breaks."""

    def __init__(self, wire: Wire, conversations: Conversations, actor: str | None = None) -> None:
        """Describe the socket.

        Args:
            wire: To which server, and with whose token.
            conversations: Where is asked what was missed.
            actor: In whose place, when the token is a service's; None is whom it names.
        """
        self.conversations = conversations
        self.actor = actor
        self._wire = wire
        self._followers: dict[UUID, set[Follower]] = {}
        self._owns: set[Own] = set()
        self._wanted = asyncio.Event()
        self._socket: socketio.AsyncClient | None = None
        self._joining: set[asyncio.Task[None]] = set()
        self._closed = False

    @contextlib.asynccontextmanager
    async def follow(
        self, conversation_id: UUID, since: int | None, epoch: str | None
    ) -> AsyncIterator[Follower]:
        """Follow a conversation."""
        follower = Follower(self, conversation_id, since, epoch)
        together = self._followers.setdefault(conversation_id, set())
        together.add(follower)
        self._wanted.set()
        if len(together) == 1:
            self._join_soon(conversation_id)
        try:
            yield follower
        finally:
            together.discard(follower)
            if not together:
                self._followers.pop(conversation_id, None)
                self._say("leave", {"conversation_id": str(conversation_id)})

    @contextlib.contextmanager
    def own(self, hear: Own) -> Any:
        """Hear what concerns the person; None says that there is no socket to be told on."""
        self._owns.add(hear)
        self._wanted.set()
        try:
            yield
        finally:
            self._owns.discard(hear)

    async def run(self) -> None:
        """Keep a socket open while it is wanted, until closed and cancelled."""
        await self._wanted.wait()
        tries = 0
        while True:
            if await self._connected():
                tries = 0
            if self._closed:
                # A cancellation that came while the socket was put down may be lost as well.
                return
            tries += 1
            await asyncio.sleep(pause(tries, Unavailable(), random.random()))  # noqa: S311 - jitter

    async def _connected(self) -> bool:
        """Live through one connection; False when there was none."""
        ended = asyncio.Event()
        socket = socketio.AsyncClient(reconnection=False, logger=False, engineio_logger=False)
        socket.on("disconnect", lambda *_: ended.set())
        socket.on("change", self._change)
        socket.on("positions", self._positions)
        socket.on("revoked", self._revoked)
        socket.on("list", lambda data: self._tell(ListChange, data))
        socket.on("activity", lambda data: self._tell(Activity, data))
        try:
            try:
                await socket.connect(
                    self._wire.url,
                    auth={
                        "token": self._wire.token,
                        **({} if self.actor is None else {"act_as": self.actor}),
                    },
                    transports=["websocket"],
                    wait_timeout=10,
                )
            except socketio.exceptions.ConnectionError:
                self._unconnected()
                return False
            if self._closed:
                # A cancellation in the instant of connecting is lost: python-socketio waits by
                # asyncio.wait_for, which before Python 3.12 answers it with the result, and its
                # handlers swallow it.  One in a hundred was; whoever let go then waited for ever.
                return False
            self._socket = socket
            for conversation_id in list(self._followers):
                self._join_soon(conversation_id)
            await ended.wait()
            return True
        finally:
            self._socket = None
            await _closed(socket)

    def _unconnected(self) -> None:
        """Let everybody ask over HTTP, now and at each try that fails.

        So a token that is refused is refused to them too, and where no WebSocket gets through they
        are late and miss nothing.
        """
        for together in list(self._followers.values()):
            for follower in list(together):
                follower.doubt()
        for hear in list(self._owns):
            hear(None)

    def _join_soon(self, conversation_id: UUID) -> None:
        if self._socket is not None:
            task = asyncio.get_running_loop().create_task(self._join(self._socket, conversation_id))
            self._joining.add(task)
            task.add_done_callback(self._joining.discard)

    async def _join(self, socket: socketio.AsyncClient, conversation_id: UUID) -> None:
        """Join; a rev beyond all says that no snapshot is wanted, for followers ask themselves."""
        together = self._followers.get(conversation_id, set())
        known = [one for one in together if one.rev is not None and one.epoch is not None]
        asked: dict[str, Any] = {"conversation_id": str(conversation_id)}
        if known:
            slowest = min(known, key=lambda one: one.rev or 0)
            asked |= {"rev": slowest.rev, "epoch": slowest.epoch}
        answer: dict[str, Any] = {}
        while not answer:
            try:
                answer = await socket.call("join", asked, timeout=20)
            except socketio.exceptions.SocketIOError:
                # Not connected any more, or not answered: who reconnects joins again.
                if not socket.connected:
                    return
            if answer.get("code") == "unavailable":
                answer = {}
                await asyncio.sleep(pause(2, Unavailable(), random.random()))  # noqa: S311 - jitter
        for one in list(self._followers.get(conversation_id, ())):
            if not answer["ok"]:
                one.end(CODES.get(answer["code"], Error)())
            elif answer["recovered"]:
                one.push(msgspec.convert(answer["changes"], Change))
                one.reached(answer["rev"])
            else:
                one.doubt()

    # -- what comes ----------------------------------------------------------------------------

    def _change(self, data: dict[str, Any]) -> None:
        change = msgspec.convert(data, Change)
        if change.conversation_id is not None:
            for one in list(self._followers.get(change.conversation_id, ())):
                one.push(change)

    def _positions(self, data: dict[str, int]) -> None:
        for name, rev in data.items():
            for one in list(self._followers.get(UUID(name), ())):
                one.reached(rev)

    def _revoked(self, data: dict[str, Any]) -> None:
        conversation_id = UUID(data["conversation_id"])
        for one in list(self._followers.get(conversation_id, ())):
            # Taken out, erased, or the server stops: the record says which.
            one.doubt()
        self._join_soon(conversation_id)

    def _tell(self, kind: type[ListChange | Activity], data: dict[str, Any]) -> None:
        said = msgspec.convert(data, kind)
        for hear in list(self._owns):
            hear(said)

    def _say(self, name: str, data: dict[str, Any]) -> None:
        if self._socket is None:
            return
        task = asyncio.get_running_loop().create_task(_emit(self._socket, name, data))
        self._joining.add(task)
        task.add_done_callback(self._joining.discard)

    def close(self) -> None:
        """Let go of what is under way; whoever runs this cancels it next."""
        self._closed = True
        for task in list(self._joining):
            task.cancel()


async def _emit(socket: socketio.AsyncClient, name: str, data: dict[str, Any]) -> None:
    # Who is not connected has left.
    with contextlib.suppress(socketio.exceptions.SocketIOError):
        await socket.emit(name, data)


async def _closed(socket: socketio.AsyncClient) -> None:
    with contextlib.suppress(socketio.exceptions.SocketIOError):
        await socket.disconnect()


async def server_sent(
    wire: Wire,
    conversation_id: UUID,
    since: int | None,
    epoch: str | None,
    actor: str | None = None,
) -> AsyncIterator[Change]:
    """Follow by server-sent events instead: one request, resumed where it broke.

    Raises:
        NotFound, Gone: It may not be seen any more.
    """
    tries = 0
    at = since
    once = Once()
    while True:
        headers = {"accept": "text/event-stream"}
        if at is not None and epoch is not None:
            headers["last-event-id"] = f"{epoch}.{at}"
        where = path(conversation_id, "events")
        only = at if epoch is None else None
        failed: Error = NotFound("The stream ended.")
        try:
            async with wire.stream(
                where, headers=headers, actor=actor, silence=SILENCE, since=only
            ) as answer:
                async for event in httpx2.EventSource(answer):
                    tries = 0
                    if event.event != "change":
                        continue
                    change = msgspec.json.decode(event.data, type=Change)
                    known = at is not None and change.epoch == epoch and change.rev <= at
                    if not known:
                        change = once.new(change, at if change.epoch == epoch else None)
                    at, epoch = change.rev, change.epoch
                    if not known or change.reset:
                        yield change
        except Error as error:
            if not comes_again(error):
                raise
            failed = error
        # An end without a word is a removal or a restart: the next request says which.
        tries += 1
        await asyncio.sleep(pause(tries, failed, random.random()))  # noqa: S311 - jitter


Via = Literal["socket", "events"]
