"""Make a JSON value from elsewhere storable, note what was changed, and undo what can be undone.

``model.text`` has the policy for texts: a NUL is escaped, which can be undone, and half a surrogate
pair becomes U+FFFD.  Here it is applied to every text and key of a value.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from greffier.imports.values import Doubled, Number
from greffier.model import text

#: The metadata key of what was altered: lists of JSON pointers, by what was done there.
NOTE: Final = "greffier:text"

NUL: Final = "nul-escaped"
NUL_KEY: Final = "nul-escaped-key"
HALF: Final = "surrogate-replaced"
NUMBER: Final = "number-as-text"


class UnfitError(ValueError):
    """A value that cannot be stored without losing part of it, with the reason why."""

    def __init__(self, reason: str, detail: str) -> None:
        self.reason = reason
        self.detail = detail
        super().__init__(detail)


@dataclass(slots=True)
class Notes:
    """Where a value was altered: JSON pointers by what was done."""

    places: dict[str, list[str]] = field(default_factory=dict)

    def add(self, what: str, pointer: str) -> None:
        """Note one alteration."""
        self.places.setdefault(what, []).append(pointer)

    def names(self) -> set[str]:
        """What was done, as the account names it."""
        return {NUL if what == NUL_KEY else what for what in self.places}


def storable(value: Any, notes: Notes, pointer: str = "") -> Any:
    """Make a parsed JSON value storable.

    Raises:
        UnfitError: Two of its keys are the same, or would be after the change.
        RecursionError: It is nested too deeply.
    """
    if isinstance(value, str):
        if isinstance(value, Number):
            notes.add(NUMBER, pointer)
            return str(value)
        return _text(value, notes, pointer, NUL)
    if isinstance(value, dict):
        if isinstance(value, Doubled):
            raise UnfitError("duplicate-key", f"{pointer or '/'} has a key that stands twice.")
        found: dict[str, Any] = {}
        for key, item in value.items():
            safe = key
            if not key.isascii() or "\x00" in key:
                here = f"{pointer}/{_token(text.escape(key)[0])}"
                safe = _text(key, notes, here, NUL_KEY)
            if safe in found:
                raise UnfitError("duplicate-key", f"{pointer or '/'} has two keys {safe!r}.")
            found[safe] = storable(item, notes, f"{pointer}/{_token(safe)}")
        return found
    if isinstance(value, list):
        return [storable(item, notes, f"{pointer}/{index}") for index, item in enumerate(value)]
    return value


def restore(value: Any, places: Mapping[str, list[str]]) -> Any:
    """Undo the NUL escapes that ``storable`` noted; the rest cannot be undone."""
    nul, keys = set(places.get(NUL, ())), set(places.get(NUL_KEY, ()))
    return _restore(value, nul, keys, "") if nul or keys else value


def _restore(value: Any, nul: set[str], keys: set[str], pointer: str) -> Any:
    if isinstance(value, str):
        return text.unescape(value) if pointer in nul else value
    if isinstance(value, dict):
        found: dict[str, Any] = {}
        for key, item in value.items():
            here = f"{pointer}/{_token(key)}"
            found[text.unescape(key) if here in keys else key] = _restore(item, nul, keys, here)
        return found
    if isinstance(value, list):
        return [_restore(item, nul, keys, f"{pointer}/{i}") for i, item in enumerate(value)]
    return value


def _text(value: str, notes: Notes, pointer: str, what: str) -> str:
    if value.isascii() and "\x00" not in value:
        return value
    safe, nuls, halves = text.escape(value)
    if nuls:
        notes.add(what, pointer)
    if halves:
        notes.add(HALF, pointer)
    return safe


def _token(key: str) -> str:
    """Write a key as a part of a JSON pointer (RFC 6901)."""
    return key.replace("~", "~0").replace("/", "~1")
