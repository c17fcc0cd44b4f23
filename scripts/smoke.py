"""Start an installed Greffier as a person would, see it answer, stop it, and see that it is gone.

Twice on one data folder: the first start makes the database, the second finds it. What is run is
the program named on the command line, in an empty folder, with nothing of ours on its path.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

# Far above what it takes (a second or two): only a server that never comes is worth a failure.
PATIENCE = 90.0


class Failed(Exception):
    """The server did not do what it should; the message says what."""


def main(program: str) -> int:
    """Run the whole check.

    Returns:
        The exit code: 1 with the reason and the server's last words when something is wrong.
    """
    with tempfile.TemporaryDirectory(prefix="greffier-smoke-") as name:
        folder = Path(name)
        data = folder / "data"
        log = folder / "log.txt"
        (folder / "empty").mkdir()
        try:
            for which in ("first", "second"):
                took = run_once(program, data, folder / "empty", log)
                print(f"{which} start: answered after {took:.1f} s, stopped on SIGTERM", flush=True)
        except Failed as failure:
            print(f"smoke: {failure}", file=sys.stderr)
            if log.exists():
                print("".join(log.read_text(errors="replace").splitlines(True)[-60:]))
            return 1
        finally:
            for pid in living(data):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
    return 0


def run_once(program: str, data: Path, folder: Path, log: Path) -> float:
    """Start it, ask, stop it; return the seconds to its first answer.

    Raises:
        Failed: It did not answer, did not stop, or left something behind.
    """
    port = free_port()
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GREFFIER_")}
    settings = {"GREFFIER_DATA_DIR": str(data), "GREFFIER_PORT": str(port)}
    began = time.monotonic()
    with log.open("w") as output:
        server = subprocess.Popen(
            [program, "serve"],
            cwd=folder,
            env=kept | settings,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            for path in ("/healthz", "/readyz"):
                wait_for(f"http://127.0.0.1:{port}{path}", server, began + PATIENCE)
            took = time.monotonic() - began
            server.terminate()
            code = server.wait(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            raise Failed(f"it did not stop within {PATIENCE:.0f} s of SIGTERM") from None
        finally:
            server.kill()
            server.wait()
    # A server that shuts down in order and then dies of the signal tells its parent the truth.
    if code not in {0, -signal.SIGTERM}:
        raise Failed(f"it ended with exit code {code} after SIGTERM")
    if left := list(living(data)):
        raise Failed(f"it left processes behind: {left}")
    if left_files := [str(path) for path in data.rglob("postmaster.pid")]:
        raise Failed(f"PostgreSQL was not stopped in order: {left_files}")
    return took


def wait_for(url: str, server: subprocess.Popen[bytes], deadline: float) -> None:
    """Ask until the answer is 200; from outside there is no signal to wait on.

    Raises:
        Failed: The server ended, or time ran out.
    """
    last = "no answer"
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise Failed(f"it ended with exit code {server.returncode} before {url} answered")
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                if answer.status == 200:
                    return
                last = f"{answer.status}"
        except OSError as fault:
            last = str(fault)
        time.sleep(0.02)
    raise Failed(f"{url} did not answer 200 in time (last: {last})")


def free_port() -> int:
    """Return a port nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def living(data: Path) -> Iterator[int]:
    """Yield the processes that work in this data folder, where the system lets us look."""
    mark = os.fsencode(data)
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            works_here = mark in (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
            is_gone = (entry / "stat").read_text().rpartition(")")[2].split()[0] in "ZX"
        except OSError:
            continue  # it ended while we looked, or is somebody else's
        if works_here and not is_gone and int(entry.name) != os.getpid():
            yield int(entry.name)


if __name__ == "__main__":
    sys.exit(main(os.path.abspath(sys.argv[1])))  # noqa: PTH100 - a link must stay what it is
