"""What may be counted on of a lane: each function of 50_lanes.sql alone."""

from __future__ import annotations

from collections.abc import AsyncIterator
from uuid import UUID

import pytest
import pytest_asyncio

from helpers.lanes import Claim, Hand, Lane
from helpers.postgres import connected


@pytest_asyncio.fixture
async def hand(database: str) -> AsyncIterator[Hand]:
    """Somebody with a connection to a new database."""
    async with connected(database) as live:
        yield Hand(live)


# -- enqueue


async def test_work_that_is_asked_for_makes_the_lane_due(hand: Hand) -> None:
    """A lane is made when it is first needed, due at once, and stands before its first message."""
    lane = await hand.lane(2)
    assert await hand.state(lane) == "due"
    row = await hand.look(lane)
    assert (row["head_seq"], row["tail_seq"], row["tries"], row["fence"]) == (1, 2, 0, 0)


async def test_work_asked_for_later_moves_the_tail_and_never_back(hand: Hand) -> None:
    """The last number there is work for only grows, and there is one lane for one endpoint."""
    lane = await hand.lane(2)
    assert await hand.enqueue(lane.talk, 5) == lane
    assert await hand.enqueue(lane.talk, 4) == lane
    assert (await hand.look(lane))["tail_seq"] == 5


async def test_work_that_is_undone_was_never_asked_for(hand: Hand) -> None:
    """It is asked for in the transaction of the change it follows from."""
    lane = await hand.lane(1)
    transaction = hand.live.transaction()
    await transaction.start()
    await hand.enqueue(lane.talk, 9)
    await transaction.rollback()
    assert (await hand.look(lane))["tail_seq"] == 1


async def test_new_work_does_not_shorten_what_is_waited_for(hand: Hand) -> None:
    """A lease and a retry stand, and neither parked nor paused lanes begin again by it."""
    leased, retried, parked, paused = [await hand.lane(1) for _ in range(4)]
    claims = {c.lane: c for c in await hand.claim()}
    await hand.fail(claims[retried], 1, retry_in=60)
    await hand.fail(claims[parked], 1, reason="410")
    await hand.release(claims[paused])
    await hand.pause(paused)
    before = {lane: await hand.look(lane) for lane in (leased, retried, parked, paused)}
    for lane, row in before.items():
        await hand.enqueue(lane.talk, 2)
        after = await hand.look(lane)
        assert (after["due_at"], after["token"]) == (row["due_at"], row["token"])
    assert [await hand.state(lane) for lane in before] == ["leased", "waiting", "parked", "paused"]


async def test_new_work_in_a_paused_lane_leaves_its_lease_alone(hand: Hand) -> None:
    """Whoever works on it when it is paused may end, and a worker that dies there is found out."""
    lane = await hand.lane(1)
    await hand.claim_one()
    await hand.pause(lane)
    await hand.enqueue(lane.talk, 2)
    assert await hand.state(lane) == "paused, leased"


async def test_what_was_done_is_not_asked_for_again(hand: Hand) -> None:
    """An idle lane stays idle when the tail does not move."""
    lane = await hand.lane(1)
    await hand.done(await hand.claim_one(), 1)
    await hand.enqueue(lane.talk, 1)
    assert await hand.state(lane) == "idle"


# -- claim


async def test_a_claimed_lane_is_nobody_elses(hand: Hand) -> None:
    """Until its lease is over; who has it and since when is on record."""
    lane = await hand.lane()
    claim = await hand.claim_one(owner="w1")
    assert claim.lane == lane
    assert (claim.fence, claim.head, claim.tail, claim.tries, claim.parked) == (1, 1, 3, 0, False)
    assert await hand.claim() == []
    assert await hand.state(lane) == "leased"
    row = await hand.look(lane)
    assert (row["owner"], row["claimed_at"] is not None) == ("w1", True)


async def test_the_longest_due_are_claimed_first_and_no_more_than_asked_for(hand: Hand) -> None:
    """Whoever waits longest is next, whatever else there is."""
    talks = [await hand.talk() for _ in range(4)]
    lanes = [await hand.enqueue(talk, 1, delay=-n) for n, talk in enumerate(talks)]
    first = await hand.claim(limit=2)
    second = await hand.claim(limit=2)
    assert {c.lane for c in first} == set(lanes[2:])
    assert {c.lane for c in second} == set(lanes[:2])


