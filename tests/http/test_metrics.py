"""Promise: what is measured says how the queue does, and what we ship watches what is measured."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from greffier.errors import Unavailable
from greffier.server.metrics import Metrics
from helpers.api import Person
from helpers.lanes import Hand
from helpers.postgres import connected
from helpers.working import Working

DEPLOY = Path(__file__).parents[2] / "deploy"

#: A metric of ours in an expression, and what is asked of its labels.
_METRIC = re.compile(r"\b(greffier_\w+)(?:\{([^}]*)\})?")
_LABEL = re.compile(r"(\w+)\s*[=!]~?\s*\"")
#: Labels that Prometheus itself adds.
_ADDED = {"job", "instance"}


async def scraped(work: Working) -> str:
    """What Prometheus gets now, whatever was asked a moment ago."""
    work.app.service.metrics._backlog._until = 0.0
    async with work.anonymous() as nobody:
        answer = await nobody.get("/metrics")
    assert answer.status_code == 200
    return answer.text


def value(text: str, series: str) -> float:
    """The value of one series."""
    (line,) = [line for line in text.splitlines() if line.startswith(f"{series} ")]
    return float(line.rpartition(" ")[2])


async def test_lanes_are_counted_where_they_stand(work: Working) -> None:
    """Of the whole database; nothing is due is 0, and not nothing."""
    work.begin_nothing()
    text = await scraped(work)
    for name in ("due_lanes", "parked_lanes", "oldest_due_seconds", "leased_lanes"):
        for kind in ("out", "run"):
            assert value(text, f'greffier_{name}{{kind="{kind}"}}') == 0
    async with connected(work.database.dsn) as live:
        hand = Hand(live)
        await hand.lane()
        claim = await hand.claim_one()
        await hand.intend(claim, 1)
        await hand.fail(claim, 1, reason="answered 400")
        await hand.lane()
        await hand.claim_one(lease=-600)
        await hand.lane()
        text = await scraped(work)
        # So that it audits clean.
        await live.execute("truncate lanes, attempts")
    assert value(text, 'greffier_parked_lanes{kind="out"}') == 1
    assert value(text, 'greffier_due_lanes{kind="out"}') == 2
    assert value(text, 'greffier_expired_lanes{kind="out"}') == 1
    assert value(text, 'greffier_oldest_due_seconds{kind="out"}') >= 600
    assert value(text, 'greffier_due_lanes{kind="run"}') == 0


async def test_answers_are_counted_and_timed(work: Working, eve: Person) -> None:
    """By how they ended, in the process that gave them; a worker that lives is seen."""
    talk = await work.talk(eve, await work.script(("content.delta", {"text": "Bonjour"})))
    await work.answer(eve, talk, {"message": {"content": "hello"}})
    text = await scraped(work)
    assert value(text, 'greffier_runs_total{status="completed"}') == 1
    assert value(text, 'greffier_runs_total{status="failed"}') == 0
    assert value(text, 'greffier_run_seconds_count{status="completed"}') == 1
    assert value(text, "greffier_lanes_claimed_total") >= 1
    assert value(text, "greffier_leases_lost_total") == 0
    assert value(text, "greffier_zombie_writes_refused_total") == 0
    # Its first word may still be on its way.
    while value(text, "greffier_workers") == 0:
        text = await scraped(work)


async def test_deliveries_are_counted_by_channel_and_outcome(work: Working) -> None:
    """And those of which an earlier try may have arrived."""
    assert work.app.service.work is not None
    out = work.app.service.work.out
    assert out is not None
    out.sends["webhook", "accepted"] += 3
    out.took.add("webhook", 0.2)
    out.doubles += 1
    text = await scraped(work)
    assert value(text, 'greffier_sends_total{channel="webhook",outcome="accepted"}') == 3
    assert value(text, 'greffier_send_seconds_bucket{channel="webhook",le="0.1"}') == 0
    assert value(text, 'greffier_send_seconds_bucket{channel="webhook",le="0.25"}') == 1
    assert value(text, "greffier_duplicates_possible_total") == 1


async def test_a_database_that_is_away_leaves_no_old_numbers(
    work: Working, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An old number would pass for a new one; what the process itself counts is still told."""

    async def away(*_args: object, **_more: object) -> list[Any]:
        raise Unavailable

    assert "greffier_workers " in await scraped(work)
    monkeypatch.setattr(work.database, "read", away)
    text = await scraped(work)
    assert "greffier_workers " not in text
    assert "greffier_due_lanes{" not in text
    assert "greffier_lanes_claimed_total " in text


