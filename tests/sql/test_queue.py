"""What those who operate lanes read, against lanes brought into each state by their functions."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from uuid import UUID

import msgspec
import pytest
import pytest_asyncio

from greffier.deliver.roster import Doing, Roster
from greffier.errors import Invalid
from greffier.model.ids import uuid7
from greffier.model.queue import (
    LANE_STATES,
    NOT_MADE,
    Diagnosis,
    EndpointLine,
    LaneState,
    Session,
    Table,
    WorkerLine,
    advise,
    find_alerts,
)
from greffier.read import queue
from greffier.store.database import Database, open_database
from greffier.store.queries import queries
from helpers.lanes import ENDPOINT, Hand, Lane
from helpers.postgres import connected

MINUTE = 1 / 60


@pytest_asyncio.fixture
async def db(database: str) -> AsyncIterator[Database]:
    """A database of the test's own."""
    async with open_database(database) as opened:
        yield opened


@pytest_asyncio.fixture
async def hand(database: str) -> AsyncIterator[Hand]:
    """A hand on it."""
    async with connected(database) as live:
        yield Hand(live)


async def in_every_state(hand: Hand) -> dict[LaneState, Lane]:
    """One lane of each state, by what really brings a lane there."""
    lanes: dict[LaneState, Lane] = {}
    lanes["leased"] = await hand.lane()
    await hand.claim_one()
    lanes["waiting"] = await hand.lane()
    claim = await hand.claim_one()
    await hand.intend(claim, 1)
    await hand.fail(claim, 1, retry_in=3600)
    lanes["parked"] = await hand.lane()
    claim = await hand.claim_one()
    await hand.intend(claim, 1)
    await hand.fail(claim, 1, outcome="rejected", reason="answered 400")
    await hand.live.execute(
        "insert into endpoints (id, everywhere, channel, target, secrets, ordering, request_hash,"
        " created_by, created_at, paused_at) values ($1, false, 'webhook', 'secret.example', '{}',"
        " 'strict', '', 'root', now(), now())",
        ENDPOINT,
    )
    lanes["endpoint"] = await hand.lane()
    claim = await hand.claim_one()
    await hand.call("defer_v1", *claim.lane, claim.token, None)
    lanes["paused"] = await hand.lane()
    await hand.pause(lanes["paused"])
    lanes["idle"] = await hand.lane(messages=1)
    claim = await hand.claim_one()
    await hand.intend(claim, 1)
    await hand.done(claim, 1)
    lanes["expired"] = await hand.lane()
    await hand.claim_one(lease=-60, owner="lost:1")
    lanes["due"] = await hand.lane()
    return lanes


async def test_every_lane_stands_in_one_state_and_is_listed_there(hand: Hand, db: Database) -> None:
    """Each state lists exactly its lanes, and all together are all there are."""
    lanes = await in_every_state(hand)
    assert set(lanes) == set(LANE_STATES)
    for state, lane in lanes.items():
        found, following = await queue.lanes(db, state=state)
        assert [one.id for one in found] == [lane.id], state
        assert [one.state for one in found] == [state]
        assert following is None
        assert (await queue.lane(db, lane.id)).state == state
    everything, _ = await queue.lanes(db)
    assert {one.id for one in everything} == {lane.id for lane in lanes.values()}
    assert (await queue.lanes(db, kind="run"))[0] == []


async def test_a_list_goes_on_where_it_ended(hand: Hand, db: Database) -> None:
    """Page by page, each lane once, the longest due first; those set aside by id."""
    lanes = [await hand.lane(messages=1) for _ in range(5)]
    for place, lane in enumerate(lanes):
        await hand.live.execute(
            "update lanes set due_at = timestamptz '2026-01-01' - $2::interval where id = $1",
            lane.id,
            # Two of them at the same time.
            timedelta(hours=max(1, place)),
        )
    found: list[UUID] = []
    cursor = None
    for _ in range(3):
        page, cursor = await queue.lanes(db, state="due", limit=2, cursor=cursor)
        found += [one.id for one in page]
    assert cursor is None
    ties = sorted((lanes[0].id, lanes[1].id))
    assert found == [lanes[4].id, lanes[3].id, lanes[2].id, *ties]

    for lane in lanes:
        await hand.pause(lane)
    found = []
    for _ in range(3):
        page, cursor = await queue.lanes(db, state="paused", limit=2, cursor=cursor)
        found += [one.id for one in page]
    assert (found, cursor) == (sorted(lane.id for lane in lanes), None)


