-- Lanes: one ordered stream of work each.  A row is at once cursor, lease, fence, retry timer and
-- wake-up flag, and workers claim lanes, not messages: what that costs follows what is due and not
-- the backlog, and a conversation is never handled twice at a time.
--
-- due_at says where a lane stands: null idle, parked or paused | past: ready, or a lease that
-- expired | future: a retry, or a lease that lives (token is set).  An expired lease is a due lane,
-- so recovery is the claim itself.  Whoever was paused past a lease is kept out by the token: each
-- of its writes is refused and counted.
--
-- Only the database's clock is asked, so that a worker's wrong clock harms nobody.

set search_path = greffier;

create table lanes (
    conversation_id uuid not null,
    -- lane_id() of the three columns that name it
    id uuid not null,
    -- run: an agent's answers, one after the other | out: messages to one endpoint
    kind text not null check (kind in ('run', 'out')),
    endpoint_id uuid,
    -- the last number there is work for, and the first that is not done
    tail_seq bigint not null default 0,
    head_seq bigint not null default 1,
    due_at timestamptz,
    -- how often it was claimed, ever: what is sent says it, so that a receiver can tell old from new
    fence bigint not null default 0,
    token uuid,
    owner text,
    claimed_at timestamptz,
    -- failures and lost leases of the head, since it is the head
    tries integer not null default 0,
    parked_at timestamptz,
    park_reason text,
    paused_at timestamptz,
    -- writes that came with a token that was no longer the lane's
    refused bigint not null default 0,
    primary key (conversation_id, id)
) with (fillfactor = 60);

-- serves claim_lanes_v1: what is idle, parked or paused is not in it
create index lanes_due on lanes (kind, due_at) where due_at is not null;
-- serves operators, who know a lane by its id alone
create index lanes_by_id on lanes (id);

-- The journal: a row is written before an effect outside, and completed after it.  Two intents of one
-- message explain every double a receiver can have seen.
create table attempts (
    conversation_id uuid not null,
    lane_id uuid not null,
    seq bigint not null,
    -- the lane's when it was claimed for this: they rise from try to try
    fence bigint not null,
    -- its holder's, who may say twice what came of it; null: nobody held it
    token uuid,
    intended_at timestamptz not null,
    -- null: nobody knows what came of it
    outcome text check (outcome in ('accepted', 'rejected', 'not_sent', 'uncertain', 'skipped')),
    detail text,
    -- what the far side calls it
    external_id text,
    settled_at timestamptz,
    primary key (conversation_id, lane_id, seq, fence)
-- each row is written again when it is settled: without room beside it, a third of them moved away
) with (fillfactor = 75);

-- serves whoever sends the next of a thread: what the far side named nothing is not in it
create index attempts_named on attempts (conversation_id, lane_id, seq)
    where external_id is not null;

-- Where a lane's name comes from: what it is for.
create function lane_id(p_conversation_id uuid, p_kind text, p_endpoint_id uuid) returns uuid
language sql immutable parallel safe
return md5(p_conversation_id::text || p_kind || coalesce(p_endpoint_id::text, ''))::uuid;

-- The time by which lanes go.  Tests make it jump for every process at once.
create function lane_clock() returns timestamptz
language sql stable
return clock_timestamp() + coalesce((select clock_shift from identity), '0');

-- Until when a lease lasts that is renewed by what its holder writes: it stays as it is while five
-- sixths are left, and heartbeats do the rest.  due_at is indexed, so that each write that moved it
-- cost an entry in every index of its lane (two thirds of what done_v1 wrote to the log).
create function renewed(p_due_at timestamptz, p_now timestamptz, p_lease interval) returns timestamptz
language sql stable parallel safe
return case
    when p_due_at between p_now + p_lease * 5 / 6 and p_now + p_lease then p_due_at
    else p_now + p_lease end;

-- When a lane is due that gets more work, by when it would be if it were idle.
create function due_with_more(
    p_due_at timestamptz, p_idle timestamptz, p_parked_at timestamptz, p_paused_at timestamptz,
    p_head bigint, p_tail bigint
) returns timestamptz
language sql immutable parallel safe
return case
    -- It waited for its endpoint, which may have gone on while we had the lock.
    when p_due_at = 'infinity' then p_idle
    -- A lease stands, in a paused lane too, and whoever holds it sees the new tail when they
    -- are done; a retry stands as well.
    when p_due_at is not null or p_parked_at is not null or p_paused_at is not null
        or p_head > p_tail then p_due_at
    else p_idle end;

