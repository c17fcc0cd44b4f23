-- Direct access, writing: one door, greffier_me.request, a view of one row whose first column is
-- the caller's current_user.  UPDATE says in it what is wanted.  Its trigger runs as the owner,
-- takes from the OLD row who asks, and calls what the server calls, as that actor.
--
-- The view made the OLD row, so neither a client nor a trigger of theirs can forge it.  A SECURITY
-- DEFINER function for each verb could not know its caller: in it current_user is the definer, and
-- session_user and the setting `role` name the session, also where another definer's function asks.

set search_path = greffier;

-- Promise: a UUID version 7 (RFC 9562): by time, so that an index on it grows at its end.
-- Locks:   none.
create function uuid7_v1() returns uuid
language sql parallel safe
return encode(set_bit(set_bit(overlay(
    uuid_send(gen_random_uuid())
    placing substring(int8send((extract(epoch from clock_timestamp()) * 1000)::bigint) from 3)
    from 1 for 6), 52, 1), 53, 1), 'hex')::uuid;

-- Promise: the messages are on record as the user's, all or none, in one rev; those that were there
--          keep their numbers.  Returns each one's seq and id.
-- Locks:   the conversation's row.
create function direct_append_v1(p_user text, p_conversation_id uuid, p_messages json) returns json
language plpgsql as $$
declare
    v_name text := (select name from users where id = p_user);
    v_answer json;
begin
    if json_typeof(p_messages) is distinct from 'array' then
        raise exception using errcode = 'GR422', message = 'messages: a list';
    end if;
    if json_array_length(p_messages) not between 1 and 100 then
        raise exception using errcode = 'GR422', message = 'messages: a list of 1 to 100';
    end if;
    perform check_draft(value) from json_array_elements(p_messages);
    if exists (
        select from json_array_elements(p_messages) m
        where m ->> 'id' is not null group by (m ->> 'id')::uuid having count(*) > 1
    ) then
        raise exception using errcode = 'GR422', message = 'messages: an id stands twice';
    end if;
    with draft as (
        select n, coalesce((m ->> 'id')::uuid, uuid7_v1()) as id,
            coalesce(m ->> 'role', 'user') as role,
            coalesce(m ->> 'content', parts_text(parts)) as content, parts,
            calls_as_shown(calls) as calls, m ->> 'tool_call_id' as tool_call_id,
            m ->> 'name' as name, m ->> 'reasoning' as reasoning,
            nullif((m ->> 'metadata')::jsonb, '{}') as metadata,
            (m ->> 'said_at')::timestamptz as said_at,
            case when coalesce(m ->> 'role', 'user') = 'user' then p_user end as author_id
        from json_array_elements(p_messages) with ordinality x (m, n)
        cross join lateral (
            select given_list(m -> 'parts') as parts, given_list(m -> 'tool_calls') as calls
        ) j
    ), hashed as (
        select d.*, asked_hash(jsonb_build_array(
            role, content, tool_call_id, name, reasoning, author_id, rfc3339(said_at), parts, calls,
            metadata)) as hash
        from draft d
    ), asked as (
        select array_agg(id order by n) as ids, array_agg(hash order by n) as hashes,
            array_agg(role order by n) as roles, array_agg(author_id order by n) as author_ids,
            array_agg(case when author_id is not null then v_name end order by n) as author_names,
            array_agg(p_user order by n) as written_by, array_agg(content order by n) as contents,
            array_agg(parts::text order by n) as parts, array_agg(calls::text order by n) as calls,
            array_agg(tool_call_id order by n) as tool_call_ids,
            array_agg(name order by n) as names, array_agg(reasoning order by n) as reasonings,
            array_agg(metadata::text order by n) as metadata,
            array_agg(said_at order by n) as said_at
        from hashed
    ), answer as (
        select b.*, a.ids
        from asked a
        cross join lateral append_batch_v1(
            route(p_conversation_id), array[p_conversation_id], array[p_user],
            array[json_array_length(p_messages)], a.ids, a.hashes, a.roles, a.author_ids,
            a.author_names, a.written_by, a.contents, a.parts, a.calls, a.tool_call_ids, a.names,
            a.reasonings, a.metadata, a.said_at, true, true
        ) with ordinality b (outcome, seq, parent_seq, rev, created_at, author_id, n)
    )
    select json_agg(json_build_object('outcome', outcome, 'seq', seq, 'id', ids[n]) order by n)
    into v_answer
    from answer;
    perform refuse_outcome(value ->> 'outcome') from json_array_elements(v_answer);
    return v_answer;
