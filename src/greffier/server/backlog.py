"""What the whole database's queue looks like, for /metrics: asked at most every few seconds."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from datetime import timedelta

from greffier.errors import Error
from greffier.model.queue import SILENT
from greffier.store.database import Database

#: Seconds for which an answer stands.
KEPT = 5.0
#: Seconds that whoever asks for metrics waits for the database.
PATIENCE = 2.0


@dataclass(frozen=True, slots=True)
class Seen:
    """The queue as it was a moment ago.

    Attributes:
        lanes: How many of a kind stand somewhere, by kind and state; idle ones are not counted.
        oldest_due: Seconds since which something is due, by kind.
        workers: Workers that live.
        alerts: Codes of the alerts that stand, as they were last noticed.
    """

    lanes: dict[tuple[str, str], int] = field(default_factory=dict)
    oldest_due: dict[str, float] = field(default_factory=dict)
    workers: int = 0
    alerts: tuple[str, ...] = ()


class Backlog:
    """Looks at the queue when metrics are asked for; those who ask at once share a look."""

    def __init__(self, database: Database) -> None:
        self._database = database
        #: None while it cannot be looked at.
        self.seen: Seen | None = None
        self._until = 0.0
        self._look: asyncio.Task[None] | None = None

    async def refresh(self) -> None:
        """See that what is known is not older than a few seconds, or that nothing is known."""
        if time.monotonic() < self._until:
            return
        if self._look is None:
            self._look = asyncio.create_task(self._look_now())
        try:
            async with asyncio.timeout(PATIENCE):
                await asyncio.shield(self._look)
        except TimeoutError:
            # What is not current is not told: an old number would pass for a new one.
            self.seen = None

    async def _look_now(self) -> None:
        try:
            rows = await self._database.read("queue_gauges")
            (living,) = await self._database.read("queue_living", timedelta(seconds=SILENT))
            self.seen = Seen(
                {(row["kind"], row["state"]): row["lanes"] for row in rows},
                _oldest([(row["kind"], row["state"], row["overdue"]) for row in rows]),
                living["workers"],
                tuple(living["alerts"]),
            )
            self._until = time.monotonic() + KEPT
        except Error:
            self.seen = None
        finally:
            self._look = None


def _oldest(rows: list[tuple[str, str, float | None]]) -> dict[str, float]:
    found: dict[str, float] = {}
    for kind, state, overdue in rows:
        if state in ("due", "expired") and overdue is not None:
            found[kind] = max(found.get(kind, 0.0), overdue)
    return found