@pytest.mark.parametrize(
    "cursor",
    [
        "",
        "x",
        "1.2.3",
        "٣.٣",
        f"1.{'9' * 5000}",
        "LTEyfA",
        "w6k",
        "fA",
        "OTk5OS05OS05OSA5OTo5OTo5OXwx",
        "\x00",
    ],
)
async def test_a_cursor_that_is_none_of_ours_is_refused(db: Database, cursor: str) -> None:
    """In words, before it reaches the database."""
    with pytest.raises(Invalid, match="cursor"):
        await queue.lanes(db, state="due", cursor=cursor)
    with pytest.raises(Invalid, match="cursor"):
        await queue.lanes(db, state="parked", cursor=cursor)
    with pytest.raises(Invalid, match="cursor"):
        await queue.attempts(db, uuid7(), cursor=cursor)
    with pytest.raises(Invalid, match="cursor"):
        await queue.attempts(db, cursor=cursor)


async def test_the_journal_of_a_lane_is_read_newest_first(hand: Hand, db: Database) -> None:
    """Each try with its fence and what came of it; null while nobody knows."""
    lane = await hand.lane()
    claim = await hand.claim_one()
    await hand.intend(claim, 1)
    await hand.fail(claim, 1, retry_in=0, outcome="uncertain")
    claim = await hand.claim_one()
    await hand.intend(claim, 1)
    await hand.done(claim, 1, keep=30)
    await hand.intend(claim, 2)
    tried, cursor = await queue.attempts(db, lane.id, limit=2)
    assert [(one.seq, one.fence, one.outcome) for one in tried] == [
        (2, 2, None),
        (1, 2, "accepted"),
    ]
    rest, end = await queue.attempts(db, lane.id, cursor=cursor)
    assert [(one.seq, one.fence, one.outcome) for one in rest] == [(1, 1, "uncertain")]
    assert end is None


async def test_a_diagnosis_counts_what_there_is(hand: Hand, db: Database) -> None:
    """Every state, tries and reasons; of what is well nobody complains."""
    well = await queue.diagnose(db)
    assert (well.well, well.alerts, well.advice) == (True, [], [])
    await in_every_state(hand)
    found = await queue.diagnose(db)
    assert {one.state: one.lanes for one in found.lanes} == dict.fromkeys(LANE_STATES, 1)
    assert {one.tries: one.lanes for one in found.tries} == {0: 6, 1: 2}
    assert [(one.reason, one.lanes, one.with_tries_left) for one in found.parked] == [
        ("answered 400", 1, 1)
    ]
    assert found.oldest_due is not None
    assert found.oldest_due >= 60
    assert (found.doubles, found.parked_today, found.given_up) == (0, 1, 0)
    assert not found.well
    assert {one.code for one in found.alerts} == {"no-worker"}
    assert {one.code for one in found.advice} == {
        *("no-worker", "expired-lease", "parked", "paused", "endpoint-paused"),
    }


async def test_workers_that_are_replaced_alarm_nobody(hand: Hand, db: Database) -> None:
    """For half a minute nobody may be there; a person who looks is told at once."""
    await hand.lane()
    found = await queue.diagnose(db)
    assert (found.alerts, [one.code for one in found.advice]) == ([], ["no-worker"])
    await hand.shift(1 * MINUTE)
    assert [one.code for one in (await queue.diagnose(db)).alerts] == ["no-worker"]


