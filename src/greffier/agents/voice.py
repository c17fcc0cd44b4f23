"""What runs say, on its way to the record: gathered, stored in batches, and only then heard.

A follower hears nothing that is not stored.  What was heard is therefore the beginning of what the
message will say, whatever is killed when.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Final
from uuid import UUID

from greffier.deliver.worker import Held, Lost
from greffier.errors import Unavailable
from greffier.store.database import Database

#: Seconds between two batches of one run: a row each, so that an answer costs little more than its
#: text.  The first word does not wait.
GATHER = 0.1
#: Bytes that do not wait for that.
ENOUGH = 2 << 10
#: Bytes that may wait for the database before the model is read no further.
FULL = 64 << 10
#: Whose time comes within that many seconds goes along with who is due.  From then on both are due
#: together: 20 answers at once took a fifth fewer commits.
ALONG = GATHER / 2
#: Runs in one commit: more would keep somebody's first word waiting.
TOGETHER = 32

_SAY = "select run_id, last_event from say_in_runs_v1($1, $2, $3, $4, $5, $6, $7, $8)"
_DELTAS: Final = frozenset({"content.delta", "reasoning.delta"})

#: Told of events that are stored now: of which run, after which event, and the events.
Stored = Callable[[UUID, UUID, int, Sequence[tuple[str, str]]], None]


class Voice:
    """One run's: takes what it says, and knows what of it is stored."""

    def __init__(self, voices: Voices, held: Held, run_id: UUID) -> None:
        self._voices = voices
        self.held = held
        self.run_id = run_id
        #: The id of the last event that is stored: run.started is, when a run begins.
        self.last = 1
        #: When words were last sent, by the loop's clock.
        self.sent_at = -GATHER
        self.lost = False
        #: Why the record will not have what was said, when it will not.
        self.refused: Exception | None = None
        self._waiting: list[tuple[str, list[str]]] = []
        self._size = 0
        # Gives what the run took by now, in all, while the record does not know it; and since when
        # it does not wait for words any more that it could go along with.
        self._account: Callable[[], str] | None = None
        self._accounted_at: float | None = None
        # A batch of which nobody knows whether it is stored: said again as it is, and alone, so
        # that the record can tell that it has it.
        self._unsure: list[tuple[str, str]] = []
        self._sending = False
        self._progress = asyncio.Event()

    def say(self, event: str, body: str) -> None:
        """Say something; deltas of one kind that wait together become one event."""
        if self.refused is not None:
            return
        before, first = self._size, not self._waiting
        if self._waiting and event in _DELTAS and self._waiting[-1][0] == event:
            self._waiting[-1][1].append(body)
        else:
            self._waiting.append((event, [body]))
        self._size += len(body)
        # Between these nothing changes about when it is stored.  Looked at for each word, an answer
        # of 500 a second took a quarter more of the processor.
        if first or before < ENOUGH <= self._size:
            self._voices.look(self.due())

    def took(self, account: Callable[[], str], *, told: bool) -> None:
        """Hear that the run took more; what, in all, is asked for when it is stored.

        Args:
            account: Gives it as JSON.
            told: Whether the provider said so, so that it is stored soon also when nothing is said.
        """
        if self.refused is not None:
            return
        self._account = account
        if told and self._accounted_at is None:
            self._accounted_at = asyncio.get_running_loop().time()
            self._voices.look(self.due())

    @property
    def waiting(self) -> bool:
        """Whether something is to be stored, and no batch of ours is under way."""
        something = self._waiting or self._unsure or self._accounted_at is not None
        return bool(something) and not self._sending

    @property
    def crowded(self) -> bool:
        """Whether so much waits that the model is to be read no further."""
        return self._size >= FULL

    def due(self) -> float:
        """Give the time at which what waits is to be stored, by the loop's clock."""
        if self._size >= ENOUGH:
            return self.sent_at
        if self._waiting or self._unsure or self._accounted_at is None:
            return self.sent_at + GATHER
        # Of an account alone nobody waits to hear: a first word goes before it.
        return self._accounted_at + GATHER

    def hurry(self) -> None:
        """Store what waits now, the account too."""
        self.sent_at = -GATHER
        if self._account is not None:
            self._accounted_at = -GATHER
        self._voices.look()

    def take(self) -> list[tuple[str, str]]:
        """Take what waits, to store it."""
        self._sending = True
        if self._unsure:
            taken, self._unsure = self._unsure, []
            return taken
        taken = [(event, "".join(bodies)) for event, bodies in self._waiting]
        self._waiting, self._size = [], 0
        if self._account is not None:
            taken.append(("usage", self._account()))
        self._account = self._accounted_at = None
        return taken

    def give_back(self, batch: Sequence[tuple[str, str]]) -> None:
        """Take back what may not be stored: it is the first to be tried again."""
        self._unsure = list(batch)
        self._sending = False

    def stored(self, last: int | None) -> None:
        """Hear that a batch is stored, up to an event; None: we may write no more."""
        self._sending = False
        if last is None:
            self.lost = True
            self.held.lose()
        else:
            self.last = last
        self._progress.set()

    def refuse(self, error: Exception) -> None:
        """Hear that the record will not have a batch: no more of this run is stored."""
        self.refused = error
        self._waiting, self._size, self._sending = [], 0, False
        self._account = self._accounted_at = None
        self._progress.set()

    async def room(self) -> None:
        """Wait until what waits is not too much.

        Raises:
            Lost: The run is no longer ours.
            Exception: Why the record will not have what was said.
        """
        while self.crowded and not self.lost:
            self._progress.clear()
            await self._progress.wait()
        if self.lost:
            raise Lost
        if self.refused is not None:
            raise self.refused

    async def drained(self) -> None:
        """Wait until all that was said is stored.

        Raises:
            Lost: The run is no longer ours.
        """
        while (
            self._waiting or self._unsure or self._sending or self._account is not None
        ) and not self.lost:
            self._progress.clear()
            self.hurry()
            await self._progress.wait()
        if self.lost:
            raise Lost


