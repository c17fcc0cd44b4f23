-- Runs: an agent's answer, from the request to its message.  A run holds its conversation's run lane;
-- what it says is stored in batches while it says it, and becomes a message, under the next seq, only
-- at its end.  One function ends a run whatever the reason, and makes the message from what is
-- stored, so that it is the concatenation of what followers saw by construction.

set search_path = greffier;

create table runs (
    conversation_id uuid not null,
    id uuid not null,
    -- its place in the conversation's run lane
    number bigint not null,
    agent_id uuid not null,
    -- who pays
    asked_by text not null,
    -- api: somebody waits for it and asks again themselves | inbox: it is tried again by itself
    origin text not null check (origin in ('api', 'inbox')),
    status text not null default 'queued'
        check (status in ('queued', 'running', 'completed', 'interrupted', 'cancelled', 'failed')),
    request_hash bytea not null,
    -- the agent as it was when the run began
    agent json,
    last_event bigint not null default 0,
    -- the messages it became: the first, and the answer
    first_seq bigint,
    message_seq bigint,
    calls integer not null default 0,
    input_tokens bigint not null default 0,
    output_tokens bigint not null default 0,
    cached_tokens bigint not null default 0,
    cost numeric not null default 0,
    error_code text,
    error_detail text,
    -- of an ended run, its events in order: what kind, and of a delta how many characters of the
    -- message (event_mark).  The words are the messages' alone: nothing is kept twice, and what is
    -- erased there is nowhere else.
    tape integer[],
    created_at timestamptz not null,
    started_at timestamptz,
    ended_at timestamptz,
    primary key (conversation_id, id),
    unique (conversation_id, number)
) with (fillfactor = 70);

-- A run is also found by its id alone.
create table run_ids (
    run_id uuid primary key,
    conversation_id uuid not null
);

-- What a run has said so far, until it ends.
create table run_events (
    conversation_id uuid not null,
    run_id uuid not null,
    id bigint not null,
    event text not null
        check (event in ('run.started', 'reasoning.delta', 'content.delta', 'tool.call', 'tool.result')),
    -- a delta's text; a tool's JSON as the API shows it
    body text not null,
    primary key (conversation_id, run_id, id)
);

-- The journal of a run's tools: begun before, finished after.  Names and times, no words: these are
-- in the events, and then in the messages.
create table run_steps (
    conversation_id uuid not null,
    run_id uuid not null,
    step integer not null,
    call_id text not null,
    name text not null,
    begun_at timestamptz not null,
    finished_at timestamptz,
    failed boolean,
    primary key (conversation_id, run_id, step, call_id)
);

-- A run as the API shows it.
create function run_json(r runs) returns text
language sql stable
return '{"id":"' || r.id || '","conversation_id":"' || r.conversation_id
    || '","agent_id":"' || r.agent_id || '","status":"' || r.status
    || '","message_seq":' || coalesce(r.message_seq::text, 'null')
    || ',"usage":{"input_tokens":' || r.input_tokens || ',"output_tokens":' || r.output_tokens
    || ',"cached_tokens":' || r.cached_tokens || ',"cost":' || r.cost || '}'
    || ',"error":' || case when r.error_code is null then 'null' else
        '{"code":' || to_json(r.error_code) || ',"detail":'
        || coalesce(to_json(r.error_detail)::text, 'null') || '}' end
    || ',"created_at":"' || rfc3339(r.created_at)
    || '","started_at":' || coalesce('"' || rfc3339(r.started_at) || '"', 'null')
    || ',"ended_at":' || coalesce('"' || rfc3339(r.ended_at) || '"', 'null') || '}';

-- An event of an ended run in one number: its kind in the lowest four bits, a delta's length above.
create function event_mark(p_event text, p_length integer) returns integer
language sql immutable
return case p_event
    when 'run.started' then 0
    when 'content.delta' then 1 + 16 * p_length
    when 'reasoning.delta' then 2 + 16 * p_length
    when 'tool.call' then 3
    when 'tool.result' then 4
    when 'message' then 5
    when 'end' then 6
