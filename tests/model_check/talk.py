"""A conversation said the plainest way: lists and loops in memory.

Nothing here is fast, and nothing here knows about ranges, counters kept beside what they count, or
how a position is found.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import msgspec

from greffier.errors import NotFound
from greffier.model.message import Message

_SOME_TIME = "2025-01-01T00:00:00Z"


@dataclass
class Line:
    """One message on record."""

    seq: int
    id: UUID | None  # None: made by the server, and not seen yet
    request: Any  # what made it; None once it was erased
    parent: int | None
    role: str
    author: str | None
    author_name: str | None
    written_by: str
    content: str | None
    parts: Any
    tool_calls: Any
    tool_call_id: str | None
    name: str | None
    reasoning: str | None
    metadata: dict[str, Any]
    rev: int
    versions: list[dict[str, Any]] = field(default_factory=list)
    edited: bool = False
    deleted: bool = False
    erased: bool = False

    def shown(self) -> dict[str, Any]:
        """The message as everybody sees it, with times as whether they are there."""
        hidden = self.deleted
        return {
            "seq": self.seq,
            "id": str(self.id),
            "parent_seq": self.parent,
            "role": self.role,
            "author_id": self.author,
            "author_name": self.author_name,
            "written_by": self.written_by,
            "content": None if hidden else self.content,
            "parts": None if hidden else self.parts,
            "tool_calls": None if hidden else self.tool_calls,
            "tool_call_id": self.tool_call_id,
            "name": self.name,
            "reasoning": None if hidden else self.reasoning,
            "status": "complete",
            "run_id": None,
            "edited_at": self.edited,
            "deleted_at": self.deleted,
            "rev": self.rev,
            "metadata": {} if hidden else self.metadata,
        }

    def names(self, user: str) -> bool:
        """Whether the message names somebody: as its author, its writer, or in an event."""
        return user in (self.author, self.written_by) or self.tells_of(user)

    def tells_of(self, user: str) -> bool:
        """Whether the message says that somebody joined or left."""
        return "greffier_event" in self.metadata and self.metadata["user_id"] == user

    def forget(self, user: str, nobody: str) -> None:
        """Leave somebody's words to nobody."""
        if self.tells_of(user):
            event = self.metadata["greffier_event"]
            self.content = f"Somebody {event}"
            self.metadata = {"greffier_event": event, "user_id": nobody}
            self.versions = []
        if self.author == user:
            self.author = nobody
            self.author_name = self.name = None
        if self.written_by == user:
            self.written_by = nobody

    def message(self) -> Message:
        """The same as the value that a context is built from."""
        shown = self.shown() | {
            "conversation_id": UUID(int=0),
            "id": UUID(int=self.seq),
            "created_at": _SOME_TIME,
            "edited_at": None,
            "deleted_at": _SOME_TIME if self.deleted else None,
        }
        return msgspec.convert(shown, Message)


@dataclass
class Person:
    """Somebody who is or was in a conversation."""

    role: str
    came: int
    present: bool = True
    mark: int = 0
    subject: str | None = None  # the owner's


@dataclass
class Branch:
    """A path that was left."""

    path: list[int]
    left_at: int


@dataclass
class Invitation:
    """A way in."""

    role: str
    maker: str
    max_uses: int | None
    uses: int = 0
    revoked: bool = False


