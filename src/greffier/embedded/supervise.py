"""Bringing the server of a folder up and down, whatever state others have left it in.

All of it under ``control.lock``, so nobody else starts or stops anything meanwhile.  The server
itself, and one that a killed process left half way, move as they like: so nothing is remembered
between two looks but the time.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections.abc import Mapping
from pathlib import Path

from greffier.embedded import answers, locks, processes, server
from greffier.embedded.answers import Answer
from greffier.embedded.binaries import Binaries
from greffier.embedded.folder import SOCKET, Folder, forget_socket_dir
from greffier.embedded.server import PidFile, Record
from greffier.embedded.start import Start, start
from greffier.errors import EmbeddedError

log = logging.getLogger(__name__)

# PostgreSQL tells how far it is in a file and in no other way; pg_ctl looks every 100 ms.
POLL = 0.002

# Recovery after a crash reads up to max_wal_size again: minutes on a slow disk.  This bounds the
# wait of one caller, not the server, which goes on.
START_LIMIT = 600.0

# A fast shutdown writes one checkpoint.
STOP_LIMIT = 120.0

# How often a server may be killed while it starts, by a person or for want of memory, before we
# give up; one that ends by itself would do so again.
KILLS = 3

# For a server that says it is ready and does not listen, or whose processes do not end.
GRACE = 5.0


class Wait:
    """How long one caller has been waiting, and for what."""

    def __init__(self) -> None:
        self._begun = self._told = time.monotonic()
        self._since: dict[str, float] = {}

    def seconds(self, what: str) -> float:
        """Give the seconds since this was first asked about the same thing."""
        now = time.monotonic()
        return now - self._since.setdefault(what, now)

    def once(self, what: str) -> bool:
        """Say yes the first time this is asked about the same thing."""
        if what in self._since:
            return False
        self._since[what] = time.monotonic()
        return True

    def tick(self, folder: Folder) -> None:
        """Tell the log every few seconds what the server last said.

        Raises:
            EmbeddedError: It has been too long.
        """
        now = time.monotonic()
        if now - self._told < GRACE:
            return
        self._told = now
        said = folder.log_since(0, lines=1)
        log.info("waiting for PostgreSQL in %s: %s", folder.root, said)
        if now - self._begun > START_LIMIT:
            raise EmbeddedError(
                f"PostgreSQL in {folder.root} was not ready after {START_LIMIT:.0f} s and is still "
                f"at it; try again. It last said: {said}"
            )


async def bring_up(
    folder: Folder, binaries: Binaries, settings: Mapping[str, str]
) -> tuple[Record, str | None]:
    """Look at what is there and do the next thing, turn by turn, until the server answers.

    Returns:
        Which server answers, and the version it tells.

    Raises:
        EmbeddedError: It cannot be had; the message says why and what to do.
        SettingsError: A setting is not the caller's to choose.
    """
    started: Start | None = None
    kills = 0
    wait = Wait()
    while True:
        lock = open_lock(folder, "server.lock")
        try:
            if not locks.try_lock(lock):
                found = await _look(folder, lock, wait)
                if found is not None:
                    return found
            else:  # no process of PostgreSQL is alive here
                if started is not None:
                    killed, how = await started.ended()
                    kills += killed
                    if not killed or kills == KILLS:
                        raise EmbeddedError(how)
                    log.warning("%s", how)
                started = await start(folder, binaries, settings, lock=lock)
        finally:
            locks.close(lock)
        await asyncio.sleep(POLL)


async def stop(folder: Folder) -> None:
    """Stop the server if there is one, and come back when its last process has ended."""
    lock = open_lock(folder, "server.lock")
    try:
        record = server.read_record(lock)
        if not locks.try_lock(lock):
            record = _complete(folder, record)
            if record is not None and not record.here:
                log.warning("PostgreSQL of %s runs in another container; left", folder.root)
                return
            # Fast shutdown: it ends all sessions, writes a checkpoint and goes.
            if record is None or not processes.send(record.pid, record.born, signal.SIGINT):
                _end_orphans(folder, Wait())
            try:
                async with asyncio.timeout(STOP_LIMIT):
                    await locks.lock(lock)
            except TimeoutError:
                log.warning("PostgreSQL in %s is still stopping; left to it", folder.root)
                return
        server.write_record(lock, None)
    finally:
        locks.close(lock)
    if record is not None:
        forget_socket_dir(folder, record.socket_dir)


def open_lock(folder: Folder, name: str) -> int:
    """Open one of the folder's lock files."""
    return locks.keep(folder.open(folder.root / name))


async def _look(folder: Folder, lock: int, wait: Wait) -> tuple[Record, str | None] | None:
    """See how far the living server is; None when it needs more time."""
    wait.tick(folder)
    record = _complete(folder, server.read_record(lock))
    if record is None:  # an initdb or a start whose starter was killed: about to move on
        return None
    if record.here and not record.alive:
        _end_orphans(folder, wait)
        return None
    pidfile = server.read_pidfile(folder.pg)
    if pidfile is None or pidfile.pid != record.pid or pidfile.status != "ready":
        return None
    reply = await answers.ask(record.socket_dir)
    if reply.answer is Answer.YES:
        return record, reply.version
    if reply.answer is Answer.NO_DATABASE:
        await answers.create_database(record.socket_dir)
    elif reply.answer is Answer.NOBODY:
        _unreachable(folder, record, wait)
    elif reply.answer is Answer.SILENCE:
        raise EmbeddedError(
            f"PostgreSQL (process {record.pid}) runs in {folder.root} but does not answer: it is "
            "stopped, or the machine is overloaded. Try again later."
        )
    else:  # recovering after one of its processes crashed; each question costs it a process
        await asyncio.sleep(10 * POLL)
    return None


def _complete(folder: Folder, record: Record | None) -> Record | None:
    """Complete a record whose writer was killed between starting the server and naming it."""
    if record is not None and record.pid != 0:
        return record
    pidfile: PidFile | None = server.read_pidfile(folder.pg)
    if pidfile is None or processes.working_directory(pidfile.pid) != folder.pg:
        return None
    socket_dir = record.socket_dir if record is not None else pidfile.socket_dir
    born = processes.born(pidfile.pid) or ""
    return Record(processes.place(), socket_dir, pidfile.pid, born)


def _unreachable(folder: Folder, record: Record, wait: Wait) -> None:
    """Deal with a server that is ready and whose socket leads nowhere."""
    socket_there = Path(record.socket_dir, SOCKET).exists()
    if socket_there and wait.seconds("unreachable") < GRACE:
        return  # a full queue of connections looks like this too, for a moment
    if not record.here:
        raise EmbeddedError(
            f"The data in {folder.root} are in use by PostgreSQL (process {record.pid}) on another "
            "machine or in another container, and its socket does not reach here. Stop Greffier "
            "there first."
        )
    if wait.once("stopping"):
        log.warning("PostgreSQL lost its socket in %s; restarting it", record.socket_dir)
        processes.send(record.pid, record.born, signal.SIGINT)


def _end_orphans(folder: Folder, wait: Wait) -> None:
    """End backends that outlived their postmaster.

    They end by themselves when they next wait for something, but one in the middle of a long
    computation does not, and PostgreSQL rightly refuses to start beside it.
    """
    how = signal.SIGQUIT if wait.seconds("orphans") < GRACE else signal.SIGKILL
    if wait.once(how.name):
        for pid, born in processes.inside(folder.pg):
            processes.send(pid, born, how)
