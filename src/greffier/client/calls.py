"""The library's names, over HTTP: the caller is whoever the token names.

A service's key acts on behalf of a user by ``actor`` (``owner``, ``user``), as in the library; a
user may name themself, so that the same program runs on both.
"""

from __future__ import annotations

import builtins
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from greffier.change.feedback import Feedback
from greffier.change.people import Invited
from greffier.client.http import Wire
from greffier.client.wire import Change
from greffier.library.given import converted
from greffier.model.conversation import (
    Conversation,
    ConversationPatch,
    Kind,
    MemberRole,
    NewConversation,
    NewParticipant,
)
from greffier.model.ids import as_id, uuid7
from greffier.model.message import Draft, Message, Role, ToolCall
from greffier.model.page import ConversationList, Page
from greffier.read.history import Branch, Version
from greffier.read.people import Invitation, Participant, Reader
from greffier.read.stats import Stats

UNSET = msgspec.UNSET


class Stored(msgspec.Struct, frozen=True):
    """A message as it stands on record, and the rev it is in."""

    message: Message
    rev: int


class StoredMany(msgspec.Struct, frozen=True):
    """Messages as they stand on record, and the rev they are in."""

    messages: list[Message]
    rev: int


class Rewound(msgspec.Struct, frozen=True):
    """How many undeleted messages left the path, and the rev since which they are gone."""

    removed: int
    rev: int


class _Data(msgspec.Struct, frozen=True):
    data: msgspec.Raw


class _Invited(msgspec.Struct, frozen=True):
    id: UUID
    token: str
    expires_at: datetime


class _Rev(msgspec.Struct, frozen=True):
    rev: int


class Mark(msgspec.Struct, frozen=True):
    """How far somebody has read, and the conversation's rev."""

    last_read_seq: int
    rev: int


def path(conversation_id: UUID | str, *more: object) -> str:
    """The path of a conversation, or of something in it."""
    return "/".join(("/v1/conversations", str(conversation_id), *map(str, more)))