async def test_what_may_have_arrived_twice_is_counted_once_a_message(
    hand: Hand, db: Database
) -> None:
    """Two tries of which each may have arrived; what surely did not arrive is no double."""
    await hand.lane()
    for outcome in ("not_sent", "uncertain", "rejected", "uncertain"):
        claim = await hand.claim_one()
        await hand.intend(claim, 1)
        found = await queue.diagnose(db)
        # The second is under way when the first is known to be uncertain.
        assert found.doubles == (outcome in ("rejected", "uncertain") and claim.fence > 2)
        await hand.fail(claim, 1, retry_in=0, max_tries=10, outcome=outcome)
    claim = await hand.claim_one()
    await hand.intend(claim, 1)
    await hand.done(claim, 1)
    found = await queue.diagnose(db)
    assert found.doubles == 1
    assert "doubles" in {one.code for one in found.alerts}

    await hand.shift(25)
    assert (await queue.diagnose(db)).doubles == 0


async def test_a_try_that_was_not_made_is_no_double(hand: Hand, db: Database) -> None:
    """An endpoint that asks a person first is sent nothing, however often its lane is claimed."""
    await hand.lane()
    await hand.intend(await hand.claim_one(lease=60), 1)
    await hand.shift(2 * MINUTE)
    claim = await hand.claim_one()
    await hand.intend(claim, 1)
    await hand.call(
        "fail_v1", *claim.lane, claim.token, 1, "uncertain", NOT_MADE, None, None, "uncertain"
    )
    found = await queue.diagnose(db)
    assert (found.doubles, found.unsure_parked) == (0, 1)


async def test_a_dead_worker_s_message_is_sent_again_and_counted(hand: Hand, db: Database) -> None:
    """Nobody knows what came of what it intended: two intents explain the double."""
    await hand.lane(messages=1)
    await hand.intend(await hand.claim_one(lease=60), 1)
    assert (await queue.diagnose(db)).unsure_waiting == 0
    await hand.shift(2 * MINUTE)
    found = await queue.diagnose(db)
    assert (found.unsure_waiting, found.doubles) == (1, 0)
    claim = await hand.claim_one()
    await hand.intend(claim, 1)
    await hand.done(claim, 1)
    found = await queue.diagnose(db)
    assert (found.unsure_waiting, found.doubles) == (0, 1)


async def test_what_is_uncertain_and_parked_needs_a_person(hand: Hand, db: Database) -> None:
    """It is neither tried again nor forgotten."""
    await hand.lane()
    claim = await hand.claim_one()
    await hand.intend(claim, 1)
    await hand.fail(claim, 1, outcome="uncertain", reason="uncertain: no answer")
    found = await queue.diagnose(db)
    assert found.unsure_parked == 1
    assert "uncertain" in {one.code for one in found.alerts}
    assert "uncertain" in {one.code for one in found.advice if one.person}


async def test_work_that_takes_too_long_is_noticed_and_progress_is_not(
    hand: Hand, db: Database
) -> None:
    """Half an hour at one message; a holder that goes from message to message works."""
    await hand.lane()
    claim = await hand.claim_one(lease=7200)
    await hand.intend(claim, 1)
    await hand.shift(29 * MINUTE)
    assert (await queue.diagnose(db)).long == 0
    await hand.shift(31 * MINUTE)
    found = await queue.diagnose(db)
    assert found.long == 1
    assert "processing-long" in {one.code for one in found.alerts}
    await hand.done(claim, 1, keep=7200)
    await hand.intend(claim, 2)
    assert (await queue.diagnose(db)).long == 0
    # A run lane is held for one run alone.
    await hand.shift(0)
    await hand.running()
    await hand.shift(32 * MINUTE)
    assert (await queue.diagnose(db)).long == 1


async def test_more_than_ten_failures_in_a_day_are_too_many(hand: Hand, db: Database) -> None:
    """Parked, given up or answered by nothing, all together."""
    for _ in range(9):
        await hand.lane(messages=1)
    for claim in await hand.claim():
        await hand.intend(claim, 1)
        await hand.fail(claim, 1, outcome="rejected", reason="answered 400")
    # An endpoint that skips goes on behind what it did not get.
    await hand.lane(messages=1)
    claim = await hand.claim_one()
    await hand.intend(claim, 1)
    await hand.call("done_v1", *claim.lane, claim.token, 1, "rejected", "400", None, None)
    found = await queue.diagnose(db)
    assert (found.failed_today, found.given_up) == (10, 1)
    assert found.alerts == []
    claim, run = await hand.running()
    await hand.finish(claim, run, "failed", code="provider", detail="away")
    found = await queue.diagnose(db)
    assert found.failed_today == 11
    assert [one.code for one in found.alerts] == ["many-failed"]


