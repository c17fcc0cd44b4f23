-- Endpoints: where messages go.  An endpoint is for one conversation, for those its sources bring, or
-- for all; each conversation has a lane to it, made by the first message after it.

set search_path = greffier;

create table endpoints (
    id uuid primary key,
    -- the conversation whose owner made it; null: an administrator's
    only_conversation_id uuid,
    -- whether it is for every conversation there is
    everywhere boolean not null,
    channel text not null,
    target text not null,
    -- what both sides know, newest first; the one before it holds for a day after rotated_at
    secrets text[] not null,
    rotated_at timestamptz,
    settings jsonb not null default '{}',
    -- whose words are sent; null: everybody's
    roles text[],
    ordering text not null check (ordering in ('strict', 'skip', 'unordered')),
    on_uncertain text check (on_uncertain in ('resend', 'probe', 'park')),
    max_attempts integer check (max_attempts > 0),
    -- messages sent to it at the same time, and in a minute; null: no limit
    concurrency integer check (concurrency > 0),
    per_minute integer check (per_minute > 0),
    request_hash bytea not null,
    created_by text not null,
    created_at timestamptz not null,
    -- +1 for every change somebody asked for
    version bigint not null default 1,
    paused_at timestamptz,
    disabled_at timestamptz,
    disabled_reason text,
    -- since when it has only failed, how often in a row, and until when it is left alone
    failing_since timestamptz,
    failures integer not null default 0,
    held_until timestamptz,
    -- when the next message may leave, by its rate, and when the next that has to wait comes again:
    -- each lane is told a time of its own, or all of them would come back for every place
    free_at timestamptz,
    queue_at timestamptz,
    -- its id cannot come back: the journal tells tries apart by lanes, which are named after it
    deleted_at timestamptz
) with (fillfactor = 70);

-- serves enqueue_out_v1, which every append asks: null is for all
create index endpoints_everywhere on endpoints (id) where everywhere;
create index endpoints_by_conversation on endpoints (only_conversation_id)
    where only_conversation_id is not null;

-- Which endpoints a conversation has beyond those for all, and where they point for it: a source's
-- answers go to the contact who wrote.
create table conversation_endpoints (
    conversation_id uuid not null,
    endpoint_id uuid not null,
    -- null: the endpoint's own
    target text,
    primary key (conversation_id, endpoint_id)
);

-- A place for each message an endpoint takes at the same time; one whose time is over is free.
create table endpoint_slots (
    endpoint_id uuid not null,
    slot integer not null,
    -- for whom it is: a lane and its token
    holder uuid,
    until timestamptz,
    primary key (endpoint_id, slot)
) with (fillfactor = 60);

-- What the far side said of a message after it took it.
create table receipts (
    endpoint_id uuid not null,
    external_id text not null,
    conversation_id uuid not null,
    seq bigint not null,
    status text check (status in ('sent', 'delivered', 'read', 'failed')),
    at timestamptz not null,
    primary key (endpoint_id, external_id)
);

-- serves erasure
create index receipts_by_conversation on receipts (conversation_id);
-- serves whoever resumes an endpoint, and operators
create index lanes_by_endpoint on lanes (endpoint_id) where endpoint_id is not null;

-- What both sides know now, newest first.
create function secrets_now(p_secrets text[], p_rotated_at timestamptz, p_now timestamptz) returns text[]
language sql immutable parallel safe
return case when p_rotated_at > p_now - interval '1 day' then p_secrets else p_secrets[1:1] end;

-- Where a message of an endpoint without order waits, which failed while others went on.
create function aside_id(p_conversation_id uuid, p_endpoint_id uuid, p_seq bigint) returns uuid
language sql immutable parallel safe
return md5(lane_id(p_conversation_id, 'out', p_endpoint_id)::text || p_seq)::uuid;

