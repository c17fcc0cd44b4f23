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
    -- who tries meanwhile whether it is well again
    tried_by uuid,
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
        tried_by = case when not p_enable then e.tried_by end,
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
        failures = 0, held_until = null, tried_by = null, free_at = null, queue_at = null
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
