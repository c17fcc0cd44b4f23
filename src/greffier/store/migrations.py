"""Migrations as texts: which there are, what a ledger says of them, and the SQL that applies them.

No I/O but the package's own files; ``schema`` brings it to a database.
"""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, TypeAlias

from greffier._version import __version__
from greffier.errors import SchemaError
from greffier.store.queries import folder

#: The first line of a file that is run statement by statement, outside of a transaction.
NO_TRANSACTION = "-- no-transaction"

#: ``absent``: nothing is here · ``current``: as this release wants it · ``behind``: migrations are
#: pending · ``newer``: a newer release was here · ``altered``: it is no state we ever made.
State: TypeAlias = Literal["absent", "current", "behind", "newer", "altered"]

#: The advisory lock of who migrates: one for each database, and our name in eight bytes.
LOCK = int.from_bytes(b"greffier")

_FILE = re.compile(r"(\d{4})_[a-z0-9_]+\.sql")

# A quoted text or a comment hides its semicolons.  Enough for our files, which have neither E'\''
# nor BEGIN ATOMIC.
_TOKEN = re.compile(
    r"""--[^\n]* | /\*.*?\*/ | '[^']*' | "[^"]*" | \$((?:[a-z_]\w*)?)\$.*?\$\1\$ | ; | .""",
    re.DOTALL | re.VERBOSE | re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Migration:
    """One step forward: a file of ``sql/migrations``."""

    id: int
    name: str
    text: str

    @property
    def checksum(self) -> str:
        """What the ledger keeps of the text, to tell when it was changed after its use."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def transactional(self) -> bool:
        """Whether it takes effect whole or not at all."""
        return self.text.partition("\n")[0].strip() != NO_TRANSACTION


@functools.cache
def migrations() -> tuple[Migration, ...]:
    """Give every migration this release knows, in order; their ids are 1, 2, 3 …."""
    found = []
    for place, (file, text) in enumerate(folder("migrations").items(), start=1):
        match = _FILE.fullmatch(file)
        if match is None or int(match[1]) != place:
            raise ValueError(f"{file} should be called {place:04}_name.sql")
        found.append(Migration(place, file.removesuffix(".sql"), text))
    return tuple(found)


def statements(text: str) -> list[str]:
    """Split SQL at its semicolons; each statement keeps the comments above it."""
    found = [""]
    for token in _TOKEN.finditer(text):
        if token[0] == ";":
            found.append("")
        else:
            found[-1] += token[0]
    # What follows the last semicolon is white space or comments.
    return [statement.strip() for statement in found[:-1]]


@dataclass(frozen=True, slots=True)
class Applied:
    """One row of the ledger."""

    id: int
    name: str
    checksum: str
    at: datetime
    #: The release of Greffier that applied it.
    by: str


@dataclass(frozen=True, slots=True)
class Status:
    """Where a database stands, seen from this release."""

    state: State
    applied: tuple[Applied, ...]
    #: Names of the migrations still to be applied.
    pending: tuple[str, ...]
    #: The same in words, with what to do.
    detail: str


def judge(applied: Sequence[Applied], known: Sequence[Migration]) -> Status:
    """Compare a ledger with the migrations of this release."""

    def status(state: State, detail: str) -> Status:
        done = tuple(applied)
        return Status(state, done, tuple(step.name for step in known[len(done) :]), detail)

    if not applied:
        return status("altered", "The ledger greffier.schema_changes is empty: its rows are lost.")
    if applied[-1].id > known[-1].id:
        newest = applied[-1]
        return status(
            "newer",
            "This database was written by a newer Greffier; install at least version "
            f"{newest.by} (its {newest.name} is unknown to {__version__}).",
        )
    for place, (row, step) in enumerate(zip(applied, known, strict=False), start=1):
        if row.id != place:
            return status("altered", f"The ledger greffier.schema_changes has no row {place}.")
        if row.checksum != step.checksum:
            return status(
                "altered",
                f"Migration {row.name}, as Greffier {row.by} applied it, is another than that of "
                f"Greffier {__version__}: the ledger or the installation was changed by hand.",
            )
    if len(applied) < len(known):
        names = ", ".join(step.name for step in known[len(applied) :])
        return status("behind", f"Still to be applied: {names}. Run: greffier db migrate")
    return status("current", f"The schema is as Greffier {__version__} wants it.")


def script(from_id: int) -> str:
    """Give the SQL that does what ``migrate`` does, for people who run their own.

    Args:
        from_id: The newest migration the database has; 0 for a database without any.

    Raises:
        SchemaError: There is no such migration.
    """
    known = migrations()
    if not 0 <= from_id <= len(known):
        raise SchemaError(f"There is no migration {from_id}; the newest is {known[-1].name}.")
    parts = [
        f"-- Greffier {__version__}: from migration {from_id} to {len(known)}.",
        "-- Run it with: psql --set ON_ERROR_STOP=1 --file THIS_FILE\n",
    ]
    if from_id == 0:
        parts += ["begin;\n", _guard(0), everything(), "commit;\n"]
    for step in known[from_id:] if from_id else ():
        guard = f"set local lock_timeout = '2s';\n{_guard(step.id - 1)}"
        if step.transactional:
            parts += [f"begin;\n{guard}", step.text, stamp([step]), "commit;\n"]
        else:
            parts += [f"begin;\n{guard}commit;\n", step.text, stamp([step])]
    return "\n".join(parts)


def everything() -> str:
    """The schema as it is today, and a ledger that says so."""
    return "\n".join([*folder("schema").values(), stamp(migrations())])


def stamp(steps: Sequence[Migration]) -> str:
    """The ledger's rows of these migrations, as SQL."""
    rows = ",\n    ".join(
        f"({step.id}, '{step.name}', '{step.checksum}', '{__version__}')" for step in steps
    )
    return (
        "\ninsert into greffier.schema_changes (id, name, checksum, applied_by) values\n"
        f"    {rows};\n"
    )


def _guard(before: int) -> str:
    """SQL that keeps a script from running beside another, or on a database it is not made for."""
    check = f"""
    if (select max(id) from greffier.schema_changes) is distinct from {before} then
        raise exception 'this continues after migration {before}; the database is not there';
    end if;"""
    return (
        f"do $$ begin\n    perform pg_advisory_xact_lock({LOCK});{check if before else ''}\n"
        "end $$;\n"
    )
