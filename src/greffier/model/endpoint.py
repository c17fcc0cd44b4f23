"""An endpoint: where messages go, by which channel, in what order, and what if that fails."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from hashlib import blake2b
from typing import Any, Final, Literal, NamedTuple, Protocol, TypeAlias
from uuid import UUID

import msgspec

from greffier.errors import Invalid, Problem
from greffier.model import jsonb, text
from greffier.model.limits import DEFAULT, Limits
from greffier.model.message import Role

Ordering: TypeAlias = Literal["strict", "skip", "unordered"]
OnUncertain: TypeAlias = Literal["resend", "probe", "park"]
State: TypeAlias = Literal["active", "failing", "slowed", "paused", "disabled"]

#: Endpoints of one conversation, which each of its messages costs; those for all come on top.
MOST_OF_A_CONVERSATION: Final = 10
LONGEST_TARGET: Final = 2048
LONGEST_SECRET: Final = 512
#: Stands in a target for the contact that a source's conversation is with.
CONTACT: Final = "{contact}"
#: Tries, messages at the same time, and messages in a minute at the most.
MOST_ATTEMPTS, MOST_AT_ONCE, MOST_PER_MINUTE = 100, 1000, 100_000


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """An endpoint; its secret is shown when it is made and when it is rotated, and never here.

    ``conversation_id`` is null for an admin's: that is for every conversation (``everywhere``), or
    only for those that sources bring. ``state`` is ``slowed`` while it is left alone after
    failures, until ``held_until``, and ``disabled`` when somebody has to enable it again.
    """

    id: UUID
    channel: str
    target: str
    conversation_id: UUID | None
    everywhere: bool
    roles: list[Role] | None
    ordering: Ordering
    on_uncertain: OnUncertain | None
    max_attempts: int | None
    concurrency: int | None
    per_minute: int | None
    settings: dict[str, Any]
    state: State
    paused: bool
    disabled_at: datetime | None
    disabled_reason: str | None
    failing_since: datetime | None
    held_until: datetime | None
    rotated_at: datetime | None
    version: int
    created_by: str
    created_at: datetime


class MadeEndpoint(Endpoint, frozen=True, kw_only=True):
    """An endpoint with the secret that was made for it, which is shown this once."""

    secret: str | None = None


class EndpointList(msgspec.Struct, frozen=True, kw_only=True):
    """Some of the endpoints, the oldest first; ``next_cursor`` is null when nothing follows."""

    data: list[Endpoint]
    next_cursor: str | None


class NewEndpoint(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An endpoint as a caller asks for it; ``id`` is its idempotency key.

    Without ``conversation_id`` it is for every conversation, or, with ``everywhere`` false or
    ``{contact}`` in its target, for those that sources bring. ``roles`` are whose words are sent:
    by default everybody's to a webhook, the agents' (``assistant``) elsewhere. ``secret`` is a
    bot's token for ``telegram``; for a webhook one is made.
    """

    id: UUID | None = None
    channel: str
    target: str
    conversation_id: UUID | None = None
    everywhere: bool | None = None
    roles: list[Role] | None = None
    ordering: Ordering = "strict"
    on_uncertain: OnUncertain | None = None
    max_attempts: int | None = None
    concurrency: int | None = None
    per_minute: int | None = None
    paused: bool = False
    settings: dict[str, Any] | None = None
    secret: str | None = None


