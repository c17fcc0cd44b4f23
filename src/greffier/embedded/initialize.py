"""Making PostgreSQL's data directory: all of it or nothing."""

from __future__ import annotations

import os
import sys

from greffier.embedded.account import Account, handed_over
from greffier.embedded.binaries import Binaries, environment
from greffier.embedded.folder import Folder, remove
from greffier.embedded.processes import Child
from greffier.embedded.server import USER
from greffier.errors import EmbeddedError


def options(major: int, platform: str = sys.platform) -> list[str]:
    """Give initdb's options.

    PostgreSQL's own C.UTF-8 (17 and newer) sorts the same on every machine for ever, so that no
    upgrade of the C library can spoil an index; as UTF-8 sorts by code point, so does the older
    one's.  macOS has no locale of that name, only its character type.
    """
    locale = ["--locale=C.UTF-8"]
    if platform == "darwin":
        locale = ["--locale=C", "--lc-ctype=UTF-8"]
    if major >= 17:
        locale += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
    return [
        f"--username={USER}",
        "--encoding=UTF8",
        *locale,
        "--data-checksums",
        # Whoever can reach the socket is trusted: it has mode 0600 in a directory of 0700, so that
        # is the owner and root, who could read the data anyway.  `peer` would add nothing, and in
        # a user namespace it compares numbers that differ inside and outside.
        "--auth-local=trust",
        "--auth-host=reject",
        "--no-instructions",
    ]


async def initialize(
    folder: Folder, binaries: Binaries, account: Account, *, lock: int, log: int
) -> None:
    """Make the data directory beside its place and rename it when it is complete and on disk.

    Args:
        folder: The data folder, without a data directory.
        binaries: The programs to use.
        account: Who runs them.
        lock: ``server.lock``, held; initdb inherits it, so that if we are killed the next process
            waits for it instead of working in the same directory.
        log: Where initdb talks to.

    Raises:
        EmbeddedError: It failed; the end of the log says why.
    """
    remove(folder.unfinished)  # of a process that was killed here
    folder.unfinished.mkdir(mode=0o700)
    if account.identity is not None:
        os.chown(folder.unfinished, *account.identity)
    offset = os.fstat(log).st_size
    with handed_over(account, folder.unfinished) as handed:
        program = str(binaries.program("initdb"))
        initdb = Child(
            [*account.prefix, program, f"--pgdata={handed.paths[0]}", *options(binaries.major)],
            environment=environment(),
            output=log,
            keep=(lock, *handed.descriptors),
            identity=account.identity,
        )
    try:
        status = await initdb.wait()
    except BaseException:
        initdb.kill()
        raise
    if status != 0:
        raise EmbeddedError(
            f"PostgreSQL could not make its data in {folder.root} (initdb ended with {status}). "
            f"It said:\n{folder.log_since(offset)}"
        )
    folder.unfinished.rename(folder.pg)  # initdb has flushed what is within
    root = os.open(folder.root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(root)
    finally:
        os.close(root)
