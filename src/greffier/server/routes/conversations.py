"""Conversations: made, listed, read, changed, erased, counted and taken along."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from greffier import access
from greffier.change import conversation as verbs
from greffier.errors import (
    AgentFixed,
    Forbidden,
    Gone,
    IdReused,
    NotFound,
    PayloadTooLarge,
    Stale,
    SubjectTaken,
    UnsupportedMediaType,
)
from greffier.model.conversation import Conversation, ConversationPatch, NewConversation
from greffier.model.page import ConversationList
from greffier.model.wire import rfc3339
from greffier.read import conversations as reads
from greffier.read.export import FORMATS, export
from greffier.read.stats import Stats, stats
from greffier.server.answers import (
    Answer,
    Header,
    Stream,
    encoded,
    etag,
    matched_rev,
    no_content,
    tagged,
)
from greffier.server.call import Call
from greffier.server.language import preferred
from greffier.server.routes.files import file
from greffier.server.table import Route

_encode = msgspec.json.Encoder().encode


async def create_conversation(call: Call) -> Answer:
    """Create a conversation, whose owner is the caller.

    The id is the idempotency key: the same request under the same id again is answered with the
    conversation and the status 200.
    """
    new: NewConversation = call.body
    owner = access.myself(call.principal)
    if new.id is None and (made := call.idempotency_key()) is not None:
        new = msgspec.structs.replace(new, id=made)
    found, created = await verbs.create(call.database, new, owner, limits=call.service.limits)
    call.params["conversation_id"] = found
    answer = await _show(call, (b"location", f"/v1/conversations/{found}".encode()))
    answer.status = 201 if created else 200
    return answer


class ListQuery(msgspec.Struct, frozen=True):
    """Which of the caller's conversations; go on with the ``next_cursor`` of the answer."""

    limit: Annotated[int, Meta(extra_json_schema={"minimum": 1, "maximum": 100})] = 20
    cursor: str | None = None
    kind: Literal["assistant", "room"] | None = None
    subject: str | None = None
    archived: bool = False


async def list_conversations(call: Call) -> Answer:
    """List the caller's conversations, last activity first."""
    asked: ListQuery = call.query
    database = call.database
    bodies, following, rev = await reads.listing(
        database,
        access.myself(call.principal),
        reads.Filter(asked.kind, asked.subject, asked.archived),
        limit=asked.limit,
        cursor=asked.cursor,
    )
    body = b'{"data":[%b],"next_cursor":%b,"list_rev":%d}' % (
        b",".join(bodies),
        _encode(following),
        rev,
    )
    return tagged(body, etag(body, database.epoch, None), call.headers.get(b"if-none-match"))


async def get_conversation(call: Call) -> Answer:
    """Read one conversation as the caller sees it."""
    return await _show(call, heed=True)


async def update_conversation(call: Call) -> Answer:
    """Change title, metadata, history limit or archiving, together and as one rev.

    What is left out stays as it is; metadata is replaced whole. An archived conversation is read
    as before and takes no new messages.
    """
    change: ConversationPatch = call.body
    database = call.database
    await verbs.patch(
        database,
        call.conversation_id,
        change,
        access.reader(call.principal),
        if_rev=matched_rev(call.headers.get(b"if-match"), database.epoch),
        limits=call.service.limits,
    )
    return await _show(call)


async def delete_conversation(call: Call) -> Answer:
    """Erase a conversation with everything in it, for ever; only its id is remembered, as gone."""
    await verbs.erase(call.database, call.conversation_id, access.reader(call.principal))
    return no_content()


async def get_stats(call: Call) -> Answer:
    """Count what was said in a conversation, and how fast it was answered."""
    found = await stats(call.database, call.conversation_id, access.reader(call.principal))
    document = msgspec.structs.asdict(found)
    for name in ("first_at", "last_at"):
        # msgspec leaves out the microseconds of a full second; our times are all of one length.
        document[name] = document[name] and rfc3339(document[name])
    return encoded(document)


