"""What callers whose pages are read together may count on, whatever one of them asked."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

import asyncpg

from greffier.errors import Gone, NotFound
from greffier.library import Greffier
from greffier.model.ids import uuid7
from greffier.model.message import Draft
from greffier.read.pages import Where, page
from greffier.store.database import Database, open_database
from greffier.store.gather import LANES, MOST, Gathered
from greffier.store.slots import Slots
from helpers.postgres import connected
from helpers.proxy import proxied


async def a_talk(g: Greffier, owner: str, words: str) -> UUID:
    """A conversation in which something was said."""
    talk = (await g.conversations.create(owner=owner)).id
    await g.messages.append(talk, content=words)
    return talk


async def test_each_caller_gets_the_page_they_asked_for(g: Greffier, store: Database) -> None:
    """Many at once, of other conversations, readers and stretches: the same as one by one."""
    talks = [await a_talk(g, f"user {n}", f"words {n}") for n in range(3 * MOST)]
    for talk in talks[:5]:
        await g.messages.append_many(talk, [Draft(content=f"more {n}") for n in range(20)])
    asked = [
        (talk, None if n % 3 == 0 else f"user {n}", where)
        for n, talk in enumerate(talks)
        for where in (Where(15), Where(3, before=9), Where(4, after=2), Where(superseded=True))
    ]

    together = await asyncio.gather(*(page(store, *one) for one in asked))

    assert together == [await page(store, *one) for one in asked]


async def test_nobody_sees_more_for_being_answered_with_others(
    g: Greffier, store: Database
) -> None:
    """Access is decided for each caller, in the statement that reads for all of them."""
    talk = await a_talk(g, "ada", "mine")
    gone = await a_talk(g, "ada", "gone")
    await g.conversations.erase(gone)
    askers = [(talk, "ada"), (talk, "eve"), (gone, "ada"), (uuid7(), None), (talk, None)] * 4

    found = await asyncio.gather(
        *(page(store, id_, reader, Where()) for id_, reader in askers), return_exceptions=True
    )

    for (id_, reader), one in zip(askers, found, strict=True):
        if id_ == gone:
            assert isinstance(one, Gone)
        elif id_ != talk or reader == "eve":
            assert isinstance(one, NotFound)
        else:
            assert not isinstance(one, BaseException)
            assert b'"content":"mine"' in one.data


async def test_what_was_said_before_it_was_asked_for_is_seen(g: Greffier, store: Database) -> None:
    """Also by who joined those that wait: no statement is older than the question."""
    talks = [await a_talk(g, "ada", "first") for _ in range(LANES * MOST + 5)]

    async def said_and_read(talk: UUID) -> None:
        for number in range(5):
            words = f"word {number}"
            await g.messages.append(talk, content=words)
            assert words.encode() in (await page(store, talk, "ada", Where(1))).data

    await asyncio.gather(*map(said_and_read, talks))


async def test_what_breaks_the_statement_breaks_its_own_page_alone(
    g: Greffier, store: Database
) -> None:
    """The others are answered as if it had not been there."""
    talk = await a_talk(g, "ada", "words")
    readers = ["ada", "a reader that PostgreSQL refuses\x00", "ada", None]

    found = await asyncio.gather(
        *(page(store, talk, reader, Where()) for reader in readers), return_exceptions=True
    )

    assert isinstance(found[1], asyncpg.DataError)
    assert [one.total for one in found if not isinstance(one, BaseException)] == [1, 1, 1]


async def test_who_leaves_takes_nobody_with_them(g: Greffier, store: Database) -> None:
    """Cancelled while they wait or while the statement is under way."""
    talk = await a_talk(g, "ada", "words")
    callers = [asyncio.create_task(page(store, talk, "ada", Where())) for _ in range(3 * MOST)]
    await asyncio.sleep(0)  # all have asked
    for caller in callers[::2]:
        caller.cancel()

    found = await asyncio.gather(*callers, return_exceptions=True)

    assert all(isinstance(one, asyncio.CancelledError) for one in found[::2])
    assert {one.total for one in found[1::2] if not isinstance(one, BaseException)} == {1}
    assert (await page(store, talk, "ada", Where())).total == 1


async def test_a_database_that_is_away_is_waited_for(database: str) -> None:
    """Pages that were under way are read again when it is back, or refused when it stays away."""
    async with (
        proxied(database) as proxy,
        open_database(proxy.dsn, patience=30) as store,
    ):
        talk = await a_talk(Greffier(store), "ada", "words")
        proxy.cut()
        found = await asyncio.gather(*(page(store, talk, "ada", Where()) for _ in range(20)))
        assert {one.total for one in found} == {1}


async def test_a_new_database_is_not_read_from_end_to_end_as_it_fills(database: str) -> None:
    """What is asked while it is empty is asked by key also when it is full: plans are kept."""
    async with open_database(database) as store:
        g = Greffier(store)
        talk = await a_talk(g, "ada", "words")
        async with connected(database) as live:
            await live.execute("vacuum analyze")
            before = await scans(live)
        for _ in range(3):
            await g.messages.append(talk, id=uuid7(), content="words")
            drafts = [Draft(id=uuid7(), content="words") for _ in range(20)]
            await g.messages.append_many(talk, drafts)
            await asyncio.gather(*(page(store, talk, "ada", Where()) for _ in range(20)))
            await g.messages.get(talk, 1, actor="ada")
            await g.context(talk, actor="ada")

    # A connection tells what it did before it is seen to be gone.
    async with connected(database) as live:
        while await live.fetchval(
            "select count(*) from pg_stat_activity where datname = current_database() "
            "and application_name = 'greffier' and pid <> pg_backend_pid()"
        ):
            await live.execute("select pg_stat_clear_snapshot()")
        assert await scans(live) == before


async def scans(live: asyncpg.Connection[asyncpg.Record]) -> dict[str, int]:
    """How often each table of the record was read from end to end."""
    await live.execute("select pg_stat_force_next_flush()")
    rows = await live.fetch(
        "select relname, seq_scan from pg_stat_user_tables where relname in "
        "('messages', 'conversations', 'participants', 'listings', 'users')"
    )
    return {row["relname"]: row["seq_scan"] for row in rows}


class AtOnce(Slots):
    """Answers within one turn of the event loop: nearer to each other no two answers can come."""

    async def run(self, sql: str, *args: object, **how: Any) -> list[asyncpg.Record]:
        """Find nothing."""
        del sql, args, how
        return []


async def test_who_asks_as_the_last_of_all_is_answered_is_not_forgotten() -> None:
    """Those who answered have ended and are still counted: it is no time to rely on them.

    Whoever did waited until somebody else asked, and the last of ten thousand deliveries for ever.
    """
    gathered = Gathered(AtOnce("postgresql://nowhere", 1), "select where $1 = 1", ["integer"])

    async def asks_again() -> None:
        for _ in range(3):
            assert await gathered.read(1) == []

    async with asyncio.timeout(30):
        await asyncio.gather(*(asks_again() for _ in range(LANES)))
