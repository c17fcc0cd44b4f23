"""P5: what a person did is on their screen and stays there (product.md, B3).

Every frame that a view showed is recorded.  What the person sent is in each frame from the first
on, once, and no frame is of an older state than the one before it; meanwhile the view is told to
read everything again all the time, by HTTP, through a standby, over slow ways.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx2
import pytest

from greffier.client import Board, View, connect, outbox
from greffier.errors import Unavailable
from greffier.model.conversation import NewConversation
from greffier.model.ids import uuid7
from greffier.model.message import Message
from greffier.store import schema
from helpers.crowd import Answerless, token
from helpers.standby import primary_and_standby
from live.conftest import Running, a_name, running


class Slow(httpx2.AsyncBaseTransport):
    """A slow network: each answer takes its own time, so that a later one overtakes it."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._inner = httpx2.AsyncHTTPTransport()

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Ask, and let the answer take its time."""
        answer = await self._inner.handle_async_request(request)
        await answer.aread()
        await asyncio.sleep(self._random.random() * 0.15)
        return answer

    async def aclose(self) -> None:
        """Close it."""
        await self._inner.aclose()


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits long for a second try."""
    monkeypatch.setattr(outbox, "LONGEST", 0.5)


class Frames:
    """Every frame that was shown, and what is wrong with them."""

    def __init__(self) -> None:
        self._mine: set[UUID] = set()
        self._rev = -1
        self.count = 0
        self.faults: list[str] = []

    def expect(self, *ids: UUID) -> None:
        """From now on these are in every frame."""
        self._mine.update(ids)

    def take(self, ids: list[UUID | None], rev: int) -> None:
        """Look at a frame."""
        self.count += 1
        if len(ids) != len(set(ids)):
            self.faults.append(f"frame {self.count} shows something twice")
        if gone := self._mine - set(ids):
            self.faults.append(f"frame {self.count} lacks {len(gone)} of one's own")
        if rev < self._rev:
            self.faults.append(f"frame {self.count} is of rev {rev} after {self._rev}")
        self._rev = max(self._rev, rev)

    def of_view(self, view: View) -> None:
        """Take what a view shows; the messages on record come first and in order."""
        self.take([one.id for one in view.items], view.state.rev)
        seqs = [one.seq for one in view.items if isinstance(one, Message)]
        if seqs != sorted(seqs):
            self.faults.append(f"frame {self.count} is out of order")

    def of_board(self, board: Board) -> None:
        """Take what a board shows."""
        self.take([one.id for one in board.rows], board.state.list_rev)


@contextlib.asynccontextmanager
async def reread(*shown: View | Board) -> AsyncIterator[None]:
    """Read everything again and again during a block, several at once, and never in order."""

    async def look(one: View | Board) -> None:
        while True:
            with contextlib.suppress(Unavailable):
                await one.refresh()

    tasks = [asyncio.create_task(look(one)) for one in shown for _ in range(2)]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def talk(url: str, burst: int, transport: Any = None, user: str | None = None) -> list[str]:
    """Open a conversation, send a burst into it, and give what was wrong with the frames."""
    frames = Frames()
    user = user or a_name("eva")
    async with connect(url, token(user)) as first:
        made = await first.conversations.create()
    async with connect(url, token(user), transport=transport) as g, g.view(made.id) as view:
        view.hear(frames.of_view)
        await view.until(lambda view: view.state.base is not None)
        async with reread(view):
            for number in range(burst):
                mine = uuid7()
                frames.expect(mine)
                view.send(f"n{number}", id=mine)
                # Half of them come on top of each other, half after an answer.
                if number % 2:
                    await view.drained()
            await view.drained()
            await view.until(lambda view: view.state.ask is None)
        await view.refresh()
        frames.of_view(view)
        contents = [one.content for one in view.items]
        assert all(isinstance(one, Message) for one in view.items)
    assert contents == [f"n{number}" for number in range(burst)], "in the order they were sent"
    assert frames.count > burst
    return frames.faults


@pytest.mark.slow
async def test_a_standby_that_is_half_a_second_late_takes_nothing_back(tmp_path: Path) -> None:
    """Reads go to it; none of them is shown when it is older than what is shown."""
    async with primary_and_standby(tmp_path, delay_ms=500) as (primary, standby):
        await schema.migrate(primary)
        async with running(primary, replicas=[standby]) as server:
            faults = await talk(server.url, 8)

    assert faults == []


async def test_a_slow_network_takes_nothing_back(server: Running) -> None:
    """Answers overtake each other."""
    assert await talk(server.url, 6, Slow(1)) == []


async def test_lost_answers_take_nothing_back(server: Running) -> None:
    """A send whose answer was lost is sent again, and is there once."""
    assert await talk(server.url, 8, Answerless(1, 0.5)) == []


async def test_a_burst_of_sends_stays(servers: tuple[Running, Running]) -> None:
    """Ten at once in each of three conversations of three people, over two servers."""
    found = await asyncio.gather(*(talk(servers[n % 2].url, 10) for n in range(3)))

    assert found == [[], [], []]


async def test_new_conversations_are_listed_from_the_start(server: Running) -> None:
    """Four are made at once, while the list is read again and again over a slow network."""
    frames = Frames()
    async with (
        connect(server.url, token(a_name("eva")), transport=Slow(2)) as g,
        g.board(limit=10) as board,
    ):
        board.hear(frames.of_board)
        news = [NewConversation(id=uuid7(), title=f"n{number}") for number in range(4)]

        async def make(new: NewConversation) -> None:
            assert new.id is not None
            frames.expect(new.id)
            await board.create(new)

        async with reread(board), asyncio.TaskGroup() as group:
            for new in news:
                group.create_task(make(new))
        await board.refresh()
        shown = [one.title for one in board.rows]

    assert frames.faults == []
    assert sorted(str(title) for title in shown) == ["n0", "n1", "n2", "n3"]
    assert frames.count > 8


async def test_several_subjects_at_once_stay_apart(servers: tuple[Running, Running]) -> None:
    """Three words on each of four subjects at once: one conversation each, each word once."""
    user = a_name("eva")
    subjects = ("maths", "français", "history, 1", "art & co")
    async with (
        connect(servers[0].url, token(user)) as one,
        connect(servers[1].url, token(user)) as other,
        one.board() as board,
    ):
        said = await asyncio.gather(
            *(
                (one, other)[number % 2].say(subject, f"{subject} {number}")
                for subject in subjects
                for number in range(3)
            )
        )
        talks = {subject: said[index * 3].conversation_id for index, subject in enumerate(subjects)}
        assert len({message.conversation_id for message in said}) == len(subjects)
        for subject, conversation_id in talks.items():
            page = await other.messages.recent(conversation_id)
            assert sorted(str(m.content) for m in page.data) == [f"{subject} {n}" for n in range(3)]
        await board.refresh()
        assert {row.id for row in board.rows} == set(talks.values())
