"""What an import asks of the record and adds to it; or, in a rehearsal, would add."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol
from uuid import UUID

import msgspec

from greffier.change import append, conversation
from greffier.errors import Forbidden, Gone, IdReused, SubjectTaken
from greffier.imports.own import WRITTEN_BY
from greffier.imports.piece import Item, Talk
from greffier.imports.seen import Seen
from greffier.model.conversation import ConversationPatch, NewConversation
from greffier.model.draft import SERVICE, Checked
from greffier.model.limits import IMPORT
from greffier.model.row import Row
from greffier.store.database import Database


@dataclass(slots=True)
class Standing:
    """A conversation on record, as this import goes through it.

    ``imported`` messages on it were brought by imports before this one, and ``met`` of them were
    found again in the source so far.
    """

    made: bool
    archived: bool = False
    imported: int = 0
    met: int = 0
    altered: set[str] = field(default_factory=set)


class Known(NamedTuple):
    """A message that is on record: what was asked for, what it says now, whether we brought it."""

    request_hash: bytes | None
    said: bytes
    imported: bool
    erased: bool = False


class Record(Protocol):
    """The record, or a rehearsal of it."""

    async def stand(self, talk: Talk) -> Standing:
        """Find the conversation, or make it.

        Raises:
            Error: A refusal: it was erased, belongs to another owner, or breaks a rule.
        """

    async def known(self, talk: Talk, ids: Sequence[UUID]) -> dict[UUID, Known]:
        """Look which of these messages are on record."""

    async def append(self, talk: Talk, items: Sequence[Item]) -> list[bool]:
        """Put messages on record, all or none; says of each whether it is new.

        Raises:
            Error: A refusal.
        """

    async def finish(self, talk: Talk) -> None:
        """Do what is left when all of a conversation is there."""


class Live:
    """The record itself."""

    def __init__(self, database: Database) -> None:
        """Write to this database, as the service."""
        self._database = database

    async def stand(self, talk: Talk) -> Standing:
        """Make the conversation; where one is there, whatever its export said then, take it."""
        altered = set()
        try:
            made = await self._create(talk, talk.new)
        except SubjectTaken:
            altered.add("subject-taken")
            made = await self._create(talk, msgspec.structs.replace(talk.new, subject=None))
        if made:
            return Standing(made=True, altered=altered)
        found = await look(self._database, talk)
        if found is None:
            raise Gone
        return found

    async def _create(self, talk: Talk, new: NewConversation) -> bool:
        try:
            _, made = await conversation.create(self._database, new, talk.owner, limits=IMPORT)
        except IdReused:
            # Made by an earlier import of the same thread, whose title or metadata was another.
            return False
        return made

    async def known(self, talk: Talk, ids: Sequence[UUID]) -> dict[UUID, Known]:
        """Look which of these messages are on record."""
        rows = await self._database.read("import_messages", talk.id, list(ids), WRITTEN_BY)
        return {
            row["id"]: Known(row["request_hash"], row["said"], row["imported"], row["erased"])
            for row in rows
        }

    async def append(self, talk: Talk, items: Sequence[Item]) -> list[bool]:
        """Put messages on record in one commit."""
        appended = await append.append_checked(
            self._database, talk.id, [item.checked for item in items], SERVICE
        )
        return [not one.replayed for one in appended.stored]

    async def finish(self, talk: Talk) -> None:
        """Archive what was archived where it comes from."""
        if talk.archived:
            change = ConversationPatch(archived=True)
            await conversation.patch(self._database, talk.id, change, None)


class Rehearsal:
    """The record as it would be: reads it, writes nothing, remembers what it would have written."""

    def __init__(self, database: Database | None, seen: Seen) -> None:
        """Rehearse on a database, or on none, which is then taken for an empty one."""
        self._database = database
        self._seen = seen
        self._live = None if database is None else Live(database)

    async def stand(self, talk: Talk) -> Standing:
        """Find the conversation as the run would: on record, or made earlier in this rehearsal."""
        found = None if self._database is None else await look(self._database, talk)
        again = self._seen.plan_conversation(talk.id)
        if found is None:
            found = Standing(made=not again)
        found.imported += self._seen.planned_in(talk.id)
        return found

    async def known(self, talk: Talk, ids: Sequence[UUID]) -> dict[UUID, Known]:
        """Look which of these messages are on record, or would be by now."""
        found = {} if self._live is None else await self._live.known(talk, ids)
        for id_ in ids:
            planned = self._seen.planned(talk.id, id_)
            if planned is not None:
                found[id_] = Known(*planned, imported=True)
        return found

    async def append(self, talk: Talk, items: Sequence[Item]) -> list[bool]:
        """Remember messages that would be stored."""
        return [
            self._seen.plan(talk.id, item.checked.id, item.checked.request_hash, said(item.checked))
            for item in items
        ]

    async def finish(self, talk: Talk) -> None:
        """Nothing is left to do."""


async def look(database: Database, talk: Talk) -> Standing | None:
    """Find a conversation on record; None when it is not there.

    Raises:
        Gone: It was erased.
        Forbidden: It belongs to another owner.
    """
    (row,) = await database.read("import_conversation", talk.id, WRITTEN_BY)
    if row["erased"]:
        raise Gone
    if row["owner_id"] is None:
        return None
    if row["owner_id"] != talk.owner:
        raise Forbidden("Another owner has a conversation of this id.")
    return Standing(made=False, archived=row["archived"], imported=row["imported"])


def said(checked: Checked) -> bytes:
    """What a message says, hashed as the query import_messages does it."""
    row = Row._make(checked.columns)
    return hashlib.sha256(f"{row.role}:{row.content or ''}".encode()).digest()