-- An endpoint as the API shows it: never what both sides know.
create function endpoint_json(e endpoints) returns text
language sql stable
return '{"id":"' || e.id || '","channel":' || to_json(e.channel)
    || ',"target":' || to_json(e.target)
    || ',"conversation_id":' || coalesce('"' || e.only_conversation_id || '"', 'null')
    || ',"everywhere":' || e.everywhere
    || ',"roles":' || coalesce(to_json(e.roles)::text, 'null')
    || ',"ordering":"' || e.ordering
    || '","on_uncertain":' || coalesce('"' || e.on_uncertain || '"', 'null')
    || ',"max_attempts":' || coalesce(e.max_attempts::text, 'null')
    || ',"concurrency":' || coalesce(e.concurrency::text, 'null')
    || ',"per_minute":' || coalesce(e.per_minute::text, 'null')
    || ',"settings":' || e.settings
    || ',"state":"' || case
        when e.disabled_at is not null then 'disabled' when e.paused_at is not null then 'paused'
        when e.held_until > lane_clock() then 'slowed' when e.failures > 0 then 'failing'
        else 'active' end
    || '","paused":' || (e.paused_at is not null)
    || ',"disabled_at":' || coalesce('"' || rfc3339(e.disabled_at) || '"', 'null')
    || ',"disabled_reason":' || coalesce(to_json(e.disabled_reason)::text, 'null')
    || ',"failing_since":' || coalesce('"' || rfc3339(e.failing_since) || '"', 'null')
    || ',"held_until":' || coalesce('"' || rfc3339(e.held_until) || '"', 'null')
    || ',"rotated_at":' || coalesce('"' || rfc3339(e.rotated_at) || '"', 'null')
    || ',"version":' || e.version
    || ',"created_by":' || to_json(e.created_by)
    || ',"created_at":"' || rfc3339(e.created_at) || '"}';

-- Promise: the conversations' new messages are work for each of their endpoints, in the caller's
--          transaction (as enqueue_v1, for each).  Where there are no endpoints nobody asks.
-- How:     one statement: of an append's time for endpoints two thirds were a loop and a call for each
--          lane.  Which of the messages an endpoint takes is decided when they are sent.
-- Locks:   lanes by id; the caller holds the conversations.
create function enqueue_out_v1(
    p_conversation_ids uuid[], p_first bigint[], p_last bigint[]
) returns void
language plpgsql as $$
declare
    v_now timestamptz := lane_clock();
begin
    insert into lanes as l (conversation_id, id, kind, endpoint_id, head_seq, tail_seq, due_at)
    select c.id, lane_id(c.id, 'out', x.endpoint_id), 'out', x.endpoint_id, c.first, c.last, v_now
    from unnest(p_conversation_ids, p_first, p_last) as c (id, first, last)
    cross join lateral (
        select w.id as endpoint_id from endpoints w where w.everywhere
        union
        select o.endpoint_id from conversation_endpoints o where o.conversation_id = c.id
    ) x
    order by 1, 2
    on conflict (conversation_id, id) do update set
        tail_seq = greatest(l.tail_seq, excluded.tail_seq),
        due_at = due_with_more(
            l.due_at, excluded.due_at, l.parked_at, l.paused_at, l.head_seq,
            greatest(l.tail_seq, excluded.tail_seq));
end $$;

-- Promise: the endpoint exists once under its id: the same request again finds it (false), another one
--          is refused.  One for a conversation is its owner's to make, up to p_most.
-- Locks:   the conversation's row, if it is for one.
create function create_endpoint_v1(
    p_id uuid, p_hash bytea, p_conversation_id uuid, p_actor text, p_everywhere boolean,
    p_channel text, p_target text, p_secrets text[], p_settings jsonb, p_roles text[],
    p_ordering text, p_on_uncertain text, p_max_attempts integer, p_concurrency integer,
    p_per_minute integer, p_paused boolean, p_created_by text, p_most integer
) returns boolean
language plpgsql as $$
declare
    v_now timestamptz := clock_timestamp();
    v endpoints;
