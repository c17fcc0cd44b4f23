"""Every way to read a conversation, held against the model."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Sequence
from dataclasses import replace
from random import Random
from typing import Any
from uuid import UUID

import msgspec

from greffier import Gone, Greffier, NotFound
from greffier.model.context import build_context
from greffier.model.limits import DEFAULT
from greffier.read import conversations, pages
from greffier.store.database import Database
from helpers.view import NOTHING, View, answers, look
from model_check.record import Record
from model_check.talk import Talk, stretches, window

#: Bytes of one answer of ``changes``: as in production, a few messages, one rev at a time.
SIZES = (DEFAULT.page_bytes, 1000, 1)

_json = msgspec.json.decode


def plain(shown: dict[str, Any]) -> dict[str, Any]:
    """A message or a conversation without its times, save whether there are those that may be."""
    kept: dict[str, Any] = {
        name: value is not None if name in ("edited_at", "deleted_at", "archived_at") else value
        for name, value in shown.items()
        if name not in ("conversation_id", "created_at", "updated_at", "said_at")
    }
    if kept.get("last_message"):
        kept["last_message"] = plain(kept["last_message"])
    return kept


class Checks:
    """Compares the record with the model."""

    def __init__(self, g: Greffier, record: Record) -> None:
        self.g = g
        self.database = g.database
        self.record = record
        #: By conversation and rev: what a fresh read showed when that was the newest.
        self.views: dict[UUID, dict[int, View]] = {}
        #: By conversation: somebody who takes one small answer a step, and so is half-way mostly.
        self.slow: dict[UUID, View] = {}

    async def conversation(self, talk: Talk, random: Random) -> None:
        """Read one conversation in every way."""
        fresh = await look(self.database, talk.id)
        await self._against_the_model(talk, fresh)
        views = self.views.setdefault(talk.id, {})
        slow = self.slow.get(talk.id, NOTHING)
        readers = [None, *(user for user, person in talk.people.items() if person.present)]
        await asyncio.gather(
            *(
                self._catch_up(database, talk, view, fresh, random.choice(readers), size)
                for view in (NOTHING, slow, *views.values())
                for database, size in self._places(random)
            ),
            *(self._seen_by(talk, reader) for reader in readers),
            *(self._page(talk, random.choice(readers), random) for _ in range(6)),
            self._context(talk, random),
            self._one_message(talk, random),
            self._history(talk),
            self._stats(talk),
            self._export(talk),
        )
        views[fresh.rev] = fresh
        if slow.rev == fresh.rev:
            slow = random.choice([NOTHING, *views.values()])
        async for found in answers(
            self.database, talk.id, slow.rev, limits=replace(DEFAULT, page_bytes=1)
        ):
            self.slow[talk.id] = slow.apply(found.body())
            break

    async def absent(self, talk_id: UUID) -> None:
        """An erased conversation is gone for all."""
        for (database, _), reader in itertools.product(self._places(Random(0)), (None, "nobody")):
            with contextlib.suppress(Gone):
                await conversations.get(database, talk_id, reader)
                raise AssertionError("an erased conversation was read")

    async def _whole_record(self, talk_id: UUID) -> list[dict[str, Any]]:
        lines: list[dict[str, Any]] = []
        while True:
            where = pages.Where(200, after=lines[-1]["seq"] if lines else 0, superseded=True)
            page = await pages.page(self.database, talk_id, None, where)
            lines += _json(b"[%b]" % page.data)
            if not page.has_after:
                return lines

    async def _against_the_model(self, talk: Talk, fresh: View) -> None:
        record = await self._whole_record(talk.id)
        assert [line["seq"] for line in record] == list(range(1, len(talk.lines) + 1))
        for line, shown in zip(talk.lines, record, strict=True):
            if line.id is None:
                line.id = UUID(shown["id"])
            assert plain(shown) == line.shown()
        times = [shown["created_at"] for shown in record]
        assert times == sorted(times), "who comes later is not earlier"
        assert len({shown["id"] for shown in record}) == len(record)
        assert list(fresh.messages.values()) == [
            shown for shown in record if shown["seq"] in talk.path
        ]
        assert [
            {name: value for name, value in person.items() if name not in ("joined_at", "name")}
            for person in fresh.participants
        ] == talk.participants()
        assert fresh.rev == talk.rev

    def _places(self, random: Random) -> list[tuple[Database, int]]:
        """Where to catch up, and in answers of how many bytes; on a standby, if there is one, too.

        What the standby is asked for is at least what the last step wrote.
        """
        places = [(self.database, random.choice(SIZES))]
        if self.database.replicas:
            standby = self.database.at(self.database.position)
            places.append((standby, random.choice(SIZES)))
        return places

    async def _catch_up(
        self,
        database: Database,
        talk: Talk,
        view: View,
        fresh: View,
        reader: str | None,
        size: int,
    ) -> None:
        """Who saw an earlier state and applies the changes has what a fresh read gives."""
        limits = replace(DEFAULT, page_bytes=size)
        since = view.rev
        async for found in answers(database, talk.id, since, reader, limits=limits):
            assert not found.reset, f"since {since} cannot be continued"
            view = view.apply(found.body())
        said = f"from rev {since} to {view.rev}, {size} bytes at a time"
        assert view.rev == fresh.rev, said
        assert view.messages == fresh.messages, said
        assert view.participants == fresh.participants, said
        assert plain(view.conversation or {}) == talk.shown(reader, self.database.epoch), said

    async def _seen_by(self, talk: Talk, reader: str | None) -> None:
        body, rev = await conversations.get(self.database, talk.id, reader)
        assert plain(_json(body)) == talk.shown(reader, self.database.epoch)
        assert rev == talk.rev

    async def _page(self, talk: Talk, reader: str | None, random: Random) -> None:
        """A page anywhere, of any size, is what the model has there."""
        superseded = random.random() < 0.3
        seqs = [line.seq for line in talk.lines if superseded or line.seq in talk.path]
        anchors: dict[str, int] = {}
        if random.random() < 0.8:
            edges = [seq for stretch in stretches(talk.path) for seq in stretch]
            near = random.choice([*edges, random.randrange(len(talk.lines) + 3)])
            anchors[random.choice(["before", "after", "around"])] = max(
                0, near + random.randint(-2, 2)
            )
        where = pages.Where(random.choice([1, 2, 3, 5, 30]), superseded=superseded, **anchors)
        limits = replace(DEFAULT, page_bytes=random.choice([DEFAULT.page_bytes, 1500]))
        found = await pages.page(self.database, talk.id, reader, where, limits=limits)
        wanted = window(seqs, where.limit, where.before, where.after, where.around)
        if limits.page_bytes < DEFAULT.page_bytes:
            wanted = await self._that_fit(talk, wanted, limits.page_bytes)
        shown = [plain(one) for one in _json(b"[%b]" % found.data)]
        assert shown == [talk.line(seq).shown() for seq in sorted(wanted)], where
        anchor = where.window()[0]
        low, high = (min(wanted), max(wanted)) if wanted else (None, None)
        if low is None or high is None:
            edge = anchor if anchor is not None else 0
            low, high = edge + 1, edge
        assert found.has_before == any(seq < low for seq in seqs), where
        assert found.has_after == any(seq > high for seq in seqs), where
        undeleted = [line for line in talk.on_path() if not line.deleted]
        assert (found.total, found.rev) == (len(undeleted), talk.rev)
        authors = {talk.line(seq).author for seq in wanted} - {None}
        assert _json(b"{%b}" % found.authors) == {
            author: {"name": self.record.names.get(author or ""), "role": self._role(talk, author)}
            for author in authors
        }

    def _role(self, talk: Talk, user: str | None) -> str | None:
        person = talk.people.get(user or "")
        return person.role if person is not None and person.present else None

    async def _that_fit(self, talk: Talk, seqs: Sequence[int], size: int) -> list[int]:
        """The first of these whose JSON is no more than this together, at least one."""
        kept: list[int] = []
        total = 0
        for seq in seqs:
            body, _ = await pages.one(self.database, talk.id, None, seq)
            total += len(body) + 1
            if kept and total > size:
                break
            kept.append(seq)
        return kept

    async def _context(self, talk: Talk, random: Random) -> None:
        """A model is sent what the whole active path gives, though only its end is read."""
        most = random.choice([None, 0, 1, 2, 4, 30])
        tokens = random.choice([None, None, 15, 60])
        tools = random.random() < 0.7
        found = await self.g.context(
            talk.id, max_messages=most, max_tokens=tokens, include_tools=tools
        )
        expected = build_context(
            [line.message() for line in talk.on_path()],
            max_messages=talk.history_limit if most is None else most,
            max_tokens=tokens,
            include_tools=tools,
            complete=True,
        )
        assert found == expected, (most, tokens, tools)

    async def _one_message(self, talk: Talk, random: Random) -> None:
        seq = random.randrange(len(talk.lines) + 2)
        if not 1 <= seq <= len(talk.lines):
            with contextlib.suppress(NotFound):
                await self.g.messages.get(talk.id, seq)
                raise AssertionError("a message that was never said")
            return
        line = talk.line(seq)
        body, rev = await pages.one(self.database, talk.id, None, seq)
        assert (plain(_json(body)), rev) == (line.shown(), line.rev)
        versions = [
            {
                "content": version.content,
                "parts": version.parts,
                "replaced_by": version.replaced_by,
                "rev": version.rev,
            }
            for version in await self.g.messages.versions(talk.id, seq)
        ]
        assert versions == ([] if line.deleted else line.versions)
        readers = await self.g.messages.readers(talk.id, seq)
        assert {reader.user_id for reader in readers} == talk.readers(seq)
        assert [reader.at for reader in readers] == sorted(reader.at for reader in readers)

    async def _history(self, talk: Talk) -> None:
        found = [
            {
                "path": branch.path,
                "left_at_rev": branch.left_at_rev,
                "last_seq": branch.last_seq,
                "preview": branch.preview,
            }
            for branch in await self.g.conversations.branches(talk.id)
        ]
        assert found == talk.left()

    async def _stats(self, talk: Talk) -> None:
        found = await self.g.conversations.stats(talk.id)
        roles = [line.role for line in talk.on_path() if not line.deleted]
        for role in ("user", "assistant", "tool", "system"):
            assert getattr(found.messages, role) == roles.count(role)
        thumbs = list(talk.thumbs.values())
        assert (found.feedback.up, found.feedback.down) == (thumbs.count(1), thumbs.count(-1))

    async def _export(self, talk: Talk) -> None:
        pieces = [piece async for piece in self.g.conversations.export(talk.id, "jsonl")]
        head, *lines = [_json(line) for line in b"".join(pieces).splitlines()]
        assert plain(head["conversation"]) == talk.shown(None, self.database.epoch)
        assert [plain(line) for line in lines] == [line.shown() for line in talk.on_path()]

    async def lists(self, user: str, random: Random) -> None:
        """A user's list holds what is theirs, last activity first, whatever the pages' size."""
        archived = random.random() < 0.2
        kind = random.choice([None, None, "room"])
        subject = random.choice([None, None, None, "maths"])
        which = conversations.Filter(kind, subject, archived)
        bodies: list[dict[str, Any]] = []
        cursor: str | None = None
        while True:
            found, cursor, rev = await conversations.listing(
                self.database, user, which, limit=random.choice([1, 2, 20]), cursor=cursor
            )
            bodies += map(_json, found)
            if cursor is None:
                break
        expected = self.record.listing(user, archived=archived, kind=kind, subject=subject)
        assert [UUID(body["id"]) for body in bodies] == expected, which
        for body in bodies:
            talk = self.record.talks[UUID(body["id"])]
            assert plain(body) == talk.shown(user, self.database.epoch)
        assert rev == self.record.list_revs.get(user, 0)
