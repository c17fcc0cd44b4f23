"""A connection to a server far away, with the library's names."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine
from datetime import datetime
from decimal import Decimal
from typing import Any
from urllib.parse import quote
from uuid import UUID

import msgspec

from greffier.client.agents import Agents, Runs
from greffier.client.board import Board
from greffier.client.calls import Conversations, Messages, path
from greffier.client.http import Wire
from greffier.client.keeping import Endpoints, Sources
from greffier.client.keys import Keys
from greffier.client.live import Live, Via, server_sent
from greffier.client.ops import Ops
from greffier.client.view import View
from greffier.client.wire import Change
from greffier.model.ids import uuid7
from greffier.model.message import Message
from greffier.model.page import Context
from greffier.model.source import Incoming, Received
from greffier.model.usage import Quota, Usage
from greffier.read.mine import MyStats

#: What something may cost is a number on the wire.
_numbers = msgspec.json.Encoder(decimal_format="number").encode


class _Said(msgspec.Struct, frozen=True):
    message: Message


class Client:
    """A server, as the person whom the token names: ``conversations``, ``messages``, ``follow``."""

    def __init__(self, wire: Wire, live: Live, conversations: Conversations) -> None:
        self.wire = wire
        self.live = live
        self.conversations = conversations
        self.messages = Messages(wire)
        self.agents = Agents(wire)
        self.runs = Runs(wire)
        self.endpoints = Endpoints(wire)
        self.sources = Sources(wire)
        self.keys = Keys(wire)
        self.ops = Ops(wire)

    async def context(
        self,
        conversation_id: UUID | str,
        *,
        max_messages: int | None = None,
        max_tokens: int | None = None,
        include_tools: bool = True,
        actor: str | None = None,
    ) -> Context:
        """Choose what a language model is sent next, in the OpenAI chat format."""
        found: Context = await self.wire.get(
            path(conversation_id, "context"),
            Context,
            max_messages=max_messages,
            max_tokens=max_tokens,
            include_tools=include_tools,
            actor=actor,
        )
        return found

    async def follow(
        self,
        conversation_id: UUID | str,
        *,
        since: int | None = None,
        epoch: str | None = None,
        actor: str | None = None,
        via: Via = "socket",
    ) -> AsyncIterator[Change]:
        """Follow a conversation: every change once, in order, through every loss of connection.

        Args:
            conversation_id: Which.
            since: The rev that is known, of a page for example; None from now on.
            epoch: The history it belongs to, of the same page.
            actor: Who follows, when a service does in the place of a user; it has a socket of its
                own for as long as this is followed.
            via: One socket for all that is followed, or a stream of server-sent events for this
                alone (for a network that lets no WebSocket through).

        Yields:
            Changes that follow each other; one with ``reset`` says to start from a page.

        Raises:
            NotFound, Gone: It may not be seen any more.
            ModuleNotFoundError: The extra ``client`` is not installed, and ``via`` is a socket.
        """
        found = UUID(str(conversation_id))
        if via == "events":
            async for change in server_sent(self.wire, found, since, epoch, actor):
                yield change
            return
        _need_sockets()
        other = await self.wire.acting(actor)
        async with self._live_of(other) as live, live.follow(found, since, epoch) as follower:
            async for change in follower:
                yield change

    @contextlib.asynccontextmanager
    async def _live_of(self, other: str | None) -> AsyncIterator[Live]:
        # A socket is one person's, so whoever is acted for has another.
        if other is None:
            yield self.live
            return
        live = Live(self.wire, self.conversations, other)
        async with _beside(live.run()):
            try:
                yield live
            finally:
                live.close()

    async def usage(self, user: str | None = None, *, month: str | None = None) -> Usage:
        """Say what a user's runs took in a month (``YYYY-MM``, UTC), and what they may spend.

        One's own, also without ``user``; of others only a service and an admin are told.
        """
        if user is None or await self.wire.me() in (None, user):
            found: Usage = await self.wire.get("/v1/me/usage", Usage, actor=user, month=month)
        else:
            found = await self.wire.get(_user(user, "usage"), Usage, month=month)
        return found

    async def quota(self, user: str) -> Quota:
        """Say what a user may spend in a month, as an admin."""
        found: Quota = await self.wire.get(_user(user, "quota"), Quota)
        return found

    async def set_quota(
        self,
        user: str,
        *,
        tokens_per_month: int | None = None,
        cost_per_month: Decimal | float | None = None,
    ) -> Quota:
        """Replace what a user may spend in a month, as an admin; None is no limit.

        Args:
            user: Whose.
            tokens_per_month: Input and output together.
            cost_per_month: In the currency of the server's settings.
        """
        # A float means the decimal it is written as, as in the library.
        cost = None if cost_per_month is None else Decimal(str(cost_per_month))
        asked = _numbers(Quota(tokens_per_month=tokens_per_month, cost_per_month=cost))
        body = await self.wire.write("PUT", _user(user, "quota"), msgspec.Raw(asked))
        return msgspec.json.decode(body, type=Quota)

    async def receive(
        self,
        source_id: UUID | str,
        *,
        external_id: str,
        contact: str,
        content: str,
        secret: str,
        contact_name: str | None = None,
        subject: str | None = None,
        said_at: datetime | None = None,
    ) -> Received:
        """Put a message from outside on record, once for its external id, and let it be answered.

        After ``Unanswered`` it may be on record or not: bring it again under the same external id.

        Args:
            source_id: By which source.
            external_id: What the message is called out there.
            contact: Who wrote it, there.
            content: What they wrote.
            secret: The source's (``whsec_…``), with which it is signed: the token does not count.
            contact_name: How they are called there.
            subject: What it is about.
            said_at: When it was said, if that is not now.
        """
        incoming = Incoming(
            contact=contact,
            contact_name=contact_name,
            external_id=external_id,
            subject=subject,
            content=content,
            said_at=said_at,
        )
        return await self.sources.receive(source_id, incoming, secret=secret)

    async def stats(self, user: str | None = None) -> MyStats:
        """Count what is in one's conversations; it reads them all."""
        found: MyStats = await self.wire.get("/v1/me/stats", MyStats, actor=user)
        return found

    async def export(self, user: str | None = None) -> AsyncIterator[bytes]:
        """Write out everything of one's own, piece by piece, as of one moment (JSON lines).

        After ``Unanswered`` what came is not whole.
        """
        async with self.wire.stream("/v1/me/export", actor=user) as answer:
            async for piece in answer.aiter_bytes():
                yield piece

    async def forget(self, user: str | None = None) -> None:
        """Be forgotten for good: one's own conversations erased, in all others nobody's name.

        After ``Unanswered`` it may be half done: ask again, and the rest is.
        """
        await self.wire.write("DELETE", "/v1/me", actor=user)

    async def say(
        self,
        subject: str,
        content: str,
        *,
        id: UUID | str | None = None,  # noqa: A002 - the contract's name
        agent: UUID | str | None = None,
        user: str | None = None,
    ) -> Message:
        """Append words to one's active conversation on a subject, made if there is none."""
        body = {"id": str(id or uuid7()), "content": content}
        if agent is not None:
            body["agent_id"] = str(agent)
        where = f"/v1/subjects/{quote(subject, safe='')}/messages"
        return msgspec.json.decode(
            await self.wire.write("POST", where, body, actor=user), type=_Said
        ).message

    @contextlib.asynccontextmanager
    async def board(self, *, limit: int = 20) -> AsyncIterator[Board]:
        """Keep the person's list of conversations: what is shown of it, now and as it changes."""
        _need_sockets()
        board = Board(self.live, self.conversations, limit=limit)
        async with _beside(board.run()):
            yield board

    @contextlib.asynccontextmanager
    async def view(self, conversation_id: UUID | str, *, limit: int = 50) -> AsyncIterator[View]:
        """Keep a view of a conversation: what is shown of it, now and as it changes.

        Args:
            conversation_id: Which.
            limit: Messages of its first page.
        """
        _need_sockets()
        view = View(
            UUID(str(conversation_id)), self.live, self.conversations, self.messages, limit=limit
        )
        async with _beside(view.run()):
            yield view


