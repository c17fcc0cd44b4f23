-- Erasure: content that is gone at once from every table, with only the id remembered.

set search_path = greffier;

-- Promise: nothing of the conversation is left but its id among the erased; its owner alone may.
--          Erasing what was erased answers gone.
-- Locks:   subject slot, conversation, users by id.
create function erase_conversation_v1(p_id uuid, p_actor text) returns void
language plpgsql as $$
declare
    v conversations;
    v_users text[];
begin
    delete from subject_slots s using conversations c
    where c.id = p_id and (p_actor is null or c.owner_id = p_actor)
      and s.owner_id = c.owner_id and s.subject = c.subject and s.conversation_id = p_id;
    select * into v from conversations where id = p_id for update;
    if not found then
        if exists (select from erased where conversation_id = p_id) then
            raise exception using errcode = 'GR410', message = 'this conversation was erased';
        end if;
        raise exception using errcode = 'GR404', message = 'no such conversation';
    end if;
    perform require_role_v1(v, p_actor, 'owner');
    insert into erased (conversation_id, erased_at) values (p_id, clock_timestamp());
    select array_agg(user_id) into v_users
    from participants where conversation_id = p_id and left_at is null;
    -- The tombstone keeps who had it, so that a list that was away learns of the removal.
    update listings l set removed_at = clock_timestamp(), subject = null, list_rev = a.list_rev
    from advance_lists_v1(v_users) a
    where l.user_id = a.user_id and l.conversation_id = p_id;
    delete from messages where conversation_id = p_id;
    delete from participants where conversation_id = p_id;
    delete from conversations where id = p_id;
end $$;