end;

-- Promise: the run is over with this status.  What it said is on record: for each question put to
--          the model its answer with the tools called, and their results, all under the next seqs, in
--          one rev; the last answer carries the run's status.  A run that said nothing leaves no
--          message, unless it completed.  Its usage is in the ledger, and its lane goes on.
-- How:     a new answer begins with what follows a tool's result: words between two calls are the same
--          answer's, or its results would stand behind another message than the one that called.
--          Deltas are joined once, at the end.
-- Locks:   none beyond the conversation's and the lane's rows, which the caller holds in that order.
create function end_run_v1(
    p_conversation conversations, p_run runs, p_status text, p_error_code text, p_error_detail text
) returns void
language plpgsql as $$
declare
    v_now timestamptz := greatest(clock_timestamp(), p_conversation.updated_at);
    v_clock timestamptz := lane_clock();
    v_said integer := p_conversation.said_total;
    v_tool integer := p_conversation.tool_total;
    v_seq bigint := p_conversation.last_seq;
    v_parent bigint := path_end(
        p_conversation.path, p_conversation.first_seq, p_conversation.last_seq);
    v_name text := p_run.agent ->> 'name';
    v_tape integer[];
    v_next uuid;
    v_last bigint;
    m record;
begin
    for m in
        with event as (
            select e.id, e.event, e.body, e.event <> 'tool.result' and coalesce(
                lag(e.event) over (order by e.id) = 'tool.result', false) as begins
            from run_events e
            where e.conversation_id = p_run.conversation_id and e.run_id = p_run.id
              and e.event <> 'run.started'
        ), part as (
            select e.*, count(*) filter (where e.begins) over (order by e.id) as part
            from event e
        ), answer as (
            select part, 0 as place, 'assistant' as role,
                coalesce(
                    string_agg(body, '' order by id) filter (where event = 'content.delta'),
                    case when not bool_or(event = 'tool.call') then '' end) as content,
                string_agg(body, '' order by id) filter (where event = 'reasoning.delta') as reasoning,
                ('[' || string_agg(
                    '{"id":' || to_json(body::json ->> 'id')
                    || ',"type":"function","function":{"name":' || to_json(body::json ->> 'name')
                    || ',"arguments":' || to_json(body::json ->> 'arguments') || '}}', ','
                    order by id) filter (where event = 'tool.call') || ']')::json as calls,
                null as call_id
            from part group by part
        ), result as (
            select part, id as place, 'tool' as role, body::json ->> 'content' as content,
                null::text as reasoning, null::json as calls, body::json ->> 'id' as call_id
            from part where event = 'tool.result'
        ), everything as (
            select * from answer union all select * from result
        )
        select x.*, x.place = 0 and x.part = max(x.part) over () as final
        from (
            select * from everything
            union all
            -- It had nothing to say, and says so.
            select 0, 0, 'assistant', '', null, null, null
            where p_status = 'completed' and not exists (select from everything)
        ) x
        order by x.part, x.place
    loop
        v_seq := v_seq + 1;
        v_said := v_said + is_said(m.role, m.content, null)::integer;
        v_tool := v_tool + is_tool_traffic(m.role, m.content, null, m.calls)::integer;
        insert into messages (
            conversation_id, seq, id, parent_seq, role, author_name, written_by, content, tool_calls,
            tool_call_id, reasoning, status, run_id, created_at, rev, said_no, tool_no
        ) values (
            p_run.conversation_id, v_seq, uuid7_v1(), v_parent, m.role,
            case when m.role = 'assistant' then v_name end, 'agent', m.content, m.calls,
            m.call_id, m.reasoning,
            case when m.final and p_status <> 'completed' then p_status else 'complete' end,
            p_run.id, v_now, p_conversation.rev + 1, v_said, v_tool
        );
        v_parent := v_seq;
        if m.final then
            v_last := v_seq;
        end if;
    end loop;
    select array_agg(event_mark(e.event, length(e.body)) order by e.id) into v_tape
    from run_events e where e.conversation_id = p_run.conversation_id and e.run_id = p_run.id;
    v_tape := v_tape
        || array_fill(event_mark('message', null), array[(v_seq - p_conversation.last_seq)::integer])
        || event_mark('end', null);
    delete from run_events e where e.conversation_id = p_run.conversation_id and e.run_id = p_run.id;
    update runs r set
        status = p_status, ended_at = v_now, error_code = p_error_code, error_detail = p_error_detail,
        first_seq = case when v_last is not null then p_conversation.last_seq + 1 end,
        message_seq = v_last, tape = v_tape, last_event = cardinality(v_tape)
    where r.conversation_id = p_run.conversation_id and r.id = p_run.id;
    insert into usage (
        user_id, at, run_id, conversation_id, agent_id, provider, model, calls, input_tokens,
        output_tokens, cached_tokens, cost
    )
    select r.asked_by, v_now, r.id, r.conversation_id, r.agent_id,
        coalesce(r.agent ->> 'provider', ''), coalesce(r.agent ->> 'model', ''), r.calls,
        r.input_tokens, r.output_tokens, r.cached_tokens, r.cost
    from runs r
    where r.conversation_id = p_run.conversation_id and r.id = p_run.id and r.started_at is not null;
    -- The inbox may have asked for another meanwhile.
    select r.id into v_next from runs r
    where r.conversation_id = p_run.conversation_id and r.number > p_run.number
      and r.status = 'queued'
    order by r.number limit 1;
    -- One that waits behind another leaves the lane to that one, and is passed over later.
    update lanes l set
        head_seq = greatest(l.head_seq, p_run.number + 1), tries = 0, token = null, owner = null,
        due_at = case when l.tail_seq > p_run.number and l.paused_at is null
                      then coalesce(case when l.token is null then l.due_at end, v_clock) end
    where l.conversation_id = p_run.conversation_id
      and l.id = lane_id(p_run.conversation_id, 'run', null)
      and p_run.id = p_conversation.active_run_id;
    update conversations c set
        active_run_id = case when p_run.id = c.active_run_id then v_next else c.active_run_id end,
        last_seq = v_seq, message_count = c.message_count + v_seq - c.last_seq,
        said_total = v_said, tool_total = v_tool
    where c.id = p_run.conversation_id;
    perform advance_v1(p_conversation, v_now);
    if v_seq > p_conversation.last_seq and exists (select from endpoints) then
        perform enqueue_out_v1(
            array[p_conversation.id], array[p_conversation.last_seq + 1], array[v_seq]);
    end if;
