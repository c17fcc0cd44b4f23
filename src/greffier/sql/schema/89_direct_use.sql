-- Direct access, for people: functions to call, and INSERT, UPDATE, DELETE and COPY on the views.
-- All of it runs as the caller and only makes requests (88).

set search_path = greffier;

-- Parameters are named as the API names them, to be given by name where they are many.

-- Promise: a conversation of one's own exists under this id; the same call again finds it.
-- Locks:   subject slot, conversation, users by id.
create function greffier_me.create_conversation(
    title text default '', kind text default 'assistant', subject text default null,
    members text[] default '{}', id uuid default null, agent_id uuid default null,
    history_limit integer default 30, metadata jsonb default '{}'
) returns uuid
language sql set search_path = greffier_me, pg_temp as $$
    update request set verb = 'create', arguments = json_build_object(
        'title', title, 'kind', kind, 'subject', subject, 'members', members, 'id', id,
        'agent_id', agent_id, 'history_limit', history_limit, 'metadata', metadata)
    returning (answer #>> '{}')::uuid
$$;

-- Promise: the message is on record; returns its seq.  The same id again is the same message.
-- Locks:   the conversation's row.
create function greffier_me.append(
    conversation_id uuid, content text, id uuid default null, role text default 'user'
) returns bigint
language sql set search_path = greffier_me, pg_temp as $$
    update request set verb = 'append', arguments = json_build_object(
        'conversation_id', conversation_id, 'messages', json_build_array(json_build_object(
            'content', content, 'id', id, 'role', role)))
    returning (answer -> 0 ->> 'seq')::bigint
$$;

-- Promise: the messages, as the API takes them, are on record, all or none, as one change.  Returns
--          their seqs.
-- Locks:   the conversation's row.
create function greffier_me.append_many(conversation_id uuid, messages json) returns bigint[]
language sql set search_path = greffier_me, pg_temp as $$
    update request set verb = 'append', arguments = json_build_object(
        'conversation_id', conversation_id, 'messages', messages)
    returning array(select (m ->> 'seq')::bigint from json_array_elements(answer) m)
$$;

-- Promise: the words are in one's active conversation on the subject, made if there is none.
-- Locks:   subject slot, conversation, users by id.
create function greffier_me.say(
    subject text, content text, id uuid default null, agent_id uuid default null,
    out conversation_id uuid, out seq bigint
)
language sql set search_path = greffier_me, pg_temp as $$
    update request set verb = 'say', arguments = json_build_object(
        'subject', subject, 'content', content, 'id', id, 'agent_id', agent_id)
    returning (answer ->> 'conversation_id')::uuid, (answer ->> 'seq')::bigint
$$;

-- Promise: the message has this text, the earlier one is among its versions.  Returns the rev.
-- Locks:   the conversation's row.
create function greffier_me.edit(
    conversation_id uuid, seq bigint, content text, if_rev bigint default null
) returns bigint
language sql set search_path = greffier_me, pg_temp as $$
    update request set verb = 'edit', arguments = json_build_object(
        'conversation_id', conversation_id, 'seq', seq, 'content', content, 'if_rev', if_rev)
    returning (answer #>> '{}')::bigint
$$;

-- Promise: nobody sees the message's content any more; with erase it is nowhere any more.
-- Locks:   the conversation's row.
create function greffier_me.delete_message(
    conversation_id uuid, seq bigint, erase boolean default false
) returns bigint
language sql set search_path = greffier_me, pg_temp as $$
    update request set verb = 'delete', arguments = json_build_object(
        'conversation_id', conversation_id, 'seq', seq, 'erase', erase)
    returning (answer #>> '{}')::bigint
$$;

-- Promise: what comes after the seq is off the active path and a branch; returns how many messages.
-- Locks:   the conversation's row.
create function greffier_me.rewind(conversation_id uuid, after_seq bigint) returns bigint
language sql set search_path = greffier_me, pg_temp as $$
    update request set verb = 'rewind', arguments = json_build_object(
        'conversation_id', conversation_id, 'after', after_seq)
    returning (answer #>> '{}')::bigint
$$;

-- Promise: the branch is the active path, and what was active is a branch.  Returns the rev.
-- Locks:   the conversation's row.
create function greffier_me.activate_branch(conversation_id uuid, branch_id uuid) returns bigint
language sql set search_path = greffier_me, pg_temp as $$
    update request set verb = 'activate', arguments = json_build_object(
        'conversation_id', conversation_id, 'branch_id', branch_id)
    returning (answer #>> '{}')::bigint
$$;

-- Promise: the conversation has this title.  Returns the rev.
-- Locks:   conversation.
create function greffier_me.set_title(conversation_id uuid, title text) returns bigint
language sql set search_path = greffier_me, pg_temp as $$
    update request set verb = 'patch', arguments = json_build_object(
        'conversation_id', conversation_id, 'title', title)
    returning (answer #>> '{}')::bigint
$$;

-- Promise: the conversation is archived, or with `archived => false` back.  Returns the rev.
-- Locks:   subject slot, conversation, users by id.
create function greffier_me.archive(
    conversation_id uuid, archived boolean default true
) returns bigint
language sql set search_path = greffier_me, pg_temp as $$
    update request set verb = 'patch', arguments = json_build_object(
        'conversation_id', conversation_id, 'archived', archived)
    returning (answer #>> '{}')::bigint
$$;

-- Promise: nothing of the conversation is left but its id.
-- Locks:   subject slot, conversation, users by id.
create function greffier_me.erase_conversation(conversation_id uuid) returns void
language sql set search_path = greffier_me, pg_temp as $$
    update request set verb = 'erase', arguments = json_build_object(
        'conversation_id', conversation_id)
$$;

-- Promise: one's mark is at least here.  Returns where it is.
-- Locks:   the conversation's row.
create function greffier_me.read_upto(conversation_id uuid, seq bigint) returns bigint
language sql set search_path = greffier_me, pg_temp as $$
    update request set verb = 'read', arguments = json_build_object(
        'conversation_id', conversation_id, 'seq', seq)
    returning (answer #>> '{}')::bigint
$$;

-- Promise: one's thumb on the message (without a seq: on the conversation) is this; gone with null.
-- Locks:   none: the row is one's own.
create function greffier_me.rate(
    conversation_id uuid, rating integer, seq bigint default 0, comment text default null
) returns void
language sql set search_path = greffier_me, pg_temp as $$
    update request set verb = 'rate', arguments = json_build_object(
        'conversation_id', conversation_id, 'rating', rating, 'seq', seq, 'comment', comment)
$$;

-- Promise: the user is in the conversation with this role.  Returns the rev.
-- Locks:   the conversation's row, users by id.
create function greffier_me.set_participant(
    conversation_id uuid, user_id text, role text default 'member'
) returns bigint
language sql set search_path = greffier_me, pg_temp as $$
    update request set verb = 'set_participant', arguments = json_build_object(
        'conversation_id', conversation_id, 'user_id', user_id, 'role', role)
    returning (answer #>> '{}')::bigint
$$;

-- Promise: the user is in the conversation no more; without one, oneself.  Returns the rev.
-- Locks:   the conversation's row, users by id.
create function greffier_me.leave(conversation_id uuid, user_id text default null) returns bigint
language sql set search_path = greffier_me, pg_temp as $$
    update request set verb = 'remove_participant', arguments = json_build_object(
        'conversation_id', conversation_id, 'user_id', user_id)
    returning (answer #>> '{}')::bigint
$$;

-- Promise: whoever has the token that is returned may join.
-- Locks:   the conversation's row.
create function greffier_me.invite(
    conversation_id uuid, role text default 'member', expires_in interval default '7 days',
    max_uses integer default null
) returns text
language sql set search_path = greffier_me, pg_temp as $$
    update request set verb = 'invite', arguments = json_build_object(
        'conversation_id', conversation_id, 'role', role, 'max_uses', max_uses,
        'seconds', extract(epoch from expires_in))
    returning answer #>> '{}'
$$;

-- Promise: the invitation lets nobody in any more.
-- Locks:   the conversation's row.
create function greffier_me.revoke_invitation(conversation_id uuid, invitation_id uuid) returns void
language sql set search_path = greffier_me, pg_temp as $$
    update request set verb = 'revoke', arguments = json_build_object(
        'conversation_id', conversation_id, 'invitation_id', invitation_id)
$$;

-- Promise: one is in the conversation to which the token invites.  Returns its id.
-- Locks:   the conversation's row, users by id.
create function greffier_me.join_by(token text) returns uuid
language sql set search_path = greffier_me, pg_temp as $$
    update request set verb = 'accept', arguments = json_build_object('token', token)
    returning (answer #>> '{}')::uuid
$$;

-- The same for people who live in SQL.  The triggers hang on views; no table of ours has one.

-- Promise: an inserted message is appended, an updated content is an edit, a deleted row is deleted
--          as in the API: its place and its trace stay.  RETURNING shows the message as it is.
-- Locks:   the conversation's row.
create function write_message_v1() returns trigger
language plpgsql set search_path = greffier_me, pg_temp as $$
declare
    v messages;
begin
    if tg_op = 'DELETE' then
        perform delete_message(old.conversation_id, old.seq);
        return old;
    end if;
    if tg_op = 'UPDATE' then
        perform edit(old.conversation_id, old.seq, new.content);
    else
        update request set verb = 'append', arguments = json_build_object(
            'conversation_id', new.conversation_id, 'messages', json_build_array(json_build_object(
                'id', new.id, 'role', new.role, 'content', new.content, 'parts', new.parts,
                'tool_calls', new.tool_calls, 'tool_call_id', new.tool_call_id, 'name', new.name,
                'reasoning', new.reasoning, 'metadata', new.metadata, 'said_at', new.said_at)))
        returning (answer -> 0 ->> 'seq')::bigint into new.seq;
    end if;
    -- Not from messages: an id said before may be off the active path.  record has one column more.
    select r.* into v from record r
    where r.conversation_id = new.conversation_id and r.seq = new.seq;
    return v;
end $$;

-- Promise: an inserted conversation is one's own; title, metadata, history_limit and archived
--          change for its owner, last_read_seq moves one's own mark; a deleted row is erased.
-- Locks:   subject slot, conversation, users by id.
create function write_conversation_v1() returns trigger
language plpgsql set search_path = greffier_me, pg_temp as $$
begin
    if tg_op = 'DELETE' then
        perform erase_conversation(old.id);
        return old;
    end if;
    if tg_op = 'INSERT' then
        new.id := create_conversation(
            new.title, new.kind, new.subject, '{}', new.id, new.agent_id, new.history_limit,
            new.metadata);
    else
        if (new.title, new.metadata, new.history_limit, new.archived)
            is distinct from (old.title, old.metadata, old.history_limit, old.archived) then
            update request set verb = 'patch', arguments = json_build_object(
                'conversation_id', old.id, 'title', new.title, 'metadata', new.metadata,
                'history_limit', new.history_limit, 'archived', new.archived);
        end if;
        if new.last_read_seq <> old.last_read_seq then
            perform read_upto(old.id, new.last_read_seq);
        end if;
    end if;
    select c.* into new from conversations c where c.id = new.id;
    return new;
end $$;

-- Promise: an inserted participant joins, an updated role is given, a deleted row leaves.
-- Locks:   the conversation's row, users by id.
create function write_participant_v1() returns trigger
language plpgsql set search_path = greffier_me, pg_temp as $$
begin
    if tg_op = 'DELETE' then
        perform leave(old.conversation_id, old.user_id);
        return old;
    end if;
    perform set_participant(new.conversation_id, new.user_id, new.role);
    select p.* into new from participants p
    where p.conversation_id = new.conversation_id and p.user_id = new.user_id;
    return new;
end $$;

-- Promise: an inserted or updated thumb is one's own on that message, a deleted one is taken back.
-- Locks:   none: the row is one's own.
create function write_feedback_v1() returns trigger
language plpgsql set search_path = greffier_me, pg_temp as $$
begin
    if tg_op = 'DELETE' then
        perform rate(old.conversation_id, null, old.seq);
        return old;
    end if;
    if new.rating is null then
        raise exception using errcode = 'GR422', message = 'rating: 1 or -1';
    end if;
    perform rate(new.conversation_id, new.rating, new.seq, new.comment);
    select f.* into new from feedback f
    where f.conversation_id = new.conversation_id and f.seq = new.seq;
    return new;
end $$;

create trigger write instead of insert or update or delete on greffier_me.messages
    for each row execute function write_message_v1();
create trigger write instead of insert or update or delete on greffier_me.conversations
    for each row execute function write_conversation_v1();
create trigger write instead of insert or update or delete on greffier_me.participants
    for each row execute function write_participant_v1();
create trigger write instead of insert or update or delete on greffier_me.feedback
    for each row execute function write_feedback_v1();

alter view greffier_me.messages alter column role set default 'user';
alter view greffier_me.conversations alter column title set default '';
alter view greffier_me.conversations alter column kind set default 'assistant';
alter view greffier_me.conversations alter column history_limit set default 30;
alter view greffier_me.conversations alter column metadata set default '{}';
alter view greffier_me.participants alter column role set default 'member';
alter view greffier_me.feedback alter column seq set default 0;

-- By column: what is given and not chosen (a seq, an author, a time) cannot be written at all.
grant insert (
    conversation_id, id, role, content, parts, tool_calls, tool_call_id, name, reasoning, metadata,
    said_at
), update (content), delete on greffier_me.messages to public;
grant insert (id, kind, title, subject, agent_id, history_limit, metadata),
    update (title, metadata, history_limit, archived, last_read_seq), delete
    on greffier_me.conversations to public;
grant insert (conversation_id, user_id, role), update (role), delete
    on greffier_me.participants to public;
grant insert (conversation_id, seq, rating, comment), update (rating, comment), delete
    on greffier_me.feedback to public;
