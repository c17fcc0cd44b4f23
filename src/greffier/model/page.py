"""Pages: a stretch of a conversation or of a list, with what a client needs to go on from it."""

from __future__ import annotations

from typing import Any

import msgspec

from greffier.model.conversation import Conversation
from greffier.model.message import Message


class Author(msgspec.Struct, frozen=True):
    """Who wrote in this page: today's name, and the role here (null for who has left)."""

    name: str | None
    role: str | None


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """Messages of the active path, oldest first.

    ``total`` is the conversation's message_count; ``rev`` and ``epoch`` say which state this is,
    so that an older answer can be told from a newer one.
    """

    data: list[Message]
    has_before: bool
    has_after: bool
    total: int
    authors: dict[str, Author]
    rev: int
    epoch: str


class ConversationList(msgspec.Struct, frozen=True, kw_only=True):
    """Some of a user's conversations, last activity first; ``next_cursor`` is opaque."""

    data: list[Conversation]
    next_cursor: str | None
    list_rev: int


class Omitted(msgspec.Struct, frozen=True, kw_only=True):
    """What a context left out, and why: ``max_messages``, ``max_tokens``, ``tools`` or null.

    ``tools``: their traffic was not asked for, or a result answers no call and no model takes it.
    """

    messages: int
    tools: int
    reason: str | None


class Context(msgspec.Struct, frozen=True, kw_only=True):
    """Messages in the OpenAI chat format, ready to send to a model; ``tokens`` is an estimate."""

    messages: list[dict[str, Any]]
    omitted: Omitted
    tokens: int