async def test_a_kind_of_work_is_claimed_by_its_own_workers(hand: Hand) -> None:
    """Those who send do not take the runs, nor the other way round."""
    talk = await hand.talk()
    out = await hand.enqueue(talk, 1)
    run = await hand.enqueue(talk, 1, kind="run")
    assert [c.lane for c in await hand.claim(kind="run")] == [run]
    assert [c.lane for c in await hand.claim(kind="out")] == [out]


async def test_a_lost_lease_is_due_and_counts_as_a_try(hand: Hand) -> None:
    """Recovery is the claim itself; the fence rises, and there is another token."""
    lane = await hand.lane()
    first = await hand.claim_one(lease=-1)
    assert await hand.state(lane) == "expired"
    second = await hand.claim_one()
    assert (second.tries, second.fence) == (1, first.fence + 1)
    assert second.token != first.token


async def test_a_lane_that_keeps_losing_its_workers_is_parked(hand: Hand) -> None:
    """After as many lost leases as are allowed, with its reason, and others go on."""
    poison, other = await hand.lane(), await hand.lane()
    for claim in await hand.claim(lease=-1):
        if claim.lane == other:
            await hand.done(claim, 3)
    for tries in (1, 2):
        assert (await hand.claim_one(lease=-1)).tries == tries
    parked = await hand.claim_one(lease=-1)
    assert (parked.lane, parked.parked, parked.token, parked.tries) == (poison, True, None, 3)
    assert await hand.state(poison) == "parked"
    assert (await hand.look(poison))["park_reason"] == "its worker was lost 3 times"
    assert await hand.claim() == []


async def test_lanes_without_a_limit_are_never_parked_by_lost_leases(hand: Hand) -> None:
    """Runs are claimed so: whatever was lost, somebody has to end it."""
    await hand.enqueue(await hand.talk(), 1, kind="run")
    for tries in range(6):
        claim = await hand.claim_one(kind="run", lease=-1, max_tries=None)
        assert (claim.tries, claim.parked) == (tries, False)


async def test_a_paused_lane_that_lost_its_worker_waits_for_the_one_who_paused_it(
    hand: Hand,
) -> None:
    """A claim lets it go and takes nothing; resumed, it is due with the try counted."""
    lane = await hand.lane()
    zombie = await hand.claim_one(lease=-1)
    await hand.pause(lane)
    assert await hand.claim() == []
    assert await hand.state(lane) == "paused"
    assert await hand.done(zombie, 1) is False
    await hand.pause(lane, False)
    assert (await hand.claim_one()).tries == 1


# -- intend


async def test_an_intent_is_on_record_before_the_deed(hand: Hand) -> None:
    """With nothing said of how it went; a second one by the same holder is the same."""
    lane = await hand.lane()
    claim = await hand.claim_one()
    assert [await hand.intend(claim, 1) for _ in range(2)] == ["go", "go"]
    assert await hand.journal(lane) == [(1, None)]


async def test_whoever_has_too_little_time_left_does_not_begin(hand: Hand) -> None:
    """What may not be over before the lease is, is left to the next holder."""
    lane = await hand.lane()
    claim = await hand.claim_one(lease=5)
    assert await hand.intend(claim, 1, margin=60) == "late"
    assert await hand.journal(lane) == []
    assert await hand.intend(claim, 1, margin=1) == "go"


async def test_nothing_begins_in_a_lane_that_was_paused_meanwhile(hand: Hand) -> None:
    """What is under way may end; the next message may not begin."""
    lane = await hand.lane()
    claim = await hand.claim_one()
    assert await hand.intend(claim, 1) == "go"
    await hand.pause(lane)
    assert await hand.intend(claim, 2) == "late"
    assert await hand.done(claim, 1, keep=30)
    assert await hand.state(lane) == "paused"


