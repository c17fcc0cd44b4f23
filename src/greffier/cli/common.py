"""What the commands share: their options, the settings, and an open database."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

if TYPE_CHECKING:
    from greffier.settings import Settings
    from greffier.store.database import Database

T = TypeVar("T")

DatabaseUrl = Annotated[
    str | None,
    typer.Option(
        help="PostgreSQL to use, instead of the private one in the data folder.",
        metavar="URL",
        show_default=False,
        rich_help_panel="Where",
    ),
]
DataDir = Annotated[
    Path | None,
    typer.Option(
        help="The data folder.",
        metavar="DIR",
        show_default=False,
        rich_help_panel="Where",
    ),
]
Config = Annotated[
    Path | None,
    typer.Option(
        help="A file of settings, instead of greffier.toml in this folder.",
        metavar="FILE",
        show_default=False,
        rich_help_panel="Where",
    ),
]
LogLevel = Annotated[
    str | None, typer.Option(help="debug, info, warning or error.", show_default=False)
]
LogFormat = Annotated[str | None, typer.Option(help="auto, json or console.", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def command(to: typer.Typer, name: str, run: Callable[..., None], example: str) -> None:
    """Add a command, explained by its docstring and an example."""
    # Each paragraph of the docstring on one line, for the help to break as wide as the terminal.
    paragraphs = inspect.cleandoc(run.__doc__ or "").split("\n\n")
    text = "\n\n".join(" ".join(one.split()) for one in paragraphs)
    to.command(name, help=text, epilog=f"Example: {example}")(run)


def load_settings(
    database_url: str | None = None,
    data_dir: Path | None = None,
    config: Path | None = None,
    **more: Any,
) -> Settings:
    """Read the settings; what was said on the command line comes before all else.

    Raises:
        SettingsError: One of them cannot be.
    """
    from greffier import settings  # noqa: PLC0415 - pydantic takes its time

    said = {"database_url": database_url, "data_dir": data_dir, **more}
    return settings.load(said, config=config)


def data_folder(settings: Settings) -> Path:
    """The data folder of these settings."""
    from greffier.embedded import default_data_dir  # noqa: PLC0415

    return settings.data_dir or default_data_dir()


@contextlib.asynccontextmanager
async def open_record(settings: Settings) -> AsyncIterator[Database]:
    """Open the database of these settings: the user's own, or the embedded one, joined or started.

    Raises:
        SchemaError: The user's own has another schema than this release's.
        EmbeddedError: The private PostgreSQL could not be started.
        Unavailable: The database is away.
    """
    from greffier import library  # noqa: PLC0415

    url = settings.database_url
    opened = library.open(
        None if url is None else url.get_secret_value(), data_dir=settings.data_dir
    )
    async with opened as record:
        yield record.database


@contextlib.asynccontextmanager
async def server(settings: Settings) -> AsyncIterator[str]:
    """Give the URL of a PostgreSQL that runs, whatever is in it.

    Raises:
        EmbeddedError: The private PostgreSQL could not be started.
    """
    from greffier.embedded import open_cluster  # noqa: PLC0415

    if settings.database_url is not None:
        yield settings.database_url.get_secret_value()
        return
    async with open_cluster(data_folder(settings)) as cluster:
        yield cluster.dsn


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a command's coroutine on a loop of its own; Ctrl-C cancels it and lets it clean up."""
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(coroutine)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    if sys.platform == "win32":
        return None
    import uvloop  # noqa: PLC0415 - there is none for Windows

    return uvloop.new_event_loop
