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
_WHY = {
    "forbidden": "Your role here does not let you say this; in a room people write role user.",
}


def refusal(outcome: str) -> errors.Error:
    """Make the error an outcome means."""
    return OUTCOMES[outcome](_WHY.get(outcome))
