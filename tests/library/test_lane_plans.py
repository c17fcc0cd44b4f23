"""What lanes and runs cost follows what is due, however much waits behind it or was before (P4)."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import pytest_asyncio

from greffier.read.audit import audit
from greffier.store.connection import connect
from greffier.store.database import Database
from greffier.store.slots import BY_KEY
from helpers.lanes import ENDPOINT, Hand, text, usage
from helpers.postgres import connected, new_database

BUSY = 200

#: Conversations with a lane each that somebody works on, and five hundred that are idle.
FILL = f"""
insert into users (id, list_rev) values ('ada', 1);
insert into conversations (
    id, kind, title, owner_id, request_hash, created_at, updated_at, listed_at
)
select md5(n::text)::uuid, 'assistant', 'busy', 'ada', md5(n::text)::uuid, now(), now(), now()
from generate_series(1, {BUSY}) n;
insert into participants (conversation_id, user_id, role, joined_at, rev)
select id, 'ada', 'owner', now(), 1 from conversations;
insert into listings (user_id, conversation_id, listed_at, kind, list_rev)
select 'ada', id, listed_at, kind, 1 from conversations;
insert into lanes (
    conversation_id, id, kind, endpoint_id, head_seq, tail_seq, due_at, fence, token, owner
)
select id, lane_id(id, 'out', '{ENDPOINT}'), 'out', '{ENDPOINT}', 1, 1,
    now() + interval '1 hour', 1, gen_random_uuid(), 'busy'
from conversations;
insert into lanes (conversation_id, id, kind, endpoint_id, head_seq, tail_seq)
select c.id, lane_id(c.id, 'out', e.id), 'out', e.id, 2, 1
from conversations c cross join (select md5('e' || n)::uuid as id from generate_series(1, 500) n) e;
"""

#: As many messages in each conversation, and as much work for the lane that is busy.
SAY = """
insert into messages (
    conversation_id, seq, id, request_hash, parent_seq, role, author_id, written_by, content,
    created_at, rev, said_no, tool_no
)
select c.id, n, gen_random_uuid(), '', nullif(n - 1, 0), 'user', 'ada', 'ada', repeat('word ', 20),
    c.created_at, n + 1, n, 0
from conversations c, generate_series(c.last_seq + 1, $1::bigint) n
where c.title = 'busy'
"""
COUNT = """
update conversations
set last_seq = $1::bigint, rev = $1::bigint + 1, message_count = $1::bigint,
    said_total = $1::bigint::integer
where title = 'busy'
"""
QUEUE = "update lanes set tail_seq = $1::bigint where owner = 'busy'"


@pytest_asyncio.fixture(scope="module")
async def filled(postgres: str, template: str) -> AsyncIterator[str]:
    """A database with a hundred thousand lanes."""
    async with new_database(postgres, f"template {template}") as dsn:
        async with connected(dsn) as live:
            await live.execute(FILL)
            await wait_behind(live, 5)
        yield dsn


async def wait_behind(live: Any, many: int) -> None:
    """Let so many messages in each conversation wait behind the first."""
    for statement in (SAY, COUNT, QUEUE):
        await live.execute(statement, many)
    await live.execute("vacuum analyze")


@pytest_asyncio.fixture
async def hand(filled: str) -> AsyncIterator[Hand]:
    """Somebody who works there, on a connection as the server's verbs have it."""
    live = await connect(filled, BY_KEY)
    try:
        yield Hand(live)
    finally:
        await live.close()


async def cost(hand: Hand, call: str, *, due: int = 0) -> tuple[int, int]:
    """Pages a call looks at, with what its functions look at, and rows it gives; it is undone."""
    # What is planned and read of the catalogue at the first call is not the statement's.
    for last in (False, True):
        transaction = hand.live.transaction()
        await transaction.start()
        try:
            await hand.live.execute(
                "update lanes set due_at = now() - interval '1 minute', tail_seq = 2 where id in "
                f"(select id from lanes where due_at is null order by id limit {due})"
            )
            found = await hand.live.fetchval(f"explain (analyze, buffers, format json) {call}")
        finally:
            await transaction.rollback()
        if last:
            plan = json.loads(found)[0]["Plan"]
    return plan["Shared Hit Blocks"] + plan["Shared Read Blocks"], plan["Actual Rows"]


CLAIM = "select * from claim_lanes_v1('out', 'w', 50, '30 s', 3)"


