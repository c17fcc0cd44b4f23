"""A connection to a server far away, with the library's names."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

from greffier.client.calls import Conversations, Messages, path
from greffier.client.http import Wire
from greffier.client.live import Live, Via, server_sent
from greffier.client.view import View
from greffier.client.wire import Change
from greffier.model.page import Context


class Client:
    """A server, as the person whom the token names: ``conversations``, ``messages``, ``follow``."""

    def __init__(self, wire: Wire, live: Live, conversations: Conversations) -> None:
        self.wire = wire
        self.live = live
        self.conversations = conversations
        self.messages = Messages(wire)

    async def context(
        self,
        conversation_id: UUID | str,
        *,
        max_messages: int | None = None,
        max_tokens: int | None = None,
        include_tools: bool = True,
    ) -> Context:
        """Choose what a language model is sent next, in the OpenAI chat format."""
        found: Context = await self.wire.get(
            path(conversation_id, "context"),
            Context,
            max_messages=max_messages,
            max_tokens=max_tokens,
            include_tools=include_tools,
        )
        return found

    async def follow(
        self,
        conversation_id: UUID | str,
        *,
        since: int | None = None,
        epoch: str | None = None,
        via: Via = "socket",
    ) -> AsyncIterator[Change]:
        """Follow a conversation: every change once, in order, through every loss of connection.

        Args:
            conversation_id: Which.
            since: The rev that is known, of a page for example; None from now on.
            epoch: The history it belongs to, of the same page.
            via: One socket for all that is followed, or a stream of server-sent events for this
                alone (for a network that lets no WebSocket through).

        Yields:
            Changes that follow each other; one with ``reset`` says to start from a page.

        Raises:
            NotFound, Gone: It may not be seen any more.
        """
        found = UUID(str(conversation_id))
        if via == "events":
            async for change in server_sent(self.wire, found, since, epoch):
                yield change
            return
        async with self.live.follow(found, since, epoch) as follower:
            async for change in follower:
                yield change

    @contextlib.asynccontextmanager
    async def view(self, conversation_id: UUID | str, *, limit: int = 50) -> AsyncIterator[View]:
        """Keep a view of a conversation: what is shown of it, now and as it changes.

        Args:
            conversation_id: Which.
            limit: Messages of its first page.
        """
        view = View(
            UUID(str(conversation_id)), self.live, self.conversations, self.messages, limit=limit
        )
        async with asyncio.TaskGroup() as group:
            task = group.create_task(view.run())
            try:
                yield view
            finally:
                task.cancel()


@contextlib.asynccontextmanager
async def connect(url: str, token: str, *, transport: Any = None) -> AsyncIterator[Client]:
    """Connect to a server.

    Args:
        url: Where it is: ``https://chat.example.org``.
        token: A JWT or an API key.
        transport: Another way to it for HTTP, for tests.
    """
    async with Wire(url, token, transport=transport) as wire:
        conversations = Conversations(wire)
        live = Live(wire, conversations)
        task = asyncio.get_running_loop().create_task(live.run())
        try:
            yield Client(wire, live, conversations)
        finally:
            task.cancel()
            live.close()
            with contextlib.suppress(asyncio.CancelledError):
                await task
