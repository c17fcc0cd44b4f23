"""The command line, in this process and in one of its own."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from greffier.cli.entry import run


@dataclass(frozen=True)
class Said:
    """How a command ended, and what it wrote where."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        """Its stdout as JSON, all of it."""
        return json.loads(self.out)


Cli = Callable[..., Awaitable[Said]]


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """No setting but what the test says, a data folder of its own, 80 columns."""
    for name in list(os.environ):
        if name.startswith("GREFFIER_"):
            monkeypatch.delenv(name)
    for name, value in (
        ("GREFFIER_DATA_DIR", str(tmp_path / "data")),
        ("COLUMNS", "80"),
        ("NO_COLOR", "1"),
    ):
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    return dict(os.environ)


@pytest.fixture
def cli(environment: dict[str, str], capfd: pytest.CaptureFixture[str]) -> Cli:  # noqa: ARG001
    """Run a command in a thread of this process: as main does, without the half second to start."""

    async def call(*arguments: object) -> Said:
        capfd.readouterr()
        code = await asyncio.to_thread(run, [str(one) for one in arguments])
        out, err = capfd.readouterr()
        return Said(code, out, err)

    return call


@pytest.fixture
def on_database(
    database: str,
    environment: dict[str, str],  # noqa: ARG001 - first of all
    monkeypatch: pytest.MonkeyPatch,
) -> str:
    """A database with the schema, which the commands use."""
    monkeypatch.setenv("GREFFIER_DATABASE_URL", database)
    return database


async def start(*arguments: object, stdin: int | None = None) -> asyncio.subprocess.Process:
    """Start a command as a process, with the environment of the test."""
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "greffier",
        *(str(one) for one in arguments),
        stdin=asyncio.subprocess.DEVNULL if stdin is None else stdin,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=dict(os.environ),
    )


async def ended(process: asyncio.subprocess.Process, data: bytes | None = None) -> Said:
    """Wait for a process, and tell how it ended."""
    out, err = await process.communicate(data)
    assert process.returncode is not None
    return Said(process.returncode, out.decode(), err.decode())