begin
    if p_conversation_id is not null then
        perform lock_conversation_v1(p_conversation_id, p_actor, 'owner');
    end if;
    insert into endpoints (
        id, only_conversation_id, everywhere, channel, target, secrets, settings, roles, ordering,
        on_uncertain, max_attempts, concurrency, per_minute, request_hash, created_by, created_at,
        paused_at
    ) values (
        p_id, p_conversation_id, p_everywhere, p_channel, p_target, p_secrets, p_settings, p_roles,
        p_ordering, p_on_uncertain, p_max_attempts, p_concurrency, p_per_minute, p_hash,
        p_created_by, v_now, case when p_paused then v_now end
    ) on conflict (id) do nothing;
    if not found then
        select * into v from endpoints where id = p_id;
        if v.request_hash is distinct from p_hash then
            raise exception using errcode = 'GR409', message = 'this id names another endpoint';
        end if;
        if v.deleted_at is not null then
            raise exception using errcode = 'GR410', message = 'this endpoint was deleted';
        end if;
        return false;
    end if;
    insert into endpoint_slots (endpoint_id, slot)
    select p_id, n from generate_series(1, coalesce(p_concurrency, 0)) n;
    if p_conversation_id is not null then
        if p_most <= (
            select count(*) from conversation_endpoints where conversation_id = p_conversation_id) then
            -- Each of them costs every message of the conversation.
            raise exception using errcode = 'GR422', message = 'too many endpoints';
        end if;
        insert into conversation_endpoints (conversation_id, endpoint_id)
        values (p_conversation_id, p_id);
    end if;
    return true;
end $$;

-- Promise: what waits for the endpoint is due now.
-- How:     a lane that is locked is being made due, or asks the endpoint itself before it waits
--          (enqueue_v1, defer_v1).
-- Locks:   its lanes, none waited for: the caller holds the endpoint, for which they may wait.
create function wake_endpoint_v1(p_endpoint_id uuid) returns bigint
language plpgsql as $$
declare
    v_now timestamptz := lane_clock();
    v_many bigint;
begin
    with waiting as materialized (
        select l.conversation_id, l.id from lanes l
        where l.endpoint_id = p_endpoint_id and l.due_at > v_now and l.token is null
        for no key update skip locked
    )
    update lanes l set due_at = v_now
    from waiting w
    where l.conversation_id = w.conversation_id and l.id = w.id;
    get diagnostics v_many = row_count;
    return v_many;
end $$;

-- Whether the endpoint is the actor's to look after: p_all, an admin's, are all; otherwise those of
-- conversations, of the actor's own (null: of every conversation).
create function keeps_endpoint(e endpoints, p_actor text, p_all boolean) returns boolean
language sql stable
return e.deleted_at is null and (p_all or e.only_conversation_id is not null and (
    p_actor is null or exists (
        select from conversations c where c.id = e.only_conversation_id and c.owner_id = p_actor)));

-- Promise: the endpoint is as it is given, over the version that was looked at, and p_enable takes back
--          that it was disabled.  Returns the version.  What waited for it to go on is due.
-- Locks:   the endpoint's row, its slots, its lanes, these not waited for.
create function patch_endpoint_v1(
    p_id uuid, p_version bigint, p_target text, p_settings jsonb, p_roles text[],
    p_ordering text, p_on_uncertain text, p_max_attempts integer, p_concurrency integer,
    p_per_minute integer, p_paused boolean, p_enable boolean
) returns bigint
language plpgsql as $$
declare
    v endpoints;
    v_now timestamptz := clock_timestamp();
begin
    select * into v from endpoints where id = p_id and deleted_at is null for no key update;
    if not found then
        raise exception using errcode = 'GR404', message = 'no such endpoint';
    end if;
    if p_version <> v.version then
        raise exception using errcode = 'GR412', message = 'the endpoint has changed';
    end if;
    update endpoints e set
        target = p_target, settings = p_settings, roles = p_roles, ordering = p_ordering,
        on_uncertain = p_on_uncertain, max_attempts = p_max_attempts,
        concurrency = p_concurrency, per_minute = p_per_minute,
        free_at = null, queue_at = null,
        paused_at = case when p_paused then coalesce(e.paused_at, v_now) end,
        disabled_at = case when not p_enable then e.disabled_at end,
        disabled_reason = case when not p_enable then e.disabled_reason end,
        failing_since = case when not p_enable then e.failing_since end,
        failures = case when p_enable then 0 else e.failures end,
        held_until = case when not p_enable then e.held_until end,
        version = e.version + 1
    where e.id = p_id;
    delete from endpoint_slots s where s.endpoint_id = p_id and s.slot > coalesce(p_concurrency, 0);
    insert into endpoint_slots (endpoint_id, slot)
    select p_id, n from generate_series(1, coalesce(p_concurrency, 0)) n on conflict do nothing;
    perform wake_endpoint_v1(p_id);
    return v.version + 1;
