"""greffier import and greffier export, as people run them."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cli.conftest import ended, start
from greffier.library import open as open_record
from helpers.importing import jsonl
from helpers.postgres import connected, new_database
from helpers.sample_data import sample_data

if TYPE_CHECKING:
    from cli.conftest import Cli

TALK = {"title": "Été", "messages": [{"role": "user", "content": "Ça va ?"}]}


async def test_real_conversations_go_in_and_come_out_equal(
    cli: Cli, on_database: str, tmp_path: Path
) -> None:
    """tau-bench, through files: the account, the export, and nothing new the second time."""
    del on_database
    path = sample_data("tau-bench") / "airline_openai_messages.jsonl"
    first = await cli("import", path, "--owner", "ada", "--json")
    assert (first.code, first.err) == (0, "")
    account = first.json()
    assert account == {
        "read": 1834,
        "mapped": 1834,
        "already": 0,
        "quarantined": 0,
        "deleted": 0,
        "conversations": 75,
        "messages": 1834,
        "altered": {},
        "reasons": {},
        "deletions": {},
        "dry_run": False,
    }
    out = tmp_path / "out.jsonl"
    said = await cli("export", "--all", "--format", "openai", "-o", out)
    assert (said.code, said.out, said.err) == (0, "", "")
    assert sorted(canonical(out)) == sorted(canonical(path))
    assert names(tmp_path) == ["out.jsonl"]
    again = (await cli("import", path, "--owner", "ada", "--json")).json()
    assert (again["already"], again["mapped"], again["conversations"]) == (1834, 0, 0)


def canonical(path: Path) -> list[str]:
    """The lines of a JSONL file, each always the same for the same value."""
    lines = path.read_text(encoding="utf-8").split("\n")
    return [json.dumps(json.loads(line), sort_keys=True) for line in lines if line]


def names(folder: Path) -> list[str]:
    """What is in a folder."""
    return sorted(one.name for one in folder.iterdir())


async def test_what_is_not_taken_is_told_and_kept(
    cli: Cli, on_database: str, tmp_path: Path
) -> None:
    """Ten places of each reason on stderr, all of them in the file, and exit code 3."""
    del on_database
    path = tmp_path / "talks.jsonl"
    path.write_text(jsonl([TALK, *["nothing"] * 12, {"messages": [7]}]), encoding="utf-8")
    said = await cli("import", path, "--owner", "ada")
    assert said.code == 3
    told = said.err.splitlines()
    assert told[0] == f"{path}:2: This is no conversation. [no-conversation]"
    assert len([line for line in told if line.endswith("[no-conversation]")]) == 10
    assert f"{path}:14 message 1: A message is a JSON object. [not-a-message]" in told
    assert told[-1] == "… and 2 more; --quarantine FILE keeps them all."
    assert "quarantined" in said.out

    kept = tmp_path / "bad.jsonl"
    said = await cli("import", path, "--owner", "ada", "--quarantine", kept)
    rows = [json.loads(line) for line in kept.read_text(encoding="utf-8").splitlines()]
    assert len(rows) == 13
    assert rows[0] == {
        "file": str(path),
        "line": 2,
        "entry": None,
        "message": None,
        "reason": "no-conversation",
        "detail": "This is no conversation.",
        "raw": "nothing",
    }
    assert said.err.splitlines()[-1] == f"13 rows are in {kept}."


async def test_the_account_reads_well_on_80_columns(
    cli: Cli, on_database: str, tmp_path: Path
) -> None:
    """Numbers in a column, reasons beside them."""
    del on_database
    path = tmp_path / "talks.jsonl"
    path.write_text(jsonl([TALK, "x", [{"role": "ai", "content": "\x00"}]]), encoding="utf-8")
    said = await cli("import", path, "--owner", "ada", "--dry-run")
    assert said.out == (
        "read           3  rows in the source\n"
        "mapped         2  would become messages\n"
        "already        0  were on record\n"
        "quarantined    1  no-conversation 1\n"
        "deleted        0\n"
        "altered        2  nul-escaped 1, role-alias 1\n"
        "conversations  2  would be made\n"
        "messages       2  would be stored\n"
    )
    assert said.err.endswith("Nothing was written: this was a rehearsal (--dry-run).\n")


async def test_a_rehearsal_makes_no_database(cli: Cli, tmp_path: Path) -> None:
    """Where nothing is yet, nothing is on record: no folder is made to find that out."""
    path = tmp_path / "talks.jsonl"
    path.write_text(jsonl([TALK]), encoding="utf-8")
    said = await cli("import", path, "--dry-run", "--json")
    assert said.json()["mapped"] == 1
    assert names(tmp_path) == ["talks.jsonl"]


async def test_stdin_is_read_as_it_comes(on_database: str) -> None:
    """And without an owner, the conversations are of the person at this machine."""
    process = await start("import", "-", "--json", stdin=asyncio.subprocess.PIPE)
    said = await ended(process, jsonl([TALK, TALK]).encode())
    assert (said.code, said.json()["conversations"]) == (0, 2)
    async with connected(on_database) as live:
        owners = await live.fetch("select distinct owner_id from greffier.conversations")
    assert len(owners) == 1


async def test_a_document_too_large_is_refused_with_4(
    cli: Cli, on_database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And says how to write it otherwise."""
    del on_database
    monkeypatch.setattr("greffier.imports.values.values.__kwdefaults__", {"longest": 1000})
    path = tmp_path / "talks.json"
    path.write_text(json.dumps([TALK] * 100, indent=1), encoding="utf-8")
    said = await cli("import", path)
    assert said.code == 4
    assert "jq -c '.[]'" in said.err


