"""Starting the server: the account, the data, the socket's directory, then the process itself."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass

from greffier.embedded import account, processes, server
from greffier.embedded.binaries import Binaries, environment
from greffier.embedded.folder import Folder, choose_socket_dir
from greffier.embedded.initialize import initialize
from greffier.embedded.processes import Child
from greffier.embedded.server import Record

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Start:
    """A start under way."""

    child: Child
    folder: Folder
    #: Where in the log this start begins.
    offset: int

    async def ended(self) -> tuple[bool, str]:
        """Say whether the server was killed, and how it ended in words."""
        status = await self.child.wait()
        how = f"killed by signal {-status}" if status < 0 else f"exit status {status}"
        said = self.folder.log_since(self.offset)
        return status < 0, f"PostgreSQL ended before it was ready ({how}). It said:\n{said}"


async def start(
    folder: Folder, binaries: Binaries, settings: Mapping[str, str], *, lock: int
) -> Start:
    """Start the server, making its data first if there are none, and do not wait for it.

    Args:
        folder: The data folder.
        binaries: The programs to use.
        settings: Server settings over ours.
        lock: ``server.lock``, held, so that no PostgreSQL is at work in the folder.  The server
            inherits it and the caller closes it.

    Raises:
        EmbeddedError: It cannot be started here.
        SettingsError: A setting is not the caller's to choose.
    """
    before = server.read_record(lock)
    output = folder.open_log()
    try:
        runner, binaries = await asyncio.to_thread(account.choose, folder, binaries)
        if folder.major() is None:
            await initialize(folder, binaries, runner, lock=lock, log=output)
        account.give(folder.pg, runner)
        socket_dir = choose_socket_dir(
            folder, before.socket_dir if before else None, runner.identity
        )
        server.clear_stale_files(folder.pg, socket_dir)
        # Twice: should we be killed in between, the next process finds at least the socket.
        record = Record(processes.place(), str(socket_dir))
        server.write_record(lock, record)
        offset = os.fstat(output).st_size
        with account.handed_over(runner, folder.pg, socket_dir) as handed:
            command = server.arguments(settings, *handed.paths)
            # The server's own program: pg_ctl would only wait for it, and give up after a minute.
            child = Child(
                [*runner.prefix, str(binaries.program("postgres")), *command],
                environment=environment(),
                output=output,
                keep=(lock, *handed.descriptors),
                identity=runner.identity,
            )
        born = processes.born(child.pid) or ""
        server.write_record(lock, Record(record.place, record.socket_dir, child.pid, born))
    finally:
        os.close(output)
    log.info("starting PostgreSQL %s in %s", binaries.version, folder.root)
    return Start(child, folder, offset)
