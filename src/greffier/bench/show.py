"""Lines as text: the table a person reads, in a terminal or in Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from greffier.bench.machine import Machine, Noise
from greffier.bench.results import Line, number

HEAD = ("what", "against", "ours", "theirs", "value", "spread", "goal", "", "p50 / p99")


def row(line: Line) -> tuple[str, ...]:
    """Write one comparison as the cells of ``HEAD``."""

    def side(values: list[float]) -> str:
        if not values or line.floor is None:
            return ""
        middle = median(values)
        if line.measured == "per second":
            return f"{middle:,.0f}/s"
        return f"{middle:,.2f} {line.measured.partition(' (')[0]}"

    latency = ""
    if line.p50 is not None and line.p99 is not None:
        latency = f"{line.p50:.2f} / {line.p99:.2f} ms"
    return (
        line.what,
        line.floor or "",
        side(line.ours),
        side(line.floors),
        f"{number(line.value, line.unit)} {line.unit}",
        f"{number(line.low, line.unit)}–{number(line.high, line.unit)}",  # noqa: RUF001 - a range
        line.goal,
        "met" if line.met else "missed",
        latency,
    )


def about(machine: Machine, noises: Sequence[Noise]) -> list[str]:
    """Say on what it was measured and how quiet it was, a line each."""
    quiet = "quiet" if all(noise.quiet for noise in noises) else "NOT QUIET: measure again"
    packages = ", ".join(f"{name} {version}" for name, version in machine.packages.items())
    settings = ", ".join(f"{name} {value}" for name, value in machine.settings.items())
    commit = f" ({machine.commit})" if machine.commit else ""
    versions = (
        f"Greffier {machine.greffier}{commit}, PostgreSQL {machine.postgresql}, "
        f"Python {machine.python}, {packages}"
    )
    noise = (
        f"Noise: the same work took up to {max(noise.jitter for noise in noises):.2f} x its least "
        f"time, load {max(noise.load for noise in noises):.1f}, "
        f"a flush {median(noise.flush_ms for noise in noises):.2f} ms: {quiet}."
    )
    return [
        f"{machine.processors} x {machine.model}, {machine.memory_gib} GiB, {machine.system}",
        versions,
        settings,
        noise,
        "Server, load and PostgreSQL share these processors; compare ratios, not times.",
    ]
