"""Far sides on this machine that do what far sides do: answer, answer late, drop, drag on."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeAlias


class Line:
    """One connection that somebody opened to us."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def say(self, content: bytes) -> None:
        """Write, and wait while the other side does not read."""
        self.writer.write(content)
        await self.writer.drain()

    def hang_up(self) -> None:
        """Close."""
        self.writer.close()

    def reset(self) -> None:
        """Break the connection off, as a process that dies does."""
        raw = self.writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


Behaviour: TypeAlias = Callable[[Line], Awaitable[None]]


@dataclass
class Server:
    """Serves each connection by ``behave``, which may be exchanged at any time."""

    behave: Behaviour
    port: int = 0
    connections: int = 0
    failures: list[BaseException] = field(default_factory=list)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def host(self) -> str:
        """Where it is, with the port."""
        return f"127.0.0.1:{self.port}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self.behave(Line(reader, writer))
        except (OSError, asyncio.IncompleteReadError):
            pass  # the other side went away, which is its right
        except asyncio.CancelledError:
            pass  # the end of the block; a stream's task must not end as cancelled
        except Exception as error:  # noqa: BLE001 - told at the end of the block
            self.failures.append(error)
        finally:
            self._tasks.discard(task)
            writer.transport.abort()


@contextlib.asynccontextmanager
async def serving(behave: Behaviour, tls: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
    """Serve at a free port of this machine, until the end of the block."""
    server = Server(behave)
    listening = await asyncio.start_server(server._serve, "127.0.0.1", 0, ssl=tls)
    server.port = listening.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listening.close()
        tasks = list(server._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await listening.wait_closed()
        assert server.failures == []


@dataclass
class Request:
    """A request as it came."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


async def read_request(line: Line) -> Request:
    """Read one request to its end."""
    head = (await line.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    method, path, _ = head[0].split(" ")
    headers = {
        name.lower(): value for name, _, value in (one.partition(": ") for one in head[1:-2])
    }
    body = await line.reader.readexactly(int(headers.get("content-length", "0")))
    return Request(method, path, headers, body)


def response(status: int, body: bytes = b"", **headers: str) -> bytes:
    """Write an answer; underscores in the names of headers are hyphens."""
    lines = [f"HTTP/1.1 {status} Whatever", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join((*lines, "", "")).encode() + body


class Web:
    """Answers requests one after the other and keeps them; to be given to ``serving``."""

    def __init__(self, *answers: bytes) -> None:
        self.requests: list[Request] = []
        #: The last one is repeated.
        self.answers = list(answers) or [response(200)]

    async def __call__(self, line: Line) -> None:
        """Serve one connection."""
        while not line.reader.at_eof():
            self.requests.append(await read_request(line))
            await line.say(self.answers.pop(0) if len(self.answers) > 1 else self.answers[0])


def free_port() -> int:
    """A port at which nobody listens, a moment ago."""
    with contextlib.closing(socket.socket()) as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port
