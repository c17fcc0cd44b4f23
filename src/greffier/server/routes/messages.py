"""Messages: put on record, read in pages and one by one, and chosen for a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Annotated, Any, TypeAlias
from uuid import UUID

import msgspec
from msgspec import Meta

from greffier import access
from greffier.change.append import Appended as Done
from greffier.change.append import append
from greffier.errors import (
    Archived,
    Forbidden,
    Gone,
    IdReused,
    Invalid,
    NotFound,
    PayloadTooLarge,
    UnsupportedMediaType,
)
from greffier.model.message import Draft, Message
from greffier.model.page import Context, Page
from greffier.read.context import context
from greffier.read.pages import Where, known, one, page, with_readers
from greffier.read.people import role_in
from greffier.server.allowance import charge
from greffier.server.answers import Answer, encoded, etag, tagged
from greffier.server.call import Call
from greffier.server.decode import json_decoder
from greffier.server.table import Route

#: Seconds after which a page is slow (an alert: no page should take that long).
SLOW_PAGE = 0.1

#: What a page may hold beyond the active path's messages.
INCLUDES = frozenset({"superseded", "read_by"})

Positive: TypeAlias = Annotated[int, Meta(extra_json_schema={"minimum": 1})]
NotNegative: TypeAlias = Annotated[int, Meta(extra_json_schema={"minimum": 0})]


class Batch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Several messages, stored all or none, as one rev."""

    messages: list[Draft]


class Appended(msgspec.Struct, frozen=True):
    """The message as it stands on record, and the conversation's rev."""

    message: Message
    rev: int


class AppendedBatch(msgspec.Struct, frozen=True):
    """The messages as they stand on record, in the order they were sent, and the rev."""

    messages: list[Message]
    rev: int


class _Either(Draft, frozen=True, kw_only=True, forbid_unknown_fields=True):
    messages: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


_read_either = json_decoder(_Either)
_read_batch = json_decoder(Batch)


def read_drafts(body: bytes) -> Draft | Batch:
    """Read one message, or several under ``messages`` with nothing beside it.

    Raises:
        Invalid: It is neither.
    """
    found: _Either = _read_either(body)
    if found.messages is msgspec.UNSET:
        return found
    batch: Batch = _read_batch(body)
    return batch


async def append_messages(call: Call) -> Answer:
    """Append one message, or several that stand or fall together.

    A message's id is its idempotency key: sent again it is answered with the message as it now
    stands, and stored once.  When every message was there before, the status is 200.
    """
    body: Draft | Batch = call.body
    alone = not isinstance(body, Batch)
    drafts: Sequence[Draft] = [body] if isinstance(body, Draft) else body.messages
    if b"idempotency-key" in call.headers:
        drafts = [
            draft
            if draft.id is not None
            else msgspec.structs.replace(
                draft, id=call.idempotency_key() if alone else call.idempotency_key(str(index))
            )
            for index, draft in enumerate(drafts)
        ]
    with charge(call, drafts) as charged:
        await charged.settle(drafts, partial(on_record, call))
        done = await _append(call, drafts)
        charged.stored(_said_now(done))
    if alone:
        answer = Answer(b'{"message":%b,"rev":%d}' % (done.bodies()[0], done.rev))
    else:
        answer = Answer(b'{"messages":[%b],"rev":%d}' % (b",".join(done.bodies()), done.rev))
    answer.status = 201 if done.created else 200
    return answer


async def _append(call: Call, drafts: Sequence[Draft]) -> Done:
    """Append as the caller; a service that acts for a user also writes what only a service may."""
    speaker = access.speaker(call.principal)
    database, limits = call.database, call.service.limits
    try:
        return await append(database, call.conversation_id, drafts, speaker, limits=limits)
    except Forbidden:
        if not access.is_service_for_user(call.principal):
            raise
        # A member says nothing but their own words; the answer to them comes from the service.
        role = await role_in(database, call.conversation_id, access.myself(call.principal))
        if role not in ("owner", "member"):
            raise
    speaker = replace(speaker, actor=None)
    return await append(database, call.conversation_id, drafts, speaker, limits=limits)


async def on_record(call: Call, ids: Sequence[UUID]) -> int:
    """Count how many of these messages the conversation has, as the caller sees it."""
    return await known(call.database, call.conversation_id, access.reader(call.principal), ids)


