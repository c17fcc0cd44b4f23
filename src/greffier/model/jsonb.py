"""JSON for a column of type jsonb, so that it is read back as the values that were given."""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from math import isfinite
from typing import Any

import msgspec.json

_encode = msgspec.json.Encoder(decimal_format="number").encode

# What msgspec writes for the floats and decimals that are no numbers; also what looks like it.
_NO_NUMBER = re.compile(rb"null|NaN|Infinity")

# A number with an exponent that is not negative; also what looks like one in a text.
_LARGE = re.compile(rb"\d[eE]\+?\d")


def encode(value: Any) -> bytes:
    """Encode a JSON value.

    PostgreSQL's jsonb holds decimals and writes 1e16 as 10000000000000000, which is read back as
    an integer, and that is not always the float that it came from.  A float written out and with
    a fraction, 10000000000000000.0, stays the same one.

    Raises:
        TypeError, ValueError, OverflowError, RecursionError: It is no JSON value.
    """
    encoded = _encode(value)
    check_numbers(value, encoded)
    if _LARGE.search(encoded):
        return _encode(_decode(encoded))
    return encoded


def check_numbers(value: Any, encoded: bytes) -> None:
    """Refuse what would be kept as something else: msgspec writes null for a NaN.

    Raises:
        ValueError: It holds a number that JSON does not have.
    """
    if _NO_NUMBER.search(encoded) and not _is_finite(value):
        raise ValueError("NaN and infinity are no numbers of JSON.")


def _is_finite(value: Any) -> bool:
    if isinstance(value, float | Decimal):
        return isfinite(value)
    if isinstance(value, Mapping):
        return all(map(_is_finite, value.values()))
    return not isinstance(value, list | tuple) or all(map(_is_finite, value))


def _float(text: str) -> float | Decimal:
    found = float(text)
    return found if abs(found) < 1e16 else Decimal(f"{Decimal(text):f}.0")


_decode = msgspec.json.Decoder(float_hook=_float).decode
