"""A client as it should be: it saw one fresh read, and from then on applies what changed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import msgspec

from greffier.model.limits import DEFAULT, Limits
from greffier.read import pages
from greffier.read.changes import Changes, changes
from greffier.store.database import Database

Shown = dict[str, Any]


@dataclass(frozen=True)
class View:
    """What a client shows of a conversation: the messages by seq, who is in it, as of which rev."""

    rev: int
    messages: dict[int, Shown]
    participants: list[Shown]
    conversation: Shown | None = None

    def apply(self, body: bytes) -> View:
        """Give the view after an answer of ``changes`` that is no reset (contract.md, changes)."""
        change = msgspec.json.decode(body)
        assert not change["reset"]
        assert self.rev == change["since"] <= change["rev"]
        messages = dict(self.messages)
        seqs = [message["seq"] for message in change["messages"]]
        assert seqs == sorted(set(seqs)), "each message once, in order"
        for low, high in change["superseded"]:
            assert low <= high
            for seq in range(low, high + 1):
                assert seq not in seqs, "what is told does not depend on which is applied first"
                messages.pop(seq, None)
        for message in change["messages"]:
            known = messages.get(message["seq"])
            assert known is None or known["id"] == message["id"], "a seq names one message for ever"
            messages[message["seq"]] = message
        participants = change["participants"]
        return View(
            change["rev"],
            dict(sorted(messages.items())),
            self.participants if participants is None else participants,
            change["conversation"],
        )


#: Who has seen nothing yet.
NOTHING = View(0, {}, [])


async def look(database: Database, conversation_id: UUID, reader: str | None = None) -> View:
    """Give the view of somebody who comes now and reads everything."""
    messages: dict[int, Shown] = {}
    while True:
        where = pages.Where(200, after=max(messages, default=0))
        page = await pages.page(database, conversation_id, reader, where)
        messages |= {one["seq"]: one for one in msgspec.json.decode(b"[%b]" % page.data)}
        if not page.has_after:
            break
    (row,) = await database.read("participants", conversation_id, reader)
    return View(page.rev, messages, msgspec.json.decode(row["body"]))


async def answers(
    database: Database,
    conversation_id: UUID,
    since: int,
    reader: str | None = None,
    *,
    limits: Limits = DEFAULT,
) -> AsyncIterator[Changes]:
    """Ask what changed since a rev until there is no more."""
    while True:
        found = await changes(database, conversation_id, reader, since, limits=limits)
        yield found
        if found.reset or not found.more:
            return
        assert found.rev > since, "each answer brings its reader forward"
        since = found.rev


async def caught_up(
    view: View,
    database: Database,
    conversation_id: UUID,
    reader: str | None = None,
    *,
    limits: Limits = DEFAULT,
) -> View:
    """Give the view after everything that changed since was applied, answer by answer."""
    async for found in answers(database, conversation_id, view.rev, reader, limits=limits):
        view = view.apply(found.body())
    return view