@pytest.mark.parametrize("how", ["deleted", "erased", "rewound"])
async def test_a_message_that_is_no_longer_wanted_is_passed_over(hand: Hand, how: str) -> None:
    """Deleted, erased or off the active path: it is not sent, and the journal says so."""
    lane = await hand.lane(3)
    claim = await hand.claim_one()
    if how == "rewound":
        await hand.rows("rewind_v1", lane.talk, None, 0, UUID(int=1))
    else:
        await hand.call("delete_message_v1", lane.talk, None, 1, how == "erased")
    assert await hand.intend(claim, 1) == "skip"
    assert await hand.journal(lane) == [(1, "skipped")]
    assert (await hand.look(lane))["head_seq"] == 2
    assert await hand.intend(claim, 2) == ("skip" if how == "rewound" else "go")


async def test_what_was_nothing_for_the_lane_is_left_behind_by_an_intent(hand: Hand) -> None:
    """The head is the message that is being tried: it is what fails, parks and is skipped."""
    lane = await hand.lane(5)
    claim = await hand.claim_one()
    assert await hand.intend(claim, 4) == "go"
    await hand.fail(claim, 4, reason="410")
    assert (await hand.look(lane))["head_seq"] == 4
    assert await hand.call("skip_head_v1", *lane, "ops") == 4
    assert (await hand.claim_one()).head == 5


# -- done


async def test_what_is_done_is_behind_the_lane(hand: Hand) -> None:
    """Kept, the lane goes on with the next; let go, it is due if there is more, else idle."""
    lane = await hand.lane(3)
    claim = await hand.claim_one()
    assert await hand.intend(claim, 1) == "go"
    assert await hand.done(claim, 1, keep=30)
    assert await hand.state(lane) == "leased"
    assert await hand.intend(claim, 2) == "go"
    assert await hand.done(claim, 2)
    assert await hand.state(lane) == "due"
    last = await hand.claim_one()
    assert (last.head, last.fence) == (3, 2)
    assert await hand.intend(last, 3) == "go"
    assert await hand.done(last, 3, keep=30)
    assert await hand.state(lane) == "idle"
    assert await hand.journal(lane) == [(1, "accepted"), (2, "accepted"), (3, "accepted")]


@pytest.mark.parametrize("keep", [None, 30.0], ids=["let go", "kept"])
async def test_done_said_twice_is_done_once(hand: Hand, keep: float | None) -> None:
    """The answer may be lost on the way: the second time is no refusal, and changes nothing."""
    lane = await hand.lane(2)
    claim = await hand.claim_one()
    await hand.intend(claim, 1)
    assert await hand.done(claim, 1, keep=keep)
    before = dict(await hand.look(lane))
    assert await hand.done(claim, 1, keep=keep)
    assert dict(await hand.look(lane)) == before
    if keep is None:
        # Also when somebody else has the lane since, whose lease it leaves alone.
        other = await hand.claim_one()
        assert await hand.done(claim, 1)
        assert await hand.intend(other, 2) == "go"
    assert await hand.refused(lane) == 0


async def test_success_forgets_the_tries_of_before(hand: Hand) -> None:
    """They are the head's, not the lane's."""
    lane = await hand.lane(2)
    await hand.fail(await hand.claim_one(), 1, retry_in=0)
    claim = await hand.claim_one()
    assert claim.tries == 1
    await hand.done(claim, 1)
    assert (await hand.look(lane))["tries"] == 0


# -- fail


async def test_what_failed_is_tried_again_later(hand: Hand) -> None:
    """Not before its time, with the same head, and the journal has both tries."""
    lane = await hand.lane(2)
    claim = await hand.claim_one()
    await hand.intend(claim, 1)
    assert await hand.fail(claim, 1, retry_in=60)
    assert await hand.state(lane) == "waiting"
    assert await hand.claim() == []
    await hand.shift(0.5)
    again = await hand.claim_one()
    assert (again.head, again.tries) == (1, 1)
    await hand.intend(again, 1)
    await hand.done(again, 1)
    assert await hand.journal(lane) == [(1, "not_sent"), (1, "accepted")]


