"""A conversation on somebody's screen: the pure state, kept true over HTTP and the socket."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from uuid import UUID

from greffier.client.calls import Conversations, Messages, Stored
from greffier.client.live import Live
from greffier.client.outbox import Failed, Outbox, comes_again, pause
from greffier.client.state import AskChanges, AskPage, State
from greffier.errors import Error
from greffier.model.ids import uuid7
from greffier.model.message import Draft, Message


class View:
    """What is shown of a conversation, and what its person does in it.

    ``items`` never lacks what the person sent, and never goes back (``greffier.client.state``).
    """

    def __init__(
        self,
        conversation_id: UUID,
        live: Live,
        conversations: Conversations,
        messages: Messages,
        *,
        limit: int,
    ) -> None:
        self.conversation_id = conversation_id
        self.state = State()
        self.failures: list[Failed] = []
        self._live = live
        self._conversations = conversations
        self._messages = messages
        self._limit = limit
        self._outbox = Outbox(messages.put, self._told)
        self._needs = asyncio.Event()
        self._changed = asyncio.Event()
        self._hears: list[Callable[[View], None]] = []

    @property
    def items(self) -> tuple[Message | Draft, ...]:
        """What is shown, in order: messages on record, then drafts on their way to it."""
        return self.state.view

    def hear(self, told: Callable[[View], None]) -> None:
        """Be told after every change of what is shown."""
        self._hears.append(told)

    async def until(self, holds: Callable[[View], bool]) -> None:
        """Wait until something holds of the view."""
        while not holds(self):
            self._changed.clear()
            await self._changed.wait()

    # -- what the person does ------------------------------------------------------------------

    def send(self, content: str, *, id: UUID | None = None) -> Draft:  # noqa: A002 - the contract's name
        """Say something; it is shown from now on, and sent until the server has answered."""
        draft = Draft(id=id or uuid7(), content=content)
        self._become(self.state.send(draft))
        self._outbox.send(self.conversation_id, draft)
        return draft

    async def edit(self, seq: int, content: str) -> Message:
        """Give a message a new text."""
        edited = await self._messages.edit(self.conversation_id, seq, content)
        self._become(self.state.acknowledge(edited, edited.rev))
        return edited

    async def rewind(self, after_seq: int) -> int:
        """Take everything after a message off the path; returns how many left it."""
        done = await self._messages.rewound(self.conversation_id, after_seq)
        self._become(self.state.rewind(after_seq, done.rev))
        return done.removed

    async def earlier(self) -> bool:
        """Load the page before the first message shown; False when there is none."""
        base = self.state.base
        if base is None or not base.has_before:
            return False
        page = await self._messages.before(self.conversation_id, base.low, limit=self._limit)
        self._become(self.state.earlier(base.low, page))
        return True

    async def refresh(self) -> None:
        """Read the latest page again; an answer older than what is shown changes nothing."""
        page = await self._messages.recent(self.conversation_id, limit=self._limit)
        self._become(self.state.snapshot(page))

    async def drained(self) -> None:
        """Wait until everything that was sent has been answered."""
        await self._outbox.drained()

    # -- how it is kept true -------------------------------------------------------------------

    async def run(self) -> None:
        """Keep it true until cancelled, or until it may not be seen any more."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._outbox.run())
            group.create_task(self._answer())
            group.create_task(self._follow())

    async def _follow(self) -> None:
        await self.until(lambda view: view.state.base is not None or view.state.revoked)
        if self.state.revoked:
            return
        try:
            async with self._live.follow(
                self.conversation_id, self.state.rev, self.state.epoch
            ) as follower:
                async for change in follower:
                    self._become(self.state.change(change))
        except Error:
            # What will not come again: taken out, or erased.
            self._become(self.state.revoke())

    async def _answer(self) -> None:
        """Ask what the state asks for."""
        tries = 0
        while True:
            ask = self.state.ask
            if ask is None:
                self._needs.clear()
                await self._needs.wait()
                continue
            before = self.state
            try:
                await self._get(ask)
            except Error as error:
                if not comes_again(error):
                    self._become(self.state.revoke())
                    continue
                tries += 1
                await asyncio.sleep(pause(tries, error, random.random()))  # noqa: S311 - jitter
                continue
            tries = 0 if self.state is not before else tries + 1
            if tries:
                # The answer did not help: of a server that is behind what we know.
                await asyncio.sleep(pause(tries, Error(), random.random()))  # noqa: S311 - jitter

    async def _get(self, ask: AskPage | AskChanges) -> None:
        if isinstance(ask, AskPage):
            await self.refresh()
            return
        change = await self._conversations.changes(
            self.conversation_id, since=ask.since, epoch=self.state.epoch
        )
        if self.state.conversation is not None and change.conversation is not None:
            # It was read by this person: ``me`` is theirs.
            self._become(self.state.describes(change.conversation))
        self._become(self.state.change(change))

    def _told(self, _: UUID, told: Stored | Failed) -> None:
        if isinstance(told, Stored):
            self._become(self.state.acknowledge(told.message, told.rev))
            return
        self.failures.append(told)
        draft_id = told.draft.id
        assert draft_id is not None
        # Even when it may be on record: if it is, the record will show it.
        self._become(self.state.fail(draft_id, definite=True))

    def _become(self, state: State) -> None:
        if state is self.state:
            return
        self.state = state
        self._needs.set()
        self._changed.set()
        for told in self._hears:
            told(self)
