-- Reads of the whole record, for who operates it.

-- name: totals
-- $1 user, or null for all: how many conversations, messages of each role, and bytes of text.
with mine as materialized (
    select c.id, c.archived_at from conversations c
    where $1::text is null or exists (
        select from participants p
        where p.conversation_id = c.id and p.user_id = $1 and p.left_at is null)
)
select
    (select count(*) from mine) as conversations,
    (select count(*) from mine where archived_at is not null) as archived,
    count(*) as messages,
    count(*) filter (where m.deleted_at is not null) as deleted,
    count(*) filter (where m.role = 'user') as "user",
    count(*) filter (where m.role = 'assistant') as assistant,
    count(*) filter (where m.role = 'tool') as tool,
    count(*) filter (where m.role = 'system') as system,
    coalesce(sum(
        coalesce(octet_length(m.content), 0)::bigint + coalesce(octet_length(m.reasoning), 0)
        + coalesce(octet_length(m.tool_calls::text), 0)), 0)::bigint as bytes,
    min(m.created_at) as first_at, max(m.created_at) as last_at
from mine
join messages m on m.conversation_id = mine.id;

-- name: conversation_ids
-- $1 user, or null for all, $2 the last id so far, $3 how many: a page of ids, in their order.
select c.id from conversations c
where c.id > $2
  and ($1::text is null or exists (
      select from participants p
      where p.conversation_id = c.id and p.user_id = $1 and p.left_at is null))
order by c.id
limit $3;
