"""Where messages go and where they come from, over HTTP with the library's names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import msgspec

from greffier.client.http import Wire
from greffier.deliver.channels.signatures import check_secret, sign
from greffier.errors import Invalid
from greffier.library.given import converted
from greffier.model.endpoint import (
    Endpoint,
    EndpointList,
    EndpointPatch,
    MadeEndpoint,
    NewEndpoint,
    OnUncertain,
    Ordering,
    Rotation,
)
from greffier.model.ids import as_id, foreign, uuid7
from greffier.model.message import Role
from greffier.model.source import (
    DEBOUNCE,
    Adapter,
    Incoming,
    MadeSource,
    NewSource,
    Receipt,
    Received,
    Source,
    SourceList,
    SourcePatch,
    Status,
    StatusReport,
)

_encode = msgspec.json.Encoder().encode


class Endpoints:
    """Say where messages go: an admin everywhere, an owner from their conversation."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    async def create(
        self,
        *,
        id: UUID | str | None = None,  # noqa: A002 - the contract's name
        actor: str | None = None,
        channel: str,
        target: str,
        secret: str | None = None,
        settings: Mapping[str, Any] | None = None,
        conversation: UUID | str | None = None,
        everywhere: bool | None = None,
        roles: Sequence[Role] | None = None,
        ordering: Ordering = "strict",
        paused: bool = False,
        on_uncertain: OnUncertain | None = None,
        max_attempts: int | None = None,
        concurrency: int | None = None,
        per_minute: int | None = None,
    ) -> MadeEndpoint:
        """Send messages somewhere; the same request under the same id again finds it.

        Its secret is in this answer and in no other; one that was lost is rotated.
        """
        new = NewEndpoint(
            id=uuid7() if id is None else as_id(id),
            channel=channel,
            target=target,
            secret=secret,
            settings=None if settings is None else dict(settings),
            conversation_id=None if conversation is None else as_id(conversation, "/conversation"),
            everywhere=everywhere,
            roles=None if roles is None else [*roles],
            ordering=ordering,
            paused=paused,
            on_uncertain=on_uncertain,
            max_attempts=max_attempts,
            concurrency=concurrency,
            per_minute=per_minute,
        )
        body = await self._wire.write("POST", "/v1/endpoints", new, actor=actor)
        return msgspec.json.decode(body, type=MadeEndpoint)

    async def get(self, endpoint_id: UUID | str) -> Endpoint:
        """Read one endpoint, and how it does."""
        found: Endpoint = await self._wire.get(_endpoint(endpoint_id), Endpoint)
        return found

    async def list(
        self,
        *,
        conversation: UUID | str | None = None,
        limit: int = 20,
        cursor: str | None = None,
    ) -> EndpointList:
        """List the endpoints one looks after, the oldest first; go on with ``next_cursor``."""
        found: EndpointList = await self._wire.get(
            "/v1/endpoints",
            EndpointList,
            conversation_id=None if conversation is None else as_id(conversation),
            limit=limit,
            cursor=cursor,
        )
        return found

    async def update(
        self, endpoint_id: UUID | str, *, if_version: int | None = None, **changes: Any
    ) -> Endpoint:
        """Change what is given (``model.endpoint.EndpointPatch``); the rest stays.

        Raises:
            Stale: It is no longer at ``if_version``.
        """
        where, change = _endpoint(endpoint_id), converted(changes, EndpointPatch)
        unchanged = await self._wire.unchanged(where, Endpoint, "version", if_version)
        body = await self._wire.write("PATCH", where, change, headers=unchanged)
        return msgspec.json.decode(body, type=Endpoint)

    async def pause(self, endpoint_id: UUID | str) -> Endpoint:
        """Let nothing more begin to leave for it."""
        return await self.update(endpoint_id, paused=True)

    async def resume(self, endpoint_id: UUID | str) -> Endpoint:
        """Let it go on, also after it was disabled."""
        return await self.update(endpoint_id, paused=False, enabled=True)

    async def rotate(self, endpoint_id: UUID | str, *, secret: str | None = None) -> MadeEndpoint:
        """Give it a new secret, which is given this once; the one before holds for a day."""
        asked = Rotation(secret=secret)
        body = await self._wire.write("POST", f"{_endpoint(endpoint_id)}/rotate", asked)
        return msgspec.json.decode(body, type=MadeEndpoint)

    async def delete(self, endpoint_id: UUID | str) -> None:
        """Let nothing leave for it any more."""
        await self._wire.write("DELETE", _endpoint(endpoint_id))


