"""Endpoints and sources for callers of the library: made, read, changed, rotated, deleted."""

from __future__ import annotations

import builtins
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar
from uuid import UUID

import msgspec

from greffier.change import endpoint as endpoint_verbs
from greffier.change import source as source_verbs
from greffier.errors import Invalid
from greffier.model.endpoint import (
    Endpoint,
    EndpointList,
    EndpointPatch,
    MadeEndpoint,
    NewEndpoint,
    OnUncertain,
    Ordering,
    Targets,
)
from greffier.model.ids import as_id
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
from greffier.read import endpoints as reads
from greffier.store.database import Database

T = TypeVar("T")
_endpoint = msgspec.json.Decoder(Endpoint).decode
_source = msgspec.json.Decoder(Source).decode


def _targets() -> Targets:
    # Settings and channels take their time to import, and few need them.
    from greffier.deliver.channels import open_channels  # noqa: PLC0415
    from greffier.deliver.targets import ChannelTargets  # noqa: PLC0415
    from greffier.settings import load  # noqa: PLC0415

    return ChannelTargets(open_channels(load()))


class Endpoints:
    """Say where messages go."""

    def __init__(self, database: Database, targets: Targets | None = None) -> None:
        """Make the part of the library that concerns endpoints.

        Args:
            database: Where.
            targets: What is known of channels; by default those that the settings make.
        """
        self._database = database
        self._known = targets

    @property
    def _targets(self) -> Targets:
        if self._known is None:
            self._known = _targets()
        return self._known

    async def create(
        self,
        *,
        channel: str,
        target: str,
        id: UUID | str | None = None,  # noqa: A002 - the contract's name
        conversation: UUID | str | None = None,
        everywhere: bool | None = None,
        roles: Sequence[Role] | None = None,
        ordering: Ordering = "strict",
        on_uncertain: OnUncertain | None = None,
        max_attempts: int | None = None,
        concurrency: int | None = None,
        per_minute: int | None = None,
        paused: bool = False,
        settings: Mapping[str, Any] | None = None,
        secret: str | None = None,
        actor: str | None = None,
    ) -> MadeEndpoint:
        """Send messages somewhere; the same request under the same id again finds it.

        Args:
            channel: ``webhook``, ``email``, ``telegram`` or that of an installed package.
            target: A URL, an address, a chat.
            id: Your own UUID for it, the idempotency key.
            conversation: Only the messages of this one; otherwise those of all.
            everywhere: False without a conversation: only for those that sources bring.
            roles: Whose words; by default everybody's to a webhook, the agents' elsewhere.
            ordering: ``strict``: one after the other, and what fails holds up the rest; ``skip``:
                what fails for good is left out; ``unordered``: it is tried again beside the rest.
            on_uncertain: What is done when nobody knows whether it arrived; the channel's own
                default when not given.
            max_attempts: Tries of a message; the settings' when not given.
            concurrency: Messages on their way at the same time.
            per_minute: Messages in a minute.
            paused: Whether it waits to be resumed.
            settings: What else the channel wants to know.
            secret: A bot's token; for a webhook one is made, and given this once.
            actor: Who has to own the conversation; None is the service.

        Raises:
            Invalid, IdReused, NotFound, Gone, Forbidden, Unavailable: See the errors.
        """
        new = NewEndpoint(
            id=None if id is None else as_id(id),
            channel=channel,
            target=target,
            conversation_id=None if conversation is None else as_id(conversation, "/conversation"),
            everywhere=everywhere,
            roles=None if roles is None else [*roles],
            ordering=ordering,
            on_uncertain=on_uncertain,
            max_attempts=max_attempts,
            concurrency=concurrency,
            per_minute=per_minute,
            paused=paused,
            settings=None if settings is None else dict(settings),
            secret=secret,
        )
        made = await endpoint_verbs.create(
            self._database, new, self._targets, actor=actor, created_by=actor or "service"
        )
        return _with_secret(await self.get(made.id), MadeEndpoint, made.secret)

    async def get(self, endpoint_id: UUID | str) -> Endpoint:
        """Read one endpoint, and how it does.

        Raises:
            NotFound: There is none.
        """
        body, _ = await reads.get(self._database, as_id(endpoint_id), None, everything=True)
        return _endpoint(body)

    async def list(
        self,
        *,
        conversation: UUID | str | None = None,
        limit: int = 20,
        cursor: str | None = None,
    ) -> EndpointList:
        """List the endpoints, the oldest first; go on with ``next_cursor``."""
        bodies, following = await reads.listing(
            self._database,
            None,
            everything=True,
            conversation_id=None if conversation is None else as_id(conversation),
            limit=limit,
            cursor=cursor,
        )
        return EndpointList(data=[_endpoint(body) for body in bodies], next_cursor=following)

    async def update(
        self, endpoint_id: UUID | str, *, if_version: int | None = None, **changes: Any
    ) -> Endpoint:
        """Change what is given (``model.endpoint.EndpointPatch``); the rest stays.

        Raises:
            Stale: It is no longer at ``if_version``.
            NotFound, Invalid, Unavailable: See the errors.
        """
        change = _read(changes, EndpointPatch)
        await endpoint_verbs.patch(
            self._database, as_id(endpoint_id), change, self._targets, if_version=if_version
        )
        return await self.get(endpoint_id)

    async def pause(self, endpoint_id: UUID | str) -> Endpoint:
        """Let nothing more begin to leave for it."""
        return await self.update(endpoint_id, paused=True)

    async def resume(self, endpoint_id: UUID | str) -> Endpoint:
        """Let it go on, also after it was disabled."""
        return await self.update(endpoint_id, paused=False, enabled=True)

    async def rotate(self, endpoint_id: UUID | str, *, secret: str | None = None) -> MadeEndpoint:
        """Give it a new secret, which is given this once; the one before holds for a day.

        Raises:
            NotFound, Invalid, Unavailable: See the errors.
        """
        made = await endpoint_verbs.rotate(
            self._database, as_id(endpoint_id), self._targets, secret=secret
        )
        return _with_secret(await self.get(endpoint_id), MadeEndpoint, made)

    async def delete(self, endpoint_id: UUID | str) -> None:
        """Let nothing leave for it any more.

        Raises:
            NotFound: There is none.
        """
        await endpoint_verbs.delete(self._database, as_id(endpoint_id))


