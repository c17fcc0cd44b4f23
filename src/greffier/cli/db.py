"""greffier db."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from greffier.cli import exits
from greffier.cli.common import (
    Config,
    DatabaseUrl,
    DataDir,
    Json,
    load_settings,
    run,
    server,
)
from greffier.cli.output import emit, emit_json, table, talk

if TYPE_CHECKING:
    from greffier.settings import Settings
    from greffier.store.schema import Status


def status(
    *,
    json: Json = False,
    database_url: DatabaseUrl = None,
    data_dir: DataDir = None,
    config: Config = None,
) -> None:
    """Say whether the schema is the one this release wants; exit code 3 when it is not."""
    found = run(_status(load_settings(database_url, data_dir, config)))
    if json:
        emit_json(
            {
                "state": found.state,
                "detail": found.detail,
                "pending": list(found.pending),
                "applied": [
                    {"id": one.id, "name": one.name, "at": one.at.isoformat(), "by": one.by}
                    for one in found.applied
                ],
            }
        )
    else:
        rows = [(one.name, f"{one.at:%Y-%m-%d %H:%M:%S} UTC", one.by) for one in found.applied]
        rows += [(name, "pending", "") for name in found.pending]
        if rows:
            table(rows, head=("migration", "applied", "by Greffier"))
        talk(found.detail)
    if found.state != "current":
        raise typer.Exit(exits.PROBLEMS)


async def _status(settings: Settings) -> Status:
    from greffier.store import schema  # noqa: PLC0415

    async with server(settings) as dsn:
        return await schema.status(dsn)


def migrate(
    *,
    sql: Annotated[
        bool, typer.Option("--sql", help="Print the SQL it would run, and change nothing.")
    ] = False,
    json: Json = False,
    database_url: DatabaseUrl = None,
    data_dir: DataDir = None,
    config: Config = None,
) -> None:
    """Bring the schema to this release's, from nothing or from an earlier one."""
    settings = load_settings(database_url, data_dir, config)
    if sql:
        from greffier.store import schema  # noqa: PLC0415

        found = run(_status(settings))
        if found.state in ("newer", "altered"):
            talk(found.detail)
            raise typer.Exit(exits.REFUSED)
        if found.state != "current":
            emit(schema.script(len(found.applied)))
        talk(found.detail)
        return
    applied = run(_migrate(settings))
    if json:
        emit_json({"applied": applied})
    elif applied:
        table([[name] for name in applied], head=["applied"])
    else:
        talk("Nothing to do: the schema is as this release wants it.")


async def _migrate(settings: Settings) -> list[str]:
    from greffier.store import schema  # noqa: PLC0415

    async with server(settings) as dsn:
        return await schema.migrate(dsn, log=talk)


def check(
    *,
    json: Json = False,
    database_url: DatabaseUrl = None,
    data_dir: DataDir = None,
    config: Config = None,
) -> None:
    """Say whether the database can be trusted with words: there, writable, flushing, up to date.

    Exit code 3 when it cannot, 5 when it is away. To check what is on record: greffier audit.
    """
    found = run(_check(load_settings(database_url, data_dir, config)))
    if json:
        emit_json(found)
    else:
        table([(name.replace("_", " "), one) for name, one in found.items() if one is not None])
    if not found["ready"]:
        raise typer.Exit(exits.PROBLEMS)


async def _check(settings: Settings) -> dict[str, Any]:
    from greffier.store import schema  # noqa: PLC0415
    from greffier.store.database import Database  # noqa: PLC0415

    async with server(settings) as dsn:
        found = await schema.status(dsn)
        why_not = await Database(dsn).why_not_ready()
    return {
        "ready": why_not is None,
        "why_not": why_not,
        "schema": found.state,
        "where": "your PostgreSQL" if settings.database_url else "the private PostgreSQL",
    }


def url(
    *,
    json: Json = False,
    database_url: DatabaseUrl = None,
    data_dir: DataDir = None,
    config: Config = None,
) -> None:
    """Print the URL of the database, for other programs.

    The private PostgreSQL answers there as long as something uses it: a server, or a command.
    """
    found = run(_url(load_settings(database_url, data_dir, config)))
    if json:
        emit_json({"url": found})
    else:
        emit(f"{found}\n")


async def _url(settings: Settings) -> str:
    async with server(settings) as dsn:
        return dsn
