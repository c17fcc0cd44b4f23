"""Positions: what a write hands back, so that no later read shows a state without it.

Without standbys every read comes from the primary and any position is satisfied; it then only
names the epoch.  The text is opaque to callers: ``<version>.<epoch>.<timeline>.<WAL position>``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from greffier.errors import Invalid

_FORM = re.compile(r"1\.([0-9a-f]{12})\.([0-9a-f]{1,8})\.([0-9a-f]{1,16})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Position:
    """A point in this history of the database, at which a write is on record."""

    epoch: str
    timeline: int = 0
    lsn: int = 0

    def __str__(self) -> str:
        return f"1.{self.epoch}.{self.timeline:x}.{self.lsn:x}"

    @classmethod
    def parse(cls, text: str) -> Position:
        """Read what a caller sends back.

        Raises:
            Invalid: It is none of ours.
        """
        match = _FORM.fullmatch(text)
        if match is None:
            raise Invalid.at(
                "", "position", "The header Greffier-Position holds no position of this service."
            )
        return cls(match[1], int(match[2], 16), int(match[3], 16))
