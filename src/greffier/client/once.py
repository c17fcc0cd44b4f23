"""Each message once: what a change repeats of what its follower has is left out.

A change spans ``(since, rev]`` and applies to whoever is between; who got there over HTTP meanwhile
is told again what lies before them.  A view lays it over what it shows; who prints must not.
"""

from __future__ import annotations

import bisect
from collections import OrderedDict

import msgspec

from greffier.client.wire import Change

#: Messages remembered: more than one change repeats.
REMEMBERED = 4096


class Once:
    """What one follower was handed last."""

    def __init__(self) -> None:
        #: The rev of each message as it was handed on, by its seq.
        self._known: OrderedDict[int, int] = OrderedDict()

    def new(self, change: Change, rev: int | None) -> Change:
        """Give what of a change is new to a follower, who is at this rev and now at its own."""
        if change.reset:
            self._known.clear()
            return change
        if rev is not None and change.since < rev:
            messages = [one for one in change.messages if self._known.get(one.seq) != one.rev]
            change = msgspec.structs.replace(change, since=rev, messages=messages)
        if change.superseded:
            self._forget(change.superseded)
        for one in change.messages:
            self._known[one.seq] = one.rev
            self._known.move_to_end(one.seq)
        while len(self._known) > REMEMBERED:
            self._known.popitem(last=False)
        return change

    def _forget(self, stretches: list[tuple[int, int]]) -> None:
        """What left the path is new again when it comes back, though it is what it was."""
        seqs = sorted(self._known)
        for low, high in stretches:
            for seq in seqs[bisect.bisect_left(seqs, low) : bisect.bisect_right(seqs, high)]:
                del self._known[seq]
