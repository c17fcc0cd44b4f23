"""What followers are told, as frozen values; contract.md, Rooms and live."""

from __future__ import annotations

from uuid import UUID

import msgspec

from greffier.model.conversation import Conversation, LastMessage
from greffier.model.message import Message
from greffier.read.people import Participant


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """What happened to a conversation between two revs: applies when ``since ≤ mine < rev``.

    ``messages`` are as of ``rev``, each once; ``superseded`` are stretches of seqs that left the
    path; ``participants`` is null when nobody came, left or read.  ``reset``: it cannot be told as
    a change, start from a page.  ``next``: there is more, ask on from ``rev``.
    """

    epoch: str
    since: int
    rev: int
    conversation_id: UUID | None = None
    reset: bool = False
    next: bool = False
    messages: list[Message] = []
    superseded: list[tuple[int, int]] = []
    conversation: Conversation | None = None
    participants: list[Participant] | None = None


class ListChange(msgspec.Struct, frozen=True, kw_only=True):
    """What joined, left or changed its place in a user's list, between two list_revs."""

    since: int
    list_rev: int
    conversations: list[Conversation] = []
    removed: list[UUID] = []


class Activity(msgspec.Struct, frozen=True, kw_only=True):
    """That a conversation of the user's moved; one older than what is known says nothing."""

    conversation_id: UUID
    rev: int
    last_message: LastMessage | None = None
    unread: int = 0
