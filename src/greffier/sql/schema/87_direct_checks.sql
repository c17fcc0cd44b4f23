-- Direct access, what is asked for: checked and hashed here as model/draft.py and change/*.py do
-- for the server, with the default limits (those a server is set to do not reach here).
--
-- The hash is another one than the server's, so an id used over HTTP and again in SQL is id-reused.

set search_path = greffier;

-- Refuses a text that is too long, or empty where it says something.
create function check_text(
    p_text text, p_field text, p_most integer, p_least integer default 0
) returns void
language plpgsql immutable as $$
begin
    if octet_length(p_text) > p_most then
        raise exception using errcode = 'GR422',
            message = format('%s: at most %s bytes are accepted', p_field, p_most);
    end if;
    if octet_length(p_text) < p_least then
        raise exception using errcode = 'GR422', message = p_field || ': it may not be empty';
    end if;
end $$;

-- Refuses what is no JSON object of at most 16 KiB.
create function check_metadata(p_metadata json) returns void
language plpgsql immutable as $$
begin
    if json_typeof(p_metadata) not in ('object', 'null') then
        raise exception using errcode = 'GR422', message = 'metadata: an object';
    end if;
    perform check_text(p_metadata::text, 'metadata', 16384);
    -- Refuses what json lets pass and a text cannot hold: NUL, half a surrogate pair.
    perform p_metadata::jsonb;
end $$;

-- A list that was given and has something in it, else null.
create function given_list(p_list json) returns json
language sql immutable parallel safe
return case json_typeof(p_list)
    when 'array' then case when json_array_length(p_list) > 0 then p_list end end;

-- The text of content parts, one part a line.
create function parts_text(p_parts json) returns text
language sql immutable parallel safe
return (
    select string_agg(p ->> 'text', e'\n' order by n)
    from json_array_elements(p_parts) with ordinality x (p, n)
    where json_typeof(p -> 'text') = 'string');

-- Refuses a message that model/draft.py would refuse.
create function check_draft(m json) returns void
language plpgsql stable as $$
declare
    c_texts constant text[] := '{id,role,content,tool_call_id,name,reasoning,said_at}';
    v_problem text;
    v_role text;
    v_parts boolean;
    v_calls boolean;
    v_key text;
    p json;
begin
    if json_typeof(m) is distinct from 'object' then
        raise exception using errcode = 'GR422', message = 'a message is an object';
    end if;
    for v_key in select json_object_keys(m) loop
        if v_key <> all (c_texts || array['parts', 'tool_calls', 'metadata']) then
            raise exception using errcode = 'GR422', message = 'a message has no field ' || v_key;
        end if;
        if v_key = any (c_texts) and json_typeof(m -> v_key) not in ('string', 'null') then
            raise exception using errcode = 'GR422', message = v_key || ': a text';
        end if;
    end loop;
    perform check_text(m ->> 'content', 'content', 262144);
    perform check_text(m ->> 'reasoning', 'reasoning', 262144);
    perform check_text(m ->> 'name', 'name', 256);
    perform check_text(m ->> 'tool_call_id', 'tool_call_id', 256);
    perform check_text((m -> 'parts')::text, 'parts', 262144);
    perform check_text((m -> 'tool_calls')::text, 'tool_calls', 262144);
    perform check_metadata(m -> 'metadata');
    v_role := coalesce(m ->> 'role', 'user');
    v_parts := given_list(m -> 'parts') is not null;
    v_calls := given_list(m -> 'tool_calls') is not null;
    v_problem := case
        when v_role not in ('user', 'assistant', 'tool', 'system')
                or json_typeof(m -> 'role') = 'null'
            then 'role: one of user, assistant, tool, system'
        when json_typeof(m -> 'parts') not in ('array', 'null') then 'parts: a list'
        when json_typeof(m -> 'tool_calls') not in ('array', 'null') then 'tool_calls: a list'
        when v_role = 'user' and coalesce(m ->> 'content', '') = '' and not v_parts
            then 'content: a message of role user needs content or parts'
        when v_role in ('tool', 'system') and m ->> 'content' is null and not v_parts
            then 'content: a message of role ' || v_role || ' needs content'
        when v_role = 'tool' and coalesce(m ->> 'tool_call_id', '') = ''
            then 'tool_call_id: a tool''s result names the call it answers'
        when v_role <> 'tool' and m ->> 'tool_call_id' is not null
            then 'tool_call_id: only a message of role tool answers a call'
        when v_role <> 'assistant' and v_calls
            then 'tool_calls: only a message of role assistant calls tools'
        when v_role <> 'assistant' and m ->> 'reasoning' is not null
            then 'reasoning: only a message of role assistant has reasoning'
        when m ->> 'said_at' !~ '^[0-9]{4}-.+(Z|[+-][0-9]{2}(:?[0-9]{2})?)$'
            then 'said_at: a time names its offset from UTC'
        when (m ->> 'said_at')::timestamptz not between '0002-01-01 UTC' and '9998-12-31 UTC'
            then 'said_at: a time between the years 2 and 9998'
    end;
    if v_problem is null and v_parts then
        perform (m -> 'parts')::jsonb;
        for p in select json_array_elements(m -> 'parts') loop
            v_problem := coalesce(v_problem, case
                when json_typeof(p) <> 'object'
                        or json_typeof(p -> 'type') is distinct from 'string'
                    then 'parts: a content part has a type'
                when p ->> 'type' = 'text' and json_typeof(p -> 'text') is distinct from 'string'
                    then 'parts: a text part has a text'
            end);
        end loop;
        if v_problem is null and m ->> 'content' <> coalesce(parts_text(m -> 'parts'), '') then
            v_problem := 'content: with parts, content is their text';
        end if;
    end if;
    if v_problem is null and v_calls then
        perform (m -> 'tool_calls')::jsonb;
        for p in select json_array_elements(m -> 'tool_calls') loop
            if json_typeof(p) <> 'object'
               or json_typeof(p -> 'id') is distinct from 'string'
               or coalesce(p ->> 'type', 'function') <> 'function'
               or json_typeof(p -> 'function') is distinct from 'object'
               or json_typeof(p -> 'function' -> 'name') is distinct from 'string'
               or json_typeof(p -> 'function' -> 'arguments') is distinct from 'string' then
                v_problem := 'tool_calls: a call has an id, and a function with name and arguments';
            end if;
        end loop;
    end if;
    if v_problem is not null then
        raise exception using errcode = 'GR422', message = v_problem;
    end if;
end $$;

-- Tool calls as the API shows them, whatever else was in them.
create function calls_as_shown(p_calls json) returns json
language sql immutable parallel safe
return (
    select json_agg(json_build_object('id', p -> 'id', 'function', json_build_object(
        'name', p -> 'function' -> 'name', 'arguments', p -> 'function' -> 'arguments'),
        'type', 'function') order by n)
    from json_array_elements(p_calls) with ordinality x (p, n));

-- What was asked for, hashed; jsonb, so that spelling does not matter.  A time goes in as text: in
-- JSON it would be in the session's time zone.
create function asked_hash(p_asked jsonb) returns bytea
language sql immutable parallel safe
return sha256(convert_to(p_asked::text, 'UTF8'));

-- Refuses with what append_message_v1 answers when it stores nothing.
create function refuse_outcome(p_outcome text) returns void
language plpgsql immutable as $$
begin
    case p_outcome
    when 'stored', 'replayed' then
        return;
    when 'not-found' then
        raise exception using errcode = 'GR404', message = 'no such conversation';
    when 'forbidden' then
        raise exception using errcode = 'GR403', message = 'your role here does not allow this';
    when 'gone' then
        raise exception using errcode = 'GR410', message = 'this conversation was erased';
    when 'archived' then
        raise exception using errcode = 'GR419', message = 'the conversation is archived';
    when 'id-reused' then
        raise exception using errcode = 'GR409', message = 'this id names another message';
    when 'agent-fixed' then
        raise exception using errcode = 'GR439', message = 'the conversation has another agent';
    end case;
end $$;
