"""What two who work on one lane, or on one conversation's run, at once may count on."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from datetime import timedelta
from typing import Any, NamedTuple
from uuid import UUID

import asyncpg
import pytest

from greffier.model.ids import uuid7
from helpers.lanes import Claim, Hand, Lane, text
from helpers.postgres import connected
from helpers.sessions import Session, until_waiting


def hands(rivals: list[Session]) -> list[Hand]:
    """What the sessions do with lanes."""
    return [Hand(session.live) for session in rivals]


async def told(doing: Coroutine[Any, Any, Any]) -> str:
    """What PostgreSQL refuses it with."""
    with pytest.raises(asyncpg.PostgresError) as refused:
        await doing
    code = refused.value.sqlstate
    assert code is not None
    return code


# -- Lost wake-ups, stale snapshots


async def test_work_that_comes_while_the_last_is_done_is_not_forgotten(
    rivals: list[Session],
) -> None:
    """Done waits for the enqueue under way, sees its tail, and leaves the lane due."""
    first, second, _ = rivals
    comes, works, _ = hands(rivals)
    lane = await works.lane(2, tail=1)
    claim = await works.claim_one()
    async with first.open():
        await comes.enqueue(lane.talk, 2)
        waiting = await second.waits(works.done(claim, 1))
    assert await waiting is True
    assert await works.state(lane) == "due"


async def test_work_that_waits_for_done_makes_the_lane_due_after(rivals: list[Session]) -> None:
    """The other order: the enqueue finds an idle lane."""
    first, second, _ = rivals
    works, comes, _ = hands(rivals)
    lane = await works.lane(2, tail=1)
    claim = await works.claim_one()
    async with first.open():
        await works.done(claim, 1)
        waiting = await second.waits(comes.enqueue(lane.talk, 2))
    await waiting
    assert await works.state(lane) == "due"


async def test_done_that_is_undone_leaves_the_lane_with_its_holder(rivals: list[Session]) -> None:
    """And the enqueue that waited for it leaves them their lease."""
    first, second, _ = rivals
    works, comes, _ = hands(rivals)
    lane = await works.lane(2, tail=1)
    claim = await works.claim_one()
    async with first.open(undo=True):
        await works.done(claim, 1)
        waiting = await second.waits(comes.enqueue(lane.talk, 2))
    await waiting
    assert await works.state(lane) == "leased"
    assert await works.done(claim, 1)
    assert await works.state(lane) == "due"


async def test_two_who_need_the_same_new_lane_have_one(rivals: list[Session]) -> None:
    """Also when the first of them is undone."""
    first, second, _ = rivals
    one, other, _ = hands(rivals)
    for undo, tail in ((False, 5), (True, 4)):
        talk = await one.talk()
        for _ in range(5):
            await one.say(talk)
        async with first.open(undo=undo):
            await one.enqueue(talk, 5)
            waiting = await second.waits(other.enqueue(talk, 4))
        lane = await waiting
        row = await one.look(lane)
        assert (row["tail_seq"], row["head_seq"]) == (tail, 1)
        assert await one.state(lane) == "due"


async def test_what_a_claim_is_for_is_read_after_it(rivals: list[Session]) -> None:
    """One statement that claims and reads may see nothing to do; the next sees what was committed.

    The statement is stopped when its snapshot is taken, and the message comes meanwhile: the
    claim, which looks afresh, finds the lane.  Whoever then says "nothing to do" would lose it.
    """
    first, second, _ = rivals
    comes, works, _ = hands(rivals)
    talk = await comes.talk()
    count = "(select count(*) from messages m where m.conversation_id = {}) as found"
    await comes.live.execute("select pg_advisory_lock(1)")
    at_once = await second.waits(
        works.live.fetch(
            "with gate as materialized (select pg_advisory_lock(1)), claimed as materialized ("
            "select c.* from gate, lateral "
            "(select pg_typeof(gate)) g, claim_lanes_v1('out', 'w', 9, '30 s', 3) c) "
            f"select c.tail_seq, {count.format('c.conversation_id')} from claimed c"
        )
    )
    async with first.open():
        await comes.say(talk)
        await comes.enqueue(talk, 1)
    await comes.live.execute("select pg_advisory_unlock(1)")
    ((tail, found),) = await at_once
    assert (tail, found) == (1, 0)
    assert await works.live.fetchval(f"select {count.format('$1')}", talk) == 1


# -- Claims


async def test_a_lane_is_claimed_by_one_and_nobody_waits_for_it(rivals: list[Session]) -> None:
    """The second takes what is left, at once; what the first gives back it takes after."""
    first, *_ = rivals
    one, other, _ = hands(rivals)
    lanes = {await one.lane(1) for _ in range(3)}
    async with first.open(undo=True):
        taken = {c.lane for c in await one.claim(limit=2)}
        assert len(taken) == 2
        assert {c.lane for c in await other.claim()} == lanes - taken
        assert await other.claim() == []
    assert {c.lane for c in await other.claim()} == taken


async def test_a_claim_that_was_looked_for_before_it_began_comes_too_late(
    rivals: list[Session],
) -> None:
    """Its caller has given it up: what it gave to them would wait for the end of its lease."""
    late, looks, again = hands(rivals)
    lane = await late.lane(1)
    token, lease = uuid7(), timedelta(seconds=30)
    # Looked for twice, on one connection and another, as when the first look is not answered.
    assert await looks.rows("claimed_v1", "out", token) == []
    assert await again.rows("claimed_v1", "out", token) == []
    assert await late.rows("claim_lanes_v1", "out", "late", 9, lease, 3, token) == []
    (found,) = await late.rows("claim_lanes_v1", "out", "later", 9, lease, 3, uuid7())
    assert (found["lane_id"], found["fence"]) == (lane.id, 1)


async def test_many_who_claim_at_once_have_each_lane_once(database: str) -> None:
    """However they come, no lane has two holders, and none is left over."""
    async with contextlib.AsyncExitStack() as stack:
        workers = [Hand(await stack.enter_async_context(connected(database))) for _ in range(8)]
        lanes = [await workers[0].lane(1) for _ in range(60)]

        async def drain(worker: Hand) -> list[Lane]:
            mine: list[Lane] = []
            while claims := await worker.claim(limit=3):
                mine += [c.lane for c in claims]
            return mine

        found = [lane for mine in await asyncio.gather(*map(drain, workers)) for lane in mine]
        # Whoever saw only rows that others held gave up early; what they held, they had.
        assert sorted(found) == sorted(lanes)


async def test_an_unlock_that_waits_for_done_finds_nothing_to_unlock(
    rivals: list[Session],
) -> None:
    """And one that came first keeps the holder out."""
    first, second, _ = rivals
    works, unlocks, _ = hands(rivals)
    lane = await works.lane(2)
    claim = await works.claim_one()
    async with first.open():
        await works.done(claim, 1)
        waiting = await second.waits(unlocks.unlock(lane, steal=True))
    assert await waiting is None
    assert await works.state(lane) == "due"

    claim = await works.claim_one()
    async with first.open():
        assert await works.unlock(lane, steal=True) == "stolen"
        done = await second.waits(unlocks.done(claim, 2))
    assert await done is False
    assert (await works.refused(lane), await works.state(lane)) == (1, "due")


async def test_a_done_whose_connection_broke_is_waited_for_by_its_repetition(
    rivals: list[Session],
) -> None:
    """The first may still be under way in the server: the second is no zombie's."""
    first, second, _ = rivals
    works, again, _ = hands(rivals)
    lane = await works.lane(1)
    claim = await works.claim_one()
    await works.intend(claim, 1)
    async with first.open():
        await works.done(claim, 1)
        waiting = await second.waits(again.done(claim, 1))
    assert await waiting is True
    assert await works.refused(lane) == 0