async def test_failing_said_twice_is_one_try(hand: Hand) -> None:
    """A failure whose answer was lost does not use up two."""
    lane = await hand.lane(1)
    claim = await hand.claim_one()
    await hand.intend(claim, 1)
    assert [await hand.fail(claim, 1) for _ in range(2)] == [True, True]
    row = await hand.look(lane)
    assert (row["tries"], row["refused"]) == (1, 0)


async def test_a_lane_that_failed_too_often_is_parked_for_a_person(hand: Hand) -> None:
    """It says how often and why, and waits."""
    lane = await hand.lane(1)
    for _ in range(3):
        await hand.fail(await hand.claim_one(), 1, retry_in=0)
    assert await hand.state(lane) == "parked"
    assert (await hand.look(lane))["park_reason"] == "tried 3 times: 503"


async def test_a_failure_for_good_parks_at_once(hand: Hand) -> None:
    """With the reason that was given."""
    lane = await hand.lane(1)
    await hand.fail(await hand.claim_one(), 1, reason="the address is gone")
    assert await hand.state(lane) == "parked"
    assert (await hand.look(lane))["park_reason"] == "the address is gone"


async def test_a_failure_without_a_time_is_due_at_once(hand: Hand) -> None:
    """No lane is lost for want of one."""
    lane = await hand.lane(1)
    await hand.fail(await hand.claim_one(), 1, retry_in=None)
    assert await hand.state(lane) == "due"


# -- heartbeat, release


async def test_a_heartbeat_renews_what_is_still_ours_and_names_it(hand: Hand) -> None:
    """Also a lease that has run out, as long as nobody has taken the lane."""
    kept, taken = await hand.lane(), await hand.lane()
    claims = {c.lane: c for c in await hand.claim(lease=-1)}
    (stolen,) = await hand.claim(limit=1, lease=60)
    (ours,) = [c for c in claims.values() if c.lane != stolen.lane]
    assert {kept, taken} == {ours.lane, stolen.lane}
    assert await hand.heartbeat(*claims.values()) == {ours.lane.id}
    assert await hand.state(ours.lane) == "leased"
    assert [await hand.refused(lane) for lane in (ours.lane, stolen.lane)] == [0, 1]


async def test_a_heartbeat_for_what_was_just_let_go_is_no_zombie(hand: Hand) -> None:
    """It had been sent before; nothing is counted, and nothing is renewed."""
    lane = await hand.lane(1)
    claim = await hand.claim_one()
    await hand.done(claim, 1)
    assert await hand.heartbeat(claim) == set()
    assert (await hand.refused(lane), await hand.state(lane)) == (0, "idle")


async def test_who_lets_go_uses_up_no_try(hand: Hand) -> None:
    """A worker that stops gives its lanes back as it found them."""
    lane = await hand.lane()
    assert await hand.release(await hand.claim_one())
    assert await hand.state(lane) == "due"
    assert (await hand.claim_one()).tries == 0


# -- zombies


async def refusals(hand: Hand, zombie: Claim) -> None:
    """Try everything with a token that is no longer the lane's."""
    lane = zombie.lane
    before = {**await hand.look(lane)}
    assert await hand.intend(zombie, 1) == "zombie"
    assert await hand.done(zombie, 1) is False
    assert await hand.fail(zombie, 1) is False
    assert await hand.release(zombie) is False
    after = {**await hand.look(lane)}
    assert after.pop("refused") == before.pop("refused") + 4
    assert after == before
    assert await hand.heartbeat(zombie) == set()


async def test_nothing_is_accepted_of_whoever_lost_the_lane(hand: Hand) -> None:
    """Each of its writes changes nothing and is counted; the new holder's goes on."""
    lane = await hand.lane()
    zombie = await hand.claim_one(lease=-1)
    holder = await hand.claim_one()
    await refusals(hand, zombie)
    assert await hand.intend(holder, 1) == "go"
    assert await hand.done(holder, 1)
    assert await hand.journal(lane) == [(1, "accepted")]


