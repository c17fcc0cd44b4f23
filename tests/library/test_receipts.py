"""Receipts cost what people read, not messages times people."""

from __future__ import annotations

from greffier.change.people import read_upto
from greffier.library import Greffier
from greffier.model.message import Draft
from greffier.store.database import open_database
from helpers.postgres import connected

READERS = 200
MESSAGES = 5000


async def test_receipts_of_many_readers_are_rows_of_advances(database: str) -> None:
    """200 readers of 5,000 messages: 201 marks and one row for each advance, not a million."""
    async with open_database(database) as record:
        g = Greffier(record)
        people = {f"u{number}": "member" for number in range(READERS)}
        talk = await g.conversations.create(owner="ada", kind="room", participants=people)
        for start in range(0, MESSAGES, 100):
            drafts = [Draft(role="system", content=f"n{start + n}") for n in range(100)]
            await g.messages.append_many(talk.id, drafts)
        for number in range(READERS):
            await read_upto(record, talk.id, f"u{number}", MESSAGES // 2 + number)
            await read_upto(record, talk.id, f"u{number}", MESSAGES)
        readers = await g.messages.readers(talk.id, MESSAGES // 2 + READERS)
    async with connected(database) as live:
        marks = await live.fetchval("select count(*) from greffier.read_marks")
        rows = await live.fetchval("select count(*) from greffier.participants")

    assert rows == READERS + 1
    assert marks == 2 * READERS
    assert len(readers) == READERS
