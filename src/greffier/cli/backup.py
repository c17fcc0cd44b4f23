"""greffier backup, greffier restore."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from greffier.cli import exits
from greffier.cli.common import Config, DatabaseUrl, DataDir, Json, load_settings, run, server
from greffier.cli.output import emit_json, talk
from greffier.errors import BackupError

if TYPE_CHECKING:
    from greffier.settings import Settings

#: How PostgreSQL's custom format begins.
_MAGIC = b"PGDMP"

BackupFile = Annotated[Path, typer.Argument(metavar="FILE", help="The backup.", show_default=False)]


def backup(
    file: BackupFile,
    *,
    json: Json = False,
    database_url: DatabaseUrl = None,
    data_dir: DataDir = None,
    config: Config = None,
) -> None:
    """Write the whole record into one file, as of one moment, while everybody goes on.

    The file is PostgreSQL's custom format. It is there whole or not at all.
    """
    settings = load_settings(database_url, data_dir, config)
    if file.exists():
        talk(f"{file} is there already; nothing was written.")
        raise typer.Exit(exits.REFUSED)
    if not file.absolute().parent.is_dir():
        raise BackupError(f"There is no folder {file.absolute().parent}; nothing was written.")
    run(_backup(settings, file))
    size = file.stat().st_size
    talk(f"{file}: {size} bytes.")
    if json:
        emit_json({"file": str(file), "bytes": size})


async def _backup(settings: Settings, file: Path) -> None:
    from greffier.store import schema  # noqa: PLC0415

    part = file.with_name(file.name + ".part")
    async with server(settings) as dsn:
        if (await schema.status(dsn)).state == "absent":
            # Of the wrong folder, say: a file with nothing in it would be taken for a backup.
            raise BackupError("There is no record here; nothing was written.")
        try:
            await _program(
                dsn, "pg_dump", "--format=custom", "--no-owner", f"--file={part}",
                f"--dbname={dsn}",
            )  # fmt: skip
        except BaseException:
            part.unlink(missing_ok=True)
            raise
    # On disk before it has its name.
    with part.open("rb") as written:
        os.fsync(written.fileno())
    part.rename(file)


def restore(
    file: BackupFile,
    *,
    json: Json = False,
    database_url: DatabaseUrl = None,
    data_dir: DataDir = None,
    config: Config = None,
) -> None:
    """Bring back what `greffier backup` wrote, into a database that holds no record yet.

    The restored record has an epoch of its own, so that clients start afresh. Roles of people who
    reach the database directly are admitted anew afterwards.
    """
    settings = load_settings(database_url, data_dir, config)
    if not file.is_file():
        raise BackupError(f"There is no file {file}.")
    with file.open("rb") as given:
        if given.read(len(_MAGIC)) != _MAGIC:
            raise BackupError(f"{file} is no backup; nothing was changed.")
    state = run(_restore(settings, file))
    if state is not None:
        talk(f"This database has a record already (its schema is {state}); nothing was changed.")
        raise typer.Exit(exits.REFUSED)
    talk("Restored. `greffier audit` proves it.")
    if json:
        emit_json({"file": str(file), "restored": True})


async def _restore(settings: Settings, file: Path) -> str | None:
    """Restore; or say in which state the schema is that stands in the way."""
    from greffier.store import schema  # noqa: PLC0415
    from greffier.store.connection import connect  # noqa: PLC0415

    async with server(settings) as dsn:
        found = await schema.status(dsn)
        if found.state != "absent":
            return found.state
        await _program(
            dsn, "pg_restore", "--no-owner", "--no-acl", "--exit-on-error", "--single-transaction",
            f"--dbname={dsn}", str(file),
        )  # fmt: skip
        live = await connect(dsn)
        try:
            # Rights are not in what was restored: the roles they name may not be on this server.
            await schema.grant(live)
            # The next to open it begins a new history: numbers of the old one mean nothing here.
            await live.execute("delete from greffier.identity")
        finally:
            await live.close()
    return None


async def _program(dsn: str, name: str, *arguments: str) -> None:
    """Run a program of PostgreSQL's, of the server's own version where this machine has it.

    A newer one writes settings into a restore that an older server does not know.

    Raises:
        BackupError: It failed, in its own words.
    """
    from greffier.embedded import binaries  # noqa: PLC0415
    from greffier.store.connection import connect  # noqa: PLC0415

    live = await connect(dsn)
    try:
        major = live.get_server_version().major
    finally:
        await live.close()
    chosen = binaries.find()
    if chosen.major != major:
        chosen = binaries.of_major(major) or chosen
    process = await asyncio.create_subprocess_exec(
        str(chosen.program(name)), *arguments, stderr=asyncio.subprocess.PIPE
    )
    _, said = await process.communicate()
    if process.returncode:
        raise BackupError(f"{name} failed: {said.decode(errors='replace').strip()[-500:]}")
