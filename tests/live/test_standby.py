"""Read your writes: a standby that is behind never takes back what its reader wrote."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from greffier.change.append import append
from greffier.change.conversation import create
from greffier.model.conversation import NewConversation
from greffier.model.draft import Speaker
from greffier.model.message import Draft
from greffier.read.conversations import Filter, listing
from greffier.read.pages import Where, page
from greffier.store.database import Database, open_database
from greffier.store.position import Position
from greffier.store.replicas import Replicas
from helpers.standby import primary_and_standby

#: Writes and reads; the standby is half a second behind all the while.
ROUNDS = 100

ADA = Speaker("ada", "ada", None, "ada")


async def rounds(database: Database, *, at_their_position: bool) -> int:
    """Create, send, list and read; count how often the reader did not see their write."""
    missed = 0
    for number in range(ROUNDS):
        made, _ = await create(database, NewConversation(title=str(number)), "ada")
        await append(database, made, [Draft(content=f"n{number}")], ADA)
        position = database.position
        seen = database.at(position)
        if not at_their_position:
            # What a careless router does: any standby, wherever it is and however it did before.
            seen = database.at(Position(position.epoch, position.timeline, 0))
            for replica in database.replicas._all:
                replica.shunned_until = 0
        bodies, _, _ = await listing(seen, "ada", Filter(), limit=1)
        if not bodies or str(made).encode() not in bodies[0]:
            missed += 1
            continue
        found = await page(seen, made, "ada", Where(15))
        missed += f"n{number}".encode() not in found.data
    return missed


@pytest.mark.slow
async def test_a_late_standby_never_hides_a_write(tmp_path: Path) -> None:
    """Half a second behind, it is waited for or passed over; routed carelessly the test fails."""
    async with (
        primary_and_standby(tmp_path, delay_ms=500) as (primary, standby),
        open_database(primary, replicas=[standby], migrate=True) as database,
    ):
        assert await rounds(database, at_their_position=True) == 0
        assert database.replicas.late > 0

        assert await rounds(database, at_their_position=False) > 0
        assert database.replicas.answered > 0


async def test_a_standby_that_has_caught_up_answers(tmp_path: Path) -> None:
    """A reader whose write was replayed is answered by the standby, and sees it."""
    async with (
        primary_and_standby(tmp_path, delay_ms=0) as (primary, standby),
        open_database(primary, replicas=[standby], migrate=True) as database,
    ):
        made, _ = await create(database, NewConversation(), "ada")
        replica = database.replicas
        async with asyncio.timeout(20):
            while replica.answered == 0:
                bodies, _, _ = await listing(
                    database.at(database.position), "ada", Filter(), limit=1
                )
                assert str(made).encode() in bodies[0]


async def test_a_standby_that_is_away_is_passed_over(database: str) -> None:
    """Nobody is kept waiting for it, and nothing is lost but its help."""
    async with open_database(
        database, replicas=["postgresql://greffier@/nowhere?host=/nonexistent"]
    ) as opened:
        made, _ = await create(opened, NewConversation(), "ada")

        bodies, _, _ = await listing(opened.at(opened.position), "ada", Filter())

        assert str(made).encode() in bodies[0]
        assert isinstance(opened.replicas, Replicas)
        assert opened.replicas.answered == 0
