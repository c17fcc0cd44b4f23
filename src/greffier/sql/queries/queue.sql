-- Reads of those who operate lanes.  The lanes' clock is asked once in each, for lane_clock() cannot
-- be inlined and a call for each row would cost more than the row.

-- name: queue_states
-- Every lane, in one pass: how many of which kind stand where, and with how many tries.
with clock as materialized (select lane_clock() as now)
select l.kind, lane_state(l, c.now) as state, l.tries, count(*) as lanes,
    coalesce(sum(l.refused), 0)::bigint as refused,
    extract(epoch from c.now - min(l.due_at) filter (where l.due_at < c.now))::float8 as overdue
from clock c
cross join lanes l
group by 1, 2, 3, c.now;

-- name: queue_heads
-- $1 how long is long.  Of lanes that are not idle, what is known of their heads: how many somebody has
-- been at for too long, and how many may have arrived or not, and nobody is at it any more.
with clock as materialized (select lane_clock() as now), lane as (
    select l.conversation_id, l.id, l.head_seq, l.claimed_at, lane_state(l, c.now) as state
    from clock c
    cross join lanes l
    where l.due_at is not null or l.parked_at is not null or l.paused_at is not null
)
select
    count(*) filter (where l.state in ('leased', 'expired') and w.since < c.now - $1::interval) as long,
    max(extract(epoch from c.now - w.since)) filter (
        where l.state in ('leased', 'expired'))::float8 as longest,
    count(*) filter (where l.state = 'parked' and a.seq = l.head_seq
        and (a.outcome = 'uncertain' or a.outcome is null)) as unsure_parked,
    count(*) filter (where l.state not in ('parked', 'leased') and a.seq = l.head_seq
        and (a.outcome = 'uncertain' or a.outcome is null)) as unsure_waiting
from clock c
cross join lane l
left join lateral (
    select a.seq, a.outcome, a.intended_at, a.settled_at
    from attempts a
    where a.conversation_id = l.conversation_id and a.lane_id = l.id
    order by a.seq desc, a.fence desc limit 1
) a on true
-- Its holder goes on from message to message under one claim: what counts is the last they did.
cross join lateral (
    select greatest(l.claimed_at, coalesce(a.settled_at, a.intended_at)) as since
) w;

-- name: queue_parked
-- $1 tries of a message whose endpoint says nothing else, $2 how many.  Why lanes are parked, most
-- frequent first.
select l.kind, l.park_reason as reason, count(*) as lanes, min(l.parked_at) as oldest_at,
    count(*) filter (where l.tries < coalesce(e.max_attempts, $1)) as with_tries_left
from lanes l
left join endpoints e on e.id = l.endpoint_id
where l.parked_at is not null
group by 1, 2
order by 3 desc, 4
limit $2;

-- name: queue_workers
-- $1 after how long without a word a worker is silent, $2 how many.  Those that live first.
with clock as materialized (select lane_clock() as now)
select w.id, w.host, w.pid, w.version, w.kinds, w.started_at, w.seen_at, w.busy, w.claimed, w.lost,
    w.refused, w.broken, extract(epoch from w.clock_ahead)::float8 as clock_ahead,
    w.seen_at > c.now - $1::interval as alive, coalesce(h.lanes, 0) as holds
from clock c
cross join workers w
left join (
    select l.owner, count(*) as lanes from lanes l
    where l.due_at is not null and l.token is not null
    group by l.owner
) h on h.owner = w.id
order by alive desc, w.seen_at desc
limit $2;

-- name: queue_endpoints
-- $1 how many.  Endpoints that nothing leaves for, or that fail, with the lanes that wait for them.
with clock as materialized (select lane_clock() as now)
select e.id, e.channel, e.failures, e.failing_since, e.held_until, e.paused_at, e.disabled_at,
    e.disabled_reason,
    case when e.disabled_at is not null then 'disabled' when e.paused_at is not null then 'paused'
         when e.held_until > c.now then 'slowed' else 'failing' end as state,
    (select count(*) from lanes l where l.endpoint_id = e.id and l.due_at is not null) as waiting
from clock c
cross join endpoints e
where e.disabled_at is not null or e.paused_at is not null or e.failures > 0
order by e.disabled_at, e.failing_since, e.paused_at, e.id
limit $1;

