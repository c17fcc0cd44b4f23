"""Kernel locks on files: they end with the process that holds them, however it ends.

``flock`` and not ``fcntl`` locks: those belong to the process and are lost when any descriptor of
the file is closed, so that two users in one process would undo each other.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import threading
from collections.abc import AsyncIterator

# A process forked without exec (multiprocessing's old default) would keep our locks for as long as
# it lives; what is listed here is closed in it.
_descriptors: set[int] = set()


def _forget_in_child() -> None:
    for descriptor in _descriptors:
        with contextlib.suppress(OSError):
            os.close(descriptor)
    _descriptors.clear()


os.register_at_fork(after_in_child=_forget_in_child)


def try_lock(descriptor: int, *, shared: bool = False) -> bool:
    """Lock an open file without waiting, and say whether that succeeded."""
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def keep(descriptor: int) -> int:
    """Note a descriptor that carries a lock, so that a fork does not inherit it."""
    _descriptors.add(descriptor)
    return descriptor


def close(descriptor: int) -> None:
    """Close a descriptor; its lock is free unless a child process inherited it."""
    _descriptors.discard(descriptor)
    os.close(descriptor)


async def lock(descriptor: int) -> None:
    """Wait until the file is locked exclusively through this descriptor, which stays the caller's.

    flock knows no timeout and cannot be interrupted, so a thread waits, on a copy: a lock belongs
    to what was opened, whichever descriptor asks for it.  Cancelled, the thread is left to itself;
    what it gets after all goes back at once.  A daemon thread, not one of the loop's executor: a
    process that ends must not wait for a lock it no longer wants.
    """
    if try_lock(descriptor):
        return
    loop = asyncio.get_running_loop()
    granted: asyncio.Future[None] = loop.create_future()
    copy = keep(os.dup(descriptor))

    def settle(error: OSError | None) -> None:
        if granted.cancelled():
            return
        if error is not None:
            granted.set_exception(error)
        else:
            granted.set_result(None)

    def wait() -> None:
        error: OSError | None = None
        try:
            fcntl.flock(copy, fcntl.LOCK_EX)
        except OSError as failure:
            error = failure
        finally:
            # If the caller is gone this was the last descriptor, and the lock is free again.
            close(copy)
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(settle, error)

    threading.Thread(target=wait, name="greffier-flock", daemon=True).start()
    await granted


@contextlib.asynccontextmanager
async def exclusive(descriptor: int) -> AsyncIterator[None]:
    """Hold the file exclusively for the block, and close the descriptor after it."""
    try:
        await lock(descriptor)
        yield
    finally:
        close(descriptor)
