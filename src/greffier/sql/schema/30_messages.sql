-- Messages: what was said.  An append numbers them under the conversation's row lock, so that the
-- order of seq is the order of commits, a rollback gives its numbers back, and none is used twice.

set search_path = greffier;

create table messages (
    conversation_id uuid not null,
    seq bigint not null,
    id uuid not null,
    -- the request that made it, hashed: the same id with another request is refused (kept by edits;
    -- null once the message was erased)
    request_hash bytea,
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
return p_role in ('user', 'assistant') and (coalesce(p_content, '') <> '' or p_parts is not null);

-- Tool traffic: a result, or calls without words.
create function is_tool_traffic(p_role text, p_content text, p_parts json, p_calls json) returns boolean
language sql immutable parallel safe
return p_role = 'tool' or (p_role = 'assistant' and p_calls is not null
    and coalesce(p_content, '') = '' and p_parts is null);

-- A message as the API shows it: the one place that says so (model/message.py reads it).
-- p_cut: texts longer than that many bytes are cut and JSON fields left out, marked by
-- truncated and size (the bytes of the fields that were cut); null shows the whole.
-- What most messages lack is one text, not many small ones: a tenth of a page.
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
    || case
           when m.parts is null and m.tool_calls is null and m.tool_call_id is null
                and m.name is null and m.reasoning is null
               then ',"parts":null,"tool_calls":null,"tool_call_id":null,"name":null,"reasoning":null'
           else ',"parts":' || case
                   when m.parts is null or m.deleted_at is not null
                        or octet_length(m.parts::text) > p_cut then 'null'
                   else m.parts::text end
               || ',"tool_calls":' || case
                   when m.tool_calls is null or m.deleted_at is not null
                        or octet_length(m.tool_calls::text) > p_cut then 'null'
                   else m.tool_calls::text end
               || ',"tool_call_id":' || coalesce(to_json(m.tool_call_id)::text, 'null')
               || ',"name":' || coalesce(to_json(m.name)::text, 'null')
               || ',"reasoning":' || case
                   when m.reasoning is null or m.deleted_at is not null then 'null'
                   when octet_length(m.reasoning) > p_cut then to_json(cut_text(m.reasoning, p_cut))::text
                   else to_json(m.reasoning)::text end
           end
    || ',"status":"' || m.status
    || '","run_id":' || coalesce('"' || m.run_id || '"', 'null')
    || ',"created_at":"' || rfc3339(m.created_at)
    || case
           when m.said_at is null and m.edited_at is null and m.deleted_at is null
               then '","said_at":null,"edited_at":null,"deleted_at":null,"rev":'
           else '","said_at":' || coalesce('"' || rfc3339(m.said_at) || '"', 'null')
               || ',"edited_at":' || coalesce('"' || rfc3339(m.edited_at) || '"', 'null')
               || ',"deleted_at":' || coalesce('"' || rfc3339(m.deleted_at) || '"', 'null')
               || ',"rev":' end
    || coalesce(m.changed_rev, m.rev)
    || ',"metadata":' || coalesce(case when m.deleted_at is null then m.metadata::text end, '{}')
    || case when m.deleted_at is null and greatest(
                octet_length(m.content), octet_length(m.parts::text),
                octet_length(m.tool_calls::text), octet_length(m.reasoning)) > p_cut
           then ',"truncated":true,"size":' || (
                case when octet_length(m.content) > p_cut then octet_length(m.content) else 0 end
              + case when octet_length(m.parts::text) > p_cut then octet_length(m.parts::text) else 0 end
              + case when octet_length(m.tool_calls::text) > p_cut then octet_length(m.tool_calls::text) else 0 end
              + case when octet_length(m.reasoning) > p_cut then octet_length(m.reasoning) else 0 end)
               || '}'
           else '}' end
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
return case
    when p_path = '{[1,)}' then nullif(p_last, p_first - 1)
    else upper(p_path * int8multirange(int8range(p_first, greatest(p_last, p_first - 1) + 1))) - 1
end;

-- Promise: the message is on record under the next seq, or it was before (replayed), or nothing
--          happened and outcome says why: busy (p_wait false and somebody holds the row), not-found,
--          gone, archived, forbidden, id-reused.
-- How:     one message, one commit: the path of a lone append.  p_fresh says that the id was made
--          for this call, so that it need not be looked for.
-- Locks:   the conversation's row.
create function append_message_v1(
    p_conversation_id uuid, p_actor text, p_id uuid, p_hash bytea, p_role text,
    p_author_id text, p_author_name text, p_written_by text, p_content text, p_parts json,
    p_tool_calls json, p_tool_call_id text, p_name text, p_reasoning text, p_metadata jsonb,
    p_said_at timestamptz, p_fresh boolean, p_wait boolean,
    out outcome text, out seq bigint, out parent_seq bigint, out rev bigint,
    out created_at timestamptz, out author_id text
)
language plpgsql as $$
declare
    v record;
    v_now timestamptz;
    v_hash bytea;
    v_role text;
    v_said integer := is_said(p_role, p_content, p_parts)::integer;
    v_tool integer := is_tool_traffic(p_role, p_content, p_parts, p_tool_calls)::integer;
begin
    if p_wait then
        select c.id, c.owner_id, c.kind, c.archived_at, c.updated_at, c.listed_at, c.last_seq, c.rev,
            path_end(c.path, c.first_seq, c.last_seq) as path_end, c.said_total, c.tool_total
        into v
        from conversations c where c.id = p_conversation_id for no key update;
    else
        select c.id, c.owner_id, c.kind, c.archived_at, c.updated_at, c.listed_at, c.last_seq, c.rev,
            path_end(c.path, c.first_seq, c.last_seq) as path_end, c.said_total, c.tool_total
        into v
        from conversations c where c.id = p_conversation_id for no key update skip locked;
    end if;
    if not found then
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
        select m.seq, m.request_hash into seq, v_hash
        from messages m where m.conversation_id = v.id and m.id = p_id;
        if found then
            -- Erased with its content, the hash tells nothing any more: the answer is the tombstone.
            outcome := case when v_hash is null or v_hash = p_hash then 'replayed' else 'id-reused' end;
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
    parent_seq := v.path_end;
    author_id := coalesce(
        p_author_id, case when v.kind = 'assistant' and p_role = 'user' then v.owner_id end);
    insert into messages (
        conversation_id, seq, id, request_hash, parent_seq, role, author_id, author_name, written_by,
        content, parts, tool_calls, tool_call_id, name, reasoning, created_at, said_at, rev,
        said_no, tool_no, metadata
    ) values (
        v.id, append_message_v1.seq, p_id, p_hash, append_message_v1.parent_seq, p_role,
        append_message_v1.author_id, p_author_name, p_written_by, p_content, p_parts, p_tool_calls,
        p_tool_call_id, p_name, p_reasoning, v_now, p_said_at, append_message_v1.rev,
        v.said_total + v_said, v.tool_total + v_tool, p_metadata
    );
    update conversations c set
        last_seq = append_message_v1.seq, rev = append_message_v1.rev,
        message_count = c.message_count + 1,
        said_total = v.said_total + v_said, tool_total = v.tool_total + v_tool,
        updated_at = v_now,
        listed_at = case
            when v_now > v.listed_at + interval '10 minutes' then v_now else v.listed_at end
    where c.id = v.id;
    if v_now > v.listed_at + interval '10 minutes' then
        perform touch_listings_v1(array[v.id]);
    end if;
    -- What was said long ago, an import, is no news for endpoints.
    if exists (select from endpoints) and (p_said_at is null or p_said_at > v_now - interval '1 day') then
        perform enqueue_out_v1(
            array[v.id], array[append_message_v1.seq], array[append_message_v1.seq]);
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
--          (a tenth of a large batch), which a caller leaves out when it has just made them all.  An
--          id must not be twice in one call.
-- Args:    p_conversation_ids/p_actors/p_sizes: one entry a request, in order; the message arrays
--          hold their messages one request after the other.  Without p_sizes each has one.
-- Locks:   conversation rows by id.
create function append_batch_v1(
    p_route integer, p_conversation_ids uuid[], p_actors text[], p_sizes integer[],
    p_ids uuid[], p_hashes bytea[], p_roles text[], p_author_ids text[], p_author_names text[],
    p_written_by text[], p_contents text[], p_parts text[], p_tool_calls text[],
    p_tool_call_ids text[], p_names text[], p_reasonings text[], p_metadata text[],
    p_said_at timestamptz[], p_check boolean, p_wait boolean
) returns table (
    outcome text, seq bigint, parent_seq bigint, rev bigint, created_at timestamptz, author_id text
)
language plpgsql rows 100 as $$
#variable_conflict use_column
declare
    v_now timestamptz := clock_timestamp();
    -- the locked conversations
    v_id uuid[];
    v_owner text[];
    v_assistant boolean[];
    v_archived boolean[];
    v_last bigint[];
    v_end bigint[];
    v_rev bigint[];
    v_updated timestamptz[];
    v_listed timestamptz[];
    v_said integer[];
    v_tool integer[];
    v_oldest timestamptz;
    -- by message: which request it belongs to (null: each has one), and its seq when it is there
    v_request integer[];
    v_known bigint[];
    -- by request: why it is refused; null when none is
    v_refused text[];
    -- the messages that are there already, by place in the call, and whether they say another thing
    v_found integer[];
    v_seqs bigint[];
    v_other boolean[];
begin
    -- The rows are locked by an inner query in the order of their ids, and read after the lock.
    if p_wait then
        select array_agg(c.id), array_agg(c.owner_id), array_agg(c.kind = 'assistant'),
            array_agg(c.archived_at is not null), array_agg(c.last_seq), array_agg(c.path_end),
            array_agg(c.rev), array_agg(c.updated_at), array_agg(c.listed_at),
            array_agg(c.said_total), array_agg(c.tool_total), min(c.listed_at)
        into v_id, v_owner, v_assistant, v_archived, v_last, v_end, v_rev, v_updated, v_listed,
            v_said, v_tool, v_oldest
        from (
            select *, path_end(path, first_seq, last_seq) as path_end
            from conversations where id = any (p_conversation_ids) order by id for no key update
        ) c;
    else
        select array_agg(c.id), array_agg(c.owner_id), array_agg(c.kind = 'assistant'),
            array_agg(c.archived_at is not null), array_agg(c.last_seq), array_agg(c.path_end),
            array_agg(c.rev), array_agg(c.updated_at), array_agg(c.listed_at),
            array_agg(c.said_total), array_agg(c.tool_total), min(c.listed_at)
        into v_id, v_owner, v_assistant, v_archived, v_last, v_end, v_rev, v_updated, v_listed,
            v_said, v_tool, v_oldest
        from (
            select *, path_end(path, first_seq, last_seq) as path_end
            from conversations where id = any (p_conversation_ids) order by id
            for no key update skip locked
        ) c;
    end if;
    if p_sizes is not null then
        v_request := array(
            select r.n
            from unnest(p_sizes) with ordinality as r (size, n), generate_series(1, r.size)
            order by r.n);
    elsif p_actors is not null or p_check then
        v_request := array(select generate_series(1, cardinality(p_ids)));
    end if;

    -- The usual case refuses nobody: the service, or owners in their assistant conversations.  A
    -- conversation that is not there is found out below when nobody's right is asked about.
    if (p_actors is not null or p_check) and exists (
        select
        from unnest(p_conversation_ids, p_actors) as r (conversation_id, actor)
        left join unnest(v_id, v_owner, v_assistant) as c (id, owner, assistant)
            on c.id = r.conversation_id
        where c.id is null or (r.actor is not null and not (r.actor = c.owner and c.assistant))
    ) then
        -- Members, and a room's owner, speak for themselves only: role user.
        v_refused := array(
            select case
                when c.id is null then absent_conversation(r.conversation_id)
                when r.actor is null or (r.actor = c.owner and c.assistant) then null
                when p.role is null then 'not-found'
                when p.role = 'viewer' or exists (
                    select from unnest(p_roles, v_request) as m (role, request)
                    where m.request = r.n and m.role <> 'user') then 'forbidden'
            end
            from unnest(p_conversation_ids, p_actors) with ordinality as r (conversation_id, actor, n)
            left join unnest(v_id, v_owner, v_assistant) as c (id, owner, assistant)
                on c.id = r.conversation_id
            left join participants p on p.conversation_id = r.conversation_id
                and p.user_id = r.actor and p.left_at is null
            order by r.n);
    end if;

    if p_check then
        -- After the lock, so that whatever an earlier holder committed is seen.  limit 1 makes it one
        -- index probe per id: a plain join may read a whole conversation instead (43 ms for 0.3).
        select array_agg(k.n), array_agg(k.seq), array_agg(k.other) into v_found, v_seqs, v_other
        from (
            -- a hash is null when erased: the answer is the tombstone
            select r.n::integer as n, m.seq, coalesce(m.request_hash <> r.hash, false) as other
            from unnest(p_ids, p_hashes, v_request) with ordinality as r (id, hash, request, n)
            cross join lateral (
                select m.seq, m.request_hash from messages m
                where m.conversation_id = p_conversation_ids[r.request] and m.id = r.id
                limit 1
            ) m
            where v_refused[r.request] is null
        ) k;
        if v_found is not null then
            v_known := array_fill(null::bigint, array[cardinality(p_ids)]);
            for i in 1 .. cardinality(v_found) loop
                v_known[v_found[i]] := v_seqs[i];
                if v_other[i] then
                    v_refused := coalesce(
                        v_refused, array_fill(null::text, array[cardinality(p_conversation_ids)]));
                    v_refused[v_request[v_found[i]]] := 'id-reused';
                end if;
            end loop;
        end if;
    end if;

    if true = any (v_archived) then
        -- An archived conversation still answers for what it has, and takes nothing new.
        v_refused := array(
            select case
                when v_refused[r.n] is not null then v_refused[r.n]
                when c.archived and exists (
                    select from unnest(p_ids, v_request) with ordinality as m (id, request, n)
                    where coalesce(m.request, m.n) = r.n and v_known[m.n] is null) then 'archived'
            end
            from unnest(p_conversation_ids) with ordinality as r (conversation_id, n)
            left join unnest(v_id, v_archived) as c (id, archived) on c.id = r.conversation_id
            order by r.n);
    end if;

    return query
        with asked as (
            select m.*, c.*, r.request, r.conversation_id,
                c.id is not null and v_refused[r.request] is null and v_known[m.n] is null as is_new,
                is_said(m.role, m.content, m.parts)::integer as says,
                is_tool_traffic(m.role, m.content, m.parts, m.tool_calls)::integer as works
            from unnest(
                v_request, p_ids, p_hashes, p_roles, p_author_ids, p_author_names, p_written_by,
                p_contents, p_parts::json[], p_tool_calls::json[], p_tool_call_ids, p_names,
                p_reasonings, p_metadata::jsonb[], p_said_at
            ) with ordinality as m (
                of_request, message_id, hash, role, author_id, author_name, written_by,
                content, parts, tool_calls, tool_call_id, name,
                reasoning, metadata, said_at, n
            )
            cross join lateral (
                select coalesce(m.of_request, m.n) as request,
                    p_conversation_ids[coalesce(m.of_request, m.n)] as conversation_id
            ) r
            left join unnest(v_id, v_owner, v_assistant, v_last, v_end, v_rev, v_updated, v_said, v_tool)
                as c (id, owner, assistant, last, path_end, last_rev, updated, said, tool)
                on c.id = r.conversation_id
        ), numbered as materialized (
            select a.*,
                a.last + row_number() over w as seq,
                case when row_number() over w = 1 then a.path_end
                     else a.last + row_number() over w - 1 end as parent,
                -- the same order as w, so that one sort serves both
                a.last_rev + dense_rank() over (
                    partition by a.conversation_id, a.is_new order by a.request) as rev,
                greatest(v_now, a.updated) as at,
                coalesce(
                    a.author_id, case when a.assistant and a.role = 'user' then a.owner end) as author,
                a.said + sum(a.says) over w as said_no,
                a.tool + sum(a.works) over w as tool_no
            from asked a
            window w as (partition by a.conversation_id, a.is_new order by a.request, a.n)
        ), inserted as (
            insert into messages (
                conversation_id, seq, id, request_hash, parent_seq, role, author_id, author_name,
                written_by, content, parts, tool_calls, tool_call_id, name, reasoning, created_at,
                said_at, rev, said_no, tool_no, metadata
            )
            select m.conversation_id, m.seq, m.message_id, m.hash, m.parent, m.role, m.author, m.author_name,
                m.written_by, m.content, m.parts, m.tool_calls, m.tool_call_id, m.name, m.reasoning,
                m.at, m.said_at, m.rev, m.said_no, m.tool_no, m.metadata
            from numbered m
            where m.is_new
        ), counted as (
            update conversations c set
                last_seq = g.seq, rev = g.rev, message_count = c.message_count + g.many,
                said_total = g.said, tool_total = g.tool, updated_at = g.at,
                listed_at = case
                    when g.at > c.listed_at + interval '10 minutes' then g.at else c.listed_at end
            from (
                select m.conversation_id as id, max(m.seq) as seq, max(m.rev) as rev, max(m.at) as at,
                    max(m.said_no) as said, max(m.tool_no) as tool, count(*) as many
                from numbered m
                where m.is_new
                group by m.conversation_id
            ) g
            where c.id = g.id and c.id = any (p_conversation_ids)
        )
        select
            case when m.is_new then 'stored'
                 when v_refused[m.request] is not null then v_refused[m.request]
                 when m.id is null then absent_conversation(m.conversation_id)
                 else 'replayed' end,
            case when m.is_new then m.seq when v_refused[m.request] is null then v_known[m.n] end,
            case when m.is_new then m.parent end,
            case when m.is_new then m.rev end,
            case when m.is_new then m.at end,
            case when m.is_new then m.author end
        from numbered m
        order by m.n;

    if v_now > v_oldest + interval '10 minutes' then
        perform touch_listings_v1(array(
            select c.id
            from unnest(v_id, v_listed) as old (id, listed_at)
            join conversations c on c.id = old.id
            where c.listed_at <> old.listed_at
        ));
    end if;
    if exists (select from endpoints) and (p_said_at is null or exists (
        select from unnest(p_said_at) s where s is null or s > v_now - interval '1 day')) then
        perform enqueue_out_v1(array_agg(c.id), array_agg(old.last + 1), array_agg(c.last_seq))
        from unnest(v_id, v_last) as old (id, last)
        join conversations c on c.id = old.id
        where c.last_seq > old.last;
    end if;
end $$;
