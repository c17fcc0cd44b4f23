"""Any history of conversations, and every reader of them, agree with a model in plain memory.

``GREFFIER_HISTORIES`` says how many are tried (a night takes thousands) and
``GREFFIER_HISTORY_STEPS`` how long each is.  A failure prints the seed of its history, which
``GREFFIER_HISTORY_SEED`` repeats, and the fewest steps that were found to fail.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from greffier.store import schema
from helpers.standby import caught_up, primary_and_standby
from model_check.history import History, World
from model_check.steps import Step, shortest, some_steps, take

HISTORIES = int(os.environ.get("GREFFIER_HISTORIES", "24"))
STEPS = int(os.environ.get("GREFFIER_HISTORY_STEPS", "30"))
SEED = os.environ.get("GREFFIER_HISTORY_SEED")

#: How many shorter histories are tried before the shortest so far is told.
TRIES = 200

#: Fewer on a standby: each step waits until it has come there.
STANDBY_HISTORIES = max(2, HISTORIES // 8)
#: Milliseconds that the standby is late.
LATE = 20


def failure(world: World, steps: Sequence[Step]) -> Exception | None:
    """What comes of these steps."""
    try:
        take(History(world), steps)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is what is looked for
        return error
    return None


@pytest.mark.slow
@pytest.mark.timeout(0)
def test_every_history_is_what_the_model_says(database: str) -> None:
    """After each step of any history each page, list, count and catching-up is as it should be."""
    world = World(database)
    try:
        check(world, HISTORIES)
    finally:
        world.close()
        world.loop.close()


@pytest.mark.slow
@pytest.mark.timeout(0)
def test_every_history_is_the_same_on_a_standby(tmp_path: Path) -> None:
    """Who reads changes with the position of the last write has the same state, from a standby."""
    # One for all of it: the servers are this loop's processes.
    loop = asyncio.new_event_loop()
    pair = primary_and_standby(tmp_path, delay_ms=LATE)
    primary, standby = loop.run_until_complete(pair.__aenter__())
    try:
        loop.run_until_complete(schema.migrate(primary))
        loop.run_until_complete(caught_up(standby))
        world = World(primary, replicas=[standby], loop=loop)
        try:
            check(world, STANDBY_HISTORIES)
            replicas = world.g.database.replicas
            assert replicas.answered > replicas.late
        finally:
            world.close()
    finally:
        loop.run_until_complete(pair.__aexit__(None, None, None))
        loop.close()


def check(world: World, histories: int) -> None:
    """Take so many histories; the first that fails is told in the fewest steps."""
    # Of what pytest-randomly has set, unless one is given.
    first = int(SEED) if SEED else random.getrandbits(32)
    for seed in range(first, first + histories):
        steps = some_steps(History, random.Random(seed), STEPS)
        found = failure(world, steps)
        if found is None:
            continue
        few = shortest(steps, lambda fewer: failure(world, fewer) is not None, TRIES)
        error = failure(world, few) or found
        error.add_note(f"The history of GREFFIER_HISTORY_SEED={seed}, as far as it matters:")
        for one in few:
            error.add_note(f"    {one}")
        raise error
