"""greffier audit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from greffier.cli import exits
from greffier.cli.common import Config, DatabaseUrl, DataDir, Json, load_settings, open_record, run
from greffier.cli.output import emit, emit_json, table, talk

if TYPE_CHECKING:
    from greffier.read.audit import Report
    from greffier.settings import Settings


def audit(
    *,
    json: Json = False,
    database_url: DatabaseUrl = None,
    data_dir: DataDir = None,
    config: Config = None,
) -> None:
    """Prove that the record keeps its promises: every number, every list, nothing lost or doubled.

    It reads one snapshot of the whole database and may run while the server writes. Exit code 3
    when something is wrong, with the places.
    """
    report = run(_audit(load_settings(database_url, data_dir, config)))
    if json:
        import msgspec  # noqa: PLC0415

        emit_json({"clean": report.clean, **msgspec.to_builtins(report)})
    else:
        _show(report)
    if not report.clean:
        raise typer.Exit(exits.PROBLEMS)


async def _audit(settings: Settings) -> Report:
    from greffier.read.audit import audit as read  # noqa: PLC0415

    async with open_record(settings) as database:
        return await read(database)


def _show(report: Report) -> None:
    from greffier.read.audit import CHECKS  # noqa: PLC0415

    looked = f"{report.conversations} conversation(s), {report.messages} message(s)"
    if report.clean:
        emit(f"Clean: {looked}, {len(CHECKS)} checks.\n")
        return
    table(
        [(check, count, CHECKS[check]) for check, count in report.faults.items()],
        head=("check", "faults", "what does not hold"),
        right=[1],
    )
    emit("\n")
    table(
        [(one.check, one.conversation_id, one.seq, one.detail) for one in report.findings],
        head=("check", "conversation", "seq", "detail"),
        right=[2],
    )
    named = len(report.findings)
    total = sum(report.faults.values())
    talk(
        f"{total} faults in {looked}"
        + (f"; the first {named} are named." if named < total else ".")
    )
