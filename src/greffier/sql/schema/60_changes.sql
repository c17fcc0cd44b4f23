-- What changes after it was said: edits, deletions, rewinds and branches.  Each is one rev, decided
-- under the conversation's row lock, and leaves a trace; erasure alone leaves none.

set search_path = greffier;

-- The earlier texts of an edited message, each under the rev that replaced it.
create table message_versions (
    conversation_id uuid not null,
    seq bigint not null,
    -- the rev whose edit put this text aside
    rev bigint not null,
    content text,
    parts json,
    -- when this text was written, and when and by whom it was replaced
    written_at timestamptz not null,
    replaced_at timestamptz not null,
    replaced_by text not null,
    primary key (conversation_id, seq, rev)
);

-- Paths that were left; activating one puts the present path in its place.
create table branches (
    conversation_id uuid not null,
    id uuid not null,
    path int8multirange not null,
    left_at_rev bigint not null,
    last_seq bigint not null,
    primary key (conversation_id, id)
);

-- What each change of path took off it and brought back, so that somebody who saw an earlier rev
-- can be told the difference without the paths themselves.
create table path_changes (
    conversation_id uuid not null,
    rev bigint not null,
    removed int8multirange not null,
    returned int8multirange not null,
    primary key (conversation_id, rev)
);

-- Thumbs of a user on a message, or on the conversation (seq 0).
create table feedback (
    conversation_id uuid not null,
    seq bigint not null,
    user_id text not null,
    rating smallint not null check (rating in (1, -1)),
    comment text,
    at timestamptz not null,
    primary key (conversation_id, seq, user_id)
);

-- Promise: the conversation's row, locked, for somebody who is at least p_role in it; otherwise a
--          refusal that tells a stranger nothing.
-- Locks:   the conversation's row.
create function lock_conversation_v1(p_id uuid, p_actor text, p_role text) returns conversations
language plpgsql as $$
declare
    v conversations;
begin
    select * into v from conversations where id = p_id for no key update;
    if not found then
        if exists (select from erased where conversation_id = p_id) then
            raise exception using errcode = 'GR410', message = 'this conversation was erased';
        end if;
        raise exception using errcode = 'GR404', message = 'no such conversation';
    end if;
    perform require_role_v1(v, p_actor, p_role);
    return v;
end $$;

-- Undeleted messages in some stretches: their size by arithmetic, less the deleted, which are few.
create function count_undeleted(p_conversation_id uuid, p_stretches int8multirange) returns bigint
language sql stable
return coalesce((select sum(upper(x) - lower(x)) from unnest(p_stretches) x), 0)::bigint - (
    select count(*) from messages d
    where d.conversation_id = p_conversation_id and d.deleted_at is not null
      and d.seq >= lower(p_stretches) and d.seq < upper(p_stretches) and d.seq <@ p_stretches);

-- Promise: the message has the new text, and the earlier one is among its versions; the same text
--          again changes nothing.  Its author may, and an assistant conversation's owner.
-- How:     p_if_rev is compared with the rev that last changed the message.
-- Locks:   the conversation's row.
create function edit_message_v1(
    p_conversation_id uuid, p_actor text, p_seq bigint, p_content text, p_if_rev bigint,
    p_written_by text
) returns bigint
language plpgsql as $$
declare
    v conversations := lock_conversation_v1(p_conversation_id, p_actor, 'member');
    m messages;
    v_now timestamptz := greatest(clock_timestamp(), v.updated_at);
begin
    select * into m from messages where conversation_id = p_conversation_id and seq = p_seq;
    if not found then
        raise exception using errcode = 'GR404', message = 'no such message';
    end if;
    if p_actor is not null and m.author_id is distinct from p_actor
       and not (v.kind = 'assistant' and v.owner_id = p_actor) then
        raise exception using errcode = 'GR403', message = 'only its author may edit a message';
    end if;
    if p_if_rev is not null and p_if_rev <> coalesce(m.changed_rev, m.rev) then
        raise exception using errcode = 'GR412', message = 'the message has changed';
    end if;
    if m.deleted_at is not null then
        raise exception using errcode = 'GR404', message = 'the message was deleted';
    end if;
    if v.archived_at is not null then
        raise exception using errcode = 'GR419', message = 'the conversation is archived';
    end if;
    if coalesce(m.content, '') = '' and m.parts is null then
        -- Its place among what was said was counted when it was numbered.
        raise exception using errcode = 'GR422', message = 'a message without words has none to edit';
    end if;
    if m.content = p_content and m.parts is null then
        return v.rev;
    end if;
    insert into message_versions (
        conversation_id, seq, rev, content, parts, written_at, replaced_at, replaced_by
    ) values (
        p_conversation_id, p_seq, v.rev + 1, m.content, m.parts,
        coalesce(m.edited_at, m.created_at), v_now, p_written_by
    );
    update messages set content = p_content, parts = null, edited_at = v_now, changed_rev = v.rev + 1
    where conversation_id = p_conversation_id and seq = p_seq;
    perform advance_v1(v, v_now);
    return v.rev + 1;
