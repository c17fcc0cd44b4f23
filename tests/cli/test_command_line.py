"""What holds for every command: help, exit codes, where words go, and how it ends."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httpx2
import pytest
from typer.main import get_command

from cli.conftest import ended, start
from greffier import __version__
from greffier.cli.app import app
from greffier.library import open as open_record

if TYPE_CHECKING:
    from cli.conftest import Cli


def commands(group: Any) -> Iterator[list[str]]:
    """Every command by its path, the groups they are in before them."""
    for name, one in group.commands.items():
        yield [name]
        if hasattr(one, "commands"):
            yield from ([name, *path] for path in commands(one))


EVERY = list(commands(get_command(app)))
COMMANDS = [path for path in EVERY if not any(other[:-1] == path for other in EVERY)]


@pytest.mark.parametrize("command", [[], *EVERY], ids=" ".join)
async def test_every_command_explains_itself(cli: Cli, command: list[str]) -> None:
    """In 80 columns without colour, with an example."""
    said = await cli(*command, "--help")
    assert (said.code, said.err) == (0, "")
    assert "Example: " in said.out
    assert "\x1b" not in said.out
    assert max(map(len, said.out.splitlines())) <= 80


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
async def test_every_command_speaks_json(cli: Cli, command: list[str]) -> None:
    """To whoever asks for it: a program can read what any of them did."""
    assert "--json " in (await cli(*command, "--help")).out


async def test_the_help_names_every_command(cli: Cli) -> None:
    """Also those that are loaded only when they run."""
    said = await cli("--help")
    for name in {path[0] for path in COMMANDS}:
        assert re.search(rf"^│ {name} ", said.out, re.MULTILINE)


async def test_the_version_is_told(cli: Cli) -> None:
    """By name, on stdout."""
    assert (await cli("--version")).out == f"greffier {__version__}\n"


def test_help_imports_nothing_heavy() -> None:
    """The server, the settings and the programs of PostgreSQL are left alone until needed."""
    script = (
        "import sys; from greffier.cli.entry import run; run(['import', '--help']); "
        "heavy = {'pydantic_settings', 'starlette', 'uvicorn', 'jwt', 'greffier.imports'}; "
        "sys.exit(str(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["stats", "--nonsense"],
        ["token"],
        ["import"],
        ["import", "no-such-file.jsonl"],
        ["import", "."],
        ["import", "-", "--format", "slack"],
        ["import", "-", "--time-zone", "Mars/North"],
        ["export"],
        ["export", "--all", "--user", "ada"],
        ["export", "--all", "--json"],
        ["export", "--all", "--format", "pdf"],
        ["token", "--user", "ada", "--expires", "soon"],
        ["stats", "no-uuid"],
        ["stats", "--config", "no-such-file.toml"],
    ],
    ids=" ".join,
)
async def test_a_wrong_use_is_one_line_and_exit_code_2(cli: Cli, arguments: list[str]) -> None:
    """Found before any database is asked: what is wrong on stderr, and its code at the end."""
    said = await cli(*arguments)
    assert (said.code, said.out) == (2, "")
    assert re.fullmatch(r"greffier: .+ \[(usage|validation|settings)\]\n", said.err)


async def test_what_is_not_there_is_exit_code_1(cli: Cli, on_database: str) -> None:
    """With the error's own code."""
    del on_database
    for command in ("stats", "export"):
        said = await cli(command, "01a2157d-3b95-7a19-a2f1-5255494e8002")
        assert (said.code, said.out) == (1, "")
        assert said.err.endswith(" [not-found]\n")