class Conversations:
    """Create, read, change, archive and erase conversations."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    async def create(
        self,
        *,
        id: UUID | str | None = None,  # noqa: A002 - the contract's name
        kind: Kind = "assistant",
        title: str | None = None,
        subject: str | None = None,
        agent: UUID | str | None = None,
        history_limit: int = 30,
        metadata: Mapping[str, Any] | None = None,
        participants: Mapping[str, MemberRole] | None = None,
        owner: str | None = None,
    ) -> Conversation:
        """Create a conversation of the caller's; the same request under the same id finds it.

        Without an id one is made here, so that a request that is sent again makes nothing twice.
        """
        new = NewConversation(
            id=uuid7() if id is None else as_id(id),
            kind=kind,
            title=title,
            subject=subject,
            agent_id=None if agent is None else as_id(agent, "/agent_id"),
            history_limit=history_limit,
            metadata=None if metadata is None else dict(metadata),
            participants=None
            if participants is None
            else [NewParticipant(user, role) for user, role in participants.items()],
        )
        return await self.make(new, actor=owner)

    async def make(self, new: NewConversation, *, actor: str | None = None) -> Conversation:
        """Create a conversation as described."""
        body = await self._wire.write("POST", "/v1/conversations", new, actor=actor)
        return msgspec.json.decode(body, type=Conversation)

    async def get(self, conversation_id: UUID | str, *, actor: str | None = None) -> Conversation:
        """Read one conversation as the caller sees it."""
        found: Conversation = await self._wire.get(path(conversation_id), Conversation, actor=actor)
        return found

    async def list(
        self,
        *,
        limit: int = 20,
        cursor: str | None = None,
        kind: Kind | None = None,
        subject: str | None = None,
        archived: bool = False,
        user: str | None = None,
    ) -> ConversationList:
        """List the caller's conversations, last activity first; go on with ``next_cursor``."""
        found: ConversationList = await self._wire.get(
            "/v1/conversations",
            ConversationList,
            limit=limit,
            cursor=cursor,
            kind=kind,
            subject=subject,
            archived=archived,
            actor=user,
        )
        return found

    async def update(
        self,
        conversation_id: UUID | str,
        *,
        if_rev: int | None = None,
        title: str | msgspec.UnsetType | None = UNSET,
        metadata: Mapping[str, Any] | msgspec.UnsetType = UNSET,
        history_limit: int | msgspec.UnsetType = UNSET,
        archived: bool | msgspec.UnsetType = UNSET,
        actor: str | None = None,
    ) -> Conversation:
        """Change what may change, in one rev; what is not given stays.

        Raises:
            Stale: It is no longer at ``if_rev``.
        """
        change = ConversationPatch(
            title=title,
            metadata=metadata if isinstance(metadata, msgspec.UnsetType) else dict(metadata),
            history_limit=history_limit,
            archived=archived,
        )
        where = path(conversation_id)
        unchanged = await self._wire.unchanged(where, Conversation, "rev", if_rev, actor=actor)
        body = await self._wire.write("PATCH", where, change, headers=unchanged, actor=actor)
        return msgspec.json.decode(body, type=Conversation)

    async def archive(
        self, conversation_id: UUID | str, *, actor: str | None = None
    ) -> Conversation:
        """Take it out of the active list; it is read as before and takes no new messages."""
        return await self.update(conversation_id, archived=True, actor=actor)

    async def erase(self, conversation_id: UUID | str, *, actor: str | None = None) -> None:
        """Erase it with everything in it; only its id is remembered, as gone."""
        await self._wire.write("DELETE", path(conversation_id), actor=actor)

    async def branches(
        self, conversation_id: UUID | str, *, actor: str | None = None
    ) -> builtins.list[Branch]:
        """List the paths that were left by rewinding, the last left first."""
        found = await self._wire.get(path(conversation_id, "branches"), _Data, actor=actor)
        return msgspec.json.decode(found.data, type=list[Branch])

    async def activate(
        self, conversation_id: UUID | str, branch_id: UUID | str, *, actor: str | None = None
    ) -> int:
        """Make a branch the active path; the present one becomes a branch.  Returns the rev."""
        where = path(conversation_id, "branches", branch_id, "activate")
        body = await self._wire.write("POST", where, actor=actor)
        return msgspec.json.decode(body, type=_Rev).rev

    async def participants(
        self, conversation_id: UUID | str, *, actor: str | None = None
    ) -> builtins.list[Participant]:
        """List who is in it, in the order they came."""
        found = await self._wire.get(path(conversation_id, "participants"), _Data, actor=actor)
        return msgspec.json.decode(found.data, type=list[Participant])

    async def join(
        self,
        conversation_id: UUID | str,
        user: str,
        *,
        role: MemberRole = "member",
        actor: str | None = None,
    ) -> Participant:
        """Bring somebody in."""
        body = await self._wire.write(
            "POST", path(conversation_id, "participants"), NewParticipant(user, role), actor=actor
        )
        return msgspec.json.decode(body, type=Participant)

    async def leave(
        self, conversation_id: UUID | str, user: str, *, actor: str | None = None
    ) -> None:
        """Take somebody out, or leave oneself."""
        await self._wire.write("DELETE", path(conversation_id, "participants", user), actor=actor)

    async def invite(
        self,
        conversation_id: UUID | str,
        *,
        role: MemberRole = "member",
        expires_in: float | None = None,
        max_uses: int | None = None,
        actor: str | None = None,
    ) -> Invited:
        """Make an invitation; its token is given this once and never stored."""
        asked = {"role": role, "expires_in": expires_in, "max_uses": max_uses}
        body = await self._wire.write(
            "POST", path(conversation_id, "invitations"), asked, actor=actor
        )
        made = msgspec.json.decode(body, type=_Invited)
        return Invited(made.id, made.token, made.expires_at)

    async def invitations(
        self, conversation_id: UUID | str, *, actor: str | None = None
    ) -> builtins.list[Invitation]:
        """List the invitations that still let somebody in: the owner sees all, others their own."""
        found = await self._wire.get(path(conversation_id, "invitations"), _Data, actor=actor)
        return msgspec.json.decode(found.data, type=list[Invitation])

    async def revoke(
        self, conversation_id: UUID | str, invitation_id: UUID | str, *, actor: str | None = None
    ) -> None:
        """Let an invitation let nobody in any more."""
        where = path(conversation_id, "invitations", as_id(invitation_id))
        await self._wire.write("DELETE", where, actor=actor)

    async def accept(self, token: str, *, user: str | None = None) -> Conversation:
        """Join by an invitation's token."""
        body = await self._wire.write(
            "POST", "/v1/invitations/accept", {"token": token}, actor=user
        )
        return msgspec.json.decode(body, type=Conversation)

    async def rate(
        self,
        conversation_id: UUID | str,
        rating: int,
        *,
        user: str | None = None,
        seq: int | None = None,
        comment: str | None = None,
    ) -> Feedback:
        """Give one's feedback, 1 or -1, on a message or (without ``seq``) on the conversation."""
        body = await self._wire.write(
            "PUT",
            _feedback(conversation_id, seq),
            {"rating": rating, "comment": comment},
            actor=user,
        )
        return msgspec.json.decode(body, type=Feedback)

    async def feedback(
        self, conversation_id: UUID | str, *, user: str | None = None, seq: int | None = None
    ) -> Feedback:
        """Read one's own feedback, on a message or (without ``seq``) on the conversation."""
        found: Feedback = await self._wire.get(
            _feedback(conversation_id, seq), Feedback, actor=user
        )
        return found

    async def unrate(
        self, conversation_id: UUID | str, *, user: str | None = None, seq: int | None = None
    ) -> None:
        """Take one's feedback back, on a message or (without ``seq``) on the conversation."""
        await self._wire.write("DELETE", _feedback(conversation_id, seq), actor=user)

    async def read(self, conversation_id: UUID | str, seq: int, *, user: str | None = None) -> Mark:
        """Move the caller's mark forward, never back, at most to the last message."""
        body = await self._wire.write(
            "PUT", path(conversation_id, "read"), {"seq": seq}, actor=user
        )
        return msgspec.json.decode(body, type=Mark)

    async def changes(
        self,
        conversation_id: UUID | str,
        *,
        since: int,
        epoch: str | None = None,
        actor: str | None = None,
    ) -> Change:
        """Ask what changed since a rev; with ``next`` there is more after its ``rev``."""
        found: Change = await self._wire.get(
            path(conversation_id, "changes"), Change, since=since, epoch=epoch, actor=actor
        )
        return found

    async def stats(self, conversation_id: UUID | str, *, actor: str | None = None) -> Stats:
        """Count what was said in it."""
        found: Stats = await self._wire.get(path(conversation_id, "stats"), Stats, actor=actor)
        return found

    async def export(
        self,
        conversation_id: UUID | str,
        format: str = "jsonl",  # noqa: A002 - the contract's name
        *,
        actor: str | None = None,
    ) -> AsyncIterator[bytes]:
        """Write it out, piece by piece, as of one moment.

        The format is ``jsonl``, ``json``, ``openai``, ``md``, ``csv`` or ``html``.
        After ``Unanswered`` what came is not whole.
        """
        where = path(conversation_id, "export")
        async with self._wire.stream(where, actor=actor, format=format) as answer:
            async for piece in answer.aiter_bytes():
                yield piece


