"""The floors of writing: what this PostgreSQL does when pgbench asks it, with nothing of ours."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from greffier.bench.results import Pace, pace
from greffier.bench.talks import ID, WORDS
from greffier.embedded.binaries import find
from greffier.errors import EmbeddedError
from greffier.store.connection import SETTINGS, Connection, connect

#: How many connections the bare INSERTs come over: more bring nothing on a few processors.
CLIENTS = 8

BARE_TABLE = """
create table if not exists bare (
    conversation_id bigint, seq bigint, role text not null, content text,
    created_at timestamptz not null, primary key (conversation_id, seq)
)
"""

# Each client numbers by itself, so that the floor pays for no lock and no look-up: from the time of
# the run's start in nanoseconds, which is ahead of all that was numbered before.
_BARE = """\\set conversation random(1, :conversations)
\\set n :n + 1
insert into bare (conversation_id, seq, role, content, created_at)
values (:conversation, :start::bigint + :n * {clients} + :client_id, 'user', '{words}', now());
"""

_APPEND = """\\set conversation random(1, :conversations)
select * from append_message_v1({conversation}, null, gen_random_uuid(),
    '\\x00112233445566778899aabbccddeeff'::bytea, 'user', null, null, 'service', '{words}',
    null, null, null, null, null, null, null, true, {wait});
"""

BARE = _BARE.format(words=WORDS, clients=CLIENTS)
_TALK = ID.format(n=":conversation::bigint")
APPEND = _APPEND.format(conversation=_TALK, words=WORDS, wait="false")
#: The same where several clients may come to one conversation at once, and none may be turned away.
APPEND_WAITING = _APPEND.format(conversation=_TALK, words=WORDS, wait="true")


class NoPgbench(Exception):
    """There is no pgbench on this machine, or none that this server takes."""


@dataclass(frozen=True, slots=True)
class Pgbench:
    """PostgreSQL's own benchmark, against one database."""

    program: Path
    dsn: str
    #: Conversations there are, numbered from 1.
    conversations: int

    async def run(
        self, script: str, clients: int, seconds: float, *, times: bool = False, each: int = 50
    ) -> Pace:
        """Run a script over and over.

        Args:
            script: In pgbench's language.
            clients: Connections, one statement at a time each.
            seconds: How long; it knows whole ones only, so below one it goes by ``each``.
            times: Whether to note the time of every one.
            each: How many statements each client does when it does not go by time.

        Raises:
            NoPgbench: It could not.
        """
        with tempfile.TemporaryDirectory(prefix="greffier-bench-") as folder:
            arguments = [
                "--no-vacuum", "--protocol=prepared", f"--client={clients}",
                f"--jobs={min(clients, os.cpu_count() or 1)}", f"--file={_write(folder, script)}",
                f"--define=conversations={self.conversations}", "--define=n=0",
                f"--define=start={time.time_ns()}",
                f"--time={round(seconds)}" if seconds >= 1 else f"--transactions={each}",
                *(["--log", f"--log-prefix={folder}/log"] if times else []),
            ]  # fmt: skip
            settings = " ".join(f"-c {name}={setting}" for name, setting in SETTINGS.items())
            process = await asyncio.create_subprocess_exec(
                self.program, *arguments, self.dsn,
                env={**os.environ, "PGOPTIONS": settings},
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )  # fmt: skip
            out, err = await process.communicate()
            found = re.search(r"^tps = ([\d.]+)", out.decode(), re.MULTILINE)
            if process.returncode != 0 or found is None:
                raise NoPgbench(err.decode().strip() or "it said nothing")
            if not times:
                return Pace(rate=float(found[1]))
            took = _times(folder)
            return pace(len(took) / float(found[1]), took)


def _write(folder: str, script: str) -> Path:
    path = Path(folder, "script.sql")
    path.write_text(script, encoding="utf-8")
    return path


def _times(folder: str) -> list[float]:
    # client, transaction, microseconds, file, epoch, fraction
    return [
        int(line.split()[2]) / 1e6
        for log in Path(folder).glob("log.*")
        for line in log.read_text(encoding="utf-8").splitlines()
    ]


def _programs() -> Iterator[Path]:
    with contextlib.suppress(EmbeddedError):
        yield find().program("pgbench")
    if found := shutil.which("pgbench"):
        yield Path(found)


async def find_pgbench(dsn: str, conversations: int) -> Pgbench | None:
    """Find a pgbench that this server lets in (the wheel's, say, has no TLS), or None."""
    for program in _programs():
        pgbench = Pgbench(program, dsn, conversations)
        with contextlib.suppress(NoPgbench, OSError):
            await pgbench.run("select 1;", 1, 0)
            return pgbench
    return None


async def bare_inserts(dsn: str, conversations: int, seconds: float) -> Pace:
    """Do without pgbench: the same INSERTs over our driver, which costs this process's time too."""
    connections = [await connect(dsn) for _ in range(CLIENTS)]
    until = time.perf_counter() + seconds
    start = time.time_ns()
    times: list[float] = []

    async def client(number: int, connection: Connection) -> None:
        statement = await connection.prepare(
            "insert into bare values ($1, $2, 'user', $3, now())", name="bare"
        )
        seq = start + number
        while (now := time.perf_counter()) < until:
            seq += CLIENTS
            await statement.fetch(seq % conversations + 1, seq, WORDS)
            times.append(time.perf_counter() - now)

    began = time.perf_counter()
    try:
        async with asyncio.TaskGroup() as group:
            for number, connection in enumerate(connections):
                group.create_task(client(number, connection))
        return pace(time.perf_counter() - began, times)
    finally:
        for connection in connections:
            await connection.close()