end $$;

-- Promise: from now on p_secret is what both sides know, and for a day what they knew before.  Returns
--          the version, null when there is no such endpoint, or it is not the actor's.
-- Locks:   the endpoint's row.
create function rotate_endpoint_v1(p_id uuid, p_actor text, p_all boolean, p_secret text)
returns bigint
language plpgsql as $$
declare
    v_now timestamptz := clock_timestamp();
    v_version bigint;
begin
    update endpoints e set
        secrets = p_secret || e.secrets[1:1], rotated_at = v_now, version = e.version + 1
    where e.id = p_id and keeps_endpoint(e, p_actor, p_all)
    returning e.version into v_version;
    return v_version;
end $$;

-- Promise: the endpoint is gone, but for its id, and nothing waits for it any more; the journal of what
--          was sent stays.  False: there is none, or it is not the actor's.
-- How:     a lane that is made by a message meanwhile is dropped by who claims it (abandon_v1).
-- Locks:   its lanes by id, the endpoint's row, its slots.
create function delete_endpoint_v1(p_id uuid, p_actor text, p_all boolean) returns boolean
language plpgsql as $$
declare
    v_now timestamptz := clock_timestamp();
    v_lanes uuid[];
begin
    perform from endpoints e where e.id = p_id and keeps_endpoint(e, p_actor, p_all);
    if not found then
        return false;
    end if;
    select array_agg(l.id) into v_lanes from (
        select x.id from lanes x where x.endpoint_id = p_id order by x.conversation_id, x.id for update
    ) l;
    update endpoints e set
        deleted_at = v_now, everywhere = false, target = '', secrets = '{}', settings = '{}',
        paused_at = null, disabled_at = null, disabled_reason = null, failing_since = null,
        failures = 0, held_until = null, free_at = null, queue_at = null
    where e.id = p_id and e.deleted_at is null;
    if not found then
        return false;
    end if;
    delete from lanes l where l.endpoint_id = p_id and l.id = any (v_lanes);
    delete from conversation_endpoints o where o.endpoint_id = p_id;
    delete from endpoint_slots s where s.endpoint_id = p_id;
    delete from receipts r where r.endpoint_id = p_id;
    return true;
end $$;

-- Promise: whether a message may leave for the endpoint now: 'go', and then its place among those that
--          leave at once and its place in the minute are taken until p_hold is over; or 'wait', for
--          so long (null: until the endpoint goes on, which defer_v1 looks at), or 'gone'.
-- How:     a slot is a row, so that who dies holding one holds it no longer than p_hold.  Of an
--          endpoint that is left alone for a while, one message tries whether it is well again.
--          Who has a slot and asks again keeps it.
-- Locks:   the endpoint's row (only with a rate, or after failures), a slot not waited for.
create function admit_v1(
    p_endpoint_id uuid, p_holder uuid, p_hold interval,
    out answer text, out wait interval, out why text
)
language plpgsql as $$
declare
    e endpoints;
    v_now timestamptz := lane_clock();
    v_slot integer;
