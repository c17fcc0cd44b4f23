"""Draining a queue by processes of ``hands.py``, and what can be said of its deliveries."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from lab.hands import NOBODY, RECORD

_PROGRAM = Path(__file__).with_name("hands.py")
#: Seconds without a delivery after which a queue that does not get empty is given up.
PATIENCE = 30.0


@dataclass(frozen=True, slots=True)
class Drained:
    """How it went."""

    seconds: float
    #: Of the workers' processor.
    cpu: float
    deliveries: int
    #: Deliveries of what had been delivered, and of what came before something delivered.
    doubles: int
    disorders: int


async def drain(who: str, dsn: str, many: int, processes: int) -> Drained:
    """Let workers deliver all there is.

    Args:
        who: Of ``hands.WHO``.
        dsn: Where.
        many: How many messages wait.
        processes: Workers.
    """
    workers = await asyncio.gather(*(start(who, dsn) for _ in range(processes)))
    found: list[tuple[int, int, int]] = []
    all_there = asyncio.Event()
    try:
        for worker in workers:
            say(worker)
        began = asyncio.get_running_loop().time()
        reading = [asyncio.create_task(read(worker, found, many, all_there)) for worker in workers]
        while not all_there.is_set():
            known = len(found)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PATIENCE):
                    await all_there.wait()
            if len(found) == known:
                raise RuntimeError(f"{who} stands still: {known} of {many} are delivered")
        took = asyncio.get_running_loop().time() - began
        for worker in workers:
            assert worker.stdin is not None
            worker.stdin.close()
        spent = sum(await asyncio.gather(*reading))
        for worker in workers:
            if await worker.wait() != 0:
                raise RuntimeError(f"a worker of {who} broke")
    finally:
        for worker in workers:
            if worker.returncode is None:
                worker.kill()
                await worker.wait()
    return Drained(took, spent / 1e9, len(found), *faults(found))


async def start(who: str, dsn: str) -> Process:
    """Start a worker process, which has its connections and waits for a word."""
    path = os.pathsep.join([str(_PROGRAM.parents[1]), os.environ.get("PYTHONPATH", "")])
    worker = await asyncio.create_subprocess_exec(
        sys.executable, _PROGRAM, who, dsn, stdin=PIPE, stdout=PIPE,
        env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip
    assert worker.stdout is not None
    # That it is ready: it has its connections.
    await worker.stdout.readexactly(RECORD.size)
    return worker


def say(worker: Process) -> None:
    """Let it begin."""
    assert worker.stdin is not None
    worker.stdin.write(b"go\n")


async def read(
    worker: Process, found: list[tuple[int, int, int]], many: int, all_there: asyncio.Event
) -> int:
    """Read a worker's deliveries to its end; gives the nanoseconds it spent."""
    assert worker.stdout is not None
    spent = 0
    rest = b""
    while more := await worker.stdout.read(1 << 16):
        data = rest + more
        whole = len(data) // RECORD.size * RECORD.size
        rest = data[whole:]
        for talk, seq, at in RECORD.iter_unpack(data[:whole]):
            if talk == NOBODY:
                spent = at
            else:
                found.append((at, talk, seq))
        if len(found) >= many:
            all_there.set()
    return spent


def faults(found: list[tuple[int, int, int]]) -> tuple[int, int]:
    """Count doubles, and first deliveries behind a later message of their conversation.

    Args:
        found: Deliveries, by when they were made: moment, conversation, seq.
    """
    doubles = disorders = 0
    seen: dict[int, set[int]] = defaultdict(set)
    last: dict[int, int] = defaultdict(int)
    for _, talk, seq in sorted(found):
        if seq in seen[talk]:
            doubles += 1
        elif seq < last[talk]:
            disorders += 1
        seen[talk].add(seq)
        last[talk] = max(last[talk], seq)
    return doubles, disorders
