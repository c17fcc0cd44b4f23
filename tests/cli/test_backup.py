"""greffier backup and restore: the whole record in one file, and back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from greffier.library import open as open_record
from helpers.catalogue import catalogue, difference
from helpers.postgres import connected

if TYPE_CHECKING:
    from cli.conftest import Cli


async def fill(dsn: str) -> str:
    """A conversation with two messages; gives its id."""
    async with open_record(dsn) as g:
        talk = await g.conversations.create(owner="ada", title="Voyage à Lyon")
        await g.messages.append(talk.id, content="Bonjour")
        await g.messages.append(talk.id, role="assistant", content="Bonjour Ada !")
    return str(talk.id)


async def test_what_is_backed_up_comes_back_whole(
    cli: Cli, database: str, empty_database: str, tmp_path: Path
) -> None:
    """Every message, under an epoch of its own, and the audit finds nothing."""
    talk = await fill(database)
    file = tmp_path / "record.dump"
    made = await cli("backup", str(file), "--json", "--database-url", database)
    assert made.code == 0, made.err
    assert json.loads(made.out) == {"file": str(file), "bytes": file.stat().st_size}
    came = await cli("restore", str(file), "--json", "--database-url", empty_database)
    assert came.code == 0, came.err
    assert json.loads(came.out) == {"file": str(file), "restored": True}
    audited = await cli("audit", "--database-url", empty_database)
    assert audited.code == 0, audited.err
    async with connected(database) as old_one, connected(empty_database) as new_one:
        before, after = await catalogue(old_one), await catalogue(new_one)
    assert difference(before, "backed up", after, "restored") == ""
    said = (await cli("export", talk, "--database-url", database)).out.splitlines()
    says = (await cli("export", talk, "--database-url", empty_database)).out.splitlines()
    async with open_record(database) as old, open_record(empty_database) as new:
        epochs = {old.database.epoch, new.database.epoch}

    assert said[1:] == says[1:]
    assert len(said) == 3
    assert len(epochs) == 2


async def test_nothing_is_overwritten(cli: Cli, database: str, tmp_path: Path) -> None:
    """Neither a file that is there nor a record that is there."""
    file = tmp_path / "record.dump"
    file.write_bytes(b"mine")
    refused = await cli("backup", str(file), "--database-url", database)
    other = tmp_path / "other.dump"
    await cli("backup", str(other), "--database-url", database)
    again = await cli("restore", str(other), "--database-url", database)

    assert (refused.code, again.code) == (4, 4)
    assert file.read_bytes() == b"mine"
    assert "record already" in again.err


async def test_a_failure_leaves_nothing_behind(
    cli: Cli, empty_database: str, tmp_path: Path
) -> None:
    """A file that is no backup restores nothing, and a backup that fails leaves no half file."""
    nonsense = tmp_path / "nonsense.dump"
    nonsense.write_bytes(b"no backup")
    failed = await cli("restore", str(nonsense), "--database-url", empty_database)
    short = tmp_path / "short.dump"
    short.write_bytes(b"PGDMP and no more")
    cut_short = await cli("restore", str(short), "--database-url", empty_database)
    status = await cli("db", "status", "--json", "--database-url", empty_database)
    nowhere = await cli("backup", str(tmp_path / "no" / "folder.dump"))
    missing = await cli("restore", str(tmp_path / "absent.dump"), "--database-url", empty_database)
    nothing = await cli("backup", str(tmp_path / "empty.dump"), "--database-url", empty_database)

    assert status.json()["state"] == "absent"
    for said, words in (
        (failed, "is no backup; nothing was changed"),
        (cut_short, "pg_restore failed"),
        (nowhere, "There is no folder"),
        (missing, "There is no file"),
        (nothing, "There is no record here"),
    ):
        assert said.code == 1
        assert words in said.err
        assert said.err.rstrip().endswith("[backup]")
    left = {one.name for one in tmp_path.iterdir()}  # noqa: ASYNC240 - nothing else runs
    assert left == {"nonsense.dump", "short.dump"}
