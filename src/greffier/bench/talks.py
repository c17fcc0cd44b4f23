"""Conversations to measure on, made in the database by set, with every rule of the record kept.

A test runs the audit over them: a number measured on a record that could not exist says nothing.
"""

from __future__ import annotations

from uuid import UUID

from greffier.store.connection import Connection

#: The words of a message, 200 bytes, as a line of chat has.
WORDS = ("The clerk writes down every word, in order, and certifies the record. " * 3)[:200]

#: The id of the n-th conversation, in SQL.
ID = "('00000000-0000-7000-8000-' || lpad(to_hex({n}), 12, '0'))::uuid"

# Dealt out among the owners; the last activity of each lies within a year, and its listing was
# sorted then.
_CONVERSATIONS = f"""
with made as materialized (
    select n, {ID.format(n="n")} as id, $4 || '-' || n % $3 as owner,
        now() - interval '1 year' * (1 - (n * 7919 % 1000003) / 1000003.0) as at
    from generate_series($1::bigint, $1::bigint + $2::bigint - 1) n
), conversation as (
    insert into conversations (
        id, kind, title, owner_id, request_hash, created_at, updated_at, listed_at)
    select id, 'assistant', 'Conversation ' || n, owner, md5(n::text)::uuid, at, at, at from made
), participant as (
    insert into participants (conversation_id, user_id, role, joined_at, rev)
    select id, owner, 'owner', at, 1 from made
), listing as (
    insert into listings (user_id, conversation_id, listed_at, kind, list_rev)
    select owner, id, at, 'assistant', row_number() over (partition by owner order by n) from made
)
insert into users (id, list_rev) select owner, count(*) from made group by owner
"""

# Six messages over and over: a question and its answer, then a question that takes a tool.  What
# was said, and the traffic of tools, are counted up to each.
_MESSAGES = """
insert into messages (
    conversation_id, seq, id, request_hash, parent_seq, role, author_id, written_by, content,
    tool_calls, tool_call_id, created_at, rev, said_no, tool_no)
select c.id, s,
    (left(md5(c.id::text), 8) || '-0000-7000-8000-' || lpad(to_hex(s), 12, '0'))::uuid,
    decode(md5(s::text), 'hex'), nullif(s - 1, 0),
    (array['assistant', 'user', 'assistant', 'user', 'assistant', 'tool'])[s % 6 + 1],
    case when s % 6 in (1, 3) then c.owner_id end, c.owner_id,
    case when s % 6 <> 4 then s || ': ' || $3::text end,
    case when s % 6 = 4 then json_build_array(json_build_object(
        'id', 'call_' || s, 'type', 'function',
        'function', json_build_object('name', 'look_up', 'arguments', '{}'))) end,
    case when s % 6 = 5 then 'call_' || s - 1 end,
    c.created_at + s * interval '1 millisecond', s + 1,
    s / 6 * 4 + (array[0, 1, 2, 3, 3, 3])[s % 6 + 1],
    s / 6 * 2 + (array[0, 0, 0, 0, 1, 2])[s % 6 + 1]
from conversations c, generate_series(1, $2::integer) s
where c.id = any ($1) and c.last_seq = 0
"""

_COUNTERS = """
update conversations c set
    last_seq = m.seq, rev = m.rev, message_count = m.seq, said_total = m.said_no,
    tool_total = m.tool_no, updated_at = m.created_at, listed_at = m.created_at
from messages m
where m.conversation_id = c.id and m.seq = $2::integer and c.id = any ($1)
"""

_LISTINGS = """
update listings l set listed_at = c.listed_at
from conversations c
where l.user_id = c.owner_id and l.conversation_id = c.id and c.id = any ($1)
"""


def conversation(n: int) -> UUID:
    """The id of the n-th conversation."""
    return UUID(f"00000000-0000-7000-8000-{n:012x}")


async def make_conversations(
    connection: Connection, first: int, count: int, *, owners: int, name: str = "bench"
) -> None:
    """Make conversations ``first`` and on, without a message.

    Args:
        connection: Where.
        first: Number of the first.
        count: How many.
        owners: Users among whom they are dealt out, ``name-0`` and on; they must be new.
        name: What their owners are called.
    """
    await connection.fetch(_CONVERSATIONS, first, count, owners, name)


async def fill(connection: Connection, ids: list[UUID], count: int) -> None:
    """Give empty conversations ``count`` messages each."""
    async with connection.transaction():
        await connection.fetch(_MESSAGES, ids, count, WORDS)
        await connection.fetch(_COUNTERS, ids, count)
        await connection.fetch(_LISTINGS, ids)
