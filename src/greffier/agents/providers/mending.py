"""Text of a stream, made such that PostgreSQL can keep it.

A model's text comes in pieces of JSON, where an emoji may be written as two escapes and cut between
them.  So half a surrogate pair at the end of a piece is held back for the next one.  A half that
stays alone, and a NUL, become U+FFFD: neither is something the model said, but a fault on its way.
(An import escapes a NUL and notes it, since the record it takes over had it; a stream has no place
for the note before it ends.)
"""

from __future__ import annotations

_REPLACEMENT = "\ufffd"


class Mending:
    """Mends one text that comes in pieces."""

    __slots__ = ("_half",)

    def __init__(self) -> None:
        self._half = ""

    def feed(self, piece: str) -> str:
        """Take a piece and give what of the text is sure by now; it may be nothing."""
        if not self._half and piece.isascii() and "\x00" not in piece:
            return piece
        piece = self._half + piece
        self._half = ""
        if piece and "\ud800" <= piece[-1] <= "\udbff":
            self._half = piece[-1]
            piece = piece[:-1]
        return mend(piece)

    def end(self) -> str:
        """What was held back, when nothing follows."""
        half, self._half = self._half, ""
        return _REPLACEMENT if half else ""


def mend(text: str) -> str:
    """Mend a whole text."""
    if "\x00" in text:
        text = text.replace("\x00", _REPLACEMENT)
    try:
        text.encode()
    except UnicodeEncodeError:
        # Two halves in a row are a character; a half alone is none.
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text