-- name: queue_journal
-- $1 what the journal says of a try that was not made.  The last day's journal: messages of which more
-- than one try may have arrived, and those given up.
with clock as materialized (select lane_clock() as now), recent as materialized (
    select a.conversation_id, a.lane_id, a.seq, a.fence, a.outcome, a.detail
    from attempts a
    -- Both bounds, or the planner takes it for a third of the table and reads all of it.
    where a.intended_at > (select now - interval '1 day' from clock)
      and a.intended_at <= (select now from clock)
      and (a.outcome is null or a.outcome not in ('accepted', 'skipped'))
)
select
    (
        select count(distinct (a.conversation_id, a.lane_id, a.seq))
        from recent a
        where (a.outcome is null or a.outcome = 'uncertain') and a.detail is distinct from $1 and exists (
            select from attempts b
            where b.conversation_id = a.conversation_id and b.lane_id = a.lane_id and b.seq = a.seq
              and b.fence > a.fence and b.detail is distinct from $1
              and (b.outcome is null or b.outcome in ('accepted', 'uncertain')))
    ) as doubles,
    (
        select count(*)
        from recent a
        join lanes l on l.conversation_id = a.conversation_id and l.id = a.lane_id
        where a.seq < l.head_seq and a.outcome is not null and not exists (
            select from attempts b
            where b.conversation_id = a.conversation_id and b.lane_id = a.lane_id and b.seq = a.seq
              and b.fence > a.fence)
    ) as given_up,
    (
        select count(*) from lanes l
        where l.parked_at > (select now - interval '1 day' from clock)
    ) as parked;

-- name: queue_runs
-- The last day's runs, by status.
select r.status, count(*) as runs
from runs r
where r.created_at > (select clock_timestamp() - interval '1 day')
  and r.created_at <= (select clock_timestamp())
group by 1;

-- name: queue_database
-- What PostgreSQL itself says: the time, how full its queue of notifications is, and who holds back
-- the removal of dead rows, as far as we may see.
select clock_timestamp() as now, lane_clock() as at,
    pg_notification_queue_usage()::float8 as notifications,
    o.pid, o.application_name as application, o.state,
    extract(epoch from clock_timestamp() - o.xact_start)::float8 as seconds
from (select) one
left join lateral (
    select s.pid, s.application_name, s.state, s.xact_start
    from pg_stat_activity s
    where s.backend_xmin is not null and s.xact_start is not null and s.pid <> pg_backend_pid()
      and s.datname = current_database()
    order by s.xact_start limit 1
) o on true;

-- name: queue_tables
-- Rows, dead rows and the last vacuum of the tables that lanes work on.
select t.relname as name, t.n_live_tup as live, t.n_dead_tup as dead,
    greatest(t.last_vacuum, t.last_autovacuum) as vacuumed_at
from pg_stat_user_tables t
where t.schemaname = 'greffier'
  and t.relname in ('lanes', 'attempts', 'runs', 'run_events', 'endpoints', 'endpoint_slots')
order by 1;

-- name: queue_gauges
-- For /metrics: cheap, since only what is due, held or set aside is looked at.
with clock as materialized (select lane_clock() as now)
select l.kind, lane_state(l, c.now) as state, count(*) as lanes,
    extract(epoch from c.now - min(l.due_at) filter (where l.due_at < c.now))::float8 as overdue
from clock c
cross join (
    select x as lane from lanes x where x.due_at is not null
    union all
    select x from lanes x where x.due_at is null and (x.parked_at is not null or x.paused_at is not null)
) a
cross join lateral (select (a.lane).*) l
group by 1, 2, c.now;

-- name: queue_living
-- $1 after how long without a word a worker is silent.  Workers that live, and alerts that stand.
select
    (select count(*) from workers w where w.seen_at > (select lane_clock() - $1::interval)) as workers,
    (select coalesce(array_agg(a.code), '{}') from alerts a where a.until is null) as alerts;

-- name: lanes_waiting
-- $1 due, expired, leased, waiting or endpoint, $2 kind or null, $3 and $4 due_at and id of the last
-- so far, $5 how many.  Longest due first: by the index, kind by kind.
with clock as materialized (select lane_clock() as now)
select x.due_at::text as due_at, x.id, lane_json(x.lane, c.now) as body
from clock c
cross join unnest('{run,out}'::text[]) as k (kind)
cross join lateral (
    select l as lane, l.due_at, l.id
    from lanes l
    where l.kind = k.kind and l.due_at is not null
      and l.due_at >= greatest($3::text::timestamptz, case
          when $1 = 'endpoint' then 'infinity' when $1 in ('due', 'expired') then '-infinity'
          else c.now end)
      and l.due_at <= case when $1 in ('due', 'expired') then c.now else 'infinity' end
      and (l.due_at, l.id) > ($3::text::timestamptz, $4)
      and lane_state(l, c.now) = $1
    order by l.due_at, l.id
    limit $5
) x
where $2::text is null or k.kind = $2
order by x.due_at, x.id
limit $5;

