"""The commands, by name."""

from __future__ import annotations

import importlib
from typing import Annotated

import typer

from greffier._version import __version__
from greffier.cli import audit, backup, db, export, imports, queue, serve, stats, token, worker
from greffier.cli.common import command
from greffier.cli.output import emit

app = typer.Typer(
    name="greffier",
    help="Keeps conversations: what was said, in order, never lost, never doubled.",
    epilog="Example: greffier serve",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


def _version(asked: bool) -> None:
    if asked:
        emit(f"greffier {__version__}\n")
        raise typer.Exit


@app.callback()
def greffier(
    *,
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version.", callback=_version, is_eager=True),
    ] = False,
) -> None:
    """Keeps conversations: what was said, in order, never lost, never doubled."""


command(app, "serve", serve.serve, "greffier serve --port 9000")
command(app, "worker", worker.worker, "greffier worker")
command(app, "token", token.token, "greffier token --user ada --expires 1d")
command(app, "import", imports.import_, "greffier import talks.jsonl --owner ada --dry-run")
command(app, "export", export.export, "greffier export --user ada -o ada.jsonl")
command(app, "stats", stats.stats, "greffier stats --user ada --json")
command(app, "audit", audit.audit, "greffier audit --json")
command(app, "backup", backup.backup, "greffier backup greffier.dump")
command(app, "restore", backup.restore, "greffier restore greffier.dump --data-dir new")

database = typer.Typer(
    help="The database: its schema, its health, its URL.",
    epilog="Example: greffier db status",
    no_args_is_help=True,
)
command(database, "status", db.status, "greffier db status --json")
command(database, "migrate", db.migrate, "greffier db migrate --sql > upgrade.sql")
command(database, "check", db.check, "greffier db check --json")
command(database, "url", db.url, 'psql "$(greffier db url)"')
app.add_typer(database, name="db")

operating = typer.Typer(
    help="The queue of answers and deliveries: how it does, and what a person does to it.",
    epilog="Example: greffier queue diagnose",
    no_args_is_help=True,
)
command(operating, "diagnose", queue.diagnose, "greffier queue diagnose --json")
command(operating, "list", queue.list_, "greffier queue list --state parked")
command(operating, "unlock", queue.unlock, "greffier queue unlock --dry-run --force")
command(operating, "retry", queue.retry, "greffier queue retry LANE")
command(operating, "skip", queue.skip, "greffier queue skip LANE --execute")
command(operating, "pause", queue.pause, "greffier queue pause LANE")
command(operating, "resume", queue.resume, "greffier queue resume LANE")
app.add_typer(operating, name="queue")


@app.command(
    "bench",
    add_help_option=False,
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
)
def bench(context: typer.Context) -> None:
    """Measure what this machine does."""
    # By name and only here: it brings what no other command needs.
    module = importlib.import_module("greffier.cli.bench")
    raise typer.Exit(
        module.app(args=context.args, prog_name="greffier bench", standalone_mode=False) or 0
    )
