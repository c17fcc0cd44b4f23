"""One private PostgreSQL, shared by all of our processes that use its data folder."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from urllib.parse import quote

from greffier.embedded import account, answers, locks
from greffier.embedded.answers import Answer
from greffier.embedded.binaries import Binaries, find, of_major
from greffier.embedded.folder import PORT, Folder
from greffier.embedded.server import DATABASE, USER, Record, read_pidfile
from greffier.embedded.supervise import bring_up, open_lock, stop
from greffier.errors import EmbeddedError


@contextlib.asynccontextmanager
async def open_cluster(
    data_dir: Path,
    *,
    binaries: Binaries | None = None,
    settings: Mapping[str, str] = MappingProxyType({}),
) -> AsyncIterator[Cluster]:
    """Use the PostgreSQL of a data folder: made if new, started if down, shared if running.

    Leaving the block stops it if no other process (and no other block of this one) uses it.

    Args:
        data_dir: The folder; made if it is not there.
        binaries: The programs to start it with; by default those ``find`` finds.
        settings: Server settings over ours.  Whoever starts the server decides; a running one is
            taken as it is.

    Raises:
        EmbeddedError: It cannot be had; the message says why and what to do.
        SettingsError: A setting is not the caller's to choose.
    """
    if binaries is None:
        binaries = await asyncio.to_thread(find)
    cluster = Cluster(Folder.at(data_dir), binaries, settings)
    await cluster.join()
    try:
        yield cluster
    finally:
        await cluster.leave()


class Cluster:
    """The PostgreSQL of one data folder, as one holder sees it; made by ``open_cluster``."""

    def __init__(self, folder: Folder, binaries: Binaries, settings: Mapping[str, str]) -> None:
        self._folder = folder
        self._binaries = binaries
        self._settings = settings
        self._holder = os.getpid()
        self._claim: int | None = None
        self._record = Record(place="", socket_dir=str(folder.run))
        self._version = binaries.version

    @property
    def data_dir(self) -> Path:
        """The data folder, by its one true name."""
        return self._folder.root

    @property
    def socket_dir(self) -> Path:
        """The directory of the Unix socket."""
        return Path(self._record.socket_dir)

    @property
    def dsn(self) -> str:
        """A URL for asyncpg, libpq and everything built on them; the same after a restart."""
        host = quote(self._record.socket_dir, safe="")
        return f"postgresql://{USER}@/{DATABASE}?host={host}&port={PORT}"

    @property
    def pid(self) -> int:
        """The postmaster's process id, as of the last time we looked."""
        return self._record.pid

    @property
    def version(self) -> str:
        """The server's version, such as ``18.6``."""
        return self._version

    async def ensure_running(self) -> None:
        """Come back when the server answers, having started it again if it was dead.

        For a holder whose connections failed.  Of several that call it at once, in however many
        processes, one starts the server and the others find it running.

        Raises:
            EmbeddedError: It cannot be had; the message says why and what to do.
        """
        if self._claim is None:
            raise EmbeddedError("This cluster was left; open it again.")
        reply = await answers.ask(self._record.socket_dir)
        pidfile = read_pidfile(self._folder.pg)
        if reply.answer is Answer.YES and pidfile is not None and pidfile.pid == self.pid:
            return  # and it is the server we know
        async with self._control():
            await self._bring_up()

    async def join(self) -> None:
        """Count as a holder and come back when the server answers."""
        async with self._control():
            account.check_owner(self._folder)
            self._check_version()
            self._claim = open_lock(self._folder, "holders.lock")
            # Nobody has it exclusively: that takes control.lock, which is ours.
            locks.try_lock(self._claim, shared=True)
            try:
                await self._bring_up()
            except BaseException as error:
                # An error leaves the server as it is, maybe half way through a long recovery.
                if isinstance(error, asyncio.CancelledError):
                    await self._stop_if_last()
                self._drop_claim()
                raise

    async def leave(self) -> None:
        """Count no longer, and stop the server if nobody else counts.

        Cancelled or killed half way, this leaves the server running at worst: the next holder
        adopts it, and the last one stops it.
        """
        if self._claim is None or os.getpid() != self._holder:
            return  # a forked child holds nothing: see locks
        try:
            async with self._control():
                await self._stop_if_last()
        finally:
            self._drop_claim()

    @contextlib.asynccontextmanager
    async def _control(self) -> AsyncIterator[None]:
        """Be the only one who looks, starts or stops."""
        with _in_words(self._folder.root):
            self._folder.create()
            async with locks.exclusive(open_lock(self._folder, "control.lock")):
                yield

    async def _bring_up(self) -> None:
        record, version = await bring_up(self._folder, self._binaries, self._settings)
        self._record = record
        self._version = version or self._version

    async def _stop_if_last(self) -> None:
        # From shared to exclusive is two steps to the kernel and may leave us with neither: all
        # the same to one who leaves.
        if self._claim is not None and locks.try_lock(self._claim):
            await stop(self._folder)

    def _drop_claim(self) -> None:
        if self._claim is not None:
            claim, self._claim = self._claim, None
            locks.close(claim)

    def _check_version(self) -> None:
        """Refuse data of another major version, before PostgreSQL does in its own words.

        Raises:
            EmbeddedError: With the way to take the data along.
        """
        theirs = self._folder.major()
        ours = self._binaries
        if theirs is None or theirs == str(ours.major):
            return
        fitting = of_major(int(theirs)) if theirs.isdigit() else None
        where = "the directory of its programs"
        if fitting is not None:
            where = f"{fitting.bin_dir}, where PostgreSQL {fitting.version} is on this machine"
        raise EmbeddedError(
            f"The data in {self._folder.root} were made by PostgreSQL {theirs}; this is PostgreSQL "
            f"{ours.version} (from {ours.source}), which cannot read them. Nothing was changed. To "
            f"go on with PostgreSQL {theirs}, set GREFFIER_PG_BIN to {where}. To move to the new "
            "version, run `greffier backup FILE` with that setting and `greffier restore FILE` "
            "without it, into a new data folder."
        )


@contextlib.contextmanager
def _in_words(root: Path) -> Iterator[None]:
    """Put what the system refuses into our words."""
    try:
        yield
    except OSError as error:
        raise EmbeddedError(
            f"The data folder {root} cannot be used: {error.strerror or error}."
        ) from error