async def test_a_renewal_that_comes_too_late_waits_and_is_refused(rivals: list[Session]) -> None:
    """The lease was over, and somebody has claimed the lane: it is theirs."""
    first, second, _ = rivals
    claims, renews, _ = hands(rivals)
    lane = await claims.lane(1)
    old = await claims.claim_one(lease=-1)
    async with first.open():
        new = await claims.claim_one()
        waiting = await second.waits(renews.heartbeat(old))
    assert await waiting == set()
    assert await claims.refused(lane) == 1
    assert await claims.intend(new, 1) == "go"


async def test_a_renewal_that_comes_in_time_keeps_others_off(rivals: list[Session]) -> None:
    """Nobody takes a lane that is being renewed, though its lease is over."""
    first, _, _ = rivals
    renews, claims, _ = hands(rivals)
    lane = await renews.lane(1)
    claim = await renews.claim_one(lease=-1)
    async with first.open():
        assert await renews.heartbeat(claim) == {lane.id}
        assert await claims.claim() == []
    assert await claims.claim() == []
    assert await renews.intend(claim, 1) == "go"


async def test_a_message_that_is_deleted_before_it_is_begun_is_not_sent(
    rivals: list[Session],
) -> None:
    """Deleted and committed is seen by the next intent; what comes after the intent is too late."""
    first, _, _ = rivals
    deletes, works, _ = hands(rivals)
    lane = await works.lane(2)
    claim = await works.claim_one()
    async with first.open():
        await deletes.call("delete_message_v1", lane.talk, None, 1, True)
        # Nobody who sends waits for whoever writes in the conversation.
        assert await works.intend(claim, 1) == "go"
        await works.done(claim, 1, keep=30)
    await deletes.call("delete_message_v1", lane.talk, None, 2, True)
    assert await works.intend(claim, 2) == "skip"


