-- Gates: whether a message may leave for its endpoint now, what came of it for the endpoint, and until
-- when a lane waits that may not.

set search_path = greffier;

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
        update endpoints x set held_until = v_now + p_hold, tried_by = p_holder where x.id = e.id;
    end if;
    answer := 'go';
end $$;

-- Promise: what came of a try is known to the endpoint, and the slot of this holder is free: after a
--          success it is well, and if it was left alone all that waited is due; after each failure
--          in a row it is left alone longer; after p_patience of nothing but failures, or when
--          p_disable says why, it is disabled.  With p_ok null only the slot is given back.  True when
--          this disabled it.
-- How:     while it is left alone only the failure of who tries counts: forty that were on their way
--          when it went down are one outage, and not the ten minutes of fourteen in a row.  One that
--          was not left alone wakes nobody: a message that breaks a receiver which is well would use
--          up its tries at the successes of the others.
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
            update endpoints x set
                failures = 0, failing_since = null, held_until = null, tried_by = null
            where x.id = e.id;
            if e.held_until is not null then
                perform wake_endpoint_v1(e.id);
            end if;
        else
            if v_disable is null and e.failing_since < v_now - p_patience then
                v_disable := 'It only failed since ' || rfc3339(e.failing_since) || '.';
            end if;
            v_done := v_disable is not null;
            if v_done or e.held_until is null or e.tried_by = p_holder then
                update endpoints x set
                    failures = x.failures + 1, failing_since = coalesce(x.failing_since, v_now),
                    -- From the fifth failure in a row: 10 s, 20 s, 40 s … 10 minutes.
                    held_until = case when x.failures + 1 >= 5
                        then v_now + least(interval '10 seconds' * power(2, least(x.failures - 4, 10)),
                                           interval '10 minutes') end,
                    tried_by = null,
                    disabled_at = case when v_done then v_now end, disabled_reason = v_disable
                where x.id = e.id;
            end if;
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
