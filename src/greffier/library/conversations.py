"""Conversations: create, read, change, archive and erase; people in them."""

from __future__ import annotations

import builtins
from collections.abc import AsyncIterator, Mapping
from typing import Any
from uuid import UUID

import msgspec

from greffier.change import conversation as conversation_verbs
from greffier.change import feedback as feedback_verbs
from greffier.change import path as path_verbs
from greffier.change import people as people_verbs
from greffier.change.feedback import Feedback
from greffier.change.people import Invited, Mark
from greffier.library.given import converted
from greffier.model.conversation import (
    Conversation,
    ConversationPatch,
    Kind,
    MemberRole,
    NewConversation,
)
from greffier.model.ids import as_id
from greffier.model.page import ConversationList
from greffier.publish.told import Change
from greffier.read import changes as changes_read
from greffier.read import conversations as conversation_reads
from greffier.read import export as export_read
from greffier.read import history as history_reads
from greffier.read import people as people_reads
from greffier.read import stats as stats_read
from greffier.read.history import Branch
from greffier.read.people import Invitation, Participant
from greffier.read.stats import Stats
from greffier.store.database import Database

_conversation = msgspec.json.Decoder(Conversation).decode
_change = msgspec.json.Decoder(Change).decode
UNSET = msgspec.UNSET