end $$;

-- Promise: as say_on_subject_v1, for words and nothing else.
-- Locks:   subject slot, conversation, users by id.
create function direct_say_v1(p_user text, a json) returns json
language plpgsql as $$
declare
    v_content text := a ->> 'content';
    v_id uuid := (a ->> 'id')::uuid;
    v_made uuid := uuid7_v1();
    v_said record;
begin
    perform check_text(coalesce(a ->> 'subject', ''), 'subject', 256, 1);
    perform check_draft(json_build_object('content', v_content));
    select * into v_said from say_on_subject_v1(
        p_user, a ->> 'subject', (a ->> 'agent_id')::uuid, v_made,
        encode(substring(asked_hash(to_jsonb(v_made)) for 16), 'hex')::uuid,
        coalesce(v_id, uuid7_v1()),
        -- as direct_append_v1 hashes the same words
        asked_hash(jsonb_build_array(
            'user', v_content, null, null, null, p_user, null, null, null, null)),
        (select name from users where id = p_user), p_user, v_content, v_id is null);
    perform refuse_outcome(v_said.outcome);
    return json_build_object('conversation_id', v_said.conversation_id, 'seq', v_said.seq);
end $$;

-- Promise: as create_conversation_v1, with the user as its owner.  Returns its id.
-- Locks:   subject slot, conversation, users by id.
create function direct_create_v1(p_user text, a json) returns uuid
language plpgsql as $$
declare
    v_id uuid := coalesce((a ->> 'id')::uuid, uuid7_v1());
    v_kind text := coalesce(a ->> 'kind', 'assistant');
    v_limit integer := coalesce((a ->> 'history_limit')::integer, 30);
    v_members text[];
begin
    perform check_text(a ->> 'title', 'title', 1000);
    perform check_text(a ->> 'subject', 'subject', 256, 1);
    perform check_metadata(a -> 'metadata');
    if v_kind not in ('assistant', 'room') then
        raise exception using errcode = 'GR422', message = 'kind: assistant or room';
    end if;
    if v_limit not between 0 and 10000 then
        raise exception using errcode = 'GR422', message = 'history_limit: from 0 to 10000';
    end if;
    select array_agg(distinct m) into v_members
    from json_array_elements_text(
        case json_typeof(a -> 'members') when 'array' then a -> 'members' else '[]' end) m
    where m is distinct from p_user;
    perform check_text(coalesce(m, ''), 'members', 256, 1) from unnest(v_members) m;
    perform create_conversation_v1(
        v_id,
        encode(substring(asked_hash(jsonb_build_array(
            v_kind, coalesce(a ->> 'title', ''), a ->> 'subject', a ->> 'agent_id', v_limit,
            coalesce((a ->> 'metadata')::jsonb, '{}'), coalesce(v_members, '{}'), p_user
        )) for 16), 'hex')::uuid,
        v_kind, coalesce(a ->> 'title', ''), a ->> 'subject', (a ->> 'agent_id')::uuid, p_user,
        v_limit, coalesce((a ->> 'metadata')::jsonb, '{}'), coalesce(v_members, '{}'),
        array_fill('member'::text, array[coalesce(cardinality(v_members), 0)]));
    return v_id;
end $$;

