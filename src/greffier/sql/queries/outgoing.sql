-- What is to leave, read after a lane was claimed.

-- name: outgoing
-- The endpoint of a lane, as it is for the conversation; no row: it is gone.
select e.id, e.channel, coalesce(o.target, e.target) as target, e.secrets, e.settings::text as settings,
    e.roles, e.ordering, e.on_uncertain, e.max_attempts,
    e.concurrency is not null or e.per_minute is not null or e.failures > 0
        or e.paused_at is not null or e.disabled_at is not null as gated,
    c.title, lane_id($1, 'out', e.id) = $2 as main,
    array(
        select a.external_id from attempts a
        where a.conversation_id = $1 and a.lane_id = $2 and a.external_id is not null
        order by a.seq limit 1
    ) || array(
        select a.external_id from attempts a
        where a.conversation_id = $1 and a.lane_id = $2 and a.external_id is not null
        order by a.seq desc limit 1
    ) as previous
from endpoints e
join conversations c on c.id = $1
left join conversation_endpoints o on o.conversation_id = $1 and o.endpoint_id = e.id
where e.id = $3;

-- name: outgoing_messages
-- The next messages of a lane for its endpoint: on the active path, not deleted, by who may speak, and
-- said lately.  unsure: of an earlier try of it nobody knows what came of it.
select m.seq, m.id, message_json(m, null) as body,
    exists (
        select from attempts a
        where a.conversation_id = m.conversation_id and a.lane_id = $2 and a.seq = m.seq
          and (a.outcome is null or a.outcome = 'uncertain')
    ) as unsure
from messages m
join conversations c on c.id = m.conversation_id
where m.conversation_id = $1 and m.seq >= $3 and m.seq <= $4
  and m.deleted_at is null and m.seq <@ c.path
  and ($5::text[] is null or m.role = any ($5))
  and (m.said_at is null or m.said_at > m.created_at - interval '1 day')
order by m.seq
limit $6;
