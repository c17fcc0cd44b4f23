"""Ids and numbers, each a type of its own so that they cannot be swapped.

An id is a UUID.  We make version 7 (time-ordered, so that an index on it grows at its end); a
caller may bring any UUID of its own, and any other string becomes a version 5 in our namespace.
"""

from __future__ import annotations

import os
import struct
import threading
import time
import uuid
from typing import NewType

import msgspec

from greffier.errors import Invalid

ConversationId = NewType("ConversationId", uuid.UUID)
MessageId = NewType("MessageId", uuid.UUID)
AgentId = NewType("AgentId", uuid.UUID)
UserId = NewType("UserId", str)
Seq = NewType("Seq", int)
Rev = NewType("Rev", int)
Epoch = NewType("Epoch", str)

#: Foreign ids (another system's, an Idempotency-Key header) are mapped into this namespace.
NAMESPACE = uuid.UUID("6e2f8a54-3f3c-5e0b-9c3a-8f1d2b7a4c10")

_lock = threading.Lock()
_last = 0
#: Random numbers of 64 bits, ahead: asking the kernel for each took half of an id's time.
_random: list[int] = []
_AHEAD = struct.Struct("=256Q")
if hasattr(os, "register_at_fork"):
    # A child must not draw what its parent draws.
    os.register_at_fork(after_in_child=_random.clear)


def uuid7() -> uuid.UUID:
    """Make a UUID version 7 (RFC 9562), greater than every earlier one of this process.

    48 bits of Unix milliseconds, 12 bits of a fraction of the millisecond that also serves as a
    counter when the clock stands still or goes back (RFC 9562, 6.2, method 3), 62 random bits.
    """
    global _last
    now = time.time_ns()
    stamp = (now // 1_000_000) << 12 | (now % 1_000_000) * 4096 // 1_000_000
    with _lock:
        stamp = _last = max(stamp, _last + 1)
        if not _random:
            _random.extend(_AHEAD.unpack(os.urandom(_AHEAD.size)))
        random = _random.pop() >> 2
    value = (stamp >> 12) << 80 | 7 << 76 | (stamp & 0xFFF) << 64 | 2 << 62 | random
    return uuid.UUID(int=value)


def foreign(kind: str, *parts: str) -> uuid.UUID:
    """Map an id of another system to ours: the same parts give the same UUID, for ever.

    Each part is prefixed by its length, so that ("ab", "c") and ("a", "bc") stay apart.
    """
    name = kind + "".join(f"|{len(part)}:{part}" for part in parts)
    return uuid.uuid5(NAMESPACE, name)


def parse_uuid(text: str) -> uuid.UUID | None:
    """Read a UUID in its canonical spelling (any case), else None.

    ``uuid.UUID`` alone also takes ``urn:uuid:``, braces, underscores and Unicode digits, which
    PostgreSQL refuses; two spellings of one id would then pass as two.
    """
    if len(text) != 36 or not text.isascii():
        return None
    try:
        # Of 36 characters it takes no other spelling, in a fifth of the time.
        return msgspec.convert(text, uuid.UUID)
    except msgspec.ValidationError:
        return None


def as_id(value: uuid.UUID | str, pointer: str = "/id") -> uuid.UUID:
    """Read an id given as a UUID or as its text.

    Raises:
        Invalid: The text is no UUID.
    """
    if isinstance(value, uuid.UUID):
        return value
    found = parse_uuid(value)
    if found is None:
        raise Invalid.at(pointer, "uuid", "An id is a UUID.")
    return found