end $$;

-- Promise: nobody answers in the conversation any more: what runs or waits is over as p_status, in the
--          caller's transaction.  Returns the conversation's row as it is then.
-- Locks:   the conversation's row, which the caller holds; its run lane.
create function cancel_runs_v1(p_conversation conversations, p_status text) returns conversations
language plpgsql as $$
declare
    v conversations := p_conversation;
    r runs;
begin
    while v.active_run_id is not null loop
        perform from lanes l
        where l.conversation_id = v.id and l.id = lane_id(v.id, 'run', null) for no key update;
        select * into r from runs where conversation_id = v.id and id = v.active_run_id;
        perform end_run_v1(v, r, p_status, null, null);
        select * into v from conversations where id = v.id;
    end loop;
    return v;
end $$;

-- Promise: a run of the conversation's agent is asked for; with p_after the conversation is rewound to
--          there, and with p_message_id that message is on record before; all of it or nothing.
--          outcome is 'created'; 'attached' when this run is there already by the same request, or by
--          a bare one; otherwise nothing happened: run-active, quota-exceeded, no-agent, or a refusal
--          of the message as append_message_v1's.
-- How:     refusals that come after something was written are raised, so that all is undone; the
--          SQLSTATE is the refusal's.  Members ask; rewinding is the owner's.
-- Locks:   the conversation's row, its run lane.
create function start_run_v1(
    p_conversation_id uuid, p_actor text, p_run_id uuid, p_hash bytea, p_asked_by text,
    p_origin text, p_delay interval, p_after bigint, p_branch_id uuid,
    p_message_id uuid, p_message_hash bytea, p_role text, p_author_id text, p_author_name text,
    p_written_by text, p_content text, p_parts json, p_tool_calls json, p_tool_call_id text,
    p_name text, p_reasoning text, p_metadata jsonb, p_said_at timestamptz,
    out outcome text, out detail text, out run text, out rev bigint, out message_seq bigint,
    out message_stored boolean
)
language plpgsql as $$
#variable_conflict use_column
declare
    v conversations := lock_conversation_v1(p_conversation_id, p_actor, 'member');
    r runs;
    a agents;
    m record;
    v_now timestamptz := clock_timestamp();
    v_clock timestamptz := lane_clock();
    v_number bigint;
    v_before bigint := v.rev;
    v_payer text := coalesce(p_asked_by, v.owner_id);
