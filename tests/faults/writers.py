"""A process of many writers, to be killed: says what is asked of it until all is acknowledged.

Its arguments are a data folder and conversations; standard input has a JSON list of numbers.  Each
number is said once, under an id of its own, in the conversation that it belongs to.  For each
acknowledgement a line with the number and its seq is written at once.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Iterator
from uuid import UUID

import greffier
from greffier.model.ids import foreign

WRITERS = 64
PARENT = os.getppid()


def id_of(number: int) -> UUID:
    """The id a number is said under, whichever process says it."""
    return foreign("number", str(number))


def place_of(number: int, talks: list[UUID]) -> UUID:
    """The conversation a number belongs to."""
    return talks[number % len(talks)]


async def write(g: greffier.Greffier, talks: list[UUID], numbers: Iterator[int]) -> None:
    """Say numbers, one after the other, each until it is acknowledged."""
    for number in numbers:
        talk = place_of(number, talks)
        while True:
            try:
                said = await g.messages.append(talk, content=str(number), id=id_of(number))
            except greffier.Unavailable:
                if os.getppid() != PARENT:
                    # Whoever asked is gone, and nobody will bring the database back.
                    raise SystemExit(1) from None
                continue
            break
        os.write(1, b"%7d %7d\n" % (number, said.seq))


async def main(data_dir: str, talks: list[UUID]) -> None:
    """Say what is asked for."""
    numbers = iter(json.load(sys.stdin))
    async with greffier.open(data_dir=data_dir) as g:
        await asyncio.gather(*(write(g, talks, numbers) for _ in range(WRITERS)))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], [UUID(talk) for talk in sys.argv[2:]]))
