"""How much is measured, and on how much."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path

from greffier.bench.turns import Effort

#: Bytes on disk that one message of these benchmarks takes, with its indexes and its part of the
#: log until the next checkpoint.
MESSAGE_BYTES = 1_500


@dataclass(frozen=True, slots=True)
class Scale:
    """The size of a run."""

    name: str
    effort: Effort
    #: Conversations that are appended to.
    talks: int
    #: Messages of the long conversation, and of the one whose context is built.
    long: int
    context: int
    #: Conversations in all, and of the one user who has many.
    lists: int
    many: int
    #: Sockets in one room, and changes that somebody missed.
    sockets: int
    missed: int
    #: Conversations whose messages are delivered, messages of each, messages given to peers, and
    #: processes that deliver.
    keys: int
    each: int
    peers: int
    hands: int
    #: Messages blocked behind 200 busy lanes, in the large case.
    blocked: int
    #: Answers at once, tokens of all of a round together, and of the long answer that is resumed.
    streams: int
    tokens: int
    answer: int
    #: Lanes due at once, seconds for which a snapshot is held, and messages offered in a second.
    due: int
    held: float
    offered: int


FULL = Scale(
    "full", Effort(5, 4), 10_000, 5_000_000, 100_000, 1_000_000, 10_000, 1_000, 10_000,
    1_000, 50, 5_000, 2, 100_000, 200, 100_000, 100_000, 10_000, 120, 200,
)  # fmt: skip
QUICK = Scale(
    "quick", Effort(3, 2), 10_000, 500_000, 100_000, 100_000, 10_000, 200, 10_000,
    1_000, 5, 400, 2, 100_000, 200, 20_000, 100_000, 1_000, 5, 200,
)  # fmt: skip
#: For the tests: everything runs, nothing is worth a number.
TINY = Scale(
    "tiny", Effort(1, 0.1), 50, 2_000, 500, 300, 100, 5, 20,
    10, 8, 20, 1, 2_000, 3, 30, 400, 20, 0.3, 100,
)  # fmt: skip


def fitting(scale: Scale, folder: Path) -> tuple[Scale, str | None]:
    """Make the long conversation as long as the disk has room for.

    Returns:
        The scale, and a word when it is another.
    """
    room = shutil.disk_usage(folder).free // 2 // MESSAGE_BYTES
    if room >= scale.long:
        return scale, None
    smaller = max(room // 1_000_000 * 1_000_000, 100_000)
    word = f"The disk has room for {smaller:,} messages, not for {scale.long:,}."
    return replace(scale, long=smaller), word