begin
    select * into e from endpoints where id = p_endpoint_id;
    if e.per_minute is not null or e.held_until is not null then
        select * into e from endpoints where id = p_endpoint_id for no key update;
    end if;
    if e.id is null or e.deleted_at is not null then
        answer := 'gone';
        return;
    end if;
    answer := 'wait';
    if e.disabled_at is not null then
        why := 'disabled';
        return;
    end if;
    if e.paused_at is not null then
        why := 'paused';
        return;
    end if;
    if e.held_until > v_now then
        why := 'failing';
        return;
    end if;
    if e.free_at > v_now and e.per_minute is not null then
        why := 'rate';
        wait := least(greatest(e.queue_at, e.free_at) - v_now, interval '10 minutes');
        update endpoints x set
            queue_at = v_now + wait + interval '1 minute' / x.per_minute
        where x.id = e.id;
        return;
    end if;
    if e.concurrency is not null then
        select s.slot into v_slot from endpoint_slots s
        where s.endpoint_id = e.id
          and (s.until is null or s.until <= v_now or s.holder = p_holder)
        order by s.holder is not distinct from p_holder desc, s.slot
        limit 1 for update skip locked;
        if v_slot is null then
            why := 'busy';
            -- What waited together does not come back together.
            wait := interval '1 second' * (1 + random());
            return;
        end if;
        update endpoint_slots s set holder = p_holder, until = v_now + p_hold
        where s.endpoint_id = e.id and s.slot = v_slot;
    end if;
    if e.per_minute is not null then
        update endpoints x set free_at = greatest(v_now, x.free_at) + interval '1 minute' / x.per_minute
        where x.id = e.id;
    end if;
    if e.held_until is not null then
        -- Ours is the try; the others wait for what comes of it.
        update endpoints x set held_until = v_now + p_hold where x.id = e.id;
    end if;
    answer := 'go';
end $$;

-- Promise: what came of a try is known to the endpoint, and the slot of this holder is free: after a
--          success it is well, and all that waited is due; after each failure in a row it is left
--          alone longer; after p_patience of nothing but failures, or when p_disable says why, it is
--          disabled.  With p_ok null only the slot is given back.  True when this disabled it.
-- Locks:   the endpoint's row (only when something changes), the slot, its lanes, these not waited for.
create function report_v1(
    p_endpoint_id uuid, p_holder uuid, p_ok boolean, p_disable text, p_patience interval
) returns boolean
language plpgsql as $$
declare
    e endpoints;
    v_now timestamptz := lane_clock();
    v_disable text := p_disable;
    v_done boolean := false;
begin
    select * into e from endpoints where id = p_endpoint_id;
    if p_ok is not null and not (p_ok and e.failures = 0) then
        select * into e from endpoints where id = p_endpoint_id for no key update;
        if e.id is null or e.disabled_at is not null or e.deleted_at is not null then
            null;
        elsif p_ok then
            update endpoints x set failures = 0, failing_since = null, held_until = null
            where x.id = e.id;
            perform wake_endpoint_v1(e.id);
        else
            if v_disable is null and e.failing_since < v_now - p_patience then
                v_disable := 'It only failed since ' || rfc3339(e.failing_since) || '.';
            end if;
            v_done := v_disable is not null;
            update endpoints x set
                failures = x.failures + 1, failing_since = coalesce(x.failing_since, v_now),
                -- From the fifth failure in a row: 10 s, 20 s, 40 s … 10 minutes.
                held_until = case when x.failures + 1 >= 5
                    then v_now + least(interval '10 seconds' * power(2, least(x.failures - 4, 10)),
                                       interval '10 minutes') end,
                disabled_at = case when v_done then v_now end, disabled_reason = v_disable
            where x.id = e.id;
        end if;
    end if;
    update endpoint_slots s set holder = null, until = null
    where s.endpoint_id = p_endpoint_id and s.holder = p_holder;
    return v_done;
end $$;

-- Promise: the lane is let go, and no try is counted: due after p_wait, or, with null, when its endpoint
--          goes on, or is to be tried again.  False: it was no longer the caller's.
-- How:     whether the endpoint still stands still is asked under a lock on its row: whoever lets it go
--          on either has, or finds this lane waiting.  What waited together does not come back together.
-- Locks:   the lane, then, with null, the endpoint's row, shared.
create function defer_v1(
    p_conversation_id uuid, p_lane_id uuid, p_token uuid, p_wait interval
) returns boolean
language plpgsql as $$
declare
    v lanes := hold_lane_v1(p_conversation_id, p_lane_id, p_token);
    v_now timestamptz;
    v_due timestamptz;
    e endpoints;
