"""The machine a number was measured on, and how quiet it was."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from importlib.metadata import version
from pathlib import Path
from statistics import median, quantiles

import msgspec

from greffier._version import __version__
from greffier.store.connection import Connection


class Noise(msgspec.Struct, frozen=True):
    """How quiet the machine was at a moment."""

    #: How many wanted a processor, over the last minute.
    load: float
    #: How much longer the same work took in its slowest tenth than in its fastest: 1 is quiet.
    jitter: float
    #: Milliseconds of one flush of 8 KiB to this disk, half of the time at most.
    flush_ms: float

    @property
    def quiet(self) -> bool:
        """Whether ratios measured now deserve to be kept."""
        return self.jitter < QUIET and self.load < (os.cpu_count() or 1)


#: Jitter below which a machine is called quiet.
QUIET = 1.3


class Machine(msgspec.Struct, frozen=True):
    """What a number depends on."""

    processors: int
    model: str
    memory_gib: float
    system: str
    python: str
    postgresql: str
    greffier: str
    commit: str
    packages: dict[str, str]
    #: The server's settings that decide the most.
    settings: dict[str, str]


_PACKAGES = ("asyncpg", "msgspec", "uvloop", "uvicorn", "starlette")
_SETTINGS = (
    "fsync", "synchronous_commit", "full_page_writes", "shared_buffers", "max_wal_size",
    "wal_compression",
)  # fmt: skip


async def describe(connection: Connection) -> Machine:
    """Describe this machine and the server behind a connection."""
    rows = await connection.fetch(
        "select name, current_setting(name) as value from pg_settings where name = any ($1)",
        list(_SETTINGS),
    )
    return Machine(
        processors=os.cpu_count() or 1,
        model=_model(),
        memory_gib=round(_memory() / 2**30, 1),
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        python=platform.python_version(),
        postgresql=await connection.fetchval("show server_version"),
        greffier=__version__,
        commit=_commit(),
        packages={name: version(name) for name in _PACKAGES},
        settings={row["name"]: row["value"] for row in rows},
    )


def listen(folder: Path) -> Noise:
    """Measure for half a second how quiet the machine is.

    Args:
        folder: Whose disk to flush to.
    """
    spins = [_spin() for _ in range(100)]
    return Noise(
        load=round(os.getloadavg()[0], 2),
        jitter=round(quantiles(spins, n=10)[8] / min(spins), 2),
        flush_ms=round(1000 * median(_flushes(folder)), 3),
    )


def _spin() -> float:
    began = time.perf_counter()
    sum(range(100_000))
    return time.perf_counter() - began


def _flushes(folder: Path) -> list[float]:
    path = folder / "flush"
    took = []
    file = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        for _ in range(50):
            os.pwrite(file, bytes(8192), 0)
            began = time.perf_counter()
            os.fsync(file)
            took.append(time.perf_counter() - began)
    finally:
        os.close(file)
        path.unlink()
    return took


def _model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if "model name" in line), "")


def _memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _commit() -> str:
    """The commit of a checkout, with a + when files of it have changed; empty when installed."""
    root = Path(__file__).parents[3]
    if not (root / ".git").exists():
        return ""
    try:
        found = subprocess.run(
            ["git", "-c", "safe.directory=*", "describe", "--always", "--dirty=+"],  # noqa: S607
            cwd=root, capture_output=True, text=True, check=True, timeout=10,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return ""
    return found.stdout.strip()
