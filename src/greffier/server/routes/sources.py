"""Sources: where messages come from; admins look after them."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from greffier import access
from greffier.change import source as verbs
from greffier.deliver.channels.signatures import new_secret
from greffier.errors import (
    Forbidden,
    IdReused,
    NotFound,
    PayloadTooLarge,
    Stale,
    UnsupportedMediaType,
)
from greffier.model.source import (
    Adapter,
    MadeSource,
    NewSource,
    Source,
    SourceList,
    SourcePatch,
)
from greffier.read import endpoints as reads
from greffier.server.answers import Answer, Header, etag, matched_rev, no_content, tagged
from greffier.server.call import Call
from greffier.server.decode import optional_decoder
from greffier.server.table import Route

_encode = msgspec.json.Encoder().encode


class NoBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Nothing is needed."""


def make_secret(adapter: Adapter | None) -> str:
    """Make a secret of the kind that a source's senders can use."""
    return verbs.telegram_secret() if adapter == "telegram" else new_secret()


async def create_source(call: Call) -> Answer:
    """Let messages come in, as an admin.

    The secret is in this answer and in no other: with it senders sign (Standard Webhooks), or, with
    the adapter ``telegram``, it is what Telegram is told as ``secret_token``. The id is the
    idempotency key: the same request again is answered with the status 200 and no secret; if the
    first answer was lost, rotate it.
    """
    user = access.administrator(call.principal)
    new: NewSource = call.body
    if new.id is None and (made := call.idempotency_key()) is not None:
        new = msgspec.structs.replace(new, id=made)
    found = await verbs.create(
        call.database,
        new,
        make_secret(new.adapter),
        created_by=user,
        limits=call.service.limits,
    )
    call.params["source_id"] = found.id
    where = f"/v1/sources/{found.id}".encode()
    answer = await _show(call, (b"location", where), secret=(found.secret,))
    answer.status = 201 if found.created else 200
    return answer


class SourcesQuery(msgspec.Struct, frozen=True):
    """How many; go on with the ``next_cursor`` of the answer."""

    limit: Annotated[int, Meta(extra_json_schema={"minimum": 1, "maximum": 100})] = 20
    cursor: str | None = None


async def list_sources(call: Call) -> Answer:
    """List the sources, as an admin."""
    access.administrator(call.principal)
    asked: SourcesQuery = call.query
    bodies, following = await reads.sources(call.database, limit=asked.limit, cursor=asked.cursor)
    body = b'{"data":[%b],"next_cursor":%b}' % (b",".join(bodies), _encode(following))
    tag = etag(body, call.database.epoch, None)
    return tagged(body, tag, call.headers.get(b"if-none-match"))


async def get_source(call: Call) -> Answer:
    """Read one source, as an admin."""
    access.administrator(call.principal)
    return await _show(call, heed=True)


async def update_source(call: Call) -> Answer:
    """Change a source, as an admin; what is left out stays as it is.

    Conversations that it has brought keep their owner, agent and endpoint.
    """
    access.administrator(call.principal)
    change: SourcePatch = call.body
    await verbs.patch(
        call.database,
        call.params["source_id"],
        change,
        if_version=matched_rev(call.headers.get(b"if-match"), call.database.epoch),
        limits=call.service.limits,
    )
    return await _show(call)


async def rotate_source(call: Call) -> Answer:
    """Give a source a new secret, as an admin, which is in this answer and in no other.

    The one before opens for a day beside it.
    """
    access.administrator(call.principal)
    source = await verbs.look(call.database, call.params["source_id"])
    secret = make_secret(source.adapter)
    await verbs.rotate(call.database, source.id, secret)
    return await _show(call, secret=(secret,))


async def delete_source(call: Call) -> Answer:
    """Let nothing come in by a source any more, as an admin; its conversations stay."""
    access.administrator(call.principal)
    await verbs.delete(call.database, call.params["source_id"])
    return no_content()


async def _show(
    call: Call, *more: Header, heed: bool = False, secret: tuple[str | None] | None = None
) -> Answer:
    """Answer with the source and its ETag, and the secret when one was made."""
    body, version = await reads.get_source(call.database, call.params["source_id"])
    tag = etag(body, call.database.epoch, version)
    if secret is not None:
        body = b'%b,"secret":%b}' % (body[:-1], _encode(secret[0]))
    known = call.headers.get(b"if-none-match") if heed else None
    return tagged(body, tag, known, more=more)


_ALL = "/v1/sources"
_ONE = "/v1/sources/{source_id}"
_CONDITIONAL: dict[str, Any] = {"If-None-Match": "An ETag; 304 when nothing changed since."}

ROUTES = (
    Route(
        method="GET",
        path=_ALL,
        handler=list_sources,
        query=SourcesQuery,
        response=SourceList,
        errors=(Forbidden,),
        tagged=True,
        request_headers=_CONDITIONAL,
    ),
    Route(
        method="POST",
        path=_ALL,
        handler=create_source,
        request=NewSource,
        response=MadeSource,
        status=201,
        also={200: "It was there, made by the same request; its secret is not told again."},
        errors=(Forbidden, IdReused, PayloadTooLarge, UnsupportedMediaType),
        writes=True,
        tagged=True,
        request_headers={
            "Idempotency-Key": "Any text; makes the id when the body has none. Sent again by the "
            "same user it is the same source."
        },
    ),
    Route(
        method="GET",
        path=_ONE,
        handler=get_source,
        response=Source,
        errors=(Forbidden, NotFound),
        tagged=True,
        request_headers=_CONDITIONAL,
    ),
    Route(
        method="PATCH",
        path=_ONE,
        handler=update_source,
        request=SourcePatch,
        response=Source,
        errors=(Forbidden, NotFound, Stale, PayloadTooLarge, UnsupportedMediaType),
        writes=True,
        tagged=True,
        request_headers={
            "If-Match": "The ETag the change was made for; 412 when the source has changed."
        },
    ),
    Route(
        method="DELETE",
        path=_ONE,
        handler=delete_source,
        status=204,
        errors=(Forbidden, NotFound),
        writes=True,
    ),
    Route(
        method="POST",
        path=f"{_ONE}/rotate",
        handler=rotate_source,
        request=NoBody,
        decode=optional_decoder(NoBody),
        response=MadeSource,
        errors=(Forbidden, NotFound, PayloadTooLarge, UnsupportedMediaType),
        writes=True,
        tagged=True,
    ),
)
