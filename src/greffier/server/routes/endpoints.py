"""Endpoints: where messages go; admins look after all, owners after their conversations'."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

import msgspec
from msgspec import Meta

from greffier import access
from greffier.change import endpoint as verbs
from greffier.change.endpoint import Keeper
from greffier.errors import (
    Forbidden,
    Gone,
    IdReused,
    NotFound,
    PayloadTooLarge,
    Stale,
    UnsupportedMediaType,
)
from greffier.model.endpoint import (
    Endpoint,
    EndpointList,
    EndpointPatch,
    MadeEndpoint,
    NewEndpoint,
    Rotation,
)
from greffier.model.ids import as_id
from greffier.read import endpoints as reads
from greffier.server.answers import Answer, Header, etag, matched_rev, no_content, tagged
from greffier.server.call import Call
from greffier.server.decode import optional_decoder
from greffier.server.table import Route

_encode = msgspec.json.Encoder().encode


def _keeper(call: Call) -> Keeper:
    """Say whose endpoints the caller looks after."""
    return Keeper(access.reader(call.principal), access.is_admin(call.principal))


async def create_endpoint(call: Call) -> Answer:
    """Send messages somewhere: one's conversation's, or, as an admin, everybody's.

    What is said from now on leaves; what was said before does not. The secret that was made for it
    is in this answer and in no other: signatures of webhooks are made with it (Standard Webhooks).
    The id is the idempotency key: the same request under the same id again is answered with the
    endpoint as it is now, the status 200 and no secret; if the first answer was lost, rotate it.
    """
    new: NewEndpoint = call.body
    who = call.principal
    if new.conversation_id is None:
        access.administrator(who)
    actor = access.reader(who)
    if new.id is None and (made := call.idempotency_key()) is not None:
        new = msgspec.structs.replace(new, id=made)
    service = call.service
    found = await verbs.create(
        call.database,
        new,
        service.targets,
        actor=actor,
        created_by=access.speaker(who).written_by,
        limits=service.limits,
    )
    call.params["endpoint_id"] = found.id
    where = f"/v1/endpoints/{found.id}".encode()
    answer = await _show(call, (b"location", where), secret=(found.secret,))
    answer.status = 201 if found.created else 200
    return answer


class EndpointsQuery(msgspec.Struct, frozen=True):
    """How many, and of which conversation; go on with the ``next_cursor`` of the answer."""

    limit: Annotated[int, Meta(extra_json_schema={"minimum": 1, "maximum": 100})] = 20
    cursor: str | None = None
    conversation_id: str | None = None


async def list_endpoints(call: Call) -> Answer:
    """List the endpoints one looks after, the oldest first."""
    keeper = _keeper(call)
    asked: EndpointsQuery = call.query
    bodies, following = await reads.listing(
        call.database,
        keeper.actor,
        everything=keeper.everything,
        conversation_id=_conversation(asked.conversation_id),
        limit=asked.limit,
        cursor=asked.cursor,
    )
    body = b'{"data":[%b],"next_cursor":%b}' % (b",".join(bodies), _encode(following))
    tag = etag(body, call.database.epoch, None)
    return tagged(body, tag, call.headers.get(b"if-none-match"))


async def get_endpoint(call: Call) -> Answer:
    """Read one endpoint, and how it does."""
    return await _show(call, heed=True)


async def update_endpoint(call: Call) -> Answer:
    """Change an endpoint; what is left out stays as it is.

    Paused, nothing begins to leave; with ``enabled`` an endpoint that was disabled goes on where it
    stood. Nothing changes when it is so already.
    """
    change: EndpointPatch = call.body
    service = call.service
    await verbs.patch(
        call.database,
        call.params["endpoint_id"],
        change,
        service.targets,
        keeper=_keeper(call),
        if_version=matched_rev(call.headers.get(b"if-match"), call.database.epoch),
        limits=service.limits,
    )
    service.deliveries_are_due()
    return await _show(call)


async def rotate_endpoint(call: Call) -> Answer:
    """Give an endpoint a new secret, which is in this answer and in no other.

    The one before holds for a day: until then each message carries both signatures. A bot's token
    is yours to bring.
    """
    asked: Rotation = call.body
    made = await verbs.rotate(
        call.database,
        call.params["endpoint_id"],
        call.service.targets,
        secret=asked.secret,
        keeper=_keeper(call),
    )
    return await _show(call, secret=(made,))


async def delete_endpoint(call: Call) -> Answer:
    """Let nothing leave for an endpoint any more; its id cannot come back."""
    await verbs.delete(call.database, call.params["endpoint_id"], keeper=_keeper(call))
    return no_content()


async def _show(
    call: Call, *more: Header, heed: bool = False, secret: tuple[str | None] | None = None
) -> Answer:
    """Answer with the endpoint and its ETag, and the secret when one was to be made."""
    keeper = _keeper(call)
    body, version = await reads.get(
        call.database, call.params["endpoint_id"], keeper.actor, everything=keeper.everything
    )
    # How it does is in it, and is no change: the version alone does not name the state.
    tag = etag(body, call.database.epoch, version)
    if secret is not None:
        body = b'%b,"secret":%b}' % (body[:-1], _encode(secret[0]))
    known = call.headers.get(b"if-none-match") if heed else None
    return tagged(body, tag, known, more=more)


def _conversation(given: str | None) -> UUID | None:
    return None if given is None else as_id(given, "/conversation_id")


_ALL = "/v1/endpoints"
_ONE = "/v1/endpoints/{endpoint_id}"
_CONDITIONAL: dict[str, Any] = {"If-None-Match": "An ETag; 304 when nothing changed since."}

ROUTES = (
    Route(
        method="GET",
        path=_ALL,
        handler=list_endpoints,
        query=EndpointsQuery,
        response=EndpointList,
        errors=(Forbidden,),
        tagged=True,
        request_headers=_CONDITIONAL,
    ),
    Route(
        method="POST",
        path=_ALL,
        handler=create_endpoint,
        request=NewEndpoint,
        response=MadeEndpoint,
        status=201,
        also={200: "It was there, made by the same request; its secret is not told again."},
        errors=(Forbidden, Gone, IdReused, NotFound, PayloadTooLarge, UnsupportedMediaType),
        writes=True,
        tagged=True,
        request_headers={
            "Idempotency-Key": "Any text; makes the id when the body has none. Sent again by the "
            "same user it is the same endpoint."
        },
    ),
    Route(
        method="GET",
        path=_ONE,
        handler=get_endpoint,
        response=Endpoint,
        errors=(NotFound,),
        tagged=True,
        request_headers=_CONDITIONAL,
    ),
    Route(
        method="PATCH",
        path=_ONE,
        handler=update_endpoint,
        request=EndpointPatch,
        response=Endpoint,
        errors=(Forbidden, NotFound, Stale, PayloadTooLarge, UnsupportedMediaType),
        writes=True,
        tagged=True,
        request_headers={
            "If-Match": "The ETag the change was made for; 412 when the endpoint has changed."
        },
    ),
    Route(
        method="DELETE",
        path=_ONE,
        handler=delete_endpoint,
        status=204,
        errors=(Forbidden, NotFound),
        writes=True,
    ),
    Route(
        method="POST",
        path=f"{_ONE}/rotate",
        handler=rotate_endpoint,
        request=Rotation,
        decode=optional_decoder(Rotation),
        response=MadeEndpoint,
        errors=(Forbidden, NotFound, PayloadTooLarge, UnsupportedMediaType),
        writes=True,
        tagged=True,
    ),
)
