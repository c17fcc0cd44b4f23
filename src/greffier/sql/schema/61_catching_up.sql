-- Catching up: what changed since a rev, read from the state as it is.  There is no second log to
-- fall behind or to be pruned, and a change that spans many revs is as large as what it changed.

set search_path = greffier;

-- A participant as the API shows it.
create function participants_json(p_conversation_id uuid) returns text
language plpgsql stable as $$ begin return (
    select '[' || coalesce(string_agg(
        '{"user_id":' || to_json(p.user_id) || ',"name":' || coalesce(to_json(u.name)::text, 'null')
        || ',"role":"' || p.role || '","joined_at":"' || rfc3339(p.joined_at)
        || '","last_read_seq":' || p.last_read_seq || '}', ',' order by p.joined_at, p.user_id), '') || ']'
    from participants p left join users u on u.id = p.user_id
    where p.conversation_id = p_conversation_id and p.left_at is null
); end $$;

-- Stretches as the API shows them: [[first, last], …].
create function stretches_json(p_stretches int8multirange) returns text
language sql immutable parallel safe
return '[' || coalesce((
    select string_agg('[' || lower(x) || ',' || upper(x) - 1 || ']', ',' order by lower(x))
    from unnest(p_stretches) x), '') || ']';

-- What a reader at rev p_since lacks, up to rev upto: the messages on the active path that were
-- appended, changed or brought back since, each once and as it is now, in the order of the rev that
-- made it so; the stretches that left the path; the conversation; the participants if they or their
-- marks changed.  No row: not theirs to see.
--
-- It is bounded by p_bytes and by 2000 messages.  Then `more` is true, upto lies before the
-- conversation's rev, and the reader asks on from upto: whole revs are sent, at least one.  A
-- position that cannot be continued within bounds (it is ahead of us, or a rev changed too much at
-- once) is reset: the reader starts from a page.
--
-- Stable: all of it sees one snapshot.
create function changes_since(
    p_conversation_id uuid, p_reader text, p_since bigint, p_epoch text, p_cut integer, p_bytes integer
) returns table (
    reset boolean, upto bigint, more boolean, messages text, superseded text, conversation text,
    participants text
)
language plpgsql stable rows 1 as $$
#variable_conflict use_column
declare
    c_most constant integer := 2000;
    -- So many are written without a look at how long they are.
    c_few constant integer := 32;
    -- No message's JSON is shorter, but for its content.
    c_least constant integer := 430;
    v conversations;
    v_active int8multirange;
    v_fresh bigint;
    v_older bigint[];
    v_revs bigint[];
    v_returned int8multirange;
    v_horizon bigint;
    v_past bigint;
