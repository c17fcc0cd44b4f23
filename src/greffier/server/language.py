"""The languages our pages and files for people are in."""

from __future__ import annotations

from typing import Literal, TypeAlias

Language: TypeAlias = Literal["en", "fr"]
_KNOWN: tuple[Language, ...] = ("en", "fr")


def preferred(accept: bytes | None) -> Language:
    """Choose between English and French as Accept-Language wishes (RFC 9110, 12.5.4)."""
    best = 0.0
    choice: Language = "en"
    for one in (accept or b"").decode("latin-1").lower().split(","):
        tag, *parameters = one.split(";")
        weight = 1.0
        for parameter in parameters:
            name, _, value = parameter.strip().partition("=")
            if name == "q":
                try:
                    weight = float(value)
                except ValueError:
                    weight = 0.0
        main = tag.strip().partition("-")[0]
        for known in _KNOWN:
            if main == known and weight > best:
                best, choice = weight, known
    return choice
