"""Promise: everybody sees what their runs took, admins what anybody's did and may take."""

from __future__ import annotations

import csv
import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import jsonschema
import pytest

from helpers.api import Person, Served, expect, pointers, refused
from helpers.lanes import Hand
from helpers.postgres import connected

NOTHING = {
    **dict.fromkeys(("runs", "calls", "input_tokens", "output_tokens", "cached_tokens", "cost"), 0)
}


async def spend(served: Served, who: Person, agent: str, *events: dict[str, Any]) -> UUID:
    """Let a run of somebody's take so much."""
    talk = await who.create(agent_id=agent)
    async with connected(served.database.dsn) as live:
        hand = Hand(live)
        claim, run = await hand.running(UUID(talk["id"]), actor=who.id)
        for event in events:
            await hand.speak(claim, run, ("usage", json.dumps(event)))
        await hand.finish(claim, run)
    return run


async def make_agent(root: Person, name: str = "Echo") -> str:
    """Make an agent."""
    asked = {"name": name, "provider": "echo", "model": "echo-1"}
    made: str = expect(await root.http.post("/v1/agents", json=asked), 201)["id"]
    return made


QUESTION = {"input_tokens": 100, "output_tokens": 20, "cached_tokens": 50, "cost": 0.003}


async def test_who_had_no_run_spent_nothing(ada: Person) -> None:
    """Zeros, not an error; in the present month, in the currency of the settings."""
    assert expect(await ada.http.get("/v1/me/usage"), 200) == {
        "month": f"{datetime.now(UTC):%Y-%m}",
        "currency": "EUR",
        "totals": NOTHING,
        "by": [],
        "quota": None,
    }


async def test_my_runs_are_added_up_by_agent_and_model(
    served: Served, ada: Person, bob: Person, root: Person
) -> None:
    """The dearest first, and nobody else's; an agent that is gone keeps its name."""
    cheap, dear = await make_agent(root, "Cheap"), await make_agent(root, "Dear")
    await spend(served, ada, cheap, QUESTION, QUESTION)
    await spend(served, ada, cheap)
    await spend(served, ada, dear, {**QUESTION, "cost": 1})
    await spend(served, bob, dear, {**QUESTION, "cost": 1000})
    await root.http.delete(f"/v1/agents/{dear}")
    await root.http.put(f"/v1/users/{ada.id}/quota", json={"cost_per_month": 12.5})

    mine = expect(await ada.http.get("/v1/me/usage"), 200)

    first, second = mine["by"]
    assert (first["agent_id"], first["agent"], first["provider"], first["model"]) == (
        dear,
        "Dear",
        "echo",
        "echo-1",
    )
    assert second == {
        "agent_id": cheap,
        "agent": "Cheap",
        "provider": "echo",
        "model": "echo-1",
        "runs": 2,
        "calls": 2,
        "input_tokens": 200,
        "output_tokens": 40,
        "cached_tokens": 100,
        "cost": 0.006,
    }
    assert mine["totals"] == {
        "runs": 3,
        "calls": 3,
        "input_tokens": 300,
        "output_tokens": 60,
        "cached_tokens": 150,
        "cost": 1.006,
    }
    assert mine["quota"] == {"tokens_per_month": None, "cost_per_month": 12.5}
    assert expect(await root.http.get(f"/v1/users/{ada.id}/usage"), 200) == mine
    assert expect(await ada.http.get("/v1/me/usage?month=2020-01"), 200)["totals"] == NOTHING
    for wrong in ("month=2020-13", "month=", "month=2020-1", "format=xls"):
        refused(await ada.http.get(f"/v1/me/usage?{wrong}"), 422, "validation")
    wrong_statement = await ada.http.get("/v1/me/usage?month=x%0d%0aa:b&format=csv")
    refused(wrong_statement, 422, "validation")


async def test_a_cost_is_a_number_with_all_its_digits(
    served: Served, ada: Person, root: Person
) -> None:
    """A client that reads decimals has the exact sum, not what is nearest to it in binary."""
    agent = await make_agent(root)
    for _ in range(3):
        await spend(served, ada, agent, {**QUESTION, "cost": 0.1})
    await spend(served, ada, agent, {**QUESTION, "cost": 123456789012})

    answer = await ada.http.get("/v1/me/usage")
    document = expect(await ada.http.get("/openapi.json"), 200)

    exact = json.loads(answer.text, parse_float=Decimal)
    assert exact["totals"]["cost"] == Decimal("123456789012.3")
    schema = {"$ref": "#/components/schemas/MonthlyUsage", "components": document["components"]}
    jsonschema.Draft202012Validator(schema).validate(answer.json())
    cost = document["components"]["schemas"]["Quota"]["properties"]["cost_per_month"]
    assert [one["type"] for one in cost["anyOf"]] == ["number", "null"]


