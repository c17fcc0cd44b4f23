"""greffier stats."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from greffier.cli.common import Config, DatabaseUrl, DataDir, Json, load_settings, open_record, run
from greffier.cli.output import emit_json, table

if TYPE_CHECKING:
    from uuid import UUID

    from greffier.settings import Settings


def stats(
    *,
    conversation_id: Annotated[
        str | None, typer.Argument(metavar="[ID]", help="One conversation.", show_default=False)
    ] = None,
    user: Annotated[
        str | None,
        typer.Option(help="Only the conversations this user takes part in.", show_default=False),
    ] = None,
    json: Json = False,
    database_url: DatabaseUrl = None,
    data_dir: DataDir = None,
    config: Config = None,
) -> None:
    """Count what is on record: all of it, a user's, or one conversation's."""
    if conversation_id and user:
        raise typer.BadParameter("A conversation or a user, not both.", param_hint="--user")
    from greffier.library import as_id  # noqa: PLC0415

    which = None if conversation_id is None else as_id(conversation_id)
    found = run(_read(load_settings(database_url, data_dir, config), which, user))
    if json:
        emit_json(found)
        return
    rows = [
        (f"{name}.{inner}" if name != "roles" else f"  {inner}", value)
        if inner
        else (name.replace("_", " "), value)
        for name, inner, value in _flat(found)
    ]
    table(rows, right=[1])


def _flat(found: dict[str, Any]) -> list[tuple[str, str, Any]]:
    rows: list[tuple[str, str, Any]] = []
    for name, value in found.items():
        if isinstance(value, dict):
            rows += [(name, inner, one) for inner, one in value.items()]
        else:
            rows.append((name, "", value))
    return rows


async def _read(
    settings: Settings, conversation_id: UUID | None, user: str | None
) -> dict[str, Any]:
    import msgspec  # noqa: PLC0415

    from greffier.read.stats import stats as of_one  # noqa: PLC0415
    from greffier.read.totals import totals  # noqa: PLC0415

    async with open_record(settings) as database:
        found: dict[str, Any]
        if conversation_id is not None:
            one = msgspec.to_builtins(await of_one(database, conversation_id, None))
            found = {"conversation_id": str(conversation_id), **one}
        else:
            found = msgspec.to_builtins(await totals(database, user))
        return found