class Sources:
    """Say where messages come from, as an admin; bring them in, as who has the source's secret."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    async def create(
        self,
        *,
        id: UUID | str | None = None,  # noqa: A002 - the contract's name
        name: str,
        owner: str,
        agent: UUID | str | None = None,
        endpoint: UUID | str | None = None,
        adapter: Adapter | None = None,
        debounce: float = DEBOUNCE,
    ) -> MadeSource:
        """Let messages come in; the same request under the same id again finds it.

        Its secret is in this answer and in no other; one that was lost is rotated.
        """
        new = NewSource(
            id=uuid7() if id is None else as_id(id),
            name=name,
            owner_id=owner,
            agent_id=None if agent is None else as_id(agent, "/agent"),
            endpoint_id=None if endpoint is None else as_id(endpoint, "/endpoint"),
            adapter=adapter,
            debounce=debounce,
        )
        body = await self._wire.write("POST", "/v1/sources", new)
        return msgspec.json.decode(body, type=MadeSource)

    async def get(self, source_id: UUID | str) -> Source:
        """Read one source."""
        found: Source = await self._wire.get(_source(source_id), Source)
        return found

    async def list(self, *, limit: int = 20, cursor: str | None = None) -> SourceList:
        """List the sources; go on with ``next_cursor``."""
        found: SourceList = await self._wire.get(
            "/v1/sources", SourceList, limit=limit, cursor=cursor
        )
        return found

    async def update(
        self, source_id: UUID | str, *, if_version: int | None = None, **changes: Any
    ) -> Source:
        """Change what is given (``model.source.SourcePatch``); the rest stays.

        Raises:
            Stale: It is no longer at ``if_version``.
        """
        where, change = _source(source_id), converted(changes, SourcePatch)
        unchanged = await self._wire.unchanged(where, Source, "version", if_version)
        body = await self._wire.write("PATCH", where, change, headers=unchanged)
        return msgspec.json.decode(body, type=Source)

    async def rotate(self, source_id: UUID | str) -> MadeSource:
        """Give it a new secret, which is given this once; the one before opens for a day."""
        body = await self._wire.write("POST", f"{_source(source_id)}/rotate")
        return msgspec.json.decode(body, type=MadeSource)

    async def delete(self, source_id: UUID | str) -> None:
        """Let nothing come in by it any more; its conversations stay."""
        await self._wire.write("DELETE", _source(source_id))

    async def receive(self, source_id: UUID | str, incoming: Incoming, *, secret: str) -> Received:
        """Put a message from outside on record (``Client.receive``)."""
        where = f"/v1/inbox/{as_id(source_id)}"
        body = await self._signed(where, incoming, incoming.external_id, secret)
        return msgspec.json.decode(body, type=Received)

    async def report(
        self, source_id: UUID | str, *, external_id: str, status: Status, secret: str
    ) -> Receipt:
        """Say what became, out there, of a message that left by the source's endpoint."""
        where = f"/v1/inbox/{as_id(source_id)}/status"
        told = StatusReport(external_id=external_id, status=status)
        body = await self._signed(where, told, f"{external_id}/{status}", secret)
        return msgspec.json.decode(body, type=Receipt)

    async def _signed(self, where: str, what: msgspec.Struct, name: str, secret: str) -> bytes:
        if fault := check_secret(secret, "/secret"):
            raise Invalid(problems=(fault,))
        # The signature is of these bytes and of no others.
        body = _encode(what)
        # One name for all tries, which fits into a header whatever it is called out there.
        webhook_id = f"msg_{foreign('inbox', name).hex}"
        headers = sign([secret], webhook_id, datetime.now(UTC), body)
        return await self._wire.write("POST", where, msgspec.Raw(body), headers=headers)


def _endpoint(endpoint_id: UUID | str) -> str:
    return f"/v1/endpoints/{as_id(endpoint_id)}"


def _source(source_id: UUID | str) -> str:
    return f"/v1/sources/{as_id(source_id)}"
