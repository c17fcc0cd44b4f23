-- Erasure: content that is gone at once from every table, with only the id remembered.

set search_path = greffier;

-- Promise: nothing of the conversation is left but its id among the erased; its owner alone may.
--          Erasing what was erased answers gone.
-- Locks:   subject slot, conversation, users by id.
create function erase_conversation_v1(p_id uuid, p_actor text) returns void
language plpgsql as $$
declare
    v_slot uuid := hold_subject_v1(p_id, p_actor);
    v conversations := lock_conversation_v1(p_id, p_actor, 'owner');
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
    delete from conversations where id = p_id;
end $$;

-- Promise: in this conversation nothing names the user any more: what they wrote stays, under a name
--          that belongs to nobody and is another one in every conversation.  Their own
--          conversation goes to the member who has been there longest, or is erased when there is
--          none or it is an assistant's.  Returns whether it was erased.
-- Locks:   subject slot (erasure), conversation, users by id.
create function forget_user_in_v1(
    p_conversation_id uuid, p_user text, p_alias text, p_message_id uuid
) returns boolean
language plpgsql as $$
declare
    v conversations;
    v_now timestamptz;
    v_heir text;
begin
    select * into v from conversations where id = p_conversation_id;
    if not found then
        return false;
    end if;
    if v.owner_id = p_user then
        if v.kind = 'room' then
            select user_id into v_heir from participants
            where conversation_id = p_conversation_id and user_id <> p_user and left_at is null
            order by role = 'viewer', joined_at, user_id
            limit 1;
        end if;
        if v_heir is null then
            perform erase_conversation_v1(p_conversation_id, null);
            return true;
        end if;
        perform set_participant_v1(
            p_conversation_id, null, v_heir, 'owner', true, 'service', p_message_id);
    end if;
    select * into v from conversations where id = p_conversation_id for no key update;
    v_now := greatest(clock_timestamp(), v.updated_at);
    update messages set
        author_id = case when author_id = p_user then p_alias else author_id end,
        author_name = case when author_id = p_user then null else author_name end,
        written_by = case when written_by = p_user then p_alias else written_by end,
        content = case when metadata ->> 'user_id' = p_user and metadata ? 'greffier_event'
            then 'Somebody ' || (metadata ->> 'greffier_event') else content end,
        metadata = case when metadata ->> 'user_id' = p_user
            then jsonb_set(metadata, '{user_id}', to_jsonb(p_alias)) else metadata end,
        changed_rev = v.rev + 1
    where conversation_id = p_conversation_id
      and (author_id = p_user or written_by = p_user or metadata ->> 'user_id' = p_user);
    update message_versions set replaced_by = p_alias
    where conversation_id = p_conversation_id and replaced_by = p_user;
    update invitations set created_by = p_alias
    where conversation_id = p_conversation_id and created_by = p_user;
    delete from feedback where conversation_id = p_conversation_id and user_id = p_user;
    delete from read_marks where conversation_id = p_conversation_id and user_id = p_user;
    delete from participants where conversation_id = p_conversation_id and user_id = p_user;
    delete from listings where conversation_id = p_conversation_id and user_id = p_user;
    update conversations set people_rev = v.rev + 1 where id = v.id;
    perform advance_v1(v, v_now);
    return false;
end $$;

-- Promise: the user is unknown here; a token that names them later names somebody new.
-- Locks:   the user's row.
create function forget_user_v1(p_user text) returns void
language plpgsql as $$
begin
    delete from subject_slots where owner_id = p_user;
    delete from listings where user_id = p_user;
    delete from users where id = p_user;
end $$;