async def test_an_erased_conversation_has_no_lane_to_hold(rivals: list[Session]) -> None:
    """Whoever works on it while it is erased is refused, and leaves nothing behind."""
    first, second, _ = rivals
    erases, works, _ = hands(rivals)
    lane = await works.lane(1)
    claim = await works.claim_one()
    async with first.open():
        await erases.call("erase_conversation_v1", lane.talk, None)
        waiting = await second.waits(works.intend(claim, 1))
    assert await waiting == "zombie"
    assert await works.live.fetchval("select count(*) from attempts") == 0


# -- Lock order


class Scene(NamedTuple):
    """A run that was lost and claimed anew, and who knows what of it."""

    talk: UUID
    run: UUID
    claim: Claim


Doing = Callable[[Hand, Scene], Coroutine[Any, Any, Any]]

#: All that locks a conversation and its run lane, or lanes alone.
VERBS: dict[str, Doing] = {
    "start": lambda h, s: h.start(s.talk, message="again"),
    "begin": lambda h, s: h.begin(s.claim),
    "say": lambda h, s: h.speak(s.claim, s.run, text("more")),
    "finish": lambda h, s: h.finish(s.claim, s.run),
    "cancel": lambda h, s: h.cancel(s.talk, s.run),
    "rewind": lambda h, s: h.rows("rewind_v1", s.talk, "ada", 1, uuid7()),
    "archive": lambda h, s: h.call(
        "patch_conversation_v1", s.talk, "ada", None, None, None, None, True
    ),
    "erase": lambda h, s: h.call("erase_conversation_v1", s.talk, "ada"),
    "heartbeat": lambda h, s: h.heartbeat(s.claim),
}


@pytest.fixture
async def holder(database: str) -> AsyncIterator[Hand]:
    """Somebody who holds a lane's row, and nothing else."""
    async with connected(database) as live:
        yield Hand(live)


@pytest.mark.parametrize("one", VERBS)
async def test_conversation_before_lane_whoever_meets_whom(
    rivals: list[Session], holder: Hand, one: str
) -> None:
    """Each pair ends, whichever comes first, when both want what the other could hold.

    The lane is held by a third, so that the first stands before it, with all it locks before; then
    the second comes.  Had either locked the lane before the conversation, letting go of the lane
    would leave each with what the other waits for.
    """
    first, second, _ = rivals
    a, b, sets = hands(rivals)
    agent = await sets.agent()
    for other, meets in VERBS.items():
        talk = await sets.talk(agent=agent)
        await sets.say(talk)
        _, run = await sets.running(talk)
        await sets.live.execute(
            "update lanes set due_at = lane_clock() - interval '1 s' where conversation_id = $1",
            talk,
        )
        found = await sets.claim(kind="run", limit=100, lease=-1, max_tries=None)
        (claim,) = (one for one in found if one.lane.talk == talk)
        scene = Scene(talk, run, claim)
        transaction = holder.live.transaction()
        await transaction.start()
        await holder.live.execute(
            "select from lanes where conversation_id = $1 for no key update", talk
        )
        waits = [
            await first.waits(VERBS[one](a, scene)),
            await second.waits(meets(b, scene)),
        ]
        await transaction.rollback()
        for ended in await asyncio.gather(*waits, return_exceptions=True):
            # Refused because of the other, perhaps; never for having waited for each other.
            if isinstance(ended, BaseException):
                assert isinstance(ended, asyncpg.PostgresError), f"{one}, {other}: {ended!r}"
                assert (ended.sqlstate or "").startswith("GR"), f"{one}, {other}: {ended!r}"


