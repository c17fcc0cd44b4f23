"""Text that PostgreSQL cannot hold as it is: NUL, and halves of UTF-16 pairs.

Over the API both are refused, with the place.  An import, whose words cannot be said again, keeps
them: a NUL is written as two private-use characters that can be read back, and half a pair, which
is no character at all, becomes U+FFFD.  Both are counted in the import's account, and a message
that was altered says so in its metadata.
"""

from __future__ import annotations

from typing import Any

from greffier.errors import Problem

_ESCAPE = "\ue000"
_NUL = "\ue000\ue001"
_SELF = "\ue000\ue000"


def faults(text: str, pointer: str) -> Problem | None:
    """Say what in this text cannot be stored, if anything."""
    if "\x00" in text:
        return Problem(pointer, "nul-character", "A NUL character cannot be stored; leave it out.")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return Problem(
            pointer, "lone-surrogate", f"Character {error.start} is half a surrogate pair."
        )
    return None


def deep_faults(value: Any, pointer: str) -> Problem | None:
    """The same for everything in a JSON value, keys too."""
    if isinstance(value, str):
        return faults(value, pointer)
    if isinstance(value, dict):
        for key, item in value.items():
            found = deep_faults(key, pointer) or deep_faults(item, f"{pointer}/{key}")
            if found:
                return found
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            found = deep_faults(item, f"{pointer}/{index}")
            if found:
                return found
    return None


def escape(text: str) -> tuple[str, int, int]:
    """Make a text storable, for an import.

    Returns:
        The text, how many NULs it held (to be undone by ``unescape``), and how many halves of
        surrogate pairs were replaced by U+FFFD.
    """
    nuls = text.count("\x00")
    if nuls:
        text = text.replace(_ESCAPE, _SELF).replace("\x00", _NUL)
    try:
        text.encode()
    except UnicodeEncodeError:
        # Whole pairs written as two surrogates are characters; what is left alone is none.
        joined = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        halves = sum("\ud800" <= char <= "\udfff" for char in _unpaired(text))
        return joined, nuls, halves
    return text, nuls, 0


def unescape(text: str) -> str:
    """Give back the text that ``escape`` took, NULs and all; only for a text that it altered."""
    out: list[str] = []
    position = 0
    while (at := text.find(_ESCAPE, position)) >= 0:
        out.append(text[position:at])
        out.append("\x00" if text[at + 1 : at + 2] == "\ue001" else _ESCAPE)
        position = at + 2
    out.append(text[position:])
    return "".join(out)


def _unpaired(text: str) -> str:
    """The halves of pairs that stand alone."""
    alone: list[str] = []
    previous = ""
    for char in text:
        if "\udc00" <= char <= "\udfff" and "\ud800" <= previous <= "\udbff":
            alone.pop()
            previous = ""
            continue
        if "\ud800" <= char <= "\udfff":
            alone.append(char)
        previous = char
    return "".join(alone)
