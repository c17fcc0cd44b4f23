"""What lanes are told while they leave, gathered: many lanes' words in one call and one commit.

No timer, as with the writer: what is said while a call is under way goes with the next.  Each
lane's outcome is its own.  What is not plain (a row that somebody holds, a lane that is lost or
paused, a word that is said again) is said alone, by a call that waits and looks closer.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from datetime import timedelta
from typing import NamedTuple
from uuid import UUID

from greffier.deliver.lanes import Claim
from greffier.errors import Unavailable
from greffier.store.database import Database

#: Lanes in one commit: as many as one process delivers from.
MOST = 64
#: Waiting lanes from which a second call joins.  Below it two half-full ones cost more than one.
WIDE = 32
#: Calls under way.
CALLS = 2

_SETTLE = "select answer from settle_v1($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)"
_INTEND = "select intend_v1($1, $2, $3, $4, $5, $6)"
_DONE = "select done_and_next_v1($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)"


class Word(NamedTuple):
    """What is said of a lane: a message is done, the next is about to leave, or both.

    Attributes:
        conversation_id: Whose lane it is.
        lane_id: Which.
        token: With what it is held.
        seq: The message that is done; None: none yet.
        outcome: What came of it; None: it was for nobody here.
        detail: In words.
        external_id: What the far side calls it.
        endpoint_id: Where it went; None when nothing did.
        keep: Whether the lane stays its holder's, if there is more.
        then: The message that is about to leave.
        rev: As of which rev that was read; None: whatever it is now.
    """

    conversation_id: UUID
    lane_id: UUID
    token: UUID
    seq: int | None
    outcome: str | None
    detail: str | None
    external_id: str | None
    endpoint_id: UUID | None
    keep: bool
    then: int | None
    rev: int | None = None


class _Said(NamedTuple):
    word: Word
    answer: asyncio.Future[str]

    def told(self, answer: str | None) -> bool:
        if answer is not None and not self.answer.done():
            self.answer.set_result(answer)
        return answer is not None

    def failed(self, error: BaseException) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)


class Settling:
    """Those of a process: says for all of its lanes, many at a time, whenever some wait."""

    def __init__(self, database: Database, *, lease: float, needed: timedelta) -> None:
        """Make the place where they come together.

        Args:
            database: Where.
            lease: Seconds a lane that is kept is ours.
            needed: What has to be left of a lease when a message leaves.
        """
        self._database = database
        self._lease = timedelta(seconds=lease)
        self._needed = needed
        self._waiting: deque[_Said] = deque()
        self._calls: set[asyncio.Task[None]] = set()
        self._lone: set[asyncio.Task[None]] = set()
        #: Commits that were made, and lanes that were said alone.
        self.commits = self.alone = 0

    async def intend(self, claim: Claim, seq: int, rev: int | None = None) -> str:
        """Put on record that a message is about to leave.

        Args:
            claim: The lane.
            seq: The message.
            rev: As of which rev it was read.

        Returns:
            What ``intend_v1`` answers: go, skip, late or zombie.
        """
        return await self._say(
            Word(*_key(claim), None, None, None, None, claim.endpoint_id, True, seq, rev)
        )

    async def done(
        self,
        claim: Claim,
        seq: int,
        known: tuple[str | None, str | None, str | None],
        endpoint_id: UUID,
        *,
        keep: bool,
        then: tuple[int, int | None] | None,
    ) -> str:
        """Put on record what came of a message, and that the next is about to leave.

        Said again by the same holder, because the answer was lost on the way, it is said once.

        Args:
            claim: The lane.
            seq: The message.
            known: Outcome, detail, and what the far side calls it.
            endpoint_id: Where it went.
            keep: Whether the lane stays ours, if there is more.
            then: The next, and as of which rev it was read.

        Returns:
            What ``done_and_next_v1`` answers: done, or of the next go, skip, late; or zombie.
        """
        next_, rev = then or (None, None)
        return await self._say(Word(*_key(claim), seq, *known, endpoint_id, keep, next_, rev))

    async def _say(self, word: Word) -> str:
        """Say it; a caller that leaves before its call is under way takes it back."""
        said = _Said(word, asyncio.get_running_loop().create_future())
        self._waiting.append(said)
        if not self._calls or (len(self._calls) < CALLS and len(self._waiting) > WIDE):
            call = asyncio.get_running_loop().create_task(self._work())
            self._calls.add(call)
            call.add_done_callback(self._calls.discard)
        return await said.answer

    async def _work(self) -> None:
        while True:
            # One turn of the loop: those that were just answered and go on at once go together.
            await asyncio.sleep(0)
            batch = self._take()
            if not batch:
                # Nothing is awaited from here on: whoever comes next finds no call under way.
                self._calls.discard(asyncio.current_task())
                return
            try:
                await self._settle(batch)
            except BaseException as error:
                for said in batch:
                    said.failed(error)
                if not isinstance(error, Exception):
                    raise

    def _take(self) -> list[_Said]:
        batch: list[_Said] = []
        while self._waiting and len(batch) < MOST:
            said = self._waiting.popleft()
            if not said.answer.done():
                batch.append(said)
        return batch

    async def _settle(self, batch: Sequence[_Said]) -> None:
        if len(batch) == 1:
            await self._alone(batch[0])
            return
        columns = map(list, zip(*(said.word for said in batch), strict=True))
        try:
            rows = await self._database.verb(
                _SETTLE, *columns, self._lease, self._needed, again=True
            )
        except Unavailable:
            raise
        except Exception:  # noqa: BLE001 - one of them broke the call: each then has its own
            self._apart(batch)
            return
        self.commits += 1
        self._apart(
            [said for said, row in zip(batch, rows, strict=True) if not said.told(row["answer"])]
        )

    def _apart(self, batch: Sequence[_Said]) -> None:
        """Say each alone, beside the next call: it may wait for its row, and nobody else does."""
        for said in batch:
            call = asyncio.get_running_loop().create_task(self._alone(said))
            self._lone.add(call)
            call.add_done_callback(self._lone.discard)

    async def _alone(self, said: _Said) -> None:
        word = said.word
        key = word[:3]
        try:
            if word.seq is None:
                rows = await self._database.verb(
                    _INTEND, *key, word.then, self._needed, word.rev, again=True
                )
            else:
                rows = await self._database.verb(
                    _DONE, *key, *word[3:8], self._lease if word.keep else None, word.then,
                    self._needed, word.rev, again=True,
                )  # fmt: skip
        except Exception as error:  # noqa: BLE001 - told to whoever said it
            said.failed(error)
            return
        self.commits += 1
        self.alone += 1
        said.told(rows[0][0])


def _key(claim: Claim) -> tuple[UUID, UUID, UUID]:
    return claim.conversation_id, claim.lane_id, claim.token
