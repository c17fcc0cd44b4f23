"""Create, change, rotate and delete endpoints."""

from __future__ import annotations

from typing import NamedTuple
from uuid import UUID

import msgspec

from greffier.errors import Invalid, NotFound, Stale
from greffier.model.endpoint import (
    MOST_OF_A_CONVERSATION,
    Endpoint,
    EndpointPatch,
    NewEndpoint,
    Targets,
    check,
    merged,
    with_defaults,
)
from greffier.model.ids import uuid7
from greffier.model.limits import DEFAULT, Limits
from greffier.store.database import Database

CREATE = (
    "select create_endpoint_v1($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, "
    "$16, $17, $18)"
)
PATCH = "select patch_endpoint_v1($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)"
ROTATE = "select rotate_endpoint_v1($1, $2, $3, $4)"
DELETE = "select delete_endpoint_v1($1, $2, $3)"
LOOK = (
    "select endpoint_json(e), e.secrets[1] from endpoints e "
    "where e.id = $1 and keeps_endpoint(e, $2, $3)"
)

_endpoint = msgspec.json.Decoder(Endpoint).decode


class Keeper(NamedTuple):
    """Who looks after endpoints.

    Attributes:
        actor: Whose conversations; None for those of everybody.
        everything: Whether also those that are for no single conversation: an admin's.
    """

    actor: str | None = None
    everything: bool = True


#: The service itself.
KEEPER = Keeper()


class Created(NamedTuple):
    """An endpoint that is there: whether it was made now, and the secret that was made for it."""

    id: UUID
    created: bool
    secret: str | None


async def create(
    database: Database,
    new: NewEndpoint,
    targets: Targets,
    *,
    actor: str | None,
    created_by: str,
    limits: Limits = DEFAULT,
) -> Created:
    """Create an endpoint; the same request again finds it, and tells no secret.

    Args:
        database: Where.
        new: What is asked for.
        targets: What is known here of channels.
        actor: Who has to own the conversation it is for; None for the service and admins.
        created_by: Who made it, for the record.
        limits: How large things may be.

    Raises:
        Invalid: The request breaks a rule.
        IdReused, Gone: The id names another endpoint, or one that was deleted.
        NotFound, Gone, Forbidden: The conversation is not there, or not theirs.
    """
    settings = new.settings or {}
    made = None if new.secret else targets.make_secret(new.channel, new.target, settings)
    secret = new.secret or made
    checked = check(with_defaults(new), secret, targets, limits=limits)
    target, encoded, roles, ordering, on_uncertain, attempts, at_once, a_minute, paused = (
        checked.columns
    )
    id_ = new.id or uuid7()
    try:
        rows = await database.verb(
            CREATE, id_, checked.request_hash, new.conversation_id, actor, checked.everywhere,
            new.channel, target, [] if secret is None else [secret], encoded, roles, ordering,
            on_uncertain, attempts, at_once, a_minute, paused, created_by, MOST_OF_A_CONVERSATION,
            # Under the caller's own id a second answer says that it was there, without the secret.
            again=new.id is not None and made is None,
        )  # fmt: skip
    except Invalid:
        most = f"A conversation has at most {MOST_OF_A_CONVERSATION} endpoints of its own."
        raise Invalid.at("/conversation_id", "too-many", most) from None
    created = bool(rows[0][0])
    return Created(id_, created, made if created else None)


async def patch(
    database: Database,
    endpoint_id: UUID,
    change: EndpointPatch,
    targets: Targets,
    *,
    keeper: Keeper = KEEPER,
    if_version: int | None = None,
    limits: Limits = DEFAULT,
) -> int:
    """Change an endpoint; what is not given stays.  What waited for it to go on is due.

    The whole endpoint as it will be is checked and stored only over the version that was looked
    at (see ``change.agent.patch``).

    Returns:
        Its version afterwards; the same as before when nothing changed.

    Raises:
        Invalid: The endpoint would break a rule.
        NotFound: There is none for this keeper.
        Stale: It is no longer at ``if_version``.
    """
    while True:
        rows = await database.verb(LOOK, endpoint_id, *keeper, again=True)
        if not rows:
            raise NotFound
        endpoint, secret = _endpoint(rows[0][0]), rows[0][1]
        if if_version is not None and endpoint.version != if_version:
            raise Stale
        wanted = merged(endpoint, change)
        enable = change.enabled is True and endpoint.disabled_at is not None
        if wanted == merged(endpoint, EndpointPatch()) and not enable:
            return endpoint.version
        checked = check(wanted, secret, targets, limits=limits)
        try:
            rows = await database.verb(
                PATCH, endpoint_id, endpoint.version, *checked.columns, enable,
                again=if_version is None,
            )  # fmt: skip
        except Stale:
            if if_version is not None:
                raise
            continue
        return int(rows[0][0])


async def rotate(
    database: Database,
    endpoint_id: UUID,
    targets: Targets,
    *,
    secret: str | None = None,
    keeper: Keeper = KEEPER,
) -> str | None:
    """Give an endpoint a new secret; the one before holds for a day beside it.

    Returns:
        The secret that was made; None when it was brought.

    Raises:
        Invalid: This secret will not do, or none can be made for its channel.
        NotFound: There is none for this keeper.
    """
    rows = await database.verb(LOOK, endpoint_id, *keeper, again=True)
    if not rows:
        raise NotFound
    endpoint = _endpoint(rows[0][0])
    where = (endpoint.channel, endpoint.target)
    made = None if secret else targets.make_secret(*where, endpoint.settings)
    new = secret or made
    if new is None:
        raise Invalid.at("/secret", "missing", "For this channel a secret is yours to bring.")
    wanted = msgspec.structs.replace(merged(endpoint, EndpointPatch()), secret=secret)
    check(wanted, new, targets)
    # Not asked again after a lost answer: the one before would be pushed out by this one twice.
    rows = await database.verb(ROTATE, endpoint_id, *keeper, new, again=False)
    if rows[0][0] is None:
        raise NotFound
    return made


async def delete(database: Database, endpoint_id: UUID, *, keeper: Keeper = KEEPER) -> None:
    """Let nothing leave for an endpoint any more; the journal of what was sent stays.

    Raises:
        NotFound: There is none for this keeper.
    """
    rows = await database.verb(DELETE, endpoint_id, *keeper, again=False)
    if not rows[0][0]:
        raise NotFound
