"""The log: one line for each request, and never a word that somebody said.

What a message, a token or a query holds is in no line.  The text of an unexpected exception may
hold it (PostgreSQL quotes the row it refuses), so an exception is logged as its type, its SQLSTATE
and the lines of code it went through.
"""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import MutableMapping
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, BinaryIO, TypeAlias

import msgspec
import structlog
from structlog.typing import FilteringBoundLogger

from greffier.model.wire import rfc3339

Event: TypeAlias = MutableMapping[str, Any]
_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
_encode = msgspec.json.Encoder(enc_hook=str).encode


def make_logger(level: str, form: str, stream: BinaryIO | None = None) -> FilteringBoundLogger:
    """Make a logger that writes one line an event.

    Args:
        level: The least important that is written.
        form: ``json``, ``console`` or ``auto``.
        stream: Where to; standard error by default.
    """
    stream = stream or sys.stderr.buffer
    wrapper: Any = structlog.make_filtering_bound_logger(_LEVELS[level])
    processors = []
    if form == "json" or (form == "auto" and not stream.isatty()):
        wrapper = type("JsonLogger", (_Json, wrapper), {})
    else:
        processors.append(_console(stream))
    logger: FilteringBoundLogger = structlog.wrap_logger(
        structlog.BytesLogger(stream),
        processors=processors,
        wrapper_class=wrapper,
        cache_logger_on_first_use=True,
        # Bound once: unbound it would bind itself anew for each line, a fifth of its time.
    ).bind()
    return logger


def take_over(logger: FilteringBoundLogger, level: str) -> None:
    """Let what uvicorn, asyncio and other libraries log go the same way."""
    root = logging.getLogger()
    root.handlers[:] = [_Bridge(logger)]
    # Libraries tell too much below a warning: uvicorn would greet and part in lines of its own.
    root.setLevel(max(_LEVELS[level], logging.WARNING))


def safe_exception(error: BaseException) -> str:
    """Write an exception, and what caused it, without its words."""
    pieces: list[str] = []
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        kind = type(link)
        state = getattr(link, "sqlstate", None)
        pieces.append(
            "".join(_frames(link.__traceback__))
            + f"{kind.__module__}.{kind.__qualname__}"
            + (f" (SQLSTATE {state})" if isinstance(state, str) else "")
        )
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)
    return "\ncaused by\n".join(pieces)


def _frames(trace: TracebackType | None) -> list[str]:
    # Lines of source, no values.
    return traceback.format_list(traceback.extract_tb(trace))


def _told(method: str, event: Event) -> Event:
    """Add to an event what every line has: its level, the time, and an exception in safe words."""
    event["level"] = method
    event["at"] = rfc3339(datetime.now(UTC))
    error = event.pop("exc_info", None)
    if error is not None:
        if isinstance(error, tuple):
            error = error[1]
        if isinstance(error, BaseException):
            event["exception"] = safe_exception(error)
    return event


def _console(stream: BinaryIO) -> Any:
    console = structlog.dev.ConsoleRenderer(
        colors=stream.isatty(), timestamp_key="at", pad_event_to=0
    )

    def lines(logger: Any, method: str, event: Event) -> bytes:
        text = str(console(logger, method, _told(method, event)))
        return text.encode("utf-8", "backslashreplace")

    return lines


class _Json(structlog.BoundLoggerBase):
    """Writes an event in one step: as a chain of processors it took a request 1 us more."""

    # By place alone: an event may well have a method of its own.
    def _proxy_to_logger(  # type: ignore[override]
        self, method: str, event: str | None = None, /, **more: Any
    ) -> None:
        line: Event = {**self._context, **more, "event": event}
        self._logger.msg(_encode(_told(method, line)))


class _Bridge(logging.Handler):
    """Takes the records of the standard library's loggers."""

    def __init__(self, logger: FilteringBoundLogger) -> None:
        super().__init__()
        self._logger = logger

    def emit(self, record: logging.LogRecord) -> None:
        more = {"exc_info": record.exc_info} if record.exc_info else {}
        level = record.levelno if record.levelno in _LEVELS.values() else logging.WARNING
        self._logger.log(level, record.getMessage().strip(), logger=record.name, **more)
