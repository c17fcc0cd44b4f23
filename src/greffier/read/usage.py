"""What models cost: a user's month, everybody's, and its statement for a spreadsheet."""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

from greffier.model.usage import AgentUsage, Quota, Usage, UserUsage, month_start, total
from greffier.model.wire import rfc3339
from greffier.read.formats import cell
from greffier.store.database import Database
from greffier.store.queries import queries

#: Rows of a statement fetched ahead, and written in one piece.
_PREFETCH = 500

_COLUMNS = (
    *("at", "user_id", "run_id", "conversation_id", "agent_id", "agent", "provider", "model"),
    *("calls", "input_tokens", "output_tokens", "cached_tokens", "cost"),
)


async def usage(database: Database, user: str, month: str | None = None) -> Usage:
    """Add up what a user's runs took in a month, by agent and model.

    Args:
        database: Where.
        user: Whose.
        month: ``YYYY-MM``; by the database's clock the present one, when not given.

    Raises:
        Invalid: It is no month.
    """
    rows = await database.read("usage_of", user, month_start(month))
    by = [AgentUsage(**_line(dict(row))) for row in rows if row["agent_id"] is not None]
    found = await quota(database, user)
    return Usage(
        month=f"{rows[0]['since']:%Y-%m}",
        totals=total(by),
        by=by,
        quota=None if found == Quota() else found,
    )


async def usage_of_all(database: Database, month: str | None = None) -> tuple[str, list[UserUsage]]:
    """Add up what everybody's runs took in a month, by user, the dearest first.

    It reads the whole ledger: for who operates the service, not for every request.

    Returns:
        The month, and a line for each user who had a run in it.

    Raises:
        Invalid: It is no month.
    """
    rows = await database.read("usage_of_all", month_start(month))
    found = [UserUsage(**_line(dict(row))) for row in rows if row["user_id"] is not None]
    return f"{rows[0]['since']:%Y-%m}", found


async def quota(database: Database, user: str) -> Quota:
    """Say what a user may spend in a month."""
    rows = await database.read("quota_of", user)
    return Quota(**dict(rows[0])) if rows else Quota()


async def statement(
    database: Database, user: str | None, month: str | None, currency: str
) -> AsyncIterator[bytes]:
    """Write a month's runs as CSV, one a row, as of one moment; no cell becomes a formula.

    Args:
        database: Where.
        user: Whose; None is everybody's, user by user.
        month: ``YYYY-MM``; the present one, when not given.
        currency: In which the costs are.

    Raises:
        Invalid: It is no month.
        Unavailable: The database is away.
    """
    since = month_start(month)
    name, asked = (
        ("statement_of_all", (since,)) if user is None else ("statement_of", (user, since))
    )
    async with database.snapshot() as live:
        yield _csv([(*_COLUMNS, "currency")])
        waiting: list[Sequence[str]] = []
        async for row in live.cursor(queries()[name], *asked, prefetch=_PREFETCH):
            waiting.append([*(_cell(row[column]) for column in _COLUMNS), currency])
            if len(waiting) == _PREFETCH:
                yield _csv(waiting)
                waiting = []
        if waiting:
            yield _csv(waiting)


def _cell(value: object) -> str:
    if isinstance(value, datetime):
        return rfc3339(value)
    # Written out: a spreadsheet would take 1E-7 for a text, or round it.
    return f"{value:f}" if isinstance(value, Decimal) else cell(value)


def _csv(rows: Sequence[Sequence[str]]) -> bytes:
    lines = io.StringIO()
    csv.writer(lines).writerows(rows)
    return lines.getvalue().encode()


def _line(row: dict[str, Any]) -> dict[str, Any]:
    del row["since"]
    return row