class EndpointPatch(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What may change on an endpoint; ``enabled`` true takes back that it was disabled."""

    target: str | msgspec.UnsetType = msgspec.UNSET
    roles: list[Role] | msgspec.UnsetType | None = msgspec.UNSET
    ordering: Ordering | msgspec.UnsetType = msgspec.UNSET
    on_uncertain: OnUncertain | msgspec.UnsetType | None = msgspec.UNSET
    max_attempts: int | msgspec.UnsetType | None = msgspec.UNSET
    concurrency: int | msgspec.UnsetType | None = msgspec.UNSET
    per_minute: int | msgspec.UnsetType | None = msgspec.UNSET
    paused: bool | msgspec.UnsetType = msgspec.UNSET
    settings: dict[str, Any] | msgspec.UnsetType | None = msgspec.UNSET
    enabled: Literal[True] | msgspec.UnsetType = msgspec.UNSET


class Rotation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A new secret; one is made where both sides may take any, else it is yours to bring."""

    secret: str | None = None


class Targets(Protocol):
    """What this process knows of channels, and so can hold an endpoint to."""

    def problems(
        self, channel: str, target: str, secret: str | None, settings: Mapping[str, Any]
    ) -> Sequence[Problem]:
        """Say what is wrong with where an endpoint points; nothing if it will do."""

    def make_secret(self, channel: str, target: str, settings: Mapping[str, Any]) -> str | None:
        """Make what both sides will know, where that may be anything; None where it may not."""


class Checked(NamedTuple):
    """An endpoint that may be stored: its columns as the store takes them, and the request's hash.

    ``columns`` are target, settings, roles, ordering, on_uncertain, max_attempts, concurrency,
    per_minute and paused.
    """

    columns: tuple[Any, ...]
    everywhere: bool
    request_hash: bytes


def check(
    new: NewEndpoint,
    secret: str | None,
    targets: Targets,
    *,
    limits: Limits = DEFAULT,
) -> Checked:
    """Check an endpoint against every rule, and hash what was asked for.

    Args:
        new: What is asked for.
        secret: What both sides will know, brought or made.
        targets: Says what is wrong with where it points.
        limits: How large things may be.

    Raises:
        Invalid: With every fault that was found.
    """
    problems: list[Problem] = []
    for field, value, longest in (
        ("channel", new.channel, limits.name),
        ("target", new.target, LONGEST_TARGET),
        ("secret", new.secret, LONGEST_SECRET),
    ):
        if value is None:
            continue
        if fault := text.faults(value, f"/{field}"):
            problems.append(fault)
        elif not 0 < len(value.encode()) <= longest:
            problems.append(Problem(f"/{field}", "length", f"From 1 to {longest} bytes."))
    for field, number, most in (
        ("max_attempts", new.max_attempts, MOST_ATTEMPTS),
        ("concurrency", new.concurrency, MOST_AT_ONCE),
        ("per_minute", new.per_minute, MOST_PER_MINUTE),
    ):
        if number is not None and not 1 <= number <= most:
            problems.append(Problem(f"/{field}", "range", f"From 1 to {most}."))
    if new.roles == []:
        problems.append(Problem("/roles", "empty", "One role or more; null is everybody."))
    contacts = CONTACT in new.target
    if contacts and new.conversation_id is not None:
        detail = "A conversation's endpoint has no contact: only those that sources bring have one."
        problems.append(Problem("/target", "contact", detail))
    if new.everywhere and (contacts or new.conversation_id is not None):
        problems.append(Problem("/everywhere", "conflict", "It is for some conversations only."))
    settings = _settings(new.settings or {}, limits, problems)
    if not problems:
        problems += targets.problems(new.channel, new.target, secret, new.settings or {})
    if problems:
        raise Invalid(problems=tuple(problems))
    everywhere = new.conversation_id is None and not contacts and new.everywhere is not False
    roles: list[Role] | None = new.roles and list(dict.fromkeys(new.roles))
    columns = (
        new.target, settings, roles, new.ordering, new.on_uncertain, new.max_attempts,
        new.concurrency, new.per_minute, new.paused,
    )  # fmt: skip
    asked = (new.channel, new.conversation_id, everywhere, new.secret, columns)
    digest = blake2b(msgspec.json.encode(asked), digest_size=16).digest()
    return Checked(columns, everywhere, digest)


def with_defaults(new: NewEndpoint) -> NewEndpoint:
    """Give an endpoint its default roles: programs hear everybody, people hear the agents."""
    if new.roles is not None or new.channel == "webhook":
        return new
    return msgspec.structs.replace(new, roles=["assistant"])


def merged(endpoint: Endpoint, change: EndpointPatch) -> NewEndpoint:
    """Give an endpoint as it is wanted after a change."""
    given = {
        name: value
        for name, value in msgspec.structs.asdict(change).items()
        if value is not msgspec.UNSET and name != "enabled"
    }
    names = [name for name in EndpointPatch.__struct_fields__ if name != "enabled"]
    wanted = {name: given.get(name, getattr(endpoint, name)) for name in names}
    return NewEndpoint(
        id=endpoint.id,
        channel=endpoint.channel,
        conversation_id=endpoint.conversation_id,
        everywhere=endpoint.everywhere or None,
        **wanted | {"settings": wanted["settings"] or {}},
    )


def _settings(value: Mapping[str, Any], limits: Limits, problems: list[Problem]) -> str:
    try:
        encoded = jsonb.encode(dict(value))
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        problems.append(Problem("/settings", "not-json", f"This is no JSON value: {error}"))
        return "{}"
    if len(encoded) > limits.metadata:
        problems.append(Problem("/settings", "too-long", f"At most {limits.metadata} bytes."))
    if b"\\u0000" in encoded and (fault := text.deep_faults(value, "/settings")):
        problems.append(fault)
    return encoded.decode()
