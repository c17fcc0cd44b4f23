"""A source: where messages come from, and how one that came in is read."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from typing import Any, Final, Literal, NamedTuple, TypeAlias
from urllib.parse import quote
from uuid import UUID

import msgspec

from greffier.errors import Invalid, Problem
from greffier.model import text
from greffier.model.draft import Checked, Speaker
from greffier.model.draft import check as check_draft
from greffier.model.limits import DEFAULT, Limits
from greffier.model.message import Draft

Adapter: TypeAlias = Literal["telegram"]
Status: TypeAlias = Literal["sent", "delivered", "read", "failed"]

#: Seconds within which messages are answered together, unless a source says otherwise.
DEBOUNCE: Final = 1.0
LONGEST_DEBOUNCE: Final = 3600.0
#: Bytes of what others call their messages and contacts: keys of an index.
LONGEST_ID: Final = 512
#: What Telegram takes for the secret of a webhook.
_TELEGRAM_SECRET = re.compile(r"[A-Za-z0-9_-]{16,256}")


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """A source; its secret is shown when it is made and when it is rotated, and never here."""

    id: UUID
    name: str
    owner_id: str
    agent_id: UUID | None
    endpoint_id: UUID | None
    adapter: Adapter | None
    debounce: float
    rotated_at: datetime | None
    version: int
    created_by: str
    created_at: datetime


class MadeSource(Source, frozen=True, kw_only=True):
    """A source with the secret that was made for it, which is shown this once."""

    secret: str | None = None


class SourceList(msgspec.Struct, frozen=True, kw_only=True):
    """Some of the sources; ``next_cursor`` is null when nothing follows."""

    data: list[Source]
    next_cursor: str | None


class NewSource(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A source as an admin asks for it; ``id`` is its idempotency key.

    ``owner_id`` is whose conversations its messages become, and who pays for the answers of
    ``agent_id``; these leave by ``endpoint_id``. Messages that come within ``debounce`` seconds of
    each other are answered together. With ``adapter`` what comes in is read as Telegram sends it.
    """

    id: UUID | None = None
    name: str
    owner_id: str
    agent_id: UUID | None = None
    endpoint_id: UUID | None = None
    adapter: Adapter | None = None
    debounce: float = DEBOUNCE


