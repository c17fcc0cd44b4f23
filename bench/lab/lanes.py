"""Lanes to measure on: what a channel's messages are to ours, and to pgbench by hand."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from greffier.bench.pgbench import APPEND_WAITING, CLIENTS, Pgbench
from greffier.bench.talks import WORDS
from greffier.store.connection import Connection

#: Where the messages go.
ENDPOINT = UUID(int=7)

#: The same changes by hand: a message and its lane's tail; the lane's head and the journal.
TABLES = """
create table bare_lanes (
    id bigint primary key, tail bigint not null default 0, head bigint not null default 1,
    due_at timestamptz
) with (fillfactor = 60);
create index on bare_lanes (due_at) where due_at is not null;
create table bare_messages (
    lane bigint, seq bigint, id uuid not null, role text not null, content text,
    created_at timestamptz not null, primary key (lane, seq)
);
create table bare_attempts (
    lane bigint, seq bigint, outcome text not null, intended_at timestamptz not null,
    settled_at timestamptz not null, primary key (lane, seq)
);
insert into bare_lanes (id) select generate_series(1, {lanes});
"""

_BARE_ENQUEUE = f"""\\set lane random(1, :conversations)
with l as (
    update bare_lanes set tail = tail + 1, due_at = coalesce(due_at, clock_timestamp())
    where id = :lane returning tail)
insert into bare_messages select :lane, tail, gen_random_uuid(), 'user', '{WORDS}', now() from l;
"""

_BARE_DONE = """\\set lane random(1, :conversations)
with l as (update bare_lanes set head = head + 1 where id = :lane returning head)
insert into bare_attempts select :lane, head - 1, 'accepted', now(), now() from l;
"""

_WORK = "select enqueue_v1(id, 'out', $2, 1, $3, lane_clock()) from unnest($1::uuid[]) id"

# Of any channel and for all conversations: from then on each append asks for a delivery.
_ENDPOINT = """
insert into endpoints (
    id, everywhere, channel, target, secrets, ordering, request_hash, created_by, created_at
) values ($1, true, 'nobody', 'nowhere', '{}', 'strict', '\\x00', 'bench', now())
"""


async def deliver_everything(live: Connection) -> None:
    """Let every message leave for an endpoint from now on."""
    await live.execute(_ENDPOINT, ENDPOINT)


async def bare_enqueue(pgbench: Pgbench, many: int) -> None:
    """Put messages on record by hand, one a commit."""
    await pgbench.run(_BARE_ENQUEUE, CLIENTS, 0, each=many // CLIENTS)


async def bare_done(pgbench: Pgbench, many: int) -> None:
    """Deliver as many by hand, one a commit."""
    await pgbench.run(_BARE_DONE, CLIENTS, 0, each=many // CLIENTS)


async def enqueue(pgbench: Pgbench, many: int) -> None:
    """Append messages, which asks for their delivery, one a commit, from as many clients."""
    await pgbench.run(APPEND_WAITING, CLIENTS, 0, each=many // CLIENTS)


async def work_for(
    live: Connection, talks: Sequence[UUID], tail: int, endpoint: UUID = ENDPOINT
) -> None:
    """Ask for the delivery of each conversation's messages up to a number; all are due at once."""
    await live.fetch(_WORK, list(talks), endpoint, tail)


async def block(live: Connection, talks: Sequence[UUID], tail: int) -> None:
    """Give each conversation a lane with messages up to a number, and a worker who holds it."""
    await work_for(live, talks, tail)
    await live.fetch("select * from claim_lanes_v1('out', 'busy', $1, '1 hour', null)", len(talks))
