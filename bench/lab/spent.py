"""What work cost the server: processor and log, which say more than rates on a shared machine."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from greffier.store.connection import Connection

_TICK = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Spent:
    """Between two moments, or since the beginning."""

    #: Seconds of processor, of all of PostgreSQL's processes together.
    cpu: float
    #: Bytes of log.
    wal: int

    def __sub__(self, before: Spent) -> Spent:
        """What was spent since an earlier moment."""
        return Spent(self.cpu - before.cpu, self.wal - before.wal)

    def __add__(self, other: Spent) -> Spent:
        """Both together."""
        return Spent(self.cpu + other.cpu, self.wal + other.wal)


class Meter:
    """Reads what a server of this machine has spent."""

    def __init__(self, live: Connection, postmaster: int) -> None:
        self._live = live
        self._postmaster = postmaster

    @classmethod
    async def of(cls, live: Connection) -> Meter:
        """Make one for the server behind a connection: its process is the parent of all."""
        backend = await live.fetchval("select pg_backend_pid()")
        return cls(live, int(_stat(backend)[1]))

    async def read(self) -> Spent:
        """Read it now: what ended meanwhile is counted with its parent."""
        wal = await self._live.fetchval("select pg_current_wal_insert_lsn() - '0/0'::pg_lsn")
        # utime, stime, and those of the children it has waited for: fields 14 to 17 of proc(5).
        ended = sum(int(text) for text in _stat(self._postmaster)[11:15]) / _TICK
        children = Path(f"/proc/{self._postmaster}/task/{self._postmaster}/children").read_text()
        return Spent(ended + sum(_running(int(pid)) for pid in children.split()), int(wal))


def _stat(pid: int) -> list[str]:
    """The fields of a process from the third on, behind its name."""
    return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()


def _running(pid: int) -> float:
    try:
        # In nanoseconds, where stat counts hundredths of a second.
        text = Path(f"/proc/{pid}/schedstat").read_text(encoding="ascii")
    except OSError:
        # It ended a moment ago.
        return 0.0
    return int(text.split()[0]) / 1e9
