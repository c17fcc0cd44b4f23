"""How the processes of a service tell each other that there is something to look at.

A bus carries wake-ups, never truth: they may be lost, doubled, late and out of order.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import NamedTuple, Protocol
from uuid import UUID

from greffier.store.listen import Channel


class Wake(NamedTuple):
    """Look at a conversation: it has reached this rev (0: not known).

    Or, with ``run``, at a run of it, which has said more; or, with ``due``, at its lanes.
    """

    conversation_id: UUID
    rev: int
    people: bool
    run: UUID | None = None
    due: bool = False

    @property
    def changed(self) -> bool:
        """Whether it is the conversation itself that is to be looked at."""
        return self.run is None and not self.due


#: Hears a wake-up; None says that some may have been lost, so look everywhere.
Heard = Callable[[Wake | None], None]


class Bus(Protocol):
    """Carries wake-ups to the other processes."""

    def say(self, wake: Wake) -> None:
        """Tell the others, soon; never waits and never fails."""

    async def run(self, heard: Heard) -> None:
        """Carry until cancelled, through every loss of connection."""


class LocalBus:
    """For a process that is alone: there is nobody to tell."""

    def say(self, wake: Wake) -> None:
        """Tell nobody."""

    async def run(self, heard: Heard) -> None:
        """Hear nothing, until cancelled."""
        await asyncio.Event().wait()


class PostgresBus:
    """The default: LISTEN on one connection, NOTIFY on another, after the commit.

    NOTIFY inside a write would take a lock that all commits of the server share.  Here the first
    word goes at once, in a statement of its own, and what is said within a few milliseconds of it
    in the next one.
    """

    #: Seconds between two statements, in which wake-ups gather; a hot conversation's fold into one.
    GATHER = 0.005

    def __init__(self, dsn: str) -> None:
        """Describe the bus.

        Args:
            dsn: The database, whose processes hear each other.
        """
        self._channel = Channel(dsn, "greffier_wake")
        self._waiting: dict[tuple[UUID, UUID | None, bool], Wake] = {}
        self._something = asyncio.Event()

    def say(self, wake: Wake) -> None:
        """Tell the others, soon."""
        key = (wake.conversation_id, wake.run, wake.due)
        before = self._waiting.get(key)
        if before is not None:
            people = wake.people or before.people
            wake = wake._replace(rev=max(wake.rev, before.rev), people=people)
        self._waiting[key] = wake
        self._something.set()

    async def run(self, heard: Heard) -> None:
        """Carry until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._channel.listen(lambda text: _hear(text, heard)))
            group.create_task(self._speak())

    async def _speak(self) -> None:
        loop = asyncio.get_running_loop()
        told = -self.GATHER
        many = False
        with contextlib.closing(self._channel):
            while True:
                await self._something.wait()
                # Not a wait for anything: under load it lets many commits share one statement.
                # Where one word at a time is said none waits: those 5 ms were most of what
                # reaching another process took.
                if many and (pause := told + self.GATHER - loop.time()) > 0:
                    await asyncio.sleep(pause)
                told = loop.time()
                self._something.clear()
                waiting, self._waiting = list(self._waiting.values()), {}
                many = len(waiting) > 1
                await self._channel.notify([_word(wake) for wake in waiting])


def _word(wake: Wake) -> str:
    if wake.run is not None:
        return f"{wake.conversation_id.hex}r{wake.run.hex}"
    if wake.due:
        return f"{wake.conversation_id.hex}d"
    return f"{wake.conversation_id.hex}{'p' if wake.people else '.'}{wake.rev}"


def _hear(text: str | None, heard: Heard) -> None:
    if text is None:
        heard(None)
        return
    for word in text.split(" "):
        try:
            conversation_id, kind, rest = UUID(word[:32]), word[32], word[33:]
            if kind == "r":
                heard(Wake(conversation_id, 0, people=False, run=UUID(rest)))
            elif kind == "d":
                heard(Wake(conversation_id, 0, people=False, due=True))
            else:
                heard(Wake(conversation_id, int(rest), kind == "p"))
        except (ValueError, IndexError):
            # Somebody else's word on our channel says nothing.
            continue
