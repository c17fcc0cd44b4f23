-- Settling: what came of a message is on record and the next may leave, for one lane or for many in one
-- commit; and what the far side says of it afterwards.

set search_path = greffier;

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
