"""What lanes that are worked on in one process may count on when their words go together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import NamedTuple
from uuid import uuid4

import pytest
import pytest_asyncio

from greffier.deliver import lanes
from greffier.deliver.lanes import Claim
from greffier.deliver.settling import WIDE, Settling
from greffier.store.database import open_database
from helpers.lanes import ENDPOINT, Hand, Lane
from helpers.postgres import connected

ACCEPTED = ("accepted", None, None)


class Desk(NamedTuple):
    """A place where words come together, and somebody who looks at what they left."""

    settling: Settling
    hand: Hand
    claims: list[Claim]


@pytest_asyncio.fixture
async def desk(database: str) -> AsyncIterator[Desk]:
    """A process that holds some lanes."""
    async with open_database(database) as opened, connected(database) as live:
        hand = Hand(live)
        for _ in range(6):
            await hand.lane(3)
        claims = await lanes.claim(opened, "out", "here", 10, 60, 3, uuid4())
        yield Desk(Settling(opened, lease=60, needed=timedelta(seconds=1)), hand, claims)


async def journal(desk: Desk, claim: Claim) -> list[tuple[int, str | None]]:
    """What is on record of a lane."""
    return await desk.hand.journal(Lane(claim.conversation_id, claim.lane_id))


async def test_what_waits_together_is_one_commit(desk: Desk) -> None:
    """The intents of all, and after them what came of each with its next."""
    settling = desk.settling
    assert len(desk.claims) < WIDE
    answers = await asyncio.gather(*(settling.intend(claim, 1) for claim in desk.claims))
    assert (answers, settling.commits) == (["go"] * 6, 1)
    answers = await asyncio.gather(*(
        settling.done(claim, 1, ACCEPTED, ENDPOINT, keep=True, then=(2, None))
        for claim in desk.claims
    ))  # fmt: skip
    assert (answers, settling.commits, settling.alone) == (["go"] * 6, 2, 0)
    for claim in desk.claims:
        assert await journal(desk, claim) == [(1, "accepted"), (2, None)]


async def test_a_word_alone_waits_for_nobody(desk: Desk) -> None:
    """It is said as it comes."""
    claim = desk.claims[0]
    assert await desk.settling.intend(claim, 1) == "go"
    assert await desk.settling.done(claim, 1, ACCEPTED, ENDPOINT, keep=False, then=None) == "done"
    assert desk.settling.alone == 2


async def test_a_zombie_among_them_is_told_and_counted_and_the_others_go_on(desk: Desk) -> None:
    """Its lane is somebody else's."""
    zombie = desk.claims[2]
    await desk.hand.live.execute(
        "update lanes set token = gen_random_uuid(), fence = fence + 1 where id = $1",
        zombie.lane_id,
    )
    answers = await asyncio.gather(*(desk.settling.intend(claim, 1) for claim in desk.claims))
    assert answers == ["go", "go", "zombie", "go", "go", "go"]
    assert await desk.hand.refused(Lane(zombie.conversation_id, zombie.lane_id)) == 1


async def test_a_word_that_cannot_be_stored_breaks_only_itself(desk: Desk) -> None:
    """PostgreSQL refuses the call: each is then said alone."""
    settling = desk.settling
    await asyncio.gather(*(settling.intend(claim, 1) for claim in desk.claims))
    bad = desk.claims[3]
    answers = await asyncio.gather(*(
        settling.done(
            claim, 1, ("accepted", "\x00" if claim is bad else None, None), ENDPOINT,
            keep=True, then=(2, None),
        )
        for claim in desk.claims
    ), return_exceptions=True)  # fmt: skip
    assert [answer for answer in answers if answer != "go"] == [answers[3]]
    assert isinstance(answers[3], Exception)
    assert await journal(desk, bad) == [(1, None)]


async def test_who_waits_for_a_row_keeps_nobody_waiting(desk: Desk) -> None:
    """The others have their answers while somebody holds one of the lanes."""
    busy, *free = desk.claims
    holding = desk.hand.live.transaction()
    await holding.start()
    await desk.hand.live.execute("select from lanes where id = $1 for update", busy.lane_id)
    waits = asyncio.create_task(desk.settling.intend(busy, 1))
    assert await asyncio.gather(*(desk.settling.intend(claim, 1) for claim in free)) == ["go"] * 5
    goes = (desk.settling.done(c, 1, ACCEPTED, ENDPOINT, keep=True, then=(2, None)) for c in free)
    assert await asyncio.gather(*goes) == ["go"] * 5
    assert not waits.done()
    await holding.rollback()
    assert await waits == "go"


async def test_a_word_that_is_taken_back_in_time_is_not_said(desk: Desk) -> None:
    """Who leaves before the call is under way has intended nothing."""
    leaves, stays = desk.claims[:2]
    saying = [asyncio.create_task(desk.settling.intend(claim, 1)) for claim in (leaves, stays)]
    await asyncio.sleep(0)
    saying[0].cancel()
    assert await saying[1] == "go"
    with pytest.raises(asyncio.CancelledError):
        await saying[0]
    assert await journal(desk, leaves) == []
    assert await journal(desk, stays) == [(1, None)]
