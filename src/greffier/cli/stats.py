"""greffier stats, and greffier stats usage."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from greffier.cli.common import Config, DatabaseUrl, DataDir, Json, load_settings, open_record, run
from greffier.cli.output import emit, emit_json, table, written

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from uuid import UUID

    from greffier.model.usage import Spent
    from greffier.settings import Settings


def stats(
    *,
    conversation_id: Annotated[
        str | None,
        typer.Argument(
            metavar="[ID|usage]",
            help="One conversation; or usage: what models cost in a month.",
            show_default=False,
        ),
    ] = None,
    user: Annotated[
        str | None,
        typer.Option(
            help="Only the conversations this user takes part in, or their usage.",
            show_default=False,
        ),
    ] = None,
    month: Annotated[
        str | None,
        typer.Option(
            metavar="YYYY-MM",
            help="Of usage: which month, in UTC; the present one if none is said.",
            show_default=False,
        ),
    ] = None,
    csv: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Of usage: write a statement with a line for each run; - is stdout.",
            show_default=False,
        ),
    ] = None,
    json: Json = False,
    database_url: DatabaseUrl = None,
    data_dir: DataDir = None,
    config: Config = None,
) -> None:
    """Count what is on record: all of it, a user's, or one conversation's; or what models cost."""
    if conversation_id == "usage":
        _usage(load_settings(database_url, data_dir, config), user, month, csv, json=json)
        return
    if month or csv:
        name = "--month" if month else "--csv"
        raise typer.BadParameter("It belongs to: greffier stats usage.", param_hint=name)
    if conversation_id and user:
        raise typer.BadParameter("A conversation or a user, not both.", param_hint="--user")
    from greffier.model.ids import as_id  # noqa: PLC0415

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


# -- usage -----------------------------------------------------------------------------------------


def _usage(
    settings: Settings, user: str | None, month: str | None, csv: Path | None, *, json: bool
) -> None:
    if csv is not None:
        if json:
            raise typer.BadParameter("A statement or JSON, not both.", param_hint="--csv")
        with written(None if str(csv) == "-" else csv) as write:
            run(_statement(settings, user, month, write))
        return
    found = run(_spent(settings, user, month))
    if json:
        import msgspec  # noqa: PLC0415

        # A cost is a number, with all its digits, as over HTTP.
        emit(msgspec.json.Encoder(decimal_format="number").encode(found) + b"\n")
        return
    names = ("agent", "provider", "model") if user is not None else ("user_id",)
    counts = ("runs", "calls", "input_tokens", "output_tokens", "cached_tokens", "cost")
    rows = [
        [*(getattr(line, name) for name in names), *_counts(line, counts)]
        for line in found["users" if user is None else "by"]
    ]
    if len(rows) != 1:
        rows.append([found["month"], *[None] * (len(names) - 1), *_counts(found["totals"], counts)])
    head = [name.removesuffix("_id").replace("_", " ") for name in (*names, *counts)]
    head[-1] += f" ({settings.currency})"
    table(rows, head=head, right=range(len(names), len(head)))


def _counts(line: Spent, names: Sequence[str]) -> list[object]:
    values = [getattr(line, name) for name in names]
    return [*values[:-1], f"{values[-1]:f}"]


async def _spent(settings: Settings, user: str | None, month: str | None) -> dict[str, Any]:
    from greffier.model.usage import total  # noqa: PLC0415
    from greffier.read import usage as reads  # noqa: PLC0415

    async with open_record(settings) as database:
        if user is None:
            of, users = await reads.usage_of_all(database, month)
            found = {"totals": total(users), "users": users}
        else:
            one = await reads.usage(database, user, month)
            of = one.month
            found = {"user_id": user, "totals": one.totals, "by": one.by, "quota": one.quota}
    return {"month": of, "currency": settings.currency, **found}


async def _statement(
    settings: Settings, user: str | None, month: str | None, write: Callable[[bytes], object]
) -> None:
    from greffier.read import usage as reads  # noqa: PLC0415

    async with open_record(settings) as database:
        async for piece in reads.statement(database, user, month, settings.currency):
            write(piece)
