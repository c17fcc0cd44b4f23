"""What the commands print: data on stdout, as a table or as JSON, and talk on stderr."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any


def emit(data: str | bytes) -> None:
    """Write data to stdout.

    Raises:
        BrokenPipeError: Nobody reads it any more.
    """
    raw = data.encode() if isinstance(data, str) else data
    sys.stdout.flush()
    try:
        sys.stdout.buffer.write(raw)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        silence()
        # typer turns a broken pipe into exit code 1, so it gets another word for it.
        from greffier.cli import exits  # noqa: PLC0415 - only here

        sys.exit(exits.PIPE)


@contextlib.contextmanager
def written(path: Path | None) -> Iterator[Callable[[bytes], object]]:
    """Write to stdout, or to a file that is there whole or not at all.

    Raises:
        OSError: It cannot be written there.
    """
    if path is None:
        yield emit
        return
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not path.parent.is_dir():
        # Said of the folder that was meant, not of the file beside it that we would make.
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path.parent))
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with aside.open("wb") as file:
            yield file.write
        aside.replace(path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(aside)  # noqa: PTH108 - it is gone when all went well


def emit_json(value: Any) -> None:
    """Write a value as JSON on one line."""
    emit(json.dumps(value, ensure_ascii=False) + "\n")


def talk(line: str) -> None:
    """Say something to the person, on stderr."""
    print(line, file=sys.stderr, flush=True)


def table(
    rows: Iterable[Sequence[object]],
    *,
    head: Sequence[str] | None = None,
    right: Sequence[int] = (),
    whole: Sequence[int] = (),
) -> None:
    """Write a table to stdout, at most as wide as the terminal, in colour only on one.

    Args:
        rows: Cells; None is an empty one.
        head: Titles of the columns.
        right: Which columns hold numbers.
        whole: Which columns are not to be broken, such as ids that somebody copies.
    """
    from rich.console import Console  # noqa: PLC0415 - 40 ms that --json need not pay
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    made = Table(box=None, show_header=head is not None, pad_edge=False, header_style="bold")
    lines = [["" if cell is None else _cell(cell) for cell in row] for row in rows]
    for index in range(len(head or (lines[0] if lines else ()))):
        made.add_column(
            head[index] if head else "",
            justify="right" if index in right else "left",
            overflow="fold",
            no_wrap=index in whole,
        )
    for line in lines:
        made.add_row(*(Text(cell) for cell in line))
    console = Console(highlight=False)
    with console.capture() as captured:
        console.print(made)
    emit("".join(f"{line.rstrip()}\n" for line in captured.get().splitlines()))


def _cell(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    # Numbers with thin groups are told at a glance; a plain space survives every terminal.
    return f"{value:,}".replace(",", " ") if isinstance(value, int) else str(value)


@contextlib.contextmanager
def progress_bar(title: str, total: int | None) -> Iterator[Callable[[int], object]]:
    """Show how far something is, on a terminal; elsewhere nothing.

    Args:
        title: What is going on.
        total: Bytes to go through, None when nobody knows.
    """
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich import progress as bars  # noqa: PLC0415
    from rich.console import Console  # noqa: PLC0415 - only on a terminal

    columns = (
        bars.TextColumn("{task.description}"),
        bars.BarColumn(),
        bars.DownloadColumn(),
        bars.TimeRemainingColumn(),
    )
    with bars.Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(title, total=total)
        yield lambda size: progress.advance(task, size)


def silence() -> None:
    """Let nothing more be written to a stdout that is gone, not even by the interpreter's end."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)
