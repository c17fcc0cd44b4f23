"""Promise: each benchmark of ``bench/`` runs, so that a number in the documents can be had again.

They run tiny, all in one go as a person starts them; what they measure decides nothing here.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROMISES = sorted(path.stem for path in (ROOT / "bench" / "promises").glob("*.py"))

Report = dict[str, Any]

#: Whoever comes first waits for all of them, which start a hundred processes between them.
pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder into which all of them wrote their numbers."""
    folder = tmp_path_factory.mktemp("bench")
    done = subprocess.run(
        [sys.executable, ROOT / "bench" / "run.py", "--tiny", "--folder", folder,
         "--json", folder / "report.json", "--markdown", folder / "report.md"],
        check=False, capture_output=True, text=True, timeout=540,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def report(run: Path) -> Report:
    """What was measured."""
    found: Report = json.loads((run / "report.json").read_text(encoding="utf-8"))
    return found


@pytest.mark.parametrize("name", PROMISES)
def test_a_promise_is_measured(report: Report, name: str) -> None:
    """Each file of bench/promises says its sentence and gives values with their goals."""
    (measured,) = [one for one in report["promises"] if one["name"] == name]

    assert measured["sentence"].endswith(".")
    assert measured["lines"]
    for line in measured["lines"]:
        assert line["low"] <= line["value"] <= line["high"]
        assert line["value"] > 0
        assert line["goal"][0] in "≥≤"


def test_a_ratio_stands_beside_both_sides(report: Report) -> None:
    """Whoever doubts a ratio finds the rounds of both sides it was made of."""
    lines = [line for one in report["promises"] for line in one["lines"] if "floor" in line]

    assert lines
    for line in lines:
        ratios = [ours / floor for ours, floor in zip(line["ours"], line["floors"], strict=True)]
        assert min(ratios) == pytest.approx(line["low"])
        assert max(ratios) == pytest.approx(line["high"])


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("lanes", "first and in order"),
        ("lanes", "writes of a worker that lost its lane"),
        ("deliveries", "in order, or a double with two intents on record"),
    ],
)
def test_what_is_counted_is_kept_on_any_machine(report: Report, name: str, what: str) -> None:
    """Nothing is out of order or twice without a word on record, and no zombie's write is taken."""
    (measured,) = [one for one in report["promises"] if one["name"] == name]
    (line,) = [one for one in measured["lines"] if what in one["what"]]

    assert line["value"] == 1
    assert line["ours"][0] > 0


def test_the_machine_and_its_noise_are_told(report: Report, run: Path) -> None:
    """A report says on what it was measured, also the one for people."""
    text = (run / "report.md").read_text(encoding="utf-8")

    assert report["machine"]["postgresql"] in text
    assert len(report["noise"]) == len(PROMISES) + 1
    assert "Noise:" in text
    for name in PROMISES:
        assert f"## {name}\n" in text


def test_nothing_is_left_behind(run: Path) -> None:
    """Data, servers' folders and scratch databases are gone when it ends."""
    assert sorted(path.name for path in run.iterdir()) == ["report.json", "report.md"]