end $$;

-- Promise: the conversation counts one change more, made at p_at.
-- Locks:   none beyond the conversation's row, which the caller holds.
create function advance_v1(p_conversation conversations, p_at timestamptz) returns void
language plpgsql as $$
begin
    update conversations set rev = rev + 1, updated_at = p_at,
        listed_at = case when p_at > listed_at + interval '10 minutes' then p_at else listed_at end
    where id = p_conversation.id;
    if p_at > p_conversation.listed_at + interval '10 minutes' then
        perform touch_listings_v1(array[p_conversation.id]);
    end if;
end $$;

-- Promise: nobody sees the message's content any more; with p_erase it is nowhere any more, nor are
--          its earlier texts or what was said about it.  Its number and id stay.  The author, the
--          conversation's owner and the service may; deleting again changes nothing.
-- Locks:   the conversation's row.
create function delete_message_v1(
    p_conversation_id uuid, p_actor text, p_seq bigint, p_erase boolean
) returns bigint
language plpgsql as $$
declare
    v conversations := lock_conversation_v1(p_conversation_id, p_actor, 'viewer');
    m messages;
    v_now timestamptz := greatest(clock_timestamp(), v.updated_at);
begin
    select * into m from messages where conversation_id = p_conversation_id and seq = p_seq;
    if not found then
        raise exception using errcode = 'GR404', message = 'no such message';
    end if;
    if p_actor is not null and m.author_id is distinct from p_actor
       and require_role_v1(v, p_actor, 'viewer') <> 'owner' then
        raise exception using errcode = 'GR403', message = 'only its author or the owner may delete';
    end if;
    -- What was only deleted may still be erased.
    if m.deleted_at is not null and (not p_erase or num_nonnulls(
        m.content, m.parts, m.tool_calls, m.tool_call_id, m.name, m.reasoning, m.metadata,
        m.request_hash) = 0) then
        return v.rev;
    end if;
    update messages set
        deleted_at = coalesce(deleted_at, v_now), changed_rev = v.rev + 1,
        content = case when not p_erase then content end,
        parts = case when not p_erase then parts end,
        tool_calls = case when not p_erase then tool_calls end,
        tool_call_id = case when not p_erase then tool_call_id end,
        name = case when not p_erase then name end,
        reasoning = case when not p_erase then reasoning end,
        metadata = case when not p_erase then metadata end,
        request_hash = case when not p_erase then request_hash end
    where conversation_id = p_conversation_id and seq = p_seq;
    if p_erase then
        -- After the message's row, for which a rating under way was waited for.
        delete from message_versions where conversation_id = p_conversation_id and seq = p_seq;
        delete from feedback where conversation_id = p_conversation_id and seq = p_seq;
    end if;
    update conversations set
        message_count = message_count - (m.deleted_at is null and p_seq <@ v.path)::integer
    where id = p_conversation_id;
    perform advance_v1(v, v_now);
    return v.rev + 1;
end $$;

-- Promise: everything after p_after leaves the active path and stays on record as a branch; one row
--          changes however much that is.  removed counts undeleted messages; nothing to remove is
--          no change.  A run that answers is cancelled before.  The owner may.
-- Locks:   the conversation's row, its run lane.
create function rewind_v1(
    p_conversation_id uuid, p_actor text, p_after bigint, p_branch_id uuid,
    out removed bigint, out rev bigint
)
language plpgsql as $$
declare
    v conversations := cancel_runs_v1(
        lock_conversation_v1(p_conversation_id, p_actor, 'owner'), 'cancelled');
    v_now timestamptz := greatest(clock_timestamp(), v.updated_at);
    v_active int8multirange := v.path * int8multirange(int8range(v.first_seq, v.last_seq + 1));
    v_cut int8multirange;
begin
    if p_after <> 0 and not p_after <@ v_active then
        raise exception using errcode = 'GR422', message = 'after_seq is not on the active path';
    end if;
    v_cut := v_active * int8multirange(int8range(p_after + 1, null));
    removed := 0;
    rev := v.rev;
    if isempty(v_cut) then
        return;
    end if;
    if v.archived_at is not null then
        raise exception using errcode = 'GR419', message = 'the conversation is archived';
    end if;
    removed := count_undeleted(p_conversation_id, v_cut);
    rev := v.rev + 1;
    insert into branches (conversation_id, id, path, left_at_rev, last_seq)
    values (p_conversation_id, p_branch_id, v_active, v.rev + 1, upper(v_active) - 1);
    insert into path_changes (conversation_id, rev, removed, returned)
    values (p_conversation_id, v.rev + 1, v_cut, '{}');
    update conversations c set
        path = (v_active - v_cut) + int8multirange(int8range(v.last_seq + 1, null)),
        path_rev = v.rev + 1, message_count = c.message_count - removed
    where c.id = p_conversation_id;
    perform advance_v1(v, v_now);