class Voices:
    """Those of a process: stores for all of them in one commit at a time."""

    def __init__(self, database: Database, lease: float, stored: Stored) -> None:
        """Make the place where voices come together; it stores while ``run`` does.

        Args:
            database: Where.
            lease: Seconds that a batch renews its run's lease for.
            stored: Told what is stored.
        """
        self._database = database
        self._lease = lease
        self._told = stored
        self._voices: dict[UUID, Voice] = {}
        self._look = asyncio.Event()
        #: When it looks by itself, while it waits; None: when it is told to.
        self._until: float | None = None

    def open(self, held: Held, run_id: UUID) -> Voice:
        """Give a run that has just begun its voice."""
        voice = self._voices[run_id] = Voice(self, held, run_id)
        return voice

    def close(self, voice: Voice) -> None:
        """Hear nothing more of a voice."""
        self._voices.pop(voice.run_id, None)

    def look(self, due: float = 0.0) -> None:
        """Look again at who has something to say, which is due at a time of the loop's clock."""
        if self._until is None or due < self._until:
            self._look.set()

    async def run(self) -> None:
        """Store until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            self._look.clear()
            speaking = [voice for voice in self._voices.values() if voice.waiting]
            now = loop.time()
            # A first word, which waits for nothing, is before all others.
            speaking.sort(key=Voice.due)
            if speaking and speaking[0].due() <= now:
                along = [voice for voice in speaking[:TOGETHER] if voice.due() <= now + ALONG]
                await self._store(along, now)
                continue
            # What waits is stored when its time has come, or when more makes it enough.
            self._until = speaking[0].due() if speaking else None
            try:
                async with asyncio.timeout_at(self._until):
                    await self._look.wait()
            except TimeoutError:
                continue

    async def _store(self, voices: Sequence[Voice], now: float) -> None:
        batches = [voice.take() for voice in voices]
        for voice, batch in zip(voices, batches, strict=True):
            if batch[0][0] != "usage":
                voice.sent_at = now
        try:
            rows = await self._database.verb(
                _SAY,
                [voice.held.claim.conversation_id for voice in voices],
                [voice.run_id for voice in voices],
                [voice.held.claim.token for voice in voices],
                [voice.last for voice in voices],
                [len(batch) for batch in batches],
                [event for batch in batches for event, _ in batch],
                [body for batch in batches for _, body in batch],
                timedelta(seconds=self._lease),
                again=True,
            )
        except Unavailable:
            # Said again in a moment, while the lease lasts; then its deadline ends the run.
            for voice, batch in zip(voices, batches, strict=True):
                voice.give_back(batch)
            return
        except Exception as error:  # noqa: BLE001 - told to whoever said it
            # One batch that cannot be stored is not the others' trouble: each is tried alone.
            if len(voices) == 1:
                voices[0].refuse(error)
                return
            for voice, batch in zip(voices, batches, strict=True):
                voice.give_back(batch)
                await self._store([voice], now)
            return
        last = {row["run_id"]: row["last_event"] for row in rows}
        for voice, batch in zip(voices, batches, strict=True):
            before = voice.last
            voice.stored(last[voice.run_id])
            if not voice.lost:
                voice.held.written(now)
                said = [one for one in batch if one[0] != "usage"]
                if said:
                    conversation_id = voice.held.claim.conversation_id
                    self._told(conversation_id, voice.run_id, before, said)
