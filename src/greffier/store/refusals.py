"""Outcomes a SQL function answers with instead of raising, as errors."""

from __future__ import annotations

from greffier import errors

OUTCOMES: dict[str, type[errors.Error]] = {
    "not-found": errors.NotFound,
    "gone": errors.Gone,
    "archived": errors.Archived,
    "forbidden": errors.Forbidden,
    "id-reused": errors.IdReused,
}


def refusal(outcome: str) -> errors.Error:
    """Make the error an outcome means."""
    return OUTCOMES[outcome]()
