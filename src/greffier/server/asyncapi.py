"""The AsyncAPI 3.0 document: what sockets are sent, what they may send, and how they are answered.

It is made from the types below; a test checks every event that is really sent against them.
"""

from __future__ import annotations

import inspect
from typing import Any
from uuid import UUID

import msgspec

from greffier._version import __version__
from greffier.model.conversation import Conversation, LastMessage
from greffier.model.page import Page
from greffier.publish.signals import Presence
from greffier.read.people import Participant
from greffier.server.routes.changes import Changes

_REF = "#/components/schemas/"


class ChangeEvent(Changes, frozen=True, kw_only=True):
    """Something happened in a conversation: apply it when ``since <= mine < rev``.

    The conversation's ``me`` is null here: what is sent is the same for everybody.
    """

    conversation_id: UUID


class TypingEvent(msgspec.Struct, frozen=True):
    """Somebody types, or stopped; it holds for a few seconds."""

    conversation_id: UUID
    user_id: str
    on: bool


class PresenceEvent(msgspec.Struct, frozen=True):
    """These came or went; not told in rooms of more than 200."""

    conversation_id: UUID
    users: list[Presence]


class RevokedEvent(msgspec.Struct, frozen=True):
    """Nothing more of this conversation is for this socket: removed, or erased."""

    conversation_id: UUID


class ListEvent(msgspec.Struct, frozen=True):
    """What joined, changed its place in, or left the user's list."""

    since: int
    list_rev: int
    conversations: list[Conversation]
    removed: list[UUID]


class ActivityEvent(msgspec.Struct, frozen=True):
    """A conversation of the user's moved; one older than what is known is ignored."""

    conversation_id: UUID
    rev: int
    last_message: LastMessage | None
    unread: int


class Join(msgspec.Struct, frozen=True, omit_defaults=True):
    """Follow a conversation; with rev from there on, of the history that epoch names or ours."""

    conversation_id: UUID
    epoch: str | None = None
    rev: int | None = None


class Joined(msgspec.Struct, frozen=True, kw_only=True):
    """Where one stands now.

    ``recovered``: ``changes`` holds all that was missed; else ``snapshot`` is the latest page.
    ``participants`` is null when one has recovered and nobody came, left or read meanwhile.
    ``presence`` is null in rooms of more than 200: ask GET /v1/conversations/{id}/presence.
    """

    ok: bool
    epoch: str
    rev: int
    recovered: bool
    changes: Changes | msgspec.UnsetType = msgspec.UNSET
    snapshot: Page | msgspec.UnsetType = msgspec.UNSET
    participants: list[Participant] | None
    presence: list[Presence] | None


class Leave(msgspec.Struct, frozen=True):
    """Follow it no more."""

    conversation_id: UUID


class RunEvent(msgspec.Struct, frozen=True):
    """An event of a run that answers in a conversation one has joined; ``id`` counts 1, 2, 3 ….

    Who misses some, having come in the middle, sees it by the ids and reads them over HTTP
    (``GET /v1/runs/{run_id}/events?after=``).
    """

    conversation_id: UUID
    run_id: UUID
    event: str
    id: int
    data: dict[str, Any]


class Typing(msgspec.Struct, frozen=True):
    """Say that one types, at most every few seconds, or stopped."""

    conversation_id: UUID
    on: bool


class Read(msgspec.Struct, frozen=True):
    """Move one's mark forward."""

    conversation_id: UUID
    seq: int


class Done(msgspec.Struct, frozen=True):
    """It is done."""

    ok: bool


class ReadDone(msgspec.Struct, frozen=True):
    """How far one has read, and the conversation's rev."""

    ok: bool
    last_read_seq: int
    rev: int


class Refused(msgspec.Struct, frozen=True):
    """Any event may be answered so; the codes are those of HTTP."""

    ok: bool
    code: str


#: Server → client: event → the type of its argument.
SENT: dict[str, Any] = {
    "change": ChangeEvent,
    "typing": TypingEvent,
    "presence": PresenceEvent,
    "run": RunEvent,
    "positions": dict[UUID, int],
    "revoked": RevokedEvent,
    "list": ListEvent,
    "activity": ActivityEvent,
}

#: Client → server: event → the types of its argument and of its answer.
TAKEN: dict[str, tuple[Any, Any]] = {
    "join": (Join, Joined),
    "leave": (Leave, Done),
    "typing": (Typing, Done),
    "read": (Read, ReadDone),
}


def document() -> dict[str, Any]:
    """Write the document."""
    kinds = [*SENT.values(), *(kind for pair in TAKEN.values() for kind in pair), Refused]
    refs, schemas = msgspec.json.schema_components(kinds, ref_template=_REF + "{name}")
    ref_of = {id(kind): ref for kind, ref in zip(kinds, refs, strict=True)}
    for schema in schemas.values():
        schema["description"] = inspect.cleandoc(schema.get("description", "")).replace("``", "")
    channel = {"$ref": "#/channels/sockets"}
    messages: dict[str, Any] = {}
    operations: dict[str, Any] = {}
    for name, kind in SENT.items():
        messages[name] = {"name": name, "payload": ref_of[id(kind)]}
        operations[f"on_{name}"] = {
            "action": "send",
            "channel": channel,
            "messages": [{"$ref": f"#/channels/sockets/messages/{name}"}],
        }
    refused = ref_of[id(Refused)]
    for name, (asked, answered) in TAKEN.items():
        messages[f"{name}_request"] = {"name": name, "payload": ref_of[id(asked)]}
        messages[f"{name}_answer"] = {
            "name": f"{name} (acknowledgement)",
            "payload": {"oneOf": [ref_of[id(answered)], refused]},
        }
        operations[name] = {
            "action": "receive",
            "channel": channel,
            "messages": [{"$ref": f"#/channels/sockets/messages/{name}_request"}],
            "reply": {
                "channel": channel,
                "messages": [{"$ref": f"#/channels/sockets/messages/{name}_answer"}],
            },
        }
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Greffier, live",
            "version": __version__,
            "description": (
                "Socket.IO, namespace /, handshake auth: {token}; a key of scope service says for "
                "whom with {token, act_as: user id}. Messages are written over HTTP only; "
                "sockets announce. A client keeps (epoch, rev) of each conversation: it "
                "applies a change when since <= mine < rev, ignores one when rev <= mine, and else "
                "asks GET /v1/conversations/{id}/changes?since=mine. Every 15 seconds positions "
                "name what changed meanwhile."
            ),
        },
        "defaultContentType": "application/json",
        "channels": {"sockets": {"address": "/socket.io/", "messages": messages}},
        "operations": operations,
        "components": {"schemas": schemas},
    }