begin
    message_stored := false;
    select * into r from runs where conversation_id = v.id and id = p_run_id;
    if found then
        if r.request_hash <> p_hash and (p_message_id is not null or p_after is not null) then
            outcome := 'id-reused';
            return;
        end if;
        outcome := 'attached';
        run := run_json(r);
        start_run_v1.rev := v.rev;
        return;
    end if;
    if exists (select from run_ids i where i.run_id = p_run_id) then
        outcome := 'id-reused';
        return;
    end if;
    if v.archived_at is not null then
        outcome := 'archived';
        return;
    end if;
    if v.active_run_id is not null then
        -- Of a worker that is lost, or has let go: whoever finds it ends it.
        perform from lanes l
        where l.conversation_id = v.id and l.id = lane_id(v.id, 'run', null)
          and (l.token is null or l.due_at <= v_clock)
        for no key update;
        if found then
            select * into r from runs where conversation_id = v.id and id = v.active_run_id;
            if r.status = 'running' then
                perform end_run_v1(v, r, 'interrupted', null, null);
                select * into v from conversations where id = v.id;
            end if;
        end if;
    end if;
    if v.active_run_id is not null then
        outcome := 'run-active';
        return;
    end if;
    select * into a from agents where id = v.agent_id and deleted_at is null;
    if not found then
        outcome := 'no-agent';
        return;
    end if;
    detail := quota_refusal(v_payer, v_now);
    if detail is not null then
        outcome := 'quota-exceeded';
        return;
    end if;
    -- First of all that is written, so that no other fault is taken for this one.
    insert into run_ids (run_id, conversation_id) values (p_run_id, v.id) on conflict do nothing;
    if not found then
        -- Asked for at once in another conversation, which we waited for.
        outcome := 'id-reused';
        return;
    end if;
    if p_after is not null then
        perform rewind_v1(v.id, p_actor, p_after, p_branch_id);
    end if;
    if p_message_id is not null then
        select x.* into m from append_message_v1(
            v.id, p_actor, p_message_id, p_message_hash, p_role, p_author_id, p_author_name,
            p_written_by, p_content, p_parts, p_tool_calls, p_tool_call_id, p_name, p_reasoning,
            p_metadata, p_said_at, false, true) x;
        if m.outcome not in ('stored', 'replayed') then
            raise exception using message = 'the message was refused: ' || m.outcome,
                errcode = case m.outcome
                    when 'forbidden' then 'GR403' when 'id-reused' then 'GR409'
                    when 'archived' then 'GR419' else 'GR404' end;
        end if;
        if m.outcome = 'replayed' and m.seq > p_after then
            -- Said before, behind the point that was rewound to: it would be gone, and nothing said.
            raise exception using
                message = 'the message is one that the rewinding takes away', errcode = 'GR409';
        end if;
        start_run_v1.message_seq := m.seq;
        message_stored := m.outcome = 'stored';
    end if;
    select coalesce(max(l.tail_seq), 0) + 1 into v_number
    from lanes l where l.conversation_id = v.id and l.id = lane_id(v.id, 'run', null);
    insert into runs (
        conversation_id, id, number, agent_id, asked_by, origin, request_hash, agent, created_at
    ) values (
        v.id, p_run_id, v_number, a.id, v_payer, p_origin, p_hash, agent_json(a)::json, v_now
    ) returning * into r;
    perform enqueue_v1(v.id, 'run', null, v_number, v_number, v_clock + p_delay);
    update conversations c set active_run_id = p_run_id where c.id = v.id;
    select c.rev into start_run_v1.rev from conversations c where c.id = v.id;
    if start_run_v1.rev = v_before then
        -- That somebody is about to answer is a change too.
        perform advance_v1(v, greatest(v_now, v.updated_at));
        start_run_v1.rev := v_before + 1;
    end if;
    outcome := 'created';
    run := run_json(r);
