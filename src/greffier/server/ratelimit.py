"""How many messages a user may send: a token bucket per user, shared by a machine's processes.

The algorithm is GCRA (generic cell rate algorithm, ITU-T I.371): one number a user, the time at
which the bucket would be full again.  It lives in a small file that every process of the service on
this machine maps, so that a second process does not double the limit; a slot is changed under a
lock on its own bytes.  Losing the file forgives everybody once, and nothing else.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import math
import mmap
import os
import re
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from greffier.errors import SettingsError

_FORM = re.compile(r"(?P<count>\d+)/(?P<period>\d+)s:(?P<burst>\d+)")
#: A user's hash, and the time at which their bucket is full again.
_SLOT = struct.Struct("=Qd")
_SLOTS = 1 << 16
#: Slots a user may be in; among as many busy users as this at one place two would share a bucket.
_PROBES = 8


@dataclass(frozen=True, slots=True)
class Rate:
    """So many messages per period in the long run, and ``burst`` at once."""

    count: int
    period: float
    burst: int

    @classmethod
    def parse(cls, text: str) -> Rate | None:
        """Read ``10/60s:20`` (ten a minute, twenty at once) or ``off``.

        Raises:
            SettingsError: It is neither.
        """
        if text.strip().lower() == "off":
            return None
        match = _FORM.fullmatch(text.strip())
        if match is None or not all(int(part) for part in match.groups()):
            raise SettingsError(
                f"RATE_LIMIT is {text!r}; it is `off`, or messages/seconds:burst as in 10/60s:20."
            )
        return cls(int(match["count"]), float(match["period"]), int(match["burst"]))

    @property
    def spacing(self) -> float:
        """Seconds that one message costs."""
        return self.period / self.count


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether it may be sent; what is left at once; seconds until it may, or until all is back."""

    allowed: bool
    remaining: int
    seconds: float


def judge(rate: Rate, full_at: float, now: float, cost: int) -> tuple[Verdict, float]:
    """Decide about ``cost`` messages of a user whose bucket is full again at ``full_at``.

    Returns:
        The verdict, and the time at which the bucket is full again from now on.
    """
    span = rate.spacing * rate.burst
    # A time far ahead is another boot's, or a clock that jumped: nobody can owe more than a bucket.
    owed = full_at - now if now < full_at <= now + span else 0.0
    after = owed + rate.spacing * cost
    if after > span + 1e-9:
        return Verdict(False, _whole(rate, span - owed), after - span), now + owed
    return Verdict(True, _whole(rate, span - after), after), now + after


def _whole(rate: Rate, seconds: float) -> int:
    return math.floor(seconds / rate.spacing + 1e-9)


class Buckets:
    """Everybody's buckets, in a file that this machine's processes share."""

    def __init__(self, rate: Rate, path: Path) -> None:
        """Map the file, made when it is not there.

        Args:
            rate: How much is allowed.
            path: The file; its folder is there and belongs to us.
        """
        self.rate = rate
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if os.fstat(self._file).st_size < _SLOTS * _SLOT.size:
            os.ftruncate(self._file, _SLOTS * _SLOT.size)
        self._map = mmap.mmap(self._file, _SLOTS * _SLOT.size)

    def take(self, user: str, cost: int, now: float | None = None) -> Verdict:
        """Take ``cost`` messages from a user's bucket, all or none.

        Args:
            user: Whose.
            cost: How many.
            now: Seconds on this machine's monotonic clock, which all its processes share.
        """
        now = time.monotonic() if now is None else now
        with self._slot(user, now) as (offset, key, full_at):
            verdict, later = judge(self.rate, full_at, now, cost)
            if verdict.allowed:
                _SLOT.pack_into(self._map, offset, key, later)
        return verdict

    def give_back(self, user: str, cost: int, now: float | None = None) -> None:
        """Return what was taken for messages that were there before: replays are free."""
        now = time.monotonic() if now is None else now
        with self._slot(user, now) as (offset, key, full_at):
            _SLOT.pack_into(self._map, offset, key, full_at - self.rate.spacing * cost)

    def close(self) -> None:
        """Let go of the file."""
        self._map.close()
        os.close(self._file)

    @contextlib.contextmanager
    def _slot(self, user: str, now: float) -> Iterator[tuple[int, int, float]]:
        """Hold a user's slot: where it is, what marks it as theirs, and the time in it."""
        digest = hashlib.blake2b(user.encode(), digest_size=12).digest()
        key = int.from_bytes(digest[:8], "big") | 1
        first = int.from_bytes(digest[8:], "big") % (_SLOTS - _PROBES)
        start, length = first * _SLOT.size, _PROBES * _SLOT.size
        # Held for microseconds, and freed by the kernel if its holder is killed.
        fcntl.lockf(self._file, fcntl.LOCK_EX, length, start)
        try:
            best, best_time = start, math.inf
            for offset in range(start, start + length, _SLOT.size):
                owner, full_at = _SLOT.unpack_from(self._map, offset)
                if owner == key:
                    yield offset, key, full_at
                    return
                # Whose bucket is full again needs no slot: the longest full gives way.
                if full_at < best_time:
                    best, best_time = offset, full_at
            yield best, key, max(now, best_time)
        finally:
            fcntl.lockf(self._file, fcntl.LOCK_UN, length, start)
