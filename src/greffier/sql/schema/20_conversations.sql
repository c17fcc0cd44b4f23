-- Conversations: the row whose lock orders everything said in it, with its counters.

set search_path = greffier;

create table conversations (
    id uuid primary key,
    kind text not null check (kind in ('assistant', 'room')),
    title text not null default '',
    subject text,
    agent_id uuid,
    owner_id text not null,
    history_limit integer not null default 30 check (history_limit >= 0),
    metadata jsonb not null default '{}',
    -- what was asked for when it was created: the same id with another request is refused
    request_hash uuid not null,
    created_at timestamptz not null,
    updated_at timestamptz not null,
    archived_at timestamptz,
    -- seq numbers messages; every seq from first_seq to last_seq has a row
    first_seq bigint not null default 1,
    last_seq bigint not null default 0,
    -- rev numbers changes: +1 for every committed request that changes anything here
    rev bigint not null default 1,
    -- the seqs that are on the active path; its last range is always open
    path int8multirange not null default '{[1,)}',
    -- undeleted messages on the active path
    message_count bigint not null default 0,
    -- of all messages ever numbered: those said (user or assistant, with content), and tool traffic.
    -- Each message keeps the count up to itself, so a count over any stretch is a subtraction.
    said_total integer not null default 0,
    tool_total integer not null default 0,
    -- the rev that last changed the path, and the one that last changed people or their marks
    path_rev bigint not null default 0,
    people_rev bigint not null default 1,
    -- the time under which its listings were last sorted, at most ten minutes behind updated_at
    listed_at timestamptz not null,
    -- the run that answers here, or is about to
    active_run_id uuid
) with (fillfactor = 70);
-- No index on anything an append changes: it would cost 12 % of it (no more HOT updates).

create table participants (
    conversation_id uuid not null,
    user_id text not null,
    role text not null check (role in ('owner', 'member', 'viewer')),
    joined_at timestamptz not null,
    left_at timestamptz,
    -- high-water mark: everything up to here was read; 200 people x 5,000 messages is 200 rows
    last_read_seq bigint not null default 0,
    -- the conversation's rev that last changed this row
    rev bigint not null,
    primary key (conversation_id, user_id)
) with (fillfactor = 80);

-- A user's list has its own small table, keyed by the user.  listed_at is a lower bound of the
-- conversation's updated_at, at most ten minutes behind, so that an append touches it once in ten
-- minutes and not every time; the query (queries/conversations.sql) sorts the rest exactly.
create table listings (
    user_id text not null,
    conversation_id uuid not null,
    listed_at timestamptz not null,
    kind text not null,
    subject text,
    archived boolean not null default false,
    -- the user's list_rev at which this row was added, changed or removed
    list_rev bigint not null,
    removed_at timestamptz,
    primary key (user_id, conversation_id)
) with (fillfactor = 80);

-- serves list_conversations
create index listings_by_activity on listings (user_id, archived, listed_at desc)
    where removed_at is null;
-- serves list_changes
create index listings_by_rev on listings (user_id, list_rev);

-- One active conversation per (owner, subject) is a row here.
create table subject_slots (
    owner_id text not null,
    subject text not null,
    conversation_id uuid not null,
    primary key (owner_id, subject)
);

-- Ids of erased conversations, so that an old outbox cannot bring one back.
create table erased (
    conversation_id uuid primary key,
    erased_at timestamptz not null
);

-- Promise: each user's list_rev counts one change more; returns the new ones, by user.
-- Locks:   users by id.
create function advance_lists_v1(p_users text[]) returns table (user_id text, list_rev bigint)
-- Few rows, or whoever joins them to listings reads that whole table instead of a few keys.
language plpgsql rows 5 as $$
declare
    v_locked bigint;
begin
    loop
        insert into users (id)
        select u from unnest(p_users) u where not exists (select from users where id = u)
        order by u on conflict do nothing;
        perform from users u where u.id = any (p_users) order by u.id for no key update;
        get diagnostics v_locked = row_count;
        -- One whom we waited for may have been forgotten meanwhile: they are somebody new.
        exit when v_locked = (select count(distinct u) from unnest(p_users) u);
    end loop;
    return query
        update users u set list_rev = u.list_rev + 1 where u.id = any (p_users)
        returning u.id, u.list_rev;
end $$;