async def test_many_who_ask_cost_one_look(work: Working, monkeypatch: pytest.MonkeyPatch) -> None:
    """And none within a few seconds of another."""
    asked: list[str] = []
    read = work.database.read

    async def counted(name: str, *args: object, **more: Any) -> Any:
        asked.append(name)
        return await read(name, *args, **more)

    metrics: Metrics = work.app.service.metrics
    metrics._backlog._until = 0.0
    monkeypatch.setattr(work.database, "read", counted)
    async with work.anonymous() as nobody:
        for _ in range(3):
            assert (await nobody.get("/metrics")).status_code == 200
    assert asked.count("queue_gauges") == 1


# -- what we ship --------------------------------------------------------------------------------


def expressions() -> Iterator[tuple[str, str]]:
    """Every expression of what we ship, with where it stands."""
    dashboard = json.loads((DEPLOY / "grafana/greffier.json").read_text(encoding="utf-8"))
    for panel in dashboard["panels"]:
        for target in panel.get("targets", ()):
            yield f"panel {panel['title']}", target["expr"]
    rules = yaml.safe_load((DEPLOY / "prometheus/alerts.yml").read_text(encoding="utf-8"))
    for group in rules["groups"]:
        for rule in group["rules"]:
            yield f"rule {rule['alert']}", rule["expr"]


async def test_what_we_ship_watches_what_is_measured(work: Working, eve: Person) -> None:
    """Every metric of the dashboard and the rules is there, with the labels it is asked for."""
    talk = await work.talk(eve, await work.script(("content.delta", {"text": "Bonjour"})))
    await work.answer(eve, talk, {"message": {"content": "hello"}})
    assert work.app.service.work is not None
    assert work.app.service.work.out is not None
    work.app.service.work.out.sends["webhook", "uncertain"] += 1
    work.app.service.work.out.took.add("webhook", 0.2)
    async with connected(work.database.dsn) as live:
        await live.execute("select note_alerts_v1('{doubles}', '{1}', '{words}')")
    found: dict[str, set[str]] = {}
    for line in (await scraped(work)).splitlines():
        if match := re.match(r"(\w+)(?:\{(.*)\})? ", line):
            found.setdefault(match[1], set()).update(re.findall(r'(\w+)="', match[2] or ""))

    looked = 0
    for where, expression in expressions():
        assert expression.count("(") == expression.count(")"), where
        grouped = {
            label.strip()
            for labels in re.findall(r"\bby \(([^)]*)\)", expression)
            for label in labels.split(",")
        }
        known: set[str] = set(_ADDED)
        for name, asked in _METRIC.findall(expression):
            assert name in found, f"{where}: {name}"
            assert set(_LABEL.findall(asked)) <= found[name] | _ADDED, f"{where}: {name}"
            known |= found[name]
            looked += 1
        assert grouped <= known, where
    assert looked > 40


def test_each_alert_rule_says_what_it_means() -> None:
    """A name of its own, how grave it is, and a sentence for whoever is woken by it."""
    rules = yaml.safe_load((DEPLOY / "prometheus/alerts.yml").read_text(encoding="utf-8"))
    names = [rule["alert"] for group in rules["groups"] for rule in group["rules"]]
    assert len(names) == len(set(names)) >= 10
    for group in rules["groups"]:
        for rule in group["rules"]:
            assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
            assert rule["labels"]["severity"] in ("warning", "critical")
            assert len(rule["annotations"]["summary"]) > 20


def test_the_dashboard_can_be_loaded() -> None:
    """Each panel has an id, a place on the grid and its data source by choice."""
    board = json.loads((DEPLOY / "grafana/greffier.json").read_text(encoding="utf-8"))
    ids = [panel["id"] for panel in board["panels"]]
    assert len(ids) == len(set(ids))
    assert {one["name"] for one in board["templating"]["list"]} == {"source", "job"}
    for panel in board["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        if panel["type"] != "row":
            assert panel["datasource"]["uid"] == "${source}"
            assert panel["targets"]
