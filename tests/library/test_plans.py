"""A page costs what is on it, however long the conversation and however full the database (P4)."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any
from uuid import UUID

import pytest
import pytest_asyncio

from greffier.model.ids import uuid7
from greffier.model.message import Draft
from greffier.read.audit import audit
from greffier.read.changes import changes
from greffier.store.database import Database
from greffier.store.queries import queries
from helpers.postgres import connected, new_database
from helpers.sessions import Session, sessions

LONG, SHORT, REWOUND, CUT = (UUID(int=n) for n in (100, 101, 102, 103))

#: Conversations: how many messages, and the active path.
TALKS = {
    LONG: (100_000, "{[1,)}"),
    SHORT: (1_000, "{[1,)}"),
    # Half of it was left, and a little said since.
    REWOUND: (20_000, "{[1,10001), [19951,)}"),
    # Rewound five hundred times.
    CUT: (10_000, "{" + ", ".join(f"[{n},{n + 10})" for n in range(1, 9981, 20)) + ", [9981,)}"),
}

FILL = """
insert into users (id, list_rev) select 'user ' || n, 1 from generate_series(1, 3000) n;
insert into users (id, list_rev) values ('ada', 3000);

insert into conversations (
    id, kind, owner_id, request_hash, created_at, updated_at, listed_at, last_seq, rev, path,
    message_count, said_total
)
select t.id, 'assistant', 'ada', t.id, now(), now(), now(), t.size, t.size + 1, t.path,
    coalesce((select sum(least(upper(x), t.size + 1) - lower(x)) from unnest(t.path) x), 0), t.size
from unnest($1::uuid[], $2::bigint[], $3::text[]::int8multirange[]) as t (id, size, path);

-- Three thousand of ada's and one of everybody else's, the oldest ten days ago.
insert into conversations (
    id, kind, owner_id, request_hash, created_at, updated_at, listed_at, last_seq, rev,
    message_count, said_total
)
select gen_random_uuid(), 'room', case when n <= 3000 then 'ada' else 'user ' || n - 3000 end,
    gen_random_uuid(), x.at, x.at + interval '5 minutes', x.at, 1, 2, 1, 1
from generate_series(1, 6000) n
cross join lateral (select now() - (n % 3000) * interval '5 minutes') x (at);

insert into participants (conversation_id, user_id, role, joined_at, rev)
select id, owner_id, 'owner', created_at, 1 from conversations;
insert into participants (conversation_id, user_id, role, joined_at, rev)
select id, 'user ' || n, 'member', created_at, 1 from conversations, generate_series(1, 3) n
where kind = 'room' and owner_id = 'ada';
insert into listings (user_id, conversation_id, listed_at, kind, list_rev)
select p.user_id, c.id, c.listed_at, c.kind, 1
from participants p join conversations c on c.id = p.conversation_id;

insert into messages (
    conversation_id, seq, id, request_hash, parent_seq, role, author_id, written_by, content,
    created_at, rev, said_no, tool_no
)
select c.id, n, gen_random_uuid(), '', nullif(n - 1, 0),
    case when n % 2 = 1 then 'user' else 'assistant' end,
    case when n % 2 = 1 then c.owner_id end, c.owner_id, repeat('word ', 20),
    c.created_at, n + 1, n, 0