end $$;

-- Promise: the run at the lane's head has begun and is the caller's ('run'); or a run whose worker was
--          lost is over as interrupted ('ended'), or nothing waited or may begin ('none'); or the lane
--          is not the caller's ('zombie').  But for 'run' the lane is let go.  A lost run that the inbox
--          had asked for is asked for again, up to p_max_tries times.
-- How:     second of two statements after claim_lanes_v1.
-- Locks:   the conversation's row, its run lane.
create function begin_run_v1(
    p_conversation_id uuid, p_lane_id uuid, p_token uuid, p_lease interval, p_max_tries integer,
    out outcome text, out run_id uuid, out run text, out agent text, out asked_by text,
    out history_limit integer, out rev bigint
)
language plpgsql as $$
declare
    v conversations;
    l lanes;
    r runs;
    v_now timestamptz;
    v_clock timestamptz;
    v_again uuid;
    v_number bigint;
    v_lost integer;
begin
    select * into v from conversations c where c.id = p_conversation_id for no key update;
    l := hold_lane_v1(p_conversation_id, p_lane_id, p_token);
    if v.id is null or l.id is null then
        outcome := 'zombie';
        return;
    end if;
    v_now := clock_timestamp();
    v_clock := lane_clock();
    select * into r from runs x
    where x.conversation_id = v.id and x.number = l.head_seq;
    if l.head_seq > l.tail_seq or (r.status = 'queued' and l.paused_at is not null) then
        perform release_v1(v.id, l.id, p_token);
        outcome := 'none';
        return;
    end if;
    if r.id is null or r.status not in ('queued', 'running') then
        perform done_v1(v.id, l.id, p_token, l.head_seq, null, null, null, null);
        outcome := 'none';
        return;
    end if;
    run_id := r.id;
    if r.status = 'running' then
        perform end_run_v1(v, r, 'interrupted', null, null);
        outcome := 'ended';
        if r.origin = 'inbox' then
            -- Counted on the record: of the newest runs, those that were lost for this request.
            select count(*) into v_lost from (
                select x.status, x.origin, x.request_hash from runs x
                where x.conversation_id = v.id and x.number <= r.number
                order by x.number desc limit p_max_tries
            ) x
            where x.status = 'interrupted' and x.origin = 'inbox' and x.request_hash = r.request_hash;
            select c.active_run_id into v_again from conversations c where c.id = v.id;
            if v_lost < p_max_tries and v_again is null and v.archived_at is null then
                v_again := uuid7_v1();
                -- The lane's last: nobody enqueues without the conversation, which we hold.
                v_number := l.tail_seq + 1;
                insert into runs (
                    conversation_id, id, number, agent_id, asked_by, origin, request_hash, agent,
                    created_at
                ) values (
                    v.id, v_again, v_number, r.agent_id, r.asked_by, 'inbox', r.request_hash, r.agent,
                    v_now
                );
                insert into run_ids (run_id, conversation_id) values (v_again, v.id);
                perform enqueue_v1(v.id, 'run', null, v_number, v_number, v_clock);
                update conversations c set active_run_id = v_again where c.id = v.id;
            end if;
        end if;
        select c.rev into begin_run_v1.rev from conversations c where c.id = v.id;
        return;
    end if;
    update runs x set status = 'running', started_at = v_now, last_event = 1
    where x.conversation_id = v.id and x.id = r.id
    returning * into r;
    insert into run_events (conversation_id, run_id, id, event, body)
    values (v.id, r.id, 1, 'run.started', '');
    update lanes x set due_at = v_clock + p_lease where x.conversation_id = v.id and x.id = l.id;
    outcome := 'run';
    run := run_json(r);
    agent := r.agent;
    asked_by := r.asked_by;
    history_limit := v.history_limit;
    begin_run_v1.rev := v.rev;
