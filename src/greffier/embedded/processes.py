"""Processes told apart for certain: a number alone is reused, and a zombie still answers to it."""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import os
import platform
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path


@functools.cache
def place() -> str:
    """Say within which boot and which process namespace a process id of ours means something."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot}/{Path('/proc/self/ns/pid').readlink()}"
    except OSError:  # no Linux
        return platform.node()


def _stat(pid: int) -> tuple[str, str] | None:
    """Give a process's state letter and the moment of its birth, None when there is no such one."""
    if not sys.platform.startswith("linux"):
        return _ps(pid)
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # The second field is the name in parentheses and may itself hold spaces and parentheses.
    fields = text.rpartition(")")[2].split()
    return fields[0], fields[19]  # proc(5): state, starttime in clock ticks since boot


def _ps(pid: int) -> tuple[str, str] | None:
    result = subprocess.run(  # noqa: S603 — a fixed program and a number
        ["/bin/ps", "-o", "stat=,lstart=", "-p", str(pid)],
        capture_output=True,
        text=True,
        check=False,
        env={"LC_ALL": "C", "TZ": "UTC"},
    )
    state, _, birth = result.stdout.strip().partition(" ")
    return (state[0], birth.strip()) if state else None


def state(pid: int) -> str | None:
    """Give the letter of a process's state (Z is a zombie), None when the number is free."""
    stat = _stat(pid)
    return None if stat is None else stat[0]


def born(pid: int) -> str | None:
    """Give the moment of birth, which with the id names one process; None for none or a zombie.

    Kept by exec, so it is known as soon as the process is forked.
    """
    stat = _stat(pid)
    return None if stat is None or stat[0] in "ZX" else stat[1]


def send(pid: int, birth: str, signum: signal.Signals) -> bool:
    """Signal this very process, never a later one with its number; say whether that was done."""
    try:
        if sys.platform == "linux":
            # The descriptor pins the process: checked once it is open, it cannot become another.
            descriptor = os.pidfd_open(pid)
            try:
                if born(pid) != birth:
                    return False
                signal.pidfd_send_signal(descriptor, signum)
            finally:
                os.close(descriptor)
        else:
            if born(pid) != birth:
                return False
            os.kill(pid, signum)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def working_directory(pid: int) -> Path | None:
    """Give a process's working directory; None when it is gone or the system will not tell."""
    try:
        return Path(f"/proc/{pid}/cwd").readlink()
    except OSError:
        return None


def inside(directory: Path) -> Iterator[tuple[int, str]]:
    """Find the PostgreSQL processes working in a data directory, as (id, birth).

    PostgreSQL goes to its data directory at once and stays there, so this names its processes
    even after the postmaster is dead.  Elsewhere than on Linux none are found.
    """
    try:
        entries = list(os.scandir("/proc"))
    except FileNotFoundError:
        return
    for entry in entries:
        if entry.name.isdigit() and working_directory(int(entry.name)) == directory:
            pid = int(entry.name)
            if name(pid) == "postgres" and (birth := born(pid)) is not None:
                yield pid, birth


def name(pid: int) -> str | None:
    """Give the name of a process's program, None when it is gone or the system will not tell."""
    try:
        return Path(f"/proc/{pid}/comm").read_text(encoding="utf-8", errors="replace").rstrip("\n")
    except OSError:
        return None


class Child:
    """A process we started, reaped the moment it ends, whoever is waiting for it or not.

    It gets a session of its own, so that Ctrl-C at the terminal reaches us and not it, and no
    descriptor of ours but those named.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        environment: Mapping[str, str],
        output: int,
        keep: Sequence[int] = (),
        identity: tuple[int, int] | None = None,
    ) -> None:
        """Start it.

        Args:
            command: Program and arguments.
            environment: Its whole environment.
            output: Descriptor for what it prints.
            keep: Descriptors it inherits under the same numbers.
            identity: The uid and gid to run as instead of ours, with no other groups.
        """
        user, group = identity or (None, None)
        self._process = subprocess.Popen(  # noqa: S603 — programs we found, and no shell
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=keep,
            cwd="/",
            env=environment,
            start_new_session=True,
            user=user,
            group=group,
            extra_groups=None if identity is None else [],
        )
        self.pid = self._process.pid
        self._ended: concurrent.futures.Future[int] = concurrent.futures.Future()
        self._ended.set_running_or_notify_cancel()  # nobody who stops waiting can cancel it
        # The server outlives the event loop that started it, so neither asyncio's nor uvloop's
        # subprocesses fit: they kill it, or warn, when their loop closes.
        threading.Thread(target=self._reap, name="greffier-reaper", daemon=True).start()

    def _reap(self) -> None:
        self._ended.set_result(self._process.wait())

    async def wait(self) -> int:
        """Wait for its end and give its exit status."""
        return await asyncio.wrap_future(self._ended)

    def kill(self) -> None:
        """Kill it and what it started in its session's group, at once."""
        if not self._ended.done():
            os.killpg(self.pid, signal.SIGKILL)