-- Promise: there is work up to p_tail in the lane, which is made if it is new, and is due at p_due_at
--          if it was idle; whoever holds it, and whatever it waits for, stays.  In the caller's
--          transaction: what is not committed was never asked for.
-- How:     a lane made now begins at p_head.
-- Locks:   the lane; the caller holds its conversation.
create function enqueue_v1(
    p_conversation_id uuid, p_kind text, p_endpoint_id uuid, p_head bigint, p_tail bigint,
    p_due_at timestamptz
) returns uuid
language plpgsql as $$
declare
    v_id uuid := lane_id(p_conversation_id, p_kind, p_endpoint_id);
begin
    insert into lanes as l (conversation_id, id, kind, endpoint_id, head_seq, tail_seq, due_at)
    values (p_conversation_id, v_id, p_kind, p_endpoint_id, p_head, p_tail, p_due_at)
    on conflict (conversation_id, id) do update set
        tail_seq = greatest(l.tail_seq, excluded.tail_seq),
        due_at = due_with_more(
            l.due_at, excluded.due_at, l.parked_at, l.paused_at, l.head_seq,
            greatest(l.tail_seq, excluded.tail_seq));
    return v_id;
end $$;

-- What a claim under a token of the caller's is locked by while it is under way.
create function claim_lock(p_token uuid) returns bigint
language sql immutable parallel safe
return hashtextextended('claim ' || p_token::text, 0);

-- Promise: lanes of a kind that are due, at most p_limit, the longest due first, are the caller's
--          until p_lease is over: nobody else has them, and whoever had them can write no more.  A
--          lease that was lost counts as a try; one that was lost p_max_tries times is parked instead
--          (null: never), so that what kills its workers stops doing so.  A paused lane whose lease
--          was lost is let go and nobody's, but for a run, which has to be ended (begin_run_v1).
--          Under a token that the caller brought they can be found when the answer is lost (claimed_v1).
-- How:     first of two statements: what there is to do is read in a new one, whose snapshot is
--          newer than the lock (in the same one a lane can be claimed and its messages not be seen).
--          Row by row, each by its key: a join with the rows that are due would be planned for a
--          tenth of all lanes, as a limit that is a parameter is, and read them all.
-- Locks:   the lanes, none waited for.
create function claim_lanes_v1(
    p_kind text, p_owner text, p_limit integer, p_lease interval, p_max_tries integer,
    p_token uuid default null
) returns table (
    conversation_id uuid, lane_id uuid, endpoint_id uuid, fence bigint, token uuid,
    head_seq bigint, tail_seq bigint, tries integer, parked boolean
)
language plpgsql rows 10 as $$
#variable_conflict use_column
declare
    v_now timestamptz := lane_clock();
    v_token uuid := coalesce(p_token, gen_random_uuid());
    v_lost boolean;
    v_spent boolean;
    v_taken boolean;
    l lanes;
begin
    if p_token is not null and not pg_try_advisory_xact_lock(claim_lock(p_token)) then
        -- Its caller has given it up and looked for it already: we come too late.
        return;
    end if;
    for l in
        select * from lanes x
        where x.kind = p_kind and x.due_at <= v_now
        order by x.due_at
        limit p_limit
        for no key update skip locked
    loop
        v_lost := l.token is not null;
        v_spent := v_lost and coalesce(l.tries + 1 >= p_max_tries, false);
        v_taken := not v_spent and (l.paused_at is null or l.kind = 'run');
        update lanes x set
            fence = l.fence + 1,
            token = case when v_taken then v_token end,
            owner = case when v_taken then p_owner end,
            claimed_at = v_now,
            due_at = case when v_taken then v_now + p_lease end,
            tries = l.tries + v_lost::integer,
            parked_at = case when v_spent then v_now end,
            park_reason = case when v_spent then 'its worker was lost ' || (l.tries + 1) || ' times' end
        where x.conversation_id = l.conversation_id and x.id = l.id;
        if v_taken or v_spent then
            conversation_id := l.conversation_id;
            lane_id := l.id;
            endpoint_id := l.endpoint_id;
            fence := l.fence + 1;
            token := case when v_taken then v_token end;
            head_seq := l.head_seq;
            tail_seq := l.tail_seq;
            tries := l.tries + v_lost::integer;
            parked := v_spent;
            return next;
        end if;
    end loop;
