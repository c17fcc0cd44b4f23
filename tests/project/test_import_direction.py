"""Promise: imports run one way, so that each layer can be read knowing only those below it."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    """Hold the greffier in ``folder`` to the contracts of our pyproject.toml."""
    return subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-logo", "--no-cache",
         ROOT / "pyproject.toml"],
        cwd=folder, env={"PYTHONPATH": str(folder)}, check=False, capture_output=True, text=True,
    )  # fmt: skip


@pytest.fixture
def skeleton(tmp_path: Path) -> Path:
    """Make a greffier with every layer and nothing in it."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    layers = contracts["tool"]["importlinter"]["contracts"][0]["layers"]
    names = [name.strip("() ") for layer in layers for name in layer.split("|")]
    for folder in ("", *names):
        (tmp_path / "greffier" / folder).mkdir()
        (tmp_path / "greffier" / folder / "__init__.py").touch()
    return tmp_path


def test_our_own_code_keeps_the_direction() -> None:
    """The source tree as it is breaks no contract."""
    done = lint_imports(ROOT / "src")

    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("module", "line", "rule"),
    [
        ("store/x.py", "import greffier.change", "greffier.store is not allowed to import"),
        ("change/x.py", "import greffier.publish", "greffier.change is not allowed to import"),
        ("change/x.py", "import asyncpg.pool", "greffier is not allowed to import asyncpg"),
        ("model/x.py", "import asyncio", "greffier.model is not allowed to import asyncio"),
        ("helpers.py", "", "greffier.helpers"),
    ],
    ids=["upwards", "hidden-step", "driver", "values", "placeless"],
)
def test_a_breach_is_reported(skeleton: Path, module: str, line: str, rule: str) -> None:
    """Each contract really bites, on a tree in which every layer is there."""
    (skeleton / "greffier" / module).write_text(line + "\n", encoding="utf-8")

    done = lint_imports(skeleton)

    assert done.returncode == 1
    assert rule in done.stdout


def test_an_empty_tree_breaks_nothing(skeleton: Path) -> None:
    """The tests above fail for the breach they plant and for nothing else."""
    done = lint_imports(skeleton)

    assert done.returncode == 0, done.stdout + done.stderr