begin
    if v.id is null then
        return false;
    end if;
    if p_wait is null then
        select * into e from endpoints x where x.id = v.endpoint_id for share;
    end if;
    v_now := lane_clock();
    v_due := case
        when e.paused_at is not null or e.disabled_at is not null then 'infinity'
        when e.held_until > v_now then v_now + (e.held_until - v_now) * (1 + random() / 2)
        else v_now + coalesce(p_wait, '0') end;
    update lanes l set
        token = null, owner = null,
        due_at = case when v.head_seq <= v.tail_seq and v.paused_at is null then v_due end
    where l.conversation_id = p_conversation_id and l.id = p_lane_id;
    return true;
end $$;

-- Promise: the lane of an endpoint that is gone is gone too.  False: it is not the caller's.
-- Locks:   the lane.
create function abandon_v1(p_conversation_id uuid, p_lane_id uuid, p_token uuid) returns boolean
language plpgsql as $$
declare
    v lanes := hold_lane_v1(p_conversation_id, p_lane_id, p_token);
begin
    if v.id is null or exists (
        select from endpoints e where e.id = v.endpoint_id and e.deleted_at is null) then
        return false;
    end if;
    delete from lanes l where l.conversation_id = p_conversation_id and l.id = p_lane_id;
    return true;
end $$;

-- Promise: it is on record that what its holder was about to send was not sent after all, and the lane
--          is let go, due at once, without counting a try.  False: it was no longer theirs.
-- Locks:   the lane.
create function take_back_v1(
    p_conversation_id uuid, p_lane_id uuid, p_token uuid, p_seq bigint
) returns boolean
language plpgsql as $$
declare
    v_now timestamptz := lane_clock();
begin
    if not release_v1(p_conversation_id, p_lane_id, p_token) then
        return false;
    end if;
    update attempts a set
        outcome = 'not_sent', detail = 'The worker stopped before it left.', settled_at = v_now
    where a.conversation_id = p_conversation_id and a.lane_id = p_lane_id and a.seq = p_seq
      and a.token = p_token and a.outcome is null;
    return true;
end $$;

-- Promise: the message is done and, in the same commit, the intent for the next is on record, if there
--          is a next (p_next): done, or what intend_v1 answers; late, too, when the endpoint was paused
--          or disabled meanwhile.  With p_external_id the far side's word about it can be kept
--          (receipts).  The lane of a single message goes with it.
-- Locks:   the lane.
create function done_and_next_v1(
    p_conversation_id uuid, p_lane_id uuid, p_token uuid, p_seq bigint, p_outcome text,
    p_detail text, p_external_id text, p_endpoint_id uuid, p_lease interval, p_next bigint,
    p_margin interval, p_next_rev bigint default null
) returns text
language plpgsql as $$
declare
    v_now timestamptz := clock_timestamp();
begin
    if not done_v1(
        p_conversation_id, p_lane_id, p_token, p_seq, p_outcome, p_detail, p_external_id, p_lease) then
        return 'zombie';
    end if;
    if p_external_id is not null and p_outcome = 'accepted' then
        insert into receipts (endpoint_id, external_id, conversation_id, seq, status, at)
        values (p_endpoint_id, p_external_id, p_conversation_id, p_seq, 'sent', v_now)
        on conflict do nothing;
    end if;
    delete from lanes l
    where l.conversation_id = p_conversation_id and l.id = p_lane_id and l.head_seq > l.tail_seq
      and l.id <> lane_id(p_conversation_id, 'out', p_endpoint_id);
    if p_next is null then
        return 'done';
    end if;
    if exists (
        select from endpoints e
        where e.id = p_endpoint_id and (e.paused_at is not null or e.disabled_at is not null)) then
        return 'late';
    end if;
    return intend_v1(p_conversation_id, p_lane_id, p_token, p_next, p_margin, p_next_rev);
end $$;