end $$;

-- Promise: the run's lane, locked, when the token is still its own; otherwise null, and the refusal is
--          counted: but not of a run that was cancelled, whose holder is no zombie and was not told yet.
-- Locks:   the lane.
create function hold_run_v1(p_conversation_id uuid, p_run_id uuid, p_token uuid) returns lanes
language plpgsql as $$
declare
    v lanes;
begin
    select * into v from lanes l
    where l.conversation_id = p_conversation_id and l.id = lane_id(p_conversation_id, 'run', null)
    for no key update;
    if v.token = p_token then
        return v;
    end if;
    if exists (
        select from runs r
        where r.conversation_id = p_conversation_id and r.id = p_run_id and r.status = 'cancelled'
    ) then
        return null;
    end if;
    return hold_lane_v1(p_conversation_id, v.id, p_token);
end $$;

-- Promise: for each run its events are stored under its next ids, and its lease lasts five sixths of
--          p_lease from now at least (renewed); or it is not the caller's any more (last_event null),
--          and nothing of it is.  An event 'usage' is no event: its JSON is what the run took by now,
--          in all.  Said again by the same holder, because the answer was lost on the way, it is
--          stored once.
-- How:     many runs in one commit; p_sizes says how many events each has, p_known what the holder
--          knows of last_event.  An account replaces the one before, so that it may be said again
--          alone.  No conversation is locked: people write on while it answers.
-- Locks:   the lanes by id.
create function say_in_runs_v1(
    p_conversation_ids uuid[], p_run_ids uuid[], p_tokens uuid[], p_known bigint[],
    p_sizes integer[], p_events text[], p_bodies text[], p_lease interval
) returns table (run_id uuid, last_event bigint)
language plpgsql rows 10 as $$
#variable_conflict use_column
declare
    v_clock timestamptz := lane_clock();
    l lanes;
    q record;
    r runs;
    v_said integer;
    v_took json;
begin
    for q in
        select a.*, lane_id(a.conversation_id, 'run', null) as lane,
            sum(a.size) over (order by a.n) - a.size as skip
        from unnest(p_conversation_ids, p_run_ids, p_tokens, p_known, p_sizes)
            with ordinality as a (conversation_id, run_id, token, known, size, n)
        order by a.conversation_id, lane
    loop
        l := hold_run_v1(q.conversation_id, q.run_id, q.token);
        run_id := q.run_id;
        last_event := null;
        if l.id is not null then
            select x.* into r from runs x
            where x.conversation_id = q.conversation_id and x.id = q.run_id;
            select count(*) filter (where p_events[i.n] <> 'usage'),
                max(p_bodies[i.n]) filter (where p_events[i.n] = 'usage')
            into v_said, v_took
            from generate_series(q.skip + 1, q.skip + q.size) as i (n);
            if r.last_event = q.known then
                insert into run_events (conversation_id, run_id, id, event, body)
                select q.conversation_id, q.run_id, q.known + row_number() over (order by i.n),
                    p_events[i.n], p_bodies[i.n]
                from generate_series(q.skip + 1, q.skip + q.size) as i (n)
                where p_events[i.n] <> 'usage';
                update runs x set
                    last_event = q.known + v_said,
                    calls = coalesce((v_took ->> 'calls')::integer, x.calls),
                    input_tokens = coalesce((v_took ->> 'input_tokens')::bigint, x.input_tokens),
                    output_tokens = coalesce((v_took ->> 'output_tokens')::bigint, x.output_tokens),
                    cached_tokens = coalesce((v_took ->> 'cached_tokens')::bigint, x.cached_tokens),
                    cost = coalesce((v_took ->> 'cost')::numeric, x.cost)
                where x.conversation_id = q.conversation_id and x.id = q.run_id;
                last_event := q.known + v_said;
            elsif r.last_event = q.known + v_said then
                last_event := r.last_event;
            end if;
            if l.due_at <> renewed(l.due_at, v_clock, p_lease) then
                update lanes x set due_at = v_clock + p_lease
                where x.conversation_id = q.conversation_id and x.id = q.lane;
            end if;
        end if;
        return next;
    end loop;
