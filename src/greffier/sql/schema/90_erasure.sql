-- Erasure: content that is gone at once from every table, with only the id remembered.

set search_path = greffier;

-- Promise: nothing of the conversation is left but its id among the erased; its owner alone may.
--          Erasing what was erased answers gone.
-- Locks:   contacts, subject slot, conversation, run lane, users by id, lanes, endpoints.
create function erase_conversation_v1(p_id uuid, p_actor text) returns void
language plpgsql as $$
declare
    v_contacts bigint := hold_contacts_v1(p_id);
    v_slot uuid := hold_subject_v1(p_id, p_actor);
    v conversations := cancel_runs_v1(lock_conversation_v1(p_id, p_actor, 'owner'), 'cancelled');
    v_now timestamptz := clock_timestamp();
    v_users text[];
begin
    if v_slot = p_id then
        delete from subject_slots
        where owner_id = v.owner_id and subject = v.subject and conversation_id = p_id;
    end if;
    -- Now from those who rate too, who share the row.
    perform from conversations where id = p_id for update;
    insert into erased (conversation_id, erased_at) values (p_id, v_now);
    select array_agg(user_id) into v_users
    from participants where conversation_id = p_id and left_at is null;
    -- The tombstone keeps who had it, so that a list that was away learns of the removal.
    update listings l set removed_at = v_now, subject = null, list_rev = a.list_rev
    from advance_lists_v1(v_users) a
    where l.user_id = a.user_id and l.conversation_id = p_id;
    delete from messages where conversation_id = p_id;
    delete from message_versions where conversation_id = p_id;
    delete from branches where conversation_id = p_id;
    delete from path_changes where conversation_id = p_id;
    delete from feedback where conversation_id = p_id;
    delete from read_marks where conversation_id = p_id;
    delete from invitation_tokens where conversation_id = p_id;
    delete from invitations where conversation_id = p_id;
    delete from participants where conversation_id = p_id;
    delete from run_ids i using runs r where r.conversation_id = p_id and i.run_id = r.id;
    delete from run_steps where conversation_id = p_id;
    delete from run_events where conversation_id = p_id;
    delete from runs where conversation_id = p_id;
    delete from attempts where conversation_id = p_id;
    delete from receipts where conversation_id = p_id;
    delete from conversation_endpoints where conversation_id = p_id;
    -- The inbox keeps that an external id was there, so that it cannot bring the words back.
    delete from source_contacts where conversation_id = p_id;
    delete from lanes where conversation_id = p_id;
    perform from endpoints where only_conversation_id = p_id for update;
    delete from endpoint_slots s using endpoints e
    where e.only_conversation_id = p_id and s.endpoint_id = e.id;
    delete from endpoints where only_conversation_id = p_id;
    delete from conversations where id = p_id;
end $$;

-- Promise: in this conversation nothing names the user any more: what they said to others stays,
--          under a name that belongs to nobody and is another one in every conversation.  Their own
--          room goes to the member who has been there longest, or is erased when there is none, as
--          an assistant's conversation is.  All of it is one rev.  Returns whether the conversation
--          was erased; null when nothing in it named them, which changes nothing, so that it may be
--          asked again.
-- Locks:   contacts, subject slot, conversation, users by id (erasure).
create function forget_user_in_v1(p_conversation_id uuid, p_user text, p_alias text) returns boolean
language plpgsql as $$
declare
    v_contacts bigint := hold_contacts_v1(p_conversation_id);
    v_slot uuid := hold_subject_v1(p_conversation_id, p_user);
    v conversations;
    v_now timestamptz;
    v_heir text;
    v_rows bigint;
    v_found bigint := 0;
begin
    delete from listings where conversation_id = p_conversation_id and user_id = p_user
        and not exists (select from conversations where id = p_conversation_id);
    select * into v from conversations where id = p_conversation_id for no key update;
    if not found then
        return null;
    end if;
    v_now := greatest(clock_timestamp(), v.updated_at);
    if v.owner_id = p_user then
        if v.kind = 'room' then
            select user_id into v_heir from participants
            where conversation_id = p_conversation_id and user_id <> p_user and left_at is null
            order by role = 'viewer', joined_at, user_id
            limit 1;
        end if;
        if v_heir is null then
            perform erase_conversation_v1(p_conversation_id, null);
            delete from listings where conversation_id = p_conversation_id and user_id = p_user;
            return true;
        end if;
        if v_slot = v.id then
            delete from subject_slots
            where owner_id = p_user and subject = v.subject and conversation_id = v.id;
        end if;
        -- Where they wanted its words sent is theirs.
        perform delete_endpoint_v1(e.id, null, true) from endpoints e
        where e.only_conversation_id = v.id and e.created_by = p_user;
        perform hand_over_v1(v, v_heir);
    end if;
    perform revoke_invitations_of_v1(v.id, p_user, v_now);
    -- "Ada joined", before anybody changed it
    delete from message_versions h using messages m
    where h.conversation_id = v.id and m.conversation_id = v.id and m.seq = h.seq
      and m.role = 'system' and m.metadata ? 'greffier_event' and m.metadata ->> 'user_id' = p_user;
    update messages set
        author_id = case when author_id = p_user then p_alias else author_id end,
        author_name = case when author_id = p_user then null else author_name end,
        name = case when author_id = p_user then null else name end,
        written_by = case when written_by = p_user then p_alias else written_by end,
        content = case
            when role = 'system' and metadata ? 'greffier_event' and metadata ->> 'user_id' = p_user
            then 'Somebody ' || (metadata ->> 'greffier_event') else content end,
        metadata = case
            when role = 'system' and metadata ? 'greffier_event' and metadata ->> 'user_id' = p_user
            then jsonb_set(metadata, '{user_id}', to_jsonb(p_alias)) else metadata end,
        changed_rev = v.rev + 1
    where conversation_id = v.id and (
        author_id = p_user or written_by = p_user
        or (role = 'system' and metadata ? 'greffier_event' and metadata ->> 'user_id' = p_user));
    get diagnostics v_rows = row_count;
    v_found := v_found + v_rows;
    update message_versions set replaced_by = p_alias
    where conversation_id = v.id and replaced_by = p_user;
    get diagnostics v_rows = row_count;
    v_found := v_found + v_rows;
    update invitations set created_by = p_alias where conversation_id = v.id and created_by = p_user;
    delete from feedback where conversation_id = v.id and user_id = p_user;
    delete from read_marks where conversation_id = v.id and user_id = p_user;
    delete from participants where conversation_id = v.id and user_id = p_user;
    get diagnostics v_rows = row_count;
    v_found := v_found + v_rows;
    update runs set asked_by = p_alias where conversation_id = v.id and asked_by = p_user;
    get diagnostics v_rows = row_count;
    v_found := v_found + v_rows;
    delete from listings where conversation_id = v.id and user_id = p_user;
    if v_found = 0 then
        return null;
    end if;
    update conversations set people_rev = v.rev + 1 where id = v.id;
    perform advance_v1(v, v_now);
    return false;
