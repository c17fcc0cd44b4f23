"""Promise: a server says where it listens, and stops without losing an answer it owes."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import socket
from pathlib import Path

import httpx2
import pytest

from greffier.errors import ListenError, SettingsError
from greffier.server.run import listen
from greffier.settings import load
from helpers.api import SECRET, expect, path, settings
from helpers.postgres import connected, wait_for_lock
from helpers.serving import headers, started


async def test_an_append_under_way_is_answered_after_sigterm(database: str) -> None:
    """Nothing new is taken, what was taken is stored and answered, and the process ends well."""
    with started(DATABASE_URL=database, JWT_SECRET=SECRET, LOG_LEVEL="info") as server:
        url = server.until(r"listens on (http://127\.0\.0\.1:\d+) ")[1]
        async with (
            httpx2.AsyncClient(base_url=url, headers=headers(), timeout=60) as ada,
            connected(database) as other,
            connected(database) as watcher,
        ):
            made = expect(await ada.post("/v1/conversations", json={}), 201)
            transaction = other.transaction()
            await transaction.start()
            await other.execute("select from conversations for update")
            said = asyncio.create_task(ada.post(f"{path(made)}/messages", json={"content": "x"}))
            await wait_for_lock(watcher, "append")

            server.process.send_signal(signal.SIGTERM)
            await asyncio.to_thread(_refused, url)
            await transaction.rollback()

            assert expect(await said, 201)["message"]["seq"] == 1
            assert await watcher.fetchval("select last_seq from conversations") == 1
        assert await asyncio.to_thread(server.ended) == 0
        assert json.loads(server.said[-1])["event"] == "stopped"


def _refused(url: str) -> None:
    """Wait until nobody listens there any more."""
    host, port = url.removeprefix("http://").split(":")
    while True:
        try:
            socket.create_connection((host, int(port)), timeout=10).close()
        except ConnectionRefusedError:
            return
        except ConnectionResetError:
            continue  # queued by the kernel just before the end


async def test_a_second_signal_does_not_wait_for_requests(database: str) -> None:
    """A caller who never ends their request holds nobody up."""
    with started(DATABASE_URL=database, JWT_SECRET=SECRET) as server:
        url = server.until(r"listens on (http://\S+) ")[1]
        host, port = url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=60) as caller:
            head = "POST /v1/conversations HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\n"
            head += f"authorization: {headers()['authorization']}\r\ncontent-length: 9\r\n"
            head += "content-type: application/json\r\n\r\n"
            caller.sendall(head.encode())
            # The body is asked for: the request is under way.
            assert caller.recv(1024).startswith(b"HTTP/1.1 100")

            server.process.send_signal(signal.SIGINT)
            await asyncio.to_thread(_refused, url)
            server.process.send_signal(signal.SIGINT)

            assert await asyncio.to_thread(server.ended) == 0


async def test_a_signal_ends_a_start_that_gets_nowhere() -> None:
    """A database that takes the connection and says nothing is no reason to stay."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        dsn = f"postgresql://greffier@127.0.0.1:{port}/x"
        with started(DATABASE_URL=dsn, JWT_SECRET=SECRET) as server:
            accepted, _ = await asyncio.to_thread(silent.accept)
            with accepted:
                server.process.send_signal(signal.SIGTERM)
                assert await asyncio.to_thread(server.ended) == 0


async def test_one_command_serves_the_person_at_this_machine(tmp_path: Path) -> None:
    """Without a setting: PostgreSQL included, and the printed link signs in, once."""
    with started(DATA_DIR=str(tmp_path / "data")) as server:
        url = server.until(r"listens on (http://127\.0\.0\.1:\d+) ")[1]
        link = server.until(rf"Sign in, once: ({re.escape(url)}/signin\?token=\S+)")[1]
        async with httpx2.AsyncClient(base_url=url, follow_redirects=True, timeout=60) as browser:
            expect(await browser.get("/readyz"), 200)
            assert (await browser.get(link)).status_code == 200
            assert (await browser.get(link)).status_code == 403
            port = url.rpartition(":")[2]
            proof = {"x-greffier-csrf": browser.cookies[f"greffier-csrf-{port}"], "origin": url}
            made = expect(await browser.post("/v1/conversations", json={}, headers=proof), 201)
            answer = await browser.post(
                f"{path(made)}/messages", json={"content": "Bonjour"}, headers=proof
            )
            expect(answer, 201)
        server.process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(server.ended) == 0
    said = "".join(server.said)
    assert link not in said.split(link, 1)[1]
    assert not list(tmp_path.rglob("postmaster.pid"))  # noqa: ASYNC240


async def test_what_is_no_http_is_no_harm(database: str) -> None:
    """Bytes that are no request are refused with 400, and the server goes on."""
    with started(DATABASE_URL=database, JWT_SECRET=SECRET) as server:
        url = server.until(r"listens on (http://\S+) ")[1]
        host, port = url.removeprefix("http://").split(":")
        for nonsense in (
            b"hello\r\n\r\n",
            "GET /é HTTP/1.1\r\nhost: x\r\n\r\n".encode(),
            b"CONNECT x:1 HTTP/1.1\r\nhost: x\r\n\r\n",
            b"GET /healthz HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n",
            b"\x16\x03\x01\x02\x00",
        ):
            with socket.create_connection((host, int(port)), timeout=60) as caller:
                caller.sendall(nonsense)
                caller.shutdown(socket.SHUT_WR)
                answer = await asyncio.to_thread(caller.recv, 1 << 16)
                assert not answer.startswith(b"HTTP/1.1 5"), nonsense
        async with httpx2.AsyncClient(base_url=url) as client:
            expect(await client.get("/healthz"), 200)


def test_a_taken_port_is_told() -> None:
    """With what to do about it."""
    with listen(settings(port=0)) as first:
        port = first.getsockname()[1]
        with pytest.raises(ListenError, match=f"PORT {port} on 127.0.0.1 is taken"):
            listen(settings(port=port))


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_without_a_secret_nobody_else_can_come_in(host: str) -> None:
    """Local mode listens on loopback only, and says what else to do."""
    with pytest.raises(SettingsError, match="set JWT_SECRET"):
        listen(load({"host": host, "port": 0}))

    listen(settings(host=host, port=0)).close()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.0.0.2"])
def test_every_loopback_is_local(host: str) -> None:
    """By number and by name."""
    listen(load({"host": host, "port": 0})).close()


def test_a_host_that_is_none_is_told() -> None:
    """As the setting's fault."""
    with pytest.raises(SettingsError, match="HOST"):
        listen(settings(host="no.such.host.invalid", port=0))
    with pytest.raises(ListenError, match="HOST"):
        listen(settings(host="192.0.2.1", port=0))
