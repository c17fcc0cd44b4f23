"""Lists that are shown whole, in the shape every list has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, TypeVar

import msgspec

from greffier.server.answers import Answer, encoded

T = TypeVar("T")


class Listed(msgspec.Struct, Generic[T], frozen=True):
    """A list; ``next_cursor`` is null when nothing follows."""

    data: Sequence[T]
    next_cursor: str | None = None


def listed(found: Sequence[object]) -> Answer:
    """Show a whole list."""
    return encoded(Listed(found))
