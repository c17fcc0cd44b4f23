"""Promise: the ledger says what every run took, no more; a used-up quota stops the next run."""

from __future__ import annotations

import csv
import json
from collections import Counter
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import greffier
from greffier import Greffier, Invalid, NotFound, Stale
from greffier.change.agent import create_echo
from greffier.model.agent import ECHO_ID
from greffier.model.ids import uuid7
from greffier.model.usage import total
from greffier.read.usage import statement, usage_of_all
from greffier.store.connection import Connection
from greffier.store.database import Database, open_database
from greffier.store.queries import queries
from helpers.lanes import Hand
from helpers.postgres import connected

COUNTS = ("input_tokens", "output_tokens", "cached_tokens")


def used(tokens: int, answer: int = 0, cached: int = 0, cost: str = "0") -> tuple[str, str]:
    """What a question to a model took, as a run says it."""
    said = f'{{"input_tokens":{tokens},"output_tokens":{answer},"cached_tokens":{cached}'
    return "usage", f'{said},"cost":{cost}}}'


async def spend(
    hand: Hand, owner: str, *events: tuple[str, str], status: str = "completed"
) -> UUID:
    """Let a new run of this user's say so much."""
    talk = await hand.talk(owner, agent=await hand.agent())
    claim, run = await hand.running(talk, actor=owner)
    for event in events:
        assert await hand.speak(claim, run, event) is not None
    assert await hand.finish(claim, run, status) is not None
    return run


async def ledger_at(live: Connection, run: UUID, at: datetime) -> None:
    """Let a run have ended at another time."""
    await live.execute("update usage set at = $2 where run_id = $1", run, at)


# -- agents ----------------------------------------------------------------------------------------


async def test_agents_are_values(g: Greffier) -> None:
    """Made, found again, listed, changed over the version that was seen, and deleted."""
    tool = {"type": "function", "function": {"name": "look"}}
    made = await g.agents.create(name="A", provider="echo", model="echo", tools=[tool])

    assert made.tools == [
        greffier.Tool(type="function", function=greffier.ToolFunction(name="look"))
    ]
    assert await g.agents.get(made.id) == made
    assert (await g.agents.list()).data == [made]
    changed = await g.agents.update(made.id, instructions="be kind", if_version=1)
    assert (changed.version, changed.instructions, changed.tools) == (2, "be kind", made.tools)
    with pytest.raises(Stale):
        await g.agents.update(made.id, name="B", if_version=1)
    with pytest.raises(Invalid, match="function"):
        await g.agents.update(made.id, tools=[{"type": "function"}])
    with pytest.raises(Invalid, match="script"):
        await g.agents.update(made.id, provider="script")
    await g.agents.delete(made.id)
    with pytest.raises(NotFound):
        await g.agents.get(made.id)


async def test_echo_is_made_where_there_never_was_an_agent(store: Database, g: Greffier) -> None:
    """Once in the life of a database, whatever becomes of it."""
    await create_echo(store)
    await create_echo(store)
    (echo,) = (await g.agents.list()).data
    assert (echo.id, echo.name, echo.provider) == (ECHO_ID, "Echo", "echo")

    await g.agents.delete(ECHO_ID)
    await create_echo(store)

    assert (await g.agents.list()).data == []


