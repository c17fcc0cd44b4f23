"""What every handler may use: the database, the settings' values, and how the service does."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from greffier.access import Principal, Users
from greffier.errors import Unauthenticated
from greffier.model.limits import Limits
from greffier.publish.feed import Feed
from greffier.publish.own import OwnFeeds
from greffier.publish.signals import Signals
from greffier.store.database import Database

if TYPE_CHECKING:
    from greffier.server.auth import Authenticator
    from greffier.server.call import Call
    from greffier.server.local import Local
    from greffier.server.metrics import Metrics

#: Exports at the same time: each holds a connection and a snapshot for as long as it is read.
EXPORTS = 8
#: Seconds for which the answer of the last look at the database stands.
READINESS_KEPT = 1.0


class Readiness:
    """Whether this process can be trusted with words now; asked often, looked up once a second."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._found: str | None = None
        self._until = 0.0
        self._look: asyncio.Task[str | None] | None = None
        self.stopping = False

    async def reasons(self) -> list[str]:
        """Say what is missing; nothing when it is ready."""
        if self.stopping:
            return ["The service is stopping."]
        if time.monotonic() >= self._until:
            if self._look is None:
                self._look = asyncio.create_task(self._database.why_not_ready())
                self._look.add_done_callback(self._keep)
            # Who hangs up ends their own wait, not the look of the others.
            return _listed(await asyncio.shield(self._look))
        return _listed(self._found)

    def _keep(self, look: asyncio.Task[str | None]) -> None:
        self._look = None
        if not look.cancelled() and look.exception() is None:
            self._found = look.result()
            self._until = time.monotonic() + READINESS_KEPT


def _listed(reason: str | None) -> list[str]:
    return [] if reason is None else [reason]


@dataclass(slots=True)
class Service:
    """One running service."""

    database: Database
    limits: Limits
    authenticator: Authenticator
    local: Local | None
    metrics: Metrics
    users: Users
    readiness: Readiness
    feed: Feed
    own: OwnFeeds
    signals: Signals
    documents: dict[str, bytes] = field(default_factory=dict)
    exports: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(EXPORTS))

    async def identify(self, call: Call) -> Principal:
        """Tell who calls: by their token, or in local mode by the cookie of the sign-in link.

        Raises:
            Unauthenticated: Nobody we know.
            Forbidden: A cookie came with a write that its own page did not send.
        """
        given = call.headers.get(b"authorization")
        if given is not None:
            scheme, _, token = given.decode("latin-1").partition(" ")
            if scheme.lower() != "bearer" or not token.strip():
                raise Unauthenticated("Authorization: Bearer, then a token.")
            return await self.authenticator.identify(token.strip())
        if self.local is not None:
            principal = await self.local.session(call)
            if principal is not None:
                return principal
        raise Unauthenticated
