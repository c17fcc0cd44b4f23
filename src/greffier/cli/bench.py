"""greffier bench."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from greffier.cli.common import (
    Config,
    DatabaseUrl,
    DataDir,
    Json,
    command,
    data_folder,
    load_settings,
    run,
)
from greffier.cli.output import emit, emit_json, table, talk

if TYPE_CHECKING:
    from greffier.bench.small import Report

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


def bench(
    *,
    seconds: Annotated[
        float, typer.Option(min=0.1, max=60, help="How long each side goes in each round.")
    ] = 1.0,
    json: Json = False,
    database_url: DatabaseUrl = None,
    data_dir: DataDir = None,
    config: Config = None,
) -> None:
    """Measure what Greffier does here beside what PostgreSQL does alone, in half a minute.

    In a database of its own that is dropped afterwards; your record is not touched, but whoever
    uses this machine meanwhile is slowed down. The numbers are ratios: ours against the least that
    has to be done, in turns, so that they mean the same on every machine.
    """
    settings = load_settings(database_url, data_dir, config)
    url = settings.database_url
    from greffier.bench import small  # noqa: PLC0415

    report = run(
        small.run(
            None if url is None else url.get_secret_value(),
            data_folder(settings),
            seconds=seconds,
            say=talk,
        )
    )
    if json:
        import msgspec  # noqa: PLC0415

        emit_json(msgspec.to_builtins(report))
    else:
        _show(report)


command(app, "bench", bench, "greffier bench --seconds 2 --json")


def _show(report: Report) -> None:
    from greffier.bench import show  # noqa: PLC0415

    table([show.row(line) for line in report.lines], head=show.HEAD, right=[2, 3, 4, 5, 8])
    emit("\n" + "\n".join(show.about(report.machine, [report.before, report.after])) + "\n")
