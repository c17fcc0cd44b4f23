-- Operating: which workers live, what was noticed, and what operators look for in lanes and journal.

set search_path = greffier;

-- A process that works on lanes, as it last said itself.  Nothing is decided by it: who holds a lane
-- is the lane's to say.
create table workers (
    -- as lanes name it (lanes.owner)
    id text primary key,
    host text not null,
    pid integer not null,
    version text not null,
    kinds text[] not null,
    started_at timestamptz not null,
    seen_at timestamptz not null,
    -- lanes it works on
    busy integer not null,
    -- since it began: lanes claimed, leases lost, writes refused, work that broke
    claimed bigint not null,
    lost bigint not null,
    refused bigint not null,
    broken bigint not null,
    -- how far its clock is ahead of the database's, as far as it could tell
    clock_ahead interval
) with (fillfactor = 50);

-- What was noticed: from when, until when, and whether it was told to who wants to hear.
create table alerts (
    code text not null,
    since timestamptz not null,
    id uuid not null,
    until timestamptz,
    -- as when it was last looked at
    count bigint not null,
    detail text not null,
    -- which of both is told: null: neither | began | ended
    told text check (told in ('began', 'ended')),
    primary key (code, since)
);

-- Who looks for alerts, of all processes, is who moves this time forward.
create table alert_look (
    one boolean primary key default true check (one),
    at timestamptz not null
);

-- serves operators: parked and paused lanes are in no other index, and few
create index lanes_set_aside on lanes (id) where parked_at is not null or paused_at is not null;
-- serve whoever asks for the last day; by block, since a tree would cost every attempt and every run
create index attempts_by_time on attempts using brin (intended_at) with (pages_per_range = 16);
create index runs_by_time on runs using brin (created_at) with (pages_per_range = 16);

-- Where a lane stands, in one word; one place says so.  idle: nothing to do | due | leased |
-- expired: a lease that is over | waiting: for its time to try | endpoint: for its endpoint to go on
-- | parked: for a person | paused.
create function lane_state(l lanes, p_now timestamptz) returns text
language sql immutable parallel safe
return case
    when l.parked_at is not null then 'parked'
    when l.token is not null and l.due_at > p_now then 'leased'
    when l.token is not null then 'expired'
    when l.paused_at is not null and (l.due_at is null or l.kind = 'out') then 'paused'
    when l.due_at is null then 'idle'
    when l.due_at = 'infinity' then 'endpoint'
    when l.due_at > p_now then 'waiting'
    else 'due'
end;

-- A lane as operators see it: nothing of what was said, and not where its endpoint points.
create function lane_json(l lanes, p_now timestamptz) returns text
language sql stable
return '{"id":"' || l.id || '","conversation_id":"' || l.conversation_id
    || '","kind":"' || l.kind
    || '","endpoint_id":' || coalesce('"' || l.endpoint_id || '"', 'null')
    || ',"run_id":' || coalesce((
        select '"' || r.id || '"' from runs r
        where l.kind = 'run' and r.conversation_id = l.conversation_id and r.number = l.head_seq
          and l.head_seq <= l.tail_seq), 'null')
    || ',"state":"' || lane_state(l, p_now)
    || '","head_seq":' || l.head_seq || ',"tail_seq":' || l.tail_seq
    || ',"tries":' || l.tries || ',"fence":' || l.fence
    || ',"due_at":' || coalesce('"' || rfc3339(nullif(l.due_at, 'infinity')) || '"', 'null')
    || ',"owner":' || coalesce(to_json(l.owner)::text, 'null')
    || ',"claimed_at":' || coalesce('"' || rfc3339(l.claimed_at) || '"', 'null')
    || ',"parked_at":' || coalesce('"' || rfc3339(l.parked_at) || '"', 'null')
    || ',"park_reason":' || coalesce(to_json(l.park_reason)::text, 'null')
    || ',"paused_at":' || coalesce('"' || rfc3339(l.paused_at) || '"', 'null')
    || ',"refused_writes":' || l.refused || '}';

