"""What models cost somebody in a month, and how much they may spend."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime
from decimal import Decimal
from uuid import UUID

import msgspec

from greffier.errors import Invalid, Problem

#: A month as it is written.
_MONTH = re.compile(r"([1-9][0-9]{3})-(0[1-9]|1[0-2])", re.ASCII)
#: Where JavaScript still counts exactly.
_MOST_TOKENS = (1 << 53) - 1
_MOST_COST = 10**12
#: Digits after the point: a millionth of the smallest price of a token that is known.
_DIGITS = 12


class Spent(msgspec.Struct, frozen=True, kw_only=True):
    """What runs took; ``calls`` are questions put to a model, cached tokens are of the input.

    ``cost`` is exact, in the currency of the settings by their prices on the day.
    """

    runs: int
    calls: int
    input_tokens: int
    output_tokens: int
    cached_tokens: int
    cost: Decimal


class AgentUsage(Spent, frozen=True, kw_only=True):
    """What one agent took with one model; ``agent`` is its name today."""

    agent_id: UUID
    agent: str | None
    provider: str
    model: str


class UserUsage(Spent, frozen=True, kw_only=True):
    """What one user's runs took."""

    user_id: str


class Quota(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What somebody may spend in a month, which begins with its first second in UTC.

    Null is no limit.  Tokens are those of input and output together.
    """

    tokens_per_month: int | None = None
    cost_per_month: Decimal | None = None


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """What a user's runs took in a month (``YYYY-MM``, in UTC), the dearest first."""

    month: str
    totals: Spent
    by: list[AgentUsage]
    quota: Quota | None


def total(lines: Iterable[Spent]) -> Spent:
    """Add up."""
    found = list(lines)
    return Spent(
        runs=sum(one.runs for one in found),
        calls=sum(one.calls for one in found),
        input_tokens=sum(one.input_tokens for one in found),
        output_tokens=sum(one.output_tokens for one in found),
        cached_tokens=sum(one.cached_tokens for one in found),
        cost=sum((one.cost for one in found), Decimal()),
    )


def month_start(month: str | None, pointer: str = "/month") -> datetime | None:
    """Give the first second of a month; None, for the present one, stays None.

    Raises:
        Invalid: It is no month.
    """
    if month is None:
        return None
    found = _MONTH.fullmatch(month)
    if found is None:
        raise Invalid.at(pointer, "month", "A month is written YYYY-MM.")
    return datetime(int(found[1]), int(found[2]), 1, tzinfo=UTC)


def check_quota(quota: Quota) -> None:
    """Refuse a quota that makes no sense; 0 is one, and lets nobody begin.

    Raises:
        Invalid: With every fault that was found.
    """
    problems: list[Problem] = []
    tokens, cost = quota.tokens_per_month, quota.cost_per_month
    if tokens is not None and not 0 <= tokens <= _MOST_TOKENS:
        problems.append(Problem("/tokens_per_month", "range", f"From 0 to {_MOST_TOKENS}."))
    # A number that is none compares with nothing.
    if cost is not None and not (cost.is_finite() and 0 <= cost <= _MOST_COST):
        problems.append(Problem("/cost_per_month", "range", f"From 0 to {_MOST_COST}."))
    elif cost is not None and int(cost.as_tuple().exponent) < -_DIGITS:
        detail = f"At most {_DIGITS} digits after the point."
        problems.append(Problem("/cost_per_month", "range", detail))
    if problems:
        raise Invalid(problems=tuple(problems))