class SourcePatch(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What may change on a source; conversations it has brought keep their agent and endpoint."""

    name: str | msgspec.UnsetType = msgspec.UNSET
    owner_id: str | msgspec.UnsetType = msgspec.UNSET
    agent_id: UUID | msgspec.UnsetType | None = msgspec.UNSET
    endpoint_id: UUID | msgspec.UnsetType | None = msgspec.UNSET
    debounce: float | msgspec.UnsetType = msgspec.UNSET


class Incoming(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A message from outside: who wrote it, there, and what it is called there."""

    external_id: str
    contact: str
    content: str
    contact_name: str | None = None
    subject: str | None = None
    said_at: datetime | None = None


class Received(msgspec.Struct, frozen=True, kw_only=True):
    """Where a message that came in is on record, and whether an agent is to answer it."""

    conversation_id: UUID
    seq: int
    replayed: bool
    answering: bool


class StatusReport(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What became, out there, of a message that left."""

    external_id: str
    status: Status


class Receipt(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of it now: a report that is older than another changes nothing."""

    external_id: str
    status: Status


class CheckedSource(NamedTuple):
    """A source that may be stored: its columns (name … debounce), and the request's hash."""

    columns: tuple[Any, ...]
    request_hash: bytes


def check(new: NewSource, *, limits: Limits = DEFAULT) -> CheckedSource:
    """Check a source against every rule, and hash what was asked for.

    Raises:
        Invalid: With every fault that was found.
    """
    problems = [
        *_text_faults("/name", new.name, limits.name),
        *_text_faults("/owner_id", new.owner_id, limits.name),
    ]
    if new.owner_id == "service" or new.owner_id.startswith("service:"):
        problems.append(Problem("/owner_id", "reserved", "No user is called so."))
    if not 0 <= new.debounce <= LONGEST_DEBOUNCE:
        problems.append(Problem("/debounce", "range", f"From 0 to {LONGEST_DEBOUNCE:g} seconds."))
    if problems:
        raise Invalid(problems=tuple(problems))
    columns = (
        new.name, new.owner_id, new.agent_id, new.endpoint_id, timedelta(seconds=new.debounce)
    )  # fmt: skip
    asked = msgspec.json.encode((*columns[:4], float(new.debounce), new.adapter))
    return CheckedSource(columns, blake2b(asked, digest_size=16).digest())


def merged(source: Source, change: SourcePatch) -> NewSource:
    """Give a source as it is wanted after a change."""
    given = {
        name: value
        for name, value in msgspec.structs.asdict(change).items()
        if value is not msgspec.UNSET
    }
    wanted = {
        name: given.get(name, getattr(source, name)) for name in SourcePatch.__struct_fields__
    }
    return NewSource(id=source.id, adapter=source.adapter, **wanted)


def telegram_secret_fault(secret: str) -> Problem | None:
    """Say what is wrong with the secret of a source that Telegram calls, if anything."""
    if _TELEGRAM_SECRET.fullmatch(secret):
        return None
    return Problem("/secret", "secret", "16 to 256 letters, digits, _ and -.")


class CheckedIncoming(NamedTuple):
    """A message from outside that may be stored."""

    contact: str
    contact_in_url: str
    title: str
    name: str | None
    draft: Checked


def check_incoming(
    source_id: UUID, incoming: Incoming, *, limits: Limits = DEFAULT
) -> CheckedIncoming:
    """Check what came in against every rule.

    Raises:
        Invalid: With every fault that was found.
        PayloadTooLarge: The content is larger than a message may be.
    """
    problems = [
        *_text_faults("/external_id", incoming.external_id, LONGEST_ID),
        *_text_faults("/contact", incoming.contact, LONGEST_ID),
        *_text_faults("/contact_name", incoming.contact_name, limits.name),
        *_text_faults("/subject", incoming.subject, limits.title),
    ]
    if not incoming.content.strip():
        problems.append(Problem("/content", "empty", "It says something."))
    metadata = {"source_id": str(source_id), "external_id": incoming.external_id}
    if incoming.subject:
        metadata["subject"] = incoming.subject
    speaker = Speaker(
        None, f"contact:{incoming.contact}", incoming.contact_name, f"source:{source_id}"
    )
    draft = None
    try:
        draft = check_draft(
            Draft(content=incoming.content, metadata=metadata, said_at=incoming.said_at),
            speaker,
            limits=limits,
        )
    except Invalid as error:
        seen = {problem.pointer for problem in problems}
        # The metadata are ours: what is wrong in it was said above.
        problems += [
            one
            for one in error.problems
            if one.pointer not in seen and not one.pointer.startswith("/metadata")
        ]
    if problems or draft is None:
        raise Invalid(problems=tuple(problems))
    title = incoming.subject or incoming.contact_name or incoming.contact
    return CheckedIncoming(
        incoming.contact, quote(incoming.contact, safe=""), title, incoming.contact_name, draft
    )


def _text_faults(pointer: str, value: str | None, longest: int) -> list[Problem]:
    if value is None:
        return []
    if fault := text.faults(value, pointer):
        return [fault]
    if not value.strip() or len(value.encode()) > longest:
        return [Problem(pointer, "length", f"From 1 to {longest} bytes, not all blank.")]
    return []


# -- Telegram --------------------------------------------------------------------------------------


class _Chat(msgspec.Struct):
    id: int
    title: str | None = None
    first_name: str | None = None
    last_name: str | None = None


class _Message(msgspec.Struct):
    message_id: int
    chat: _Chat
    date: int
    text: str | None = None
    caption: str | None = None


class _Update(msgspec.Struct):
    """What Telegram sends, as far as it matters here; every other field is passed over."""

    update_id: int
    message: _Message | None = None


_update = msgspec.json.Decoder(_Update).decode


def read_telegram(body: bytes) -> Incoming | None:
    """Read an update: the words of a new message, or None for whatever else it tells.

    Edited messages are passed over: what was answered was what was first said.

    Raises:
        Invalid: It is no update.
    """
    try:
        update = _update(body)
        message = update.message
        words = message and (message.text or message.caption)
        if message is None or not words or not words.strip():
            return None
        chat = message.chat
        names = (chat.title, chat.first_name, chat.last_name)
        return Incoming(
            external_id=f"{chat.id}/{message.message_id}",
            contact=str(chat.id),
            contact_name=" ".join(one for one in names if one) or None,
            content=words,
            said_at=datetime.fromtimestamp(message.date, UTC),
        )
    except (ValueError, OverflowError, OSError):
        raise Invalid.at("", "telegram", "This is no update of Telegram's.") from None
