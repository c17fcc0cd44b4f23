"""Run the command line: every ending is an exit code and at most one line, never a traceback."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from typing import Any

import typer

from greffier.cli import exits
from greffier.cli.app import app
from greffier.cli.output import silence
from greffier.errors import Error, FileError, Unavailable

#: typer's own copy of click, or click itself in older releases: the base of all usage errors.
_Refusal: type[Any] = typer.BadParameter.__mro__[2]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command and end the process with its exit code."""
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: Sequence[str]) -> int:
    """Run a command and give its exit code."""
    try:
        code = _run(list(arguments))
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # Whoever read our data has enough of it.
        silence()
        return exits.PIPE
    except KeyboardInterrupt:
        return exits.INTERRUPTED


def _run(arguments: list[str]) -> int:
    try:
        result = app(args=arguments, prog_name="greffier", standalone_mode=False)
    except _Refusal as error:
        context = getattr(error, "ctx", None)
        path = context.command_path if context is not None else "greffier"
        if message := error.format_message():  # it is empty when the help was shown instead
            stop = "" if message.endswith((".", "?", "!")) else "."
            _say(f"{message}{stop} Try: {path} --help", "usage")
        return exits.USAGE
    except typer.Abort:
        return exits.INTERRUPTED
    except (BrokenPipeError, KeyboardInterrupt):
        raise
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else exits.ERROR
    except Exception as error:  # noqa: BLE001 - nothing ends in a traceback
        if os.environ.get("GREFFIER_DEBUG"):
            traceback.print_exc()
        if isinstance(error, Error):
            _say(_detail(error), error.code)
            return exits.of(error)
        if isinstance(error, OSError) and error.strerror:
            where = f"{error.filename}: " if error.filename else ""
            _say(f"{where}{error.strerror}.", FileError.code)
        else:
            _say(_fault(error), "internal")
        return exits.ERROR
    return result if isinstance(result, int) else exits.FINE


def _detail(error: Error) -> str:
    """Say what is the matter; of a database that is away also why, to whoever operates it."""
    if not isinstance(error, Unavailable):
        return error.detail
    cause = error.__cause__
    if isinstance(cause, OSError):
        why = cause.strerror or str(cause) or "no answer in time"
    else:
        # PostgreSQL's own word on who may come in, and on whether it is up.
        state = getattr(cause, "sqlstate", None) or ""
        why = str(cause) if state.startswith(("28", "3D", "57P")) else ""
    return f"{error.detail} ({why})" if why and why not in error.detail else error.detail


def _fault(error: Exception) -> str:
    # What it says may quote somebody's words; where it happened is for GREFFIER_DEBUG=1.
    return f"{type(error).__name__}, which is a fault of ours. GREFFIER_DEBUG=1 shows where."


def _say(detail: str, code: str) -> None:
    line = " ".join(detail.split())
    print(f"greffier: {line} [{code}]", file=sys.stderr)
