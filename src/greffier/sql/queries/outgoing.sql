-- What is to leave, read after a lane was claimed.

-- name: outgoing
-- The endpoint of a lane, as it is for the conversation; no row: it is gone.
select e.id, e.channel, coalesce(o.target, e.target) as target,
    secrets_now(e.secrets, e.rotated_at, clock_timestamp()) as secrets, e.settings::text as settings,
    e.roles, e.ordering, e.on_uncertain, e.max_attempts,
    e.concurrency is not null or e.per_minute is not null or e.failures > 0
        or e.paused_at is not null or e.disabled_at is not null as gated,
    c.title, lane_id($1, 'out', e.id) = $2 as main, o.target is not null as contact,
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
where e.id = $3 and e.deleted_at is null;

-- name: outgoing_messages
-- The next messages of a lane for its endpoint: on the active path, not deleted, by who may speak, and
-- said lately.  unsure: of the last try of it nobody knows what came of it; one that ended so, and of
-- which a person said that it is to be tried again ($7 tries since then: none), is tried.  rev: of
-- which state of it body tells.
select m.seq, m.id, coalesce(m.changed_rev, m.rev) as rev, message_json(m, null) as body,
    coalesce(last.unsure, false) as unsure
from messages m
join conversations c on c.id = m.conversation_id
left join lateral (
    select a.outcome is null or (a.outcome = 'uncertain' and $7::integer > 0) as unsure
    from attempts a
    -- Also those of the lane where it was before it got one of its own.
    where a.conversation_id = $1 and a.lane_id in ($2, lane_id($1, 'out', $8)) and a.seq = m.seq
    order by a.fence desc limit 1
) last on true
where m.conversation_id = $1 and m.seq >= $3 and m.seq <= $4
  and m.deleted_at is null and m.seq <@ c.path
  and ($5::text[] is null or m.role = any ($5))
  and (m.said_at is null or m.said_at > m.created_at - interval '1 day')
order by m.seq
limit $6;
