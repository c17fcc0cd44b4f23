"""Measure Greffier against its budgets: every number is a ratio within one run, beside its floor.

python bench/run.py                     # everything, about a quarter of an hour
python bench/run.py --quick             # smaller, two minutes
python bench/run.py --only pages --json pages.json
"""

from __future__ import annotations

import argparse
import importlib
import sys
import tempfile
from pathlib import Path
from typing import Any

import msgspec
import uvloop

from greffier.bench.machine import Machine, Noise, describe, listen
from greffier.bench.places import server
from greffier.bench.results import Line
from greffier.bench.show import HEAD, about, row
from greffier.store.connection import connect
from lab import scale as scales
from lab.world import World

PROMISES = (
    "append", "http_append", "pages", "context", "listing", "fan_out", "wake_up", "catch_up",
    "reconnect", "memory", "start", "lanes", "deliveries", "runs",
)  # fmt: skip


class Measured(msgspec.Struct, frozen=True):
    """One promise: the sentence, and its lines."""

    name: str
    sentence: str
    lines: list[Line]


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """A whole run."""

    scale: str
    machine: Machine
    noise: list[Noise]
    promises: list[Measured]


async def run(names: list[str], scale: scales.Scale, folder: Path) -> Report:
    """Measure the promises named, one after the other."""
    scale, word = scales.fitting(scale, folder)
    if word:
        say(word)
    noise = [listen(folder)]
    measured: list[Measured] = []
    async with server(None, folder) as url:
        live = await connect(url)
        machine = await describe(live)
        await live.close()
        world = World(url, folder, scale)
        for name in names:
            module = importlib.import_module(f"promises.{name}")
            sentence = (module.__doc__ or "").partition("\n\n")[0]
            say(f"\n{name}: {sentence}")
            lines = await module.measure(world)
            noise.append(listen(folder))
            measured.append(Measured(name, sentence, lines))
            for line in lines:
                say("  " + " · ".join(filter(None, row(line))))
                for note in line.notes:
                    say(f"      {note}")
    for text in about(machine, noise):
        say(text)
    return Report(scale=scale.name, machine=machine, noise=noise, promises=measured)


def markdown(report: Report) -> str:
    """Write a report for people."""
    parts = [f"Scale: {report.scale}.\n"]
    parts += [f"- {text}" for text in about(report.machine, report.noise)]
    for one in report.promises:
        parts += [f"\n## {one.name}\n", f"{one.sentence}\n"]
        parts.append(f"| {' | '.join(HEAD)} |\n|{'---|' * len(HEAD)}")
        parts += [f"| {' | '.join(row(line))} |" for line in one.lines]
        parts += [f"\n{line.what}: {', '.join(line.notes)}." for line in one.lines if line.notes]
    return "\n".join(parts) + "\n"


def say(text: str) -> None:
    """Tell the person how it goes."""
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    sizes = parser.add_mutually_exclusive_group()
    sizes.add_argument("--quick", action="store_const", dest="scale", const=scales.QUICK)
    sizes.add_argument("--tiny", action="store_const", dest="scale", const=scales.TINY,
                       help="only to see that all of it runs")  # fmt: skip
    parser.add_argument("--only", action="append", choices=PROMISES, metavar="NAME",
                        help=f"of {', '.join(PROMISES)}; may stand several times")  # fmt: skip
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()),
                        help="on the disk that is measured")  # fmt: skip
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all of it there")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="and the tables there")
    parser.set_defaults(scale=scales.FULL)
    asked: Any = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="greffier-bench-", dir=asked.folder) as folder:
        report = uvloop.run(run(asked.only or list(PROMISES), asked.scale, Path(folder)))
    if asked.json:
        asked.json.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=1) + b"\n")
    if asked.markdown:
        asked.markdown.write_text(markdown(report), encoding="utf-8")


if __name__ == "__main__":
    main()
