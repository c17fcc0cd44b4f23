-- Reads of an import: what of its source is on record already.

-- name: import_conversation
-- $1 conversation, $2 who imports write as: always one row; owner_id is null when it is not there.
select exists (select from erased where conversation_id = $1) as erased, c.owner_id,
    c.archived_at is not null as archived,
    (select count(*) from messages m
     where m.conversation_id = c.id and m.written_by = $2) as imported
from (select) one
left join conversations c on c.id = $1;

-- name: import_messages
-- $1 conversation, $2 message ids, $3 who imports write as: those that are on record.  One index
-- probe per id, whatever the planner thinks of the conversation's size.
select m.id, m.request_hash, m.request_hash is null and m.deleted_at is not null as erased,
    m.written_by = $3 as imported,
    sha256(convert_to(m.role || ':' || coalesce(m.content, ''), 'UTF8')) as said
from unnest($2::uuid[]) as wanted (id)
cross join lateral (
    select * from messages m where m.conversation_id = $1 and m.id = wanted.id limit 1
) m;