-- Promise: the conversation exists once under its id.  The same request again finds it
--          (created = false), another request under the same id is refused, an erased id is gone.
--          An agent that is chosen is there: nobody could choose another later.
--          With a subject, the owner has no other active conversation on it.
-- How:     the primary key settles two at once: the loser waits, then sees the winner's row.
-- Locks:   subject slot, conversation, users by id.
create function create_conversation_v1(
    p_id uuid, p_hash uuid, p_kind text, p_title text, p_subject text, p_agent_id uuid,
    p_owner_id text, p_history_limit integer, p_metadata jsonb,
    p_participant_ids text[], p_participant_roles text[]
) returns boolean
language plpgsql as $$
declare
    v_now timestamptz := clock_timestamp();
    v_hash uuid;
    v_taken uuid;
    v_users text[] := p_owner_id || p_participant_ids;
    v_roles text[] := 'owner'::text || p_participant_roles;
begin
    if exists (select from erased where conversation_id = p_id) then
        raise exception using errcode = 'GR410', message = 'this conversation was erased';
    end if;
    select request_hash into v_hash from conversations where id = p_id;
    if found then
        if v_hash <> p_hash then
            raise exception using errcode = 'GR409', message = 'this id names another conversation';
        end if;
        return false;
    end if;
    if p_agent_id is not null and not exists (
        select from agents where id = p_agent_id and deleted_at is null) then
        raise exception using errcode = 'GR422', message = 'there is no such agent';
    end if;
    if p_subject is not null then
        insert into subject_slots as s (owner_id, subject, conversation_id)
        values (p_owner_id, p_subject, p_id)
        on conflict (owner_id, subject) do update set subject = excluded.subject
        returning conversation_id into v_taken;
        if v_taken <> p_id then
            raise exception using errcode = 'GR429',
                message = 'there is an active conversation on this subject';
        end if;
    end if;
    insert into conversations (
        id, kind, title, subject, agent_id, owner_id, history_limit, metadata, request_hash,
        created_at, updated_at, listed_at
    ) values (
        p_id, p_kind, p_title, p_subject, p_agent_id, p_owner_id, p_history_limit, p_metadata, p_hash,
        v_now, v_now, v_now
    ) on conflict (id) do nothing;
    if not found then
        -- Somebody made it between our look and our insert, and has committed.
        select request_hash into v_hash from conversations where id = p_id;
        if v_hash is distinct from p_hash then
            raise exception using errcode = 'GR409', message = 'this id names another conversation';
        end if;
        return false;
    end if;
    if exists (select from erased where conversation_id = p_id) then
        -- Erased by somebody whose lock we waited for in the insert.
        raise exception using errcode = 'GR410', message = 'this conversation was erased';
    end if;
    insert into participants (conversation_id, user_id, role, joined_at, rev)
    select p_id, u, r, v_now, 1 from unnest(v_users, v_roles) as t (u, r);
    insert into listings (user_id, conversation_id, listed_at, kind, subject, list_rev)
    -- The subject is its owner's: others have the conversation in their lists without it.
    select a.user_id, p_id, v_now, p_kind, case when a.user_id = p_owner_id then p_subject end,
        a.list_rev
    from advance_lists_v1(v_users) a;
    return true;
end $$;

-- Promise: the conversations' listings sort under their listed_at as it now stands.
-- Locks:   none beyond the conversations' rows, which the caller holds.
create function touch_listings_v1(p_conversation_ids uuid[]) returns void
language plpgsql as $$
begin
    update listings l set listed_at = c.listed_at
    from conversations c
    join participants p on p.conversation_id = c.id and p.left_at is null
    where c.id = any (p_conversation_ids)
      and l.user_id = p.user_id and l.conversation_id = c.id;
end $$;

-- Promise: nobody else takes or frees the conversation's subject until we commit.  Returns who has it;
--          a free one is taken for this conversation.  Null when it has no subject, or is not the
--          actor's own.
-- How:     whoever takes a subject, frees it or hands its conversation over comes through here first,
--          so the owner and the subject seen after the slot was locked stay so.
-- Locks:   subject slot.
create function hold_subject_v1(p_id uuid, p_actor text) returns uuid
language plpgsql as $$
declare
    v_owner text;
    v_subject text;
    v_slot uuid;
