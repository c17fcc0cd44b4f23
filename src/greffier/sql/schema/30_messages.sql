-- Messages: what was said.  An append numbers them under the conversation's row lock, so that the
-- order of seq is the order of commits, a rollback gives its numbers back, and none is used twice.

set search_path = greffier;

create table messages (
    conversation_id uuid not null,
    seq bigint not null,
    id uuid not null,
    -- the request that made it, hashed: the same id with another request is refused (kept by edits)
    request_hash uuid,
    -- the last seq on the active path when this was committed; null for a first message
    parent_seq bigint,
    role text not null check (role in ('user', 'assistant', 'tool', 'system')),
    author_id text,
    author_name text,
    written_by text not null,
    content text,
    parts json,
    tool_calls json,
    tool_call_id text,
    name text,
    reasoning text,
    status text not null default 'complete'
        check (status in ('complete', 'interrupted', 'cancelled', 'failed')),
    run_id uuid,
    created_at timestamptz not null,
    said_at timestamptz,
    edited_at timestamptz,
    deleted_at timestamptz,
    -- the rev that appended it, and the one that last changed it (null while nothing did)
    rev bigint not null,
    changed_rev bigint,
    -- how many messages up to and with this one were said / are tool traffic (conversations.said_total)
    said_no integer not null,
    tool_no integer not null,
    metadata jsonb,
    primary key (conversation_id, seq),
    unique (conversation_id, id)
);

-- serves counts over a stretch, and audit: deleted messages are few
create index messages_deleted on messages (conversation_id, seq) where deleted_at is not null;
-- serves changes: an append pays nothing for it
create index messages_changed on messages (conversation_id, changed_rev)
    where changed_rev is not null;

-- A message that counts as said, for context limits: somebody's or the model's words.
create function is_said(p_role text, p_content text, p_parts json) returns boolean
language sql immutable parallel safe
return p_role in ('user', 'assistant') and (p_content <> '' or p_parts is not null);

-- Tool traffic: a result, or calls without words.
create function is_tool_traffic(p_role text, p_content text, p_parts json, p_calls json) returns boolean
language sql immutable parallel safe
return p_role = 'tool' or (p_role = 'assistant' and p_calls is not null
    and coalesce(p_content, '') = '' and p_parts is null);

-- A message as the API shows it: the one place that says so (model/message.py reads it).
-- p_cut: texts longer than that many bytes are cut and JSON fields left out, marked by
-- truncated and size (the bytes of the fields that were cut); null shows the whole.
create function message_json(m messages, p_cut integer) returns text
language sql stable parallel safe as $$
select '{"conversation_id":"' || m.conversation_id
    || '","seq":' || m.seq
    || ',"id":"' || m.id
    || '","parent_seq":' || coalesce(m.parent_seq::text, 'null')
    || ',"role":"' || m.role
    || '","author_id":' || coalesce(to_json(m.author_id)::text, 'null')
    || ',"author_name":' || coalesce(to_json(m.author_name)::text, 'null')
    || ',"written_by":' || to_json(m.written_by)
    || ',"content":' || case
           when m.content is null or m.deleted_at is not null then 'null'
           when octet_length(m.content) > p_cut then to_json(cut_text(m.content, p_cut))::text
           else to_json(m.content)::text end
    || ',"parts":' || case
           when m.parts is null or m.deleted_at is not null or octet_length(m.parts::text) > p_cut then 'null'
           else m.parts::text end
    || ',"tool_calls":' || case
           when m.tool_calls is null or m.deleted_at is not null or octet_length(m.tool_calls::text) > p_cut then 'null'
           else m.tool_calls::text end
    || ',"tool_call_id":' || coalesce(to_json(m.tool_call_id)::text, 'null')
    || ',"name":' || coalesce(to_json(m.name)::text, 'null')
    || ',"reasoning":' || case
           when m.reasoning is null or m.deleted_at is not null then 'null'
           when octet_length(m.reasoning) > p_cut then to_json(cut_text(m.reasoning, p_cut))::text
           else to_json(m.reasoning)::text end
    || ',"status":"' || m.status
    || '","run_id":' || coalesce('"' || m.run_id || '"', 'null')
    || ',"created_at":"' || rfc3339(m.created_at)
    || '","said_at":' || coalesce('"' || rfc3339(m.said_at) || '"', 'null')
    || ',"edited_at":' || coalesce('"' || rfc3339(m.edited_at) || '"', 'null')
    || ',"deleted_at":' || coalesce('"' || rfc3339(m.deleted_at) || '"', 'null')
    || ',"rev":' || coalesce(m.changed_rev, m.rev)
    || ',"metadata":' || coalesce(case when m.deleted_at is null then m.metadata::text end, '{}')
    || case when m.deleted_at is null and greatest(
                octet_length(m.content), octet_length(m.parts::text),
                octet_length(m.tool_calls::text), octet_length(m.reasoning)) > p_cut
           then ',"truncated":true,"size":' || (
                case when octet_length(m.content) > p_cut then octet_length(m.content) else 0 end
              + case when octet_length(m.parts::text) > p_cut then octet_length(m.parts::text) else 0 end
              + case when octet_length(m.tool_calls::text) > p_cut then octet_length(m.tool_calls::text) else 0 end
              + case when octet_length(m.reasoning) > p_cut then octet_length(m.reasoning) else 0 end)
           else '' end
    || '}'
