"""What those may count on who settle many lanes at once, beside others who hold some of them."""

from __future__ import annotations

from helpers.lanes import Claim, Hand
from helpers.sessions import Session
from helpers.settling import Word, settle, settle_alone


async def held(hand: Hand, many: int) -> list[Claim]:
    """Make lanes of three messages, claim them, and intend the first of each."""
    lanes = [await hand.lane(3) for _ in range(many)]
    claims = {claim.lane: claim for claim in await hand.claim(limit=many)}
    assert set(await settle(hand, *(Word(claim, then=1) for claim in claims.values()))) == {"go"}
    return [claims[lane] for lane in lanes]


async def test_who_holds_one_lane_keeps_the_others_from_nothing(rivals: list[Session]) -> None:
    """It is not waited for, and has no answer: its holder's own call waits."""
    first, second, _ = rivals
    comes, works = Hand(first.live), Hand(second.live)
    busy, *free = await held(works, 3)
    words = [Word(claim, 1, 2) for claim in (free[0], busy, free[1])]
    async with first.open():
        await comes.say(busy.lane.talk)
        await comes.enqueue(busy.lane.talk, 4)
        assert await settle(works, *words) == ["go", None, "go"]
        waiting = await second.waits(settle_alone(works, words[1]))
    assert await waiting == "go"
    assert (await works.look(busy.lane))["tail_seq"] == 4


async def test_two_calls_over_the_same_lanes_do_not_wait_for_each_other(
    rivals: list[Session],
) -> None:
    """In whatever order they were given; what the first did, the second finds done."""
    first, second, _ = rivals
    one, other = Hand(first.live), Hand(second.live)
    claims = await held(one, 2)
    words = [Word(claim, 1, 2) for claim in claims]
    async with first.open():
        assert await settle(one, *words) == ["go", "go"]
        assert await settle(other, *reversed(words)) == [None, None]
    assert [await settle_alone(other, word) for word in words] == ["go", "go"]
    for claim in claims:
        assert await one.journal(claim.lane) == [(1, "accepted"), (2, None)]


async def test_many_that_are_undone_stay_with_their_holder(rivals: list[Session]) -> None:
    """All of them, with the message that was under way."""
    first, second, _ = rivals
    one, other = Hand(first.live), Hand(second.live)
    claims = await held(one, 2)
    words = [Word(claim, 1, 2) for claim in claims]
    async with first.open(undo=True):
        assert await settle(one, *words) == ["go", "go"]
        waiting = await second.waits(settle_alone(other, words[0]))
    assert await waiting == "go"
    assert await settle(one, *words) == [None, "go"]


async def test_work_that_comes_while_many_are_done_is_not_forgotten(
    rivals: list[Session],
) -> None:
    """It waits for the call that ends its lane, and makes it due."""
    first, second, _ = rivals
    works, comes = Hand(first.live), Hand(second.live)
    claims = await held(works, 2)
    for claim in claims:
        await works.say(claim.lane.talk)
    async with first.open():
        assert await settle(works, *(Word(claim, 3, keep=False) for claim in claims)) == [
            "done", "done",
        ]  # fmt: skip
        waiting = await second.waits(comes.enqueue(claims[0].lane.talk, 4))
    await waiting
    assert [await works.state(claim.lane) for claim in claims] == ["due", "idle"]


async def test_a_claim_takes_no_lane_that_is_settled_meanwhile(rivals: list[Session]) -> None:
    """A lease that runs out under the call: whoever comes first has it, and never both."""
    first, second, _ = rivals
    works, thief = Hand(first.live), Hand(second.live)
    claims = await held(works, 2)
    await works.live.execute("update lanes set due_at = lane_clock() - interval '1 s'")
    async with first.open():
        await settle(works, *(Word(claim, 1) for claim in claims))
        assert await thief.claim() == []
    assert await thief.claim() == []
    await works.live.execute("update lanes set due_at = lane_clock() - interval '1 s'")
    async with second.open():
        assert len(await thief.claim()) == 2
        assert await settle(works, *(Word(claim, 2) for claim in claims)) == [None, None]
    assert [await settle_alone(works, Word(claim, 2)) for claim in claims] == ["zombie"] * 2
