"""Find code that was copied: the same lines, ten or more in a row, in two places.

Two copies drift apart, and the one that is mended is never the one that runs. Blank lines,
comments, docstrings, imports and lone brackets do not count, nor does indentation. Ten such lines
are a function's worth; shorter likenesses are idiom, and hunting them makes code worse.
"""

from __future__ import annotations

import ast
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

RUN = 10


class Line(NamedTuple):
    """A line that counts: where it stands, and what it says."""

    path: Path
    number: int
    text: str


def main(folders: Sequence[str]) -> int:
    """Report every copied run in the Python files below ``folders``.

    Returns:
        The exit code: 1 when there is any.
    """
    paths = sorted(path for folder in folders for path in Path(folder).rglob("*.py"))
    files = [counted(path, path.read_text(encoding="utf-8")) for path in paths]
    runs = list(copied(files))
    for here, there, length in runs:
        print(f"{here.path}:{here.number}: {length} lines as in {there.path}:{there.number}")
    return 1 if runs else 0


def counted(path: Path, source: str) -> list[Line]:
    """Return the lines of a file that count."""
    ignored: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        is_prose = (
            isinstance(node, ast.Expr)
            and isinstance(node.value, ast.Constant)
            and isinstance(node.value.value, str)
        )
        if is_prose or isinstance(node, ast.Import | ast.ImportFrom):
            assert isinstance(node, ast.stmt)
            ignored.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    lines = enumerate(source.splitlines(), start=1)
    return [
        Line(path, number, text.strip())
        for number, text in lines
        if number not in ignored
        and any(letter.isalnum() for letter in text)
        and not text.lstrip().startswith("#")
    ]


def copied(files: Sequence[list[Line]]) -> Iterator[tuple[Line, Line, int]]:
    """Yield each run that stands twice: where, where first, and how many lines of it count."""
    seen: dict[tuple[str, ...], tuple[int, int]] = {}
    told: dict[int, set[int]] = defaultdict(set)
    for f, lines in enumerate(files):
        for start in range(len(lines) - RUN + 1):
            window = tuple(line.text for line in lines[start : start + RUN])
            first = seen.setdefault(window, (f, start))
            # A run that overlaps its own first occurrence is a table, not a copy.
            if first == (f, start) or (first[0] == f and start < first[1] + RUN):
                continue
            if start in told[f]:
                continue
            length = common(files[first[0]], first[1], lines, start)
            told[f].update(range(start, start + length))
            yield lines[start], files[first[0]][first[1]], length


def common(one: Sequence[Line], i: int, other: Sequence[Line], j: int) -> int:
    """Return how many lines from here on say the same."""
    pairs = zip(one[i:], other[j:], strict=False)
    return next(
        (n for n, (a, b) in enumerate(pairs) if a.text != b.text),
        min(len(one) - i, len(other) - j),
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
