"""The data folder: what lies where in it, and which directory holds the server's socket."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import socket
import stat
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from greffier.errors import EmbeddedError

#: The name every PostgreSQL socket has for the port we give it, which is never used on a network.
PORT = 5432
SOCKET = f".s.PGSQL.{PORT}"

#: Bytes of a socket's path that fit into ``sun_path`` with its closing zero.
LONGEST_SOCKET_PATH = 107 if sys.platform == "linux" else 103

#: At a start, a log longer than this becomes ``postgres.log.1``.
LONGEST_LOG = 10_000_000


def default_data_dir() -> Path:
    """Give the folder for this user's data: ``$XDG_DATA_HOME/greffier`` or the system's usual."""
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "greffier"
    named = os.environ.get("XDG_DATA_HOME", "")
    # The specification: a relative path there is to be ignored.
    base = Path(named) if named.startswith("/") else Path.home() / ".local" / "share"
    return base / "greffier"


@dataclass(frozen=True, slots=True)
class Folder:
    """One data folder and the paths within it."""

    root: Path

    @classmethod
    def at(cls, root: Path) -> Folder:
        """Take the folder's one true name, so that all ways to it lead to the same server."""
        return cls(root.expanduser().resolve())

    @property
    def pg(self) -> Path:
        """PostgreSQL's own data directory."""
        return self.root / "pg"

    @property
    def unfinished(self) -> Path:
        """A data directory while it is being made."""
        return self.root / "pg.new"

    @property
    def run(self) -> Path:
        """The directory of the socket, when its path is short enough."""
        return self.root / "run"

    @property
    def log(self) -> Path:
        """What PostgreSQL says."""
        return self.root / "postgres.log"

    def create(self) -> None:
        """Make the folder, private to its owner; one that is there with things in it is left as is.

        What is secret lies in directories of 0700 of their own, so a folder that somebody opened
        to their group may stay so.  The mode of a parent is never changed.
        """
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        if stat.S_IMODE(self.root.stat().st_mode) & 0o077 and not any(self.root.iterdir()):
            self.root.chmod(0o700)

    def open(self, path: Path, flags: int = os.O_RDWR) -> int:
        """Open a file of the folder, making it for the folder's owner if it is not there."""
        descriptor = os.open(path, flags | os.O_CREAT, 0o600)
        if os.geteuid() == 0:
            # Used once as root, the folder must still work for the user it belongs to.
            owner = self.root.stat()
            os.fchown(descriptor, owner.st_uid, owner.st_gid)
        return descriptor

    def open_log(self) -> int:
        """Open the log for a new start, putting a long one aside first."""
        try:
            if self.log.stat().st_size > LONGEST_LOG:
                self.log.replace(self.log.with_name("postgres.log.1"))
        except FileNotFoundError:
            pass
        return self.open(self.log, os.O_WRONLY | os.O_APPEND)

    def log_since(self, offset: int, *, lines: int = 15) -> str:
        """Give the last lines of the log written after an offset."""
        with self.log.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(offset, size - 20_000))
            text = file.read().decode(errors="replace")
        return "\n".join(text.splitlines()[-lines:])

    def major(self) -> str | None:
        """Give the major version of the data, None when there are none yet."""
        try:
            return (self.pg / "PG_VERSION").read_text(encoding="ascii").strip()
        except FileNotFoundError:
            return None


def choose_socket_dir(folder: Folder, recorded: str | None, owner: tuple[int, int] | None) -> Path:
    """Make a private directory for the socket with a path short enough for one, and give it.

    Args:
        folder: The data folder.
        recorded: Where the last server of the folder had it.  That one is kept if it can be:
            processes that are still there know its socket by that path.
        owner: The uid and gid PostgreSQL runs as when not ours.
    """
    if recorded is not None and make_private(Path(recorded), owner):
        return Path(recorded)
    for candidate in _socket_dirs(folder):
        if fits(candidate) and make_private(candidate, owner) and carries_sockets(candidate):
            return candidate
    # The name is taken by somebody else in a directory open to all.  Any other will do: the
    # processes that come later read it from the record of the running server.
    made = Path(tempfile.mkdtemp(prefix="greffier-", dir="/tmp"))
    if make_private(made, owner):
        return made
    raise EmbeddedError(f"{made} cannot be made private for PostgreSQL's socket.")


def forget_socket_dir(folder: Folder, directory: str) -> None:
    """Leave no empty directory behind among the temporary files."""
    if Path(directory) != folder.run:
        with contextlib.suppress(OSError):
            Path(directory).rmdir()


def _socket_dirs(folder: Folder) -> Iterator[Path]:
    yield folder.run
    name = f"greffier-{hashlib.sha256(os.fsencode(folder.root)).hexdigest()[:16]}"
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    if runtime.startswith("/"):
        yield Path(runtime) / name
    for base in (tempfile.gettempdir(), "/tmp"):  # noqa: S108
        yield Path(base) / f"{name}-{os.geteuid()}"


def fits(directory: Path) -> bool:
    """Say whether a socket in the directory can be named: to the kernel, PostgreSQL and drivers.

    Both PostgreSQL's setting and a driver's ``host`` are lists separated by commas, the setting
    knows quotes as well, and a URL must be UTF-8.
    """
    raw = os.fsencode(directory / SOCKET)
    if len(raw) > LONGEST_SOCKET_PATH or re.search(rb'[,"\\]', raw):
        return False
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True


def carries_sockets(directory: Path) -> bool:
    """Say whether a socket works there, by trying: no system tells.

    Docker Desktop's and Windows' shared folders, CIFS and some FUSE file systems take files and
    refuse sockets.
    """
    path = directory / ".try"  # shorter than the socket's own name, so it fits
    try:
        path.unlink(missing_ok=True)
        with (
            socket.socket(socket.AF_UNIX) as listener,
            socket.socket(socket.AF_UNIX) as caller,
        ):
            listener.bind(os.fsencode(path))
            listener.listen(1)
            caller.connect(os.fsencode(path))
    except OSError:
        return False
    finally:
        with contextlib.suppress(OSError):
            path.unlink()
    return True


def make_private(directory: Path, owner: tuple[int, int] | None = None) -> bool:
    """Make a directory of mode 0700 (its parents as they are), or say that it cannot be.

    One that exists must be ours, a directory and no link: in a place open to all, somebody else
    may have been there first.
    """
    try:
        directory.mkdir(mode=0o700)
    except FileExistsError:
        pass
    except OSError:
        return False
    found = directory.lstat()
    ours = {os.geteuid(), directory.parent.stat().st_uid if os.geteuid() == 0 else os.geteuid()}
    if owner is not None:
        ours.add(owner[0])
    if not stat.S_ISDIR(found.st_mode) or found.st_uid not in ours:
        return False
    if stat.S_IMODE(found.st_mode) != 0o700:
        directory.chmod(0o700)
    if owner is not None and found.st_uid != owner[0]:
        os.chown(directory, *owner)
    return True


def remove(directory: Path) -> None:
    """Remove a directory with all it holds, if it is there."""
    if directory.exists():
        shutil.rmtree(directory)
