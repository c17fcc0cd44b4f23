"""Subjects: one active conversation per person and subject, made by the first message."""

from __future__ import annotations

from functools import partial
from uuid import UUID

import msgspec

from greffier import access
from greffier.change.subject import say
from greffier.errors import (
    AgentFixed,
    Forbidden,
    IdReused,
    PayloadTooLarge,
    UnsupportedMediaType,
)
from greffier.model.conversation import Conversation
from greffier.model.message import Draft, Message
from greffier.read import conversations
from greffier.read.pages import known_on_subject
from greffier.server.allowance import charge
from greffier.server.answers import Answer
from greffier.server.call import Call
from greffier.server.table import Route


class Words(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is said on a subject; ``agent_id`` chooses who answers when the conversation is new."""

    content: str
    id: UUID | None = None
    agent_id: UUID | None = None


class SaidOn(msgspec.Struct, frozen=True):
    """The message, its conversation, and whether that was made for it."""

    conversation: Conversation
    message: Message
    created: bool


async def say_on_subject(call: Call) -> Answer:
    """Append words to the caller's active conversation on a subject, made if there is none.

    An id already said on this subject, also in a conversation archived since, is that message.
    """
    asked: Words = call.body
    database = call.database
    owner = access.myself(call.principal)
    speaker = access.speaker(call.principal)
    subject = call.params["subject"]
    draft = Draft(id=asked.id or call.idempotency_key(), content=asked.content)
    with charge(call, [draft]) as charged:
        await charged.settle([draft], partial(known_on_subject, database, owner, subject))
        said = await say(
            database,
            subject,
            draft,
            owner,
            speaker,
            agent_id=asked.agent_id,
            limits=call.service.limits,
        )
        charged.stored(int(said.appended.created))
    body, _ = await conversations.get(database, said.appended.conversation_id, owner)
    answer = Answer(
        b'{"conversation":%b,"message":%b,"created":%b}'
        % (body, said.appended.bodies()[0], b"true" if said.created else b"false")
    )
    answer.status = 201 if said.appended.created else 200
    return answer


ROUTES = (
    Route(
        method="POST",
        path="/v1/subjects/{subject}/messages",
        handler=say_on_subject,
        request=Words,
        response=SaidOn,
        status=201,
        also={200: "It was said before."},
        limited=True,
        errors=(AgentFixed, Forbidden, IdReused, PayloadTooLarge, UnsupportedMediaType),
        writes=True,
        request_headers={
            "Idempotency-Key": "Any text; makes the message's id when the body has none."
        },
    ),
)
