"""greffier stats usage."""

from __future__ import annotations

import csv
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID

import pytest

from helpers.lanes import Hand
from helpers.postgres import connected

if TYPE_CHECKING:
    from cli.conftest import Cli


async def spend(database: str, owner: str, usage: str) -> UUID:
    """Let a run of somebody's take so much."""
    async with connected(database) as live:
        hand = Hand(live)
        talk = await hand.talk(owner, agent=await hand.agent())
        claim, run = await hand.running(talk, actor=owner)
        await hand.speak(claim, run, ("usage", usage))
        await hand.finish(claim, run)
    return run


def csv_files(folder: Path) -> list[str]:
    """What is there of statements, whole or not."""
    return [one.name for one in folder.iterdir() if "csv" in one.name]


async def test_usage_is_everybody_s_by_user_or_one_s_by_agent(
    cli: Cli, on_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same numbers as a table and as JSON, the dearest first."""
    monkeypatch.setenv("GREFFIER_CURRENCY", "CHF")
    month = f"{datetime.now(UTC):%Y-%m}"
    await spend(on_database, "ada", '{"input_tokens":7000,"output_tokens":2,"cost":0.000001}')
    await spend(on_database, "bob", '{"input_tokens":1,"output_tokens":1,"cost":3}')

    everybody = (await cli("stats", "usage", "--json")).json()
    assert (everybody["month"], everybody["currency"]) == (month, "CHF")
    assert [one["user_id"] for one in everybody["users"]] == ["bob", "ada"]
    assert everybody["totals"]["cost"] == 3.000001
    ada = (await cli("stats", "usage", "--user", "ada", "--json")).json()
    assert (ada["user_id"], ada["quota"]) == ("ada", None)
    assert [(one["agent"], one["input_tokens"]) for one in ada["by"]] == [("Echo", 7000)]
    before = (await cli("stats", "usage", "--month", "2020-01", "--json")).json()
    assert (before["month"], before["users"], before["totals"]["runs"]) == ("2020-01", [], 0)
    table = (await cli("stats", "usage")).out
    assert "cost (CHF)" in table
    assert re.search(r"^ada +1 +1 +7 000 +2 +0 +0\.000001$", table, re.MULTILINE)
    assert re.search(rf"^{month} +2 +2 +7 001 +3 +0 +3\.000001$", table, re.MULTILINE)
    assert re.search(
        r"^Echo +echo +echo-1 +1 ", (await cli("stats", "usage", "--user", "ada")).out, re.MULTILINE
    )


async def test_a_statement_is_a_file_or_goes_to_stdout(
    cli: Cli, on_database: str, tmp_path: Path
) -> None:
    """A line for each run, everybody's or one user's."""
    ada = await spend(on_database, "ada", '{"input_tokens":7,"output_tokens":2,"cost":0.5}')
    bob = await spend(on_database, "bob", '{"input_tokens":1,"output_tokens":1,"cost":3}')
    file = tmp_path / "usage.csv"

    said = await cli("stats", "usage", "--csv", file)
    one = await cli("stats", "usage", "--csv", "-", "--user", "ada")

    assert (said.code, said.out) == (0, "")
    rows = list(csv.DictReader(file.read_text().splitlines()))
    assert [(row["user_id"], row["run_id"], row["cost"]) for row in rows] == [
        ("ada", str(ada), "0.5"),
        ("bob", str(bob), "3"),
    ]
    assert [row["run_id"] for row in csv.DictReader(one.out.splitlines())] == [str(ada)]


@pytest.mark.usefixtures("on_database")
async def test_what_belongs_to_usage_is_refused_elsewhere(cli: Cli, tmp_path: Path) -> None:
    """And a month that is none; nothing is left of a statement that could not be written."""
    for arguments in (
        ("stats", "--month", "2026-01"),
        ("stats", "--csv", "x.csv"),
        ("stats", "usage", "--json", "--csv", "x.csv"),
    ):
        assert (await cli(*arguments)).code == 2, arguments
    wrong = await cli("stats", "usage", "--month", "2026-13", "--csv", "x.csv")
    assert wrong.code in (1, 2)
    assert "YYYY-MM" in wrong.err
    assert csv_files(tmp_path) == []