async def test_a_worker_is_on_the_roster_while_it_works(hand: Hand, db: Database) -> None:
    """Told every few seconds; silent after half a minute, forgotten after a day."""
    roster = Roster(db, "here:1", 1, ["out"], lambda: Doing(2, 5, 1, 1, 0))
    await roster.say()
    await hand.lane()
    await hand.claim_one(owner="here:1", lease=3600)
    (line,) = (await queue.diagnose(db)).workers
    assert (line.id, line.alive, line.busy, line.holds) == ("here:1", True, 2, 1)
    assert (line.claimed, line.lost, line.refused) == (5, 1, 1)

    await hand.shift(1 * MINUTE)
    found = await queue.diagnose(db)
    assert found.alive == []
    (told,) = [one for one in found.advice if one.code == "dead-worker"]
    assert "here:1" in told.detail
    assert "holds 1 lane:" in told.detail

    await hand.shift(25)
    await Roster(db, "there:2", 2, ["out"], lambda: Doing(0, 0, 0, 0, 0)).say()
    assert [one.id for one in (await queue.diagnose(db)).workers] == ["there:2"]


async def test_a_worker_that_ends_says_so(db: Database) -> None:
    """Who stops as it should leaves no name behind; its run says it first of all."""
    roster = Roster(db, "here:1", 1, ["out"], lambda: Doing(0, 0, 0, 0, 0))
    running = asyncio.create_task(roster.run())
    while not (await queue.diagnose(db)).workers:
        assert not running.done()
    running.cancel()
    await asyncio.wait({running})
    assert (await queue.diagnose(db)).workers == []


async def test_a_clock_that_is_off_is_noticed(db: Database) -> None:
    """By what the worker's clock said around its own question."""
    roster = Roster(
        db, "here:1", 1, ["out"], lambda: Doing(0, 0, 0, 0, 0), wall=lambda: time.time() + 300
    )
    # Learned with the first word, told with the second; slow machines need more.
    (line,) = [one async for one in _until_known(roster, db)]
    assert 299 < (line.clock_ahead or 0) < 301
    found = await queue.diagnose(db)
    assert [one.code for one in found.advice if one.person] == ["clock"]


async def _until_known(roster: Roster, db: Database) -> AsyncIterator[WorkerLine]:
    while True:
        await roster.say()
        (line,) = (await queue.diagnose(db)).workers
        if line.clock_ahead is not None:
            yield line
            return


def test_each_advice_has_words_and_only_some_need_a_person() -> None:
    """What is well needs nobody; each trouble is named, with the command that ends it."""
    at = datetime(2026, 1, 1, tzinfo=UTC)
    well = Diagnosis(
        at=at, well=True, lanes=[], oldest_due=None, tries=[], parked=[], long=0, longest=None,
        unsure_parked=0, unsure_waiting=0, doubles=0, given_up=0, parked_today=0, runs={},
        refused_writes=0, workers=[], endpoints=[], clock_ahead=0.0, notifications=0.0,
        oldest_snapshot=None, tables=[], alerts=[], advice=[],
    )  # fmt: skip
    assert (advise(well), find_alerts(well)) == ([], [])
    endpoint = EndpointLine(
        id=UUID(int=1), channel="webhook", state="disabled", failures=9, failing_since=at,
        held_until=None, paused_at=None, disabled_at=at, disabled_reason="Answered 410.", waiting=2,
    )  # fmt: skip
    ill = msgspec.structs.replace(
        well,
        endpoints=[endpoint, msgspec.structs.replace(endpoint, state="slowed")],
        oldest_snapshot=Session(pid=7, application="psql", state="idle", seconds=3600),
        tables=[Table(name="lanes", live=10, dead=50_000, vacuumed_at=None)],
        notifications=0.7,
    )
    found = {one.code: one for one in advise(ill)}
    assert {code: one.person for code, one in found.items()} == {
        "endpoint-disabled": True,
        "endpoint-slowed": False,
        "old-snapshot": True,
        "dead-rows": False,
        "notifications": True,
    }
    assert "60 min" in found["old-snapshot"].detail
    assert [(one.code, one.count) for one in find_alerts(ill)] == [("endpoint-disabled", 1)]


