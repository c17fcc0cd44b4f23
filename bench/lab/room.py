"""A room with many people, each of whom listens."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

from greffier.bench.places import place
from greffier.library import Greffier
from lab.crowd import Who, guest
from lab.serving import Served, serve, token
from lab.world import World

#: Where Socket.IO is, for who starts with a WebSocket.
SOCKETS = "/socket.io/?EIO=4&transport=websocket"


@dataclass(frozen=True, slots=True)
class Room:
    """A room, and the server that serves it."""

    id: UUID
    people: list[str]
    served: Served
    greffier: Greffier
    dsn: str

    @property
    def sockets(self) -> str:
        """Where its sockets are."""
        return self.served.url + SOCKETS

    @property
    def messages(self) -> str:
        """Where messages are posted."""
        return f"/v1/conversations/{self.id}/messages"

    def guests(self, **known: Any) -> list[Who]:
        """Its people, who join it with what they know."""
        return [guest(token(user), self.id, **known) for user in self.people]


@contextlib.asynccontextmanager
async def room(world: World, folder: Path, people: int) -> AsyncIterator[Room]:
    """Make a room of so many people, all of them members, and serve it."""
    users = [f"guest-{number}" for number in range(people)]
    async with (
        place(world.server, talks=1) as here,
        serve(folder, database_url=here.dsn) as served,
    ):
        made = await here.greffier.conversations.create(owner=users[0], kind="room")
        join = here.greffier.conversations.join
        for at in range(1, people, 50):
            await asyncio.gather(*(join(made.id, user) for user in users[at : at + 50]))
        yield Room(made.id, users, served, here.greffier, here.dsn)
