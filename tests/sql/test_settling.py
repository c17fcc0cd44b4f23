"""What may be counted on when many lanes are settled in one call."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from greffier.model.ids import uuid7
from greffier.store.queries import queries
from helpers.lanes import ENDPOINT, Claim, Hand, Lane
from helpers.postgres import connected
from helpers.settling import Word, settle, settle_alone

#: Columns of a lane that say when, or who: what may differ between two that went the same way.
WHEN = {"conversation_id", "id", "token", "due_at", "claimed_at"}


@pytest_asyncio.fixture
async def hand(database: str) -> AsyncIterator[Hand]:
    """Somebody with a connection to a new database."""
    async with connected(database) as live:
        yield Hand(live)


async def held(hand: Hand, many: int, messages: int = 3) -> list[Claim]:
    """Make lanes and claim them."""
    lanes = [await hand.lane(messages) for _ in range(many)]
    claims = {claim.lane: claim for claim in await hand.claim(limit=many)}
    return [claims[lane] for lane in lanes]


async def left(hand: Hand, lane: Lane) -> dict[str, Any]:
    """What a lane, its journal and its receipts say, but for when."""
    row = dict(await hand.look(lane))
    journal = await hand.live.fetch(
        "select seq, fence, outcome, detail, external_id, settled_at is null as open,"
        " token is not null as held from attempts where lane_id = $1 order by seq, fence",
        lane.id,
    )
    receipts = await hand.live.fetch(
        "select seq, status from receipts where conversation_id = $1 order by seq", lane.talk
    )
    return {
        **{name: row[name] for name in row if name not in WHEN},
        "state": await hand.state(lane),
        "journal": [tuple(one) for one in journal],
        "receipts": [tuple(one) for one in receipts],
    }


PLAIN: dict[str, list[dict[str, Any]]] = {
    "the first": [{"then": 1}],
    "the first, behind the head": [{"then": 2}],
    "all in order": [
        {"then": 1}, {"seq": 1, "then": 2}, {"seq": 2, "then": 3}, {"seq": 3, "keep": False},
    ],
    "one for nobody between": [{"then": 1}, {"seq": 1, "then": 3}, {"seq": 3, "keep": False}],
    "kept without a next": [{"then": 1}, {"seq": 1}],
    "let go with more to do": [{"then": 1}, {"seq": 1, "keep": False}],
    "the far side's word": [{"then": 1}, {"seq": 1, "then": 2, "external_id": "far"}],
    "refused, and gone on": [{"then": 1}, {"seq": 1, "then": 2, "outcome": "rejected"}],
}  # fmt: skip


@pytest.mark.parametrize("way", PLAIN)
async def test_many_at_once_leave_what_each_alone_leaves(hand: Hand, way: str) -> None:
    """Lane, journal and receipts are the same, and so are the answers."""
    alone, *together = await held(hand, 4)
    for step in PLAIN[way]:
        more = dict(step)
        external = more.pop("external_id", None)
        answer = await settle_alone(hand, Word(alone, **more, external_id=external and "far-0"))
        answers = await settle(hand, *(
            Word(claim, **more, external_id=external and f"far-{n}")
            for n, claim in enumerate(together, start=1)
        ))  # fmt: skip
        assert answers == [answer] * 3
    expected = await left(hand, alone.lane)
    for n, claim in enumerate(together, start=1):
        found = await left(hand, claim.lane)
        found["journal"] = [
            tuple("far-0" if part == f"far-{n}" else part for part in one)
            for one in found["journal"]
        ]
        assert found == expected


async def test_each_lane_has_its_own_answer_in_the_order_asked(hand: Hand) -> None:
    """One goes, one is skipped since its message was deleted, one was late, one is done."""
    goes, skips, late, done = await held(hand, 4)
    await hand.live.execute(
        "update messages set deleted_at = now() where conversation_id = $1 and seq = 1",
        skips.lane.talk,
    )
    await hand.live.execute("update lanes set due_at = lane_clock() where id = $1", late.lane.id)
    await hand.intend(done, 1)
    words = [Word(late, then=1), Word(done, 1), Word(skips, then=1), Word(goes, then=1)]
    assert await settle(hand, *words) == ["late", "done", "skip", "go"]
    assert await hand.journal(skips.lane) == [(1, "skipped")]
    assert (await hand.look(skips.lane))["head_seq"] == 2
    assert await hand.journal(late.lane) == []
    assert await hand.journal(goes.lane) == [(1, None)]


async def test_behind_what_is_done_a_deleted_message_is_skipped(hand: Hand) -> None:
    """The journal says so, and the lane stays its holder's behind it."""
    claim, other = await held(hand, 2)
    await settle(hand, Word(claim, then=1), Word(other, then=1))
    await hand.live.execute(
        "update messages set deleted_at = now() where conversation_id = $1 and seq = 2",
        claim.lane.talk,
    )
    assert await settle(hand, Word(claim, 1, 2), Word(other, 1, 2)) == ["skip", "go"]
    assert await hand.journal(claim.lane) == [(1, "accepted"), (2, "skipped")]
    assert await hand.state(claim.lane) == "leased"
    assert (await hand.look(claim.lane))["head_seq"] == 3


