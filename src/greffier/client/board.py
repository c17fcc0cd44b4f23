"""A person's list of conversations on their screen: the pure state, kept true."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from uuid import UUID

from greffier.client.calls import Conversations
from greffier.client.listing import Listing
from greffier.client.live import Live
from greffier.client.outbox import comes_again, pause
from greffier.client.wire import Activity, ListChange
from greffier.errors import Error
from greffier.model.conversation import Conversation, NewConversation


class Board:
    """What is shown of a person's list; a conversation they make is there from the start."""

    def __init__(self, live: Live, conversations: Conversations, *, limit: int) -> None:
        self.state = Listing()
        self._live = live
        self._conversations = conversations
        self._limit = limit
        self._needs = asyncio.Event()
        #: The list is to be read whatever was heard: at first, and when nobody tells.
        self._ask = True
        self._hears: list[Callable[[Board], None]] = []

    @property
    def rows(self) -> tuple[Conversation | NewConversation, ...]:
        """What is shown, in order: conversations on their way first, then by last activity."""
        return self.state.view

    def hear(self, told: Callable[[Board], None]) -> None:
        """Be told after every change of what is shown."""
        self._hears.append(told)

    async def create(self, new: NewConversation) -> Conversation:
        """Make a conversation, shown from now on; sent until the server has answered.

        Raises:
            Error: It is refused for good; it is shown no more.
        """
        assert new.id is not None
        self._become(self.state.create(new))
        tries = 0
        while True:
            tries += 1
            try:
                made = await self._conversations.make(new)
            except Error as error:
                if not comes_again(error):
                    self._become(self.state.fail(new.id, definite=True))
                    raise
                await asyncio.sleep(pause(tries, error, random.random()))  # noqa: S311 - jitter
            else:
                self._become(self.state.acknowledge(made))
                return made

    async def erase(self, conversation_id: UUID) -> None:
        """Erase a conversation, hidden from the moment the server has answered."""
        await self._conversations.erase(conversation_id)
        self._become(self.state.hide(conversation_id))

    async def refresh(self) -> None:
        """Read the newest page again; an answer older than what is shown takes nothing away."""
        page = await self._conversations.list(limit=self._limit)
        self._become(self.state.snapshot(page))

    async def run(self) -> None:
        """Keep it true until cancelled."""
        with self._live.own(self._heard):
            tries = 0
            while True:
                if not self._ask and not self.state.ask:
                    self._needs.clear()
                    await self._needs.wait()
                try:
                    await self.refresh()
                except Error as error:
                    if not comes_again(error):
                        raise
                    tries += 1
                    await asyncio.sleep(pause(tries, error, random.random()))  # noqa: S311 - jitter
                    continue
                self._ask, tries = False, 0

    def _heard(self, said: ListChange | Activity | None) -> None:
        match said:
            case ListChange():
                self._become(self.state.change(said))
            case Activity():
                self._become(self.state.activity(said))
            case None:
                # Nobody tells: it is asked for, as long as that is so.
                self._ask = True
                self._needs.set()

    def _become(self, state: Listing) -> None:
        if state is self.state:
            return
        self.state = state
        if state.ask:
            self._needs.set()
        for told in self._hears:
            told(self)
