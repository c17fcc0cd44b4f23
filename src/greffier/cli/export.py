"""greffier export."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from greffier.cli.common import Config, DatabaseUrl, DataDir, load_settings, open_record, run
from greffier.cli.output import emit_json, written

if TYPE_CHECKING:
    from uuid import UUID

    from greffier.settings import Settings
    from greffier.store.database import Database

#: Those that hold several conversations, and those for one.
FORMATS = ("jsonl", "json", "openai")
FOR_ONE = ("md", "csv", "html")


def export(
    *,
    conversation_id: Annotated[
        str | None, typer.Argument(metavar="[ID]", help="One conversation.", show_default=False)
    ] = None,
    user: Annotated[
        str | None,
        typer.Option(help="Every conversation this user takes part in.", show_default=False),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every conversation there is.")] = False,
    form: Annotated[
        str,
        typer.Option(
            "--format",
            help="jsonl and json are what an import reads back whole; openai is one thread a line; "
            "md, csv and html are for people, one conversation at a time.",
            metavar="FORMAT",
        ),
    ] = "jsonl",
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="A file instead of stdout.", metavar="FILE", show_default=False
        ),
    ] = None,
    json: Annotated[
        bool, typer.Option("--json", help="With a file: print what was written as JSON.")
    ] = False,
    database_url: DatabaseUrl = None,
    data_dir: DataDir = None,
    config: Config = None,
) -> None:
    """Write out conversations as they stand at one moment, oldest message first."""
    if [conversation_id is not None, user is not None, everything].count(True) != 1:
        raise typer.BadParameter("Say one of ID, --user and --all.", param_hint="ID")
    formats = (*FORMATS, *FOR_ONE) if conversation_id is not None else FORMATS
    if form not in formats:
        raise typer.BadParameter(f"One of {', '.join(formats)}.", param_hint="--format")
    if json and output is None:
        # stdout is the export itself: an account in the middle of it would spoil both.
        raise typer.BadParameter("Only with a file (-o).", param_hint="--json")
    from greffier.model.ids import as_id  # noqa: PLC0415

    which = None if conversation_id is None else as_id(conversation_id)
    settings = load_settings(database_url, data_dir, config)
    with written(output) as write:
        size = run(_export(settings, which, user, form, write))
    if json:
        emit_json({"file": str(output), "format": form, "bytes": size})


async def _export(
    settings: Settings,
    conversation_id: UUID | None,
    user: str | None,
    form: str,
    write: Callable[[bytes], object],
) -> int:
    size = 0
    async with open_record(settings) as database:
        async for piece in _pieces(database, conversation_id, user, form):
            write(piece)
            size += len(piece)
    return size


def _pieces(
    database: Database, conversation_id: UUID | None, user: str | None, form: str
) -> AsyncIterator[bytes]:
    from greffier.imports.openai import threads  # noqa: PLC0415
    from greffier.read import export as read  # noqa: PLC0415

    kept = "jsonl" if form == "openai" else form
    if conversation_id is not None:
        pieces = read.export(database, conversation_id, None, kept)
    else:
        pieces = read.export_all(database, user, kept)
    return threads(pieces) if form == "openai" else pieces