async def test_an_export_is_one_conversation_a_user_s_or_all(cli: Cli, on_database: str) -> None:
    """As lines, as a document, or as threads; each is read back."""
    async with open_record(on_database) as record:
        ada = await record.conversations.create(owner="ada", title="Été")
        await record.messages.append(ada.id, content="Ça va ?", actor="ada")
        bob = await record.conversations.create(owner="bob")
    one = await cli("export", ada.id)
    head, message = map(json.loads, one.out.splitlines())
    assert (head["conversation"]["title"], message["content"]) == ("Été", "Ça va ?")
    assert json.loads((await cli("export", ada.id, "--format", "json")).out) == {
        **head,
        "messages": [message],
    }
    assert (await cli("export", "--user", "ada")).out == one.out
    everything = json.loads((await cli("export", "--all", "--format", "json")).out)
    assert [each["conversation"]["id"] for each in everything] == [str(ada.id), str(bob.id)]
    assert (await cli("export", ada.id, "--format", "openai")).out == (
        '{"messages": [{"role": "user", "content": "Ça va ?"}]}\n'
    )
    assert (await cli("export", "--user", "nobody")).out == ""
    assert (await cli("export", "--user", "nobody", "--format", "json")).out == "[]\n"
    assert (await cli("export", ada.id, "--format", "md")).out.startswith("# Été")


@pytest.mark.usefixtures("on_database")
async def test_an_export_into_a_file_gives_an_account(cli: Cli, tmp_path: Path) -> None:
    """For programs: which file, in which form, of how many bytes."""
    out = tmp_path / "all.jsonl"
    said = await cli("export", "--all", "-o", str(out), "--json")
    assert said.code == 0, said.err
    size = out.stat().st_size
    assert json.loads(said.out) == {"file": str(out), "format": "jsonl", "bytes": size}


async def test_an_export_that_fails_leaves_no_file(
    cli: Cli, on_database: str, tmp_path: Path
) -> None:
    """A file is there whole, or not at all; an older one stays."""
    del on_database
    out = tmp_path / "out.jsonl"
    out.write_text("before", encoding="utf-8")
    said = await cli("export", "01a2157d-3b95-7a19-a2f1-5255494e8002", "-o", out)
    assert said.code == 1
    assert out.read_text(encoding="utf-8") == "before"
    assert names(tmp_path) == ["out.jsonl"]


async def record_of(dsn: str) -> list[tuple[Any, ...]]:
    """All that imports decide about a record: no times of ours, no revs."""
    async with connected(dsn) as live:
        return [
            tuple(row)
            for row in await live.fetch(
                "select m.conversation_id, c.metadata, m.seq, m.id, m.role, m.content, m.said_no "
                "from conversations c left join messages m on m.conversation_id = c.id "
                "order by 1, 3"
            )
        ]


async def test_killed_and_run_again_it_is_as_if_nothing_had_happened(
    cli: Cli,
    on_database: str,
    postgres: str,
    template: str,
    tmp_path: Path,
) -> None:
    """SIGKILL with some conversations stored and others under way; then once more, whole."""
    entries = [
        {
            "id": n,
            "messages": [{"role": "user", "content": f"{n}.{k}"} for k in range(1 + n * 37 % 130)],
        }
        for n in range(64)
    ]
    path = tmp_path / "talks.jsonl"
    path.write_text(jsonl(entries), encoding="utf-8")
    process = await start("import", "-", "--owner", "ada", stdin=asyncio.subprocess.PIPE)
    assert process.stdin is not None
    # It waits for more on stdin, so it is not done however fast it is.
    process.stdin.write(path.read_bytes())
    async with connected(on_database) as live:
        while await live.fetchval("select count(*) from conversations") < 40:
            pass
    process.kill()
    await process.wait()

    async with new_database(postgres, f"template {template}") as other:
        whole = (
            await cli("import", path, "--owner", "ada", "--json", "--database-url", other)
        ).json()
        again = (await cli("import", path, "--owner", "ada", "--json")).json()
        assert again["read"] == whole["read"] == whole["mapped"]
        assert again["mapped"] + again["already"] == whole["mapped"]
        assert await record_of(on_database) == await record_of(other)
    assert (await cli("audit")).code == 0


#: Its peak by its own memory map: what getrusage says starts with that of the process before exec.
MEASURED = """
import re, sys
from greffier.cli.entry import run
code = run(["import", sys.argv[1], "--dry-run", "--json"])
peak = re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())
print(code, int(peak[1]) // 1024, file=sys.stderr)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
async def test_a_file_of_any_length_is_read_in_the_same_memory(
    environment: dict[str, str], tmp_path: Path
) -> None:
    """Ten times the file is not ten times the memory: what was read is let go."""
    peaks = []
    for megabytes in (8, 80):
        path = tmp_path / f"{megabytes}.jsonl"
        line = jsonl([{"messages": [{"role": "user", "content": "x" * 50_000}]}])
        path.write_text(line * (megabytes * 20), encoding="utf-8")
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", MEASURED, path),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=environment,
        )
        said = await ended(process)
        code, peak = map(int, said.err.split())
        assert (code, said.json()["mapped"]) == (0, megabytes * 20)
        peaks.append(peak)
    assert peaks[1] < peaks[0] + 32