@dataclass
class Talk:
    """One conversation."""

    id: UUID
    request: Any
    kind: str
    owner: str
    subject: str | None
    agent: UUID | None
    people: dict[str, Person]
    active: int
    title: str = ""
    history_limit: int = 30
    metadata: dict[str, Any] = field(default_factory=dict)
    archived: bool = False
    rev: int = 1
    lines: list[Line] = field(default_factory=list)
    path: list[int] = field(default_factory=list)
    branches: list[Branch] = field(default_factory=list)
    invitations: list[Invitation] = field(default_factory=list)
    thumbs: dict[tuple[int, str], int] = field(default_factory=dict)

    def line(self, seq: int) -> Line:
        """The message under this number.

        Raises:
            NotFound: There is none.
        """
        for line in self.lines:
            if line.seq == seq:
                return line
        raise NotFound

    def on_path(self) -> list[Line]:
        """The active path."""
        return [line for line in self.lines if line.seq in self.path]

    def known(self, message_id: UUID | None) -> Line | None:
        """The message under this id."""
        for line in self.lines:
            if message_id is not None and line.id == message_id:
                return line
        return None

    def unread(self, user: str) -> int:
        """How many messages of others wait for somebody."""
        count = 0
        for line in self.on_path():
            mine = line.author == user
            after = line.seq > self.people[user].mark
            if after and not mine and not line.deleted and line.role != "system":
                count += 1
        return min(count, 1000)

    def preview(self, path: Sequence[int]) -> Line | None:
        """The last message on a path that is not deleted."""
        found = None
        for line in self.lines:
            if line.seq in path and not line.deleted:
                found = line
        return found

    def shown(self, reader: str | None, epoch: str) -> dict[str, Any]:
        """The conversation as a reader sees it, with times as whether they are there."""
        last = self.preview(self.path)
        me = self.people.get(reader or "")
        return {
            "id": str(self.id),
            "kind": self.kind,
            "title": self.title,
            "subject": self.subject,
            "agent_id": None if self.agent is None else str(self.agent),
            "owner_id": self.owner,
            "history_limit": self.history_limit,
            "metadata": self.metadata,
            "archived_at": self.archived,
            "first_seq": 1,
            "last_seq": len(self.lines),
            "message_count": len([line for line in self.on_path() if not line.deleted]),
            "rev": self.rev,
            "epoch": epoch,
            "last_message": last
            and {
                "seq": last.seq,
                "role": last.role,
                "author_id": last.author,
                "preview": None if last.content is None else last.content[:200],
            },
            "active_run_id": None,
            "me": None
            if me is None or not me.present
            else {"role": me.role, "last_read_seq": me.mark, "unread": self.unread(reader or "")},
        }

    def participants(self) -> list[dict[str, Any]]:
        """Who is in it, in the order they came."""
        present = [(p.came, user, p) for user, p in self.people.items() if p.present]
        return [
            {"user_id": user, "role": person.role, "last_read_seq": person.mark}
            for _, user, person in sorted(present, key=lambda found: found[:2])
        ]

    def readers(self, seq: int) -> set[str]:
        """Who has read a message."""
        author = self.line(seq).author
        return {
            user
            for user, p in self.people.items()
            if p.present and p.mark >= seq and user != author
        }

    def left(self) -> list[dict[str, Any]]:
        """The branches, the last left first."""
        shown = []
        for branch in reversed(self.branches):
            last = self.preview(branch.path)
            shown.append(
                {
                    "path": stretches(branch.path),
                    "left_at_rev": branch.left_at,
                    "last_seq": branch.path[-1],
                    "preview": None if last is None or last.content is None else last.content[:200],
                }
            )
        return shown


def stretches(seqs: Sequence[int]) -> list[tuple[int, int]]:
    """Numbers as stretches: 1 2 3 7 8 is [(1, 3), (7, 8)]."""
    found: list[tuple[int, int]] = []
    for seq in seqs:
        if found and found[-1][1] == seq - 1:
            found[-1] = (found[-1][0], seq)
        else:
            found.append((seq, seq))
    return found


def window(
    seqs: Sequence[int], limit: int, before: int | None, after: int | None, around: int | None
) -> list[int]:
    """Which numbers a page has, nearest to its anchor first."""
    if before is not None:
        return [seq for seq in reversed(seqs) if seq < before][:limit]
    if after is not None:
        return [seq for seq in seqs if seq > after][:limit]
    if around is not None:
        half = (limit + 1) // 2
        chosen = [seq for seq in reversed(seqs) if seq <= around][:half]
        chosen += [seq for seq in seqs if seq > around][: limit - half]
        return sorted(chosen, key=lambda seq: (abs(seq - around), seq))
    return list(reversed(seqs))[:limit]
