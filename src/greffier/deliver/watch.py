"""The watch: looks once a minute for what somebody should know, and tells when it begins and ends.

Every process keeps watch, and of all of them one looks in each minute.  What was noticed is on
record, so that it is told once, however many processes there are and whichever of them die; to the
webhook it is told again until it was taken, under the same id.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpcore2
import msgspec
from structlog.typing import FilteringBoundLogger

from greffier.deliver.channels.addresses import GuardedNetwork, check_url
from greffier.deliver.channels.http import Silence, pool, post
from greffier.deliver.channels.signatures import check_secret, sign
from greffier.errors import Error, SettingsError
from greffier.model.queue import Alert, shown
from greffier.read.queue import diagnose
from greffier.settings import Settings
from greffier.store.database import Database

#: Seconds between two looks, of all processes together.
EVERY = 60.0
#: Seconds before the first: until then the workers that start beside us have said that they live.
FIRST = 20.0
#: A look takes no more than this part of the time, however large the journal of the day is.
SHARE = 0.01
#: Seconds the receiver has to take an alert.
TIMEOUT = 10.0

_LOOK = "select look_for_alerts_v1($1)"
_NOTE = "select * from note_alerts_v1($1, $2, $3)"
_TOLD = "select alert_told_v1($1, $2)"

_encode = msgspec.json.encode


class AlertWebhook:
    """Where alerts are sent: the operator's own, so it may be in a private network."""

    def __init__(self, url: str, secret: str) -> None:
        """Describe it; nothing is opened yet.

        Args:
            url: Where to.
            secret: What the two sides know (``whsec_…``).
        """
        self._url = url
        self._secret = secret
        self._connections: httpcore2.AsyncConnectionPool | None = None

    async def tell(self, webhook_id: str, event: dict[str, Any]) -> str | None:
        """Send an event, signed after Standard Webhooks; gives what went wrong, if anything did."""
        if self._connections is None:
            network = GuardedNetwork(allow_private=True)
            self._connections = pool(network, connections=2, idle=0)
        body = _encode(event)
        signed = sign([self._secret], webhook_id, datetime.now(UTC), body)
        answer = await post(
            self._connections,
            self._url,
            {"Content-Type": "application/json", **signed},
            body,
            timeout=TIMEOUT,
        )
        if isinstance(answer, Silence):
            return answer.detail
        return None if 200 <= answer.status < 300 else f"Answered {answer.status}."

    async def close(self) -> None:
        """Close the connections."""
        if self._connections is not None:
            await self._connections.aclose()


class Watch:
    """One process's part of the watch."""

    def __init__(
        self,
        database: Database,
        *,
        log: FilteringBoundLogger,
        max_attempts: int = 3,
        webhook: AlertWebhook | None = None,
        every: float = EVERY,
        first: float = FIRST,
    ) -> None:
        """Describe it; it keeps watch while ``run`` does.

        Args:
            database: What to watch.
            log: Told what begins and ends, once.
            max_attempts: Tries of a message whose endpoint says nothing else.
            webhook: Told too, if there is one.
            every: Seconds between two looks, of all processes together.
            first: Seconds before the first.
        """
        self._database = database
        self._log = log
        self._max_attempts = max_attempts
        self._webhook = webhook
        self._every = every
        self._first = first

    async def run(self) -> None:
        """Keep watch until cancelled."""
        wait = self._first
        while True:
            await asyncio.sleep(wait)
            began = time.monotonic()
            try:
                await self.look()
            except Error as error:
                # Away, most often: then others complain, and the next look is near.
                self._log.debug("watch", error=error.code)
            except Exception as error:  # noqa: BLE001 - who serves goes on unwatched, and it is said
                self._log.error("watch broke", error=type(error).__name__, exc_info=True)
            wait = max(self._every, (time.monotonic() - began) / SHARE)

    async def look(self, *, mine: bool = False) -> bool:
        """Look, when it is this process's turn, and tell what began, what ended, what was not told.

        Args:
            mine: Look whoever's turn it is.

        Returns:
            Whether it looked.

        Raises:
            Unavailable: The database is away.
        """
        if not mine:
            # A little less than between two of ours, or we would miss our own turn.
            every = timedelta(seconds=self._every * 0.9)
            ((turn,),) = await self._database.verb(_LOOK, every, again=False)
            if not turn:
                return False
        found = (await diagnose(self._database, max_attempts=self._max_attempts)).alerts
        rows = await self._database.verb(
            _NOTE,
            [one.code for one in found],
            [one.count for one in found],
            [one.detail for one in found],
            again=True,
        )
        alerts = [Alert(**{name: row[name] for name in Alert.__struct_fields__}) for row in rows]
        for row, alert in zip(rows, alerts, strict=True):
            if row["fresh"]:
                self._say(row["what"], alert)
        for row, alert in zip(rows, alerts, strict=True):
            if self._webhook is not None:
                event = {"type": f"alert.{row['what']}", "alert": shown(alert)}
                fault = await self._webhook.tell(f"alert_{row['id'].hex}_{row['what']}", event)
                if fault is not None:
                    # All the others after it wait too, so that they arrive in order.
                    self._log.warning("alert not told", code=alert.code, why=fault)
                    break
            await self._database.verb(_TOLD, row["id"], row["what"], again=True)
        return True

    def _say(self, what: str, alert: Alert) -> None:
        if what == "began":
            self._log.warning(
                "alert began", code=alert.code, count=alert.count, detail=alert.detail
            )
        else:
            assert alert.since is not None
            assert alert.until is not None
            lasted = (alert.until - alert.since).total_seconds()
            self._log.info("alert ended", code=alert.code, seconds=round(lasted))

    @contextlib.asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """Keep watch beside a block."""
        task = asyncio.get_running_loop().create_task(self.run())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait({task})
            if self._webhook is not None:
                await self._webhook.close()


def from_settings(database: Database, settings: Settings, log: FilteringBoundLogger) -> Watch:
    """Make the watch that the settings say.

    Raises:
        SettingsError: Where alerts are to be sent makes no sense.
    """
    return Watch(
        database, log=log, max_attempts=settings.max_attempts, webhook=alert_webhook(settings)
    )


def alert_webhook(settings: Settings) -> AlertWebhook | None:
    """Give where alerts are sent, if anywhere.

    Raises:
        SettingsError: It makes no sense.
    """
    url = settings.alert_webhook
    secret = settings.alert_webhook_secret and settings.alert_webhook_secret.get_secret_value()
    if url is None and not secret:
        return None
    if url is None or not secret:
        raise SettingsError("ALERT_WEBHOOK and ALERT_WEBHOOK_SECRET go together; one is missing.")
    if problems := check_url(url, "", allow_private=True):
        raise SettingsError(f"ALERT_WEBHOOK: {problems[0].detail}")
    if fault := check_secret(secret, ""):
        raise SettingsError(f"ALERT_WEBHOOK_SECRET: {fault.detail}")
    return AlertWebhook(url, secret)