async def test_a_schema_of_another_release_is_refused_with_4(
    cli: Cli, empty_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The words say what to run; nothing was changed."""
    monkeypatch.setenv("GREFFIER_DATABASE_URL", empty_database)
    said = await cli("stats")
    assert (said.code, said.out) == (4, "")
    assert "greffier db migrate" in said.err


@pytest.mark.parametrize("command", [["stats"], ["audit"], ["db", "status"], ["export", "--all"]])
async def test_a_database_that_is_away_is_exit_code_5(
    cli: Cli, tmp_path: Path, command: list[str]
) -> None:
    """So that a script can tell: try again later."""
    said = await cli(*command, "--database-url", f"postgresql://nobody@/x?host={tmp_path}")
    assert (said.code, said.out) == (5, "")
    assert said.err.endswith(" [unavailable]\n")


@pytest.mark.parametrize("command", [["stats"], ["audit"], ["db", "check"]])
async def test_why_a_database_does_not_let_us_in_is_told(
    cli: Cli, database: str, command: list[str]
) -> None:
    """In PostgreSQL's own words, to whoever operates it: no such database, no such role."""
    parts = urlsplit(database)
    nowhere = parts._replace(path="/nowhere").geturl()
    said = await cli(*command, "--database-url", nowhere)
    assert (said.code, said.out) == (5, "")
    assert 'database "nowhere" does not exist' in said.err
    assert said.err.endswith(" [unavailable]\n")


async def test_the_command_line_comes_before_the_environment_and_the_file(
    cli: Cli, on_database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the environment before the file."""
    away = f"postgresql://nobody@/x?host={tmp_path}"
    config = tmp_path / "my.toml"
    config.write_text(f"database_url = '{away}'\n", encoding="utf-8")
    assert (await cli("stats", "--config", config)).code == 0
    assert (await cli("stats", "--database-url", away)).code == 5
    monkeypatch.delenv("GREFFIER_DATABASE_URL")
    assert (await cli("stats", "--config", config)).code == 5
    assert (await cli("stats", "--config", config, "--database-url", on_database)).code == 0


async def test_a_fault_of_ours_is_one_line_and_a_traceback_only_on_request(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """GREFFIER_DEBUG=1 shows it."""
    monkeypatch.setattr("greffier.cli.stats._read", None)
    said = await cli("stats")
    assert said.code == 1
    assert said.err.startswith("greffier: TypeError")
    assert "Traceback" not in said.err
    monkeypatch.setenv("GREFFIER_DEBUG", "1")
    assert "Traceback" in (await cli("stats")).err


async def test_a_file_that_cannot_be_written_is_named(cli: Cli, on_database: str) -> None:
    """As it was said, or the folder that is missing; the fault is not called one of ours."""
    del on_database
    for output, words in (("no/such/a.jsonl", "no/such: No such file"), (".", ".: Is a directory")):
        said = await cli("export", "--all", "-o", output)
        assert (said.code, said.out) == (1, "")
        assert said.err.startswith(f"greffier: {words}")
        assert said.err.endswith(" [file]\n")


@pytest.mark.parametrize(
    ("command", "names"),
    [
        (["serve", "--port", "0"], {"url", "sign_in", "workers", "pid"}),
        (["worker"], {"worker", "pid", "metrics"}),
    ],
)
async def test_what_runs_on_says_that_it_has_begun(
    on_database: str, command: list[str], names: set[str]
) -> None:
    """With --json in one line on stdout, so that a program waits for it and knows the port."""
    del on_database
    process = await start(*command, "--json")
    assert process.stdout is not None
    ready = json.loads(await process.stdout.readline())
    assert names == ready.keys()
    assert ready["pid"] == process.pid
    if "url" in ready:
        async with httpx2.AsyncClient() as http:
            assert (await http.get(f"{ready['url']}/healthz")).status_code == 200
    process.send_signal(signal.SIGTERM)
    said = await ended(process)
    assert (said.code, said.out) == (0, "")


async def test_a_reader_who_has_enough_is_no_error(on_database: str) -> None:
    """As in ``greffier export --all | head -c 1``: quiet, with the exit code of SIGPIPE."""
    async with open_record(on_database) as record:
        talk = await record.conversations.create(owner="ada")
        for _ in range(4):
            await record.messages.append(talk.id, content="x" * 200_000)
    reader, writer = os.pipe()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "greffier", "export", "--all"),
        stdout=writer,
        stderr=asyncio.subprocess.PIPE,
    )
    os.close(writer)
    await asyncio.to_thread(os.read, reader, 1)
    os.close(reader)
    _, err = await process.communicate()
    assert (process.returncode, err) == (141, b"")


async def test_ctrl_c_ends_with_130_and_no_traceback(on_database: str) -> None:
    """What was stored is said, and the next run goes on from there."""
    process = await start("import", "-", "--owner", "ada", stdin=asyncio.subprocess.PIPE)
    assert process.stdin is not None
    process.stdin.write(b'[{"role": "user", "content": "hi"}]\n' * 64)
    async with open_record(on_database) as record:
        while not (await record.conversations.list(user="ada")).data:
            pass
        process.send_signal(signal.SIGINT)
        code = await process.wait()
    assert process.stderr is not None
    words = (await process.stderr.read()).decode()
    assert code == 130
    assert "Traceback" not in words
    assert re.fullmatch(r"Stopped after \d+ messages\. Run it again to go on from there\.\n", words)


async def test_the_private_database_is_started_and_shared(cli: Cli) -> None:
    """Without a URL: made on first use, joined by who comes, and left as it is found."""
    stats = await cli("stats", "--json")
    assert stats.json()["conversations"] == 0
    assert (await cli("db", "status")).code == 0
    url = (await cli("db", "url")).out.strip()
    assert url.startswith("postgresql://greffier@/greffier?host=")
    assert (await cli("db", "check", "--json")).json() == {
        "ready": True,
        "why_not": None,
        "schema": "current",
        "where": "the private PostgreSQL",
    }
    # Nobody uses it any more, so it is down.
    assert (await cli("stats", "--database-url", url)).code == 5
