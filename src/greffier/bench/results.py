"""What was measured: the pace of each side, and the lines that compare them with a goal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Literal, TypeAlias

import msgspec

Unit: TypeAlias = Literal["x", "ms", "s", "µs", "MiB", "buffers"]


class Pace(msgspec.Struct, frozen=True):
    """How one side went in one round."""

    #: Operations a second.
    rate: float
    #: Milliseconds that half of them, and all but a hundredth, took at most.
    p50: float | None = None
    p99: float | None = None
    #: Microseconds of this process's processor that each took; None when it was another's.
    cpu: float | None = None


def pace(seconds: float, times: Sequence[float], cpu: float | None = None) -> Pace:
    """Sum up a round.

    Args:
        seconds: How long it took.
        times: Seconds of each operation.
        cpu: Seconds of processor this process used.
    """
    ordered = sorted(times)
    return Pace(
        rate=len(ordered) / seconds,
        p50=1000 * ordered[len(ordered) // 2],
        p99=1000 * ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)],
        cpu=None if cpu is None else 1e6 * cpu / len(ordered),
    )


@dataclass(frozen=True, slots=True)
class Goal:
    """What a value should be."""

    side: Literal["≥", "≤"]
    limit: float
    unit: Unit = "x"

    def met(self, value: float) -> bool:
        """Say whether a value is good enough, as exactly as it is shown."""
        shown = float(number(value, self.unit))
        return shown >= self.limit if self.side == "≥" else shown <= self.limit

    def __str__(self) -> str:
        return f"{self.side} {self.limit:g} {self.unit}"


def number(value: float, unit: str) -> str:
    """Write a value with as many digits as it is worth."""
    if unit == "buffers":
        return f"{value:.0f}"
    return f"{value:.2f}" if unit in ("x", "s") or value < 10 else f"{value:.1f}"


class Line(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One comparison: ours, its floor, and the goal."""

    what: str
    #: What it is compared with; None when the value itself is the goal.
    floor: str | None = None
    goal: str
    met: bool
    unit: Unit
    #: The median over the rounds, the lowest and the highest.
    value: float
    low: float
    high: float
    #: Each round of both sides, as they were measured, and what that is.
    measured: str
    ours: list[float]
    floors: list[float] = []
    p50: float | None = None
    p99: float | None = None
    notes: list[str] = []


class Skipped(msgspec.Struct, frozen=True):
    """A comparison that could not be made here, and why."""

    what: str
    why: str


def rates(
    what: str, floor: str, ours: Sequence[Pace], floors: Sequence[Pace], goal: Goal, *notes: str
) -> Line:
    """Compare how many operations a second both sides did, round by round."""
    return _compared(
        what, floor, "per second", [(o.rate, f.rate) for o, f in pairs(ours, floors)], goal,
        latency=ours, notes=notes,
    )  # fmt: skip


def times(
    what: str, floor: str, ours: Sequence[Pace], floors: Sequence[Pace], goal: Goal, *notes: str
) -> Line:
    """Compare how long half of the operations of both sides took at most, round by round."""
    both = [(o.p50 or 0.0, f.p50 or 0.0) for o, f in pairs(ours, floors)]
    return _compared(what, floor, "ms (p50)", both, goal, latency=ours, notes=notes)


def ratios(
    what: str,
    floor: str,
    measured: str,
    both: Sequence[tuple[float, float]],
    goal: Goal,
    *notes: str,
) -> Line:
    """Compare what both sides took of something that is no time: processor, log, bytes."""
    return _compared(what, floor, measured, both, goal, latency=(), notes=notes)


def value(what: str, values: Sequence[float], goal: Goal, *notes: str) -> Line:
    """Hold a value itself to a goal: a size, or a time nobody can make shorter for us."""
    middle = median(values)
    return Line(
        what=what,
        goal=str(goal),
        met=goal.met(middle),
        unit=goal.unit,
        value=middle,
        low=min(values),
        high=max(values),
        measured=goal.unit,
        ours=list(values),
        notes=list(notes),
    )


def pairs(ours: Sequence[Pace], floors: Sequence[Pace]) -> list[tuple[Pace, Pace]]:
    """Put the rounds of both sides beside each other."""
    return list(zip(ours, floors, strict=True))


def _compared(
    what: str,
    floor: str,
    measured: str,
    both: Sequence[tuple[float, float]],
    goal: Goal,
    *,
    latency: Sequence[Pace],
    notes: Sequence[str],
) -> Line:
    # Round by round, so that a machine that slows down for a while slows both sides down.
    ratios = [ours / floor for ours, floor in both]
    return Line(
        what=what,
        floor=floor,
        goal=str(goal),
        met=goal.met(median(ratios)),
        unit=goal.unit,
        value=median(ratios),
        low=min(ratios),
        high=max(ratios),
        measured=measured,
        ours=[ours for ours, _ in both],
        floors=[floor for _, floor in both],
        p50=_median(one.p50 for one in latency),
        p99=_median(one.p99 for one in latency),
        notes=list(notes),
    )


def _median(values: Any) -> float | None:
    found = [one for one in values if one is not None]
    return median(found) if found else None