async def test_nothing_leaves_for_an_endpoint_that_was_paused_meanwhile(hand: Hand) -> None:
    """What was sent is done, and the next is late."""
    await hand.live.execute(
        "insert into endpoints (id, everywhere, channel, target, secrets, ordering, request_hash,"
        " created_by, created_at, paused_at)"
        " values ($1, false, 'x', 'x', '{}', 'strict', '', 'root', now(), now())",
        ENDPOINT,
    )
    claims = await held(hand, 2)
    await settle(hand, *(Word(claim, then=1) for claim in claims))
    assert await settle(hand, *(Word(claim, 1, 2) for claim in claims)) == ["late", "late"]
    for claim in claims:
        assert await hand.journal(claim.lane) == [(1, "accepted")]
        assert (await hand.look(claim.lane))["head_seq"] == 2


async def test_a_message_that_was_edited_since_it_was_read_is_to_be_read_again(hand: Hand) -> None:
    """What was before it is done; nothing is intended; another claim, as of now, may send it."""
    claims = await held(hand, 4)
    talks = [claim.lane.talk for claim in claims]
    rev = await hand.live.fetchval("select min(rev) from messages where seq = 2")
    await settle(hand, *(Word(claim, then=1) for claim in claims[:3]))
    await hand.live.execute(
        "update messages set content = 'edited', changed_rev = 99"
        " where seq = 2 and conversation_id = any ($1)",
        talks[1:],
    )
    same, *edited = (Word(claim, 1, 2, rev=rev) for claim in claims[:3])
    assert await settle(hand, same, edited[0]) == ["go", "late"]
    assert await settle_alone(hand, edited[1]) == "late"
    assert await settle_alone(hand, Word(claims[3], then=2, rev=rev)) == "late"
    for claim in claims[1:3]:
        assert await hand.journal(claim.lane) == [(1, "accepted")]
        assert await settle(hand, Word(claim, then=2, rev=99)) == ["go"]
    assert await hand.journal(claims[3].lane) == []


async def test_a_zombie_among_others_refuses_only_itself(hand: Hand) -> None:
    """Nothing of its lane changes; asked alone, it is refused and counted."""
    zombie, *others = await held(hand, 3)
    await hand.live.execute(
        "update lanes set due_at = lane_clock() - interval '1 s' where id = $1", zombie.lane.id
    )
    heir = await hand.claim_one()
    before = await left(hand, zombie.lane)
    words = [Word(claim, then=1) for claim in (zombie, *others)]
    assert await settle(hand, *words) == [None, "go", "go"]
    assert await settle(hand, *(word._replace(seq=1, then=2) for word in words)) == [
        None, "go", "go",
    ]  # fmt: skip
    assert await left(hand, zombie.lane) == before
    assert await settle_alone(hand, words[0]) == "zombie"
    assert await hand.refused(zombie.lane) == 1
    assert await settle(hand, Word(heir, then=1)) == ["go"]


async def test_what_is_said_twice_is_done_once(hand: Hand) -> None:
    """An intent is there already; what is done is not done again, whoever asks alone hears so."""
    claims = await held(hand, 2)
    first = [Word(claim, then=1) for claim in claims]
    assert [await settle(hand, *first) for _ in range(2)] == [["go", "go"]] * 2
    done = [Word(claim, 1, 2, external_id=f"far-{n}") for n, claim in enumerate(claims)]
    assert await settle(hand, *done) == ["go", "go"]
    after = [await left(hand, claim.lane) for claim in claims]
    assert await settle(hand, *done) == [None, None]
    assert [await settle_alone(hand, word) for word in done] == ["go", "go"]
    assert [await left(hand, claim.lane) for claim in claims] == after


async def test_a_skip_whose_answer_was_lost_is_answered_again(hand: Hand) -> None:
    """Its holder is no zombie."""
    claim, other = await held(hand, 2)
    await hand.live.execute(
        "update messages set deleted_at = now() where conversation_id = $1 and seq = 2",
        claim.lane.talk,
    )
    await settle(hand, Word(claim, then=1), Word(other, then=1))
    word = Word(claim, 1, 2)
    assert await settle(hand, word) == ["skip"]
    assert await settle(hand, word) == [None]
    assert await settle_alone(hand, word) == "skip"
    assert await hand.refused(claim.lane) == 0