@pytest.mark.parametrize("how", ["parked", "unlocked", "finished", "fenced"])
async def test_nothing_is_accepted_either_when_nobody_has_it_now(hand: Hand, how: str) -> None:
    """Whatever became of the lane meanwhile."""
    lane = await hand.lane(1)
    zombie = await hand.claim_one(lease=-1)
    match how:
        case "parked":
            await hand.claim(max_tries=1)
        case "unlocked":
            assert await hand.unlock(lane) == "expired"
        case "finished":
            await hand.done(await hand.claim_one(), 1)
        case _:
            await hand.call("refence_lanes_v1")
    await refusals(hand, zombie)


# -- operators


async def test_what_may_be_unlocked_and_how(hand: Hand) -> None:
    """Expired and parked at will; with force when its tries are used up; stolen only by name."""
    idle, leased, expired, parked, spent = [await hand.lane(1) for _ in range(5)]
    claims = {c.lane: c for c in await hand.claim()}
    await hand.done(claims[idle], 1)
    await hand.fail(claims[parked], 1, reason="410")
    await hand.fail(claims[spent], 1, max_tries=1)
    await hand.live.execute(
        "update lanes set due_at = lane_clock() - interval '1 s' where id = $1", expired.id
    )
    await hand.live.execute("update lanes set tries = 3 where id = $1", spent.id)

    async def attempt(**how: bool) -> list[str | None]:
        transaction = hand.live.transaction()
        await transaction.start()
        was = [await hand.unlock(lane, **how) for lane in (idle, leased, expired, parked, spent)]
        for lane, word in zip((idle, leased, expired, parked, spent), was, strict=True):
            if word is not None:
                row = await hand.look(lane)
                assert await hand.state(lane) == "due"
                assert (row["tries"], row["token"], row["park_reason"]) == (0, None, None)
                assert row["fence"] == claims[lane].fence + 1
        await transaction.rollback()
        return was

    assert await attempt() == [None, None, "expired", "parked", None]
    assert await attempt(force=True) == [None, None, "expired", "parked", "parked"]
    assert await attempt(steal=True) == [None, "stolen", "expired", "parked", None]
    assert await hand.unlock(Lane(UUID(int=1), UUID(int=1))) is None


async def test_a_retry_is_now_with_all_tries_unless_somebody_works_on_it(hand: Hand) -> None:
    """What waits or is parked begins again; a lease, or an idle lane, is left alone."""
    waiting, parked, leased, idle = [await hand.lane(1) for _ in range(4)]
    claims = {c.lane: c for c in await hand.claim()}
    await hand.fail(claims[waiting], 1)
    await hand.fail(claims[parked], 1, reason="410")
    await hand.done(claims[idle], 1)
    lanes = (waiting, parked, leased, idle)
    assert [await hand.call("retry_v1", *lane) for lane in lanes] == [True, True, False, False]
    assert [await hand.state(lane) for lane in lanes] == ["due", "due", "leased", "idle"]
    assert [(await hand.look(lane))["tries"] for lane in (waiting, parked)] == [0, 0]


async def test_the_head_is_given_up_by_name(hand: Hand) -> None:
    """The journal says who; the lane goes on behind it, or is idle; a lease is left alone."""
    lane = await hand.lane(2)
    claim = await hand.claim_one()
    assert await hand.call("skip_head_v1", *lane, "eve") is None
    await hand.intend(claim, 1)
    await hand.fail(claim, 1, reason="410")
    assert await hand.call("skip_head_v1", *lane, "eve") == 1
    assert await hand.state(lane) == "due"
    assert await hand.call("skip_head_v1", *lane, "eve") == 2
    assert await hand.state(lane) == "idle"
    assert await hand.call("skip_head_v1", *lane, "eve") is None
    assert await hand.journal(lane) == [(1, "not_sent"), (1, "skipped"), (2, "skipped")]
    details = await hand.live.fetch("select detail from attempts where outcome = 'skipped'")
    assert {row[0] for row in details} == {"skipped by eve"}


async def test_a_run_is_not_given_up_but_cancelled(hand: Hand) -> None:
    """A run lane's head is a run, which has an end of its own."""
    lane = await hand.enqueue(await hand.talk(), 1, kind="run")
    assert await hand.call("skip_head_v1", *lane, "eve") is None