end $$;

-- Promise: the lanes of a kind that were claimed under the token and still are the caller's, whose
--          answer was lost on the way: else they would wait for the end of their lease.
-- How:     the claim may be under way yet, on a connection that broke: it is waited for; or have still
--          to begin: then it finds the lock taken, which this session keeps, and claims nothing.  There
--          is no index by token, which every claim would pay for: what is leased or waits is looked
--          through.
-- Locks:   the claim's, shared with who looks again, until the session ends.
create function claimed_v1(p_kind text, p_token uuid) returns table (
    conversation_id uuid, lane_id uuid, endpoint_id uuid, fence bigint, token uuid,
    head_seq bigint, tail_seq bigint, tries integer, parked boolean
)
language plpgsql rows 10 as $$
begin
    perform pg_advisory_lock_shared(claim_lock(p_token));
    return query
        select l.conversation_id, l.id, l.endpoint_id, l.fence, l.token, l.head_seq, l.tail_seq,
            l.tries, false
        from lanes l
        where l.kind = p_kind and l.due_at is not null and l.token = p_token;
end $$;

-- Promise: the lane's row, locked, when the token is still its own; otherwise null, and the refusal
--          is counted.
-- Locks:   the lane.
create function hold_lane_v1(p_conversation_id uuid, p_lane_id uuid, p_token uuid) returns lanes
language plpgsql as $$
declare
    v lanes;
begin
    select * into v from lanes l
    where l.conversation_id = p_conversation_id and l.id = p_lane_id for no key update;
    if v.token = p_token then
        return v;
    end if;
    update lanes l set refused = l.refused + 1
    where l.conversation_id = p_conversation_id and l.id = p_lane_id;
    return null;
end $$;

-- Promise: it is on record that the holder is about to do p_seq, and the holder may: go.  Otherwise
--          zombie (the lane is no longer theirs), late (less than p_margin of the lease is left, the
--          lane was paused, or the message was edited since it was read as of p_rev: the lane is to be
--          let go, and the message read again), or skip (the message was deleted, erased or left the
--          active path: the journal says so, and the lane goes on behind it).
-- How:     what lies between the head and p_seq was nothing for this lane, so the head moves up: what
--          fails, is parked and may be skipped is p_seq itself.
-- Locks:   the lane.
create function intend_v1(
    p_conversation_id uuid, p_lane_id uuid, p_token uuid, p_seq bigint, p_margin interval,
    p_rev bigint default null
) returns text
language plpgsql as $$
declare
    v lanes := hold_lane_v1(p_conversation_id, p_lane_id, p_token);
    v_now timestamptz := lane_clock();
    v_wanted boolean;
    v_rev bigint;
begin
    if v.id is null then
        return 'zombie';
    end if;
    if p_seq < v.head_seq then
        -- Asked again, because the answer to the first time was lost on the way.
        return case when exists (
            select from attempts a
            where a.conversation_id = p_conversation_id and a.lane_id = p_lane_id and a.seq = p_seq
              and a.token = p_token and a.outcome = 'skipped') then 'skip' else 'zombie' end;
    end if;
    if v.due_at <= v_now + p_margin or v.paused_at is not null then
        return 'late';
    end if;
    if v.kind = 'out' then
        -- Not locked: whoever deletes or edits it after this comes too late.
        select m.deleted_at is null and m.seq <@ c.path, coalesce(m.changed_rev, m.rev)
        into v_wanted, v_rev
        from conversations c join messages m on m.conversation_id = c.id and m.seq = p_seq
        where c.id = p_conversation_id;
        if v_wanted is not true then
            insert into attempts (
                conversation_id, lane_id, seq, fence, token, intended_at, outcome, detail, settled_at
            ) values (
                p_conversation_id, p_lane_id, p_seq, v.fence, p_token, v_now, 'skipped',
                'it was deleted, or is not on the active path', v_now
            ) on conflict do nothing;
            update lanes l set head_seq = p_seq + 1, tries = 0
            where l.conversation_id = p_conversation_id and l.id = p_lane_id;
            return 'skip';
        end if;
        if v_rev <> p_rev then
            return 'late';
        end if;
    end if;
    insert into attempts (conversation_id, lane_id, seq, fence, token, intended_at)
    values (p_conversation_id, p_lane_id, p_seq, v.fence, p_token, v_now)
    on conflict do nothing;
    if p_seq > v.head_seq then
        update lanes l set head_seq = p_seq, tries = 0
        where l.conversation_id = p_conversation_id and l.id = p_lane_id;
    end if;
    return 'go';
