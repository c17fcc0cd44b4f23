"""greffier serve."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated

import typer

from greffier.cli.common import (
    Config,
    DatabaseUrl,
    DataDir,
    Json,
    LogFormat,
    LogLevel,
    load_settings,
)
from greffier.cli.output import emit_json

if TYPE_CHECKING:
    from greffier.server.run import Ready


def serve(
    *,
    host: Annotated[
        str | None,
        typer.Option(help="The address to listen on (127.0.0.1).", show_default=False),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(help="The port (8080); 0 takes a free one.", show_default=False),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(help="Server processes (1).", show_default=False)
    ] = None,
    log_level: LogLevel = None,
    log_format: LogFormat = None,
    json: Json = False,
    database_url: DatabaseUrl = None,
    data_dir: DataDir = None,
    config: Config = None,
) -> None:
    """Run the server, everything included; PostgreSQL too, unless you have one.

    Without a JWT secret it is for the person at this machine, who comes in by the link it prints.
    With --json a program is told the same on stdout, in one line, as soon as it can call.
    """
    settings = load_settings(
        database_url,
        data_dir,
        config,
        host=host,
        port=port,
        workers=workers,
        log_level=log_level,
        log_format=log_format,
    )
    from greffier.server.run import run, tell  # noqa: PLC0415

    def ready(found: Ready) -> None:
        tell(found)
        if json:
            emit_json({**found._asdict(), "pid": os.getpid()})

    run(settings, ready)
