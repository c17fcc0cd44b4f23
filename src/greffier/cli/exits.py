"""Exit codes, the same for every command."""

from __future__ import annotations

from typing import Final

from greffier import errors

FINE: Final = 0
ERROR: Final = 1
USAGE: Final = 2
#: The command did its work and found problems (an audit, rows in quarantine).
PROBLEMS: Final = 3
#: It would not do that, and nothing was changed.
REFUSED: Final = 4
#: The database is away; the same command may succeed later.
AWAY: Final = 5
INTERRUPTED: Final = 130
#: What a shell shows for a program whose reader left (SIGPIPE).
PIPE: Final = 141

_BY_ERROR: Final[tuple[tuple[type[errors.Error], int], ...]] = (
    (errors.Unavailable, AWAY),
    (errors.EmbeddedError, AWAY),
    (errors.SettingsError, USAGE),
    (errors.Invalid, USAGE),
    (errors.NotFound, ERROR),
    (errors.Gone, ERROR),
    (errors.SchemaError, REFUSED),
)


def of(error: errors.Error) -> int:
    """Give the exit code of an error; what has a status of a client's fault was refused."""
    for kind, code in _BY_ERROR:
        if isinstance(error, kind):
            return code
    return REFUSED if 400 <= error.status < 500 else ERROR