-- Promise: as patch_conversation_v1; what is not given stays as it is.
-- Locks:   subject slot (only to archive or bring back), conversation, users by id.
create function direct_patch_v1(p_user text, a json) returns bigint
language plpgsql as $$
begin
    perform check_text(a ->> 'title', 'title', 1000);
    perform check_metadata(a -> 'metadata');
    if (a ->> 'history_limit')::integer not between 0 and 10000 then
        raise exception using errcode = 'GR422', message = 'history_limit: from 0 to 10000';
    end if;
    return patch_conversation_v1(
        (a ->> 'conversation_id')::uuid, p_user, (a ->> 'if_rev')::bigint, a ->> 'title',
        (a ->> 'metadata')::jsonb, (a ->> 'history_limit')::integer, (a ->> 'archived')::boolean);
end $$;

-- Promise: as invite_v1.  Returns the token, which is kept nowhere.
-- Locks:   the conversation's row.
create function direct_invite_v1(p_user text, a json) returns text
language plpgsql as $$
declare
    v_seconds double precision := coalesce((a ->> 'seconds')::double precision, 7 * 86400);
    v_role text := coalesce(a ->> 'role', 'member');
    -- 244 random bits
    v_token text := 'gri_' || rtrim(translate(encode(
        uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()), 'base64'), '+/', '-_'), '=');
begin
    if v_role not in ('member', 'viewer') then
        raise exception using errcode = 'GR422', message = 'role: member or viewer';
    end if;
    if v_seconds not between 1 and 365 * 86400 then
        raise exception using errcode = 'GR422', message = 'expires_in: from 1 second to a year';
    end if;
    if (a ->> 'max_uses')::integer < 1 then
        raise exception using errcode = 'GR422', message = 'max_uses: a number from 1';
    end if;
    perform invite_v1(
        (a ->> 'conversation_id')::uuid, p_user, uuid7_v1(), sha256(convert_to(v_token, 'UTF8')),
        v_role, make_interval(secs => v_seconds), (a ->> 'max_uses')::integer, p_user);
    return v_token;
end $$;

-- Promise: what the verb asks for is done as this user; the answer is the verb's own.
-- Locks:   as the verb's.
create function direct_verb_v1(p_user text, p_verb text, a json) returns json
language plpgsql as $$
declare
    v_id uuid := (a ->> 'conversation_id')::uuid;
    v_answer json;
begin
    case p_verb
    when 'append' then
        v_answer := direct_append_v1(p_user, v_id, a -> 'messages');
    when 'say' then
        v_answer := direct_say_v1(p_user, a);
    when 'create' then
        v_answer := to_json(direct_create_v1(p_user, a));
    when 'patch' then
        v_answer := to_json(direct_patch_v1(p_user, a));
    when 'erase' then
        perform erase_conversation_v1(v_id, p_user);
    when 'edit' then
        perform check_text(coalesce(a ->> 'content', ''), 'content', 262144, 1);
        v_answer := to_json(edit_message_v1(
            v_id, p_user, (a ->> 'seq')::bigint, a ->> 'content', (a ->> 'if_rev')::bigint,
            p_user));
    when 'delete' then
        v_answer := to_json(delete_message_v1(
            v_id, p_user, (a ->> 'seq')::bigint, coalesce((a ->> 'erase')::boolean, false)));
    when 'rewind' then
        v_answer := (
            select to_json(removed) from rewind_v1(
                v_id, p_user, coalesce((a ->> 'after')::bigint, -1), uuid7_v1()));
    when 'activate' then
        v_answer := to_json(activate_branch_v1(
            v_id, p_user, (a ->> 'branch_id')::uuid, uuid7_v1()));
    when 'read' then
        v_answer := (
            select to_json(last_read_seq) from read_upto_v1(
                v_id, p_user, coalesce((a ->> 'seq')::bigint, 0)));
    when 'rate' then
        if (a ->> 'rating')::integer not in (1, -1) then
            raise exception using errcode = 'GR422', message = 'rating: 1 or -1';
        end if;
        perform check_text(a ->> 'comment', 'comment', 4096);
        v_answer := to_json(rate_v1(
            v_id, p_user, coalesce((a ->> 'seq')::bigint, 0), (a ->> 'rating')::smallint,
            a ->> 'comment'));
    when 'set_participant' then
        perform check_text(coalesce(a ->> 'user_id', ''), 'user_id', 256, 1);
        if coalesce(a ->> 'role', '') not in ('owner', 'member', 'viewer') then
            raise exception using errcode = 'GR422', message = 'role: owner, member or viewer';
        end if;
        v_answer := to_json(set_participant_v1(
            v_id, p_user, a ->> 'user_id', a ->> 'role', false, p_user, uuid7_v1()));
    when 'remove_participant' then
        v_answer := to_json(remove_participant_v1(
            v_id, p_user, coalesce(a ->> 'user_id', p_user), p_user, uuid7_v1()));
    when 'invite' then
        v_answer := to_json(direct_invite_v1(p_user, a));
    when 'revoke' then
        perform revoke_invitation_v1(v_id, p_user, (a ->> 'invitation_id')::uuid);
    when 'accept' then
        v_answer := to_json(accept_invitation_v1(
            sha256(convert_to(a ->> 'token', 'UTF8')), p_user, uuid7_v1()));
    else
        raise exception using errcode = 'GR422', message = 'no such verb';
    end case;
    return v_answer;