end $$;

-- Promise: the user is unknown here, and so are the keys that opened for them; their database roles
--          are nobody, and a token that names them later names somebody new.  False, and nothing is done, while they have conversations.
-- How:     whoever brings them into one meanwhile waits for the user's row, and then makes another.
-- Locks:   the user's row.
create function forget_user_v1(p_user text, p_alias text) returns boolean
language plpgsql as $$
begin
    perform from users where id = p_user for update;
    if exists (select from listings where user_id = p_user) then
        return false;
    end if;
    delete from api_keys where user_id = p_user;
    delete from database_roles where user_id = p_user;
    update api_keys set created_by = p_alias where created_by = p_user;
    -- What was spent stays in the accounts, as somebody's.
    update usage set user_id = p_alias where user_id = p_user;
    delete from quotas where user_id = p_user;
    update endpoints set created_by = p_alias where created_by = p_user;
    perform delete_source_v1(s.id) from sources s where s.owner_id = p_user;
    update sources set created_by = p_alias where created_by = p_user;
    update admin_log set
        actor = case when actor = p_user then p_alias else actor end,
        subject = case when subject = p_user then p_alias else subject end
    where p_user in (actor, subject);
    delete from users where id = p_user;
    return true;
end $$;

-- Samples of a column's values, which ANALYZE takes for the planner, outlive the rows they come from.
-- So none are taken of words, names, who somebody is, or hashes of these: the plans are by key, and
-- the same without (measured on a million listings).
do $$
declare
    v_table text;
    v_column text;
begin
    for v_table, v_column in
        values ('users', 'id'), ('users', 'name'), ('users', 'email'),
            ('api_keys', 'key_hash'), ('api_keys', 'user_id'), ('api_keys', 'name'),
            ('api_keys', 'created_by'),
            ('conversations', 'title'), ('conversations', 'subject'),
            ('conversations', 'owner_id'), ('conversations', 'metadata'),
            ('participants', 'user_id'),
            ('listings', 'user_id'), ('listings', 'subject'),
            ('subject_slots', 'owner_id'), ('subject_slots', 'subject'),
            ('messages', 'request_hash'), ('messages', 'author_id'), ('messages', 'author_name'),
            ('messages', 'written_by'), ('messages', 'content'), ('messages', 'parts'),
            ('messages', 'tool_calls'), ('messages', 'tool_call_id'), ('messages', 'name'),
            ('messages', 'reasoning'), ('messages', 'metadata'),
            ('message_versions', 'content'), ('message_versions', 'parts'),
            ('message_versions', 'replaced_by'),
            ('feedback', 'user_id'), ('feedback', 'comment'),
            ('read_marks', 'user_id'),
            ('invitations', 'token_hash'), ('invitations', 'created_by'),
            ('invitation_tokens', 'token_hash'),
            ('endpoints', 'target'), ('endpoints', 'secrets'), ('endpoints', 'settings'),
            ('endpoints', 'created_by'), ('endpoints', 'request_hash'),
            ('endpoints', 'disabled_reason'), ('conversation_endpoints', 'target'),
            ('receipts', 'external_id'), ('sources', 'owner_id'),
            ('sources', 'created_by'), ('source_contacts', 'contact'),
            ('lanes', 'park_reason'), ('run_steps', 'call_id'),
            ('attempts', 'detail'), ('attempts', 'external_id'),
            ('runs', 'asked_by'), ('runs', 'agent'), ('runs', 'error_detail'),
            ('runs', 'request_hash'), ('run_events', 'body'),
            ('usage', 'user_id'), ('quotas', 'user_id'),
            ('admin_log', 'actor'), ('admin_log', 'subject'), ('admin_log', 'before'),
            ('admin_log', 'after')
    loop
        execute format('alter table %I alter %I set statistics 0', v_table, v_column);
    end loop;
end $$;
