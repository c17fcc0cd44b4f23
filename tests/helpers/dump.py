"""Everything a database holds, as its owner would carry it away."""

from __future__ import annotations

import asyncio
import secrets

from greffier.embedded import binaries
from helpers.postgres import connected


async def dump(dsn: str) -> str:
    """Give what pg_dump writes: every row of every table, as text."""
    process = await asyncio.create_subprocess_exec(
        binaries.find().program("pg_dump"),
        "--no-owner",
        f"--dbname={dsn}",
        stdout=asyncio.subprocess.PIPE,
        env=binaries.environment(),
    )
    out, _ = await process.communicate()
    assert process.returncode == 0
    return out.decode()


async def sampled(dsn: str) -> str:
    """Give what PostgreSQL keeps of columns' values for its planner."""
    async with connected(dsn) as connection:
        rows = await connection.fetch(
            "select s::text from pg_stats s where schemaname = 'greffier'"
        )
    return "\n".join(row[0] for row in rows)


class Words:
    """Random words, each used once, to be looked for in what is left."""

    def __init__(self) -> None:
        self.made: list[str] = []

    def __call__(self, what: str) -> str:
        """Make one; what it stands for is part of it, for a failure to tell."""
        self.made.append(f"{what}{secrets.token_hex(6)}")
        return self.made[-1]

    def found_in(self, text: str) -> list[str]:
        """Which of them stand in a text."""
        return [word for word in self.made if word in text]