$$;

-- Promise: the stretches of the active path a page needs, by arithmetic alone: seqs are dense, so
--          the p_before newest seqs up to p_anchor and the p_after oldest above it are found
--          without looking at a message, however the path is cut.
-- How:     one range is the normal case and needs no set; else the ranges are summed from the anchor.
create function path_window(
    p_path int8multirange, p_first bigint, p_last bigint,
    p_anchor bigint, p_before bigint, p_after bigint
) returns table (lo bigint, hi bigint)
language plpgsql immutable parallel safe rows 2 as $$
declare
    v_path int8multirange;
    v_anchor bigint := least(greatest(p_anchor, p_first - 1), p_last);
begin
    if p_last < p_first then
        return;
    end if;
    v_path := p_path * int8multirange(int8range(p_first, p_last + 1));
    if v_path = int8multirange(int8range(lower(v_path), upper(v_path))) then
        v_anchor := least(greatest(v_anchor, lower(v_path) - 1), upper(v_path) - 1);
        lo := greatest(lower(v_path), v_anchor - p_before + 1);
        hi := least(upper(v_path) - 1, v_anchor + p_after);
        if lo <= hi then
            return next;
        end if;
        return;
    end if;
    return query
        select greatest(r.lo, r.hi - (p_before - (r.upto - r.size)) + 1), r.hi
        from (
            select b.lo, b.hi, b.hi - b.lo + 1 as size, (sum(b.hi - b.lo + 1) over (order by b.lo desc))::bigint as upto
            from (
                select lower(x) as lo, upper(x) - 1 as hi
                from unnest(v_path * int8multirange(int8range(p_first, v_anchor + 1))) x
            ) b
        ) r
        where r.upto - r.size < p_before
        union all
        select r.lo, least(r.hi, r.lo + (p_after - (r.upto - r.size)) - 1)
        from (
            select b.lo, b.hi, b.hi - b.lo + 1 as size, (sum(b.hi - b.lo + 1) over (order by b.lo))::bigint as upto
            from (
                select lower(x) as lo, upper(x) - 1 as hi
                from unnest(v_path * int8multirange(int8range(v_anchor + 1, p_last + 1))) x
            ) b
        ) r
        where r.upto - r.size < p_after;
end $$;

-- The last seq on the active path, null when nothing is on it.  The path's last range is open, so
-- it is last_seq unless everything since the last rewind is still to come.
create function path_end(p_path int8multirange, p_first bigint, p_last bigint) returns bigint
language sql immutable parallel safe
return upper(p_path * int8multirange(int8range(p_first, greatest(p_last, p_first - 1) + 1))) - 1;

-- Promise: the message is on record under the next seq, or it was before (replayed), or nothing
--          happened and outcome says why: busy (p_wait false and somebody holds the row), not-found,
--          gone, archived, forbidden, id-reused.
-- How:     one message, one commit: the path of a lone append.  p_fresh says that the id was made
--          for this call, so that it need not be looked for.
-- Locks:   the conversation's row.
create function append_message_v1(
    p_conversation_id uuid, p_actor text, p_id uuid, p_hash uuid, p_role text,
    p_author_id text, p_author_name text, p_written_by text, p_content text, p_parts json,
    p_tool_calls json, p_tool_call_id text, p_name text, p_reasoning text, p_metadata jsonb,
    p_said_at timestamptz, p_fresh boolean, p_wait boolean,
    out outcome text, out seq bigint, out parent_seq bigint, out rev bigint,
    out created_at timestamptz, out author_id text
)
language plpgsql as $$
declare
    v conversations;
    v_now timestamptz;
    v_hash uuid;
    v_role text;
    v_said integer := is_said(p_role, p_content, p_parts)::integer;
    v_tool integer := is_tool_traffic(p_role, p_content, p_parts, p_tool_calls)::integer;
