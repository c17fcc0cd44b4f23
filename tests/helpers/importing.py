"""Import texts into a record, and look at what is there afterwards."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from greffier.imports import Account, Fault, Options, Source, import_files
from greffier.imports.openai import threads
from greffier.library import Greffier
from greffier.model.message import Message
from greffier.read.export import export_all


@dataclass
class Desk:
    """Imports into one record, and shows what is there afterwards."""

    record: Greffier
    faults: list[Fault] = field(default_factory=list)

    async def take(self, *files: str | bytes, dry_run: bool = False, **options: Any) -> Account:
        """Import files of these contents for ada."""
        account = Account()
        self.faults.clear()
        await import_files(
            self.record.database,
            [source(text, f"file{n}") for n, text in enumerate(files, start=1)],
            Options(**{"owner": "ada", **options}),
            account,
            dry_run=dry_run,
            on_fault=self.faults.append,
        )
        assert account.balanced
        assert len(self.faults) == account.quarantined
        return account

    async def conversations(self, user: str = "ada") -> list[UUID]:
        """The ids of a user's conversations, in the order they were made."""
        listed = await self.record.conversations.list(user=user, limit=100)
        return [one.id for one in sorted(listed.data, key=lambda one: one.created_at)]

    async def messages(self, conversation: UUID) -> list[Message]:
        """All messages of a conversation."""
        return (await self.record.messages.recent(conversation, limit=200)).data

    async def said(self, conversation: UUID) -> list[str | None]:
        """What was said in a conversation, in order."""
        return [one.content for one in await self.messages(conversation)]

    async def exported(self, form: str = "jsonl") -> bytes:
        """Everything on record, as the command line writes it."""
        lines = export_all(self.record.database, None, "jsonl" if form == "openai" else form)
        return b"".join([one async for one in (threads(lines) if form == "openai" else lines)])


def source(text: str | bytes, name: str = "file") -> Source:
    """A file with these contents."""
    raw = text if isinstance(text, bytes) else text.encode()
    return Source(name, lambda: io.BytesIO(raw))


def jsonl(entries: Iterable[Any]) -> str:
    """Entries as JSONL, in plain ASCII so that halves of surrogate pairs can be written."""
    return "".join(f"{json.dumps(entry)}\n" for entry in entries)
