-- Subjects: one active conversation per person and subject, made by the first message.

set search_path = greffier;

-- Promise: the message is on record in the owner's active conversation on the subject, which is made
--          if there is none; at once from many sides it is made once.  An id already said on this
--          subject, also in an archived conversation, names that message.  Another agent than the
--          conversation's is refused.  outcome is as append_message_v1's, or agent-fixed.
-- How:     the slot's row orders everybody who speaks on the subject.
-- Locks:   subject slot, conversation, users by id.
create function say_on_subject_v1(
    p_owner text, p_subject text, p_agent_id uuid, p_new_conversation_id uuid, p_request_hash uuid,
    p_id uuid, p_hash bytea, p_author_name text, p_written_by text, p_content text, p_fresh boolean,
    out outcome text, out conversation_id uuid, out created boolean, out seq bigint,
    out parent_seq bigint, out rev bigint, out created_at timestamptz, out author_id text
)
language plpgsql as $$
#variable_conflict use_column
declare
    v_agent uuid;
    v_hash bytea;
begin
    created := false;
    insert into subject_slots as s (owner_id, subject, conversation_id)
    values (p_owner, p_subject, p_new_conversation_id)
    on conflict (owner_id, subject) do update set subject = excluded.subject
    returning s.conversation_id into conversation_id;
    -- Whoever spoke before us on this subject has committed: look now, not before the lock.
    if not p_fresh then
        select l.conversation_id, m.seq, m.request_hash
        into say_on_subject_v1.conversation_id, say_on_subject_v1.seq, v_hash
        from listings l
        cross join lateral (
            select m.seq, m.request_hash from messages m
            where m.conversation_id = l.conversation_id and m.id = p_id
            limit 1
        ) m
        where l.user_id = p_owner and l.subject = p_subject and l.removed_at is null
        limit 1;
        if found then
            outcome := case when v_hash is null or v_hash = p_hash then 'replayed' else 'id-reused' end;
            -- A slot made a moment ago for a conversation that is not to be.
            delete from subject_slots s
            where s.owner_id = p_owner and s.subject = p_subject
              and s.conversation_id = p_new_conversation_id;
            return;
        end if;
        select s.conversation_id into say_on_subject_v1.conversation_id
        from subject_slots s where s.owner_id = p_owner and s.subject = p_subject;
    end if;
    if conversation_id = p_new_conversation_id then
        created := create_conversation_v1(
            p_new_conversation_id, p_request_hash, 'assistant', '', p_subject, p_agent_id, p_owner,
            30, '{}', '{}', '{}');
    elsif p_agent_id is not null then
        select c.agent_id into v_agent from conversations c
        where c.id = say_on_subject_v1.conversation_id;
        if v_agent is distinct from p_agent_id then
            outcome := 'agent-fixed';
            return;
        end if;
    end if;
    select a.outcome, a.seq, a.parent_seq, a.rev, a.created_at, a.author_id
    into say_on_subject_v1.outcome, say_on_subject_v1.seq, say_on_subject_v1.parent_seq,
        say_on_subject_v1.rev, say_on_subject_v1.created_at, say_on_subject_v1.author_id
    from append_message_v1(
        say_on_subject_v1.conversation_id, p_owner, p_id, p_hash, 'user', p_owner, p_author_name,
        p_written_by, p_content, null, null, null, null, null, null, null, p_fresh, true) a;
    if outcome not in ('stored', 'replayed') and created then
        raise exception 'a new conversation refused its first message: %', outcome;
    end if;
end $$;