begin
    if p_wait then
        select * into v from conversations c where c.id = p_conversation_id for no key update;
    else
        select * into v from conversations c where c.id = p_conversation_id
        for no key update skip locked;
    end if;
    if v.id is null then
        outcome := absent_conversation(p_conversation_id);
        return;
    end if;
    if p_actor is not null and (p_actor <> v.owner_id or v.kind = 'room') then
        select p.role into v_role from participants p
        where p.conversation_id = v.id and p.user_id = p_actor and p.left_at is null;
        outcome := case
            when v_role is null then 'not-found'
            when v_role = 'viewer' or p_role <> 'user' then 'forbidden'
        end;
        if outcome is not null then
            return;
        end if;
    end if;
    if not p_fresh then
        select m.seq, m.parent_seq, m.rev, m.created_at, m.author_id, m.request_hash
        into seq, parent_seq, rev, created_at, author_id, v_hash
        from messages m where m.conversation_id = v.id and m.id = p_id;
        if found then
            outcome := case when v_hash = p_hash then 'replayed' else 'id-reused' end;
            return;
        end if;
    end if;
    if v.archived_at is not null then
        outcome := 'archived';
        return;
    end if;
    v_now := greatest(clock_timestamp(), v.updated_at);
    outcome := 'stored';
    seq := v.last_seq + 1;
    rev := v.rev + 1;
    created_at := v_now;
    parent_seq := case when v.path = '{[1,)}' then nullif(v.last_seq, 0)
                       else path_end(v.path, v.first_seq, v.last_seq) end;
    author_id := coalesce(
        p_author_id, case when v.kind = 'assistant' and p_role = 'user' then v.owner_id end);
    insert into messages (
        conversation_id, seq, id, request_hash, parent_seq, role, author_id, author_name, written_by,
        content, parts, tool_calls, tool_call_id, name, reasoning, created_at, said_at, rev,
        said_no, tool_no, metadata
    ) values (
        v.id, v.last_seq + 1, p_id, p_hash, append_message_v1.parent_seq, p_role,
        append_message_v1.author_id, p_author_name, p_written_by, p_content, p_parts, p_tool_calls,
        p_tool_call_id, p_name, p_reasoning, v_now, p_said_at, v.rev + 1,
        v.said_total + v_said, v.tool_total + v_tool, p_metadata
    );
    update conversations c set
        last_seq = c.last_seq + 1, rev = c.rev + 1, message_count = c.message_count + 1,
        said_total = c.said_total + v_said, tool_total = c.tool_total + v_tool,
        updated_at = v_now,
        listed_at = case when v_now > v.listed_at + interval '1 minute' then v_now else v.listed_at end
    where c.id = v.id;
    if v_now > v.listed_at + interval '1 minute' then
        perform touch_listings_v1(array[v.id], v_now);
    end if;
end $$;

-- Why a conversation's row was not there to be locked.
create function absent_conversation(p_id uuid) returns text
language sql stable
return case
    when exists (select from conversations where id = p_id) then 'busy'
    when exists (select from erased where conversation_id = p_id) then 'gone'
    else 'not-found'
end;

