"""How long things took, counted for whoever asks: a histogram of one thread, without locks."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence


class Times:
    """Durations by a label, in buckets."""

    def __init__(self, bounds: Sequence[float]) -> None:
        """Begin with nothing counted.

        Args:
            bounds: The upper bounds of the buckets, in seconds, ascending; there is one more above.
        """
        self.bounds = tuple(bounds)
        #: By label: how many in each bucket, and the seconds of all.
        self.series: dict[str, tuple[list[int], float]] = {}

    def add(self, label: str, seconds: float) -> None:
        """Count one."""
        buckets, total = self.series.get(label) or ([0] * (len(self.bounds) + 1), 0.0)
        buckets[bisect_left(self.bounds, seconds)] += 1
        self.series[label] = (buckets, total + seconds)
