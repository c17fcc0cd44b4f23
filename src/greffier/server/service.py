"""What every handler may use: the database, the settings' values, and how the service does."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING
from uuid import UUID

from greffier.access import Principal, Users, acting_for
from greffier.agents.follow import FollowedRuns
from greffier.agents.work import Work, due
from greffier.errors import Invalid, Unauthenticated
from greffier.model import text
from greffier.model.agent import Rules
from greffier.model.endpoint import Targets
from greffier.model.limits import Limits
from greffier.model.person import is_reserved
from greffier.publish.feed import Feed
from greffier.publish.own import OwnFeeds
from greffier.publish.signals import Signals
from greffier.store.database import Database

if TYPE_CHECKING:
    from greffier.server.auth import Authenticator
    from greffier.server.call import Call
    from greffier.server.keyring import KeyRing
    from greffier.server.local import Local
    from greffier.server.metrics import Metrics
    from greffier.server.provider import KeySet
    from greffier.server.ratelimit import Buckets

#: Exports at the same time: each holds a connection and a snapshot for as long as it is read.
EXPORTS = 8
#: Seconds for which the answer of the last look at the database stands.
READINESS_KEPT = 1.0
#: Whom a service acts for.
ACT_AS = b"greffier-act-as"
LONGEST_ID = 256


class Readiness:
    """Whether this process can be trusted with words now; asked often, looked up once a second."""

    def __init__(self, database: Database, provider: KeySet | None = None) -> None:
        self._database = database
        self._provider = provider
        self._found: list[str] = []
        self._until = 0.0
        self._look: asyncio.Task[list[str]] | None = None
        self.stopping = False

    async def reasons(self) -> list[str]:
        """Say what is missing; nothing when it is ready."""
        if self.stopping:
            return ["The service is stopping."]
        if time.monotonic() >= self._until:
            if self._look is None:
                self._look = asyncio.create_task(self._look_around())
                self._look.add_done_callback(self._keep)
            # Who hangs up ends their own wait, not the look of the others.
            return await asyncio.shield(self._look)
        return self._found

    async def _look_around(self) -> list[str]:
        found = [await self._database.why_not_ready()]
        if self._provider is not None:
            found.append(await self._provider.why_not_ready())
        return [reason for reason in found if reason is not None]

    def _keep(self, look: asyncio.Task[list[str]]) -> None:
        self._look = None
        if not look.cancelled() and look.exception() is None:
            self._found = look.result()
            self._until = time.monotonic() + READINESS_KEPT


@dataclass(slots=True)
class Service:
    """One running service."""

    database: Database
    limits: Limits
    #: How long a client may take (``server.bounds``).
    client_seconds: float
    authenticator: Authenticator
    keys: KeyRing
    buckets: Buckets | None
    local: Local | None
    metrics: Metrics
    users: Users
    readiness: Readiness
    feed: Feed
    own: OwnFeeds
    signals: Signals
    runs: FollowedRuns
    #: What works on lanes here; None when other processes do.
    work: Work | None
    agents: Rules
    #: Where endpoints may point.
    targets: Targets
    currency: str
    #: Tries of a message whose endpoint says nothing else.
    max_attempts: int = 3
    documents: dict[str, bytes] = field(default_factory=dict)
    exports: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(EXPORTS))

    def work_is_due(self, conversation_id: UUID) -> None:
        """Tell whoever works on lanes, here and elsewhere, that there is something to do."""
        due(self.feed, self.work, conversation_id)

    def deliveries_are_due(self) -> None:
        """Let the worker of this process look for what may leave; others look within a second."""
        if self.work is not None:
            self.work.worker.wake("out")

    async def identify(self, call: Call) -> Principal:
        """Tell who calls: by their token, or in local mode by the cookie of the sign-in link.

        Raises:
            Unauthenticated: Nobody we know.
            Forbidden: A cookie came with a write that its own page did not send; or they act for
                somebody and may not.
            Invalid: Whom they act for cannot be a user.
        """
        principal = await self._bearer(call)
        if ACT_AS in call.headers:
            user = _acted_for(call)
            # A service claims no name for its users; what they say stands under their own.
            principal = replace(acting_for(principal, user), name=await self.users.name(user))
        return principal

    async def _bearer(self, call: Call) -> Principal:
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


def _acted_for(call: Call) -> str:
    """Read whom a service acts for: the user's id in UTF-8, as it is."""
    raw = call.headers[ACT_AS]
    if sum(name == ACT_AS for name, _ in call.scope["headers"]) > 1:
        # Two that disagree would be one client's and one proxy's.
        raise Invalid.at("", "act-as", "The header Greffier-Act-As stands twice.")
    try:
        user = raw.decode()
    except UnicodeDecodeError:
        raise Invalid.at("", "act-as", "The header Greffier-Act-As is not UTF-8.") from None
    if not 0 < len(raw) <= LONGEST_ID or text.faults(user, "") or is_reserved(user):
        detail = f"The header Greffier-Act-As holds a user's id of 1 to {LONGEST_ID} bytes."
        raise Invalid.at("", "act-as", detail)
    return user
