"""JSON values from a file, one after the other: lines of JSONL, or the parts of one document.

Memory stays flat: a line is held alone, and a document (which cannot be read in part) is refused
beyond ``LONGEST``.  Lines end at a line feed and nowhere else: text may hold U+2028 or 0x1C.
The standard library's parser is used because an export may hold half a surrogate pair, which
msgspec refuses.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, Final

from greffier.errors import PayloadTooLarge
from greffier.imports.account import Fault, Place

#: The longest line, and the largest document, that is read.
LONGEST: Final = 64 << 20

_BOM: Final = b"\xef\xbb\xbf"
#: Bytes passed over at a time, of a line that is too long.
_STRIDE: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Source:
    """A file to import: its name for messages, and how it is opened."""

    name: str
    open: Callable[[], BinaryIO]


@dataclass(frozen=True, slots=True)
class Value:
    """One JSON value, where it stood and how many bytes it took."""

    place: Place
    value: Any
    size: int


class Number(str):
    """A number that neither PostgreSQL's JSON nor a 64-bit integer can hold, as its text."""

    __slots__ = ()


class Doubled(dict[str, Any]):
    """An object in which one key stood twice; which of the two was meant nobody can say."""


def values(stream: BinaryIO, name: str, *, longest: int = LONGEST) -> Iterator[Value | Fault]:
    """Read the values of a JSONL file or of one JSON document, whichever it is.

    A file whose first line is a JSON value is JSONL.  Where that line only begins one, the file is
    a document if the whole is one; else it is JSONL with a broken first line if the second line
    stands alone, and a broken document if not.

    Raises:
        PayloadTooLarge: It is a document larger than ``longest``.
    """
    lines = _lines(stream, longest)
    for number, raw in lines:
        if raw is not None and _begins_document(raw):
            yield from _document(name, number, raw, lines, longest)
        else:
            yield _line(name, number, raw, longest)
        break
    yield from (_line(name, number, raw, longest) for number, raw in lines)


def _document(
    name: str,
    number: int,
    first: bytes,
    lines: Iterator[tuple[int, bytes | None]],
    longest: int,
) -> Iterator[Value | Fault]:
    """Read what begins like a document: as one, or as lines after all."""
    kept: list[tuple[int, bytes | None]] = [(number, first)]
    size = len(first)
    whole = True
    for at, raw in lines:
        kept.append((at, raw))
        size += longest if raw is None else len(raw)
        whole = size <= longest
        if not whole:
            break
    if whole:
        found = _parse(Place(name, line=number if len(kept) == 1 else None), _joined(kept))
        if isinstance(found, Value) or not _stands_alone(kept):
            yield found
            return
    if not _stands_alone(kept):
        raise PayloadTooLarge(
            f"{name} is one JSON document of more than {longest >> 20} MiB, which would have to be "
            "held in memory whole. Write one conversation a line instead (JSONL), for example "
            f"with: jq -c '.[]' {name}"
        )
    # Lines that were kept for this; each may be as long as they all.
    yield from (_line(name, at, raw, longest) for at, raw in kept)


def _joined(kept: list[tuple[int, bytes | None]]) -> bytes:
    """The lines as they stood, blank ones between them, so that a fault is told by its line."""
    last = 0
    whole = []
    for at, raw in kept:
        whole.append(b"\n" * (at - last - 1) + (raw or b""))
        last = at
    return b"".join(whole)


def _lines(stream: BinaryIO, longest: int) -> Iterator[tuple[int, bytes | None]]:
    """Number the lines that are not blank; None stands for one that is too long to be held."""
    number = 0
    while raw := stream.readline(longest + 2):
        number += 1
        if len(raw) > longest + 1 and not raw.endswith(b"\n"):
            while (rest := stream.readline(_STRIDE)) and not rest.endswith(b"\n"):
                pass
            yield number, None
            continue
        if number == 1:
            raw = raw.removeprefix(_BOM)
        if raw and not raw.isspace():
            yield number, raw


def _line(name: str, number: int, raw: bytes | None, longest: int) -> Value | Fault:
    place = Place(name, line=number)
    if raw is None:
        return Fault(place, "line-too-long", f"A line has at most {longest >> 20} MiB.")
    return _parse(place, raw)


def _parse(place: Place, raw: bytes) -> Value | Fault:
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        return Fault(
            place,
            "not-utf-8",
            f"Byte {error.start} (0x{raw[error.start]:02x}) is no UTF-8.",
            raw.decode("utf-8", "surrogateescape"),
        )
    try:
        return Value(place, parse(text), len(raw))
    except json.JSONDecodeError as error:
        where = f"line {error.lineno} column {error.colno}"
        return Fault(place, "not-json", f"{error.msg} at {where}.", text.rstrip("\r\n"))
    except RecursionError:
        return Fault(place, "too-deep", "It is nested too deeply.", text.rstrip("\r\n"))


def parse(text: str) -> Any:
    """Parse JSON so that nothing is lost silently: see ``Number`` and ``Doubled``.

    Raises:
        json.JSONDecodeError: It is no JSON.
        RecursionError: It is nested too deeply.
    """
    return json.loads(
        text,
        parse_int=_integer,
        parse_float=_float,
        parse_constant=Number,
        object_pairs_hook=_object,
    )


def _integer(text: str) -> int | Number:
    # 18 digits always fit into 64 bits.
    if len(text) < 19:
        return int(text)
    if len(text) > 20 or not -(1 << 63) <= (value := int(text)) < 1 << 63:
        return Number(text)
    return value


def _float(text: str) -> float | Number:
    value = float(text)
    return value if math.isfinite(value) else Number(text)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    return found if len(found) == len(pairs) else Doubled(found)


def _begins_document(raw: bytes) -> bool:
    """Whether a line is the beginning of a JSON value that goes on after it."""
    try:
        text = raw.decode().rstrip()
        json.loads(text)
    except json.JSONDecodeError as error:
        # Where the text ends too early, and not within a string, which never spans lines.
        return error.pos >= len(text) and text[:1] in "[{"
    except (UnicodeDecodeError, RecursionError):
        return False
    return False


def _stands_alone(kept: list[tuple[int, bytes | None]]) -> bool:
    """Whether the second line is an object or a list by itself, as in JSONL."""
    raw = kept[1][1] if len(kept) > 1 else None
    if raw is None or raw.lstrip()[:1] not in (b"{", b"["):
        return False
    try:
        json.loads(raw)
    except (ValueError, RecursionError):
        return False
    return True