async def test_renewals_and_words_of_many_lanes_take_them_in_one_order(
    rivals: list[Session], holder: Hand
) -> None:
    """In whichever order they are given: two processes whose lanes overlap end both."""
    first, second, _ = rivals
    a, b, sets = hands(rivals)
    scenes = sorted([await sets.running() for _ in range(2)], key=lambda s: s[0].lane)
    claims = [claim for claim, _ in scenes]
    async with contextlib.AsyncExitStack() as stack:
        transaction = holder.live.transaction()
        await transaction.start()
        stack.push_async_callback(transaction.rollback)
        # The lane that is second in order: had anybody begun with it, they would wait with nothing.
        await holder.live.execute(
            "select from lanes where conversation_id = $1 for no key update", claims[1].lane.talk
        )
        one = await first.waits(a.heartbeat(*reversed(claims)))
        other = await second.waits(b.heartbeat(*claims))
    assert await one == await other == {claim.lane.id for claim in claims}
    for claim, run in scenes:
        await sets.finish(claim, run)


# -- Runs


async def crowd(database: str, many: int) -> tuple[contextlib.AsyncExitStack, list[Hand]]:
    """Open many connections."""
    stack = contextlib.AsyncExitStack()
    return stack, [Hand(await stack.enter_async_context(connected(database))) for _ in range(many)]


@pytest.mark.parametrize("same", [False, True], ids=["own ids", "one id"])
async def test_a_hundred_who_ask_at_once_have_one_answer(
    rivals: list[Session], database: str, same: bool
) -> None:
    """One run is created; with its id the others attach to it, with another they store nothing."""
    first, watch, _ = rivals
    one, _, sets = hands(rivals)
    talk = await sets.talk(agent=await sets.agent())
    id_, said = uuid7(), uuid7()
    stack, many = await crowd(database, 20)

    async def five(hand: Hand) -> list[str]:
        return [
            (
                await hand.start(
                    talk, id_ if same else None, message="hello", message_id=said if same else None
                )
            )["outcome"]
            for _ in range(5)
        ]

    async with stack:
        async with first.open():
            # Whoever wants the conversation stands before it, until all who can do.
            await one.call("lock_conversation_v1", talk, None, "owner")
            asking = [asyncio.create_task(five(hand)) for hand in many]
            await until_waiting(watch.live, len(many))
        outcomes = sorted(o for found in await asyncio.gather(*asking) for o in found)
    others = "attached" if same else "run-active"
    assert outcomes == sorted(["created", *[others] * 99])
    for table in ("messages", "runs", "run_ids", "lanes"):
        assert await sets.live.fetchval(f"select count(*) from {table}") == 1
    assert (await sets.conversation(talk))["rev"] == 2


@pytest.mark.parametrize("undo", [False, True], ids=["committed", "undone"])
async def test_one_run_id_in_two_conversations_at_once_is_the_first_ones(
    rivals: list[Session], undo: bool
) -> None:
    """The second is told so, and has stored nothing; unless the first is undone."""
    first, second, _ = rivals
    one, other, sets = hands(rivals)
    agent = await sets.agent()
    talks = [await sets.talk(agent=agent) for _ in range(2)]
    id_ = uuid7()
    async with first.open(undo=undo):
        assert (await one.start(talks[0], id_, message="a"))["outcome"] == "created"
        waiting = await second.waits(other.start(talks[1], id_, message="b"))
    outcome = (await waiting)["outcome"]
    assert outcome == ("created" if undo else "id-reused")
    assert [m["content"] for m in await sets.messages(talks[1])] == (["b"] if undo else [])
    assert await sets.live.fetchval("select count(*) from runs") == 1


