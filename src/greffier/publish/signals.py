"""Signals that are never stored and never relied on: who is online, who is typing.

Each process tells the others every few seconds which users are connected to it; what it said holds
for a lease, so that a ``kill -9`` leaves no ghosts beyond it.  Who leaves one process stays online
for a grace, so that a rolling restart does not flap.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Literal, Protocol
from uuid import UUID

import msgspec

from greffier.model.wire import rfc3339
from greffier.store.listen import Channel

#: Seconds between a process's words about itself, and for which they hold.
TELL = 4.0
LEASE = 14.0
#: Seconds a user stays online after their last connection closed.
GRACE = 6.0
#: Seconds a sign of typing holds.
TYPING = 6.0
#: Users named in one word (NOTIFY carries 8000 bytes); more take several.
NAMED = 60


class Presence(msgspec.Struct, frozen=True):
    """Somebody in a conversation: whether they are online, and when they were last active."""

    user_id: str
    status: Literal["online", "offline"]
    last_active_at: str | None


class Hearer(Protocol):
    """Hears signals, to pass them to those who follow here."""

    def presence(self, users: frozenset[str]) -> None:
        """Hear that these came or went."""

    def typing(self, conversation_id: UUID, user: str, *, on: bool) -> None:
        """Hear that somebody types, or stopped."""


class Signals:
    """Who is online and who types, over all processes of the service."""

    def __init__(self, dsn: str | None, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Describe the signals; they live while ``run`` does.

        Args:
            dsn: The database whose processes hear each other; None for one that is alone.
            clock: Seconds, for tests.
        """
        self._channel = None if dsn is None else Channel(dsn, "greffier_signal")
        self._me = secrets.token_hex(4)
        self._clock = clock
        self._connections: defaultdict[str, int] = defaultdict(int)
        self._leaving: dict[str, float] = {}
        # user → process → until when its word holds
        self._elsewhere: dict[str, dict[str, float]] = {}
        self._active: dict[str, str] = {}
        self._typing: dict[tuple[UUID, str], float] = {}
        self._hearers: list[Hearer] = []
        self._say: list[str] = []
        self._something = asyncio.Event()

    def listen(self, hearer: Hearer) -> None:
        """Tell somebody of every change."""
        self._hearers.append(hearer)

    # -- here ----------------------------------------------------------------------------------

    def connected(self, user: str) -> None:
        """A connection of this user is open here."""
        before = self.online(user)
        self._connections[user] += 1
        self._leaving.pop(user, None)
        self.active(user)
        if not before:
            self._tell(f"+{self._me} {_quote(user)}")
            self._changed({user})

    def disconnected(self, user: str) -> None:
        """A connection of this user is closed here; the last one leaves after a grace."""
        self._connections[user] -= 1
        if self._connections[user] <= 0:
            del self._connections[user]
            self._leaving[user] = self._clock() + GRACE

    def active(self, user: str) -> None:
        """This user did something."""
        self._active[user] = rfc3339(datetime.now(UTC))

    def type(self, conversation_id: UUID, user: str, *, on: bool) -> None:
        """This user types in a conversation, or stopped; told to everybody."""
        self.active(user)
        self._heard_typing(conversation_id, user, on=on)
        self._tell(f"t{self._me} {conversation_id.hex}{'+' if on else '-'}{_quote(user)}")

    # -- everywhere ----------------------------------------------------------------------------

    def online(self, user: str) -> bool:
        """Whether this user is connected anywhere, or was a moment ago."""
        return user in self._connections or user in self._leaving or user in self._elsewhere

    def presence(self, users: Iterable[str]) -> list[Presence]:
        """Say for each of these whether they are online, and since when they are not active."""
        return [
            Presence(user, "online" if self.online(user) else "offline", self._active.get(user))
            for user in users
        ]

    # -- running -------------------------------------------------------------------------------

    async def run(self) -> None:
        """Tell and hear until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._sweep())
            if self._channel is not None:
                group.create_task(self._channel.listen(self._heard))
                group.create_task(self._speak(self._channel))

    async def _sweep(self) -> None:
        """Once a second: let leases, graces and signs of typing end."""
        told = -TELL
        while True:
            await asyncio.sleep(1.0)
            now = self._clock()
            self.sweep(now)
            if now - told >= TELL:
                told = now
                for word in self._words():
                    self._tell(word)

    def sweep(self, now: float) -> None:
        """Let what has run out end, as of a moment."""
        gone: set[str] = set()
        for user in [user for user, at in self._leaving.items() if at <= now]:
            del self._leaving[user]
            self._tell(f"-{self._me} {_quote(user)}")
            gone.add(user)
        for user, processes in list(self._elsewhere.items()):
            for name in [name for name, until in processes.items() if until <= now]:
                del processes[name]
            if not processes:
                del self._elsewhere[user]
                gone.add(user)
        for key in [key for key, at in self._typing.items() if at <= now]:
            self._heard_typing(*key, on=False)
        self._changed({user for user in gone if not self.online(user)})

    async def _speak(self, channel: Channel) -> None:
        with contextlib.closing(channel):
            while True:
                await self._something.wait()
                self._something.clear()
                words, self._say = self._say, []
                await channel.notify(words)

    def _tell(self, word: str) -> None:
        if self._channel is not None:
            self._say.append(word)
            self._something.set()

    def _words(self) -> list[str]:
        """What this process says of itself: all its users, in pieces."""
        users = sorted({*self._connections, *self._leaving})
        return [
            f"+{self._me} {','.join(map(_quote, users[at : at + NAMED]))}"
            for at in range(0, len(users), NAMED)
        ]

    # -- hearing -------------------------------------------------------------------------------

    def _heard(self, text: str | None) -> None:
        if text is None:
            return
        words = text.split(" ")
        for kind_and_who, what in zip(words[::2], words[1::2], strict=False):
            with contextlib.suppress(ValueError, IndexError):
                self.hear(kind_and_who[0], kind_and_who[1:], what)

    def hear(self, kind: str, who: str, what: str) -> None:
        """Hear one word of another process."""
        if kind == "t":
            self._heard_typing(UUID(what[:32]), _unquote(what[33:]), on=what[32] == "+")
            return
        named = {_unquote(one) for one in what.split(",") if one}
        before = {user for user in named if self.online(user)}
        for user in named:
            if kind == "+":
                self._elsewhere.setdefault(user, {})[who] = self._clock() + LEASE
            elif (processes := self._elsewhere.get(user)) is not None:
                processes.pop(who, None)
                if not processes:
                    del self._elsewhere[user]
        self._changed(before ^ {user for user in named if self.online(user)})

    def _heard_typing(self, conversation_id: UUID, user: str, *, on: bool) -> None:
        key = (conversation_id, user)
        before = key in self._typing
        if on:
            self._typing[key] = self._clock() + TYPING
        else:
            self._typing.pop(key, None)
        if on or before:
            for hearer in self._hearers:
                hearer.typing(conversation_id, user, on=on)

    def _changed(self, users: set[str]) -> None:
        if users:
            for hearer in self._hearers:
                hearer.presence(frozenset(users))


def _quote(user: str) -> str:
    """Write a user's id without a blank or a comma in it."""
    return user.encode().hex()


def _unquote(text: str) -> str:
    return bytes.fromhex(text).decode()
