"""What is sent arrives in order, under one id, and ends only with an answer that is one."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from uuid import UUID

import pytest

from greffier.client.calls import Stored
from greffier.client.http import Unanswered, refusal
from greffier.client.outbox import FIRST, LONGEST, Failed, Outbox, comes_again, pause
from greffier.errors import Archived, Error, Forbidden, IdReused, RateLimited, Unavailable
from greffier.model.message import Draft
from helpers import cases
from helpers.patience import PATIENCE

TALK, OTHER = cases.long("talk one"), cases.long("talk two")


class Post:
    """A server that answers as it is told to, and what it was asked."""

    def __init__(self, *answers: Error | None) -> None:
        self._answers = list(answers)
        self.asked: list[tuple[UUID, UUID | None]] = []
        self.told: list[Stored | Failed] = []
        self.waited: list[float] = []

    async def put(self, conversation_id: UUID, draft: Draft) -> Stored:
        """Take a try."""
        self.asked.append((conversation_id, draft.id))
        answer = self._answers.pop(0) if self._answers else None
        if answer is not None:
            raise answer
        return Stored(cases.message([len(self.asked), draft.content, 1]), 1)

    async def sleep(self, seconds: float) -> None:
        """Wait no longer than it takes to say so."""
        self.waited.append(seconds)

    @contextlib.asynccontextmanager
    async def outbox(self) -> AsyncIterator[Outbox]:
        """An outbox that sends here."""
        outbox = Outbox(
            self.put,
            lambda _, told: self.told.append(told),
            chance=lambda: 1.0,
            sleep=self.sleep,
        )
        task = asyncio.create_task(outbox.run())
        try:
            yield outbox
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


async def test_sends_of_a_conversation_go_one_after_the_other() -> None:
    """The second waits for the first, also while that is tried again."""
    post = Post(Unavailable(), None, None)
    async with post.outbox() as outbox:
        outbox.send(TALK, cases.draft("a"))
        outbox.send(TALK, cases.draft("b"))
        assert [one.content for one in outbox.waiting(TALK)] == ["a", "b"]
        await outbox.drained()

    assert [i for _, i in post.asked] == [cases.long("a"), cases.long("a"), cases.long("b")]
    assert [type(one) for one in post.told] == [Stored, Stored]


async def test_conversations_do_not_wait_for_each_other() -> None:
    """A hanging send holds up its own conversation only."""
    hangs, done = asyncio.Event(), asyncio.Event()

    class Hanging(Post):
        async def put(self, conversation_id: UUID, draft: Draft) -> Stored:
            if conversation_id == TALK:
                await hangs.wait()
            else:
                done.set()
            return await super().put(conversation_id, draft)

    post = Hanging()
    async with post.outbox() as outbox:
        outbox.send(TALK, cases.draft("a"))
        outbox.send(OTHER, cases.draft("b"))
        async with asyncio.timeout(PATIENCE):
            await done.wait()
        hangs.set()
        await outbox.drained()

    assert [i for _, i in post.asked] == [cases.long("b"), cases.long("a")]


async def test_the_same_id_is_sent_once() -> None:
    """Pressing send twice is one message."""
    post = Post()
    async with post.outbox() as outbox:
        outbox.send(TALK, cases.draft("a"))
        outbox.send(TALK, cases.draft("a"))
        await outbox.drained()

    assert len(post.asked) == 1


async def test_retry_after_is_obeyed() -> None:
    """Never before the time the server asks for, and a little spread after it."""
    post = Post(RateLimited(retry_after=7), Unavailable(retry_after=3))
    async with post.outbox() as outbox:
        outbox.send(TALK, cases.draft("a"))
        await outbox.drained()

    assert post.waited == [7 + FIRST, 3 + FIRST]


async def test_without_a_word_it_waits_longer_each_time_up_to_a_bound() -> None:
    """Doubling, so that a server that comes back is not met by everybody at once."""
    post = Post(*[Unanswered() for _ in range(12)])
    async with post.outbox() as outbox:
        outbox.send(TALK, cases.draft("a"))
        await outbox.drained()

    assert post.waited[:3] == [FIRST, 2 * FIRST, 4 * FIRST]
    assert max(post.waited) == LONGEST
    assert pause(3, Unanswered(), 0.0) == post.waited[2] / 2


@pytest.mark.parametrize("error", [Forbidden(), Archived(), IdReused()])
async def test_a_refusal_ends_it_and_the_next_goes(error: Error) -> None:
    """What will not change is told at once, and holds up nothing."""
    post = Post(error)
    async with post.outbox() as outbox:
        outbox.send(TALK, cases.draft("a"))
        outbox.send(TALK, cases.draft("b"))
        await outbox.drained()

    failed, stored = post.told
    assert isinstance(failed, Failed)
    assert (failed.error, failed.definite) == (error, True)
    assert isinstance(stored, Stored)


async def test_a_refusal_after_a_lost_answer_says_that_it_may_be_on_record() -> None:
    """The first try may have been stored before the second was refused."""
    post = Post(Unanswered(), Forbidden())
    async with post.outbox() as outbox:
        outbox.send(TALK, cases.draft("a"))
        await outbox.drained()

    (failed,) = post.told
    assert isinstance(failed, Failed)
    assert failed.definite is False


async def test_what_has_no_id_is_not_sent() -> None:
    """It could not be sent again."""
    async with Post().outbox() as outbox:
        with pytest.raises(ValueError, match="id"):
            outbox.send(TALK, Draft(content="a"))


@pytest.mark.parametrize(
    ("status", "body", "kind", "again"),
    [
        (409, b'{"code":"archived"}', Archived, False),
        (429, b'{"code":"rate-limited"}', RateLimited, True),
        (503, b'{"code":"unavailable"}', Unavailable, True),
        (502, b"<html>Bad gateway</html>", Unanswered, True),
        (500, b'{"code":"internal"}', Error, True),
        (403, b"", Forbidden, False),
    ],
)
def test_an_answer_becomes_the_error_it_stands_for(
    status: int, body: bytes, kind: type[Error], again: bool
) -> None:
    """By its code; what a proxy says goes by its status, and tells nothing of the request."""
    error = refusal(status, {"retry-after": "4"}, body)

    assert type(error) is kind
    assert error.retry_after == 4
    assert comes_again(error) is again
