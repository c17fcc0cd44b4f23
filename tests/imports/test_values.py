"""Files as they really are: lines and documents, broken, huge, with numbers nothing can hold."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest

from greffier.errors import PayloadTooLarge
from greffier.imports.account import Fault
from greffier.imports.values import Doubled, Number, Value, values


def read(raw: bytes, *, longest: int = 1 << 20) -> list[Value | Fault]:
    """Read a file of these bytes."""
    return list(values(io.BytesIO(raw), "file", longest=longest))


def held(raw: bytes) -> list[Any]:
    """The values of a file that has no fault."""
    found = read(raw)
    assert all(isinstance(one, Value) for one in found)
    return [one.value for one in found if isinstance(one, Value)]


def test_each_line_is_a_value_and_knows_its_number() -> None:
    """Blank lines count for the numbers, and a last line needs no line feed."""
    found = read(b'{"a": 1}\n\n  \r\n[2]\r\n"three"')
    assert [(one.place.line, getattr(one, "value", None)) for one in found] == [
        (1, {"a": 1}),
        (4, [2]),
        (5, "three"),
    ]


@pytest.mark.parametrize("apart", ["\u2028", "\u2029", "\u0085"])
def test_a_line_ends_at_a_line_feed_and_nowhere_else(apart: str) -> None:
    """Characters that other tools take for line ends are part of the text."""
    text = f"one{apart}two"
    assert held(json.dumps([text], ensure_ascii=False).encode() + b"\n") == [[text]]


def test_a_byte_order_mark_is_passed_over() -> None:
    """Windows programs write one, in documents and before lines alike."""
    assert held(b'\xef\xbb\xbf{"a": 1}\n{"b": 2}\n') == [{"a": 1}, {"b": 2}]
    assert held(b'\xef\xbb\xbf[\n{"a": 1}\n]\n') == [[{"a": 1}]]
    assert held(b"\xef\xbb\xbf") == []


@pytest.mark.parametrize("indent", [None, 0, 2])
def test_a_document_is_one_value_however_it_is_laid_out(indent: int | None) -> None:
    """On one line, or over many."""
    document = [{"messages": [{"role": "user", "content": "a"}]}, {"messages": []}]
    assert held(json.dumps(document, indent=indent).encode()) == [document]


def test_a_broken_document_is_one_fault_with_its_place() -> None:
    """A file cut off in the middle is not taken for many broken lines."""
    (found,) = read(b'\n[\n  {"messages": [\n\n    {"role": "user"},\n')
    assert isinstance(found, Fault)
    assert (found.reason, found.place.line) == ("not-json", None)
    assert "line 6 column 1" in found.detail


def test_a_broken_first_line_does_not_spoil_the_others() -> None:
    """Cut within a text, or where a value could go on: the lines after it stand alone."""
    for broken in (b'{"messages": [{"role": "us', b'{"messages": [', b"{"):
        fault, *rest = read(broken + b'\n{"a": 1}\nnonsense\n{"b": 2}\n')
        assert isinstance(fault, Fault)
        assert (fault.reason, fault.place.line) == ("not-json", 1)
        assert [one.place.line for one in rest] == [2, 3, 4]
        assert [getattr(one, "reason", "") for one in rest] == ["", "not-json", ""]


def test_a_line_that_is_too_long_is_passed_over_alone() -> None:
    """It is a fault; its neighbours are read."""
    raw = b'[1]\n["' + b"x" * 5000 + b'"]\n[2]\n["' + b"y" * 5000
    found = read(raw, longest=1000)
    assert [(one.place.line, getattr(one, "reason", "")) for one in found] == [
        (1, ""),
        (2, "line-too-long"),
        (3, ""),
        (4, "line-too-long"),
    ]


def test_a_line_of_just_the_longest_length_is_read() -> None:
    """The limit itself is still good."""
    line = b'["' + b"x" * 996 + b'"]'
    assert len(read(line + b"\n" + line, longest=1000)) == 2
    assert all(isinstance(one, Value) for one in read(line + b"\n" + line, longest=1000))


def test_a_document_that_is_too_large_is_refused_with_advice() -> None:
    """It would have to be held whole; the way out is told."""
    document = json.dumps([{"text": "x" * 100}] * 100, indent=1).encode()
    with pytest.raises(PayloadTooLarge, match=r"jq -c"):
        read(document, longest=1000)


def test_bytes_that_are_no_text_are_a_fault_and_kept() -> None:
    """The quarantine has what stood there, byte for byte."""
    raw = b'{"a": "caf\xe9"}'
    fault, good = read(raw + b"\n[1]\n")
    assert isinstance(fault, Fault)
    assert fault.reason == "not-utf-8"
    assert isinstance(good, Value)
    kept = json.loads(fault.line())["raw"]
    assert kept.encode("utf-8", "surrogateescape").rstrip(b"\n") == raw


def test_numbers_that_nothing_could_hold_stay_as_they_are_written() -> None:
    """Too large for 64 bits or a float, and what is no number in JSON at all, become their text."""
    (found,) = held(b"[9223372036854775807, 9223372036854775808, 1e400, NaN, -Infinity, 1.5, -7]")
    assert found == [
        9223372036854775807,
        "9223372036854775808",
        "1e400",
        "NaN",
        "-Infinity",
        1.5,
        -7,
    ]
    assert [isinstance(one, Number) for one in found] == [
        False,
        True,
        True,
        True,
        True,
        False,
        False,
    ]


def test_a_key_that_stands_twice_is_seen() -> None:
    """Which of the two was meant nobody can say, so neither is dropped in silence."""
    (found,) = held(b'{"outer": {"a": 1, "a": 2}, "b": 3}')
    assert type(found) is dict
    assert isinstance(found["outer"], Doubled)


def test_nesting_without_end_is_a_fault() -> None:
    """It breaks its own line and not the program."""
    fault, good = read(b"[" * 100_000 + b"]" * 100_000 + b"\n[1]\n")
    assert isinstance(fault, Fault)
    assert fault.reason == "too-deep"
    assert isinstance(good, Value)