def _said_now(done: Done) -> int:
    return sum(
        row.role == "user" and not one.replayed
        for row, one in zip(done.rows, done.stored, strict=True)
    )


class PageQuery(msgspec.Struct, frozen=True):
    """Which page: the latest, or at most one of before, after and around (a seq)."""

    limit: Positive = 15
    before: NotNegative | None = None
    after: NotNegative | None = None
    around: NotNegative | None = None
    include: str | None = None


async def list_messages(call: Call) -> Answer:
    """Read a page of the active path, oldest first.

    With ``include=superseded`` the page is of the whole record, also of what was rewound; with
    ``include=read_by`` each message says who has read it; both are separated by a comma. Contents
    above 16 KiB are cut and marked; the single message is whole.
    """
    asked: PageQuery = call.query
    include = frozenset(asked.include.split(",")) if asked.include else frozenset()
    if include - INCLUDES:
        raise Invalid.at("/include", "choice", f"Of {', '.join(sorted(INCLUDES))}.")
    found = await page(
        call.database,
        call.conversation_id,
        access.reader(call.principal),
        Where(
            asked.limit,
            asked.before,
            asked.after,
            asked.around,
            superseded="superseded" in include,
        ),
        limits=call.service.limits,
    )
    if "read_by" in include:
        found = await with_readers(call.database, call.conversation_id, found)
    body = found.body()
    tag = etag(body, found.epoch, found.rev)
    return tagged(body, tag, call.headers.get(b"if-none-match"))


async def get_message(call: Call) -> Answer:
    """Read one message, whole, on the active path or not."""
    database = call.database
    body, rev = await one(
        database, call.conversation_id, access.reader(call.principal), call.params["seq"]
    )
    return tagged(body, etag(body, database.epoch, rev), call.headers.get(b"if-none-match"))


class ContextQuery(msgspec.Struct, frozen=True):
    """How much a model is sent; ``max_messages`` is the conversation's history_limit by default."""

    max_messages: NotNegative | None = None
    max_tokens: NotNegative | None = None
    include_tools: bool = True


async def get_context(call: Call) -> Answer:
    """Choose what a language model is sent next, in the OpenAI chat format.

    ``max_messages`` counts user and assistant messages with content; tool traffic comes with its
    call, whole or not at all. ``omitted`` says what was left out and why. The record is unchanged.
    """
    asked: ContextQuery = call.query
    found = await context(
        call.database,
        call.conversation_id,
        access.reader(call.principal),
        max_messages=asked.max_messages,
        max_tokens=asked.max_tokens,
        include_tools=asked.include_tools,
    )
    return encoded(found)


_MESSAGES = "/v1/conversations/{conversation_id}/messages"
_CONDITIONAL: dict[str, Any] = {"If-None-Match": "An ETag; 304 when nothing changed since."}

ROUTES = (
    Route(
        method="POST",
        path=_MESSAGES,
        handler=append_messages,
        request=(Draft, Batch),
        decode=read_drafts,
        response=(Appended, AppendedBatch),
        status=201,
        also={200: "Every message was there before."},
        errors=(
            Forbidden,
            NotFound,
            Gone,
            IdReused,
            Archived,
            PayloadTooLarge,
            UnsupportedMediaType,
        ),
        limited=True,
        writes=True,
        request_headers={
            "Idempotency-Key": "Any text; makes the ids of messages that bring none. Sent again by "
            "the same user it is the same messages."
        },
    ),
    Route(
        method="GET",
        path=_MESSAGES,
        handler=list_messages,
        query=PageQuery,
        response=Page,
        errors=(NotFound, Gone),
        tagged=True,
        request_headers=_CONDITIONAL,
        alert_after=SLOW_PAGE,
    ),
    Route(
        method="GET",
        path=_MESSAGES + "/{seq}",
        handler=get_message,
        response=Message,
        errors=(NotFound, Gone),
        tagged=True,
        request_headers=_CONDITIONAL,
    ),
    Route(
        method="GET",
        path="/v1/conversations/{conversation_id}/context",
        handler=get_context,
        query=ContextQuery,
        response=Context,
        errors=(NotFound, Gone),
    ),
)