end $$;

-- Promise: true when this holder has already said what came of p_seq, and the answer was lost on the
--          way: the lane may have been let go since, and be somebody else's.
-- How:     a first call that is still under way, whose connection broke, is waited for.
-- Locks:   the lane.
create function settled_before_v1(
    p_conversation_id uuid, p_lane_id uuid, p_token uuid, p_seq bigint
) returns boolean
language plpgsql as $$
begin
    perform from lanes l
    where l.conversation_id = p_conversation_id and l.id = p_lane_id and l.token = p_token
    for no key update;
    return not found and exists (
        select from attempts a
        where a.conversation_id = p_conversation_id and a.lane_id = p_lane_id and a.seq = p_seq
          and a.token = p_token and a.settled_at is not null);
end $$;

-- Promise: p_seq is done and the lane stands behind it; said twice, by the same holder, it is done
--          once.  With p_lease the lane stays theirs if there is more, for five sixths of it at least,
--          else it is let go, due at once if there is more.  False: it was no longer theirs, and nothing happened.
-- How:     whether there is more is read from the locked row: a message that comes meanwhile either
--          has moved tail_seq before, or waits for this lock and makes the lane due after.  A lease
--          that is nearly whole is left as it is (renewed).
-- Locks:   the lane.
create function done_v1(
    p_conversation_id uuid, p_lane_id uuid, p_token uuid, p_seq bigint, p_outcome text,
    p_detail text, p_external_id text, p_lease interval
) returns boolean
language plpgsql as $$
declare
    v lanes;
    v_now timestamptz;
    v_more boolean;
begin
    select * into v from lanes l
    where l.conversation_id = p_conversation_id and l.id = p_lane_id for no key update;
    if v.token is distinct from p_token then
        if settled_before_v1(p_conversation_id, p_lane_id, p_token, p_seq) then
            return true;
        end if;
        perform hold_lane_v1(p_conversation_id, p_lane_id, p_token);
        return false;
    end if;
    if p_seq < v.head_seq then
        -- Asked again, because the answer to the first time was lost on the way.
        return true;
    end if;
    v_now := lane_clock();
    update attempts a set
        outcome = p_outcome, detail = p_detail, external_id = p_external_id, settled_at = v_now
    where a.conversation_id = p_conversation_id and a.lane_id = p_lane_id and a.seq = p_seq
      and a.fence = v.fence;
    v_more := p_seq < v.tail_seq;
    update lanes l set
        head_seq = p_seq + 1, tries = 0,
        due_at = case
            when not v_more or v.paused_at is not null then null
            when p_lease is null then v_now
            else renewed(l.due_at, v_now, p_lease)
        end,
        token = case when v_more and v.paused_at is null and p_lease is not null then l.token end,
        owner = case when v_more and v.paused_at is null and p_lease is not null then l.owner end
    where l.conversation_id = p_conversation_id and l.id = p_lane_id;
    return true;
end $$;

-- Promise: p_seq was tried and is not done; the lane is let go and due again after p_retry_in, or
--          parked for a person when p_reason says why or p_max_tries is reached; said twice, it failed
--          once.  False: it was no longer theirs.
-- Locks:   the lane.
create function fail_v1(
    p_conversation_id uuid, p_lane_id uuid, p_token uuid, p_seq bigint, p_outcome text,
    p_detail text, p_retry_in interval, p_max_tries integer, p_reason text
) returns boolean
language plpgsql as $$
declare
    v lanes;
    v_now timestamptz;
    v_reason text;