class ExportQuery(msgspec.Struct, frozen=True):
    """In which form: for programs (jsonl, json) or for people (md, csv, html)."""

    format: Literal["jsonl", "json", "md", "csv", "html"] = "jsonl"


async def export_conversation(call: Call) -> Stream:
    """Take a conversation along: its active path with whole contents, as of one moment.

    ``jsonl`` has the conversation on its first line and one message on each further line; ``json``
    is ``{"conversation": …, "messages": […]}``. The words around the messages in the forms for
    people are French or English, after Accept-Language. An answer whose connection breaks is not
    whole.
    """
    asked: ExportQuery = call.query
    pieces = export(
        call.database,
        call.conversation_id,
        access.reader(call.principal),
        asked.format,
        language=preferred(call.headers.get(b"accept-language")),
    )
    name = f"conversation-{call.conversation_id}.{asked.format}"
    return await file(call, pieces, FORMATS[asked.format], name)


async def _show(call: Call, *more: Header, heed: bool = False) -> Answer:
    """Answer with the conversation and its ETag; ``heed`` If-None-Match."""
    database = call.database
    actor = access.reader(call.principal)
    # Who sees everything still has a place of their own where they take part: their "me".
    seen_as = [call.user_id, None] if actor is None and call.user_id else [actor]
    for user in seen_as:
        try:
            body, rev = await reads.get(database, call.conversation_id, user)
            break
        except NotFound:
            if user is seen_as[-1]:
                raise
    tag = etag(body, database.epoch, rev)
    known = call.headers.get(b"if-none-match") if heed else None
    return tagged(body, tag, known, more=more)


_ALL = "/v1/conversations"
_ONE = "/v1/conversations/{conversation_id}"
_CONDITIONAL = {"If-None-Match": "An ETag; 304 when nothing changed since."}

ROUTES = (
    Route(
        method="POST",
        path=_ALL,
        handler=create_conversation,
        request=NewConversation,
        response=Conversation,
        status=201,
        also={200: "It was there, made by the same request."},
        errors=(Forbidden, Gone, IdReused, SubjectTaken, PayloadTooLarge, UnsupportedMediaType),
        writes=True,
        tagged=True,
        request_headers={
            "Idempotency-Key": "Any text; makes the id when the body has none. Sent again by the "
            "same user it is the same conversation."
        },
    ),
    Route(
        method="GET",
        path=_ALL,
        handler=list_conversations,
        query=ListQuery,
        response=ConversationList,
        errors=(Forbidden,),
        tagged=True,
        request_headers=_CONDITIONAL,
    ),
    Route(
        method="GET",
        path=_ONE,
        handler=get_conversation,
        response=Conversation,
        errors=(NotFound, Gone),
        tagged=True,
        request_headers=_CONDITIONAL,
    ),
    Route(
        method="PATCH",
        path=_ONE,
        handler=update_conversation,
        request=ConversationPatch,
        response=Conversation,
        errors=(
            Forbidden,
            NotFound,
            Gone,
            AgentFixed,
            SubjectTaken,
            Stale,
            PayloadTooLarge,
            UnsupportedMediaType,
        ),
        writes=True,
        tagged=True,
        request_headers={
            "If-Match": "The ETag the change was made for; 412 when the conversation has changed."
        },
    ),
    Route(
        method="DELETE",
        path=_ONE,
        handler=delete_conversation,
        status=204,
        errors=(Forbidden, NotFound, Gone),
        writes=True,
    ),
    Route(
        method="GET",
        path=_ONE + "/stats",
        handler=get_stats,
        response=Stats,
        errors=(NotFound, Gone),
    ),
    Route(
        method="GET",
        path=_ONE + "/export",
        handler=export_conversation,
        query=ExportQuery,
        media=tuple(FORMATS.values()),
        errors=(NotFound, Gone),
        request_headers={"Accept-Language": "French or English, for the forms for people."},
    ),
)
