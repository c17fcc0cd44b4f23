"""API keys as bearer tokens: looked up by their hash, remembered for a second."""

from __future__ import annotations

import asyncio
import re
import time
from collections import OrderedDict
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

from greffier.access import Principal
from greffier.errors import Unauthenticated
from greffier.model.key import key_hash
from greffier.read.keys import Found, find
from greffier.store.database import Database

#: Seconds for which what was found stands: a key revoked by another process opens nothing after it.
KEPT = 1.0
#: Keys remembered.
REMEMBERED = 4096

#: Anything else was never one of ours, and the database need not be asked.
_FORM = re.compile(r"grf_[A-Za-z0-9_-]{43}", re.ASCII)


@dataclass(frozen=True, slots=True)
class _Known:
    """What a key was found to be; no principal when it is none."""

    principal: Principal | None
    key_id: UUID | None
    until: float


class KeyRing:
    """Tells who bears an API key; see ``Authenticator``."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._known: OrderedDict[bytes, _Known] = OrderedDict()
        self._looks: dict[bytes, asyncio.Task[_Known]] = {}

    async def identify(self, token: str) -> Principal:
        """Find the key, or remember what was found.

        Raises:
            Unauthenticated: There is no such key, or it was revoked, or has expired.
            Unavailable: The database is away.
        """
        if _FORM.fullmatch(token) is None:
            raise Unauthenticated(_REFUSED)
        digest = key_hash(token)
        known = self._known.get(digest)
        if known is None or time.monotonic() >= known.until:
            look = self._looks.get(digest)
            if look is None:
                look = self._looks[digest] = asyncio.create_task(self._look(token, digest))
            # Who hangs up ends their own wait, not the look of the others.
            known = await asyncio.shield(look)
        if known.principal is None:
            raise Unauthenticated(_REFUSED)
        return known.principal

    def forget(self, key_id: UUID) -> None:
        """Let a revoked key open nothing more here, from now on."""
        for digest, known in list(self._known.items()):
            if known.key_id == key_id:
                del self._known[digest]
        # A look under way may have found it: nobody who comes now joins it, nor is it kept.
        self._looks.clear()

    def forget_user(self, user: str) -> None:
        """Let the keys of somebody who was forgotten open nothing more here."""
        for digest, known in list(self._known.items()):
            if known.principal is not None and known.principal.user_id == user:
                del self._known[digest]
        self._looks.clear()

    async def _look(self, token: str, digest: bytes) -> _Known:
        look = asyncio.current_task()
        try:
            found = await find(self._database, token)
            known = _judge(found, time.monotonic() + KEPT)
            if self._looks.get(digest) is look:
                self._known[digest] = known
                self._known.move_to_end(digest)
                if len(self._known) > REMEMBERED:
                    self._known.popitem(last=False)
            return known
        finally:
            if self._looks.get(digest) is look:
                del self._looks[digest]


def _judge(found: Found | None, until: float) -> _Known:
    if found is None:
        return _Known(None, None, until)
    key = found.key
    if key.expires_at is not None:
        left = (key.expires_at - datetime.now(UTC)).total_seconds()
        until = min(until, time.monotonic() + left)
    principal = Principal(
        key.user_id, found.user_name, found.user_email, role=key.scope, via="key", key=key.name
    )
    return _Known(principal, key.id, until)


_REFUSED = "This key is not valid, or not any more."
