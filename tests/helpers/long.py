"""Long conversations, made at once: as many single appends would have left them."""

from __future__ import annotations

from uuid import UUID

from greffier.store.connection import Connection

_MESSAGES = """
insert into messages (
    conversation_id, seq, id, request_hash, parent_seq, role, author_id, written_by, content,
    created_at, rev, said_no, tool_no
)
select c.id, c.last_seq + n,
    -- in order, as ids of version 7 are
    ('00000000-0000-7000-8000-' || lpad(to_hex(c.last_seq + n), 12, '0'))::uuid, '\\x00',
    nullif(c.last_seq + n - 1, 0), case when n % 2 = 1 then 'user' else 'assistant' end,
    case when n % 2 = 1 then c.owner_id end, 'service', 'This is message ' || c.last_seq + n,
    c.updated_at + n * interval '1 microsecond', c.rev + n, c.said_total + n, c.tool_total
from conversations c, generate_series(1, $2::integer) n
where c.id = $1
"""
_COUNTERS = """
update conversations set
    last_seq = last_seq + $2, rev = rev + $2, message_count = message_count + $2,
    said_total = said_total + $2, updated_at = updated_at + $2 * interval '1 microsecond'
where id = $1
"""


async def lengthen(connection: Connection, conversation_id: UUID, many: int) -> None:
    """Append messages, by the owner and an assistant in turns, one rev each."""
    async with connection.transaction():
        await connection.execute(_MESSAGES, conversation_id, many)
        await connection.execute(_COUNTERS, conversation_id, many)
