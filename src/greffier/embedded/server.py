"""What we tell the server when it starts, and what it tells us while it runs."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from greffier.embedded import processes
from greffier.embedded.folder import PORT, SOCKET
from greffier.errors import EmbeddedError, SettingsError

USER = "greffier"
DATABASE = "greffier"

#: How the private server runs.  wal_compression stays off: the wheel has neither lz4 nor zstd, and
#: pglz costs more processor per append than the bytes it saves are worth on a local disk.
SETTINGS: Mapping[str, str] = {
    # What was acknowledged is on disk and a torn page is mended: never weakened for speed.
    "fsync": "on",
    "full_page_writes": "on",
    "synchronous_commit": "on",
    "listen_addresses": "",
    "unix_socket_permissions": "0600",
    "max_connections": "100",
    "shared_buffers": "128MB",
    # Checkpoints write every touched page twice, so they are rare; what lies between two of them is
    # what a start after a crash has to read again, so not too rare.
    "checkpoint_timeout": "10min",
    "max_wal_size": "2GB",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "cluster_name": "greffier",
    # A failed statement is told in one line, without its text and without the offending values:
    # those are people's messages.
    "log_min_error_statement": "panic",
    "log_error_verbosity": "terse",
    "log_checkpoints": "off",
}

# The folder decides these; with others its processes would not find the server.
_OURS = frozenset({"unix_socket_directories", "port", "data_directory", "external_pid_file"})


def arguments(settings: Mapping[str, str], data: str, socket_dir: str) -> list[str]:
    """Give the server's command line after the program's name.

    Settings go on the command line, not into a file: there is none to be torn or forgotten, and
    ``ALTER SYSTEM`` cannot turn fsync off behind our back.

    Raises:
        SettingsError: A setting is not the caller's to choose.
    """
    refused = _OURS & settings.keys()
    if refused:
        raise SettingsError(f"{', '.join(sorted(refused))}: the data folder decides this.")
    fixed = {"port": str(PORT), "unix_socket_directories": f'"{socket_dir}"'}
    chosen = {**SETTINGS, **settings, **fixed}
    given = [part for name, value in chosen.items() for part in ("-c", f"{name}={value}")]
    return ["-D", data, *given]


class Record(msgspec.Struct, frozen=True):
    """Which server runs in a folder: the content of ``server.lock``, true while that is locked."""

    #: Where the process id means something, see ``processes.place``.
    place: str
    #: The directory of its socket.
    socket_dir: str
    #: The postmaster; 0 while it is about to be started.
    pid: int = 0
    #: When that process was born, see ``processes.born``.
    born: str = ""

    @property
    def here(self) -> bool:
        """Whether its process id can be looked up from here."""
        return self.place == processes.place()

    @property
    def alive(self) -> bool:
        """Whether the postmaster lives (here)."""
        return self.born != "" and processes.born(self.pid) == self.born


def read_record(lock: int) -> Record | None:
    """Read the record; None when there is none, or its writer was killed while writing it."""
    try:
        return msgspec.json.decode(os.pread(lock, 4096, 0), type=Record)
    except msgspec.DecodeError:
        return None


def write_record(lock: int, record: Record | None) -> None:
    """Write the record, or erase it."""
    content = b"" if record is None else msgspec.json.encode(record)
    os.ftruncate(lock, 0)
    os.pwrite(lock, content, 0)


@dataclass(frozen=True, slots=True)
class PidFile:
    """What ``postmaster.pid`` says."""

    pid: int
    socket_dir: str
    #: ``starting``, ``ready``, ``stopping``, or nothing yet.
    status: str


def read_pidfile(pg: Path) -> PidFile | None:
    """Read ``postmaster.pid``; None when it is not there or not yet written."""
    try:
        lines = os.fsdecode((pg / "postmaster.pid").read_bytes()).split("\n")
        # pid, data directory, start time, port, socket directory, address, shared memory, status
        lines += [""] * (8 - len(lines))
        return PidFile(int(lines[0]), lines[4], lines[7].strip())
    except (OSError, ValueError):
        return None


def clear_stale_files(pg: Path, socket_dir: Path) -> None:
    """Take out of a new server's way what a dead one left: ``postmaster.pid``, the socket's lock.

    PostgreSQL goes by the number alone: it refuses to start while any process has it, be it a
    stranger after a reboot or its own zombie that nobody reaps.  The caller holds ``server.lock``,
    so no server that Greffier started is alive.

    Raises:
        EmbeddedError: A server that somebody else started is using the data.
    """
    path = pg / "postmaster.pid"
    found = read_pidfile(pg)
    running = found is not None and processes.working_directory(found.pid) == pg
    if found is not None and running and processes.name(found.pid) == "postgres":
        raise EmbeddedError(
            f"A PostgreSQL server that Greffier did not start, process {found.pid}, is using "
            f"{pg}. Stop it first."
        )
    (socket_dir / f"{SOCKET}.lock").unlink(missing_ok=True)
    if found is None:
        path.unlink(missing_ok=True)  # cut off while it was written: PostgreSQL refuses that too
        return
    if processes.state(found.pid) is None:
        return
    # The number of PostgreSQL's parent is the one it takes for stale, and the rest of the file
    # must stay: it names the shared memory by which it notices backends that are still at work.
    _, _, rest = path.read_bytes().partition(b"\n")
    owner = path.stat()
    fresh = path.with_name("postmaster.pid.new")
    fresh.write_bytes(b"%d\n%s" % (os.getpid(), rest))
    fresh.chmod(0o600)
    if os.geteuid() == 0:
        os.chown(fresh, owner.st_uid, owner.st_gid)
    fresh.replace(path)
