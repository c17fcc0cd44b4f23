"""``greffier serve`` in a process of its own, as people run it."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import os
import re
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from greffier.server.auth import issue

SECRET = "a secret of the benchmarks, known to everybody"
#: Seconds after which a server that does not answer is given up.
PATIENCE = 60.0
_LISTENS = re.compile(r"listens on (http://\S+)")


@dataclass(frozen=True, slots=True)
class Served:
    """A server that answers."""

    url: str
    pid: int
    #: Seconds from its start to its first answer.
    took: float


def token(user: str) -> str:
    """A token with which a user comes in."""
    return issue(SECRET.encode(), user, lifetime=86_400, name=user.title())


@contextlib.contextmanager
def process(arguments: list[str], settings: dict[str, str], log: Path) -> Iterator[Served]:
    """Run a program that says where it listens; come back when it is ready.

    Args:
        arguments: The program.
        settings: Its ``GREFFIER_`` settings; none is inherited.
        log: Where it writes its log, one line for each request as by default.
    """
    kept = {name: text for name, text in os.environ.items() if not name.startswith("GREFFIER_")}
    began = time.perf_counter()
    with log.open("wb") as output:
        server = subprocess.Popen(
            arguments, env=kept | settings, stdin=subprocess.DEVNULL, stdout=output,
            stderr=subprocess.STDOUT, cwd=log.parent,
        )  # fmt: skip
    try:
        yield _ready(server, log, began)
    finally:
        server.terminate()
        server.wait(PATIENCE)


@contextlib.asynccontextmanager
async def serve(folder: Path, **settings: str) -> AsyncIterator[Served]:
    """Run ``greffier serve`` with its defaults, on a free port and for people with tokens.

    Args:
        folder: For its log, and its data unless the settings name a database.
        settings: Others, by their names.
    """
    program = Path(sys.executable).with_name("greffier")
    chosen = {
        "data_dir": str(folder / "data"),
        "port": "0",
        "jwt_secret": SECRET,
        # The bench's few users say more than people do.
        "rate_limit": "off",
        **settings,
    }
    environment = {f"GREFFIER_{name.upper()}": text for name, text in chosen.items()}
    running = process([str(program), "serve"], environment, folder / "serve.log")
    served = await asyncio.to_thread(running.__enter__)
    try:
        yield served
    finally:
        await asyncio.to_thread(running.__exit__, None, None, None)


def memory(pid: int) -> float:
    """MiB of a process that nobody else uses or shares (its PSS)."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    found = re.search(r"^Pss:\s+(\d+) kB", text, re.MULTILINE)
    assert found is not None
    return int(found[1]) / 1024


def _ready(server: subprocess.Popen[bytes], log: Path, began: float) -> Served:
    """Ask until it answers; from outside there is no signal to wait on."""
    url = None
    while time.perf_counter() - began < PATIENCE:
        if server.poll() is not None:
            break
        if url is None:
            found = _LISTENS.search(log.read_text(encoding="utf-8", errors="replace"))
            url = None if found is None else found[1]
        if url is not None and _answers(url):
            return Served(url, server.pid, time.perf_counter() - began)
        time.sleep(0.002)
    server.kill()
    raise RuntimeError(f"it did not start:\n{log.read_text(errors='replace')[-2000:]}")


def _answers(url: str) -> bool:
    place = urlsplit(url)
    connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=5)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()
