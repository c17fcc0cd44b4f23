"""What callers give, as values: words of theirs become typed, and their faults refusals."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from greffier.errors import Invalid
from greffier.model.draft import SERVICE, Speaker

T = TypeVar("T")


def converted(value: Any, kind: type[T]) -> T:
    """Make a typed value of a caller's, whose faults are refusals like any other.

    Raises:
        Invalid: It is none.
    """
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise Invalid(str(error)) from error


def speaker(actor: str | None) -> Speaker:
    """Give whoever speaks: a user, or the service."""
    return SERVICE if actor is None else Speaker(actor, actor, None, actor)
