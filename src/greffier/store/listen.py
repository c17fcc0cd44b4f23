"""LISTEN and NOTIFY: a channel between the processes of one database."""

from __future__ import annotations

import asyncio
import contextlib
import random
import secrets
from collections.abc import Callable, Sequence
from typing import Any

import asyncpg
import asyncpg.prepared_stmt

from greffier.store import connection

#: Seconds of silence after which the connection that listens is asked whether it is one still, and
#: for an answer: a firewall may forget a connection without a word to either end.
PROBE = 20.0
PATIENCE = 10.0
#: NOTIFY takes less than 8000 bytes.
_PAYLOAD = 7500
#: A channel's name ends in a key that only the service can read: LISTEN itself is for anybody.
NAME = "select channel($1)"
SAY = "select pg_notify(channel($1), word) from unnest($2::text[]) word"


class Channel:
    """Words to and from the other processes; one connection listens, another speaks."""

    def __init__(self, dsn: str, name: str) -> None:
        """Describe the channel; it connects when it is used.

        Args:
            dsn: The database.
            name: The channel's name, an identifier.
        """
        self._dsn = dsn
        self._name = name
        self._speaker: connection.Connection | None = None
        self._say: asyncpg.prepared_stmt.PreparedStatement[Any] | None = None
        # Our own words come back to us and are none of our business.
        self._me = secrets.token_hex(4)

    async def listen(self, hear: Callable[[str | None], None]) -> None:
        """Listen until cancelled, on a new connection whenever one is lost.

        Args:
            hear: Told each word of others; None when some may have been lost.
        """
        pause = 0.05
        while True:
            try:
                live = await connection.connect(self._dsn)
            except (*connection.LOST, asyncpg.PostgresError):
                # Jittered, so that a restarted database does not meet everybody at once.
                await asyncio.sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311
                pause = min(pause * 2, 2.0)
                continue
            pause = 0.05
            lost = asyncio.Event()
            live.add_termination_listener(lambda _live, lost=lost: lost.set())
            try:
                async with asyncio.timeout(PATIENCE):
                    name = await live.fetchval(NAME, self._name)
                    await live.add_listener(
                        name, lambda _c, _p, _n, text: self._heard(str(text), hear)
                    )
                # From here on nothing is lost; what was said before may have been.
                hear(None)
                await self._alive(live, lost)
            except (*connection.LOST, asyncpg.PostgresError, asyncpg.InterfaceError):
                continue
            finally:
                live.terminate()

    async def _alive(self, live: connection.Connection, lost: asyncio.Event) -> None:
        """Wait until a connection is lost; of one that went silently nobody would ever tell.

        Raises:
            TimeoutError: It does not answer.
        """
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PROBE):
                    await lost.wait()
                    return
            await live.fetchval("select 1", timeout=PATIENCE)

    def _heard(self, text: str, hear: Callable[[str | None], None]) -> None:
        me, _, words = text.partition(" ")
        if me != self._me:
            hear(words)

    async def notify(self, words: Sequence[str]) -> None:
        """Tell the others; what cannot be told now is lost, which costs them a poll."""
        line = self._me
        lines = []
        for word in words:
            if len(line) + len(word) + 1 > _PAYLOAD:
                lines.append(line)
                line = self._me
            line += " " + word
        lines.append(line)
        try:
            if self._speaker is None or self._speaker.is_closed():
                self._speaker = await connection.connect(self._dsn, {"synchronous_commit": "off"})
                # Said up to 200 times a second: parsed and planned each time it took as long as
                # twenty appends.
                self._say = await self._speaker.prepare(SAY, name="say")
            assert self._say is not None
            await self._say.fetch(self._name, lines, timeout=PATIENCE)
        except (*connection.LOST, asyncpg.PostgresError, asyncpg.InterfaceError):
            if self._speaker is not None:
                self._speaker.terminate()
                self._speaker = None

    def close(self) -> None:
        """Let go of the connection that speaks, in whatever it is cut off."""
        if self._speaker is not None:
            self._speaker.terminate()
            self._speaker = None