async def test_a_month_s_statement_is_a_file_for_a_spreadsheet(
    served: Served, ada: Person, root: Person
) -> None:
    """A line for each run; mine for me, anybody's for admins."""
    agent = await make_agent(root, "=cmd()")
    run = await spend(served, ada, agent, QUESTION)
    month = f"{datetime.now(UTC):%Y-%m}"

    mine = await ada.http.get(f"/v1/me/usage?format=csv&month={month}")
    theirs = await root.http.get(f"/v1/users/{ada.id}/usage?format=csv")

    assert mine.headers["content-type"] == "text/csv; charset=utf-8"
    assert mine.headers["content-disposition"] == f'attachment; filename="usage-{month}.csv"'
    (line,) = csv.DictReader(mine.text.splitlines())
    assert (line["run_id"], line["agent"], line["cost"]) == (str(run), "'=cmd()", "0.003")
    assert theirs.text == mine.text
    assert theirs.headers["content-disposition"] == 'attachment; filename="usage.csv"'


async def test_a_quota_replaces_what_stood(served: Served, ada: Person, root: Person) -> None:
    """What is left out has no limit; the admins' log keeps both, and who said it."""
    where = f"/v1/users/{ada.id}/quota"
    nothing = {"tokens_per_month": None, "cost_per_month": None}
    assert expect(await root.http.get(where), 200) == nothing

    first = await root.http.put(where, json={"tokens_per_month": 5})
    assert expect(first, 200) == {"tokens_per_month": 5, "cost_per_month": None}
    assert "greffier-position" in first.headers
    said = expect(await root.http.put(where, json={"cost_per_month": 0.10}), 200)

    assert said == {"tokens_per_month": None, "cost_per_month": 0.1}
    assert expect(await root.http.get(where), 200) == said
    assert expect(await root.http.put(where, json={}), 200) == nothing
    async with connected(served.database.dsn) as live:
        log = await live.fetch(
            "select actor, before->>'tokens_per_month' as before from admin_log"
            " where subject = $1 order by at",
            ada.id,
        )
    assert [tuple(row) for row in log] == [(root.id, None), (root.id, "5"), (root.id, None)]


@pytest.mark.parametrize(
    ("asked", "faults"),
    [
        ({"tokens_per_month": -1}, [("/tokens_per_month", "range")]),
        ({"tokens_per_month": 1.5}, [("/tokens_per_month", "type")]),
        ({"cost_per_month": -1}, [("/cost_per_month", "range")]),
        ({"cost_per_month": "NaN"}, [("/cost_per_month", "type")]),
        ({"cost_per_month": "1.5"}, [("/cost_per_month", "type")]),
        ({"cost_per_month": 1e300}, [("/cost_per_month", "range")]),
        ({"cost_per_month": True}, [("/cost_per_month", "type")]),
        ({"per_month": 1}, [("/per_month", "unknown-field")]),
    ],
)
async def test_what_is_no_quota_is_refused(
    ada: Person, root: Person, asked: dict[str, Any], faults: list[tuple[str, str]]
) -> None:
    """With the place that is wrong."""
    answer = await root.http.put(f"/v1/users/{ada.id}/quota", json=asked)

    assert pointers(refused(answer, 422, "validation")) == faults


async def test_the_service_itself_has_no_quota(root: Person) -> None:
    """It is no user; nor is who could not be called so."""
    for user in ("service", "service:bot", "a" * 257):
        answer = await root.http.put(f"/v1/users/{user}/quota", json={})
        refused(answer, 422, "validation")


async def test_my_runs_are_in_my_file_and_stay_without_me(
    served: Served, ada: Person, bob: Person, root: Person
) -> None:
    """What was spent stays on the ledger when I am forgotten, under a name that is nobody's."""
    agent = await make_agent(root)
    run = await spend(served, ada, agent, QUESTION)
    await spend(served, bob, agent, QUESTION)
    await root.http.put(f"/v1/users/{ada.id}/quota", json={"tokens_per_month": 5})

    lines = [json.loads(line) for line in (await ada.http.get("/v1/me/export")).text.splitlines()]
    (mine,) = (line["usage"] for line in lines if "usage" in line)
    assert mine.pop("at")
    assert mine.pop("conversation_id")
    assert mine == {
        "run_id": str(run),
        "agent_id": agent,
        "provider": "echo",
        "model": "echo-1",
        "calls": 1,
        **QUESTION,
    }
    assert (await ada.http.delete("/v1/me")).status_code == 204
    gone = expect(await root.http.get(f"/v1/users/{ada.id}/usage"), 200)
    async with connected(served.database.dsn) as live:
        payer = await live.fetchval("select user_id from usage where run_id = $1", run)
    assert (gone["totals"], gone["quota"]) == (NOTHING, None)
    assert payer is not None
    assert ada.id not in payer