from conversations c, generate_series(1, c.last_seq) n;
"""


@pytest_asyncio.fixture(scope="module")
async def filled(postgres: str, template: str) -> AsyncIterator[str]:
    """A database with some 150,000 messages in 6,000 conversations, as the server has them."""
    async with new_database(postgres, f"template {template}") as dsn:
        async with connected(dsn) as connection:
            sizes, paths = zip(*TALKS.values(), strict=True)
            first, *rest = FILL.split(";\n\n")
            await connection.execute(first)
            await connection.execute(rest[0], list(TALKS), list(sizes), list(paths))
            for statement in rest[1:]:
                await connection.execute(statement)
            await connection.execute("vacuum analyze")
        yield dsn


@pytest_asyncio.fixture
async def session(filled: str) -> AsyncIterator[Session]:
    """A session in it."""
    async with sessions(filled, 1) as (found,):
        yield found


def literal(value: object) -> str:
    """A parameter as EXPLAIN EXECUTE takes it."""
    return "null" if value is None else "'" + str(value).replace("'", "''") + "'"


async def explain(session: Session, name: str, *args: object) -> dict[str, Any]:
    """Run a named query as the server prepares it, and give its plan as it was executed."""
    await session.live.execute(f"deallocate all; prepare named as {queries()[name]}")
    call = f"execute named({', '.join(map(literal, args))})"
    await session.live.execute(call)  # what is read of the catalogue is not the query's cost
    rows = await session.live.fetchval(f"explain (analyze, buffers, format json) {call}")
    plan: dict[str, Any] = json.loads(rows)[0]["Plan"]
    return plan


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Every node of a plan."""
    yield plan
    for child in plan.get("Plans", ()):
        yield from nodes(child)


def buffers(plan: dict[str, Any], relation: str | None = None) -> int:
    """How many pages were looked at, in all or for one relation."""
    found = [plan] if relation is None else [
        node for node in nodes(plan) if node.get("Relation Name") == relation
    ]  # fmt: skip
    return sum(node["Shared Hit Blocks"] + node["Shared Read Blocks"] for node in found)


async def test_the_filled_database_is_one_of_ours(filled: str) -> None:
    """What is measured here would pass for what a server wrote."""
    report = await audit(Database(filled))
    assert report.clean, report.findings


WINDOWS = {
    "the latest": (None, 15, 0),
    "before the middle": (499, 15, 0),
    "after the middle": (500, 0, 15),
    "around the middle": (500, 8, 7),
    "the first": (0, 0, 15),
}


@pytest.mark.parametrize("window", WINDOWS.values(), ids=WINDOWS.keys())
async def test_a_page_costs_the_same_in_every_conversation(
    session: Session, window: tuple[int | None, int, int]
) -> None:
    """A hundred times as long, half of it rewound, cut into pieces: no more pages are looked at."""
    costs = {}
    for talk in TALKS:
        plan = await explain(session, "page", talk, "ada", *window, False, 16384, 1 << 20)
        assert {n["Node Type"] for n in nodes(plan) if n.get("Relation Name") == "messages"} <= {
            "Index Scan"
        }
        assert "Seq Scan" not in {n["Node Type"] for n in nodes(plan)}
        assert buffers(plan, "messages") <= 10
        costs[talk] = buffers(plan)

    assert costs[SHORT] <= 20
    # A level more of an index of a hundred times the entries, on each way down.
    assert costs[LONG] <= costs[SHORT] + 2
    # A stretch more is a way down more; and a path of five hundred does not fit into its row.
    assert costs[REWOUND] <= costs[SHORT] + 6
    assert costs[CUT] <= costs[SHORT] + 15


@pytest.mark.parametrize(
    ("name", "args", "most", "per_stretch"),
    [
        # With the last message, and ada's unread: counted to 1000, at most 50 pages of messages.
        ("get_conversation", ("ada", "epoch"), 120, 2),
        ("stretch_counts", ("ada",), 25, 8),
    ],
)
async def test_opening_a_conversation_costs_the_same_however_long_it_is(
    session: Session, name: str, args: tuple[str, ...], most: int, per_stretch: int
) -> None:
    """What is shown of it and counted in it comes from its row and a bounded number of messages."""
    for talk, (_, path) in TALKS.items():
        plan = await explain(session, name, talk, *args)
        assert "Seq Scan" not in {n["Node Type"] for n in nodes(plan)}
        assert buffers(plan) <= most + per_stretch * path.count("[")


async def test_a_list_costs_what_it_shows_however_many_conversations_a_user_has(
    session: Session,
) -> None:
    """Twenty of three thousand, first or later page, cost what a few dozen rows cost."""
    first = "9999-12-31", UUID(int=(1 << 128) - 1)
    later = await session.live.fetchval("select now() - interval '5 days'"), UUID(int=0)
    for at, after in (first, later):
        plan = await explain(
            session, "list_conversations", "ada", "epoch", False, "room", None, at, after, 21
        )
        assert "Seq Scan" not in {n["Node Type"] for n in nodes(plan)}
        assert buffers(plan, "listings") <= 120
        # Each row shown has its last message, its reader and what waits for them.
        assert buffers(plan) <= 21 * 20