-- name: lanes_set_aside
-- $1 parked or paused, $2 kind or null, $3 the last id so far, $4 how many.
with clock as materialized (select lane_clock() as now)
select l.id, lane_json(l, c.now) as body
from clock c
cross join lanes l
where (l.parked_at is not null or l.paused_at is not null) and l.id > $3
  and lane_state(l, c.now) = $1 and ($2::text is null or l.kind = $2)
order by l.id
limit $4;

-- name: lanes_all
-- $1 idle, or null for all, $2 kind or null, $3 the last id so far, $4 how many.
with clock as materialized (select lane_clock() as now)
select l.id, lane_json(l, c.now) as body
from clock c
cross join lanes l
where l.id > $3 and ($1::text is null or lane_state(l, c.now) = $1)
  and ($2::text is null or l.kind = $2)
order by l.id
limit $4;

-- name: lane
-- One lane by its id.
with clock as materialized (select lane_clock() as now)
select lane_json(l, c.now) as body
from clock c
cross join lanes l
where l.id = $1;

-- name: lanes_to_unlock
-- $1 tries of a message whose endpoint says nothing else, $2 force, $3 steal, $4 ids or null, $5 kind
-- or null, $6 endpoint or null.  Exactly what unlock_v1 will do, and with how many tries it is asked.
with clock as materialized (select lane_clock() as now)
select lane_json(x.lane, c.now) as body, x.most,
    unlockable(x.lane, c.now, x.most, $2, $3) as was
from clock c
cross join lateral (
    select l as lane, l.id, coalesce(e.max_attempts, $1) as most
    from lanes l
    left join endpoints e on e.id = l.endpoint_id
    where l.due_at is not null and l.token is not null and (l.due_at <= c.now or $3)
      and ($4::uuid[] is null or l.id = any ($4)) and ($5::text is null or l.kind = $5)
      and ($6::uuid is null or l.endpoint_id = $6)
    union all
    select l, l.id, coalesce(e.max_attempts, $1)
    from lanes l
    left join endpoints e on e.id = l.endpoint_id
    where l.parked_at is not null
      and ($4::uuid[] is null or l.id = any ($4)) and ($5::text is null or l.kind = $5)
      and ($6::uuid is null or l.endpoint_id = $6)
) x
where unlockable(x.lane, c.now, x.most, $2, $3) is not null
order by x.id;

-- name: attempts_of_lane
-- $1 lane, $2 and $3 seq and fence of the last so far, $4 how many.  Its journal, newest first.
select a.lane_id, a.seq, a.fence, a.intended_at, a.outcome, a.detail, a.external_id, a.settled_at
from lanes l
join attempts a on a.conversation_id = l.conversation_id and a.lane_id = l.id
where l.id = $1 and (a.seq, a.fence) < ($2, $3)
order by a.seq desc, a.fence desc
limit $4;

-- name: attempts_within
-- $1 to $4 time, lane, seq and fence of the last so far (null: from now), $5 how far back from there,
-- $6 how far back at all, $7 how many.  The journal of every lane, newest first.
with clock as materialized (select lane_clock() as now)
select a.lane_id, a.seq, a.fence, a.intended_at, a.outcome, a.detail, a.external_id, a.settled_at
from attempts a
-- Both bounds, or the planner takes it for a third of the table and reads all of it.
where a.intended_at > (
        select greatest(coalesce($1::timestamptz, now) - $5::interval, now - $6::interval) from clock)
  and a.intended_at <= (select coalesce($1::timestamptz, now) from clock)
  and ($1::timestamptz is null
       or (a.intended_at, a.lane_id, a.seq, a.fence) < ($1::timestamptz, $2::uuid, $3::bigint, $4::bigint))
order by a.intended_at desc, a.lane_id desc, a.seq desc, a.fence desc
limit $7;

-- name: alerts_noted
-- Alerts that stand, and those that ended in the last day.
select a.code, a.since, a.until, a.count, a.detail
from alerts a
where a.until is null or a.until > (select clock_timestamp() - interval '1 day')
order by a.until desc nulls first, a.since;