-- Promise: many requests of many conversations in one commit.  A request (one or more messages of
--          one conversation) stands or falls whole; a refusal is its own and not its neighbours'.
--          Outcomes as append_message_v1; a replayed message keeps its old numbers, and a request
--          that stores at least one message is one rev.
-- How:     set statements throughout, so that a batch of 250 costs few plans.  Rows somebody else
--          holds are skipped (busy), or waited for with p_wait.  Ids are looked up only with p_check
--          (15 % of a large batch), which a caller leaves out when it has just made them all.  An id
--          must not be twice in one call.
-- Args:    p_conversation_ids/p_actors/p_sizes: one entry a request, in order; the message arrays
--          hold their messages one request after the other.
-- Locks:   conversation rows by id.
create function append_batch_v1(
    p_route integer, p_conversation_ids uuid[], p_actors text[], p_sizes integer[],
    p_ids uuid[], p_hashes uuid[], p_roles text[], p_author_ids text[], p_author_names text[],
    p_written_by text[], p_contents text[], p_parts text[], p_tool_calls text[],
    p_tool_call_ids text[], p_names text[], p_reasonings text[], p_metadata text[],
    p_said_at timestamptz[], p_check boolean, p_wait boolean
) returns table (
    outcome text, seq bigint, parent_seq bigint, rev bigint, created_at timestamptz, author_id text
)
language plpgsql rows 100 as $$
declare
    v_now timestamptz := clock_timestamp();
    v_wanted uuid[] := array(select distinct unnest(p_conversation_ids));
    -- the locked conversations
    v_locked conversations[];
    -- by request: why it is refused, null when it is not
    v_refused text[];
    -- by message
    v_request integer[];
    v_known_seq bigint[];
    v_found bigint;
    v_hash uuid;
    v_seq bigint[];
    v_parent bigint[];
    v_rev bigint[];
    v_at timestamptz[];
    v_author text[];
    v_said integer[];
    v_tool integer[];
    v_stale uuid[];
