-- Reads of what is a user's own, through their listings: those are kept by user.

-- name: my_stats
-- $1 user: their conversations, and the undeleted messages on the active paths of these.
with mine as materialized (
    select c.id, c.path, c.first_seq, c.last_seq, c.archived_at,
        unread_count(c, $1, p.last_read_seq) as unread
    from listings l
    join conversations c on c.id = l.conversation_id
    join participants p on p.conversation_id = c.id and p.user_id = l.user_id and p.left_at is null
    where l.user_id = $1 and l.removed_at is null
)
select
    (select count(*) from mine) as conversations,
    (select count(*) from mine where archived_at is not null) as archived,
    (select coalesce(sum(unread), 0)::bigint from mine) as unread,
    count(*) as messages,
    count(*) filter (where m.role = 'user') as "user",
    count(*) filter (where m.role = 'assistant') as assistant,
    count(*) filter (where m.role = 'tool') as tool,
    count(*) filter (where m.role = 'system') as system,
    coalesce(sum(
        coalesce(octet_length(m.content), 0)::bigint
        + coalesce(octet_length(m.tool_calls::text), 0)), 0)::bigint as bytes,
    min(coalesce(m.said_at, m.created_at)) as first_at,
    max(coalesce(m.said_at, m.created_at)) as last_at
from mine
join messages m on m.conversation_id = mine.id and m.seq between mine.first_seq and mine.last_seq
where m.deleted_at is null and m.seq <@ mine.path;

-- name: my_profile
-- $1 user: what is known of them, and their keys without what opens anything.
select json_build_object(
    'profile', json_build_object(
        'id', $1::text, 'name', u.name, 'email', u.email, 'created_at', rfc3339(u.created_at)),
    'keys', (
        select coalesce(json_agg(json_build_object(
            'id', k.id, 'scope', k.scope, 'name', k.name, 'created_by', k.created_by,
            'created_at', rfc3339(k.created_at), 'expires_at', rfc3339(k.expires_at)) order by k.id), '[]')
        from api_keys k where k.user_id = $1)
)::text as body
from (select) one
left join users u on u.id = $1;

-- name: my_conversations
-- $1 user, $2 the last id so far, $3 how many.
select l.conversation_id as id from listings l
where l.user_id = $1 and l.removed_at is null and l.conversation_id > $2
order by l.conversation_id
limit $3;

-- name: my_part
-- $1 conversation, $2 user, $3 epoch: the conversation as they see it, who is in it, and what is
-- theirs around the messages.
select '{"conversation":' || conversation_json(c, $2, $3)
    || ',"participants":' || participants_json(c.id)
    || ',"feedback":' || coalesce((
        select json_agg(json_build_object(
            'seq', nullif(f.seq, 0), 'rating', f.rating, 'comment', f.comment, 'at', rfc3339(f.at))
            order by f.seq)::text
        from feedback f where f.conversation_id = c.id and f.user_id = $2), '[]')
    || ',"read_marks":' || coalesce((
        select json_agg(json_build_object('seq', r.upto_seq, 'at', rfc3339(r.at)) order by r.upto_seq)::text
        from read_marks r where r.conversation_id = c.id and r.user_id = $2), '[]')
    || ',"invitations":' || coalesce((
        select json_agg(json_build_object(
            'id', i.id, 'role', i.role, 'created_at', rfc3339(i.created_at),
            'expires_at', rfc3339(i.expires_at), 'max_uses', i.max_uses, 'uses', i.uses,
            'revoked_at', rfc3339(i.revoked_at)) order by i.created_at, i.id)::text
        from invitations i where i.conversation_id = c.id and i.created_by = $2), '[]')
    || '}' as body
from conversations c
where c.id = $1
  and exists (
      select from participants p
      where p.conversation_id = c.id and p.user_id = $2 and p.left_at is null);

-- name: superseded_messages
-- $1 conversation: what is on record and not on the active path, whole, oldest first.
select message_json(m, null) as body
from conversations c
cross join lateral unnest(
    int8multirange(int8range(c.first_seq, greatest(c.last_seq, c.first_seq - 1) + 1)) - c.path) x
cross join lateral (
    select * from messages m
    where m.conversation_id = $1 and m.seq >= lower(x) and m.seq < upper(x)
    order by m.seq
) m
where c.id = $1
order by lower(x), m.seq;

-- name: all_versions
-- $1 conversation: the earlier texts of all its messages that are not deleted, in order.
select json_build_object(
    'conversation_id', v.conversation_id, 'seq', v.seq, 'content', v.content, 'parts', v.parts,
    'written_at', rfc3339(v.written_at), 'replaced_at', rfc3339(v.replaced_at),
    'replaced_by', v.replaced_by, 'rev', v.rev)::text as body
from message_versions v
join messages m on m.conversation_id = v.conversation_id and m.seq = v.seq and m.deleted_at is null
where v.conversation_id = $1
order by v.seq, v.rev;