async def test_a_paused_lane_begins_nothing_until_it_is_resumed(hand: Hand) -> None:
    """Whatever state it was in; doing so twice is once."""
    due, parked, idle = [await hand.lane(1) for _ in range(3)]
    claims = {c.lane: c for c in await hand.claim()}
    await hand.release(claims[due])
    await hand.fail(claims[parked], 1, reason="410")
    await hand.done(claims[idle], 1)
    lanes = (due, parked, idle)
    assert [[await hand.pause(lane) for lane in lanes] for _ in range(2)] == [
        [True] * 3,
        [False] * 3,
    ]
    assert await hand.claim() == []
    states = ["paused", "paused, parked", "paused, idle"]
    assert [await hand.state(lane) for lane in lanes] == states
    for lane in lanes:
        assert await hand.pause(lane, False)
        assert await hand.pause(lane, False) is False
    assert [await hand.state(lane) for lane in lanes] == ["due", "parked", "idle"]


@pytest.mark.parametrize("how", ["done", "failed", "released", "lost"])
async def test_what_is_under_way_when_a_lane_is_paused_may_end(hand: Hand, how: str) -> None:
    """Then it stands still, whichever way it ended, and loses nothing."""
    lane = await hand.lane(2)
    claim = await hand.claim_one(lease=-1 if how == "lost" else 30)
    await hand.pause(lane)
    match how:
        case "done":
            assert await hand.done(claim, 1, keep=30)
        case "failed":
            assert await hand.fail(claim, 1)
        case "released":
            assert await hand.release(claim)
        case _:
            pass
    assert await hand.claim() == []
    assert await hand.state(lane) == "paused"
    await hand.pause(lane, False)
    assert (await hand.claim_one()).head == (2 if how == "done" else 1)


async def test_a_lane_resumed_while_it_is_worked_on_keeps_its_holder(hand: Hand) -> None:
    """Pausing and resuming at once changes nothing for them."""
    lane = await hand.lane()
    claim = await hand.claim_one()
    await hand.pause(lane)
    await hand.pause(lane, False)
    assert await hand.state(lane) == "leased"
    assert await hand.intend(claim, 1) == "go"


async def test_after_a_restore_every_fence_is_new(hand: Hand) -> None:
    """Who held a lane is refused, what they worked on is due, and fences are above all before."""
    leased, paused, idle = [await hand.lane(1) for _ in range(3)]
    claims = {c.lane: c for c in await hand.claim()}
    await hand.done(claims[idle], 1)
    await hand.pause(paused)
    assert await hand.call("refence_lanes_v1") == 3
    states = [await hand.state(lane) for lane in (leased, paused, idle)]
    assert states == ["due", "paused", "idle"]
    assert (await hand.claim_one()).fence > 1_000_000
    assert await hand.done(claims[leased], 1) is False


# -- clocks


async def test_a_clock_that_jumps_ahead_ends_every_lease_and_breaks_no_order(hand: Hand) -> None:
    """All is due at once; who had it is refused as soon as somebody else has it."""
    lanes = [await hand.lane(2) for _ in range(3)]
    before = {c.lane: c for c in await hand.claim()}
    await hand.shift(1)
    assert [await hand.state(lane) for lane in lanes] == ["expired"] * 3
    after = {c.lane: c for c in await hand.claim()}
    assert set(after) == set(lanes)
    for lane in lanes:
        assert await hand.done(before[lane], 1) is False
        assert await hand.intend(after[lane], 1) == "go"
        assert await hand.done(after[lane], 1)
        assert (await hand.look(lane))["head_seq"] == 2


async def test_a_clock_that_jumps_back_delays_recovery_and_loses_nothing(hand: Hand) -> None:
    """Leases last an hour longer; work goes on for whoever holds them."""
    lane = await hand.lane(2)
    claim = await hand.claim_one(lease=30)
    await hand.shift(-1)
    assert await hand.claim() == []
    assert await hand.intend(claim, 1) == "go"
    assert await hand.done(claim, 1, keep=30)
    # Its first renewal puts the lease right.
    await hand.shift(-1 + 31 / 3600)
    assert await hand.state(lane) == "expired"
