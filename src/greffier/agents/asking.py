"""Runs for callers of the library: asked for, followed, taken back."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, NamedTuple
from uuid import UUID

import msgspec

from greffier.agents.follow import FollowedRuns
from greffier.change import run as verbs
from greffier.errors import NotFound
from greffier.model.draft import SERVICE, Speaker
from greffier.model.ids import as_id
from greffier.model.message import Draft
from greffier.model.run import Run
from greffier.store.database import Database

_run = msgspec.json.Decoder(Run).decode


class RunEvent(NamedTuple):
    """One event of a run: its number within it, its name, and its data."""

    id: int
    name: str
    data: dict[str, Any]


class Runs:
    """Ask an agent for an answer, and read it as it is made."""

    def __init__(
        self,
        database: Database,
        followed: Callable[[], Awaitable[FollowedRuns]],
        due: Callable[[UUID], None],
    ) -> None:
        """Make the part of the library that concerns runs.

        Args:
            database: Where.
            followed: Gives where runs are followed, begun when it is first needed.
            due: Tells whoever works that a conversation's lanes are due.
        """
        self._database = database
        self._followed = followed
        self._due = due

    async def start(
        self,
        conversation_id: UUID | str,
        *,
        content: str | None = None,
        message: Draft | None = None,
        rewind_after: int | None = None,
        id: UUID | str | None = None,  # noqa: A002 - the contract's name
        actor: str | None = None,
    ) -> Run:
        """Ask the conversation's agent for an answer; what is said comes on record before it.

        Somebody has to work: ``greffier serve``, ``greffier worker``, or ``g.working()`` here.

        Args:
            conversation_id: Where.
            content: What is said before, in words; or
            message: The whole message that is.
            rewind_after: The last seq that stays on the active path; what follows it leaves it.
            id: Your own UUID for the run, its idempotency key.
            actor: Who asks; None is the service, for the conversation's owner.

        Raises:
            Invalid, RunActive, QuotaExceeded, IdReused, NotFound, Gone, Forbidden, Archived,
            Unavailable: See the errors.
        """
        if content is not None:
            message = Draft(content=content)
        speaker = SERVICE if actor is None else Speaker(actor, actor, None, actor)
        where = as_id(conversation_id)
        done = await verbs.start(
            self._database,
            where,
            speaker,
            run_id=None if id is None else as_id(id),
            message=message,
            rewind_after=rewind_after,
            asked_by=actor,
        )
        self._due(where)
        return _run(done.body)

    async def get(self, run_id: UUID | str, *, actor: str | None = None) -> Run:
        """Read a run.

        Raises:
            NotFound, Unavailable: See the errors.
        """
        body, _ = await self._find(as_id(run_id), actor)
        return _run(body)

    async def events(
        self, run_id: UUID | str, *, after: int = 0, actor: str | None = None
    ) -> AsyncGenerator[RunEvent, None]:
        """Follow a run from an event on, to its end: every event once, in order.

        Raises:
            NotFound, Unavailable: See the errors.
        """
        followed = await self._followed()
        async with followed.follow(as_id(run_id), actor, after) as follower:
            while (found := await follower.next()) is not None:
                for event in found:
                    yield RunEvent(event.id, event.name, msgspec.json.decode(event.data))

    async def wait(self, run_id: UUID | str, *, actor: str | None = None) -> Run:
        """Wait until a run is over, and give it."""
        async with aclosing(self.events(run_id, actor=actor)) as events:
            async for _ in events:
                pass
        return await self.get(run_id, actor=actor)

    async def cancel(self, run_id: UUID | str, *, actor: str | None = None) -> Run:
        """End a run as cancelled, with what it had said; one that is over stays as it was.

        Raises:
            NotFound, Gone, Forbidden, Unavailable: See the errors.
        """
        found = as_id(run_id)
        _, where = await self._find(found, actor)
        body = await verbs.cancel(self._database, where, found, actor)
        (await self._followed()).ended(where, found)
        return _run(body)

    async def _find(self, run_id: UUID, actor: str | None) -> tuple[bytes, UUID]:
        rows = await self._database.read("run", run_id, actor)
        if not rows:
            raise NotFound
        body: str = rows[0]["body"]
        where: UUID = rows[0]["conversation_id"]
        return body.encode(), where
