-- Reads of the feed.

-- name: revs
-- Where conversations are; one that is gone has no row.
select id, rev from conversations where id = any ($1);

-- name: list_changes
-- $1 user, $2 epoch, $3 since, $4 how many: what joined the user's list, or changed its place there,
-- with its present state; a null body left it.
select l.list_rev, l.conversation_id,
    case when l.removed_at is null then conversation_json(c, $1, $2) end as body
from listings l
left join conversations c on c.id = l.conversation_id and l.removed_at is null
where l.user_id = $1 and l.list_rev > $3
order by l.list_rev
limit $4;

-- name: members
-- Who takes part in each of these conversations.
select p.conversation_id, array_agg(p.user_id) as user_ids
from participants p
where p.conversation_id = any ($1) and p.left_at is null
group by p.conversation_id;

-- name: newest_of
-- A user's fifty most recently listed conversations, and where they are.
select c.id, c.rev
from (
    select l.conversation_id from listings l
    where l.user_id = $1 and not l.archived and l.removed_at is null
    order by l.listed_at desc
    limit 50
) l
join conversations c on c.id = l.conversation_id;

-- name: activities
-- $1 conversation, $2 users: what it shows of itself to each of them who takes part.
select p.user_id, c.rev,
    '{"conversation_id":"' || c.id || '","rev":' || c.rev
    || ',"last_message":' || coalesce(last_message_json(c), 'null')
    || ',"unread":' || unread_count(c, p.user_id, p.last_read_seq) || '}' as body
from conversations c
join participants p on p.conversation_id = c.id and p.user_id = any ($2) and p.left_at is null
where c.id = $1;

-- name: arrivals
-- What people who come at the same time are told, of one snapshot.  $1 conversation, $2 since, $3
-- epoch, $4 cut, $5 bytes: the change; $6 the people_rev that is known, whose people are not named
-- again; $7 who came: the `me` of each who takes part.
select s.reset, s.upto, s.more, s.messages, s.superseded, s.conversation, s.participants, c.people_rev,
    case when c.people_rev <> $6 then participants_json(c.id) end as everybody,
    '{' || coalesce((
        select string_agg(to_json(p.user_id) || ':{"role":"' || p.role || '","last_read_seq":'
            || p.last_read_seq || ',"unread":' || unread_count(c, p.user_id, p.last_read_seq) || '}', ',')
        from participants p
        where p.conversation_id = c.id and p.user_id = any ($7) and p.left_at is null), '') || '}' as mine
from conversations c
cross join lateral changes_since(c.id, null, $2, $3, $4, $5) s
where c.id = $1;