end $$;

-- Promise: the run is over as its holder says, and its answer on record; returns the conversation's
--          rev, also when the run was over so before: the answer to the first time may have been lost
--          on the way.  Null: it was no longer theirs, and nothing happened.
-- Locks:   the conversation's row, its run lane.
create function finish_run_v1(
    p_conversation_id uuid, p_run_id uuid, p_token uuid, p_status text, p_error_code text,
    p_error_detail text
) returns bigint
language plpgsql as $$
declare
    v conversations;
    l lanes;
    r runs;
begin
    select * into v from conversations where id = p_conversation_id for no key update;
    select * into r from runs where conversation_id = v.id and id = p_run_id;
    if r.ended_at is not null and r.status = p_status then
        return v.rev;
    end if;
    l := hold_run_v1(p_conversation_id, p_run_id, p_token);
    if l.id is null or r.status is distinct from 'running' or r.number <> l.head_seq then
        return null;
    end if;
    perform end_run_v1(v, r, p_status, p_error_code, p_error_detail);
    return (select rev from conversations where id = v.id);
end $$;

-- Promise: the run is over as cancelled, with what it had said, and whoever speaks for it is refused
--          from now on; one that was over stays as it was.  Who takes part, and is no viewer, may.
-- Locks:   the conversation's row, its run lane.
create function cancel_run_v1(
    p_conversation_id uuid, p_actor text, p_run_id uuid, out run text, out rev bigint
)
language plpgsql as $$
declare
    v conversations := lock_conversation_v1(p_conversation_id, p_actor, 'member');
    r runs;
begin
    perform from lanes l
    where l.conversation_id = v.id and l.id = lane_id(v.id, 'run', null) for no key update;
    select * into r from runs where conversation_id = v.id and id = p_run_id;
    if not found then
        raise exception using errcode = 'GR404', message = 'no such run';
    end if;
    if r.status in ('queued', 'running') then
        perform end_run_v1(v, r, 'cancelled', null, null);
        select * into r from runs where conversation_id = v.id and id = p_run_id;
    end if;
    run := run_json(r);
    select c.rev into cancel_run_v1.rev from conversations c where c.id = v.id;
end $$;

-- Promise: it is on record that the run's holder is about to call a tool, and they may; false when the
--          run is not theirs, or this call was begun before.
-- Locks:   the lane.
create function begin_step_v1(
    p_conversation_id uuid, p_run_id uuid, p_token uuid, p_step integer, p_call_id text, p_name text
) returns boolean
language plpgsql as $$
declare
    l lanes := hold_run_v1(p_conversation_id, p_run_id, p_token);
    v_now timestamptz := clock_timestamp();
begin
    if l.id is null then
        return false;
    end if;
    insert into run_steps (conversation_id, run_id, step, call_id, name, begun_at)
    values (p_conversation_id, p_run_id, p_step, p_call_id, p_name, v_now)
    on conflict do nothing;
    return found;
end $$;

-- Promise: it is on record that the tool has answered, or failed.  False when the run is not theirs.
-- Locks:   the lane.
create function finish_step_v1(
    p_conversation_id uuid, p_run_id uuid, p_token uuid, p_step integer, p_call_id text,
    p_failed boolean
) returns boolean
language plpgsql as $$
declare
    l lanes := hold_run_v1(p_conversation_id, p_run_id, p_token);
    v_now timestamptz := clock_timestamp();
begin
    if l.id is null then
        return false;
    end if;
    update run_steps s set finished_at = v_now, failed = p_failed
    where s.conversation_id = p_conversation_id and s.run_id = p_run_id and s.step = p_step
      and s.call_id = p_call_id;
    return found;
end $$;
