"""JSON for a column of type jsonb, so that it is read back as the values that were given."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any

import msgspec.json

_encode = msgspec.json.Encoder(decimal_format="number").encode

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
    if _LARGE.search(encoded):
        return _encode(_decode(encoded))
    return encoded


def _float(text: str) -> float | Decimal:
    found = float(text)
    return found if abs(found) < 1e16 else Decimal(f"{Decimal(text):f}.0")


_decode = msgspec.json.Decoder(float_hook=_float).decode