begin
    select c.* into v from conversations c
    where c.id = p_conversation_id
      and (p_reader is null or exists (
          select from participants p
          where p.conversation_id = c.id and p.user_id = p_reader and p.left_at is null));
    if not found then
        return;
    end if;
    conversation := conversation_json(v, p_reader, p_epoch);
    reset := p_since > v.rev or p_since < 0;
    upto := v.rev;
    more := false;
    messages := '';
    superseded := '[]';
    if reset or p_since = v.rev then
        return next;
        return;
    end if;
    v_active := v.path * int8multirange(int8range(v.first_seq, v.last_seq + 1));
    v_fresh := first_seq_after_rev(v.id, v.first_seq, v.last_seq, p_since);
    -- Where each kind of candidate is cut off: nothing at or beyond that rev is complete.
    v_horizon := v.rev + 1;
    if v_fresh + c_most <= v.last_seq then
        select m.rev into v_past from messages m
        where m.conversation_id = v.id and m.seq = v_fresh + c_most;
        v_horizon := least(v_horizon, v_past);
    end if;
    -- What changed of what was there, and the rev that made it so.
    select array_agg(k.seq order by k.changed_rev), array_agg(k.changed_rev order by k.changed_rev)
    into v_older, v_revs
    from (
        select m.seq, m.changed_rev from messages m
        where m.conversation_id = v.id and m.changed_rev > p_since
        order by m.changed_rev limit c_most + 1
    ) k;
    v_horizon := least(v_horizon, coalesce(v_revs[c_most + 1], v_horizon));
    if v.path_rev > p_since then
        v_returned := v_active * int8multirange(int8range(v.first_seq, v_fresh)) * coalesce((
            select range_agg(x)
            from path_changes h cross join lateral unnest(h.returned) x
            where h.conversation_id = v.id and h.rev > p_since), '{}');
        if count_undeleted(v.id, v_returned) > c_most then
            reset := true;
            return next;
            return;
        end if;
        select array_agg(k.seq), array_agg(k.at_rev) into v_older, v_revs
        from (
            select o.seq, o.at_rev from unnest(v_older, v_revs) o (seq, at_rev)
            where not o.seq <@ v_returned
            union all
            select m.seq, greatest(coalesce(m.changed_rev, m.rev), (
                select max(h.rev) from path_changes h
                where h.conversation_id = v.id and h.rev > p_since and m.seq <@ h.returned))
            from unnest(v_returned) x
            join messages m on m.conversation_id = v.id and m.seq >= lower(x) and m.seq < upper(x)
        ) k;
    end if;
    if least(v.last_seq - v_fresh + 1, c_most) + coalesce(cardinality(v_older), 0) > c_few then
        -- What does not fit whatever else it says is not written: a quarter of ten thousand.
        select min(k.at_rev) into v_past
        from (
            select k.at_rev, sum(k.least) over by_rev as bytes, rank() over by_rev as place
            from (
                select coalesce(m.changed_rev, m.rev) as at_rev, c_least + case
                    when m.deleted_at is null
                        then least(coalesce(octet_length(m.content), 0), p_cut - 3)
                    else 0 end as least
                from messages m
                where m.conversation_id = v.id and m.seq between v_fresh and v.last_seq
                  and m.seq < v_fresh + c_most and m.seq <@ v_active
                union all
                select o.at_rev, c_least from unnest(v_older, v_revs) o (seq, at_rev)
                where o.seq < v_fresh and o.seq <@ v_active
            ) k
            where k.at_rev < v_horizon
            window by_rev as (order by k.at_rev)
        ) k
        where k.bytes > p_bytes and k.place > 1;
        v_horizon := least(v_horizon, coalesce(v_past, v_horizon));
    end if;

    with written as materialized (
        -- else each body would be written twice, for its size and for itself
        select m.seq, coalesce(m.changed_rev, m.rev) as at_rev, message_json(m, p_cut) as body
        from messages m
        where m.conversation_id = v.id and m.seq between v_fresh and v.last_seq
          and m.seq < v_fresh + c_most and m.seq <@ v_active
          and coalesce(m.changed_rev, m.rev) < v_horizon
        union all
        select m.seq, o.at_rev, message_json(m, p_cut)
        from unnest(v_older, v_revs) o (seq, at_rev)
        join messages m on m.conversation_id = v.id and m.seq = o.seq
        where o.seq < v_fresh and o.seq <@ v_active and o.at_rev < v_horizon
    ), sized as (
        -- with its peers: a rev is sent whole
        select w.*, sum(octet_length(w.body) + 1) over by_rev as bytes, rank() over by_rev as place
        from written w
        window by_rev as (order by w.at_rev)
    )
    select string_agg(s.body, ',' order by s.seq) filter (where s.bytes <= p_bytes or s.place = 1),
        min(s.at_rev) filter (where s.bytes > p_bytes and s.place > 1)
    into messages, v_past
    from sized s;
    messages := coalesce(messages, '');
    v_horizon := least(v_horizon, coalesce(v_past, v_horizon));
    upto := v_horizon - 1;
    more := upto < v.rev;
    if upto <= p_since then
        reset := true;
        messages := '';
        upto := v.rev;
        more := false;
        return next;
        return;
    end if;
    if v.path_rev > p_since then
        superseded := stretches_json(coalesce((
            select range_agg(x)
            from path_changes h cross join lateral unnest(h.removed) x
            where h.conversation_id = v.id and h.rev > p_since and h.rev <= upto), '{}') - v_active);
    end if;
    -- With the stretch their change falls in: a reader who asks on from upto is past it.
    if v.people_rev > p_since and v.people_rev <= upto then
        participants := participants_json(v.id);
    end if;
    return next;
end $$;