begin
    if settled_before_v1(p_conversation_id, p_lane_id, p_token, p_seq) then
        return true;
    end if;
    v := hold_lane_v1(p_conversation_id, p_lane_id, p_token);
    if v.id is null then
        return false;
    end if;
    v_now := lane_clock();
    update attempts a set outcome = p_outcome, detail = p_detail, settled_at = v_now
    where a.conversation_id = p_conversation_id and a.lane_id = p_lane_id and a.seq = p_seq
      and a.fence = v.fence;
    v_reason := coalesce(
        p_reason,
        case when v.tries + 1 >= p_max_tries
             then 'tried ' || (v.tries + 1) || ' times: ' || coalesce(p_detail, p_outcome) end);
    update lanes l set
        tries = l.tries + 1, token = null, owner = null,
        parked_at = case when v_reason is not null then v_now end, park_reason = v_reason,
        due_at = case when v_reason is null and v.paused_at is null
                      then v_now + coalesce(p_retry_in, '0') end
    where l.conversation_id = p_conversation_id and l.id = p_lane_id;
    return true;
end $$;

-- Promise: the leases that are still the holder's last p_lease from now; returns which.  The others
--          are to be dropped at once; of those that somebody else has by now, a refusal is counted.
-- Locks:   lanes by id, those of others not waited for.
create function heartbeat_v1(
    p_conversation_ids uuid[], p_lane_ids uuid[], p_tokens uuid[], p_lease interval
) returns table (lane_id uuid)
language plpgsql rows 10 as $$
declare
    v_now timestamptz := lane_clock();
    v_kept bigint;
begin
    return query
        with mine as materialized (
            select l.conversation_id, l.id
            from unnest(p_conversation_ids, p_lane_ids, p_tokens) as h (conversation_id, id, token)
            join lanes l on l.conversation_id = h.conversation_id and l.id = h.id
                and l.token = h.token
            order by l.conversation_id, l.id
            for no key update of l
        )
        update lanes l set due_at = v_now + p_lease
        from mine m
        where l.conversation_id = m.conversation_id and l.id = m.id
        returning l.id;
    get diagnostics v_kept = row_count;
    if v_kept = cardinality(p_lane_ids) then
        return;
    end if;
    -- What has no token was let go, most often by the holder, a moment ago.
    with taken as materialized (
        select l.conversation_id, l.id
        from unnest(p_conversation_ids, p_lane_ids, p_tokens) as h (conversation_id, id, token)
        join lanes l on l.conversation_id = h.conversation_id and l.id = h.id
            and l.token <> h.token
        for no key update of l skip locked
    )
    update lanes l set refused = l.refused + 1
    from taken t
    where l.conversation_id = t.conversation_id and l.id = t.id;
end $$;

-- Promise: the lane is let go, due at once, and no try is counted: its holder stops.  False: it was
--          no longer theirs.
-- Locks:   the lane.
create function release_v1(p_conversation_id uuid, p_lane_id uuid, p_token uuid) returns boolean
language plpgsql as $$
declare
    v lanes := hold_lane_v1(p_conversation_id, p_lane_id, p_token);
    v_now timestamptz := lane_clock();
begin
    if v.id is null then
        return false;
    end if;
    update lanes l set
        token = null, owner = null,
        due_at = case when v.head_seq <= v.tail_seq and v.paused_at is null then v_now end
    where l.conversation_id = p_conversation_id and l.id = p_lane_id;
    return true;
end $$;

-- What a person may do to a lane, and when: 'unlock' an expired lease, or a parked lane whose tries
-- are not used up; with p_force also when they are; with p_steal also a lease that lives.  Null: it
-- needs no unlocking, or may not be.  One place says so, for the look and for the deed.
create function unlockable(
    l lanes, p_now timestamptz, p_max_tries integer, p_force boolean, p_steal boolean
) returns text
language sql immutable
return case
    when l.parked_at is not null and (p_force or l.tries < p_max_tries) then 'parked'
    when l.parked_at is not null then null
    when l.token is not null and l.due_at <= p_now then 'expired'
    when l.token is not null and p_steal then 'stolen'
end;

-- Promise: the lane is ready again with all its tries, and whoever held it cannot write: returns what
--          it was (unlockable), null when nothing was done.
-- Locks:   the lane.
create function unlock_v1(
    p_conversation_id uuid, p_lane_id uuid, p_max_tries integer, p_force boolean, p_steal boolean
) returns text
language plpgsql as $$
declare
    v lanes;
    v_now timestamptz := lane_clock();
    v_was text;