async def test_a_claim_costs_what_is_due_whatever_waits_behind_busy_lanes(
    filled: str, hand: Hand
) -> None:
    """1,000 or 100,000 messages behind 200 lanes that are worked on: the same pages are looked at.

    And a hundred thousand lanes with nothing to do are not looked at.
    """
    costs: dict[int, list[tuple[int, int]]] = {}
    for many in (5, 500):
        await wait_behind(hand.live, many)
        assert (await audit(Database(filled))).clean
        assert await hand.live.fetchval("select count(*) from messages") >= BUSY * many
        costs[many] = [await cost(hand, CLAIM, due=due) for due in (0, 1, 20)]
        assert [rows for _, rows in costs[many]] == [0, 1, 20]
    few, lots = ([pages for pages, _ in costs[many]] for many in (5, 500))
    # Nothing is due: the way down the index of those that will be, and the clock.
    assert few[0] == lots[0] <= 8
    # The rows are wherever the last update left them; a hundred times as much is not ten times.
    assert lots[1] <= few[1] + 5
    assert lots[2] <= few[2] * 1.2
    # A lane: its row, and its entries in three indexes for the row as it is now.
    assert few[2] <= few[0] + 20 * 25


@contextlib.asynccontextmanager
async def no_scan(hand: Hand) -> AsyncIterator[None]:
    """See that no table that grows is read from end to end, by functions either; it is undone."""
    transaction = hand.live.transaction()
    await transaction.start()
    scans = (
        "select relname, seq_scan from pg_stat_xact_user_tables where relname in "
        "('lanes', 'attempts', 'runs', 'run_ids', 'run_events', 'messages', 'conversations', "
        "'usage')"
    )

    async def counted() -> dict[str, int]:
        return {row["relname"]: row["seq_scan"] for row in await hand.live.fetch(scans)}

    try:
        before = await counted()
        yield
        after = await counted()
        assert {name: n for name, n in after.items() if n > before.get(name, 0)} == {}
    finally:
        await transaction.rollback()


async def fill_runs(hand: Hand, talk: UUID, many: int) -> None:
    """Give a conversation so many runs that never began, as it would have after cancelling each."""
    await hand.live.execute(
        "with made as (insert into runs (conversation_id, id, number, agent_id, asked_by, origin, "
        "status, request_hash, tape, last_event, created_at, ended_at) "
        "select $1, gen_random_uuid(), n, gen_random_uuid(), 'ada', 'api', 'cancelled', '', '{6}', "
        "1, now(), now() from generate_series(1, $2::bigint) n returning id) "
        "insert into run_ids select id, $1 from made",
        talk, many,
    )  # fmt: skip
    await hand.enqueue(talk, many, head=many + 1, kind="run")
    await hand.live.execute("analyze runs; analyze run_ids")


async def test_nothing_done_to_a_lane_or_run_looks_through_a_table(hand: Hand) -> None:
    """Among a hundred thousand lanes, and after twenty thousand answers in one conversation."""
    talk = await hand.talk(agent=await hand.agent())
    async with no_scan(hand):
        await fill_runs(hand, talk, 20_000)
        await hand.say(talk)
        lane = await hand.enqueue(talk, 1)
        claim = await hand.claim_one()
        await hand.intend(claim, 1)
        await hand.heartbeat(claim)
        await hand.fail(claim, 1, reason="410")
        await hand.unlock(lane)
        await hand.done(await hand.claim_one(), 1)
        await hand.enqueue(talk, 2)
        await hand.release(await hand.claim_one())
        await hand.pause(lane)
        await hand.pause(lane, False)
        await hand.call("retry_v1", *lane)
        await hand.call("skip_head_v1", *lane, "eve")
        run_claim, run = await hand.running(talk, message="hello")
        await hand.speak(run_claim, run, text("Hello"), usage())
        await hand.finish(run_claim, run)
        lost, _ = await hand.running(talk, origin="inbox")
        await hand.live.execute(
            "update lanes set due_at = now() - interval '1 s' "
            "where conversation_id = $1 and id = $2",
            *lost.lane,
        )
        await hand.begin(await hand.claim_one(kind="run", max_tries=None))
        await hand.cancel(talk, (await hand.conversation(talk))["active_run_id"])
        await hand.call("quota_refusal", "ada", await hand.clock())


async def test_a_word_costs_the_same_at_the_end_of_a_long_answer(hand: Hand) -> None:
    """Nothing grows with the square of what is said: a batch is one way down each index."""
    talk = await hand.talk(agent=await hand.agent())
    claim, run = await hand.running(talk)
    costs: list[int] = []
    for known in (2, 20_001):
        await hand.speak(claim, run, *[text("word ")] * (known - 1 - len(costs)), lease=3600)
        row = await hand.run(talk, run)
        pages, _ = await cost(
            hand,
            f"select * from say_in_runs_v1('{{{talk}}}', '{{{run}}}', '{{{claim.token}}}', "
            f"'{{{row['last_event']}}}', '{{1}}', '{{content.delta}}', '{{x}}', '30 s')",
        )
        costs.append(pages)
    # A level or two more of the index of what was said.
    assert costs[1] <= costs[0] + 8
    await hand.finish(claim, run)
    assert len((await hand.messages(talk))[-1]["content"]) == 5 * 20_000