-- Promise: what done_and_next_v1 does, or intend_v1 where nothing is done yet (no seq), for many lanes in
--          one commit, each by itself.  No answer (null): nothing happened to that lane, which has to
--          be asked about alone: somebody holds it, it is no longer the caller's, it is paused, it was
--          said before, or it is one message's own and ends here.
-- How:     set statements, for what nearly all are: the intent for what is next, what came of what
--          was before, and one write to the lane for both.  Nobody's row is waited for, so that who
--          holds one of 64 lanes keeps 63 others from nothing; the next statement, whose snapshot is
--          newer than the locks, reads.  Each row is reached by its key, and written where it was
--          found: a join was planned for a table that was empty, and read all of it for each lane.
-- Args:    arrays with an entry a lane, none twice; p_keeps: whether it stays the holder's, if there
--          is more, for p_lease.
-- Locks:   the lanes by id, none waited for.
create function settle_v1(
    p_conversation_ids uuid[], p_lane_ids uuid[], p_tokens uuid[], p_seqs bigint[],
    p_outcomes text[], p_details text[], p_external_ids text[], p_endpoint_ids uuid[],
    p_keeps boolean[], p_nexts bigint[], p_next_revs bigint[], p_lease interval, p_margin interval
) returns table (answer text)
language plpgsql rows 50 as $$
declare
    v_now timestamptz := lane_clock();
    v_at timestamptz := clock_timestamp();
    v_mine uuid[];
begin
    select array_agg(held.id) into v_mine
    from (
        select l.id
        from (
            select * from unnest(p_conversation_ids, p_lane_ids, p_tokens)
                as x (conversation_id, id, token)
            order by x.conversation_id, x.id
        ) a
        cross join lateral (
            select x.id from lanes x
            where x.conversation_id = a.conversation_id and x.id = a.id and x.token = a.token
            for no key update skip locked
        ) l
    ) held;
    return query
        with asked as materialized (
            select a.*, l.at as lane_at, l.fence, l.head_seq, l.due_at, l.id is not null as plain,
                a.seq < l.tail_seq as more,
                case
                    when a.seq is null then l.due_at
                    when a.seq >= l.tail_seq then null
                    when a.keep then renewed(l.due_at, v_now, p_lease)
                    else v_now
                end as due_then
            from unnest(
                p_conversation_ids, p_lane_ids, p_tokens, p_seqs, p_outcomes, p_details,
                p_external_ids, p_endpoint_ids, p_keeps, p_nexts, p_next_revs
            ) with ordinality as a (
                conversation_id, id, token, seq, outcome, detail, external_id, endpoint_id, keep,
                next, next_rev, n
            )
            left join lateral (
                select x.*, x.ctid as at from lanes x
                where x.conversation_id = a.conversation_id and x.id = a.id
                limit 1
            ) l on l.id = any (v_mine) and l.token = a.token
                and l.kind = 'out' and l.paused_at is null
                and coalesce(a.seq, a.next) >= l.head_seq
                -- What is let go has no next.
                and (a.seq is null or a.next is null
                     or a.keep and a.next > a.seq and a.seq < l.tail_seq)
                and (a.seq is null or a.seq < l.tail_seq
                     or l.id = lane_id(a.conversation_id, 'out', a.endpoint_id))
        ), judged as materialized (
            select q.*,
                case
                    when not q.plain then null
                    when q.next is null then 'done'
                    when q.due_then <= v_now + p_margin then 'late'
                    when q.seq is not null and exists (
                        select from endpoints e
                        where e.id = q.endpoint_id
                          and (e.paused_at is not null or e.disabled_at is not null)) then 'late'
                    -- Not locked: whoever deletes or edits it after this comes too late.
                    else coalesce((
                        select case when coalesce(m.changed_rev, m.rev) <> q.next_rev
                                    then 'late' else 'go' end
                        from conversations c
                        join messages m on m.conversation_id = c.id and m.seq = q.next
                        where c.id = q.conversation_id and m.deleted_at is null
                          and m.seq <@ c.path), 'skip')
                end as word
            from asked q
        ), settled as (
            update attempts a set
                outcome = q.outcome, detail = q.detail, external_id = q.external_id,
                settled_at = v_now
            from judged q
            cross join lateral (
                select x.ctid as at from attempts x
                where x.conversation_id = q.conversation_id and x.lane_id = q.id and x.seq = q.seq
                  and x.fence = q.fence
                limit 1
            ) t
            where q.plain and q.seq is not null and a.ctid = t.at
        ), intended as (
            insert into attempts (
                conversation_id, lane_id, seq, fence, token, intended_at, outcome, detail, settled_at
            )
            select q.conversation_id, q.id, q.next, q.fence, q.token, v_now,
                case when q.word = 'skip' then 'skipped' end,
                case when q.word = 'skip' then 'it was deleted, or is not on the active path' end,
                case when q.word = 'skip' then v_now end
            from judged q
            where q.word in ('go', 'skip')
            on conflict do nothing
        ), receipted as (
            insert into receipts (endpoint_id, external_id, conversation_id, seq, status, at)
            select q.endpoint_id, q.external_id, q.conversation_id, q.seq, 'sent', v_at
            from judged q
            where q.plain and q.external_id is not null and q.outcome = 'accepted'
            on conflict do nothing
        ), moved as (
            update lanes l set
                head_seq = case
                    when q.word = 'go' then q.next
                    when q.word = 'skip' then q.next + 1
                    else q.seq + 1 end,
                tries = 0, due_at = q.due_then,
                token = case when q.seq is null or q.more and q.keep then l.token end,
                owner = case when q.seq is null or q.more and q.keep then l.owner end
            from judged q
            where q.plain and (q.seq is not null or q.word = 'skip'
                               or q.word = 'go' and q.next > q.head_seq)
              and l.ctid = q.lane_at
        )
        select q.word from judged q order by q.n;