@pytest.mark.parametrize("what", ["paused", "gone", "one message's own", "finished", "no next"])
async def test_what_is_not_plain_is_left_for_a_call_of_its_own(hand: Hand, what: str) -> None:
    """It has no answer and is as it was; the others have theirs."""
    claim, other = await held(hand, 2)
    await settle(hand, Word(claim, then=1), Word(other, then=1))
    word = Word(claim, 1, 2)
    match what:
        case "paused":
            await hand.pause(claim.lane)
        case "gone":
            await hand.live.execute("delete from lanes where id = $1", claim.lane.id)
        case "one message's own":
            await hand.live.execute("update lanes set tail_seq = 1 where id = $1", claim.lane.id)
            word = Word(claim, 1, endpoint=uuid7())
        case "finished":
            await hand.done(claim, 3)
        case _:
            word = Word(claim, 1, 2, keep=False)
    before = await hand.look(claim.lane)
    assert await settle(hand, word, Word(other, 1, 2)) == [None, "go"]
    assert await hand.look(claim.lane) == before


async def test_a_lease_that_is_nearly_whole_stays_and_another_is_renewed(hand: Hand) -> None:
    """As when it is said alone: due_at is indexed, and moves only when it has to."""
    fresh, old = await held(hand, 2)
    await hand.live.execute(
        "update lanes set due_at = lane_clock() + interval '5 s' where id = $1", old.lane.id
    )
    due = [(await hand.look(claim.lane))["due_at"] for claim in (fresh, old)]
    await settle(hand, Word(fresh, then=1), Word(old, then=1))
    assert await settle(hand, Word(fresh, 1, 2), Word(old, 1, 2)) == ["go", "go"]
    after = [(await hand.look(claim.lane))["due_at"] for claim in (fresh, old)]
    assert after[0] == due[0]
    assert (after[1] - due[1]).total_seconds() > 20


async def read_of(hand: Hand, table: str) -> int:
    """How many rows of a table were looked at in this transaction."""
    count: int = await hand.live.fetchval(
        "select coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0)"
        " from pg_stat_xact_user_tables where relname = $1",
        table,
    )
    return count


async def journal_of(hand: Hand, lane: Lane, many: int) -> None:
    """Let a lane have been told of so many messages."""
    await hand.live.execute(
        "insert into attempts (conversation_id, lane_id, seq, fence, intended_at, outcome)"
        " select $1, $2, n, 0, now(), 'accepted' from generate_series(1, $3::integer) n",
        *lane, many,
    )  # fmt: skip


async def test_a_call_planned_while_there_was_nothing_reads_by_key(hand: Hand) -> None:
    """What was said and done before costs nothing, however the connection was first used."""
    await hand.live.execute("set plan_cache_mode = force_generic_plan; set enable_seqscan = off")
    await hand.live.execute("vacuum analyze attempts, lanes")
    nobody = Claim(Lane(ENDPOINT, ENDPOINT), 1, ENDPOINT, 1, 1, 0, parked=False)
    assert await settle(hand, Word(nobody, 1, 2)) == [None]
    claims = await held(hand, 3)
    await settle(hand, *(Word(claim, then=1) for claim in claims))
    await journal_of(hand, await hand.lane(1), 1000)
    async with hand.live.transaction():
        before = await read_of(hand, "attempts")
        words = [Word(claim, 1, 2) for claim in claims]
        assert await settle(hand, *words) == ["go"] * 3
        assert await read_of(hand, "attempts") - before < 10


async def test_a_long_journal_is_not_read_to_send_the_next(hand: Hand) -> None:
    """Its thread is looked for among what the far side named."""
    lane = await hand.lane(1)
    await hand.live.execute("set enable_seqscan = off")
    await hand.live.execute(
        "insert into endpoints (id, everywhere, channel, target, secrets, ordering, request_hash,"
        " created_by, created_at) values ($1, false, 'x', 'x', '{}', 'strict', '', 'root', now())",
        ENDPOINT,
    )
    await journal_of(hand, lane, 1000)
    await hand.live.execute("update attempts set external_id = 'far' where seq in (3, 5)")
    async with hand.live.transaction():
        before = await read_of(hand, "attempts")
        (row,) = await hand.live.fetch(queries()["outgoing"], *lane, ENDPOINT)
        assert row["previous"] == ["far", "far"]
        assert await read_of(hand, "attempts") - before < 10
