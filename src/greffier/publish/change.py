"""A change on its way: what spans ``(since, rev]`` of one conversation, encoded once for all."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID


@dataclass(frozen=True, slots=True, eq=False)
class Change:
    """What happened to a conversation between two revs.

    Attributes:
        conversation_id: Which conversation.
        epoch: The history its revs belong to.
        since: Applies to whoever is at least here …
        rev: … and not yet here.
        body: The JSON that is sent, the same bytes to all (contract.md, ``change``).
        people: Who takes part from here on; None when nobody came, left or read.
        reset: It cannot be told as a change: start from a page.
        adds: It is known to take nothing back: what was said before it may still be told.
    """

    conversation_id: UUID
    epoch: str
    since: int
    rev: int
    body: bytes
    people: frozenset[str] | None = None
    reset: bool = False
    adds: bool = False

    @property
    def event_id(self) -> str:
        """What Last-Event-ID brings back."""
        return f"{self.epoch}.{self.rev}"
