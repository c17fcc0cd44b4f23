"""greffier worker."""

from __future__ import annotations

import os
from typing import Annotated

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


def worker(
    *,
    run_concurrency: Annotated[
        int | None, typer.Option(help="Runs at the same time (256).", show_default=False)
    ] = None,
    database_url: DatabaseUrl = None,
    data_dir: DataDir = None,
    config: Config = None,
    log_level: LogLevel = None,
    log_format: LogFormat = None,
    json: Json = False,
) -> None:
    """Answer for agents and deliver, without serving anybody.

    `greffier serve` does this too unless the setting WORK is off; run as many of these beside it as
    there is work for, on any machine that reaches the database. With --json a program is told on
    stdout, in one line, that it works, under which name, and where it tells its metrics.
    """
    logs = {"log_level": log_level, "log_format": log_format}
    settings = load_settings(
        database_url, data_dir, config, run_concurrency=run_concurrency, **logs
    )
    from greffier.server.work import Ready, run, tell  # noqa: PLC0415

    def ready(it: Ready) -> None:
        tell(it)
        if json:
            emit_json({"worker": it.name, "pid": os.getpid(), "metrics": it.metrics})

    run(settings, ready)