@contextlib.asynccontextmanager
async def no_scan(session: Session) -> AsyncIterator[None]:
    """See that no large table is read from end to end, by what functions do inside them either."""

    async def scans() -> dict[str, int]:
        rows = await session.live.fetch(
            "select relname, seq_scan from pg_stat_xact_user_tables "
            "where relname in ('messages', 'conversations', 'participants', 'listings', 'users')"
        )
        return {row["relname"]: row["seq_scan"] for row in rows}

    # All in one transaction, for that is what the view counts; it is undone.
    async with session.open(undo=True):
        before = await scans()
        yield
        after = await scans()
        assert {name: n for name, n in after.items() if n > before.get(name, 0)} == {}


async def test_no_read_looks_through_a_whole_table(session: Session) -> None:
    """Neither a query nor what a function does inside it."""
    g = session
    room = await session.live.fetchval(
        "select id from conversations where kind = 'room' and owner_id = 'ada' limit 1"
    )
    async with no_scan(session):
        for talk in (LONG, room):
            await g.conversations.get(talk, actor="ada")
            await g.conversations.participants(talk, actor="ada")
            await g.conversations.branches(talk, actor="ada")
            await g.messages.recent(talk, actor="ada")
            await g.messages.after(talk, 0, actor="ada")
            await g.messages.get(talk, 1, actor="ada")
            await g.messages.versions(talk, 1, actor="ada")
            await g.messages.readers(talk, 1, actor="ada")
            await g.context(talk, actor="ada")
            await g.context(talk, max_messages=500, actor="ada")
            rev = (await g.conversations.get(talk)).rev
            await changes(session, talk, "ada", rev - 1)
        await g.conversations.list(user="ada")
        await g.conversations.list(user="user 7")


async def test_no_write_looks_through_a_whole_table(session: Session) -> None:
    """Whatever it is that changes."""
    g = session
    async with no_scan(session):
        await g.messages.append(LONG, content="one", id=uuid7())
        await g.messages.append_many(LONG, [Draft(id=uuid7(), content="x") for _ in range(100)])
        await g.messages.edit(LONG, 50_000, "edited")
        await g.messages.delete(LONG, 50_001, erase=True)
        await g.conversations.read(LONG, 60_000, user="ada")
        await g.conversations.rate(LONG, 1, user="ada", seq=7)
        await g.conversations.feedback(LONG, user="ada", seq=7)
        await g.messages.rewind(LONG, after_seq=70_000)
        (branch,) = await g.conversations.branches(LONG)
        await g.conversations.activate(LONG, branch.id)
        await g.conversations.update(LONG, title="long", metadata={"a": 1})
        made = await g.conversations.create(owner="ada", kind="room", subject="maths")
        await g.conversations.join(made.id, "user 8")
        token = (await g.conversations.invite(made.id)).token
        await g.conversations.accept(token, user="user 9")
        await g.conversations.leave(made.id, "user 8")
        await g.conversations.archive(made.id)
        await g.say("maths", "Bonjour", user="ada", id=uuid7())
        await g.conversations.erase(SHORT)


async def test_a_batch_reads_no_conversation_to_look_for_its_ids(session: Session) -> None:
    """250 ids in long conversations cost a few index probes each, under the plan that is kept."""
    async with session.open(undo=True):
        drafts = [Draft(id=uuid7(), content="x") for _ in range(100)]
        await session.messages.append_many(LONG, drafts)
        before = await fetched(session)
        await session.messages.append_many(LONG, drafts)
        assert await fetched(session) - before <= 2 * len(drafts)


async def fetched(session: Session) -> int:
    """How many messages were fetched so far in this transaction."""
    found: int = await session.live.fetchval(
        "select idx_tup_fetch + seq_tup_read from pg_stat_xact_user_tables "
        "where relname = 'messages'"
    )
    return found
