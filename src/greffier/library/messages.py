"""Messages: append, read in pages, edit, delete, rewind."""

from __future__ import annotations

import builtins
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from greffier.change import append as append_verb
from greffier.change import message as message_verbs
from greffier.change import path as path_verbs
from greffier.library.given import converted, speaker
from greffier.model.ids import as_id
from greffier.model.message import Draft, Message, Role, ToolCall
from greffier.model.page import Page
from greffier.read import history as history_reads
from greffier.read import pages as page_reads
from greffier.read import people as people_reads
from greffier.read.history import Version
from greffier.read.people import Reader
from greffier.store.database import Database

_message = msgspec.json.Decoder(Message).decode
_page = msgspec.json.Decoder(Page).decode
UNSET = msgspec.UNSET


class Messages:
    """Put messages on record, and read them in pages."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def append(
        self,
        conversation_id: UUID | str,
        *,
        role: Role = "user",
        content: str | None = None,
        id: UUID | str | None = None,  # noqa: A002 - the contract's name
        parts: Sequence[Mapping[str, Any]] | None = None,
        tool_calls: Sequence[ToolCall | Mapping[str, Any]] | None = None,
        tool_call_id: str | None = None,
        name: str | None = None,
        reasoning: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        said_at: datetime | None = None,
        actor: str | None = None,
    ) -> Message:
        """Append one message; it is committed to disk when this returns.

        Args:
            conversation_id: Where.
            role: ``user``, ``assistant``, ``tool`` or ``system``.
            content: What is said.
            id: Your own UUID, the idempotency key: sent again it is the same message.
            parts: OpenAI content parts, kept as given; ``content`` is then their text.
            tool_calls: Calls an assistant asks for.
            tool_call_id: Which call a tool's message answers.
            name: A name for the model.
            reasoning: What the model thought.
            metadata: A JSON object of yours.
            said_at: When it was said, if that is not now.
            actor: The user who says it; None is the service.

        Raises:
            Invalid, IdReused, NotFound, Gone, Forbidden, Archived, PayloadTooLarge, Unavailable:
                See the errors; nothing was stored, except perhaps after ``Unavailable``.
        """
        draft = Draft(
            id=None if id is None else as_id(id),
            role=role,
            content=content,
            parts=None if parts is None else [dict(part) for part in parts],
            tool_calls=None if tool_calls is None else converted(tool_calls, list[ToolCall]),
            tool_call_id=tool_call_id,
            name=name,
            reasoning=reasoning,
            metadata=None if metadata is None else dict(metadata),
            said_at=said_at,
        )
        appended = await append_verb.append(
            self._database, as_id(conversation_id), [draft], speaker(actor)
        )
        (message,) = appended.messages()
        return message

    async def append_many(
        self,
        conversation_id: UUID | str,
        messages: Sequence[Draft | Mapping[str, Any]],
        *,
        actor: str | None = None,
    ) -> list[Message]:
        """Append several messages, all or none, as one rev; ids already there are returned.

        Args:
            conversation_id: Where.
            messages: ``greffier.Draft`` values, or mappings with the same names.
            actor: The user who says them; None is the service.
        """
        drafts = [one if isinstance(one, Draft) else converted(one, Draft) for one in messages]
        return await self._append(conversation_id, drafts, actor)

    async def _append(
        self, conversation_id: UUID | str, drafts: list[Draft], actor: str | None
    ) -> list[Message]:
        appended = await append_verb.append(
            self._database, as_id(conversation_id), drafts, speaker(actor)
        )
        return appended.messages()

    async def recent(
        self, conversation_id: UUID | str, *, limit: int = 15, actor: str | None = None
    ) -> Page:
        """Read the latest page, oldest first."""
        return await self._page(conversation_id, page_reads.Where(limit), actor)

    async def before(
        self, conversation_id: UUID | str, seq: int, *, limit: int = 15, actor: str | None = None
    ) -> Page:
        """Read the page before a message."""
        return await self._page(conversation_id, page_reads.Where(limit, before=seq), actor)

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
        where = page_reads.Where(limit, after=seq, superseded=superseded)
        return await self._page(conversation_id, where, actor)

    async def around(
        self, conversation_id: UUID | str, seq: int, *, limit: int = 15, actor: str | None = None
    ) -> Page:
        """Read a page with a message in its middle."""
        return await self._page(conversation_id, page_reads.Where(limit, around=seq), actor)

    async def get(
        self, conversation_id: UUID | str, seq: int, *, actor: str | None = None
    ) -> Message:
        """Read one message, whole, on the active path or not."""
        body, _ = await page_reads.one(self._database, as_id(conversation_id), actor, seq)
        return _message(body)

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
            NotFound, Forbidden, Stale, Archived, Invalid, Unavailable: See the errors.
        """
        found = as_id(conversation_id)
        await message_verbs.edit(self._database, found, seq, content, speaker(actor), if_rev=if_rev)
        return await self.get(found, seq, actor=actor)

    async def delete(
        self,
        conversation_id: UUID | str,
        seq: int,
        *,
        erase: bool = False,
        actor: str | None = None,
    ) -> int:
        """Delete a message, or erase it: then its content is nowhere any more.

        Returns:
            The conversation's rev afterwards.
        """
        return await message_verbs.delete(
            self._database, as_id(conversation_id), seq, actor, erase=erase
        )

    async def versions(
        self, conversation_id: UUID | str, seq: int, *, actor: str | None = None
    ) -> builtins.list[Version]:
        """List the earlier texts of an edited message, oldest first."""
        return await history_reads.versions(self._database, as_id(conversation_id), actor, seq)

    async def rewind(
        self, conversation_id: UUID | str, *, after_seq: int, actor: str | None = None
    ) -> int:
        """Take everything after a message off the active path; it stays on record as a branch.

        Returns:
            How many undeleted messages left the path.
        """
        done = await path_verbs.rewind(self._database, as_id(conversation_id), after_seq, actor)
        return done.removed

    async def readers(
        self, conversation_id: UUID | str, seq: int, *, actor: str | None = None
    ) -> builtins.list[Reader]:
        """Say who has read a message, and when; never its author."""
        return await people_reads.readers(self._database, as_id(conversation_id), actor, seq)

    async def _page(
        self, conversation_id: UUID | str, where: page_reads.Where, actor: str | None
    ) -> Page:
        found = await page_reads.page(self._database, as_id(conversation_id), actor, where)
        return _page(found.body())
