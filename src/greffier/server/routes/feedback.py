"""Thumbs up and down, on messages and on conversations."""

from __future__ import annotations

from typing import Literal

import msgspec

from greffier import access
from greffier.change.feedback import Feedback, rate, unrate
from greffier.errors import Forbidden, Gone, NotFound, PayloadTooLarge, UnsupportedMediaType
from greffier.read.people import feedback
from greffier.server.answers import Answer, encoded, etag, no_content, tagged
from greffier.server.call import Call
from greffier.server.table import Route

_encode = msgspec.json.Encoder().encode


class Rating(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """1 is a thumb up, -1 a thumb down."""

    rating: Literal[1, -1]
    comment: str | None = None


async def get_feedback(call: Call) -> Answer:
    """Read the caller's own feedback on a conversation; 404 when they gave none."""
    return await _get(call, None)


async def put_feedback(call: Call) -> Answer:
    """Give or change the caller's feedback on a conversation."""
    return await _put(call, None)


async def delete_feedback(call: Call) -> Answer:
    """Take the caller's feedback on a conversation back."""
    return await _delete(call, None)


async def get_message_feedback(call: Call) -> Answer:
    """Read the caller's own feedback on a message; 404 when they gave none."""
    return await _get(call, call.params["seq"])


async def put_message_feedback(call: Call) -> Answer:
    """Give or change the caller's feedback on a message."""
    return await _put(call, call.params["seq"])


async def delete_message_feedback(call: Call) -> Answer:
    """Take the caller's feedback on a message back."""
    return await _delete(call, call.params["seq"])


async def _get(call: Call, seq: int | None) -> Answer:
    user = access.myself(call.principal)
    found = await feedback(call.database, call.conversation_id, user, seq)
    body = _encode(Feedback(found.rating, found.comment, user, found.at))
    tag = etag(body, call.database.epoch, None)
    return tagged(body, tag, call.headers.get(b"if-none-match"))


async def _put(call: Call, seq: int | None) -> Answer:
    asked: Rating = call.body
    user = access.myself(call.principal)
    database = call.database
    given = await rate(database, call.conversation_id, seq, user, asked.rating, asked.comment)
    return encoded(given)


async def _delete(call: Call, seq: int | None) -> Answer:
    user = access.myself(call.principal)
    await unrate(call.database, call.conversation_id, seq, user)
    return no_content()


_ONE = "/v1/conversations/{conversation_id}"

ROUTES = tuple(
    route
    for path, get, put, delete in (
        (_ONE + "/feedback", get_feedback, put_feedback, delete_feedback),
        (
            _ONE + "/messages/{seq}/feedback",
            get_message_feedback,
            put_message_feedback,
            delete_message_feedback,
        ),
    )
    for route in (
        Route(
            method="GET",
            path=path,
            handler=get,
            response=Feedback,
            errors=(Forbidden, NotFound, Gone),
            tagged=True,
            request_headers={"If-None-Match": "An ETag; 304 when nothing changed since."},
        ),
        Route(
            method="PUT",
            path=path,
            handler=put,
            request=Rating,
            response=Feedback,
            errors=(Forbidden, NotFound, Gone, PayloadTooLarge, UnsupportedMediaType),
            writes=True,
        ),
        Route(
            method="DELETE",
            path=path,
            handler=delete,
            status=204,
            errors=(Forbidden, NotFound, Gone),
            writes=True,
        ),
    )
)
