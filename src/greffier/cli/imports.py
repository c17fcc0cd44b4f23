"""greffier import."""

from __future__ import annotations

import contextlib
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO, TextIO

import typer

from greffier.cli import exits
from greffier.cli.common import (
    Config,
    DatabaseUrl,
    DataDir,
    Json,
    data_folder,
    load_settings,
    open_record,
    run,
)
from greffier.cli.output import emit_json, progress_bar, table, talk
from greffier.errors import Error
from greffier.model.person import fault as name_fault

if TYPE_CHECKING:
    from greffier.imports import Account, Fault, Options, Source
    from greffier.settings import Settings

#: Faults of one reason that are told on stderr; all of them go to the quarantine file.
TOLD = 10

FORMATS = ("auto", "openai", "greffier")


def _zone(name: str | None) -> Any:
    from zoneinfo import ZoneInfo  # noqa: PLC0415

    try:
        return None if name is None else ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:
        raise typer.BadParameter("A name like Europe/Paris.", param_hint="--time-zone") from error


def import_(
    *,
    files: Annotated[
        list[str], typer.Argument(metavar="FILES...", help="JSONL or JSON; - is stdin.")
    ],
    form: Annotated[
        str,
        typer.Option(
            "--format", help="auto tells each entry by itself; openai; greffier.", metavar="FORMAT"
        ),
    ] = "auto",
    owner: Annotated[
        str | None,
        typer.Option(
            help="Whose the conversations are. Without it an export of Greffier's keeps its owner, "
            "and other threads are yours, the person at this machine.",
            show_default=False,
        ),
    ] = None,
    time_zone: Annotated[
        str | None,
        typer.Option(help="What times without an offset are meant in.", show_default=False),
    ] = None,
    origin: Annotated[
        str, typer.Option(help="Keeps equal ids of different systems apart.", show_default=False)
    ] = "",
    quarantine: Annotated[
        Path | None,
        typer.Option(
            help="Write every row that is not taken to this file (JSONL), with its raw text.",
            metavar="FILE",
            show_default=False,
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Do everything but write, and give the account.")
    ] = False,
    json: Json = False,
    database_url: DatabaseUrl = None,
    data_dir: DataDir = None,
    config: Config = None,
) -> None:
    """Import conversations, and account for every row of the source.

    A row is a message. OpenAI threads are read one a line, {"messages": [...]} or a bare list, or
    as one JSON document with a list of them; so are Greffier's own exports. Importing the same file
    again adds nothing. A row that cannot be kept goes to quarantine alone, and exit code 3 says so.
    """
    if form not in FORMATS:
        raise typer.BadParameter(f"One of {', '.join(FORMATS)}.", param_hint="--format")
    if owner is not None and (problem := name_fault(owner, "")):
        raise typer.BadParameter(problem.detail, param_hint="--owner")
    zone = _zone(time_zone)
    sources = [_source(name) for name in files]
    settings = load_settings(database_url, data_dir, config)
    from greffier.imports import Account, Options  # noqa: PLC0415
    from greffier.server.local import person  # noqa: PLC0415

    account = Account()
    options = Options(owner, person(), form, zone, origin)
    total = _size(files)
    with contextlib.ExitStack() as stack:
        file = None
        if quarantine is not None:
            file = stack.enter_context(quarantine.open("w", encoding="utf-8"))
        faults = _Faults(file)
        advance = stack.enter_context(progress_bar("Importing", total))
        try:
            run(_import(settings, sources, options, account, faults, advance, dry_run=dry_run))
        except BaseException:
            if account.read:
                talk(f"Stopped after {account.mapped} messages. Run it again to go on from there.")
            raise
    faults.summary(quarantine)
    if not account.balanced:
        raise Error(f"The account does not add up, which is a fault of ours: {account.as_json()}")
    if json:
        emit_json({**account.as_json(), "dry_run": dry_run})
    else:
        _show(account, dry_run=dry_run)
    if account.quarantined:
        raise typer.Exit(exits.PROBLEMS)


async def _import(
    settings: Settings,
    sources: list[Source],
    options: Options,
    account: Account,
    faults: _Faults,
    advance: Any,
    *,
    dry_run: bool,
) -> None:
    from greffier.embedded.folder import Folder  # noqa: PLC0415
    from greffier.imports import import_files  # noqa: PLC0415

    async with contextlib.AsyncExitStack() as stack:
        nothing_yet = (
            settings.database_url is None and not Folder.at(data_folder(settings)).pg.exists()
        )
        database = None
        if not (dry_run and nothing_yet):
            # A rehearsal does not make a database; on an empty one nothing is on record.
            database = await stack.enter_async_context(open_record(settings))
        await import_files(
            database,
            sources,
            options,
            account,
            dry_run=dry_run,
            on_fault=faults,
            progress=advance,
        )


def _source(name: str) -> Source:
    from greffier.imports import Source  # noqa: PLC0415

    if name == "-":
        # Not sys.stdin: the thread that waits in it would hold its lock when the program ends, and
        # the interpreter aborts over that.
        return Source("stdin", lambda: open(0, "rb", closefd=False))
    path = Path(name)
    if path.is_dir():
        raise typer.BadParameter(f"{name} is a folder.", param_hint="FILES")
    if not path.exists():
        raise typer.BadParameter(f"There is no file {name}.", param_hint="FILES")

    def open_file() -> BinaryIO:
        return path.open("rb")

    return Source(name, open_file)


def _size(files: list[str]) -> int | None:
    if "-" in files:
        return None
    return sum(Path(name).stat().st_size for name in files)


class _Faults:
    """Tells the first of each reason on stderr, and writes all of them to a file."""

    def __init__(self, file: TextIO | None) -> None:
        self._file = file
        self._told: Counter[str] = Counter()

    def __call__(self, fault: Fault) -> None:
        self._told[fault.reason] += 1
        if self._told[fault.reason] <= TOLD:
            talk(f"{fault.place}: {fault.detail} [{fault.reason}]")
        if self._file is not None:
            self._file.write(fault.line() + "\n")

    def summary(self, path: Path | None) -> None:
        """Say how many were not told."""
        more = sum(max(count - TOLD, 0) for count in self._told.values())
        if more and path is None:
            talk(f"… and {more} more; --quarantine FILE keeps them all.")
        elif self._told and path is not None:
            talk(f"{self._told.total()} rows are in {path}.")


def _show(account: Account, *, dry_run: bool) -> None:
    rows: list[tuple[str, object, str]] = [
        ("read", account.read, "rows in the source"),
        ("mapped", account.mapped, "would become messages" if dry_run else "became messages"),
        ("already", account.already, "were on record"),
        ("quarantined", account.quarantined, _reasons(account.reasons)),
        ("deleted", account.deleted, _reasons(account.deletions)),
        ("altered", account.altered.total(), _reasons(account.altered)),
        ("conversations", account.conversations, "would be made" if dry_run else "made"),
        ("messages", account.messages, "would be stored" if dry_run else "stored"),
    ]
    table(rows, right=[1])
    if dry_run:
        talk("Nothing was written: this was a rehearsal (--dry-run).")


def _reasons(counts: Counter[str]) -> str:
    return ", ".join(f"{reason} {count}" for reason, count in sorted(counts.items()))