end $$;

-- Promise: the message's receipt says at least this, and never less than before: sent, delivered, read;
--          failed only of what was not delivered.  Returns what it says; null: no such message.
-- Locks:   the receipt.
create function receipt_v1(p_endpoint_id uuid, p_external_id text, p_status text) returns text
language plpgsql as $$
declare
    c_order constant text[] := '{sent,failed,delivered,read}';
    v_now timestamptz := clock_timestamp();
    v_status text;
begin
    update receipts r set
        status = case when array_position(c_order, p_status) > array_position(c_order, r.status)
                      then p_status else r.status end,
        at = case when array_position(c_order, p_status) > array_position(c_order, r.status)
                  then v_now else r.at end
    where r.endpoint_id = p_endpoint_id and r.external_id = p_external_id
    returning r.status into v_status;
    return v_status;
end $$;

-- Promise: the message gets a lane of its own, due after p_retry_in, or parked when p_reason says why,
--          and the lane goes on behind it, kept for p_lease if there is more: so failures hold nobody
--          up where order does not matter.  False: it was no longer the caller's.
-- Locks:   the lane, the message's own.
create function set_aside_v1(
    p_conversation_id uuid, p_lane_id uuid, p_token uuid, p_seq bigint, p_outcome text,
    p_detail text, p_retry_in interval, p_reason text, p_lease interval
) returns boolean
language plpgsql as $$
declare
    v_now timestamptz := lane_clock();
    v lanes;
    v_id uuid;
begin
    if not done_v1(p_conversation_id, p_lane_id, p_token, p_seq, p_outcome, p_detail, null, p_lease) then
        return false;
    end if;
    select * into v from lanes l where l.conversation_id = p_conversation_id and l.id = p_lane_id;
    v_id := aside_id(p_conversation_id, v.endpoint_id, p_seq);
    insert into lanes as l (
        conversation_id, id, kind, endpoint_id, head_seq, tail_seq, due_at, fence, tries, parked_at,
        park_reason
    ) values (
        p_conversation_id, v_id, 'out', v.endpoint_id, p_seq, p_seq,
        case when p_reason is null then v_now + p_retry_in end,
        -- Above that of the lane it comes from, so that a receiver sees it rise.
        v.fence, 1, case when p_reason is not null then v_now end, p_reason
    ) on conflict do nothing;
    return true;
end $$;