async def test_a_question_that_waits_for_the_end_of_an_answer_begins_the_next(
    rivals: list[Session],
) -> None:
    """It was not too early: the run it would have met is over."""
    first, second, _ = rivals
    works, asks, _ = hands(rivals)
    claim, run = await works.running()
    await works.speak(claim, run, text("one"))
    async with first.open():
        await works.finish(claim, run)
        waiting = await second.waits(asks.start(claim.lane.talk, message="two"))
    assert (await waiting)["outcome"] == "created"
    assert [m["content"] for m in await asks.messages(claim.lane.talk)] == ["one", "two"]
    assert await asks.state(claim.lane) == "due"


async def test_an_answer_is_ended_once_by_whoever_comes_first(rivals: list[Session]) -> None:
    """Cancelled while it is finished it is complete; finished while it is cancelled, cancelled."""
    first, second, _ = rivals
    works, cancels, _ = hands(rivals)
    claim, run = await works.running()
    async with first.open():
        await works.finish(claim, run)
        waiting = await second.waits(cancels.cancel(claim.lane.talk, run))
    assert (await waiting)["status"] == "completed"

    claim, run = await works.running()
    await works.speak(claim, run, text("Once"))
    async with first.open():
        await works.cancel(claim.lane.talk, run)
        finishing = await second.waits(cancels.finish(claim, run))
    assert await finishing is None
    assert [m["status"] for m in await works.messages(claim.lane.talk)] == ["cancelled"]
    # It had the turn until then, and is no zombie.
    assert await works.refused(claim.lane) == 0


@pytest.mark.parametrize("how", ["rewind", "archive", "cancel", "erase"])
async def test_what_is_said_while_a_run_is_taken_back_is_not_stored(
    rivals: list[Session], how: str
) -> None:
    """Its holder waits, and hears that the run is no longer theirs."""
    first, second, _ = rivals
    ends, works, _ = hands(rivals)
    talk = await works.talk(agent=await works.agent())
    await works.say(talk)
    claim, run = await works.running(talk)
    await works.speak(claim, run, text("Once"))
    async with first.open():
        await VERBS[how](ends, Scene(talk, run, claim))
        waiting = await second.waits(works.speak(claim, run, text(" upon"), known=2))
    assert await waiting is None
    assert await works.live.fetchval("select count(*) from run_events") == 0
    contents = [m["content"] for m in await works.messages(talk)]
    assert contents == ([] if how == "erase" else ["hello", "Once"])


async def test_people_write_on_while_an_answer_is_stored(rivals: list[Session]) -> None:
    """Nobody who writes waits for what a run says, and the answer comes after them."""
    first, _, _ = rivals
    works, writes, _ = hands(rivals)
    claim, run = await works.running()
    async with first.open():
        await works.speak(claim, run, text("Once"))
        assert await writes.say(claim.lane.talk, "meanwhile") == 1
    await works.finish(claim, run)
    assert [m["content"] for m in await works.messages(claim.lane.talk)] == ["meanwhile", "Once"]


async def test_who_asks_in_what_is_being_archived_or_erased_is_told(rivals: list[Session]) -> None:
    """They wait, and then there is nowhere to answer."""
    first, second, _ = rivals
    ends, asks, sets = hands(rivals)
    agent = await sets.agent()
    for how in ("archive", "erase"):
        talk = await sets.talk(agent=agent)
        await sets.say(talk)
        async with first.open():
            await VERBS[how](
                ends, Scene(talk, uuid7(), Claim(Lane(talk, talk), 0, None, 0, 0, 0, False))
            )
            waiting = await second.waits(asks.start(talk, message="hello?"))
        if how == "archive":
            assert (await waiting)["outcome"] == "archived"
        else:
            assert await told(_await(waiting)) == "GR410"
    assert await sets.live.fetchval("select count(*) from runs") == 0


async def _await(task: asyncio.Task[Any]) -> Any:
    """What comes of a task."""
    return await task