def _need_sockets() -> None:
    """Say what is missing: without it the library's client only logs that, and nobody is told."""
    try:
        import aiohttp  # noqa: F401, PLC0415 - brought by an extra
    except ImportError as error:
        raise ModuleNotFoundError(
            "To follow by a socket takes aiohttp, which the extra greffier[client] brings; "
            "g.follow(…, via='events') takes nothing more.",
            name="aiohttp",
        ) from error


def _user(user: str, what: str) -> str:
    return f"/v1/users/{quote(user, safe='')}/{what}"


@contextlib.asynccontextmanager
async def connect(url: str, token: str, *, transport: Any = None) -> AsyncIterator[Client]:
    """Connect to a server.

    Args:
        url: Where it is: ``https://chat.example.org``.
        token: A JWT or an API key.
        transport: Another way to it for HTTP, for tests.

    Raises:
        Invalid: The URL is none of a server.
    """
    async with Wire(url, token, transport=transport) as wire:
        conversations = Conversations(wire)
        live = Live(wire, conversations)
        async with _beside(live.run()):
            try:
                yield Client(wire, live, conversations)
            finally:
                live.close()


@contextlib.asynccontextmanager
async def _beside(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Work beside a block; not a task group, whose errors would come wrapped to the block."""
    task = asyncio.get_running_loop().create_task(work)
    try:
        yield
    finally:
        task.cancel()
        # Waited for, not awaited: a cancellation of ours meanwhile is no end of its.
        await asyncio.wait({task})
        if not task.cancelled() and (error := task.exception()) is not None:
            raise error
