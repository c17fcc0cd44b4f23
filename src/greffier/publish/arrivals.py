"""Those who come at the same time, as after a restart, are answered from one read.

A thousand sockets that join again ask the same question.  Whoever comes while a read is under way
goes with the next one, so that each answer is at least as new as its question; the large pieces of
the answers are the same bytes.  Who takes part is read anew only when that has changed.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias
from uuid import UUID

from greffier.errors import NotFound
from greffier.model.limits import DEFAULT, Limits
from greffier.publish.feed import BEYOND
from greffier.read.changes import Changes, arrivals
from greffier.read.pages import Found, Where, page
from greffier.read.people import decode_participants
from greffier.store.database import Database

#: Messages in the snapshot of who comes without a position.
SNAPSHOT = 15
#: People remembered over all conversations, about 250 bytes each.
REMEMBERED = 20_000
#: Seconds for which names that were read are taken for today's: a new name is no change of people.
NAMES_KEPT = 5.0


@dataclass(frozen=True, slots=True, eq=False)
class People:
    """Who takes part in a conversation, as of the rev that last changed it."""

    rev: int
    names: frozenset[str]
    #: In the order they came.
    order: tuple[str, ...]
    #: Their JSON, as the API shows them.
    body: bytes
    until: float


class Arrival(NamedTuple):
    """What somebody who comes is told: JSON in pieces, the large ones shared with others.

    Attributes:
        rev: Where they stand then.
        recovered: It is all they missed; else the latest page.
        body: The ``changes``, or the ``snapshot``.
        people: Who takes part.
        same_people: Nobody came, left or read since what they know.
    """

    rev: int
    recovered: bool
    body: tuple[bytes, ...]
    people: People
    same_people: bool


class _Read(NamedTuple):
    """What was read for all of a flight."""

    people: People
    #: None when it cannot be told as one change.
    changes: Changes | None
    #: Around ``me``.
    pieces: tuple[bytes, bytes]
    mine: dict[str, bytes]
    page: Found | None


_Question: TypeAlias = tuple[UUID, int | None]


class _Flight:
    """Those who wait for the same read."""

    def __init__(self) -> None:
        self.users: set[str] = set()
        self.done: asyncio.Future[_Read] = asyncio.get_running_loop().create_future()


class Arrivals:
    """Answers those who come, as few reads as they come in crowds."""

    def __init__(self, database: Database, *, limits: Limits = DEFAULT) -> None:
        """Make it.

        Args:
            database: The record.
            limits: How large one answer may be.
        """
        self._database = database
        self._limits = limits
        self._waiting: dict[_Question, _Flight] = {}
        self._reading: dict[_Question, asyncio.Task[None]] = {}
        self._people: OrderedDict[UUID, People] = OrderedDict()
        self._remembered = 0

    async def answer(self, conversation_id: UUID, user: str | None, since: int | None) -> Arrival:
        """Say what somebody lacks, as of a moment after they asked.

        Args:
            conversation_id: Which.
            user: Who; they must take part.  None is the service.
            since: The rev they know, of our history; without it the latest page.

        Raises:
            NotFound, Gone: There is no such conversation, or it is not theirs.
            Unavailable: The record cannot be read now.
        """
        if since is not None:
            read = await self._flown(conversation_id, user, since)
            if read.changes is not None:
                mine = b"null" if user is None else read.mine[user]
                return Arrival(
                    read.changes.rev,
                    True,
                    (read.pieces[0], mine, read.pieces[1]),
                    read.people,
                    read.changes.participants == b"null",
                )
        # Never a part: what does not fit into one answer is a snapshot.
        read = await self._flown(conversation_id, user, None)
        assert read.page is not None
        return Arrival(read.page.rev, False, (read.pieces[0],), read.people, False)

    async def _flown(self, conversation_id: UUID, user: str | None, since: int | None) -> _Read:
        question = (conversation_id, since)
        flight = self._waiting.get(question)
        if flight is None:
            flight = self._waiting[question] = _Flight()
            if question not in self._reading:
                task = asyncio.get_running_loop().create_task(self._fly(question))
                self._reading[question] = task
        if user is not None:
            flight.users.add(user)
        # Who goes away does not take the answer from the others.
        read = await asyncio.shield(flight.done)
        if user is not None and user not in read.people.names:
            raise NotFound
        return read

    async def _fly(self, question: _Question) -> None:
        try:
            while (flight := self._waiting.pop(question, None)) is not None:
                try:
                    read = await self._read(*question, flight.users)
                except asyncio.CancelledError:
                    flight.done.cancel()
                    raise
                except Exception as error:  # noqa: BLE001 - each who waits is told
                    flight.done.set_exception(error)
                    # So that it is no error of ours when all of them have gone.
                    flight.done.exception()
                else:
                    flight.done.set_result(read)
        finally:
            del self._reading[question]

    async def _read(self, conversation_id: UUID, since: int | None, users: set[str]) -> _Read:
        found: Found | None = None
        if since is None:
            # Before the people: who takes part after it may see it.
            found = await page(
                self._database, conversation_id, None, Where(SNAPSHOT), limits=self._limits
            )
        known = self._people.get(conversation_id)
        if known is not None and known.until < time.monotonic():
            known = None
        read = await arrivals(
            self._database,
            conversation_id,
            BEYOND if since is None else since,
            -1 if known is None else known.rev,
            () if since is None else tuple(users),
            limits=self._limits,
        )
        if read.everybody is not None:
            known = self._remember(conversation_id, read.people_rev, read.everybody)
        assert known is not None
        if found is not None:
            return _Read(known, None, (found.body(), b""), {}, found)
        change = read.changes
        if change.reset or change.more:
            return _Read(known, None, (b"", b""), {}, None)
        mine = {user: bytes(body) for user, body in read.mine.items()}
        return _Read(known, change, change.around_me(), mine, None)

    def _remember(self, conversation_id: UUID, rev: int, body: bytes) -> People:
        order = tuple(one.user_id for one in decode_participants(body))
        people = People(rev, frozenset(order), order, body, time.monotonic() + NAMES_KEPT)
        before = self._people.pop(conversation_id, None)
        if before is not None:
            self._remembered -= len(before.order)
            if before.names == people.names:
                # One set for all who follow, however often somebody reads.
                people = People(rev, before.names, order, body, people.until)
        self._people[conversation_id] = people
        self._remembered += len(order)
        while self._remembered > REMEMBERED and len(self._people) > 1:
            _, oldest = self._people.popitem(last=False)
            self._remembered -= len(oldest.order)
        return people
