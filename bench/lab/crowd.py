"""Crowds of listeners, and those who speak to them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

_BENCH = Path(__file__).resolve().parents[1]
_TICKS = os.sysconf("SC_CLK_TCK")
#: Sockets that come in at the same time while a crowd gathers.
AT_ONCE = 50
#: Seconds after which what has not arrived is not waited for.
PATIENCE = 30.0

Who = dict[str, Any]


class Crowd:
    """Listeners in another process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def connect(self, url: str, who: Sequence[Who], at_once: int = AT_ONCE) -> dict[str, Any]:
        """Open these sockets; come back when all of them are live."""
        return await self._ask(do="connect", url=url, who=list(who), at_once=at_once)

    async def take(self, messages: int = 0, patience: float = PATIENCE) -> dict[str, Any]:
        """Wait until so many messages arrived, not for ever; say what did since it was asked."""
        return await self._ask(do="take", messages=messages, patience=patience)

    async def close(self) -> None:
        """Drop all sockets."""
        await self._ask(do="close")

    async def _ask(self, **command: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(command).encode() + b"\n")
        line = await self._process.stdout.readline()
        if not line:
            raise RuntimeError("the listeners ended")
        found: dict[str, Any] = json.loads(line)
        return found


@contextlib.asynccontextmanager
async def crowd() -> AsyncIterator[Crowd]:
    """Start a process for listeners, and end it."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "lab.listeners", cwd=_BENCH, limit=64 << 20,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        yield Crowd(process)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


class Speaker:
    """One connection over which messages are posted, each when the one before was answered."""

    def __init__(self, url: str, path: str, token: str = "") -> None:
        self._place = urlsplit(url)
        self._head = (
            f"POST {path} HTTP/1.1\r\nHost: {self._place.netloc}\r\n"
            f"Authorization: Bearer {token}\r\nContent-Type: application/json\r\nContent-Length: "
        )
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def post(self, body: str) -> None:
        """Post a body.

        Raises:
            ConnectionError: It was refused.
        """
        if self._reader is None or self._writer is None:
            self._reader, self._writer = await asyncio.open_connection(
                self._place.hostname, self._place.port
            )
        data = body.encode()
        self._writer.write(f"{self._head}{len(data)}\r\n\r\n".encode() + data)
        head = await self._reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"(?i)content-length: (\d+)", head)
        answer = await self._reader.readexactly(int(length[1])) if length else b""
        if not head.startswith(b"HTTP/1.1 20"):
            raise ConnectionError(answer.decode(errors="replace"))

    def close(self) -> None:
        """Hang up."""
        if self._writer is not None:
            self._writer.close()


def processor(pid: int) -> float:
    """Seconds of processor that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def guest(user_token: str, conversation_id: object, **known: Any) -> Who:
    """Somebody who joins a conversation of Greffier's."""
    join = ["join", {"conversation_id": str(conversation_id), **known}]
    return {"hello": "40" + json.dumps({"token": user_token}), "join": "420" + json.dumps(join)}