class Sources:
    """Say where messages come from, and bring them in."""

    def __init__(self, database: Database, due: Callable[[UUID], None]) -> None:
        """Make the part of the library that concerns sources.

        Args:
            database: Where.
            due: Tells whoever works that a conversation's lanes are due.
        """
        self._database = database
        self._due = due

    async def create(
        self,
        *,
        name: str,
        owner: str,
        id: UUID | str | None = None,  # noqa: A002 - the contract's name
        agent: UUID | str | None = None,
        endpoint: UUID | str | None = None,
        debounce: float = DEBOUNCE,
        adapter: Adapter | None = None,
    ) -> MadeSource:
        """Let messages come in; the same request under the same id again finds it.

        Args:
            name: For display.
            owner: Whose conversations they become, and who pays for the answers.
            id: Your own UUID for it, the idempotency key.
            agent: Who answers.
            endpoint: By which the answers leave.
            debounce: Seconds within which messages are answered together.
            adapter: ``telegram``: what comes in are a bot's updates.

        Raises:
            Invalid, IdReused, Unavailable: See the errors.
        """
        new = NewSource(
            id=None if id is None else as_id(id),
            name=name,
            owner_id=owner,
            agent_id=None if agent is None else as_id(agent, "/agent"),
            endpoint_id=None if endpoint is None else as_id(endpoint, "/endpoint"),
            adapter=adapter,
            debounce=debounce,
        )
        made = await source_verbs.create(
            self._database, new, _secret(adapter), created_by="service"
        )
        return _with_secret(await self.get(made.id), MadeSource, made.secret)

    async def get(self, source_id: UUID | str) -> Source:
        """Read one source.

        Raises:
            NotFound: There is none.
        """
        body, _ = await reads.get_source(self._database, as_id(source_id))
        return _source(body)

    async def list(self, *, limit: int = 20, cursor: str | None = None) -> SourceList:
        """List the sources; go on with ``next_cursor``."""
        bodies, following = await reads.sources(self._database, limit=limit, cursor=cursor)
        return SourceList(data=[_source(body) for body in bodies], next_cursor=following)

    async def update(
        self, source_id: UUID | str, *, if_version: int | None = None, **changes: Any
    ) -> Source:
        """Change what is given (``model.source.SourcePatch``); the rest stays.

        Raises:
            Stale: It is no longer at ``if_version``.
            NotFound, Invalid, Unavailable: See the errors.
        """
        change = _read(changes, SourcePatch)
        await source_verbs.patch(self._database, as_id(source_id), change, if_version=if_version)
        return await self.get(source_id)

    async def rotate(self, source_id: UUID | str) -> MadeSource:
        """Give it a new secret, which is given this once; the one before opens for a day.

        Raises:
            NotFound: There is none.
        """
        source = await self.get(source_id)
        secret = _secret(source.adapter)
        await source_verbs.rotate(self._database, source.id, secret)
        return _with_secret(await self.get(source_id), MadeSource, secret)

    async def delete(self, source_id: UUID | str) -> None:
        """Let nothing come in by it any more; its conversations stay.

        Raises:
            NotFound: There is none.
        """
        await source_verbs.delete(self._database, as_id(source_id))

    async def receive(self, source_id: UUID | str, incoming: Incoming) -> Received:
        """Put a message from outside on record (``Greffier.receive``)."""
        received = await source_verbs.receive(self._database, as_id(source_id), incoming)
        if received.answering:
            self._due(received.conversation_id)
        return received

    async def report(self, source_id: UUID | str, *, external_id: str, status: Status) -> Receipt:
        """Keep what became, out there, of a message that left by the source's endpoint.

        Raises:
            NotFound: There is no such source, or no message of its endpoint is called so.
        """
        source = await self.get(source_id)
        told = StatusReport(external_id=external_id, status=status)
        now = await source_verbs.report(self._database, source.endpoint_id, told)
        return Receipt(external_id=external_id, status=now)


def _secret(adapter: Adapter | None) -> str:
    from greffier.deliver.channels.signatures import new_secret  # noqa: PLC0415

    return source_verbs.telegram_secret() if adapter == "telegram" else new_secret()


def _read(changes: Mapping[str, Any], kind: builtins.type[T]) -> T:
    try:
        return msgspec.convert(dict(changes), kind)
    except msgspec.ValidationError as error:
        raise Invalid(str(error)) from error


def _with_secret(value: msgspec.Struct, kind: builtins.type[T], secret: str | None) -> T:
    return msgspec.convert({**msgspec.structs.asdict(value), "secret": secret}, kind)
