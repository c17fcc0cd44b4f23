"""Promise P4: reading costs the same however long a conversation is; counted, not timed.

What is counted are pages of the database.  With fresh statistics, and when one conversation is most
of the table: a plan that is not by the key looks cheap to the planner then.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from greffier.bench.places import Place, place
from greffier.bench.talks import conversation, fill
from greffier.store.queries import queries

SHORT, LONG = conversation(1), conversation(2)


@pytest_asyncio.fixture(scope="module")
async def here(postgres: str) -> AsyncIterator[Place]:
    """A record of two conversations, of 1,000 and of 30,000 messages, with fresh statistics."""
    async with place(postgres, talks=2, owners=2) as found:
        async with found.connection() as live:
            await fill(live, [SHORT], 1_000)
            await fill(live, [LONG], 30_000)
            await live.execute(
                "update participants p set last_read_seq = c.last_seq - 100 "
                "from conversations c where c.id = p.conversation_id"
            )
            await live.execute("vacuum analyze")
        yield found


async def touched(here: Place, name: str, arguments: str) -> int:
    """Count the pages a named query touches, planned as the library does."""
    async with here.connection() as live:
        await live.execute(f"prepare q as {queries()[name]}")
        # The first call of a connection also reads what PostgreSQL knows of the tables.
        await live.execute(f"execute q({arguments})")
        raw = await live.fetchval(f"explain (analyze, buffers, format json) execute q({arguments})")
    plan = json.loads(raw)[0]["Plan"]
    found: int = plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]
    return found


@pytest.mark.parametrize(
    ("name", "arguments", "looks"),
    [
        ("page", "'{talk}', '{user}', null, 15, 0, false, 16384, 1048576", 1),
        ("page", "'{talk}', null, 300, 8, 7, false, 16384, 1048576", 1),
        ("page", "'{talk}', null, 0, 0, 4, false, null, 1048576", 1),
        ("get_conversation", "'{talk}', '{user}', 'epoch'", 2),
        ("get_message", "'{talk}', '{user}', 300", 1),
        ("stretch_counts", "'{talk}', '{user}'", 3),
    ],
    ids=["latest", "around", "head", "conversation", "message", "counts"],
)
async def test_it_does_not_grow_with_the_conversation(
    here: Place, name: str, arguments: str, looks: int
) -> None:
    """Thirty times the messages cost each look into the index a level more, and nothing else."""
    short = await touched(here, name, arguments.format(talk=SHORT, user="bench-1"))
    long = await touched(here, name, arguments.format(talk=LONG, user="bench-0"))

    # A stretch may lie on one page of the table more.
    assert long <= short + 2 * looks
