"""The account of an import: what became of every source row, and why."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Place:
    """Where a row stands in its source: a file, and a line or the number of an entry in it."""

    file: str
    line: int | None = None
    #: which entry of a list, from 1
    entry: int | None = None
    #: which message of the conversation, from 1
    message: int | None = None

    def __str__(self) -> str:
        text = self.file
        if self.line is not None:
            text += f":{self.line}"
        if self.entry is not None:
            text += f" entry {self.entry}"
        if self.message is not None:
            text += f" message {self.message}"
        return text


@dataclass(frozen=True, slots=True)
class Fault:
    """A row that was not taken: where, a stable reason, in words, and the row itself."""

    place: Place
    reason: str
    detail: str
    #: A JSON value, the text of a line that holds none, or None where it was too long to keep.
    raw: Any = None

    def line(self) -> str:
        """Write it as one line of a quarantine file (JSONL)."""
        place = self.place
        raw = self.raw if isinstance(self.raw, str) or self.raw is None else _raw(self.raw)
        return json.dumps(
            {
                "file": place.file,
                "line": place.line,
                "entry": place.entry,
                "message": place.message,
                "reason": self.reason,
                "detail": self.detail,
                "raw": raw,
            }
        )


def _raw(value: Any) -> str | None:
    try:
        return json.dumps(value)
    except RecursionError:
        return None


@dataclass(slots=True)
class Account:
    """Counts of source rows; a row is a message, or an entry that holds no conversation.

    Attributes:
        read: Rows of the source, counted as they were read.
        mapped: Rows that became messages now.
        already: Rows that were on record before.
        quarantined: Rows that were not taken; ``reasons`` says why.
        deleted: Rows left out by a named policy; ``deletions`` says which.
        conversations: Conversations made now.
        messages: Messages stored now.
        altered: What was changed on the way in, by reason; a message may count under several.
    """

    read: int = 0
    mapped: int = 0
    already: int = 0
    quarantined: int = 0
    deleted: int = 0
    conversations: int = 0
    messages: int = 0
    altered: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    deletions: Counter[str] = field(default_factory=Counter)

    @property
    def balanced(self) -> bool:
        """Whether every row that was read is accounted for."""
        return self.read == self.mapped + self.already + self.quarantined + self.deleted

    def quarantine(self, reason: str) -> None:
        """Count a row that was not taken."""
        self.quarantined += 1
        self.reasons[reason] += 1

    def delete(self, policy: str) -> None:
        """Count a row that a policy leaves out."""
        self.deleted += 1
        self.deletions[policy] += 1

    def as_json(self) -> dict[str, Any]:
        """The account as ``greffier import --json`` prints it."""
        return {
            "read": self.read,
            "mapped": self.mapped,
            "already": self.already,
            "quarantined": self.quarantined,
            "deleted": self.deleted,
            "conversations": self.conversations,
            "messages": self.messages,
            "altered": dict(sorted(self.altered.items())),
            "reasons": dict(sorted(self.reasons.items())),
            "deletions": dict(sorted(self.deletions.items())),
        }
