"""The short forms of ``tests/cases/client``, made into the values that a client meets."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from greffier.client.wire import Change
from greffier.model.conversation import Conversation, LastMessage, Membership
from greffier.model.message import Draft, Message
from greffier.model.page import Page

START = datetime(2026, 1, 1, tzinfo=UTC)
TALK = uuid.uuid5(uuid.NAMESPACE_URL, "talk")


def long(name: str) -> UUID:
    """The id a short name stands for."""
    return uuid.uuid5(TALK, name)


def message(short: list[Any], at: UUID = TALK) -> Message:
    """``[seq, id, rev]`` or ``[seq, id, rev, content]``; the content is the name by default."""
    seq, name, rev, *more = short
    return Message(
        conversation_id=at,
        seq=seq,
        id=long(name),
        role="user",
        author_id="ada",
        written_by="ada",
        content=more[0] if more else name,
        created_at=START,
        rev=rev,
    )


def draft(name: str) -> Draft:
    """What somebody sends under this name."""
    return Draft(id=long(name), content=name)


def page(rev: int, data: list[Any], *, epoch: str = "e", has_before: bool = False) -> Page:
    """A page of such messages."""
    return Page(
        data=[message(one) for one in data],
        has_before=has_before,
        has_after=False,
        total=len(data),
        authors={},
        rev=rev,
        epoch=epoch,
    )


def change(
    since: int,
    rev: int,
    messages: list[Any],
    *,
    superseded: list[list[int]] | None = None,
    epoch: str = "e",
    reset: bool = False,
    told: Conversation | None = None,
) -> Change:
    """A change of such messages."""
    return Change(
        epoch=epoch,
        since=since,
        rev=rev,
        reset=reset,
        messages=[message(one) for one in messages],
        superseded=[(low, high) for low, high in superseded or []],
        conversation=told,
    )


def conversation(
    name: str,
    rev: int,
    minute: int = 0,
    *,
    epoch: str = "e",
    title: str = "",
    role: Any = None,
) -> Conversation:
    """A conversation that was last active in this minute."""
    at = START + timedelta(minutes=minute)
    return Conversation(
        id=long(name),
        kind="assistant",
        title=title,
        owner_id="ada",
        history_limit=30,
        metadata={},
        created_at=START,
        updated_at=at,
        first_seq=1,
        last_seq=0,
        message_count=0,
        rev=rev,
        epoch=epoch,
        me=Membership(role=role, last_read_seq=0, unread=0) if role else None,
    )


def last(minute: int) -> LastMessage:
    """A last message of this minute."""
    return LastMessage(seq=1, role="user", created_at=START + timedelta(minutes=minute))
