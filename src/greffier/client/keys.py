"""API keys over HTTP: made, listed and revoked by people."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

import msgspec

from greffier.client.http import Wire
from greffier.model.ids import as_id
from greffier.model.key import KeyList, MadeKey, NewKey, Scope


class Keys:
    """Let programs in: one's own keys, and as an admin everybody's."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    async def create(
        self,
        *,
        scope: Scope,
        name: str,
        user: str | None = None,
        expires_at: datetime | None = None,
    ) -> MadeKey:
        """Make a key: ``key`` of the answer is shown this once.

        After ``Unanswered`` it may be there or not: revoke what the list shows, and make another.

        Args:
            scope: ``user`` acts as one user, ``service`` for any, ``ops`` looks after the queue.
            name: For display, and beside what a service writes.
            user: As whom a key of scope ``user`` acts; the caller when not given.
            expires_at: When it opens nothing any more; never when not given.
        """
        asked = NewKey(scope=scope, name=name, user_id=user, expires_at=expires_at)
        return msgspec.json.decode(await self._wire.write("POST", "/v1/keys", asked), type=MadeKey)

    async def list(self, *, limit: int = 20, cursor: str | None = None) -> KeyList:
        """List one's own keys, newest first; an admin is shown everybody's."""
        found: KeyList = await self._wire.get("/v1/keys", KeyList, limit=limit, cursor=cursor)
        return found

    async def revoke(self, key_id: UUID | str) -> None:
        """Let a key open nothing any more."""
        await self._wire.write("DELETE", f"/v1/keys/{as_id(key_id)}")