begin
    if p_wait then
        v_locked := array(
            select c from conversations c where c.id = any (v_wanted) order by c.id for no key update);
    else
        v_locked := array(
            select c from conversations c where c.id = any (v_wanted) order by c.id
            for no key update skip locked);
    end if;
    v_request := array(
        select r.n from unnest(p_sizes) with ordinality as r (size, n), generate_series(1, r.size)
        order by r.n);

    -- Who may not, and what is not there.  Members, and a room's owner, speak for themselves only:
    -- role user.  An assistant conversation's owner writes any role; a null actor is the service.
    v_refused := array(
        select case
            when c.id is null then absent_conversation(r.conversation_id)
            when r.actor is null or (r.actor = c.owner_id and c.kind = 'assistant') then null
            else (
                select case
                    when p.role is null then 'not-found'
                    when p.role = 'viewer' or exists (
                        select from unnest(p_roles, v_request) as m (role, request)
                        where m.request = r.n and m.role <> 'user') then 'forbidden'
                end
                from (select) one
                left join participants p on p.conversation_id = r.conversation_id
                    and p.user_id = r.actor and p.left_at is null)
        end
        from unnest(p_conversation_ids, p_actors) with ordinality as r (conversation_id, actor, n)
        left join unnest(v_locked) c on c.id = r.conversation_id
        order by r.n);

    if p_check then
        -- One index probe per id: a join through unnest may read a whole conversation instead
        -- (43 ms for 0.3) when the planner thinks it small.
        v_known_seq := array_fill(null::bigint, array[cardinality(p_ids)]);
        for i in 1 .. cardinality(p_ids) loop
            if v_refused[v_request[i]] is null then
                select m.seq, m.request_hash into v_found, v_hash
                from messages m
                where m.conversation_id = p_conversation_ids[v_request[i]] and m.id = p_ids[i];
                v_known_seq[i] := v_found;
                if v_found is not null and v_hash is distinct from p_hashes[i] then
                    v_refused[v_request[i]] := 'id-reused';
                end if;
            end if;
        end loop;
    end if;

    -- An archived conversation still answers for what it has, and takes nothing new.
    if exists (select from unnest(v_locked) c where c.archived_at is not null) then
        v_refused := array(
            select case
                when v_refused[r.n] is not null then v_refused[r.n]
                when c.archived_at is not null and exists (
                    select from unnest(v_request) with ordinality as m (request, n)
                    where m.request = r.n and v_known_seq[m.n] is null) then 'archived'
            end
            from unnest(p_conversation_ids) with ordinality as r (conversation_id, n)
            left join unnest(v_locked) c on c.id = r.conversation_id
            order by r.n);
    end if;

    -- Number what is new.
    select array_agg(x.seq order by x.n), array_agg(x.parent order by x.n),
           array_agg(x.rev order by x.n), array_agg(x.at order by x.n),
           array_agg(x.author order by x.n), array_agg(x.said order by x.n),
           array_agg(x.tool order by x.n)
    into v_seq, v_parent, v_rev, v_at, v_author, v_said, v_tool
    from (
        select y.n, c.last_seq + y.place as seq,
            case when y.place > 1 then c.last_seq + y.place - 1
                 when c.path = '{[1,)}' then nullif(c.last_seq, 0)
                 else path_end(c.path, c.first_seq, c.last_seq) end as parent,
            c.rev + y.change as rev,
            greatest(v_now, c.updated_at) as at,
            coalesce(y.author_id, case when c.kind = 'assistant' and y.role = 'user' then c.owner_id end)
                as author,
            c.said_total + y.said as said, c.tool_total + y.tool as tool
        from (
            select m.n, m.role, m.author_id, p_conversation_ids[m.request] as conversation_id,
                row_number() over w as place, dense_rank() over (
                    partition by p_conversation_ids[m.request] order by m.request) as change,
                sum(is_said(m.role, m.content, m.parts::json)::integer) over w as said,
                sum(is_tool_traffic(m.role, m.content, m.parts::json, m.calls::json)::integer) over w as tool
            from unnest(v_request, p_roles, p_author_ids, p_contents, p_parts, p_tool_calls)
                with ordinality as m (request, role, author_id, content, parts, calls, n)
            where v_refused[m.request] is null and v_known_seq[m.n] is null
            window w as (partition by p_conversation_ids[m.request] order by m.n)
        ) y
        join unnest(v_locked) c on c.id = y.conversation_id
        union all
        select m.n, null, null, null, null, null, null, null
        from unnest(v_request) with ordinality as m (request, n)
        where not (v_refused[m.request] is null and v_known_seq[m.n] is null)
    ) x;

    insert into messages (
        conversation_id, seq, id, request_hash, parent_seq, role, author_id, author_name, written_by,
        content, parts, tool_calls, tool_call_id, name, reasoning, created_at, said_at, rev,
        said_no, tool_no, metadata
    )
    select p_conversation_ids[m.request], m.seq, m.id, m.hash, m.parent, m.role, m.author,
        m.author_name, m.written_by, m.content, m.parts::json, m.tool_calls::json, m.tool_call_id,
        m.name, m.reasoning, m.at, m.said_at, m.rev, m.said, m.tool, m.metadata::jsonb
    from unnest(
        v_request, v_seq, p_ids, p_hashes, v_parent, p_roles, v_author, p_author_names, p_written_by,
        p_contents, p_parts, p_tool_calls, p_tool_call_ids, p_names, p_reasonings, v_at, p_said_at,
        v_rev, v_said, v_tool, p_metadata
    ) as m (
        request, seq, id, hash, parent, role, author, author_name, written_by, content, parts,
        tool_calls, tool_call_id, name, reasoning, at, said_at, rev, said, tool, metadata
    )
    where m.seq is not null;

    update conversations c set
        last_seq = g.seq, rev = g.rev, message_count = c.message_count + g.many,
        said_total = g.said, tool_total = g.tool, updated_at = g.at,
        listed_at = case when g.at > c.listed_at + interval '1 minute' then g.at else c.listed_at end
    from (
        select p_conversation_ids[m.request] as id, max(m.seq) as seq, max(m.rev) as rev,
            max(m.at) as at, max(m.said) as said, max(m.tool) as tool, count(*) as many
        from unnest(v_request, v_seq, v_rev, v_at, v_said, v_tool)
            as m (request, seq, rev, at, said, tool)
        where m.seq is not null
        group by 1
    ) g
    where c.id = g.id and c.id = any (v_wanted);

    if exists (select from unnest(v_locked) c where v_now > c.listed_at + interval '1 minute') then
        select array_agg(distinct c.id) into v_stale
        from unnest(v_request, v_seq, v_at) as m (request, seq, at)
        join unnest(v_locked) c on c.id = p_conversation_ids[m.request]
        where m.seq is not null and m.at > c.listed_at + interval '1 minute';
        perform touch_listings_v1(v_stale, v_now);
    end if;

    return query
        select coalesce(v_refused[m.request], case when m.seq is null then 'replayed' else 'stored' end),
            coalesce(m.seq, case when v_refused[m.request] is null then v_known_seq[m.n] end),
            m.parent, m.rev, m.at, m.author
        from unnest(v_request, v_seq, v_parent, v_rev, v_at, v_author)
            with ordinality as m (request, seq, parent, rev, at, author, n)
        order by m.n;
end $$;
