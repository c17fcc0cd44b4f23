"""What a caller may count on who needs one of a few connections."""

from __future__ import annotations

import asyncio

import pytest

from greffier.store.slots import Slots

PID = "select pg_backend_pid()"


@pytest.fixture
def database(one_database: str) -> str:
    """One for all tests here."""
    return one_database


async def test_one_call_after_the_other_is_made_on_one_connection(database: str) -> None:
    """However many there may be: what it has planned is not planned again on each of the others."""
    slots = Slots(database, 4)
    asked = {(await slots.run(PID, again=True))[0][0] for _ in range(8)}
    assert len(asked) == 1
    await slots.close()


async def test_callers_at_the_same_time_have_a_connection_each(database: str) -> None:
    """Nobody waits for another's statement while a connection is free."""
    slots = Slots(database, 3)
    asked: set[int] = set()
    async with slots.use() as one, slots.use() as two, slots.use() as three:
        for slot in (one, two, three):
            asked.add((await slot.fetch(PID))[0][0])
    assert len(asked) == 3
    await slots.close()


async def test_who_waits_has_the_next_connection_in_the_order_they_came(database: str) -> None:
    """Whoever comes while some wait goes behind them, so that nobody waits for ever."""
    slots = Slots(database, 1)
    order: list[int] = []

    async def call(number: int) -> None:
        async with slots.use() as slot:
            order.append(number)
            await slot.fetch(PID)

    async with slots.use():
        calls = [asyncio.create_task(call(number)) for number in range(5)]
        # Each begins, and waits.
        await asyncio.sleep(0)
    await asyncio.gather(*calls)
    assert order == [0, 1, 2, 3, 4]
    await slots.close()