end $$;

-- Promise: the branch's path is the active one, its end open for what comes next, and the path that
--          was active is a branch.  A run that answers is cancelled before.  The owner may.
-- Locks:   the conversation's row, its run lane.
create function activate_branch_v1(
    p_conversation_id uuid, p_actor text, p_branch_id uuid, p_former_id uuid
) returns bigint
language plpgsql as $$
declare
    v conversations := cancel_runs_v1(
        lock_conversation_v1(p_conversation_id, p_actor, 'owner'), 'cancelled');
    v_now timestamptz := greatest(clock_timestamp(), v.updated_at);
    v_active int8multirange := v.path * int8multirange(int8range(v.first_seq, v.last_seq + 1));
    v_path int8multirange;
begin
    delete from branches where conversation_id = p_conversation_id and id = p_branch_id
    returning path into v_path;
    if not found then
        raise exception using errcode = 'GR404', message = 'no such branch';
    end if;
    if v.archived_at is not null then
        raise exception using errcode = 'GR419', message = 'the conversation is archived';
    end if;
    v_path := v_path * int8multirange(int8range(v.first_seq, v.last_seq + 1));
    if not isempty(v_active) then
        insert into branches (conversation_id, id, path, left_at_rev, last_seq)
        values (p_conversation_id, p_former_id, v_active, v.rev + 1, upper(v_active) - 1);
    end if;
    insert into path_changes (conversation_id, rev, removed, returned)
    values (p_conversation_id, v.rev + 1, v_active - v_path, v_path - v_active);
    update conversations set
        path = v_path + int8multirange(int8range(v.last_seq + 1, null)), path_rev = v.rev + 1,
        message_count = count_undeleted(p_conversation_id, v_path)
    where id = p_conversation_id;
    perform advance_v1(v, v_now);
    return v.rev + 1;
end $$;

-- Promise: the user's thumb on a message (or on the conversation, seq 0) is this one, or gone with a
--          null rating.  Any participant may; it is no change of the conversation and has no rev.
-- Locks:   the conversation's and the message's row, shared with others who rate: an erasure waits
--          for it and finds it, and it waits for an erasure and finds nothing to rate.
create function rate_v1(
    p_conversation_id uuid, p_user text, p_seq bigint, p_rating smallint, p_comment text
) returns timestamptz
language plpgsql as $$
declare
    v conversations;
    v_now timestamptz := clock_timestamp();
begin
    select * into v from conversations where id = p_conversation_id for key share;
    if not found then
        if exists (select from erased where conversation_id = p_conversation_id) then
            raise exception using errcode = 'GR410', message = 'this conversation was erased';
        end if;
        raise exception using errcode = 'GR404', message = 'no such conversation';
    end if;
    perform require_role_v1(v, p_user, 'viewer');
    if p_seq <> 0 then
        perform from messages
        where conversation_id = p_conversation_id and seq = p_seq and deleted_at is null
        for share;
        if not found then
            raise exception using errcode = 'GR404', message = 'no such message';
        end if;
    end if;
    if p_rating is null then
        delete from feedback
        where conversation_id = p_conversation_id and seq = p_seq and user_id = p_user;
        return v_now;
    end if;
    insert into feedback (conversation_id, seq, user_id, rating, comment, at)
    values (p_conversation_id, p_seq, p_user, p_rating, p_comment, v_now)
    on conflict (conversation_id, seq, user_id) do update
        set rating = excluded.rating, comment = excluded.comment, at = excluded.at;
    return v_now;
end $$;

-- The first seq that was numbered after a rev.  Revs never fall as seqs rise and seqs are dense: from
-- the end, where those are who follow, it steps back twice as far each time, and then halves what is
-- left, so that it takes as many index probes as what is new has bits, twice.
create function first_seq_after_rev(
    p_conversation_id uuid, p_first bigint, p_last bigint, p_rev bigint
) returns bigint
language plpgsql stable as $$
declare
    v_low bigint := p_last;
    v_high bigint := p_last + 1;
    v_step bigint := 1;
    v_middle bigint;
    v_rev bigint;
begin
    -- All from v_high on are after it; what is below v_low, when this is done, is not.
    while v_low >= p_first loop
        select m.rev into v_rev from messages m
        where m.conversation_id = p_conversation_id and m.seq = v_low;
        exit when v_rev <= p_rev;
        v_high := v_low;
        v_low := v_low - v_step;
        v_step := v_step * 2;
    end loop;
    v_low := greatest(v_low + 1, p_first);
    while v_low < v_high loop
        v_middle := (v_low + v_high) / 2;
        select m.rev into v_rev from messages m
        where m.conversation_id = p_conversation_id and m.seq = v_middle;
        if v_rev > p_rev then
            v_high := v_middle;
        else
            v_low := v_middle + 1;
        end if;
    end loop;
    return v_low;
end $$;
