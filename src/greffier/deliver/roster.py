"""The roster: each worker says every ten seconds that it lives, for operators to read.

Nothing is decided by it.  Who holds a lane is the lane's to say, and a worker that is silent here
may still work; but where lanes are due and nobody is on the roster, nobody will come.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta

from greffier._version import __version__
from greffier.errors import Error
from greffier.store.database import Database

#: Seconds between two words.
BEAT = 10.0
#: Seconds that a question may take for its answer to tell what time it is there: half of it is
#: how wrong that can be.
QUICK = 0.5

_LIVES = "select worker_lives_v1($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)"
_ENDS = "select worker_ends_v1($1)"


@dataclass(frozen=True, slots=True)
class Doing:
    """What a worker does and met: lanes it works on, then counts since it began."""

    busy: int
    claimed: int
    lost: int
    refused: int
    broken: int


class Roster:
    """One worker's line on the roster."""

    def __init__(
        self,
        database: Database,
        owner: str,
        pid: int,
        kinds: Sequence[str],
        doing: Callable[[], Doing],
        *,
        beat: float = BEAT,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """Describe the worker; it is on the roster while ``run`` does.

        Args:
            database: Where the roster is.
            owner: The worker, as lanes name it.
            pid: Its process.
            kinds: The kinds of lanes it works on.
            doing: Tells what it does.
            beat: Seconds between two words.
            wall: What time this machine thinks it is, in seconds since 1970.
        """
        self._database = database
        self._owner = owner
        self._pid = pid
        self._kinds = list(kinds)
        self._doing = doing
        self._beat = beat
        self._wall = wall
        self._began = time.monotonic()
        self._ahead: timedelta | None = None

    async def run(self) -> None:
        """Say it again and again until cancelled, and then that it is over."""
        try:
            while True:
                # A word that is lost costs nothing but its ten seconds.
                with contextlib.suppress(Error):
                    await self.say()
                await asyncio.sleep(self._beat)
        finally:
            # Who stops because the database is away is forgotten after a day.
            with contextlib.suppress(Error, TimeoutError):
                async with asyncio.timeout(2):
                    await self._database.verb(_ENDS, self._owner, again=True)

    async def say(self) -> None:
        """Say once that the worker lives, and learn how far its clock is from the database's.

        Raises:
            Unavailable: The database is away.
        """
        now = self._doing()
        asked, began = self._wall(), time.monotonic()
        ((there,),) = await self._database.verb(
            _LIVES, self._owner, socket.gethostname(), self._pid, __version__, self._kinds,
            timedelta(seconds=began - self._began), now.busy, now.claimed, now.lost, now.refused,
            now.broken, self._ahead, again=True,
        )  # fmt: skip
        took = time.monotonic() - began
        if took <= QUICK:
            # Told with the next word: it was not known when this one was said.
            self._ahead = timedelta(seconds=asked + took / 2 - there.timestamp())