end $$;

create view greffier_me.request with (security_barrier) as
select current_user as caller, null::text as verb, null::json as arguments, null::json as answer;

-- Promise: whoever the OLD row says asks, and nobody else, has done what NEW asks for.  A role that
--          is nobody here is refused, for a null actor would be the service.
-- How:     only as the trigger of that view, should its use be granted to somebody by mistake.
--          In READ COMMITTED: under an older snapshot an erased id would look free again.  A commit
--          is on disk before it is acknowledged, whatever the role's default is.  Those who follow
--          hear of it as of the server's own writes (publish/bus.py); NOTIFY in the write makes
--          only writes of this kind wait for each other.
-- Locks:   as the verb's.
create function serve_request_v1() returns trigger
language plpgsql security definer
set search_path = greffier, pg_temp
set plan_cache_mode = force_generic_plan
as $$
declare
    v_user text;
    v_touched uuid;
begin
    if tg_relid <> 'greffier_me.request'::regclass or tg_op <> 'UPDATE' then
        raise exception using errcode = 'GR403',
            message = 'this is served in greffier_me.request only';
    end if;
    select user_id into v_user from database_roles where role_name = old.caller;
    if v_user is null then
        raise exception using errcode = 'GR403', message = 'this database role is nobody here',
            hint = 'Its operator admits it: greffier.admit_role_v1(role, user).';
    end if;
    if current_setting('transaction_isolation') <> 'read committed' then
        raise exception using errcode = 'invalid_transaction_state',
            message = 'writes are made at isolation level read committed';
    end if;
    if current_setting('synchronous_commit') = 'off' then
        perform set_config('synchronous_commit', 'on', true);
    end if;
    new.answer := direct_verb_v1(v_user, new.verb, new.arguments);
    v_touched := case
        when new.verb = 'rate' then null
        when new.verb in ('create', 'accept') then new.answer #>> '{}'
        when new.verb = 'say' then new.answer ->> 'conversation_id'
        else new.arguments ->> 'conversation_id'
    end;
    if v_touched is not null then
        perform pg_notify(channel('greffier_wake'), 'sql ' || replace(v_touched::text, '-', '') || case
            when new.verb in ('append', 'edit', 'delete', 'rewind', 'activate', 'read') then '.0'
            else 'p0' end);
    end if;
    return new;
end $$;

create trigger serve instead of update on greffier_me.request
    for each row execute function serve_request_v1();
-- By column: UPDATE on the whole would let one caller LOCK TABLE it against all others.
grant select, update (verb, arguments) on greffier_me.request to public;
