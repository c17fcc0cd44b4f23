"""A real standby of the tests' own PostgreSQL, which applies what it gets some time later."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg

from greffier.embedded.binaries import find
from greffier.store import schema


@contextlib.asynccontextmanager
async def primary_and_standby(folder: Path, *, delay_ms: int) -> AsyncIterator[tuple[str, str]]:
    """Start a primary and a standby that applies ``delay_ms`` late; give their URLs.

    As root both run in a user namespace, as the embedded server does.
    """
    binaries = find()
    prefix = (
        ["unshare", "--user", "--map-user=1000", "--map-group=1000"] if os.getuid() == 0 else []
    )

    async def run(program: str, *args: str) -> None:
        process = await asyncio.create_subprocess_exec(
            *prefix, str(binaries.program(program)), *args, stdout=asyncio.subprocess.DEVNULL
        )
        assert await process.wait() == 0, program

    sockets = folder / "s"
    os.mkdir(sockets)  # noqa: PTH102 - nothing else runs yet
    primary, standby = folder / "primary", folder / "standby"
    await run("initdb", "-D", str(primary), "-U", "greffier", "-A", "trust", "-E", "UTF8", "-N")
    servers: list[asyncio.subprocess.Process] = []

    async def start(data: Path, port: int) -> str:
        url = f"postgresql://greffier@/postgres?host={sockets}&port={port}"
        servers.append(
            await asyncio.create_subprocess_exec(
                *prefix, str(binaries.program("postgres")), "-D", str(data), "-k", str(sockets),
                "-p", str(port), "-c", "listen_addresses=", "-c", "wal_level=replica",
                "-c", "shared_buffers=32MB", "-c", f"recovery_min_apply_delay={delay_ms}ms",
                "-c", "logging_collector=on",
                stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
            )
        )  # fmt: skip
        async with asyncio.timeout(30):
            while True:
                # A server says only by answering that it does.
                with contextlib.suppress(OSError, asyncpg.PostgresError):
                    connection = await asyncpg.connect(url)
                    await connection.close()
                    return url
                await asyncio.sleep(0.02)

    try:
        first = await start(primary, 5432)
        await run(
            "pg_basebackup", "-D", str(standby), "-h", str(sockets), "-p", "5432",
            "-U", "greffier", "-R", "-X", "stream", "-c", "fast",
        )  # fmt: skip
        yield first, await start(standby, 5433)
    finally:
        for server in reversed(servers):
            # Fast: the gentle way of SIGTERM waits for whoever is connected.
            server.send_signal(signal.SIGINT)
            await server.wait()


async def caught_up(standby: str) -> None:
    """Wait until the schema has come to the standby, which tells nobody."""
    async with asyncio.timeout(30):
        while (await schema.status(standby)).state != "current":  # noqa: ASYNC110
            await asyncio.sleep(0.05)