begin
    select * into v from lanes l
    where l.conversation_id = p_conversation_id and l.id = p_lane_id for no key update;
    v_was := unlockable(v, v_now, p_max_tries, p_force, p_steal);
    if v_was is null then
        return null;
    end if;
    update lanes l set
        fence = l.fence + 1, token = null, owner = null, tries = 0, parked_at = null,
        park_reason = null,
        due_at = case when v.head_seq <= v.tail_seq and v.paused_at is null then v_now end
    where l.conversation_id = p_conversation_id and l.id = p_lane_id;
    return v_was;
end $$;

-- Promise: what waits for a later try, or is parked, is due now with all its tries; a lane that
--          somebody works on is left to them (false).
-- Locks:   the lane.
create function retry_v1(p_conversation_id uuid, p_lane_id uuid) returns boolean
language plpgsql as $$
declare
    v lanes;
    v_now timestamptz := lane_clock();
begin
    select * into v from lanes l
    where l.conversation_id = p_conversation_id and l.id = p_lane_id for no key update;
    if v.id is null or v.token is not null or v.head_seq > v.tail_seq then
        return false;
    end if;
    update lanes l set
        tries = 0, parked_at = null, park_reason = null,
        due_at = case when v.paused_at is null then v_now end
    where l.conversation_id = p_conversation_id and l.id = p_lane_id;
    return true;
end $$;

-- Promise: the lane goes on behind its head, which is given up, and the journal says who said so; a
--          lane that somebody works on is left to them.  Returns what was given up, null when nothing.
-- Locks:   the lane.
create function skip_head_v1(p_conversation_id uuid, p_lane_id uuid, p_by text) returns bigint
language plpgsql as $$
declare
    v lanes;
    v_now timestamptz := lane_clock();
begin
    select * into v from lanes l
    where l.conversation_id = p_conversation_id and l.id = p_lane_id for no key update;
    if v.id is null or v.kind <> 'out' or v.token is not null or v.head_seq > v.tail_seq then
        return null;
    end if;
    insert into attempts (
        conversation_id, lane_id, seq, fence, intended_at, outcome, detail, settled_at
    ) values (
        p_conversation_id, p_lane_id, v.head_seq, v.fence + 1, v_now, 'skipped',
        'skipped by ' || p_by, v_now
    );
    update lanes l set
        fence = l.fence + 1, head_seq = l.head_seq + 1, tries = 0, parked_at = null,
        park_reason = null,
        due_at = case when v.head_seq < v.tail_seq and v.paused_at is null then v_now end
    where l.conversation_id = p_conversation_id and l.id = p_lane_id;
    return v.head_seq;
end $$;

-- Promise: nobody begins anything in the lane until it is resumed; what is under way may end.  Or,
--          with p_paused false, it goes on.  False when it stood so already.
-- Locks:   the lane.
create function pause_v1(p_conversation_id uuid, p_lane_id uuid, p_paused boolean) returns boolean
language plpgsql as $$
declare
    v lanes;
    v_now timestamptz := lane_clock();
begin
    select * into v from lanes l
    where l.conversation_id = p_conversation_id and l.id = p_lane_id for no key update;
    if v.id is null or (v.paused_at is not null) = p_paused then
        return false;
    end if;
    update lanes l set
        paused_at = case when p_paused then v_now end,
        due_at = case
            -- The lease of whoever works on it lives on.
            when v.token is not null then l.due_at
            when p_paused or v.parked_at is not null or v.head_seq > v.tail_seq then null
            else v_now
        end
    where l.conversation_id = p_conversation_id and l.id = p_lane_id;
    return true;
end $$;

-- Promise: after a restore or a failover, which may have lost claims, nobody who held a lane before
--          can write, and what is sent from now on has a higher fence than anything sent before.
-- Locks:   every lane, by id.
create function refence_lanes_v1() returns bigint
language plpgsql as $$
declare
    v_now timestamptz := lane_clock();
    v_many bigint;
begin
    perform from lanes l order by l.conversation_id, l.id for no key update;
    update lanes l set
        fence = l.fence + 1000000, owner = null,
        due_at = case
            when l.token is null then l.due_at
            -- A run that was under way has to be ended, paused or not.
            when l.kind = 'run' or (l.paused_at is null and l.head_seq <= l.tail_seq) then v_now
        end,
        -- A run that was under way is found so by its status.
        token = null;
    get diagnostics v_many = row_count;
    return v_many;
end $$;