-- Promise: it is on record that the worker lives, now by the database's clock; who has said nothing
--          for a day is forgotten.  Returns what time it is, for the worker to set beside its own.
-- Locks:   the worker's row, those of the forgotten not waited for.
create function worker_lives_v1(
    p_id text, p_host text, p_pid integer, p_version text, p_kinds text[], p_age interval,
    p_busy integer, p_claimed bigint, p_lost bigint, p_refused bigint, p_broken bigint,
    p_clock_ahead interval
) returns timestamptz
language plpgsql as $$
declare
    v_now timestamptz := lane_clock();
    v_clock timestamptz;
begin
    insert into workers as w (
        id, host, pid, version, kinds, started_at, seen_at, busy, claimed, lost, refused, broken,
        clock_ahead
    ) values (
        p_id, p_host, p_pid, p_version, p_kinds, v_now - p_age, v_now, p_busy, p_claimed, p_lost,
        p_refused, p_broken, p_clock_ahead
    )
    on conflict (id) do update set
        host = excluded.host, pid = excluded.pid, version = excluded.version, kinds = excluded.kinds,
        started_at = excluded.started_at, seen_at = excluded.seen_at, busy = excluded.busy,
        claimed = excluded.claimed, lost = excluded.lost, refused = excluded.refused,
        broken = excluded.broken, clock_ahead = excluded.clock_ahead;
    delete from workers w using (
        select o.id from workers o where o.seen_at < v_now - interval '1 day' for update skip locked
    ) old
    where w.id = old.id;
    v_clock := clock_timestamp();
    return v_clock;
end $$;

-- Promise: the worker ended as it should, and nobody waits for its word.
-- Locks:   the worker's row.
create function worker_ends_v1(p_id text) returns boolean
language plpgsql as $$
begin
    delete from workers where id = p_id;
    return found;
end $$;

-- Promise: of all who ask within p_every, one is told to look for alerts.
-- Locks:   the one row.
create function look_for_alerts_v1(p_every interval) returns boolean
language plpgsql as $$
declare
    v_now timestamptz := clock_timestamp();
begin
    insert into alert_look as a (at) values (v_now)
    on conflict (one) do update set at = excluded.at where a.at <= excluded.at - p_every;
    return found;
end $$;

-- Promise: these alerts stand, and no others: what is new begins now, what is no longer there has
--          ended.  Returns what is to be told and was not yet, in order, each with whether this call
--          noticed it.  What ended a month ago is forgotten.
-- Locks:   the one row, then alerts.
create function note_alerts_v1(p_codes text[], p_counts bigint[], p_details text[])
returns table (
    id uuid, code text, since timestamptz, until timestamptz, count bigint, detail text, what text,
    fresh boolean
)
language plpgsql rows 10 as $$
#variable_conflict use_column
declare
    v_now timestamptz := clock_timestamp();
begin
    -- Two who look at once would begin the same twice.
    insert into alert_look as a (at) values (v_now) on conflict (one) do update set at = a.at;
    update alerts a set count = x.count, detail = x.detail
    from unnest(p_codes, p_counts, p_details) as x (code, count, detail)
    where a.code = x.code and a.until is null;
    insert into alerts (code, since, id, count, detail)
    select x.code, v_now, md5(x.code || v_now)::uuid, x.count, x.detail
    from unnest(p_codes, p_counts, p_details) as x (code, count, detail)
    where not exists (select from alerts a where a.code = x.code and a.until is null);
    update alerts a set until = v_now where a.until is null and a.code <> all (p_codes);
    delete from alerts a where a.until < v_now - interval '30 days';
    return query
        select a.id, a.code, a.since, a.until, a.count, a.detail, w.what,
            case w.what when 'began' then a.since else a.until end = v_now
        from alerts a
        cross join lateral (
            select 'began' as what, a.since as at where a.told is null
            union all
            select 'ended', a.until where a.until is not null and a.told is distinct from 'ended'
        ) w
        order by w.at, a.code;
end $$;

-- Promise: what an alert's beginning or end was told is on record, and not told again.
-- Locks:   the alert's row.
create function alert_told_v1(p_id uuid, p_what text) returns boolean
language plpgsql as $$
begin
    update alerts a set told = p_what
    where a.id = p_id and (p_what = 'ended' or a.told is null);
    return found;
end $$;