class Conversations:
    """Create, read, change, archive and erase conversations."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(
        self,
        *,
        owner: str,
        id: UUID | str | None = None,  # noqa: A002 - the contract's name
        kind: Kind = "assistant",
        title: str | None = None,
        subject: str | None = None,
        agent: UUID | str | None = None,
        history_limit: int = 30,
        metadata: Mapping[str, Any] | None = None,
        participants: Mapping[str, str] | None = None,
    ) -> Conversation:
        """Create a conversation; the same request under the same id again finds it.

        Args:
            owner: The user it belongs to.
            id: Your own UUID for it, the idempotency key; one is made when not given.
            kind: ``assistant``, one person and a model, or ``room``.
            title: For display.
            subject: At most one active conversation per owner and subject.
            agent: Who answers here; never changes.
            history_limit: Messages a model is sent by default.
            metadata: A JSON object of yours, kept as it is.
            participants: Others from the start: user id to ``member`` or ``viewer``.

        Raises:
            Invalid, IdReused, SubjectTaken, Gone, Unavailable: See the errors.
        """
        new = converted(
            {
                "id": None if id is None else as_id(id),
                "kind": kind,
                "title": title,
                "subject": subject,
                "agent_id": None if agent is None else as_id(agent, "/agent_id"),
                "history_limit": history_limit,
                "metadata": None if metadata is None else dict(metadata),
                "participants": None
                if participants is None
                else [{"user_id": user, "role": role} for user, role in participants.items()],
            },
            NewConversation,
        )
        made, _ = await conversation_verbs.create(self._database, new, owner)
        return await self.get(made, actor=owner)

    async def get(self, conversation_id: UUID | str, *, actor: str | None = None) -> Conversation:
        """Read one conversation as ``actor`` sees it.

        Raises:
            NotFound, Gone, Unavailable: See the errors.
        """
        body, _ = await conversation_reads.get(self._database, as_id(conversation_id), actor)
        return _conversation(body)

    async def list(
        self,
        *,
        user: str,
        limit: int = 20,
        cursor: str | None = None,
        kind: Kind | None = None,
        subject: str | None = None,
        archived: bool = False,
    ) -> ConversationList:
        """List a user's conversations, last activity first; go on with ``next_cursor``."""
        which = conversation_reads.Filter(kind, subject, archived)
        bodies, following, rev = await conversation_reads.listing(
            self._database, user, which, limit=limit, cursor=cursor
        )
        data = [_conversation(body) for body in bodies]
        return ConversationList(data=data, next_cursor=following, list_rev=rev)

    async def update(
        self,
        conversation_id: UUID | str,
        *,
        title: str | msgspec.UnsetType | None = UNSET,
        metadata: Mapping[str, Any] | msgspec.UnsetType = UNSET,
        history_limit: int | msgspec.UnsetType = UNSET,
        archived: bool | msgspec.UnsetType = UNSET,
        if_rev: int | None = None,
        actor: str | None = None,
    ) -> Conversation:
        """Change what may change, in one rev; what is not given stays.

        Raises:
            Stale: It is no longer at ``if_rev``.
            NotFound, Forbidden, Gone, SubjectTaken, Invalid, Unavailable: See the errors.
        """
        change = ConversationPatch(
            title=title,
            metadata=metadata if isinstance(metadata, msgspec.UnsetType) else dict(metadata),
            history_limit=history_limit,
            archived=archived,
        )
        found = as_id(conversation_id)
        await conversation_verbs.patch(self._database, found, change, actor, if_rev=if_rev)
        return await self.get(found, actor=actor)

    async def archive(
        self, conversation_id: UUID | str, *, actor: str | None = None
    ) -> Conversation:
        """Take it out of the active list; it is read as before and takes no new messages."""
        return await self.update(conversation_id, archived=True, actor=actor)

    async def erase(self, conversation_id: UUID | str, *, actor: str | None = None) -> None:
        """Erase it with everything in it; only its id is remembered, as gone."""
        await conversation_verbs.erase(self._database, as_id(conversation_id), actor)

    async def branches(
        self, conversation_id: UUID | str, *, actor: str | None = None
    ) -> builtins.list[Branch]:
        """List the paths that were left by rewinding, the last left first."""
        return await history_reads.branches(self._database, as_id(conversation_id), actor)

    async def activate(
        self,
        conversation_id: UUID | str,
        branch_id: UUID | str,
        *,
        actor: str | None = None,
    ) -> int:
        """Make a branch the active path; the present one becomes a branch.  Returns the rev."""
        found = as_id(conversation_id)
        return await path_verbs.activate(self._database, found, as_id(branch_id), actor)

    async def participants(
        self, conversation_id: UUID | str, *, actor: str | None = None
    ) -> builtins.list[Participant]:
        """List who is in it, in the order they came."""
        return await people_reads.participants(self._database, as_id(conversation_id), actor)

    async def join(
        self,
        conversation_id: UUID | str,
        user: str,
        *,
        role: MemberRole = "member",
        actor: str | None = None,
    ) -> int:
        """Bring somebody in or change their role; ``owner`` hands a room over.  Returns the rev."""
        found = as_id(conversation_id)
        return await people_verbs.set_participant(self._database, found, user, role, actor)

    async def leave(
        self, conversation_id: UUID | str, user: str, *, actor: str | None = None
    ) -> int:
        """Take somebody out; from this rev on they see nothing more.  Returns the rev."""
        found = as_id(conversation_id)
        return await people_verbs.remove_participant(self._database, found, user, actor)

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
        return await people_verbs.invite(
            self._database,
            as_id(conversation_id),
            actor,
            role=role,
            expires_in=expires_in,
            max_uses=max_uses,
        )

    async def invitations(
        self, conversation_id: UUID | str, *, actor: str | None = None
    ) -> builtins.list[Invitation]:
        """List the invitations that still let somebody in: the owner sees all, others their own."""
        return await people_reads.invitations(self._database, as_id(conversation_id), actor)

    async def revoke(
        self,
        conversation_id: UUID | str,
        invitation_id: UUID | str,
        *,
        actor: str | None = None,
    ) -> None:
        """Let an invitation let nobody in any more.

        Raises:
            NotFound, Forbidden, Gone, Unavailable: See the errors.
        """
        found = as_id(conversation_id)
        await people_verbs.revoke(self._database, found, as_id(invitation_id), actor)

    async def accept(self, token: str, *, user: str) -> Conversation:
        """Join by an invitation's token."""
        found = await people_verbs.accept(self._database, token, user)
        return await self.get(found, actor=user)

    async def read(self, conversation_id: UUID | str, seq: int, *, user: str) -> Mark:
        """Move a user's mark forward, never back, at most to the last message."""
        return await people_verbs.read_upto(self._database, as_id(conversation_id), user, seq)

    async def rate(
        self,
        conversation_id: UUID | str,
        rating: int,
        *,
        user: str,
        seq: int | None = None,
        comment: str | None = None,
    ) -> Feedback:
        """Give one's feedback, 1 or -1, on a message or (without ``seq``) on the conversation."""
        found = as_id(conversation_id)
        return await feedback_verbs.rate(self._database, found, seq, user, rating, comment)

    async def feedback(
        self, conversation_id: UUID | str, *, user: str, seq: int | None = None
    ) -> Feedback:
        """Read one's own feedback, on a message or (without ``seq``) on the conversation.

        Raises:
            NotFound: There is none, or nothing any more that it could be about.
        """
        given = await people_reads.feedback(self._database, as_id(conversation_id), user, seq)
        return Feedback(given.rating, given.comment, user, given.at)

    async def unrate(
        self, conversation_id: UUID | str, *, user: str, seq: int | None = None
    ) -> None:
        """Take one's feedback back, on a message or (without ``seq``) on the conversation."""
        await feedback_verbs.unrate(self._database, as_id(conversation_id), seq, user)

    async def changes(
        self,
        conversation_id: UUID | str,
        *,
        since: int,
        epoch: str | None = None,
        actor: str | None = None,
    ) -> Change:
        """Ask what changed since a rev; with ``next`` there is more after its ``rev``.

        Raises:
            Invalid, NotFound, Gone, Unavailable: See the errors.
        """
        found = await changes_read.changes(
            self._database, as_id(conversation_id), actor, since, epoch=epoch
        )
        return _change(found.body())

    async def stats(self, conversation_id: UUID | str, *, actor: str | None = None) -> Stats:
        """Count what was said in it."""
        return await stats_read.stats(self._database, as_id(conversation_id), actor)

    async def export(
        self,
        conversation_id: UUID | str,
        format: str = "jsonl",  # noqa: A002 - the contract's name
        *,
        actor: str | None = None,
    ) -> AsyncIterator[bytes]:
        """Write it out, piece by piece, as of one moment.

        The format is ``jsonl``, ``json``, ``openai``, ``md``, ``csv`` or ``html``.
        """
        async for piece in export_read.export(
            self._database, as_id(conversation_id), actor, format
        ):
            yield piece