FILL = """
insert into lanes (conversation_id, id, kind, endpoint_id, head_seq, tail_seq, due_at, parked_at,
    park_reason, token, tries)
select c.id, lane_id(c.id, 'out', $1), 'out', $1, 2, case when n > 200 then 1 else 3 end,
    case when n <= 50 then clock_timestamp() - interval '1 s'
         when n <= 100 then clock_timestamp() + interval '1 h' when n <= 120 then 'infinity' end,
    case when n between 121 and 200 then clock_timestamp() end,
    case when n between 121 and 200 then 'because' end,
    case when n between 51 and 100 then c.id end, 0
from generate_series(1, 60000) n
cross join lateral (select md5(n::text)::uuid as id) c
"""
JOURNAL = """
insert into attempts (conversation_id, lane_id, seq, fence, intended_at, outcome, settled_at)
select l.conversation_id, l.id, n, n, at, 'accepted', at
from generate_series(1, 10) n
cross join lateral (select clock_timestamp() - (10 - n) * interval '3 days' as at) t
cross join (select * from lanes limit 10000) l
order by n
"""
RUNS = """
insert into runs (conversation_id, id, number, agent_id, asked_by, origin, request_hash, created_at)
select md5(n::text)::uuid, md5(n::text)::uuid, 1, md5('')::uuid, 'ada', 'api', '',
    clock_timestamp() - (50000 - n) * interval '1 minute'
from generate_series(1, 50000) n
"""


async def test_what_is_asked_often_reads_what_it_is_about_and_no_more(
    hand: Hand, database: str
) -> None:
    """Lists, metrics and what can be unlocked cost what is not idle; the journal costs its day."""
    live = hand.live
    await live.execute("set max_parallel_workers_per_gather = 0")
    await live.execute(FILL, ENDPOINT)
    await live.execute(JOURNAL)
    await live.execute(RUNS)
    async with connected(database) as other:
        await other.execute("vacuum analyze lanes, attempts, runs")
    lane = await live.fetchval("select id from lanes limit 1")
    first = UUID(int=0)
    day = timedelta(days=1)
    asked: dict[str, tuple[int, list[object]]] = {
        "queue_gauges": (2000, []),
        "queue_heads": (2000, [day]),
        "queue_parked": (1000, [3, 10]),
        "queue_workers": (1000, [day, 10]),
        "lanes_waiting": (1000, ["due", None, "-infinity", first, 20]),
        "lanes_set_aside": (1000, ["parked", None, first, 20]),
        "lanes_all": (200, [None, None, first, 20]),
        "lane": (10, [lane]),
        "attempts_of_lane": (50, [lane, 100, 100, 20]),
        "lanes_to_unlock": (2000, [3, True, True, None, None, None]),
        # A day of ten that are three days apart, and of a month of runs; by whole blocks.
        "queue_journal": (60_000, [""]),
        "queue_runs": (10_000, []),
    }
    # Within one transaction, for that is what the view counts.
    async with live.transaction():
        scans, rows = await _read_so_far(hand)
        for name, (most, args) in asked.items():
            await live.fetch(queries()[name], *args)
            scanned, read = await _read_so_far(hand)
            assert scanned == scans, name
            assert read - rows <= most, name
            rows = read


async def _read_so_far(hand: Hand) -> tuple[int, int]:
    """Tables that were read whole, and rows that were read."""
    (row,) = await hand.live.fetch(
        "select sum(seq_scan)::bigint, sum(seq_tup_read + idx_tup_fetch)::bigint"
        " from pg_stat_xact_user_tables where relname in ('lanes', 'attempts', 'runs')"
    )
    return row[0], row[1]
