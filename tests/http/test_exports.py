"""Promise: an export is whole or its connection breaks, and it holds nothing too long."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import pytest
import pytest_asyncio

from greffier.library import Messages
from greffier.server.run import Server, Stop, listen
from greffier.store.connection import Connection
from helpers.api import Person, Served, expect, path, pointers, refused, settings
from helpers.postgres import connected

#: More than the kernel keeps between two sockets, so that a reader who waits stops the writer.
LARGE = 48
#: The backend that holds an export's snapshot.
EXPORTING = (
    "from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid() "
    "and xact_start is not null and query ilike '%message_json%'"
)


async def test_lines_are_the_conversation_and_its_messages(ada: Person) -> None:
    """The first line is the conversation, each further line a message, as the API shows them."""
    made = await ada.talk(3)
    where = path(made)

    answer = await ada.http.get(f"{where}/export")

    head, *messages = [json.loads(line) for line in answer.text.splitlines()]
    assert answer.headers["content-type"] == "application/x-ndjson"
    assert answer.headers["content-disposition"] == (
        f'attachment; filename="conversation-{made["id"]}.jsonl"'
    )
    assert head == {"conversation": expect(await ada.http.get(where), 200)}
    assert messages == expect(await ada.http.get(f"{where}/messages"), 200)["data"]


async def test_one_object_holds_the_same(ada: Person) -> None:
    """Also when there is no message."""
    made = await ada.talk(2)
    empty = await ada.create()

    whole = expect(await ada.http.get(f"{path(made)}/export?format=json"), 200)
    nothing = expect(await ada.http.get(f"{path(empty)}/export?format=json"), 200)

    assert [one["content"] for one in whole["messages"]] == ["message 1", "message 2"]
    assert whole["conversation"]["id"] == made["id"]
    assert nothing["messages"] == []


@pytest.mark.parametrize(
    ("form", "media"), [("md", "text/markdown"), ("csv", "text/csv"), ("html", "text/html")]
)
async def test_there_are_forms_for_people(ada: Person, form: str, media: str) -> None:
    """To be saved, never shown by the browser as a page of ours."""
    made = await ada.talk(1, title="Plans")

    answer = await ada.http.get(f"{path(made)}/export?format={form}")

    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith(media)
    assert answer.headers["content-disposition"].startswith("attachment;")
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert "message 1" in answer.text


async def test_what_cannot_be_exported_is_refused_before_it_begins(ada: Person) -> None:
    """With a status, not with a broken file."""
    made = await ada.create()

    problem = refused(await ada.http.get(f"{path(made)}/export?format=pdf"), 422, "validation")
    head = await ada.http.head(f"{path(made)}/export")

    assert pointers(problem) == [("/format", "choice")]
    assert (head.status_code, head.content) == (200, b"")


@dataclass
class Reader:
    """A caller at a real socket, who reads when told to."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def rest(self) -> bytes:
        """Read until the connection ends."""
        with contextlib.suppress(ConnectionResetError):
            return await self.reader.read()
        return b""


@pytest_asyncio.fixture
async def slow(served: Served) -> AsyncIterator[Callable[[str, str], asyncio.Future[Reader]]]:
    """Ask a server at a real port, with a receive buffer that is soon full."""
    listener = listen(settings(port=0))
    address = listener.getsockname()
    stop = Stop()
    started = asyncio.Event()
    serving = asyncio.create_task(Server(served.app, listener, stop, grace=30).run(started.set))
    await started.wait()
    opened: list[Reader] = []

    async def ask(url: str, authorization: str) -> Reader:
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, address)
        reader, writer = await asyncio.open_connection(sock=sock, limit=8192)
        writer.write(
            f"GET {url} HTTP/1.1\r\nhost: x\r\nauthorization: {authorization}\r\n\r\n".encode()
        )
        await reader.readuntil(b"\r\n\r\n")
        opened.append(Reader(reader, writer))
        return opened[-1]

    yield lambda url, authorization: asyncio.ensure_future(ask(url, authorization))
    for one in opened:
        one.writer.close()
    stop()
    await serving


@pytest_asyncio.fixture
async def large(served: Served, ada: Person) -> str:
    """The path of an export of some 12 MB."""
    made = await ada.create()
    said = Messages(served.database)
    await asyncio.gather(
        *(said.append(made["id"], content="x" * 250_000, actor=ada.id) for _ in range(LARGE))
    )
    return f"{path(made)}/export"


async def test_a_whole_export_ends_in_order(
    ada: Person, large: str, slow: Callable[[str, str], asyncio.Future[Reader]]
) -> None:
    """However slowly it is read: the last chunk says that it was the last."""
    caller = await slow(large, ada.http.headers["authorization"])
    pieces: list[bytes] = []
    while not b"".join(pieces[-2:]).endswith(b"\r\n0\r\n\r\n"):
        pieces.append(await caller.reader.read(1 << 20))

    assert len(re.findall(rb'"seq":\d+,"id"', b"".join(pieces))) == LARGE


async def test_a_broken_export_does_not_look_whole(
    served: Served, ada: Person, large: str, slow: Callable[[str, str], asyncio.Future[Reader]]
) -> None:
    """When the database goes away half-way the connection breaks, without a last chunk."""
    async with connected(served.database.dsn) as connection:
        caller = await slow(large, ada.http.headers["authorization"])
        await _until(connection, 1)
        await connection.execute(f"select pg_terminate_backend(pid) {EXPORTING}")
        rest = await caller.rest()

    assert not rest.endswith(b"0\r\n\r\n")
    assert len(re.findall(rb'"seq":\d+,"id"', rest)) < LARGE
    line = served.lines()[-1]
    assert (line["level"], line["status"]) == ("error", 200)
    assert "exception" in line


async def test_a_caller_who_leaves_frees_the_snapshot(
    served: Served, ada: Person, large: str, slow: Callable[[str, str], asyncio.Future[Reader]]
) -> None:
    """An open snapshot keeps the database from cleaning up."""
    async with connected(served.database.dsn) as connection:
        caller = await slow(large, ada.http.headers["authorization"])
        await _until(connection, 1)
        caller.writer.transport.abort()
        await _until(connection, 0)


async def _until(connection: Connection, count: int) -> None:
    """Wait until this many exports hold a snapshot; PostgreSQL has no signal for it."""
    while await connection.fetchval(f"select count(*) {EXPORTING}") != count:
        pass
