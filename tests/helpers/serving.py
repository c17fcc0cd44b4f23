"""A server in a process of its own, as an operator starts and stops it."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass

from greffier.server.auth import issue
from helpers.api import SECRET

PROGRAM = "from greffier.server import run; from greffier.settings import load; run(load())"


@dataclass
class Running:
    """A server in a process of its own."""

    process: subprocess.Popen[str]
    said: list[str]
    _listener: threading.Thread | None = None

    def until(self, pattern: str) -> re.Match[str]:
        """Read what it says until a line matches."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.said.append(line)
            if match := re.search(pattern, line):
                return match
        raise AssertionError("it ended first:\n" + "".join(self.said))

    def let_it_talk(self) -> None:
        """Read on in the background, so that it never waits for somebody to listen."""
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def _listen(self) -> None:
        assert self.process.stderr is not None
        self.said += self.process.stderr

    def ended(self) -> int:
        """Wait for its end, and give its exit code."""
        if self._listener is None:
            self._listen()
        else:
            self._listener.join()
        return self.process.wait()


@contextlib.contextmanager
def started(*, program: str | None = None, **variables: str) -> Iterator[Running]:
    """Start a server on a free port, or another program; what is left at the end is killed."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GREFFIER_")}
    process = subprocess.Popen(
        [sys.executable, "-c", program or PROGRAM],
        env=kept
        | {
            f"GREFFIER_{name}": value
            for name, value in {"PORT": "0", "RATE_LIMIT": "off", **variables}.items()
        },
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    running = Running(process, [])
    try:
        yield running
    finally:
        process.kill()
        running.ended()
        assert process.stderr is not None
        process.stderr.close()


def headers(user: str = "ada") -> dict[str, str]:
    """What a user's requests carry."""
    return {"authorization": f"Bearer {issue(SECRET.encode(), user, lifetime=600)}"}