begin
    loop
        select owner_id, subject into v_owner, v_subject
        from conversations where id = p_id and (p_actor is null or owner_id = p_actor);
        if v_subject is null then
            return null;
        end if;
        insert into subject_slots as s (owner_id, subject, conversation_id)
        values (v_owner, v_subject, p_id)
        on conflict (owner_id, subject) do update set subject = excluded.subject
        returning conversation_id into v_slot;
        if exists (
            select from conversations where id = p_id and owner_id = v_owner and subject = v_subject
        ) then
            return v_slot;
        end if;
        -- Handed over or erased by somebody we waited for.
        delete from subject_slots
        where owner_id = v_owner and subject = v_subject and conversation_id = p_id;
    end loop;
end $$;

-- Promise: title, metadata, history limit and archiving change together, as one rev, or nothing
--          does; what already stands so costs no rev.  Archiving frees the subject, and bringing a
--          conversation back takes it again if nobody else has it.  The owner alone may.
-- How:     p_if_rev (If-Match) is compared under the lock.
--          Archiving cancels a run that answers.
-- Locks:   subject slot (only to archive or bring back), conversation, run lane, users by id.
create function patch_conversation_v1(
    p_id uuid, p_actor text, p_if_rev bigint, p_title text, p_metadata jsonb,
    p_history_limit integer, p_archived boolean
) returns bigint
language plpgsql as $$
declare
    v conversations;
    v_now timestamptz;
    v_slot uuid;
    v_users text[];
begin
    if p_archived is not null then
        v_slot := hold_subject_v1(p_id, p_actor);
    end if;
    v := lock_conversation_v1(p_id, p_actor, 'owner');
    if p_if_rev is not null and p_if_rev <> v.rev then
        raise exception using errcode = 'GR412', message = 'the conversation has changed';
    end if;
    if p_archived = false and v.archived_at is not null and v_slot is distinct from p_id
       and v.subject is not null then
        raise exception using errcode = 'GR429',
            message = 'there is another active conversation on this subject';
    end if;
    if p_archived and v_slot = p_id then
        delete from subject_slots
        where owner_id = v.owner_id and subject = v.subject and conversation_id = p_id;
    end if;
    if v.title is not distinct from coalesce(p_title, v.title)
       and v.metadata = coalesce(p_metadata, v.metadata)
       and v.history_limit = coalesce(p_history_limit, v.history_limit)
       and (v.archived_at is not null) = coalesce(p_archived, v.archived_at is not null) then
        return v.rev;
    end if;
    if p_archived and v.archived_at is null then
        v := cancel_runs_v1(v, 'cancelled');
    end if;
    v_now := greatest(clock_timestamp(), v.updated_at);
    if p_archived is not null and p_archived <> (v.archived_at is not null) then
        select array_agg(user_id) into v_users
        from participants where conversation_id = p_id and left_at is null;
        update listings l set archived = p_archived, list_rev = a.list_rev
        from advance_lists_v1(v_users) a
        where l.user_id = a.user_id and l.conversation_id = p_id;
    end if;
    update conversations set
        title = coalesce(p_title, title),
        metadata = coalesce(p_metadata, metadata),
        history_limit = coalesce(p_history_limit, history_limit),
        archived_at = case
            when p_archived is null then archived_at
            when not p_archived then null
            else coalesce(archived_at, v_now)
        end,
        rev = rev + 1, updated_at = v_now, listed_at = v_now
    where id = p_id;
    perform touch_listings_v1(array[p_id]);
    return v.rev + 1;
end $$;

-- Promise: the actor is at least what is asked for in this conversation, else a refusal that tells a
--          stranger nothing.  A null actor is the service itself and may do everything.
-- Locks:   none; the caller holds the conversation's row, so that nobody leaves meanwhile.
create function require_role_v1(p_conversation conversations, p_actor text, p_role text) returns text
language plpgsql as $$
declare
    v_role text;
begin
    if p_actor is null then
        return 'service';
    end if;
    select role into v_role from participants
    where conversation_id = p_conversation.id and user_id = p_actor and left_at is null;
    if v_role is null then
        raise exception using errcode = 'GR404', message = 'no such conversation';
    end if;
    if (p_role = 'owner' and v_role <> 'owner') or (p_role = 'member' and v_role = 'viewer') then
        raise exception using errcode = 'GR403', message = 'your role here does not allow this';
    end if;
    return v_role;
end $$;
