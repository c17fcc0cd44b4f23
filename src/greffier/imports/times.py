"""Times as exports write them: seconds, milliseconds, RFC 3339, or a local time without a zone."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, tzinfo
from decimal import Decimal
from typing import Any, Final

_BEGIN: Final = datetime(1970, 1, 1, tzinfo=UTC)
_NUMBER: Final = re.compile(r"-?\d+(\.\d+)?", re.ASCII)

#: From here on a number counts milliseconds, microseconds, nanoseconds: 10^11 seconds is the year
#: 5138, and 10^11 milliseconds was in 1973.
_UNITS: Final = ((10**11, 1), (10**14, 10**3), (10**17, 10**6), (10**20, 10**9))


class TimeError(ValueError):
    """A time that cannot be told: ``reason`` is ``time-without-zone`` or ``time-unreadable``."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


def read_time(value: Any, zone: tzinfo | None) -> datetime | None:
    """Read a point in time, in UTC with microseconds; None where there is none.

    Args:
        value: A number, or a text with a number or an RFC 3339 time in it.
        zone: What a time without an offset is meant in.

    Raises:
        TimeError: It is no time, or one without an offset and there is no zone to read it in, or
            one that the zone's clocks skipped.
    """
    if value is None or value == "":
        return None
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise TimeError("time-unreadable")
    text = str(value).strip()
    try:
        if not isinstance(value, str) or _NUMBER.fullmatch(text):
            return _from_number(Decimal(text))
        found = datetime.fromisoformat(text)
        if found.tzinfo is None:
            return _from_local(found, zone)
        return found.astimezone(UTC)
    except (ArithmeticError, ValueError) as error:
        if isinstance(error, TimeError):
            raise
        raise TimeError("time-unreadable") from error


def _from_number(number: Decimal) -> datetime:
    for bound, per_second in _UNITS:
        if abs(number) < bound:
            return _BEGIN + timedelta(microseconds=int(number * 1_000_000 / per_second))
    raise TimeError("time-unreadable")


def _from_local(local: datetime, zone: tzinfo | None) -> datetime:
    if zone is None:
        raise TimeError("time-without-zone")
    at = local.replace(tzinfo=zone).astimezone(UTC)
    # In the hour that the clocks skip in spring, there and back is not the same time.
    if at.astimezone(zone).replace(tzinfo=None) != local:
        raise TimeError("time-unreadable")
    return at