async def test_a_change_between_looking_and_storing_is_not_lost(
    store: Database, g: Greffier, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who changes something else meanwhile has it changed, and so has the other."""
    made = await g.agents.create(name="A", provider="echo", model="echo")
    looked = 0
    call = store.verb

    async def verb(sql: str, *args: Any, **how: Any) -> Any:
        nonlocal looked
        rows = await call(sql, *args, **how)
        if "agent_json" in sql:
            looked += 1
            if looked == 1:
                await g.agents.update(made.id, instructions="be kind")
        return rows

    monkeypatch.setattr(store, "verb", verb)
    changed = await g.agents.update(made.id, name="B")

    assert (changed.name, changed.instructions, changed.version) == ("B", "be kind", 3)


# -- the ledger ------------------------------------------------------------------------------------

_questions = st.lists(
    st.tuples(
        st.integers(0, 10**9),
        st.integers(0, 10**6),
        st.integers(0, 10**9),
        st.decimals(0, 1000, places=9),
    ),
    max_size=4,
)
_runs = st.lists(
    st.tuples(
        st.sampled_from(["ada", "bob"]),
        _questions,
        st.sampled_from(["completed", "failed", "cancelled", "interrupted"]),
    ),
    min_size=1,
    max_size=6,
)


@settings(max_examples=20, deadline=None)
@given(_runs)
async def test_the_ledger_is_the_sum_of_what_the_runs_took(
    one_database: str, runs: list[tuple[str, list[Any], str]]
) -> None:
    """However they ended: tokens, calls and cost to the last digit, for each user and for all."""
    names = {name: f"{name}-{uuid7()}" for name in ("ada", "bob")}
    expected: dict[str, Counter[str]] = {name: Counter() for name in names}
    costs: dict[str, Decimal] = dict.fromkeys(names, Decimal())
    async with connected(one_database) as live, open_database(one_database) as database:
        hand = Hand(live)
        for name, questions, status in runs:
            events = [used(i, o, c, f"{cost:f}") for i, o, c, cost in questions]
            await spend(hand, names[name], *events, status=status)
            expected[name] += Counter(
                runs=1,
                calls=len(questions),
                input_tokens=sum(one[0] for one in questions),
                output_tokens=sum(one[1] for one in questions),
                cached_tokens=sum(one[2] for one in questions),
            )
            costs[name] += sum((one[3] for one in questions), Decimal())
        for name, user in names.items():
            row = await live.fetchrow(
                "select count(*) as runs, coalesce(sum(calls), 0) as calls,"
                " coalesce(sum(input_tokens), 0) as input_tokens,"
                " coalesce(sum(output_tokens), 0) as output_tokens,"
                " coalesce(sum(cached_tokens), 0) as cached_tokens,"
                " coalesce(sum(cost), 0) as cost from runs where asked_by = $1",
                user,
            )
            assert row is not None
            found = await Greffier(database).usage(user)
            for field in ("runs", "calls", *COUNTS):
                assert getattr(found.totals, field) == row[field] == expected[name][field]
            assert found.totals.cost == row["cost"] == costs[name]
            assert found.totals == total(found.by)
        _, users = await usage_of_all(database)
        theirs = {one.user_id: one for one in users}
        for name, user in names.items():
            if expected[name]["runs"]:
                assert theirs[user].cost == costs[name]
                assert theirs[user].runs == expected[name]["runs"]


async def test_a_run_that_never_began_is_not_on_the_ledger(database: str, g: Greffier) -> None:
    """It took nothing; it was asked for and cancelled."""
    async with connected(database) as live:
        hand = Hand(live)
        talk = await hand.talk(agent=await hand.agent())
        run = uuid7()
        await hand.start(talk, run)
        await hand.cancel(talk, run)

    assert (await g.usage("ada")).totals.runs == 0


async def test_a_month_ends_with_its_last_moment_in_utc(database: str, g: Greffier) -> None:
    """Whatever the time zone of who asks; each run is in one month."""
    async with connected(database) as live:
        hand = Hand(live)
        for tokens, at in (
            (1, datetime(2026, 1, 31, 23, 59, 59, 999_999, UTC)),
            (10, datetime(2026, 2, 1, tzinfo=UTC)),
            (100, datetime(2026, 2, 28, 23, 59, 59, 999_999, UTC)),
            (1000, datetime(2026, 3, 1, tzinfo=UTC)),
        ):
            await ledger_at(live, await spend(hand, "ada", used(tokens)), at)

    found = {
        month: (await g.usage("ada", month=month)).totals.input_tokens
        for month in ("2025-12", "2026-01", "2026-02", "2026-03")
    }
    assert found == {"2025-12": 0, "2026-01": 1, "2026-02": 110, "2026-03": 1000}
    present = await g.usage("ada")
    assert present.month == f"{datetime.now(UTC):%Y-%m}"
    assert present.totals.runs == 0
    for wrong in ("2026-13", "2026-1", "2026", "0999-01", "2026-01-01", " 2026-01", "٢٠٢٦-01"):
        with pytest.raises(Invalid):
            await g.usage("ada", month=wrong)


# -- quotas ----------------------------------------------------------------------------------------


async def test_a_quota_is_said_kept_and_taken_back(database: str, g: Greffier) -> None:
    """And the log has who said what, and what stood before."""
    nothing = greffier.Quota()
    assert await g.quota("ada") == nothing
    assert (await g.usage("ada")).quota is None

    said = await g.set_quota("ada", tokens_per_month=1000, cost_per_month=0.1, actor="root")

    assert said == greffier.Quota(tokens_per_month=1000, cost_per_month=Decimal("0.1"))
    assert (await g.usage("ada")).quota == said
    assert await g.set_quota("ada") == nothing
    assert (await g.usage("ada")).quota is None
    async with connected(database) as live:
        log = await live.fetch(
            "select actor, action, subject, before, after from admin_log order by at"
        )
    first, second = (
        (row["actor"], row["action"], row["subject"], *map(json.loads, row[3:])) for row in log
    )
    limits = {"tokens_per_month": 1000, "cost_per_month": 0.1}
    empty = dict.fromkeys(limits)
    assert first == ("root", "quota", "ada", empty, limits)
    assert second == ("service", "quota", "ada", limits, empty)


@pytest.mark.parametrize(
    ("wrong", "pointer"),
    [
        ({"tokens_per_month": -1}, "/tokens_per_month"),
        ({"tokens_per_month": 1 << 53}, "/tokens_per_month"),
        ({"cost_per_month": -0.01}, "/cost_per_month"),
        ({"cost_per_month": float("nan")}, "/cost_per_month"),
        ({"cost_per_month": float("inf")}, "/cost_per_month"),
        ({"cost_per_month": Decimal("1e400")}, "/cost_per_month"),
        ({"cost_per_month": Decimal("1e-13")}, "/cost_per_month"),
        ({"user": ""}, "/user_id"),
        ({"user": "a" * 257}, "/user_id"),
        ({"user": "a\x00"}, "/user_id"),
    ],
)
async def test_a_quota_that_makes_no_sense_is_refused(
    g: Greffier, wrong: dict[str, Any], pointer: str
) -> None:
    """With the place that is wrong."""
    with pytest.raises(Invalid) as refused:
        await g.set_quota(**{"user": "ada", **wrong})

    assert refused.value.problems[0].pointer == pointer


async def test_a_used_up_quota_refuses_the_next_run_and_no_run_that_began(
    database: str, g: Greffier
) -> None:
    """One token below it a run may begin, whatever it then takes; at it none does."""
    async with connected(database) as live:
        hand = Hand(live)
        talk = await hand.talk(agent=await hand.agent())
        await g.set_quota("ada", tokens_per_month=100)
        for tokens, outcome in ((60, "created"), (39, "created"), (500, "created"), (0, "refused")):
            run = uuid7()
            asked = await hand.start(talk, run, message="?")
            if outcome == "refused":
                assert (asked["outcome"], asked["message_stored"]) == ("quota-exceeded", False)
                assert "599 of 100 tokens" in asked["detail"]
                break
            assert asked["outcome"] == "created"
            claim = await hand.claim_one(kind="run")
            await hand.begin(claim)
            await hand.speak(claim, run, used(tokens - tokens // 3, tokens // 3))
            await hand.finish(claim, run)
        said = [row["content"] for row in await hand.messages(talk) if row["role"] == "user"]
        assert said == ["?"] * 3

        # Money is counted on its own, and nobody else's.
        await g.set_quota("ada", cost_per_month=0)
        assert (await hand.start(talk, uuid7()))["outcome"] == "quota-exceeded"
        await g.set_quota("ada")
        assert (await hand.start(talk, uuid7()))["outcome"] == "created"


async def test_a_new_month_begins_with_its_first_moment_in_utc(database: str, g: Greffier) -> None:
    """What was used up a moment before midnight counts no more a moment after it."""
    midnight = datetime(2026, 3, 1, tzinfo=UTC)
    async with connected(database) as live:
        hand = Hand(live)
        await g.set_quota("ada", tokens_per_month=10, cost_per_month=1)
        run = await spend(hand, "ada", used(10, cost="0.5"))
        moment = timedelta(microseconds=1)
        for at, now, refused in (
            (midnight - moment, midnight - moment, True),
            (midnight - moment, midnight, False),
            (midnight, midnight, True),
            (midnight, midnight + timedelta(days=30, hours=23), True),
            (midnight, midnight + timedelta(days=31), False),
        ):
            await ledger_at(live, run, at)
            for zone in ("UTC", "Pacific/Kiritimati", "America/Los_Angeles"):
                await live.execute(f"set timezone = '{zone}'")
                why = await live.fetchval("select quota_refusal('ada', $1)", now)
                assert (why is not None) is refused, (at, now, zone)


async def test_a_month_costs_what_is_in_it_however_long_the_ledger(database: str) -> None:
    """To look at one's month, and to be let begin a run, reads nobody else's lines or years."""
    async with connected(database) as live:
        await live.execute(
            "insert into usage select 'user ' || n % 50,"
            " '2020-01-01'::timestamptz + n * interval '1 h', gen_random_uuid(), gen_random_uuid(),"
            " gen_random_uuid(), 'echo', 'echo', 1, 1, 1, 0, 0"
            " from generate_series(1, 40000) n"
        )
        await live.execute("insert into quotas values ('user 7', 1000000, null, now())")
        await live.execute("vacuum analyze")
        pages = await live.fetchval("select pg_relation_size('usage') / 8192")
        usage_of = queries()["usage_of"]
        for name, sql in (
            ("usage_of(text, timestamptz)", usage_of),
            ("refused(text, timestamptz)", "select quota_refusal($1, $2)"),
        ):
            await live.execute(f"prepare {name} as {sql}")
            call = f"execute {name.partition('(')[0]}('user 7', '2024-03-01+00')"
            await live.execute(call)
            plan = json.loads(
                await live.fetchval(f"explain (analyze, buffers, format json) {call}")
            )
            top = plan[0]["Plan"]
            assert top["Shared Hit Blocks"] + top["Shared Read Blocks"] < pages / 5, name


# -- statements, and who is forgotten --------------------------------------------------------------


async def test_a_statement_has_a_line_for_each_run(database: str, store: Database) -> None:
    """With its cost written out, and no cell that a spreadsheet would take for a formula."""
    async with connected(database) as live:
        hand = Hand(live)
        talk = await hand.talk("=1+1", agent=await hand.agent("=HYPERLINK(1)"))
        claim, run = await hand.running(talk, actor="=1+1")
        await hand.speak(claim, run, used(7, 2, 1, "0.00000001"))
        await hand.finish(claim, run)
        other = await spend(hand, "bob", used(1))

    mine = [piece async for piece in statement(store, "=1+1", None, "EUR")]
    alls = [piece async for piece in statement(store, None, None, "EUR")]
    nobody = [piece async for piece in statement(store, "eve", "2020-01", "EUR")]

    (line,) = csv.DictReader(b"".join(mine).decode().splitlines())
    assert (line["user_id"], line["agent"]) == ("'=1+1", "'=HYPERLINK(1)")
    assert (line["run_id"], line["conversation_id"]) == (str(run), str(talk))
    assert [line[name] for name in ("calls", *COUNTS)] == ["1", "7", "2", "1"]
    assert (line["cost"], line["currency"]) == ("0.00000001", "EUR")
    assert datetime.fromisoformat(line["at"]).tzinfo is not None
    found = list(csv.DictReader(b"".join(alls).decode().splitlines()))
    assert {row["run_id"] for row in found} == {str(run), str(other)}
    assert b"".join(nobody).count(b"\n") == 1


def test_the_library_without_await_has_the_same_names(database: str) -> None:
    """Agents, usage and quotas too."""
    with greffier.open_sync(database) as g:
        made = g.agents.create(name="A", provider="echo", model="echo")
        assert g.agents.get(made.id).name == "A"
        assert g.set_quota("ada", tokens_per_month=1).tokens_per_month == 1
        assert g.usage("ada").quota == g.quota("ada")