def _feedback(conversation_id: UUID | str, seq: int | None) -> str:
    return path(conversation_id, *(() if seq is None else ("messages", seq)), "feedback")


class Messages:
    """Put messages on record, and read them in pages."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    async def append(
        self,
        conversation_id: UUID | str,
        *,
        role: Role = "user",
        content: str | None = None,
        actor: str | None = None,
        id: UUID | str | None = None,  # noqa: A002 - the contract's name
        metadata: Mapping[str, Any] | None = None,
        parts: Sequence[Mapping[str, Any]] | None = None,
        tool_calls: Sequence[ToolCall | Mapping[str, Any]] | None = None,
        tool_call_id: str | None = None,
        name: str | None = None,
        reasoning: str | None = None,
        said_at: datetime | None = None,
    ) -> Message:
        """Append one message; it is committed to disk when this returns.

        After ``Unanswered`` it may be on record or not: send it again under the same id.
        """
        draft = Draft(
            id=None if id is None else as_id(id),
            role=role,
            content=content,
            metadata=None if metadata is None else dict(metadata),
            parts=None if parts is None else [dict(part) for part in parts],
            tool_calls=None if tool_calls is None else converted(tool_calls, list[ToolCall]),
            tool_call_id=tool_call_id,
            name=name,
            reasoning=reasoning,
            said_at=said_at,
        )
        return (await self.put(conversation_id, draft, actor=actor)).message

    async def put(
        self, conversation_id: UUID | str, draft: Draft, *, actor: str | None = None
    ) -> Stored:
        """Append a draft, and tell the rev it is in."""
        body = await self._wire.write("POST", path(conversation_id, "messages"), draft, actor=actor)
        return msgspec.json.decode(body, type=Stored)

    async def append_many(
        self,
        conversation_id: UUID | str,
        messages: Sequence[Draft | Mapping[str, Any]],
        *,
        actor: str | None = None,
    ) -> list[Message]:
        """Append several messages, all or none, as one rev; ids already there are returned."""
        drafts = [one if isinstance(one, Draft) else converted(one, Draft) for one in messages]
        body = await self._wire.write(
            "POST", path(conversation_id, "messages"), {"messages": drafts}, actor=actor
        )
        return msgspec.json.decode(body, type=StoredMany).messages

    async def recent(
        self, conversation_id: UUID | str, *, limit: int = 15, actor: str | None = None
    ) -> Page:
        """Read the latest page, oldest first."""
        return await self._page(conversation_id, limit=limit, actor=actor)

    async def before(
        self, conversation_id: UUID | str, seq: int, *, limit: int = 15, actor: str | None = None
    ) -> Page:
        """Read the page before a message."""
        return await self._page(conversation_id, limit=limit, before=seq, actor=actor)

    async def after(
        self,
        conversation_id: UUID | str,
        seq: int,
        *,
        limit: int = 15,
        superseded: bool = False,
        actor: str | None = None,
    ) -> Page:
        """Read the page after a message; with ``superseded`` of the whole record."""
        include = "superseded" if superseded else None
        return await self._page(
            conversation_id, limit=limit, after=seq, include=include, actor=actor
        )

    async def around(
        self, conversation_id: UUID | str, seq: int, *, limit: int = 15, actor: str | None = None
    ) -> Page:
        """Read a page with a message in its middle."""
        return await self._page(conversation_id, limit=limit, around=seq, actor=actor)

    async def get(
        self, conversation_id: UUID | str, seq: int, *, actor: str | None = None
    ) -> Message:
        """Read one message, whole, on the active path or not."""
        found: Message = await self._wire.get(
            path(conversation_id, "messages", seq), Message, actor=actor
        )
        return found

    async def edit(
        self,
        conversation_id: UUID | str,
        seq: int,
        content: str,
        *,
        if_rev: int | None = None,
        actor: str | None = None,
    ) -> Message:
        """Give a message a new text; the earlier one stays among its versions.

        Raises:
            Stale: It is no longer at ``if_rev``.
        """
        where = path(conversation_id, "messages", seq)
        unchanged = await self._wire.unchanged(where, Message, "rev", if_rev, actor=actor)
        body = await self._wire.write(
            "PATCH", where, {"content": content}, headers=unchanged, actor=actor
        )
        return msgspec.json.decode(body, type=Message)

    async def delete(
        self,
        conversation_id: UUID | str,
        seq: int,
        *,
        erase: bool = False,
        actor: str | None = None,
    ) -> None:
        """Delete a message, or erase it: then its content is nowhere any more."""
        await self._wire.write(
            "DELETE", path(conversation_id, "messages", seq), erase=erase, actor=actor
        )

    async def versions(
        self, conversation_id: UUID | str, seq: int, *, actor: str | None = None
    ) -> list[Version]:
        """List the earlier texts of an edited message, oldest first."""
        where = path(conversation_id, "messages", seq, "versions")
        found = await self._wire.get(where, _Data, actor=actor)
        return msgspec.json.decode(found.data, type=list[Version])

    async def rewind(
        self, conversation_id: UUID | str, *, after_seq: int, actor: str | None = None
    ) -> int:
        """Take everything after a message off the active path; returns how many left it."""
        return (await self.rewound(conversation_id, after_seq, actor=actor)).removed

    async def rewound(
        self, conversation_id: UUID | str, after_seq: int, *, actor: str | None = None
    ) -> Rewound:
        """Take everything after a message off the active path, and tell the rev."""
        where = path(conversation_id, "rewind")
        body = await self._wire.write("POST", where, {"after_seq": after_seq}, actor=actor)
        return msgspec.json.decode(body, type=Rewound)

    async def readers(
        self, conversation_id: UUID | str, seq: int, *, actor: str | None = None
    ) -> list[Reader]:
        """Say who has read a message, and when; never its author."""
        found: list[Reader] = await self._wire.get(
            path(conversation_id, "messages", seq, "readers"), list[Reader], actor=actor
        )
        return found

    async def _page(
        self, conversation_id: UUID | str, actor: str | None = None, **query: Any
    ) -> Page:
        found: Page = await self._wire.get(
            path(conversation_id, "messages"), Page, **query, actor=actor
        )
        return found
