-- The record, as it is today.  Read the files in the order of their numbers; each holds one topic:
-- its tables, then the functions that change them.  Reads are plain queries in ../queries.
--
-- Names: p_ parameters, v_ variables, _v1 the version of a function (a changed meaning is a new
-- function, so that servers of two releases can share a database).
--
-- Locks, always in this order: subject slot, conversation rows by id, lanes by id (then their token is
-- looked at), users by id.  What hangs on a
-- conversation (its messages, participants, listings) is written under its row lock and needs none.
--
-- Refusals have an SQLSTATE of their own; greffier/errors.py maps them:
--   GR403 forbidden   GR404 not-found   GR409 id-reused     GR410 gone          GR412 stale
--   GR419 archived    GR422 validation  GR429 subject-taken GR439 agent-fixed   GR449 run-active
--
-- Everything keyed by a conversation leads its keys with conversation_id and has no foreign key
-- to another table: a foreign key on messages costs 17 % of an append, and the UPDATE of the
-- conversation's counters proves that it exists.

-- Its owner may have made it already for a role that may not create schemas.
do $$ begin
    if to_regnamespace('greffier') is null then
        create schema greffier;
    end if;
end $$;
set search_path = greffier;

-- Which conversations one statement may touch together.  One group on plain PostgreSQL; on a
-- distributed database this becomes the shard group, and the writer batches by it.
create function route(p_conversation_id uuid) returns integer
language sql immutable parallel safe
return 0;

-- A time as the API shows it: RFC 3339, UTC, microseconds, always of the same length.
create function rfc3339(p_at timestamptz) returns text
language sql stable parallel safe
return to_char(p_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"');

-- The first bytes of a text, at most p_bytes, never half a character.
create function cut_text(p_text text, p_bytes integer) returns text
language plpgsql immutable parallel safe as $$
declare
    v_bytes bytea;
    v_end integer := p_bytes;
begin
    if octet_length(p_text) <= p_bytes then
        return p_text;
    end if;
    v_bytes := convert_to(left(p_text, p_bytes), 'UTF8');
    if length(v_bytes) <= p_bytes then
        return left(p_text, p_bytes);
    end if;
    -- A byte 10xxxxxx continues a character: step back until the cut falls before a first byte.
    while get_byte(v_bytes, v_end) & 192 = 128 loop
        v_end := v_end - 1;
    end loop;
    return convert_from(substring(v_bytes from 1 for v_end), 'UTF8');
end $$;

-- Which history of the database this is.  The epoch changes when the system identifier or the
-- timeline does (a restore, a promotion) and when `greffier restore` says so; a client that holds
-- another epoch starts afresh instead of comparing numbers that mean something else.
create table identity (
    one boolean primary key default true check (one),
    epoch text not null,
    system_identifier bigint not null,
    timeline integer not null,
    since timestamptz not null default clock_timestamp(),
    -- Whoever may connect to a database may LISTEN and NOTIFY there: what keeps strangers out of our
    -- channels is that they do not know their names.
    channel_key text not null default replace(gen_random_uuid()::text, '-', ''),
    -- how far the lanes' clock is off, for tests of clocks that jump
    clock_shift interval not null default '0'
);

-- The name of one of our channels in this database.  For the service; nobody else may call it.
create function channel(p_name text) returns text
language sql stable
return p_name || coalesce('_' || (select channel_key from identity), '');

-- Every migration that was applied, with the checksum of its text.
create table schema_changes (
    id integer primary key,
    name text not null,
    checksum text not null,
    applied_at timestamptz not null default clock_timestamp(),
    applied_by text not null
);

-- Users: whoever a token names.  They are made on first sight and keep their name for display.

set search_path = greffier;

create table users (
    id text primary key check (id <> ''),
    name text,
    email text,
    -- numbers the changes of *which* conversations this user has
    list_rev bigint not null default 0,
    created_at timestamptz not null default clock_timestamp(),
    erased_at timestamptz
) with (fillfactor = 80);

-- Promise: the user exists afterwards, with the name and e-mail last claimed; nothing is written
--          when nothing is new.
-- Locks:   the user's row, only when something changes.
create function see_user_v1(p_id text, p_name text, p_email text) returns void
language plpgsql as $$
begin
    if exists (
        select from users
        where id = p_id
          and name is not distinct from coalesce(p_name, name)
          and email is not distinct from coalesce(p_email, email)
    ) then
        return;
    end if;
    insert into users as u (id, name, email) values (p_id, p_name, p_email)
    on conflict (id) do update
        set name = coalesce(excluded.name, u.name), email = coalesce(excluded.email, u.email)
        where u.erased_at is null;
end $$;

-- API keys: for programs.  Only a hash is kept; the key is shown once, when it is made.

set search_path = greffier;

create table api_keys (
    id uuid primary key,
    key_hash bytea not null unique,
    -- user: acts as one user; service: acts for the user it names; ops: sees how the service does
    scope text not null check (scope in ('user', 'service', 'ops')),
    user_id text,
    name text not null,
    created_by text not null,
    created_at timestamptz not null default clock_timestamp(),
    expires_at timestamptz,
    check ((scope = 'user') = (user_id is not null))
);

-- serves list_keys
create index api_keys_by_user on api_keys (user_id, created_at) where user_id is not null;

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

-- Messages: what was said.  An append numbers them under the conversation's row lock, so that the
-- order of seq is the order of commits, a rollback gives its numbers back, and none is used twice.

set search_path = greffier;

create table messages (
    conversation_id uuid not null,
    seq bigint not null,
    id uuid not null,
    -- the request that made it, hashed: the same id with another request is refused (kept by edits;
    -- null once the message was erased)
    request_hash bytea,
    -- the last seq on the active path when this was committed; null for a first message
    parent_seq bigint,
    role text not null check (role in ('user', 'assistant', 'tool', 'system')),
    author_id text,
    author_name text,
    written_by text not null,
    content text,
    parts json,
    tool_calls json,
    tool_call_id text,
    name text,
    reasoning text,
    status text not null default 'complete'
        check (status in ('complete', 'interrupted', 'cancelled', 'failed')),
    run_id uuid,
    created_at timestamptz not null,
    said_at timestamptz,
    edited_at timestamptz,
    deleted_at timestamptz,
    -- the rev that appended it, and the one that last changed it (null while nothing did)
    rev bigint not null,
    changed_rev bigint,
    -- how many messages up to and with this one were said / are tool traffic (conversations.said_total)
    said_no integer not null,
    tool_no integer not null,
    metadata jsonb,
    primary key (conversation_id, seq),
    unique (conversation_id, id)
);

-- serves counts over a stretch, and audit: deleted messages are few
create index messages_deleted on messages (conversation_id, seq) where deleted_at is not null;
-- serves changes: an append pays nothing for it
create index messages_changed on messages (conversation_id, changed_rev)
    where changed_rev is not null;

-- A message that counts as said, for context limits: somebody's or the model's words.
create function is_said(p_role text, p_content text, p_parts json) returns boolean
language sql immutable parallel safe
return p_role in ('user', 'assistant') and (coalesce(p_content, '') <> '' or p_parts is not null);

-- Tool traffic: a result, or calls without words.
create function is_tool_traffic(p_role text, p_content text, p_parts json, p_calls json) returns boolean
language sql immutable parallel safe
return p_role = 'tool' or (p_role = 'assistant' and p_calls is not null
    and coalesce(p_content, '') = '' and p_parts is null);

-- A message as the API shows it: the one place that says so (model/message.py reads it).
-- p_cut: texts longer than that many bytes are cut and JSON fields left out, marked by
-- truncated and size (the bytes of the fields that were cut); null shows the whole.
-- What most messages lack is one text, not many small ones: a tenth of a page.
create function message_json(m messages, p_cut integer) returns text
language sql stable parallel safe as $$
select '{"conversation_id":"' || m.conversation_id
    || '","seq":' || m.seq
    || ',"id":"' || m.id
    || '","parent_seq":' || coalesce(m.parent_seq::text, 'null')
    || ',"role":"' || m.role
    || '","author_id":' || coalesce(to_json(m.author_id)::text, 'null')
    || ',"author_name":' || coalesce(to_json(m.author_name)::text, 'null')
    || ',"written_by":' || to_json(m.written_by)
    || ',"content":' || case
           when m.content is null or m.deleted_at is not null then 'null'
           when octet_length(m.content) > p_cut then to_json(cut_text(m.content, p_cut))::text
           else to_json(m.content)::text end
    || case
           when m.parts is null and m.tool_calls is null and m.tool_call_id is null
                and m.name is null and m.reasoning is null
               then ',"parts":null,"tool_calls":null,"tool_call_id":null,"name":null,"reasoning":null'
           else ',"parts":' || case
                   when m.parts is null or m.deleted_at is not null
                        or octet_length(m.parts::text) > p_cut then 'null'
                   else m.parts::text end
               || ',"tool_calls":' || case
                   when m.tool_calls is null or m.deleted_at is not null
                        or octet_length(m.tool_calls::text) > p_cut then 'null'
                   else m.tool_calls::text end
               || ',"tool_call_id":' || coalesce(to_json(m.tool_call_id)::text, 'null')
               || ',"name":' || coalesce(to_json(m.name)::text, 'null')
               || ',"reasoning":' || case
                   when m.reasoning is null or m.deleted_at is not null then 'null'
                   when octet_length(m.reasoning) > p_cut then to_json(cut_text(m.reasoning, p_cut))::text
                   else to_json(m.reasoning)::text end
           end
    || ',"status":"' || m.status
    || '","run_id":' || coalesce('"' || m.run_id || '"', 'null')
    || ',"created_at":"' || rfc3339(m.created_at)
    || case
           when m.said_at is null and m.edited_at is null and m.deleted_at is null
               then '","said_at":null,"edited_at":null,"deleted_at":null,"rev":'
           else '","said_at":' || coalesce('"' || rfc3339(m.said_at) || '"', 'null')
               || ',"edited_at":' || coalesce('"' || rfc3339(m.edited_at) || '"', 'null')
               || ',"deleted_at":' || coalesce('"' || rfc3339(m.deleted_at) || '"', 'null')
               || ',"rev":' end
    || coalesce(m.changed_rev, m.rev)
    || ',"metadata":' || coalesce(case when m.deleted_at is null then m.metadata::text end, '{}')
    || case when m.deleted_at is null and greatest(
                octet_length(m.content), octet_length(m.parts::text),
                octet_length(m.tool_calls::text), octet_length(m.reasoning)) > p_cut
           then ',"truncated":true,"size":' || (
                case when octet_length(m.content) > p_cut then octet_length(m.content) else 0 end
              + case when octet_length(m.parts::text) > p_cut then octet_length(m.parts::text) else 0 end
              + case when octet_length(m.tool_calls::text) > p_cut then octet_length(m.tool_calls::text) else 0 end
              + case when octet_length(m.reasoning) > p_cut then octet_length(m.reasoning) else 0 end)
               || '}'
           else '}' end
$$;

-- Promise: the stretches of the active path a page needs, by arithmetic alone: seqs are dense, so
--          the p_before newest seqs up to p_anchor and the p_after oldest above it are found
--          without looking at a message, however the path is cut.
-- How:     one range is the normal case and needs no set; else the ranges are summed from the anchor.
create function path_window(
    p_path int8multirange, p_first bigint, p_last bigint,
    p_anchor bigint, p_before bigint, p_after bigint
) returns table (lo bigint, hi bigint)
language plpgsql immutable parallel safe rows 2 as $$
declare
    v_path int8multirange;
    v_anchor bigint := least(greatest(p_anchor, p_first - 1), p_last);
begin
    if p_last < p_first then
        return;
    end if;
    v_path := p_path * int8multirange(int8range(p_first, p_last + 1));
    if v_path = int8multirange(int8range(lower(v_path), upper(v_path))) then
        v_anchor := least(greatest(v_anchor, lower(v_path) - 1), upper(v_path) - 1);
        lo := greatest(lower(v_path), v_anchor - p_before + 1);
        hi := least(upper(v_path) - 1, v_anchor + p_after);
        if lo <= hi then
            return next;
        end if;
        return;
    end if;
    return query
        select greatest(r.lo, r.hi - (p_before - (r.upto - r.size)) + 1), r.hi
        from (
            select b.lo, b.hi, b.hi - b.lo + 1 as size, (sum(b.hi - b.lo + 1) over (order by b.lo desc))::bigint as upto
            from (
                select lower(x) as lo, upper(x) - 1 as hi
                from unnest(v_path * int8multirange(int8range(p_first, v_anchor + 1))) x
            ) b
        ) r
        where r.upto - r.size < p_before
        union all
        select r.lo, least(r.hi, r.lo + (p_after - (r.upto - r.size)) - 1)
        from (
            select b.lo, b.hi, b.hi - b.lo + 1 as size, (sum(b.hi - b.lo + 1) over (order by b.lo))::bigint as upto
            from (
                select lower(x) as lo, upper(x) - 1 as hi
                from unnest(v_path * int8multirange(int8range(v_anchor + 1, p_last + 1))) x
            ) b
        ) r
        where r.upto - r.size < p_after;
end $$;

-- The last seq on the active path, null when nothing is on it.  The path's last range is open, so
-- it is last_seq unless everything since the last rewind is still to come.
create function path_end(p_path int8multirange, p_first bigint, p_last bigint) returns bigint
language sql immutable parallel safe
return case
    when p_path = '{[1,)}' then nullif(p_last, p_first - 1)
    else upper(p_path * int8multirange(int8range(p_first, greatest(p_last, p_first - 1) + 1))) - 1
end;

-- Promise: the message is on record under the next seq, or it was before (replayed), or nothing
--          happened and outcome says why: busy (p_wait false and somebody holds the row), not-found,
--          gone, archived, forbidden, id-reused.
-- How:     one message, one commit: the path of a lone append.  p_fresh says that the id was made
--          for this call, so that it need not be looked for.
-- Locks:   the conversation's row.
create function append_message_v1(
    p_conversation_id uuid, p_actor text, p_id uuid, p_hash bytea, p_role text,
    p_author_id text, p_author_name text, p_written_by text, p_content text, p_parts json,
    p_tool_calls json, p_tool_call_id text, p_name text, p_reasoning text, p_metadata jsonb,
    p_said_at timestamptz, p_fresh boolean, p_wait boolean,
    out outcome text, out seq bigint, out parent_seq bigint, out rev bigint,
    out created_at timestamptz, out author_id text
)
language plpgsql as $$
declare
    v record;
    v_now timestamptz;
    v_hash bytea;
    v_role text;
    v_said integer := is_said(p_role, p_content, p_parts)::integer;
    v_tool integer := is_tool_traffic(p_role, p_content, p_parts, p_tool_calls)::integer;
begin
    if p_wait then
        select c.id, c.owner_id, c.kind, c.archived_at, c.updated_at, c.listed_at, c.last_seq, c.rev,
            path_end(c.path, c.first_seq, c.last_seq) as path_end, c.said_total, c.tool_total
        into v
        from conversations c where c.id = p_conversation_id for no key update;
    else
        select c.id, c.owner_id, c.kind, c.archived_at, c.updated_at, c.listed_at, c.last_seq, c.rev,
            path_end(c.path, c.first_seq, c.last_seq) as path_end, c.said_total, c.tool_total
        into v
        from conversations c where c.id = p_conversation_id for no key update skip locked;
    end if;
    if not found then
        outcome := absent_conversation(p_conversation_id);
        return;
    end if;
    if p_actor is not null and (p_actor <> v.owner_id or v.kind = 'room') then
        select p.role into v_role from participants p
        where p.conversation_id = v.id and p.user_id = p_actor and p.left_at is null;
        outcome := case
            when v_role is null then 'not-found'
            when v_role = 'viewer' or p_role <> 'user' then 'forbidden'
        end;
        if outcome is not null then
            return;
        end if;
    end if;
    if not p_fresh then
        select m.seq, m.request_hash into seq, v_hash
        from messages m where m.conversation_id = v.id and m.id = p_id;
        if found then
            -- Erased with its content, the hash tells nothing any more: the answer is the tombstone.
            outcome := case when v_hash is null or v_hash = p_hash then 'replayed' else 'id-reused' end;
            return;
        end if;
    end if;
    if v.archived_at is not null then
        outcome := 'archived';
        return;
    end if;
    v_now := greatest(clock_timestamp(), v.updated_at);
    outcome := 'stored';
    seq := v.last_seq + 1;
    rev := v.rev + 1;
    created_at := v_now;
    parent_seq := v.path_end;
    author_id := coalesce(
        p_author_id, case when v.kind = 'assistant' and p_role = 'user' then v.owner_id end);
    insert into messages (
        conversation_id, seq, id, request_hash, parent_seq, role, author_id, author_name, written_by,
        content, parts, tool_calls, tool_call_id, name, reasoning, created_at, said_at, rev,
        said_no, tool_no, metadata
    ) values (
        v.id, append_message_v1.seq, p_id, p_hash, append_message_v1.parent_seq, p_role,
        append_message_v1.author_id, p_author_name, p_written_by, p_content, p_parts, p_tool_calls,
        p_tool_call_id, p_name, p_reasoning, v_now, p_said_at, append_message_v1.rev,
        v.said_total + v_said, v.tool_total + v_tool, p_metadata
    );
    update conversations c set
        last_seq = append_message_v1.seq, rev = append_message_v1.rev,
        message_count = c.message_count + 1,
        said_total = v.said_total + v_said, tool_total = v.tool_total + v_tool,
        updated_at = v_now,
        listed_at = case
            when v_now > v.listed_at + interval '10 minutes' then v_now else v.listed_at end
    where c.id = v.id;
    if v_now > v.listed_at + interval '10 minutes' then
        perform touch_listings_v1(array[v.id]);
    end if;
    -- What was said long ago, an import, is no news for endpoints.
    if exists (select from endpoints) and (p_said_at is null or p_said_at > v_now - interval '1 day') then
        perform enqueue_out_v1(
            array[v.id], array[append_message_v1.seq], array[append_message_v1.seq]);
    end if;
end $$;

-- Why a conversation's row was not there to be locked.
create function absent_conversation(p_id uuid) returns text
language sql stable
return case
    when exists (select from conversations where id = p_id) then 'busy'
    when exists (select from erased where conversation_id = p_id) then 'gone'
    else 'not-found'
end;

-- Promise: many requests of many conversations in one commit.  A request (one or more messages of
--          one conversation) stands or falls whole; a refusal is its own and not its neighbours'.
--          Outcomes as append_message_v1; a replayed message keeps its old numbers, and a request
--          that stores at least one message is one rev.
-- How:     set statements throughout, so that a batch of 250 costs few plans.  Rows somebody else
--          holds are skipped (busy), or waited for with p_wait.  Ids are looked up only with p_check
--          (a tenth of a large batch), which a caller leaves out when it has just made them all.  An
--          id must not be twice in one call.
-- Args:    p_conversation_ids/p_actors/p_sizes: one entry a request, in order; the message arrays
--          hold their messages one request after the other.  Without p_sizes each has one.
-- Locks:   conversation rows by id.
create function append_batch_v1(
    p_route integer, p_conversation_ids uuid[], p_actors text[], p_sizes integer[],
    p_ids uuid[], p_hashes bytea[], p_roles text[], p_author_ids text[], p_author_names text[],
    p_written_by text[], p_contents text[], p_parts text[], p_tool_calls text[],
    p_tool_call_ids text[], p_names text[], p_reasonings text[], p_metadata text[],
    p_said_at timestamptz[], p_check boolean, p_wait boolean
) returns table (
    outcome text, seq bigint, parent_seq bigint, rev bigint, created_at timestamptz, author_id text
)
language plpgsql rows 100 as $$
#variable_conflict use_column
declare
    v_now timestamptz := clock_timestamp();
    -- the locked conversations
    v_id uuid[];
    v_owner text[];
    v_assistant boolean[];
    v_archived boolean[];
    v_last bigint[];
    v_end bigint[];
    v_rev bigint[];
    v_updated timestamptz[];
    v_listed timestamptz[];
    v_said integer[];
    v_tool integer[];
    v_oldest timestamptz;
    -- by message: which request it belongs to (null: each has one), and its seq when it is there
    v_request integer[];
    v_known bigint[];
    -- by request: why it is refused; null when none is
    v_refused text[];
    -- the messages that are there already, by place in the call, and whether they say another thing
    v_found integer[];
    v_seqs bigint[];
    v_other boolean[];
begin
    -- The rows are locked by an inner query in the order of their ids, and read after the lock.
    if p_wait then
        select array_agg(c.id), array_agg(c.owner_id), array_agg(c.kind = 'assistant'),
            array_agg(c.archived_at is not null), array_agg(c.last_seq), array_agg(c.path_end),
            array_agg(c.rev), array_agg(c.updated_at), array_agg(c.listed_at),
            array_agg(c.said_total), array_agg(c.tool_total), min(c.listed_at)
        into v_id, v_owner, v_assistant, v_archived, v_last, v_end, v_rev, v_updated, v_listed,
            v_said, v_tool, v_oldest
        from (
            select *, path_end(path, first_seq, last_seq) as path_end
            from conversations where id = any (p_conversation_ids) order by id for no key update
        ) c;
    else
        select array_agg(c.id), array_agg(c.owner_id), array_agg(c.kind = 'assistant'),
            array_agg(c.archived_at is not null), array_agg(c.last_seq), array_agg(c.path_end),
            array_agg(c.rev), array_agg(c.updated_at), array_agg(c.listed_at),
            array_agg(c.said_total), array_agg(c.tool_total), min(c.listed_at)
        into v_id, v_owner, v_assistant, v_archived, v_last, v_end, v_rev, v_updated, v_listed,
            v_said, v_tool, v_oldest
        from (
            select *, path_end(path, first_seq, last_seq) as path_end
            from conversations where id = any (p_conversation_ids) order by id
            for no key update skip locked
        ) c;
    end if;
    if p_sizes is not null then
        v_request := array(
            select r.n
            from unnest(p_sizes) with ordinality as r (size, n), generate_series(1, r.size)
            order by r.n);
    elsif p_actors is not null or p_check then
        v_request := array(select generate_series(1, cardinality(p_ids)));
    end if;

    -- The usual case refuses nobody: the service, or owners in their assistant conversations.  A
    -- conversation that is not there is found out below when nobody's right is asked about.
    if (p_actors is not null or p_check) and exists (
        select
        from unnest(p_conversation_ids, p_actors) as r (conversation_id, actor)
        left join unnest(v_id, v_owner, v_assistant) as c (id, owner, assistant)
            on c.id = r.conversation_id
        where c.id is null or (r.actor is not null and not (r.actor = c.owner and c.assistant))
    ) then
        -- Members, and a room's owner, speak for themselves only: role user.
        v_refused := array(
            select case
                when c.id is null then absent_conversation(r.conversation_id)
                when r.actor is null or (r.actor = c.owner and c.assistant) then null
                when p.role is null then 'not-found'
                when p.role = 'viewer' or exists (
                    select from unnest(p_roles, v_request) as m (role, request)
                    where m.request = r.n and m.role <> 'user') then 'forbidden'
            end
            from unnest(p_conversation_ids, p_actors) with ordinality as r (conversation_id, actor, n)
            left join unnest(v_id, v_owner, v_assistant) as c (id, owner, assistant)
                on c.id = r.conversation_id
            left join participants p on p.conversation_id = r.conversation_id
                and p.user_id = r.actor and p.left_at is null
            order by r.n);
    end if;

    if p_check then
        -- After the lock, so that whatever an earlier holder committed is seen.  limit 1 makes it one
        -- index probe per id: a plain join may read a whole conversation instead (43 ms for 0.3).
        select array_agg(k.n), array_agg(k.seq), array_agg(k.other) into v_found, v_seqs, v_other
        from (
            -- a hash is null when erased: the answer is the tombstone
            select r.n::integer as n, m.seq, coalesce(m.request_hash <> r.hash, false) as other
            from unnest(p_ids, p_hashes, v_request) with ordinality as r (id, hash, request, n)
            cross join lateral (
                select m.seq, m.request_hash from messages m
                where m.conversation_id = p_conversation_ids[r.request] and m.id = r.id
                limit 1
            ) m
            where v_refused[r.request] is null
        ) k;
        if v_found is not null then
            v_known := array_fill(null::bigint, array[cardinality(p_ids)]);
            for i in 1 .. cardinality(v_found) loop
                v_known[v_found[i]] := v_seqs[i];
                if v_other[i] then
                    v_refused := coalesce(
                        v_refused, array_fill(null::text, array[cardinality(p_conversation_ids)]));
                    v_refused[v_request[v_found[i]]] := 'id-reused';
                end if;
            end loop;
        end if;
    end if;

    if true = any (v_archived) then
        -- An archived conversation still answers for what it has, and takes nothing new.
        v_refused := array(
            select case
                when v_refused[r.n] is not null then v_refused[r.n]
                when c.archived and exists (
                    select from unnest(p_ids, v_request) with ordinality as m (id, request, n)
                    where coalesce(m.request, m.n) = r.n and v_known[m.n] is null) then 'archived'
            end
            from unnest(p_conversation_ids) with ordinality as r (conversation_id, n)
            left join unnest(v_id, v_archived) as c (id, archived) on c.id = r.conversation_id
            order by r.n);
    end if;

    return query
        with asked as (
            select m.*, c.*, r.request, r.conversation_id,
                c.id is not null and v_refused[r.request] is null and v_known[m.n] is null as is_new,
                is_said(m.role, m.content, m.parts)::integer as says,
                is_tool_traffic(m.role, m.content, m.parts, m.tool_calls)::integer as works
            from unnest(
                v_request, p_ids, p_hashes, p_roles, p_author_ids, p_author_names, p_written_by,
                p_contents, p_parts::json[], p_tool_calls::json[], p_tool_call_ids, p_names,
                p_reasonings, p_metadata::jsonb[], p_said_at
            ) with ordinality as m (
                of_request, message_id, hash, role, author_id, author_name, written_by,
                content, parts, tool_calls, tool_call_id, name,
                reasoning, metadata, said_at, n
            )
            cross join lateral (
                select coalesce(m.of_request, m.n) as request,
                    p_conversation_ids[coalesce(m.of_request, m.n)] as conversation_id
            ) r
            left join unnest(v_id, v_owner, v_assistant, v_last, v_end, v_rev, v_updated, v_said, v_tool)
                as c (id, owner, assistant, last, path_end, last_rev, updated, said, tool)
                on c.id = r.conversation_id
        ), numbered as materialized (
            select a.*,
                a.last + row_number() over w as seq,
                case when row_number() over w = 1 then a.path_end
                     else a.last + row_number() over w - 1 end as parent,
                -- the same order as w, so that one sort serves both
                a.last_rev + dense_rank() over (
                    partition by a.conversation_id, a.is_new order by a.request) as rev,
                greatest(v_now, a.updated) as at,
                coalesce(
                    a.author_id, case when a.assistant and a.role = 'user' then a.owner end) as author,
                a.said + sum(a.says) over w as said_no,
                a.tool + sum(a.works) over w as tool_no
            from asked a
            window w as (partition by a.conversation_id, a.is_new order by a.request, a.n)
        ), inserted as (
            insert into messages (
                conversation_id, seq, id, request_hash, parent_seq, role, author_id, author_name,
                written_by, content, parts, tool_calls, tool_call_id, name, reasoning, created_at,
                said_at, rev, said_no, tool_no, metadata
            )
            select m.conversation_id, m.seq, m.message_id, m.hash, m.parent, m.role, m.author, m.author_name,
                m.written_by, m.content, m.parts, m.tool_calls, m.tool_call_id, m.name, m.reasoning,
                m.at, m.said_at, m.rev, m.said_no, m.tool_no, m.metadata
            from numbered m
            where m.is_new
        ), counted as (
            update conversations c set
                last_seq = g.seq, rev = g.rev, message_count = c.message_count + g.many,
                said_total = g.said, tool_total = g.tool, updated_at = g.at,
                listed_at = case
                    when g.at > c.listed_at + interval '10 minutes' then g.at else c.listed_at end
            from (
                select m.conversation_id as id, max(m.seq) as seq, max(m.rev) as rev, max(m.at) as at,
                    max(m.said_no) as said, max(m.tool_no) as tool, count(*) as many
                from numbered m
                where m.is_new
                group by m.conversation_id
            ) g
            where c.id = g.id and c.id = any (p_conversation_ids)
        )
        select
            case when m.is_new then 'stored'
                 when v_refused[m.request] is not null then v_refused[m.request]
                 when m.id is null then absent_conversation(m.conversation_id)
                 else 'replayed' end,
            case when m.is_new then m.seq when v_refused[m.request] is null then v_known[m.n] end,
            case when m.is_new then m.parent end,
            case when m.is_new then m.rev end,
            case when m.is_new then m.at end,
            case when m.is_new then m.author end
        from numbered m
        order by m.n;

    if v_now > v_oldest + interval '10 minutes' then
        perform touch_listings_v1(array(
            select c.id
            from unnest(v_id, v_listed) as old (id, listed_at)
            join conversations c on c.id = old.id
            where c.listed_at <> old.listed_at
        ));
    end if;
    if exists (select from endpoints) and (p_said_at is null or exists (
        select from unnest(p_said_at) s where s is null or s > v_now - interval '1 day')) then
        perform enqueue_out_v1(array_agg(c.id), array_agg(old.last + 1), array_agg(c.last_seq))
        from unnest(v_id, v_last) as old (id, last)
        join conversations c on c.id = old.id
        where c.last_seq > old.last;
    end if;
end $$;

-- What the API shows of a conversation, built where the rows are: the server passes the text on
-- without decoding it, which halves its work per page.  In plpgsql, because a function in SQL that
-- cannot be inlined is planned anew in every query that calls it (1 ms each).

set search_path = greffier;

-- The newest undeleted message on the active path, with its first 200 characters; looked for among
-- the newest 200, so that a long deleted tail costs no more than that.
create function last_message_json(c conversations) returns text
language plpgsql stable as $$ begin return (
select '{"seq":' || m.seq || ',"role":"' || m.role
    || '","author_id":' || coalesce(to_json(m.author_id)::text, 'null')
    || ',"preview":' || coalesce(to_json(left(m.content, 200))::text, 'null')
    || ',"created_at":"' || rfc3339(m.created_at) || '"}'
from path_window(c.path, c.first_seq, c.last_seq, c.last_seq, 200, 0) w
cross join lateral (
    select * from messages m
    where m.conversation_id = c.id and m.seq between w.lo and w.hi and m.deleted_at is null
    order by m.seq desc limit 1
) m
order by m.seq desc
limit 1
); end $$;

-- Others' undeleted messages on the active path, not system, after a mark: counted to 1000, among
-- the 4000 newest, so that it is bounded also for somebody who only writes and never reads.
create function unread_count(c conversations, p_user text, p_mark bigint) returns bigint
language plpgsql stable as $$ begin return (
select count(*) from (
    select
    from path_window(c.path, greatest(c.first_seq, p_mark + 1), c.last_seq, c.last_seq, 4000, 0) w
    -- The inner limit cuts nothing: with it the planner reads the stretch and not the conversation.
    cross join lateral (
        select m.author_id, m.role, m.deleted_at from messages m
        where m.conversation_id = c.id and m.seq between w.lo and w.hi
        order by m.seq limit 4000
    ) m
    where m.author_id is distinct from p_user and m.role <> 'system' and m.deleted_at is null
    limit 1000
) unread
); end $$;

-- A conversation as p_user sees it (null: the service, who is nobody here and has no "me").
create function conversation_json(c conversations, p_user text, p_epoch text) returns text
language plpgsql stable as $$ begin return (
select '{"id":"' || c.id || '","kind":"' || c.kind
    || '","title":' || to_json(c.title)
    || ',"subject":' || coalesce(to_json(c.subject)::text, 'null')
    || ',"agent_id":' || coalesce('"' || c.agent_id || '"', 'null')
    || ',"owner_id":' || to_json(c.owner_id)
    || ',"history_limit":' || c.history_limit
    || ',"metadata":' || c.metadata
    || ',"created_at":"' || rfc3339(c.created_at)
    || '","updated_at":"' || rfc3339(c.updated_at)
    || '","archived_at":' || coalesce('"' || rfc3339(c.archived_at) || '"', 'null')
    || ',"first_seq":' || c.first_seq
    || ',"last_seq":' || c.last_seq
    || ',"message_count":' || c.message_count
    || ',"rev":' || c.rev
    || ',"epoch":' || to_json(p_epoch)
    || ',"last_message":' || coalesce(last_message_json(c), 'null')
    || ',"active_run_id":' || coalesce('"' || c.active_run_id || '"', 'null')
    || ',"me":' || coalesce((
        select '{"role":"' || p.role || '","last_read_seq":' || p.last_read_seq
            || ',"unread":' || unread_count(c, p_user, p.last_read_seq) || '}'
        from participants p
        where p.conversation_id = c.id and p.user_id = p_user and p.left_at is null), 'null')
    || '}'
); end $$;

-- Lanes: one ordered stream of work each.  A row is at once cursor, lease, fence, retry timer and
-- wake-up flag, and workers claim lanes, not messages: what that costs follows what is due and not
-- the backlog, and a conversation is never handled twice at a time.
--
-- due_at says where a lane stands: null idle, parked or paused | past: ready, or a lease that
-- expired | future: a retry, or a lease that lives (token is set).  An expired lease is a due lane,
-- so recovery is the claim itself.  Whoever was paused past a lease is kept out by the token: each
-- of its writes is refused and counted.
--
-- Only the database's clock is asked, so that a worker's wrong clock harms nobody.

set search_path = greffier;

create table lanes (
    conversation_id uuid not null,
    -- lane_id() of the three columns that name it
    id uuid not null,
    -- run: an agent's answers, one after the other | out: messages to one endpoint
    kind text not null check (kind in ('run', 'out')),
    endpoint_id uuid,
    -- the last number there is work for, and the first that is not done
    tail_seq bigint not null default 0,
    head_seq bigint not null default 1,
    due_at timestamptz,
    -- how often it was claimed, ever: what is sent says it, so that a receiver can tell old from new
    fence bigint not null default 0,
    token uuid,
    owner text,
    claimed_at timestamptz,
    -- failures and lost leases of the head, since it is the head
    tries integer not null default 0,
    parked_at timestamptz,
    park_reason text,
    paused_at timestamptz,
    -- writes that came with a token that was no longer the lane's
    refused bigint not null default 0,
    primary key (conversation_id, id)
) with (fillfactor = 60);

-- serves claim_lanes_v1: what is idle, parked or paused is not in it
create index lanes_due on lanes (kind, due_at) where due_at is not null;
-- serves operators, who know a lane by its id alone
create index lanes_by_id on lanes (id);

-- The journal: a row is written before an effect outside, and completed after it.  Two intents of one
-- message explain every double a receiver can have seen.
create table attempts (
    conversation_id uuid not null,
    lane_id uuid not null,
    seq bigint not null,
    -- the lane's when it was claimed for this: they rise from try to try
    fence bigint not null,
    -- its holder's, who may say twice what came of it; null: nobody held it
    token uuid,
    intended_at timestamptz not null,
    -- null: nobody knows what came of it
    outcome text check (outcome in ('accepted', 'rejected', 'not_sent', 'uncertain', 'skipped')),
    detail text,
    -- what the far side calls it
    external_id text,
    settled_at timestamptz,
    primary key (conversation_id, lane_id, seq, fence)
-- each row is written again when it is settled: without room beside it, a third of them moved away
) with (fillfactor = 75);

-- serves whoever sends the next of a thread: what the far side named nothing is not in it
create index attempts_named on attempts (conversation_id, lane_id, seq)
    where external_id is not null;

-- Where a lane's name comes from: what it is for.
create function lane_id(p_conversation_id uuid, p_kind text, p_endpoint_id uuid) returns uuid
language sql immutable parallel safe
return md5(p_conversation_id::text || p_kind || coalesce(p_endpoint_id::text, ''))::uuid;

-- The time by which lanes go.  Tests make it jump for every process at once.
create function lane_clock() returns timestamptz
language sql stable
return clock_timestamp() + coalesce((select clock_shift from identity), '0');

-- Until when a lease lasts that is renewed by what its holder writes: it stays as it is while five
-- sixths are left, and heartbeats do the rest.  due_at is indexed, so that each write that moved it
-- cost an entry in every index of its lane (two thirds of what done_v1 wrote to the log).
create function renewed(p_due_at timestamptz, p_now timestamptz, p_lease interval) returns timestamptz
language sql stable parallel safe
return case
    when p_due_at between p_now + p_lease * 5 / 6 and p_now + p_lease then p_due_at
    else p_now + p_lease end;

-- When a lane is due that gets more work, by when it would be if it were idle.
create function due_with_more(
    p_due_at timestamptz, p_idle timestamptz, p_parked_at timestamptz, p_paused_at timestamptz,
    p_head bigint, p_tail bigint
) returns timestamptz
language sql immutable parallel safe
return case
    -- It waited for its endpoint, which may have gone on while we had the lock.
    when p_due_at = 'infinity' then p_idle
    -- A lease stands, in a paused lane too, and whoever holds it sees the new tail when they
    -- are done; a retry stands as well.
    when p_due_at is not null or p_parked_at is not null or p_paused_at is not null
        or p_head > p_tail then p_due_at
    else p_idle end;

-- Promise: there is work up to p_tail in the lane, which is made if it is new, and is due at p_due_at
--          if it was idle; whoever holds it, and whatever it waits for, stays.  In the caller's
--          transaction: what is not committed was never asked for.
-- How:     a lane made now begins at p_head.
-- Locks:   the lane; the caller holds its conversation.
create function enqueue_v1(
    p_conversation_id uuid, p_kind text, p_endpoint_id uuid, p_head bigint, p_tail bigint,
    p_due_at timestamptz
) returns uuid
language plpgsql as $$
declare
    v_id uuid := lane_id(p_conversation_id, p_kind, p_endpoint_id);
begin
    insert into lanes as l (conversation_id, id, kind, endpoint_id, head_seq, tail_seq, due_at)
    values (p_conversation_id, v_id, p_kind, p_endpoint_id, p_head, p_tail, p_due_at)
    on conflict (conversation_id, id) do update set
        tail_seq = greatest(l.tail_seq, excluded.tail_seq),
        due_at = due_with_more(
            l.due_at, excluded.due_at, l.parked_at, l.paused_at, l.head_seq,
            greatest(l.tail_seq, excluded.tail_seq));
    return v_id;
end $$;

-- What a claim under a token of the caller's is locked by while it is under way.
create function claim_lock(p_token uuid) returns bigint
language sql immutable parallel safe
return hashtextextended('claim ' || p_token::text, 0);

-- Promise: lanes of a kind that are due, at most p_limit, the longest due first, are the caller's
--          until p_lease is over: nobody else has them, and whoever had them can write no more.  A
--          lease that was lost counts as a try; one that was lost p_max_tries times is parked instead
--          (null: never), so that what kills its workers stops doing so.  A paused lane whose lease
--          was lost is let go and nobody's, but for a run, which has to be ended (begin_run_v1).
--          Under a token that the caller brought they can be found when the answer is lost (claimed_v1).
-- How:     first of two statements: what there is to do is read in a new one, whose snapshot is
--          newer than the lock (in the same one a lane can be claimed and its messages not be seen).
--          Row by row, each by its key: a join with the rows that are due would be planned for a
--          tenth of all lanes, as a limit that is a parameter is, and read them all.
-- Locks:   the lanes, none waited for.
create function claim_lanes_v1(
    p_kind text, p_owner text, p_limit integer, p_lease interval, p_max_tries integer,
    p_token uuid default null
) returns table (
    conversation_id uuid, lane_id uuid, endpoint_id uuid, fence bigint, token uuid,
    head_seq bigint, tail_seq bigint, tries integer, parked boolean
)
language plpgsql rows 10 as $$
#variable_conflict use_column
declare
    v_now timestamptz := lane_clock();
    v_token uuid := coalesce(p_token, gen_random_uuid());
    v_lost boolean;
    v_spent boolean;
    v_taken boolean;
    l lanes;
begin
    if p_token is not null and not pg_try_advisory_xact_lock(claim_lock(p_token)) then
        -- Its caller has given it up and looked for it already: we come too late.
        return;
    end if;
    for l in
        select * from lanes x
        where x.kind = p_kind and x.due_at <= v_now
        order by x.due_at
        limit p_limit
        for no key update skip locked
    loop
        v_lost := l.token is not null;
        v_spent := v_lost and coalesce(l.tries + 1 >= p_max_tries, false);
        v_taken := not v_spent and (l.paused_at is null or l.kind = 'run');
        update lanes x set
            fence = l.fence + 1,
            token = case when v_taken then v_token end,
            owner = case when v_taken then p_owner end,
            claimed_at = v_now,
            due_at = case when v_taken then v_now + p_lease end,
            tries = l.tries + v_lost::integer,
            parked_at = case when v_spent then v_now end,
            park_reason = case when v_spent then 'its worker was lost ' || (l.tries + 1) || ' times' end
        where x.conversation_id = l.conversation_id and x.id = l.id;
        if v_taken or v_spent then
            conversation_id := l.conversation_id;
            lane_id := l.id;
            endpoint_id := l.endpoint_id;
            fence := l.fence + 1;
            token := case when v_taken then v_token end;
            head_seq := l.head_seq;
            tail_seq := l.tail_seq;
            tries := l.tries + v_lost::integer;
            parked := v_spent;
            return next;
        end if;
    end loop;
end $$;

-- Promise: the lanes of a kind that were claimed under the token and still are the caller's, whose
--          answer was lost on the way: else they would wait for the end of their lease.
-- How:     the claim may be under way yet, on a connection that broke: it is waited for; or have still
--          to begin: then it finds the lock taken, which this session keeps, and claims nothing.  There
--          is no index by token, which every claim would pay for: what is leased or waits is looked
--          through.
-- Locks:   the claim's, shared with who looks again, until the session ends.
create function claimed_v1(p_kind text, p_token uuid) returns table (
    conversation_id uuid, lane_id uuid, endpoint_id uuid, fence bigint, token uuid,
    head_seq bigint, tail_seq bigint, tries integer, parked boolean
)
language plpgsql rows 10 as $$
begin
    perform pg_advisory_lock_shared(claim_lock(p_token));
    return query
        select l.conversation_id, l.id, l.endpoint_id, l.fence, l.token, l.head_seq, l.tail_seq,
            l.tries, false
        from lanes l
        where l.kind = p_kind and l.due_at is not null and l.token = p_token;
end $$;

-- Promise: the lane's row, locked, when the token is still its own; otherwise null, and the refusal
--          is counted.
-- Locks:   the lane.
create function hold_lane_v1(p_conversation_id uuid, p_lane_id uuid, p_token uuid) returns lanes
language plpgsql as $$
declare
    v lanes;
begin
    select * into v from lanes l
    where l.conversation_id = p_conversation_id and l.id = p_lane_id for no key update;
    if v.token = p_token then
        return v;
    end if;
    update lanes l set refused = l.refused + 1
    where l.conversation_id = p_conversation_id and l.id = p_lane_id;
    return null;
end $$;

-- Promise: it is on record that the holder is about to do p_seq, and the holder may: go.  Otherwise
--          zombie (the lane is no longer theirs), late (less than p_margin of the lease is left, the
--          lane was paused, or the message was edited since it was read as of p_rev: the lane is to be
--          let go, and the message read again), or skip (the message was deleted, erased or left the
--          active path: the journal says so, and the lane goes on behind it).
-- How:     what lies between the head and p_seq was nothing for this lane, so the head moves up: what
--          fails, is parked and may be skipped is p_seq itself.
-- Locks:   the lane.
create function intend_v1(
    p_conversation_id uuid, p_lane_id uuid, p_token uuid, p_seq bigint, p_margin interval,
    p_rev bigint default null
) returns text
language plpgsql as $$
declare
    v lanes := hold_lane_v1(p_conversation_id, p_lane_id, p_token);
    v_now timestamptz := lane_clock();
    v_wanted boolean;
    v_rev bigint;
begin
    if v.id is null then
        return 'zombie';
    end if;
    if p_seq < v.head_seq then
        -- Asked again, because the answer to the first time was lost on the way.
        return case when exists (
            select from attempts a
            where a.conversation_id = p_conversation_id and a.lane_id = p_lane_id and a.seq = p_seq
              and a.token = p_token and a.outcome = 'skipped') then 'skip' else 'zombie' end;
    end if;
    if v.due_at <= v_now + p_margin or v.paused_at is not null then
        return 'late';
    end if;
    if v.kind = 'out' then
        -- Not locked: whoever deletes or edits it after this comes too late.
        select m.deleted_at is null and m.seq <@ c.path, coalesce(m.changed_rev, m.rev)
        into v_wanted, v_rev
        from conversations c join messages m on m.conversation_id = c.id and m.seq = p_seq
        where c.id = p_conversation_id;
        if v_wanted is not true then
            insert into attempts (
                conversation_id, lane_id, seq, fence, token, intended_at, outcome, detail, settled_at
            ) values (
                p_conversation_id, p_lane_id, p_seq, v.fence, p_token, v_now, 'skipped',
                'it was deleted, or is not on the active path', v_now
            ) on conflict do nothing;
            update lanes l set head_seq = p_seq + 1, tries = 0
            where l.conversation_id = p_conversation_id and l.id = p_lane_id;
            return 'skip';
        end if;
        if v_rev <> p_rev then
            return 'late';
        end if;
    end if;
    insert into attempts (conversation_id, lane_id, seq, fence, token, intended_at)
    values (p_conversation_id, p_lane_id, p_seq, v.fence, p_token, v_now)
    on conflict do nothing;
    if p_seq > v.head_seq then
        update lanes l set head_seq = p_seq, tries = 0
        where l.conversation_id = p_conversation_id and l.id = p_lane_id;
    end if;
    return 'go';
end $$;

-- Promise: true when this holder has already said what came of p_seq, and the answer was lost on the
--          way: the lane may have been let go since, and be somebody else's.
-- How:     a first call that is still under way, whose connection broke, is waited for.
-- Locks:   the lane.
create function settled_before_v1(
    p_conversation_id uuid, p_lane_id uuid, p_token uuid, p_seq bigint
) returns boolean
language plpgsql as $$
begin
    perform from lanes l
    where l.conversation_id = p_conversation_id and l.id = p_lane_id and l.token = p_token
    for no key update;
    return not found and exists (
        select from attempts a
        where a.conversation_id = p_conversation_id and a.lane_id = p_lane_id and a.seq = p_seq
          and a.token = p_token and a.settled_at is not null);
end $$;

-- Promise: p_seq is done and the lane stands behind it; said twice, by the same holder, it is done
--          once.  With p_lease the lane stays theirs if there is more, for five sixths of it at least,
--          else it is let go, due at once if there is more.  False: it was no longer theirs, and nothing happened.
-- How:     whether there is more is read from the locked row: a message that comes meanwhile either
--          has moved tail_seq before, or waits for this lock and makes the lane due after.  A lease
--          that is nearly whole is left as it is (renewed).
-- Locks:   the lane.
create function done_v1(
    p_conversation_id uuid, p_lane_id uuid, p_token uuid, p_seq bigint, p_outcome text,
    p_detail text, p_external_id text, p_lease interval
) returns boolean
language plpgsql as $$
declare
    v lanes;
    v_now timestamptz;
    v_more boolean;
begin
    select * into v from lanes l
    where l.conversation_id = p_conversation_id and l.id = p_lane_id for no key update;
    if v.token is distinct from p_token then
        if settled_before_v1(p_conversation_id, p_lane_id, p_token, p_seq) then
            return true;
        end if;
        perform hold_lane_v1(p_conversation_id, p_lane_id, p_token);
        return false;
    end if;
    if p_seq < v.head_seq then
        -- Asked again, because the answer to the first time was lost on the way.
        return true;
    end if;
    v_now := lane_clock();
    update attempts a set
        outcome = p_outcome, detail = p_detail, external_id = p_external_id, settled_at = v_now
    where a.conversation_id = p_conversation_id and a.lane_id = p_lane_id and a.seq = p_seq
      and a.fence = v.fence;
    v_more := p_seq < v.tail_seq;
    update lanes l set
        head_seq = p_seq + 1, tries = 0,
        due_at = case
            when not v_more or v.paused_at is not null then null
            when p_lease is null then v_now
            else renewed(l.due_at, v_now, p_lease)
        end,
        token = case when v_more and v.paused_at is null and p_lease is not null then l.token end,
        owner = case when v_more and v.paused_at is null and p_lease is not null then l.owner end
    where l.conversation_id = p_conversation_id and l.id = p_lane_id;
    return true;
end $$;

-- Promise: p_seq was tried and is not done; the lane is let go and due again after p_retry_in, or
--          parked for a person when p_reason says why or p_max_tries is reached; said twice, it failed
--          once.  False: it was no longer theirs.
-- Locks:   the lane.
create function fail_v1(
    p_conversation_id uuid, p_lane_id uuid, p_token uuid, p_seq bigint, p_outcome text,
    p_detail text, p_retry_in interval, p_max_tries integer, p_reason text
) returns boolean
language plpgsql as $$
declare
    v lanes;
    v_now timestamptz;
    v_reason text;
begin
    if settled_before_v1(p_conversation_id, p_lane_id, p_token, p_seq) then
        return true;
    end if;
    v := hold_lane_v1(p_conversation_id, p_lane_id, p_token);
    if v.id is null then
        return false;
    end if;
    v_now := lane_clock();
    update attempts a set outcome = p_outcome, detail = p_detail, settled_at = v_now
    where a.conversation_id = p_conversation_id and a.lane_id = p_lane_id and a.seq = p_seq
      and a.fence = v.fence;
    v_reason := coalesce(
        p_reason,
        case when v.tries + 1 >= p_max_tries
             then 'tried ' || (v.tries + 1) || ' times: ' || coalesce(p_detail, p_outcome) end);
    update lanes l set
        tries = l.tries + 1, token = null, owner = null,
        parked_at = case when v_reason is not null then v_now end, park_reason = v_reason,
        due_at = case when v_reason is null and v.paused_at is null
                      then v_now + coalesce(p_retry_in, '0') end
    where l.conversation_id = p_conversation_id and l.id = p_lane_id;
    return true;
end $$;

-- Promise: the leases that are still the holder's last p_lease from now; returns which.  The others
--          are to be dropped at once; of those that somebody else has by now, a refusal is counted.
-- Locks:   lanes by id, those of others not waited for.
create function heartbeat_v1(
    p_conversation_ids uuid[], p_lane_ids uuid[], p_tokens uuid[], p_lease interval
) returns table (lane_id uuid)
language plpgsql rows 10 as $$
declare
    v_now timestamptz := lane_clock();
    v_kept bigint;
begin
    return query
        with mine as materialized (
            select l.conversation_id, l.id
            from unnest(p_conversation_ids, p_lane_ids, p_tokens) as h (conversation_id, id, token)
            join lanes l on l.conversation_id = h.conversation_id and l.id = h.id
                and l.token = h.token
            order by l.conversation_id, l.id
            for no key update of l
        )
        update lanes l set due_at = v_now + p_lease
        from mine m
        where l.conversation_id = m.conversation_id and l.id = m.id
        returning l.id;
    get diagnostics v_kept = row_count;
    if v_kept = cardinality(p_lane_ids) then
        return;
    end if;
    -- What has no token was let go, most often by the holder, a moment ago.
    with taken as materialized (
        select l.conversation_id, l.id
        from unnest(p_conversation_ids, p_lane_ids, p_tokens) as h (conversation_id, id, token)
        join lanes l on l.conversation_id = h.conversation_id and l.id = h.id
            and l.token <> h.token
        for no key update of l skip locked
    )
    update lanes l set refused = l.refused + 1
    from taken t
    where l.conversation_id = t.conversation_id and l.id = t.id;
end $$;

-- Promise: the lane is let go, due at once, and no try is counted: its holder stops.  False: it was
--          no longer theirs.
-- Locks:   the lane.
create function release_v1(p_conversation_id uuid, p_lane_id uuid, p_token uuid) returns boolean
language plpgsql as $$
declare
    v lanes := hold_lane_v1(p_conversation_id, p_lane_id, p_token);
    v_now timestamptz := lane_clock();
begin
    if v.id is null then
        return false;
    end if;
    update lanes l set
        token = null, owner = null,
        due_at = case when v.head_seq <= v.tail_seq and v.paused_at is null then v_now end
    where l.conversation_id = p_conversation_id and l.id = p_lane_id;
    return true;
end $$;

-- What a person may do to a lane, and when: 'unlock' an expired lease, or a parked lane whose tries
-- are not used up; with p_force also when they are; with p_steal also a lease that lives.  Null: it
-- needs no unlocking, or may not be.  One place says so, for the look and for the deed.
create function unlockable(
    l lanes, p_now timestamptz, p_max_tries integer, p_force boolean, p_steal boolean
) returns text
language sql immutable
return case
    when l.parked_at is not null and (p_force or l.tries < p_max_tries) then 'parked'
    when l.parked_at is not null then null
    when l.token is not null and l.due_at <= p_now then 'expired'
    when l.token is not null and p_steal then 'stolen'
end;

-- Promise: the lane is ready again with all its tries, and whoever held it cannot write: returns what
--          it was (unlockable), null when nothing was done.
-- Locks:   the lane.
create function unlock_v1(
    p_conversation_id uuid, p_lane_id uuid, p_max_tries integer, p_force boolean, p_steal boolean
) returns text
language plpgsql as $$
declare
    v lanes;
    v_now timestamptz := lane_clock();
    v_was text;
begin
    select * into v from lanes l
    where l.conversation_id = p_conversation_id and l.id = p_lane_id for no key update;
    v_was := unlockable(v, v_now, p_max_tries, p_force, p_steal);
    if v_was is null then
        return null;
    end if;
    update lanes l set
        fence = l.fence + 1, token = null, owner = null, tries = 0, parked_at = null,
        park_reason = null,
        due_at = case when v.head_seq <= v.tail_seq and v.paused_at is null then v_now end
    where l.conversation_id = p_conversation_id and l.id = p_lane_id;
    return v_was;
end $$;

-- Promise: what waits for a later try, or is parked, is due now with all its tries; a lane that
--          somebody works on is left to them (false).
-- Locks:   the lane.
create function retry_v1(p_conversation_id uuid, p_lane_id uuid) returns boolean
language plpgsql as $$
declare
    v lanes;
    v_now timestamptz := lane_clock();
begin
    select * into v from lanes l
    where l.conversation_id = p_conversation_id and l.id = p_lane_id for no key update;
    if v.id is null or v.token is not null or v.head_seq > v.tail_seq then
        return false;
    end if;
    update lanes l set
        tries = 0, parked_at = null, park_reason = null,
        due_at = case when v.paused_at is null then v_now end
    where l.conversation_id = p_conversation_id and l.id = p_lane_id;
    return true;
end $$;

-- Promise: the lane goes on behind its head, which is given up, and the journal says who said so; a
--          lane that somebody works on is left to them.  Returns what was given up, null when nothing.
-- Locks:   the lane.
create function skip_head_v1(p_conversation_id uuid, p_lane_id uuid, p_by text) returns bigint
language plpgsql as $$
declare
    v lanes;
    v_now timestamptz := lane_clock();
begin
    select * into v from lanes l
    where l.conversation_id = p_conversation_id and l.id = p_lane_id for no key update;
    if v.id is null or v.kind <> 'out' or v.token is not null or v.head_seq > v.tail_seq then
        return null;
    end if;
    insert into attempts (
        conversation_id, lane_id, seq, fence, intended_at, outcome, detail, settled_at
    ) values (
        p_conversation_id, p_lane_id, v.head_seq, v.fence + 1, v_now, 'skipped',
        'skipped by ' || p_by, v_now
    );
    update lanes l set
        fence = l.fence + 1, head_seq = l.head_seq + 1, tries = 0, parked_at = null,
        park_reason = null,
        due_at = case when v.head_seq < v.tail_seq and v.paused_at is null then v_now end
    where l.conversation_id = p_conversation_id and l.id = p_lane_id;
    return v.head_seq;
end $$;

-- Promise: nobody begins anything in the lane until it is resumed; what is under way may end.  Or,
--          with p_paused false, it goes on.  False when it stood so already.
-- Locks:   the lane.
create function pause_v1(p_conversation_id uuid, p_lane_id uuid, p_paused boolean) returns boolean
language plpgsql as $$
declare
    v lanes;
    v_now timestamptz := lane_clock();
begin
    select * into v from lanes l
    where l.conversation_id = p_conversation_id and l.id = p_lane_id for no key update;
    if v.id is null or (v.paused_at is not null) = p_paused then
        return false;
    end if;
    update lanes l set
        paused_at = case when p_paused then v_now end,
        due_at = case
            -- The lease of whoever works on it lives on.
            when v.token is not null then l.due_at
            when p_paused or v.parked_at is not null or v.head_seq > v.tail_seq then null
            else v_now
        end
    where l.conversation_id = p_conversation_id and l.id = p_lane_id;
    return true;
end $$;

-- Promise: after a restore or a failover, which may have lost claims, nobody who held a lane before
--          can write, and what is sent from now on has a higher fence than anything sent before.
-- Locks:   every lane, by id.
create function refence_lanes_v1() returns bigint
language plpgsql as $$
declare
    v_now timestamptz := lane_clock();
    v_many bigint;
begin
    perform from lanes l order by l.conversation_id, l.id for no key update;
    update lanes l set
        fence = l.fence + 1000000, owner = null,
        due_at = case
            when l.token is null then l.due_at
            -- A run that was under way has to be ended, paused or not.
            when l.kind = 'run' or (l.paused_at is null and l.head_seq <= l.tail_seq) then v_now
        end,
        -- A run that was under way is found so by its status.
        token = null;
    get diagnostics v_many = row_count;
    return v_many;
end $$;

-- Agents: who may answer in a conversation, which model speaks for them, and with what instructions.

set search_path = greffier;

create table agents (
    id uuid primary key,
    name text not null,
    -- an entry of the server's settings, or the built-in echo or script; no key is ever stored
    provider text not null,
    model text not null,
    instructions text,
    -- json: a schema's properties stay in their order, in which some models fill them
    tools json not null default '[]',
    params jsonb not null default '{}',
    request_hash uuid not null,
    -- +1 for every change
    version bigint not null default 1,
    created_at timestamptz not null,
    updated_at timestamptz not null,
    -- a deleted agent answers no more; what it said keeps its name
    deleted_at timestamptz
);

-- An agent as the API shows it.
create function agent_json(a agents) returns text
language sql stable
return '{"id":"' || a.id || '","name":' || to_json(a.name)
    || ',"provider":' || to_json(a.provider)
    || ',"model":' || to_json(a.model)
    || ',"instructions":' || coalesce(to_json(a.instructions)::text, 'null')
    || ',"tools":' || a.tools || ',"params":' || a.params
    || ',"version":' || a.version
    || ',"created_at":"' || rfc3339(a.created_at) || '","updated_at":"' || rfc3339(a.updated_at) || '"}';

-- Promise: the agent exists once under its id: the same request again finds it (false), another one
--          under the same id is refused.
-- Locks:   the agent's row.
create function create_agent_v1(
    p_id uuid, p_hash uuid, p_name text, p_provider text, p_model text, p_instructions text,
    p_tools json, p_params jsonb
) returns boolean
language plpgsql as $$
declare
    v_now timestamptz := clock_timestamp();
    v_hash uuid;
begin
    insert into agents (
        id, request_hash, name, provider, model, instructions, tools, params, created_at, updated_at
    ) values (
        p_id, p_hash, p_name, p_provider, p_model, p_instructions, p_tools, p_params, v_now, v_now
    ) on conflict (id) do nothing;
    if found then
        return true;
    end if;
    select request_hash into v_hash from agents where id = p_id;
    if v_hash <> p_hash then
        raise exception using errcode = 'GR409', message = 'this id names another agent';
    end if;
    return false;
end $$;

-- Promise: what is given (not null) replaces what stood; returns the version.  Runs that have begun
--          keep the agent as it was.
-- How:     an empty text takes the instructions away.  p_if_version is compared under the lock.
-- Locks:   the agent's row.
create function patch_agent_v1(
    p_id uuid, p_if_version bigint, p_name text, p_provider text, p_model text,
    p_instructions text, p_tools json, p_params jsonb
) returns bigint
language plpgsql as $$
declare
    v agents;
    v_now timestamptz := clock_timestamp();
begin
    select * into v from agents where id = p_id and deleted_at is null for no key update;
    if not found then
        raise exception using errcode = 'GR404', message = 'no such agent';
    end if;
    if p_if_version is not null and p_if_version <> v.version then
        raise exception using errcode = 'GR412', message = 'the agent has changed';
    end if;
    update agents set
        name = coalesce(p_name, name), provider = coalesce(p_provider, provider),
        model = coalesce(p_model, model),
        instructions = case when p_instructions is null then instructions
                            else nullif(p_instructions, '') end,
        tools = coalesce(p_tools, tools), params = coalesce(p_params, params),
        version = version + 1, updated_at = v_now
    where id = p_id;
    return v.version + 1;
end $$;

-- Promise: the agent begins no more runs; its row stays for those that were.  False when it was gone.
-- Locks:   the agent's row.
create function delete_agent_v1(p_id uuid) returns boolean
language plpgsql as $$
declare
    v_now timestamptz := clock_timestamp();
begin
    update agents set deleted_at = v_now where id = p_id and deleted_at is null;
    return found;
end $$;

-- What models cost: one line for each run in a ledger that only grows, and who may spend how much.

set search_path = greffier;

create table usage (
    user_id text not null,
    at timestamptz not null,
    run_id uuid not null,
    conversation_id uuid not null,
    agent_id uuid not null,
    provider text not null,
    model text not null,
    -- questions put to the model
    calls integer not null,
    input_tokens bigint not null,
    output_tokens bigint not null,
    -- of the input's, those the provider had kept from before
    cached_tokens bigint not null,
    -- in the currency of the settings, by their prices on that day
    cost numeric not null,
    primary key (user_id, run_id)
);

-- serves spent() and the statements of a month
create index usage_by_time on usage (user_id, at);

create table quotas (
    user_id text primary key,
    tokens_per_month bigint,
    cost_per_month numeric,
    changed_at timestamptz not null
);

-- What administrators changed, who did, and what stood before.
create table admin_log (
    at timestamptz not null,
    id uuid not null,
    actor text not null,
    action text not null,
    subject text not null,
    before jsonb,
    after jsonb,
    primary key (at, id)
);

-- What somebody's runs took since a moment.
create function spent(p_user text, p_since timestamptz, out tokens bigint, out cost numeric)
language plpgsql stable as $$
begin
    select coalesce(sum(u.input_tokens + u.output_tokens), 0), coalesce(sum(u.cost), 0)
    into tokens, cost
    from usage u where u.user_id = p_user and u.at >= p_since;
end $$;

-- Why this person may start no run now, in words; null when they may.  A month begins with its first
-- second in UTC.
create function quota_refusal(p_user text, p_now timestamptz) returns text
language plpgsql stable as $$
declare
    q quotas;
    s record;
begin
    select * into q from quotas where user_id = p_user;
    if not found then
        return null;
    end if;
    select * into s from spent(p_user, date_trunc('month', p_now, 'UTC'));
    return case
        when s.tokens >= q.tokens_per_month
            then s.tokens || ' of ' || q.tokens_per_month || ' tokens of this month are used'
        when s.cost >= q.cost_per_month
            then s.cost || ' of ' || q.cost_per_month || ' of this month are spent'
    end;
end $$;

-- Promise: the user may spend so much a month (null: no limit), and the log says who said so and what
--          stood before.
-- Locks:   the quota's row.
create function set_quota_v1(
    p_user text, p_tokens bigint, p_cost numeric, p_actor text, p_log_id uuid
) returns void
language plpgsql as $$
declare
    v_now timestamptz := clock_timestamp();
    v_before jsonb;
begin
    insert into quotas (user_id, changed_at) values (p_user, v_now) on conflict do nothing;
    select jsonb_build_object('tokens_per_month', q.tokens_per_month, 'cost_per_month', q.cost_per_month)
    into v_before from quotas q where q.user_id = p_user for no key update;
    update quotas set tokens_per_month = p_tokens, cost_per_month = p_cost, changed_at = v_now
    where user_id = p_user;
    insert into admin_log (at, id, actor, action, subject, before, after)
    values (
        v_now, p_log_id, p_actor, 'quota', p_user, v_before,
        jsonb_build_object('tokens_per_month', p_tokens, 'cost_per_month', p_cost));
end $$;

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

-- Endpoints: where messages go.  An endpoint is for one conversation, for those its sources bring, or
-- for all; each conversation has a lane to it, made by the first message after it.

set search_path = greffier;

create table endpoints (
    id uuid primary key,
    -- the conversation whose owner made it; null: an administrator's
    only_conversation_id uuid,
    -- whether it is for every conversation there is
    everywhere boolean not null,
    channel text not null,
    target text not null,
    -- what both sides know, newest first; the one before it holds for a day after rotated_at
    secrets text[] not null,
    rotated_at timestamptz,
    settings jsonb not null default '{}',
    -- whose words are sent; null: everybody's
    roles text[],
    ordering text not null check (ordering in ('strict', 'skip', 'unordered')),
    on_uncertain text check (on_uncertain in ('resend', 'probe', 'park')),
    max_attempts integer check (max_attempts > 0),
    -- messages sent to it at the same time, and in a minute; null: no limit
    concurrency integer check (concurrency > 0),
    per_minute integer check (per_minute > 0),
    request_hash bytea not null,
    created_by text not null,
    created_at timestamptz not null,
    -- +1 for every change somebody asked for
    version bigint not null default 1,
    paused_at timestamptz,
    disabled_at timestamptz,
    disabled_reason text,
    -- since when it has only failed, how often in a row, and until when it is left alone
    failing_since timestamptz,
    failures integer not null default 0,
    held_until timestamptz,
    -- who tries meanwhile whether it is well again
    tried_by uuid,
    -- when the next message may leave, by its rate, and when the next that has to wait comes again:
    -- each lane is told a time of its own, or all of them would come back for every place
    free_at timestamptz,
    queue_at timestamptz,
    -- its id cannot come back: the journal tells tries apart by lanes, which are named after it
    deleted_at timestamptz
) with (fillfactor = 70);

-- serves enqueue_out_v1, which every append asks: null is for all
create index endpoints_everywhere on endpoints (id) where everywhere;
create index endpoints_by_conversation on endpoints (only_conversation_id)
    where only_conversation_id is not null;

-- Which endpoints a conversation has beyond those for all, and where they point for it: a source's
-- answers go to the contact who wrote.
create table conversation_endpoints (
    conversation_id uuid not null,
    endpoint_id uuid not null,
    -- null: the endpoint's own
    target text,
    primary key (conversation_id, endpoint_id)
);

-- A place for each message an endpoint takes at the same time; one whose time is over is free.
create table endpoint_slots (
    endpoint_id uuid not null,
    slot integer not null,
    -- for whom it is: a lane and its token
    holder uuid,
    until timestamptz,
    primary key (endpoint_id, slot)
) with (fillfactor = 60);

-- What the far side said of a message after it took it.
create table receipts (
    endpoint_id uuid not null,
    external_id text not null,
    conversation_id uuid not null,
    seq bigint not null,
    status text check (status in ('sent', 'delivered', 'read', 'failed')),
    at timestamptz not null,
    primary key (endpoint_id, external_id)
);

-- serves erasure
create index receipts_by_conversation on receipts (conversation_id);
-- serves whoever resumes an endpoint, and operators
create index lanes_by_endpoint on lanes (endpoint_id) where endpoint_id is not null;

-- What both sides know now, newest first.
create function secrets_now(p_secrets text[], p_rotated_at timestamptz, p_now timestamptz) returns text[]
language sql immutable parallel safe
return case when p_rotated_at > p_now - interval '1 day' then p_secrets else p_secrets[1:1] end;

-- Where a message of an endpoint without order waits, which failed while others went on.
create function aside_id(p_conversation_id uuid, p_endpoint_id uuid, p_seq bigint) returns uuid
language sql immutable parallel safe
return md5(lane_id(p_conversation_id, 'out', p_endpoint_id)::text || p_seq)::uuid;

-- An endpoint as the API shows it: never what both sides know.
create function endpoint_json(e endpoints) returns text
language sql stable
return '{"id":"' || e.id || '","channel":' || to_json(e.channel)
    || ',"target":' || to_json(e.target)
    || ',"conversation_id":' || coalesce('"' || e.only_conversation_id || '"', 'null')
    || ',"everywhere":' || e.everywhere
    || ',"roles":' || coalesce(to_json(e.roles)::text, 'null')
    || ',"ordering":"' || e.ordering
    || '","on_uncertain":' || coalesce('"' || e.on_uncertain || '"', 'null')
    || ',"max_attempts":' || coalesce(e.max_attempts::text, 'null')
    || ',"concurrency":' || coalesce(e.concurrency::text, 'null')
    || ',"per_minute":' || coalesce(e.per_minute::text, 'null')
    || ',"settings":' || e.settings
    || ',"state":"' || case
        when e.disabled_at is not null then 'disabled' when e.paused_at is not null then 'paused'
        when e.held_until > lane_clock() then 'slowed' when e.failures > 0 then 'failing'
        else 'active' end
    || '","paused":' || (e.paused_at is not null)
    || ',"disabled_at":' || coalesce('"' || rfc3339(e.disabled_at) || '"', 'null')
    || ',"disabled_reason":' || coalesce(to_json(e.disabled_reason)::text, 'null')
    || ',"failing_since":' || coalesce('"' || rfc3339(e.failing_since) || '"', 'null')
    || ',"held_until":' || coalesce('"' || rfc3339(e.held_until) || '"', 'null')
    || ',"rotated_at":' || coalesce('"' || rfc3339(e.rotated_at) || '"', 'null')
    || ',"version":' || e.version
    || ',"created_by":' || to_json(e.created_by)
    || ',"created_at":"' || rfc3339(e.created_at) || '"}';

-- Promise: the conversations' new messages are work for each of their endpoints, in the caller's
--          transaction (as enqueue_v1, for each).  Where there are no endpoints nobody asks.
-- How:     one statement: of an append's time for endpoints two thirds were a loop and a call for each
--          lane.  Which of the messages an endpoint takes is decided when they are sent.
-- Locks:   lanes by id; the caller holds the conversations.
create function enqueue_out_v1(
    p_conversation_ids uuid[], p_first bigint[], p_last bigint[]
) returns void
language plpgsql as $$
declare
    v_now timestamptz := lane_clock();
begin
    insert into lanes as l (conversation_id, id, kind, endpoint_id, head_seq, tail_seq, due_at)
    select c.id, lane_id(c.id, 'out', x.endpoint_id), 'out', x.endpoint_id, c.first, c.last, v_now
    from unnest(p_conversation_ids, p_first, p_last) as c (id, first, last)
    cross join lateral (
        select w.id as endpoint_id from endpoints w where w.everywhere
        union
        select o.endpoint_id from conversation_endpoints o where o.conversation_id = c.id
    ) x
    order by 1, 2
    on conflict (conversation_id, id) do update set
        tail_seq = greatest(l.tail_seq, excluded.tail_seq),
        due_at = due_with_more(
            l.due_at, excluded.due_at, l.parked_at, l.paused_at, l.head_seq,
            greatest(l.tail_seq, excluded.tail_seq));
end $$;

-- Promise: the endpoint exists once under its id: the same request again finds it (false), another one
--          is refused.  One for a conversation is its owner's to make, up to p_most.
-- Locks:   the conversation's row, if it is for one.
create function create_endpoint_v1(
    p_id uuid, p_hash bytea, p_conversation_id uuid, p_actor text, p_everywhere boolean,
    p_channel text, p_target text, p_secrets text[], p_settings jsonb, p_roles text[],
    p_ordering text, p_on_uncertain text, p_max_attempts integer, p_concurrency integer,
    p_per_minute integer, p_paused boolean, p_created_by text, p_most integer
) returns boolean
language plpgsql as $$
declare
    v_now timestamptz := clock_timestamp();
    v endpoints;
begin
    if p_conversation_id is not null then
        perform lock_conversation_v1(p_conversation_id, p_actor, 'owner');
    end if;
    insert into endpoints (
        id, only_conversation_id, everywhere, channel, target, secrets, settings, roles, ordering,
        on_uncertain, max_attempts, concurrency, per_minute, request_hash, created_by, created_at,
        paused_at
    ) values (
        p_id, p_conversation_id, p_everywhere, p_channel, p_target, p_secrets, p_settings, p_roles,
        p_ordering, p_on_uncertain, p_max_attempts, p_concurrency, p_per_minute, p_hash,
        p_created_by, v_now, case when p_paused then v_now end
    ) on conflict (id) do nothing;
    if not found then
        select * into v from endpoints where id = p_id;
        if v.request_hash is distinct from p_hash then
            raise exception using errcode = 'GR409', message = 'this id names another endpoint';
        end if;
        if v.deleted_at is not null then
            raise exception using errcode = 'GR410', message = 'this endpoint was deleted';
        end if;
        return false;
    end if;
    insert into endpoint_slots (endpoint_id, slot)
    select p_id, n from generate_series(1, coalesce(p_concurrency, 0)) n;
    if p_conversation_id is not null then
        if p_most <= (
            select count(*) from conversation_endpoints where conversation_id = p_conversation_id) then
            -- Each of them costs every message of the conversation.
            raise exception using errcode = 'GR422', message = 'too many endpoints';
        end if;
        insert into conversation_endpoints (conversation_id, endpoint_id)
        values (p_conversation_id, p_id);
    end if;
    return true;
end $$;

-- Promise: what waits for the endpoint is due now.
-- How:     a lane that is locked is being made due, or asks the endpoint itself before it waits
--          (enqueue_v1, defer_v1).
-- Locks:   its lanes, none waited for: the caller holds the endpoint, for which they may wait.
create function wake_endpoint_v1(p_endpoint_id uuid) returns bigint
language plpgsql as $$
declare
    v_now timestamptz := lane_clock();
    v_many bigint;
begin
    with waiting as materialized (
        select l.conversation_id, l.id from lanes l
        where l.endpoint_id = p_endpoint_id and l.due_at > v_now and l.token is null
        for no key update skip locked
    )
    update lanes l set due_at = v_now
    from waiting w
    where l.conversation_id = w.conversation_id and l.id = w.id;
    get diagnostics v_many = row_count;
    return v_many;
end $$;

-- Whether the endpoint is the actor's to look after: p_all, an admin's, are all; otherwise those of
-- conversations, of the actor's own (null: of every conversation).
create function keeps_endpoint(e endpoints, p_actor text, p_all boolean) returns boolean
language sql stable
return e.deleted_at is null and (p_all or e.only_conversation_id is not null and (
    p_actor is null or exists (
        select from conversations c where c.id = e.only_conversation_id and c.owner_id = p_actor)));

-- Promise: the endpoint is as it is given, over the version that was looked at, and p_enable takes back
--          that it was disabled.  Returns the version.  What waited for it to go on is due.
-- Locks:   the endpoint's row, its slots, its lanes, these not waited for.
create function patch_endpoint_v1(
    p_id uuid, p_version bigint, p_target text, p_settings jsonb, p_roles text[],
    p_ordering text, p_on_uncertain text, p_max_attempts integer, p_concurrency integer,
    p_per_minute integer, p_paused boolean, p_enable boolean
) returns bigint
language plpgsql as $$
declare
    v endpoints;
    v_now timestamptz := clock_timestamp();
begin
    select * into v from endpoints where id = p_id and deleted_at is null for no key update;
    if not found then
        raise exception using errcode = 'GR404', message = 'no such endpoint';
    end if;
    if p_version <> v.version then
        raise exception using errcode = 'GR412', message = 'the endpoint has changed';
    end if;
    update endpoints e set
        target = p_target, settings = p_settings, roles = p_roles, ordering = p_ordering,
        on_uncertain = p_on_uncertain, max_attempts = p_max_attempts,
        concurrency = p_concurrency, per_minute = p_per_minute,
        free_at = null, queue_at = null,
        paused_at = case when p_paused then coalesce(e.paused_at, v_now) end,
        disabled_at = case when not p_enable then e.disabled_at end,
        disabled_reason = case when not p_enable then e.disabled_reason end,
        failing_since = case when not p_enable then e.failing_since end,
        failures = case when p_enable then 0 else e.failures end,
        held_until = case when not p_enable then e.held_until end,
        tried_by = case when not p_enable then e.tried_by end,
        version = e.version + 1
    where e.id = p_id;
    delete from endpoint_slots s where s.endpoint_id = p_id and s.slot > coalesce(p_concurrency, 0);
    insert into endpoint_slots (endpoint_id, slot)
    select p_id, n from generate_series(1, coalesce(p_concurrency, 0)) n on conflict do nothing;
    perform wake_endpoint_v1(p_id);
    return v.version + 1;
end $$;

-- Promise: from now on p_secret is what both sides know, and for a day what they knew before.  Returns
--          the version, null when there is no such endpoint, or it is not the actor's.
-- Locks:   the endpoint's row.
create function rotate_endpoint_v1(p_id uuid, p_actor text, p_all boolean, p_secret text)
returns bigint
language plpgsql as $$
declare
    v_now timestamptz := clock_timestamp();
    v_version bigint;
begin
    update endpoints e set
        secrets = p_secret || e.secrets[1:1], rotated_at = v_now, version = e.version + 1
    where e.id = p_id and keeps_endpoint(e, p_actor, p_all)
    returning e.version into v_version;
    return v_version;
end $$;

-- Promise: the endpoint is gone, but for its id, and nothing waits for it any more; the journal of what
--          was sent stays.  False: there is none, or it is not the actor's.
-- How:     a lane that is made by a message meanwhile is dropped by who claims it (abandon_v1).
-- Locks:   its lanes by id, the endpoint's row, its slots.
create function delete_endpoint_v1(p_id uuid, p_actor text, p_all boolean) returns boolean
language plpgsql as $$
declare
    v_now timestamptz := clock_timestamp();
    v_lanes uuid[];
begin
    perform from endpoints e where e.id = p_id and keeps_endpoint(e, p_actor, p_all);
    if not found then
        return false;
    end if;
    select array_agg(l.id) into v_lanes from (
        select x.id from lanes x where x.endpoint_id = p_id order by x.conversation_id, x.id for update
    ) l;
    update endpoints e set
        deleted_at = v_now, everywhere = false, target = '', secrets = '{}', settings = '{}',
        paused_at = null, disabled_at = null, disabled_reason = null, failing_since = null,
        failures = 0, held_until = null, tried_by = null, free_at = null, queue_at = null
    where e.id = p_id and e.deleted_at is null;
    if not found then
        return false;
    end if;
    delete from lanes l where l.endpoint_id = p_id and l.id = any (v_lanes);
    delete from conversation_endpoints o where o.endpoint_id = p_id;
    delete from endpoint_slots s where s.endpoint_id = p_id;
    delete from receipts r where r.endpoint_id = p_id;
    return true;
end $$;

-- Gates: whether a message may leave for its endpoint now, what came of it for the endpoint, and until
-- when a lane waits that may not.

set search_path = greffier;

-- Promise: whether a message may leave for the endpoint now: 'go', and then its place among those that
--          leave at once and its place in the minute are taken until p_hold is over; or 'wait', for
--          so long (null: until the endpoint goes on, which defer_v1 looks at), or 'gone'.
-- How:     a slot is a row, so that who dies holding one holds it no longer than p_hold.  Of an
--          endpoint that is left alone for a while, one message tries whether it is well again.
--          Who has a slot and asks again keeps it.
-- Locks:   the endpoint's row (only with a rate, or after failures), a slot not waited for.
create function admit_v1(
    p_endpoint_id uuid, p_holder uuid, p_hold interval,
    out answer text, out wait interval, out why text
)
language plpgsql as $$
declare
    e endpoints;
    v_now timestamptz := lane_clock();
    v_slot integer;
begin
    select * into e from endpoints where id = p_endpoint_id;
    if e.per_minute is not null or e.held_until is not null then
        select * into e from endpoints where id = p_endpoint_id for no key update;
    end if;
    if e.id is null or e.deleted_at is not null then
        answer := 'gone';
        return;
    end if;
    answer := 'wait';
    if e.disabled_at is not null then
        why := 'disabled';
        return;
    end if;
    if e.paused_at is not null then
        why := 'paused';
        return;
    end if;
    if e.held_until > v_now then
        why := 'failing';
        return;
    end if;
    if e.free_at > v_now and e.per_minute is not null then
        why := 'rate';
        wait := least(greatest(e.queue_at, e.free_at) - v_now, interval '10 minutes');
        update endpoints x set
            queue_at = v_now + wait + interval '1 minute' / x.per_minute
        where x.id = e.id;
        return;
    end if;
    if e.concurrency is not null then
        select s.slot into v_slot from endpoint_slots s
        where s.endpoint_id = e.id
          and (s.until is null or s.until <= v_now or s.holder = p_holder)
        order by s.holder is not distinct from p_holder desc, s.slot
        limit 1 for update skip locked;
        if v_slot is null then
            why := 'busy';
            -- What waited together does not come back together.
            wait := interval '1 second' * (1 + random());
            return;
        end if;
        update endpoint_slots s set holder = p_holder, until = v_now + p_hold
        where s.endpoint_id = e.id and s.slot = v_slot;
    end if;
    if e.per_minute is not null then
        update endpoints x set free_at = greatest(v_now, x.free_at) + interval '1 minute' / x.per_minute
        where x.id = e.id;
    end if;
    if e.held_until is not null then
        -- Ours is the try; the others wait for what comes of it.
        update endpoints x set held_until = v_now + p_hold, tried_by = p_holder where x.id = e.id;
    end if;
    answer := 'go';
end $$;

-- Promise: what came of a try is known to the endpoint, and the slot of this holder is free: after a
--          success it is well, and if it was left alone all that waited is due; after each failure
--          in a row it is left alone longer; after p_patience of nothing but failures, or when
--          p_disable says why, it is disabled.  With p_ok null only the slot is given back.  True when
--          this disabled it.
-- How:     while it is left alone only the failure of who tries counts: forty that were on their way
--          when it went down are one outage, and not the ten minutes of fourteen in a row.  One that
--          was not left alone wakes nobody: a message that breaks a receiver which is well would use
--          up its tries at the successes of the others.
-- Locks:   the endpoint's row (only when something changes), the slot, its lanes, these not waited for.
create function report_v1(
    p_endpoint_id uuid, p_holder uuid, p_ok boolean, p_disable text, p_patience interval
) returns boolean
language plpgsql as $$
declare
    e endpoints;
    v_now timestamptz := lane_clock();
    v_disable text := p_disable;
    v_done boolean := false;
begin
    select * into e from endpoints where id = p_endpoint_id;
    if p_ok is not null and not (p_ok and e.failures = 0) then
        select * into e from endpoints where id = p_endpoint_id for no key update;
        if e.id is null or e.disabled_at is not null or e.deleted_at is not null then
            null;
        elsif p_ok then
            update endpoints x set
                failures = 0, failing_since = null, held_until = null, tried_by = null
            where x.id = e.id;
            if e.held_until is not null then
                perform wake_endpoint_v1(e.id);
            end if;
        else
            if v_disable is null and e.failing_since < v_now - p_patience then
                v_disable := 'It only failed since ' || rfc3339(e.failing_since) || '.';
            end if;
            v_done := v_disable is not null;
            if v_done or e.held_until is null or e.tried_by = p_holder then
                update endpoints x set
                    failures = x.failures + 1, failing_since = coalesce(x.failing_since, v_now),
                    -- From the fifth failure in a row: 10 s, 20 s, 40 s … 10 minutes.
                    held_until = case when x.failures + 1 >= 5
                        then v_now + least(interval '10 seconds' * power(2, least(x.failures - 4, 10)),
                                           interval '10 minutes') end,
                    tried_by = null,
                    disabled_at = case when v_done then v_now end, disabled_reason = v_disable
                where x.id = e.id;
            end if;
        end if;
    end if;
    update endpoint_slots s set holder = null, until = null
    where s.endpoint_id = p_endpoint_id and s.holder = p_holder;
    return v_done;
end $$;

-- Promise: the lane is let go, and no try is counted: due after p_wait, or, with null, when its endpoint
--          goes on, or is to be tried again.  False: it was no longer the caller's.
-- How:     whether the endpoint still stands still is asked under a lock on its row: whoever lets it go
--          on either has, or finds this lane waiting.  What waited together does not come back together.
-- Locks:   the lane, then, with null, the endpoint's row, shared.
create function defer_v1(
    p_conversation_id uuid, p_lane_id uuid, p_token uuid, p_wait interval
) returns boolean
language plpgsql as $$
declare
    v lanes := hold_lane_v1(p_conversation_id, p_lane_id, p_token);
    v_now timestamptz;
    v_due timestamptz;
    e endpoints;
begin
    if v.id is null then
        return false;
    end if;
    if p_wait is null then
        select * into e from endpoints x where x.id = v.endpoint_id for share;
    end if;
    v_now := lane_clock();
    v_due := case
        when e.paused_at is not null or e.disabled_at is not null then 'infinity'
        when e.held_until > v_now then v_now + (e.held_until - v_now) * (1 + random() / 2)
        else v_now + coalesce(p_wait, '0') end;
    update lanes l set
        token = null, owner = null,
        due_at = case when v.head_seq <= v.tail_seq and v.paused_at is null then v_due end
    where l.conversation_id = p_conversation_id and l.id = p_lane_id;
    return true;
end $$;

-- Settling: what came of a message is on record and the next may leave, for one lane or for many in one
-- commit; and what the far side says of it afterwards.

set search_path = greffier;

-- Promise: the lane of an endpoint that is gone is gone too.  False: it is not the caller's.
-- Locks:   the lane.
create function abandon_v1(p_conversation_id uuid, p_lane_id uuid, p_token uuid) returns boolean
language plpgsql as $$
declare
    v lanes := hold_lane_v1(p_conversation_id, p_lane_id, p_token);
begin
    if v.id is null or exists (
        select from endpoints e where e.id = v.endpoint_id and e.deleted_at is null) then
        return false;
    end if;
    delete from lanes l where l.conversation_id = p_conversation_id and l.id = p_lane_id;
    return true;
end $$;

-- Promise: it is on record that what its holder was about to send was not sent after all, and the lane
--          is let go, due at once, without counting a try.  False: it was no longer theirs.
-- Locks:   the lane.
create function take_back_v1(
    p_conversation_id uuid, p_lane_id uuid, p_token uuid, p_seq bigint
) returns boolean
language plpgsql as $$
declare
    v_now timestamptz := lane_clock();
begin
    if not release_v1(p_conversation_id, p_lane_id, p_token) then
        return false;
    end if;
    update attempts a set
        outcome = 'not_sent', detail = 'The worker stopped before it left.', settled_at = v_now
    where a.conversation_id = p_conversation_id and a.lane_id = p_lane_id and a.seq = p_seq
      and a.token = p_token and a.outcome is null;
    return true;
end $$;

-- Promise: the message is done and, in the same commit, the intent for the next is on record, if there
--          is a next (p_next): done, or what intend_v1 answers; late, too, when the endpoint was paused
--          or disabled meanwhile.  With p_external_id the far side's word about it can be kept
--          (receipts).  The lane of a single message goes with it.
-- Locks:   the lane.
create function done_and_next_v1(
    p_conversation_id uuid, p_lane_id uuid, p_token uuid, p_seq bigint, p_outcome text,
    p_detail text, p_external_id text, p_endpoint_id uuid, p_lease interval, p_next bigint,
    p_margin interval, p_next_rev bigint default null
) returns text
language plpgsql as $$
declare
    v_now timestamptz := clock_timestamp();
begin
    if not done_v1(
        p_conversation_id, p_lane_id, p_token, p_seq, p_outcome, p_detail, p_external_id, p_lease) then
        return 'zombie';
    end if;
    if p_external_id is not null and p_outcome = 'accepted' then
        insert into receipts (endpoint_id, external_id, conversation_id, seq, status, at)
        values (p_endpoint_id, p_external_id, p_conversation_id, p_seq, 'sent', v_now)
        on conflict do nothing;
    end if;
    delete from lanes l
    where l.conversation_id = p_conversation_id and l.id = p_lane_id and l.head_seq > l.tail_seq
      and l.id <> lane_id(p_conversation_id, 'out', p_endpoint_id);
    if p_next is null then
        return 'done';
    end if;
    if exists (
        select from endpoints e
        where e.id = p_endpoint_id and (e.paused_at is not null or e.disabled_at is not null)) then
        return 'late';
    end if;
    return intend_v1(p_conversation_id, p_lane_id, p_token, p_next, p_margin, p_next_rev);
end $$;

-- Promise: what done_and_next_v1 does, or intend_v1 where nothing is done yet (no seq), for many lanes in
--          one commit, each by itself.  No answer (null): nothing happened to that lane, which has to
--          be asked about alone: somebody holds it, it is no longer the caller's, it is paused, it was
--          said before, or it is one message's own and ends here.
-- How:     set statements, for what nearly all are: the intent for what is next, what came of what
--          was before, and one write to the lane for both.  Nobody's row is waited for, so that who
--          holds one of 64 lanes keeps 63 others from nothing; the next statement, whose snapshot is
--          newer than the locks, reads.  Each row is reached by its key, and written where it was
--          found: a join was planned for a table that was empty, and read all of it for each lane.
-- Args:    arrays with an entry a lane, none twice; p_keeps: whether it stays the holder's, if there
--          is more, for p_lease.
-- Locks:   the lanes by id, none waited for.
create function settle_v1(
    p_conversation_ids uuid[], p_lane_ids uuid[], p_tokens uuid[], p_seqs bigint[],
    p_outcomes text[], p_details text[], p_external_ids text[], p_endpoint_ids uuid[],
    p_keeps boolean[], p_nexts bigint[], p_next_revs bigint[], p_lease interval, p_margin interval
) returns table (answer text)
language plpgsql rows 50 as $$
declare
    v_now timestamptz := lane_clock();
    v_at timestamptz := clock_timestamp();
    v_mine uuid[];
begin
    select array_agg(held.id) into v_mine
    from (
        select l.id
        from (
            select * from unnest(p_conversation_ids, p_lane_ids, p_tokens)
                as x (conversation_id, id, token)
            order by x.conversation_id, x.id
        ) a
        cross join lateral (
            select x.id from lanes x
            where x.conversation_id = a.conversation_id and x.id = a.id and x.token = a.token
            for no key update skip locked
        ) l
    ) held;
    return query
        with asked as materialized (
            select a.*, l.at as lane_at, l.fence, l.head_seq, l.due_at, l.id is not null as plain,
                a.seq < l.tail_seq as more,
                case
                    when a.seq is null then l.due_at
                    when a.seq >= l.tail_seq then null
                    when a.keep then renewed(l.due_at, v_now, p_lease)
                    else v_now
                end as due_then
            from unnest(
                p_conversation_ids, p_lane_ids, p_tokens, p_seqs, p_outcomes, p_details,
                p_external_ids, p_endpoint_ids, p_keeps, p_nexts, p_next_revs
            ) with ordinality as a (
                conversation_id, id, token, seq, outcome, detail, external_id, endpoint_id, keep,
                next, next_rev, n
            )
            left join lateral (
                select x.*, x.ctid as at from lanes x
                where x.conversation_id = a.conversation_id and x.id = a.id
                limit 1
            ) l on l.id = any (v_mine) and l.token = a.token
                and l.kind = 'out' and l.paused_at is null
                and coalesce(a.seq, a.next) >= l.head_seq
                -- What is let go has no next.
                and (a.seq is null or a.next is null
                     or a.keep and a.next > a.seq and a.seq < l.tail_seq)
                and (a.seq is null or a.seq < l.tail_seq
                     or l.id = lane_id(a.conversation_id, 'out', a.endpoint_id))
        ), judged as materialized (
            select q.*,
                case
                    when not q.plain then null
                    when q.next is null then 'done'
                    when q.due_then <= v_now + p_margin then 'late'
                    when q.seq is not null and exists (
                        select from endpoints e
                        where e.id = q.endpoint_id
                          and (e.paused_at is not null or e.disabled_at is not null)) then 'late'
                    -- Not locked: whoever deletes or edits it after this comes too late.
                    else coalesce((
                        select case when coalesce(m.changed_rev, m.rev) <> q.next_rev
                                    then 'late' else 'go' end
                        from conversations c
                        join messages m on m.conversation_id = c.id and m.seq = q.next
                        where c.id = q.conversation_id and m.deleted_at is null
                          and m.seq <@ c.path), 'skip')
                end as word
            from asked q
        ), settled as (
            update attempts a set
                outcome = q.outcome, detail = q.detail, external_id = q.external_id,
                settled_at = v_now
            from judged q
            cross join lateral (
                select x.ctid as at from attempts x
                where x.conversation_id = q.conversation_id and x.lane_id = q.id and x.seq = q.seq
                  and x.fence = q.fence
                limit 1
            ) t
            where q.plain and q.seq is not null and a.ctid = t.at
        ), intended as (
            insert into attempts (
                conversation_id, lane_id, seq, fence, token, intended_at, outcome, detail, settled_at
            )
            select q.conversation_id, q.id, q.next, q.fence, q.token, v_now,
                case when q.word = 'skip' then 'skipped' end,
                case when q.word = 'skip' then 'it was deleted, or is not on the active path' end,
                case when q.word = 'skip' then v_now end
            from judged q
            where q.word in ('go', 'skip')
            on conflict do nothing
        ), receipted as (
            insert into receipts (endpoint_id, external_id, conversation_id, seq, status, at)
            select q.endpoint_id, q.external_id, q.conversation_id, q.seq, 'sent', v_at
            from judged q
            where q.plain and q.external_id is not null and q.outcome = 'accepted'
            on conflict do nothing
        ), moved as (
            update lanes l set
                head_seq = case
                    when q.word = 'go' then q.next
                    when q.word = 'skip' then q.next + 1
                    else q.seq + 1 end,
                tries = 0, due_at = q.due_then,
                token = case when q.seq is null or q.more and q.keep then l.token end,
                owner = case when q.seq is null or q.more and q.keep then l.owner end
            from judged q
            where q.plain and (q.seq is not null or q.word = 'skip'
                               or q.word = 'go' and q.next > q.head_seq)
              and l.ctid = q.lane_at
        )
        select q.word from judged q order by q.n;
end $$;

-- Promise: the message's receipt says at least this, and never less than before: sent, delivered, read;
--          failed only of what was not delivered.  Returns what it says; null: no such message.
-- Locks:   the receipt.
create function receipt_v1(p_endpoint_id uuid, p_external_id text, p_status text) returns text
language plpgsql as $$
declare
    c_order constant text[] := '{sent,failed,delivered,read}';
    v_now timestamptz := clock_timestamp();
    v_status text;
begin
    update receipts r set
        status = case when array_position(c_order, p_status) > array_position(c_order, r.status)
                      then p_status else r.status end,
        at = case when array_position(c_order, p_status) > array_position(c_order, r.status)
                  then v_now else r.at end
    where r.endpoint_id = p_endpoint_id and r.external_id = p_external_id
    returning r.status into v_status;
    return v_status;
end $$;

-- Promise: the message gets a lane of its own, due after p_retry_in, or parked when p_reason says why,
--          and the lane goes on behind it, kept for p_lease if there is more: so failures hold nobody
--          up where order does not matter.  False: it was no longer the caller's.
-- Locks:   the lane, the message's own.
create function set_aside_v1(
    p_conversation_id uuid, p_lane_id uuid, p_token uuid, p_seq bigint, p_outcome text,
    p_detail text, p_retry_in interval, p_reason text, p_lease interval
) returns boolean
language plpgsql as $$
declare
    v_now timestamptz := lane_clock();
    v lanes;
    v_id uuid;
begin
    if not done_v1(p_conversation_id, p_lane_id, p_token, p_seq, p_outcome, p_detail, null, p_lease) then
        return false;
    end if;
    select * into v from lanes l where l.conversation_id = p_conversation_id and l.id = p_lane_id;
    v_id := aside_id(p_conversation_id, v.endpoint_id, p_seq);
    insert into lanes as l (
        conversation_id, id, kind, endpoint_id, head_seq, tail_seq, due_at, fence, tries, parked_at,
        park_reason
    ) values (
        p_conversation_id, v_id, 'out', v.endpoint_id, p_seq, p_seq,
        case when p_reason is null then v_now + p_retry_in end,
        -- Above that of the lane it comes from, so that a receiver sees it rise.
        v.fence, 1, case when p_reason is not null then v_now end, p_reason
    ) on conflict do nothing;
    return true;
end $$;

-- Sources: where messages come from.  One conversation for each contact of a source, one message for
-- each external id, and then, if the source has an agent, its answer, which leaves by the source's
-- endpoint.

set search_path = greffier;

create table sources (
    id uuid primary key,
    name text not null,
    -- whose conversations they become, and who pays for the answers
    owner_id text not null,
    agent_id uuid,
    endpoint_id uuid,
    -- how what comes in is read: null: as the API says | telegram: its updates
    adapter text check (adapter = 'telegram'),
    -- as an endpoint's
    secrets text[] not null,
    rotated_at timestamptz,
    -- messages that come within so long of each other are answered together
    debounce interval not null,
    request_hash bytea not null,
    version bigint not null default 1,
    created_at timestamptz not null,
    created_by text not null
);

create table source_contacts (
    source_id uuid not null,
    contact text not null,
    conversation_id uuid not null,
    primary key (source_id, contact)
);

-- serves erasure
create index source_contacts_by_conversation on source_contacts (conversation_id);

-- What came in: each external id once, for ever.
create table inbox (
    source_id uuid not null,
    -- of the external id, which stands in the message's metadata: when that is erased the id is still
    -- known, and nobody can read it
    external_hash bytea not null,
    conversation_id uuid not null,
    seq bigint not null,
    at timestamptz not null,
    primary key (source_id, external_hash)
);

-- A source as the API shows it: never what both sides know.
create function source_json(s sources) returns text
language sql stable
return '{"id":"' || s.id || '","name":' || to_json(s.name)
    || ',"owner_id":' || to_json(s.owner_id)
    || ',"agent_id":' || coalesce('"' || s.agent_id || '"', 'null')
    || ',"endpoint_id":' || coalesce('"' || s.endpoint_id || '"', 'null')
    || ',"adapter":' || coalesce('"' || s.adapter || '"', 'null')
    || ',"debounce":' || trim_scale(extract(epoch from s.debounce))
    || ',"rotated_at":' || coalesce('"' || rfc3339(s.rotated_at) || '"', 'null')
    || ',"version":' || s.version
    || ',"created_by":' || to_json(s.created_by)
    || ',"created_at":"' || rfc3339(s.created_at) || '"}';

-- Promise: nobody makes away with a conversation's contact until we commit, nor brings what they write.
--          Whoever brings a message locks the contact first, and so must who erases.
-- Locks:   the conversation's contacts, by their keys.
create function hold_contacts_v1(p_conversation_id uuid) returns bigint
language plpgsql as $$
declare
    v_many bigint;
begin
    perform from source_contacts c
    where c.conversation_id = p_conversation_id order by c.source_id, c.contact for update;
    get diagnostics v_many = row_count;
    return v_many;
end $$;

-- Promise: what a source names is there: an agent, and an endpoint that is no conversation's.
-- Locks:   none.
create function check_source_v1(p_agent_id uuid, p_endpoint_id uuid) returns void
language plpgsql as $$
begin
    if p_agent_id is not null and not exists (
        select from agents a where a.id = p_agent_id and a.deleted_at is null) then
        raise exception using errcode = 'GR422', message = 'there is no such agent';
    end if;
    if p_endpoint_id is not null and not exists (
        select from endpoints e
        where e.id = p_endpoint_id and e.deleted_at is null and e.only_conversation_id is null) then
        raise exception using errcode = 'GR422', message = 'there is no such endpoint';
    end if;
end $$;

-- Promise: the source exists once under its id: the same request again finds it (false), another one
--          is refused.
-- Locks:   none.
create function create_source_v1(
    p_id uuid, p_hash bytea, p_name text, p_owner_id text, p_agent_id uuid, p_endpoint_id uuid,
    p_adapter text, p_secrets text[], p_debounce interval, p_created_by text
) returns boolean
language plpgsql as $$
declare
    v_now timestamptz := clock_timestamp();
    v_hash bytea;
begin
    select request_hash into v_hash from sources where id = p_id;
    if v_hash is null then
        perform check_source_v1(p_agent_id, p_endpoint_id);
        insert into sources (
            id, name, owner_id, agent_id, endpoint_id, adapter, secrets, debounce, request_hash,
            created_at, created_by
        ) values (
            p_id, p_name, p_owner_id, p_agent_id, p_endpoint_id, p_adapter, p_secrets, p_debounce,
            p_hash, v_now, p_created_by
        ) on conflict (id) do nothing;
        if found then
            return true;
        end if;
        select request_hash into v_hash from sources where id = p_id;
    end if;
    if v_hash is distinct from p_hash then
        raise exception using errcode = 'GR409', message = 'this id names another source';
    end if;
    return false;
end $$;

-- Promise: the source is as it is given, over the version that was looked at; returns the version.
--          Conversations that it has brought keep their agent, which never changes, and their endpoint.
-- Locks:   the source's row.
create function patch_source_v1(
    p_id uuid, p_version bigint, p_name text, p_owner_id text, p_agent_id uuid, p_endpoint_id uuid,
    p_debounce interval
) returns bigint
language plpgsql as $$
declare
    v sources;
begin
    select * into v from sources where id = p_id for no key update;
    if not found then
        raise exception using errcode = 'GR404', message = 'no such source';
    end if;
    if p_version <> v.version then
        raise exception using errcode = 'GR412', message = 'the source has changed';
    end if;
    perform check_source_v1(
        nullif(p_agent_id, v.agent_id), nullif(p_endpoint_id, v.endpoint_id));
    update sources s set
        name = p_name, owner_id = p_owner_id, agent_id = p_agent_id, endpoint_id = p_endpoint_id,
        debounce = p_debounce, version = s.version + 1
    where s.id = p_id;
    return v.version + 1;
end $$;

-- Promise: as rotate_endpoint_v1, for a source.
-- Locks:   the source's row.
create function rotate_source_v1(p_id uuid, p_secret text) returns bigint
language plpgsql as $$
declare
    v_now timestamptz := clock_timestamp();
    v_version bigint;
begin
    update sources s set
        secrets = p_secret || s.secrets[1:1], rotated_at = v_now, version = s.version + 1
    where s.id = p_id
    returning s.version into v_version;
    return v_version;
end $$;

-- Promise: nothing comes in by the source any more; the conversations stay.
-- Locks:   the source's row, its contacts.
create function delete_source_v1(p_id uuid) returns boolean
language plpgsql as $$
begin
    delete from sources where id = p_id;
    if not found then
        return false;
    end if;
    delete from source_contacts where source_id = p_id;
    delete from inbox where source_id = p_id;
    return true;
end $$;

-- Promise: somebody answers in the conversation, after p_delay at the earliest, and takes all that was
--          said by then: a run that waits is put off (no longer than ten times p_delay after it was
--          asked for), one that answers is followed by another, and otherwise there is a new one.
--          Returns whether a run is to come; false: there is no agent, or who pays has used up their
--          month.
-- Locks:   the run lane; the caller holds the conversation.
create function ask_inbox_run_v1(
    p_conversation conversations, p_agent_id uuid, p_asked_by text, p_run_id uuid, p_delay interval
) returns boolean
language plpgsql as $$
declare
    a agents;
    r runs;
    l lanes;
    v_lane uuid := lane_id(p_conversation.id, 'run', null);
    v_now timestamptz := clock_timestamp();
    v_clock timestamptz := lane_clock();
    v_number bigint;
begin
    select * into a from agents where id = p_agent_id and deleted_at is null;
    if a.id is null or quota_refusal(p_asked_by, v_now) is not null then
        return false;
    end if;
    select * into l from lanes x
    where x.conversation_id = p_conversation.id and x.id = v_lane for no key update;
    select * into r from runs x
    where x.conversation_id = p_conversation.id and x.number > coalesce(l.head_seq, 0) - 1
      and x.status = 'queued'
    order by x.number desc limit 1;
    if r.id is not null then
        -- It reads the conversation when it begins: what was said now is in it.
        if r.number = l.head_seq and l.token is null and r.origin = 'inbox'
           and l.parked_at is null and l.paused_at is null then
            update lanes x set due_at = greatest(
                x.due_at, least(v_clock + p_delay, r.created_at + (v_clock - v_now) + 10 * p_delay))
            where x.conversation_id = l.conversation_id and x.id = l.id;
        end if;
        return true;
    end if;
    v_number := coalesce(l.tail_seq, 0) + 1;
    insert into runs (
        conversation_id, id, number, agent_id, asked_by, origin, request_hash, agent, created_at
    ) values (
        p_conversation.id, p_run_id, v_number, a.id, p_asked_by, 'inbox', uuid_send(p_run_id),
        agent_json(a)::json, v_now
    );
    insert into run_ids (run_id, conversation_id) values (p_run_id, p_conversation.id);
    perform enqueue_v1(p_conversation.id, 'run', null, v_number, v_number, v_clock + p_delay);
    update conversations c set active_run_id = coalesce(c.active_run_id, p_run_id)
    where c.id = p_conversation.id;
    return true;
end $$;

-- Promise: the message is on record once, in the contact's conversation, which is made by the first,
--          and its answer is asked for.  outcome: stored; replayed, when the external id was there;
--          gone, when there is no such source; archived conversations are begun anew.
-- How:     the contact's row orders everybody who brings a message of theirs: of two first messages at
--          once one makes the conversation.
-- Locks:   the source's row, shared, the contact's row, the conversation, the endpoint's row, shared,
--          its lanes.
create function receive_v1(
    p_source_id uuid, p_external_id text, p_contact text, p_contact_in_url text, p_title text,
    p_contact_name text, p_content text, p_metadata jsonb, p_said_at timestamptz,
    p_message_id uuid, p_hash bytea, p_new_conversation_id uuid, p_run_id uuid,
    out outcome text, out conversation_id uuid, out seq bigint, out rev bigint,
    out created boolean, out runs boolean
)
language plpgsql as $$
#variable_conflict use_column
declare
    s sources;
    v conversations;
    m record;
    i inbox;
    v_external bytea := sha256(convert_to(p_external_id, 'UTF8'));
begin
    created := false;
    runs := false;
    select * into s from sources where id = p_source_id for key share;
    if not found then
        outcome := 'gone';
        return;
    end if;
    insert into source_contacts as c (source_id, contact, conversation_id)
    values (p_source_id, p_contact, p_new_conversation_id)
    on conflict (source_id, contact) do update set contact = excluded.contact
    returning c.conversation_id into receive_v1.conversation_id;
    -- Whoever brought one before us has committed: look now, not before the lock.
    select * into i from inbox x where x.source_id = p_source_id and x.external_hash = v_external;
    if found then
        outcome := 'replayed';
        receive_v1.conversation_id := i.conversation_id;
        receive_v1.seq := i.seq;
        delete from source_contacts c
        where c.source_id = p_source_id and c.contact = p_contact
          and c.conversation_id = p_new_conversation_id;
        return;
    end if;
    select * into v from conversations x where x.id = receive_v1.conversation_id for no key update;
    if v.id is null or v.archived_at is not null then
        receive_v1.conversation_id := p_new_conversation_id;
        update source_contacts c set conversation_id = p_new_conversation_id
        where c.source_id = p_source_id and c.contact = p_contact;
        created := create_conversation_v1(
            p_new_conversation_id, p_new_conversation_id, 'assistant', p_title, null,
            (select a.id from agents a where a.id = s.agent_id and a.deleted_at is null),
            s.owner_id, 30, '{}', '{}', '{}');
        -- Where the contact is: the endpoint's target may name its place.
        insert into conversation_endpoints (conversation_id, endpoint_id, target)
        select p_new_conversation_id, e.id,
            case when strpos(e.target, '{contact}') > 0 then replace(
                e.target, '{contact}',
                case when e.channel = 'webhook' then p_contact_in_url else p_contact end) end
        from endpoints e where e.id = s.endpoint_id and e.deleted_at is null
        for share;
    end if;
    select x.* into m from append_message_v1(
        receive_v1.conversation_id, null, p_message_id, p_hash, 'user', 'contact:' || p_contact,
        p_contact_name, 'source:' || p_source_id, p_content, null, null, null, null, null,
        p_metadata, p_said_at, true, true) x;
    if m.outcome not in ('stored', 'replayed') then
        raise exception 'a message that came in was refused: %', m.outcome;
    end if;
    insert into inbox (source_id, external_hash, conversation_id, seq, at)
    values (p_source_id, v_external, receive_v1.conversation_id, m.seq, clock_timestamp())
    on conflict do nothing;
    if not found then
        raise exception using errcode = 'GR409',
            message = 'this external id came at once from another contact';
    end if;
    select * into v from conversations x where x.id = receive_v1.conversation_id;
    if v.agent_id is not null then
        runs := ask_inbox_run_v1(v, v.agent_id, s.owner_id, p_run_id, s.debounce);
    end if;
    outcome := 'stored';
    receive_v1.seq := m.seq;
    receive_v1.rev := v.rev;
end $$;

-- Operating: which workers live, what was noticed, and what operators look for in lanes and journal.

set search_path = greffier;

-- A process that works on lanes, as it last said itself.  Nothing is decided by it: who holds a lane
-- is the lane's to say.
create table workers (
    -- as lanes name it (lanes.owner)
    id text primary key,
    host text not null,
    pid integer not null,
    version text not null,
    kinds text[] not null,
    started_at timestamptz not null,
    seen_at timestamptz not null,
    -- lanes it works on
    busy integer not null,
    -- since it began: lanes claimed, leases lost, writes refused, work that broke
    claimed bigint not null,
    lost bigint not null,
    refused bigint not null,
    broken bigint not null,
    -- how far its clock is ahead of the database's, as far as it could tell
    clock_ahead interval
) with (fillfactor = 50);

-- What was noticed: from when, until when, and whether it was told to who wants to hear.
create table alerts (
    code text not null,
    since timestamptz not null,
    id uuid not null,
    until timestamptz,
    -- as when it was last looked at
    count bigint not null,
    detail text not null,
    -- which of both is told: null: neither | began | ended
    told text check (told in ('began', 'ended')),
    primary key (code, since)
);

-- Who looks for alerts, of all processes, is who moves this time forward.
create table alert_look (
    one boolean primary key default true check (one),
    at timestamptz not null
);

-- serves operators: parked and paused lanes are in no other index, and few
create index lanes_set_aside on lanes (id) where parked_at is not null or paused_at is not null;
-- serve whoever asks for the last day; by block, since a tree would cost every attempt and every run
create index attempts_by_time on attempts using brin (intended_at) with (pages_per_range = 16);
create index runs_by_time on runs using brin (created_at) with (pages_per_range = 16);

-- Where a lane stands, in one word; one place says so.  idle: nothing to do | due | leased |
-- expired: a lease that is over | waiting: for its time to try | endpoint: for its endpoint to go on
-- | parked: for a person | paused.
create function lane_state(l lanes, p_now timestamptz) returns text
language sql immutable parallel safe
return case
    when l.parked_at is not null then 'parked'
    when l.token is not null and l.due_at > p_now then 'leased'
    when l.token is not null then 'expired'
    when l.paused_at is not null and (l.due_at is null or l.kind = 'out') then 'paused'
    when l.due_at is null then 'idle'
    when l.due_at = 'infinity' then 'endpoint'
    when l.due_at > p_now then 'waiting'
    else 'due'
end;

-- A lane as operators see it: nothing of what was said, and not where its endpoint points.
create function lane_json(l lanes, p_now timestamptz) returns text
language sql stable
return '{"id":"' || l.id || '","conversation_id":"' || l.conversation_id
    || '","kind":"' || l.kind
    || '","endpoint_id":' || coalesce('"' || l.endpoint_id || '"', 'null')
    || ',"run_id":' || coalesce((
        select '"' || r.id || '"' from runs r
        where l.kind = 'run' and r.conversation_id = l.conversation_id and r.number = l.head_seq
          and l.head_seq <= l.tail_seq), 'null')
    || ',"state":"' || lane_state(l, p_now)
    || '","head_seq":' || l.head_seq || ',"tail_seq":' || l.tail_seq
    || ',"tries":' || l.tries || ',"fence":' || l.fence
    || ',"due_at":' || coalesce('"' || rfc3339(nullif(l.due_at, 'infinity')) || '"', 'null')
    || ',"owner":' || coalesce(to_json(l.owner)::text, 'null')
    || ',"claimed_at":' || coalesce('"' || rfc3339(l.claimed_at) || '"', 'null')
    || ',"parked_at":' || coalesce('"' || rfc3339(l.parked_at) || '"', 'null')
    || ',"park_reason":' || coalesce(to_json(l.park_reason)::text, 'null')
    || ',"paused_at":' || coalesce('"' || rfc3339(l.paused_at) || '"', 'null')
    || ',"refused_writes":' || l.refused || '}';

-- Promise: it is on record that the worker lives, now by the database's clock; who has said nothing
--          for a day is forgotten.  Returns what time it is, for the worker to set beside its own.
-- Locks:   the worker's row, those of the forgotten not waited for.
create function worker_lives_v1(
    p_id text, p_host text, p_pid integer, p_version text, p_kinds text[], p_age interval,
    p_busy integer, p_claimed bigint, p_lost bigint, p_refused bigint, p_broken bigint,
    p_clock_ahead interval
) returns timestamptz
language plpgsql as $$
declare
    v_now timestamptz := lane_clock();
    v_clock timestamptz;
begin
    insert into workers as w (
        id, host, pid, version, kinds, started_at, seen_at, busy, claimed, lost, refused, broken,
        clock_ahead
    ) values (
        p_id, p_host, p_pid, p_version, p_kinds, v_now - p_age, v_now, p_busy, p_claimed, p_lost,
        p_refused, p_broken, p_clock_ahead
    )
    on conflict (id) do update set
        host = excluded.host, pid = excluded.pid, version = excluded.version, kinds = excluded.kinds,
        started_at = excluded.started_at, seen_at = excluded.seen_at, busy = excluded.busy,
        claimed = excluded.claimed, lost = excluded.lost, refused = excluded.refused,
        broken = excluded.broken, clock_ahead = excluded.clock_ahead;
    delete from workers w using (
        select o.id from workers o where o.seen_at < v_now - interval '1 day' for update skip locked
    ) old
    where w.id = old.id;
    v_clock := clock_timestamp();
    return v_clock;
end $$;

-- Promise: the worker ended as it should, and nobody waits for its word.
-- Locks:   the worker's row.
create function worker_ends_v1(p_id text) returns boolean
language plpgsql as $$
begin
    delete from workers where id = p_id;
    return found;
end $$;

-- Promise: of all who ask within p_every, one is told to look for alerts.
-- Locks:   the one row.
create function look_for_alerts_v1(p_every interval) returns boolean
language plpgsql as $$
declare
    v_now timestamptz := clock_timestamp();
begin
    insert into alert_look as a (at) values (v_now)
    on conflict (one) do update set at = excluded.at where a.at <= excluded.at - p_every;
    return found;
end $$;

-- Promise: these alerts stand, and no others: what is new begins now, what is no longer there has
--          ended.  Returns what is to be told and was not yet, in order, each with whether this call
--          noticed it.  What ended a month ago is forgotten.
-- Locks:   the one row, then alerts.
create function note_alerts_v1(p_codes text[], p_counts bigint[], p_details text[])
returns table (
    id uuid, code text, since timestamptz, until timestamptz, count bigint, detail text, what text,
    fresh boolean
)
language plpgsql rows 10 as $$
#variable_conflict use_column
declare
    v_now timestamptz := clock_timestamp();
begin
    -- Two who look at once would begin the same twice.
    insert into alert_look as a (at) values (v_now) on conflict (one) do update set at = a.at;
    update alerts a set count = x.count, detail = x.detail
    from unnest(p_codes, p_counts, p_details) as x (code, count, detail)
    where a.code = x.code and a.until is null;
    insert into alerts (code, since, id, count, detail)
    select x.code, v_now, md5(x.code || v_now)::uuid, x.count, x.detail
    from unnest(p_codes, p_counts, p_details) as x (code, count, detail)
    where not exists (select from alerts a where a.code = x.code and a.until is null);
    update alerts a set until = v_now where a.until is null and a.code <> all (p_codes);
    delete from alerts a where a.until < v_now - interval '30 days';
    return query
        select a.id, a.code, a.since, a.until, a.count, a.detail, w.what,
            case w.what when 'began' then a.since else a.until end = v_now
        from alerts a
        cross join lateral (
            select 'began' as what, a.since as at where a.told is null
            union all
            select 'ended', a.until where a.until is not null and a.told is distinct from 'ended'
        ) w
        order by w.at, a.code;
end $$;

-- Promise: what an alert's beginning or end was told is on record, and not told again.
-- Locks:   the alert's row.
create function alert_told_v1(p_id uuid, p_what text) returns boolean
language plpgsql as $$
begin
    update alerts a set told = p_what
    where a.id = p_id and (p_what = 'ended' or a.told is null);
    return found;
end $$;

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

-- Catching up: what changed since a rev, read from the state as it is.  There is no second log to
-- fall behind or to be pruned, and a change that spans many revs is as large as what it changed.

set search_path = greffier;

-- A participant as the API shows it.
create function participants_json(p_conversation_id uuid) returns text
language plpgsql stable as $$ begin return (
    select '[' || coalesce(string_agg(
        '{"user_id":' || to_json(p.user_id) || ',"name":' || coalesce(to_json(u.name)::text, 'null')
        || ',"role":"' || p.role || '","joined_at":"' || rfc3339(p.joined_at)
        || '","last_read_seq":' || p.last_read_seq || '}', ',' order by p.joined_at, p.user_id), '') || ']'
    from participants p left join users u on u.id = p.user_id
    where p.conversation_id = p_conversation_id and p.left_at is null
); end $$;

-- Stretches as the API shows them: [[first, last], …].
create function stretches_json(p_stretches int8multirange) returns text
language sql immutable parallel safe
return '[' || coalesce((
    select string_agg('[' || lower(x) || ',' || upper(x) - 1 || ']', ',' order by lower(x))
    from unnest(p_stretches) x), '') || ']';

-- What a reader at rev p_since lacks, up to rev upto: the messages on the active path that were
-- appended, changed or brought back since, each once and as it is now, in the order of the rev that
-- made it so; the stretches that left the path; the conversation; the participants if they or their
-- marks changed.  No row: not theirs to see.
--
-- It is bounded by p_bytes and by 2000 messages.  Then `more` is true, upto lies before the
-- conversation's rev, and the reader asks on from upto: whole revs are sent, at least one.  A
-- position that cannot be continued within bounds (it is ahead of us, or a rev changed too much at
-- once) is reset: the reader starts from a page.
--
-- Stable: all of it sees one snapshot.
create function changes_since(
    p_conversation_id uuid, p_reader text, p_since bigint, p_epoch text, p_cut integer, p_bytes integer
) returns table (
    reset boolean, upto bigint, more boolean, messages text, superseded text, conversation text,
    participants text
)
language plpgsql stable rows 1 as $$
#variable_conflict use_column
declare
    c_most constant integer := 2000;
    -- So many are written without a look at how long they are.
    c_few constant integer := 32;
    -- No message's JSON is shorter, but for its content.
    c_least constant integer := 430;
    v conversations;
    v_active int8multirange;
    v_fresh bigint;
    v_older bigint[];
    v_revs bigint[];
    v_returned int8multirange;
    v_horizon bigint;
    v_past bigint;
begin
    select c.* into v from conversations c
    where c.id = p_conversation_id
      and (p_reader is null or exists (
          select from participants p
          where p.conversation_id = c.id and p.user_id = p_reader and p.left_at is null));
    if not found then
        return;
    end if;
    conversation := conversation_json(v, p_reader, p_epoch);
    reset := p_since > v.rev or p_since < 0;
    upto := v.rev;
    more := false;
    messages := '';
    superseded := '[]';
    if reset or p_since = v.rev then
        return next;
        return;
    end if;
    v_active := v.path * int8multirange(int8range(v.first_seq, v.last_seq + 1));
    v_fresh := first_seq_after_rev(v.id, v.first_seq, v.last_seq, p_since);
    -- Where each kind of candidate is cut off: nothing at or beyond that rev is complete.
    v_horizon := v.rev + 1;
    if v_fresh + c_most <= v.last_seq then
        select m.rev into v_past from messages m
        where m.conversation_id = v.id and m.seq = v_fresh + c_most;
        v_horizon := least(v_horizon, v_past);
    end if;
    -- What changed of what was there, and the rev that made it so.
    select array_agg(k.seq order by k.changed_rev), array_agg(k.changed_rev order by k.changed_rev)
    into v_older, v_revs
    from (
        select m.seq, m.changed_rev from messages m
        where m.conversation_id = v.id and m.changed_rev > p_since
        order by m.changed_rev limit c_most + 1
    ) k;
    v_horizon := least(v_horizon, coalesce(v_revs[c_most + 1], v_horizon));
    if v.path_rev > p_since then
        v_returned := v_active * int8multirange(int8range(v.first_seq, v_fresh)) * coalesce((
            select range_agg(x)
            from path_changes h cross join lateral unnest(h.returned) x
            where h.conversation_id = v.id and h.rev > p_since), '{}');
        if count_undeleted(v.id, v_returned) > c_most then
            reset := true;
            return next;
            return;
        end if;
        select array_agg(k.seq), array_agg(k.at_rev) into v_older, v_revs
        from (
            select o.seq, o.at_rev from unnest(v_older, v_revs) o (seq, at_rev)
            where not o.seq <@ v_returned
            union all
            select m.seq, greatest(coalesce(m.changed_rev, m.rev), (
                select max(h.rev) from path_changes h
                where h.conversation_id = v.id and h.rev > p_since and m.seq <@ h.returned))
            from unnest(v_returned) x
            join messages m on m.conversation_id = v.id and m.seq >= lower(x) and m.seq < upper(x)
        ) k;
    end if;
    if least(v.last_seq - v_fresh + 1, c_most) + coalesce(cardinality(v_older), 0) > c_few then
        -- What does not fit whatever else it says is not written: a quarter of ten thousand.
        select min(k.at_rev) into v_past
        from (
            select k.at_rev, sum(k.least) over by_rev as bytes, rank() over by_rev as place
            from (
                select coalesce(m.changed_rev, m.rev) as at_rev, c_least + case
                    when m.deleted_at is null
                        then least(coalesce(octet_length(m.content), 0), p_cut - 3)
                    else 0 end as least
                from messages m
                where m.conversation_id = v.id and m.seq between v_fresh and v.last_seq
                  and m.seq < v_fresh + c_most and m.seq <@ v_active
                union all
                select o.at_rev, c_least from unnest(v_older, v_revs) o (seq, at_rev)
                where o.seq < v_fresh and o.seq <@ v_active
            ) k
            where k.at_rev < v_horizon
            window by_rev as (order by k.at_rev)
        ) k
        where k.bytes > p_bytes and k.place > 1;
        v_horizon := least(v_horizon, coalesce(v_past, v_horizon));
    end if;

    with written as materialized (
        -- else each body would be written twice, for its size and for itself
        select m.seq, coalesce(m.changed_rev, m.rev) as at_rev, message_json(m, p_cut) as body
        from messages m
        where m.conversation_id = v.id and m.seq between v_fresh and v.last_seq
          and m.seq < v_fresh + c_most and m.seq <@ v_active
          and coalesce(m.changed_rev, m.rev) < v_horizon
        union all
        select m.seq, o.at_rev, message_json(m, p_cut)
        from unnest(v_older, v_revs) o (seq, at_rev)
        join messages m on m.conversation_id = v.id and m.seq = o.seq
        where o.seq < v_fresh and o.seq <@ v_active and o.at_rev < v_horizon
    ), sized as (
        -- with its peers: a rev is sent whole
        select w.*, sum(octet_length(w.body) + 1) over by_rev as bytes, rank() over by_rev as place
        from written w
        window by_rev as (order by w.at_rev)
    )
    select string_agg(s.body, ',' order by s.seq) filter (where s.bytes <= p_bytes or s.place = 1),
        min(s.at_rev) filter (where s.bytes > p_bytes and s.place > 1)
    into messages, v_past
    from sized s;
    messages := coalesce(messages, '');
    v_horizon := least(v_horizon, coalesce(v_past, v_horizon));
    upto := v_horizon - 1;
    more := upto < v.rev;
    if upto <= p_since then
        reset := true;
        messages := '';
        upto := v.rev;
        more := false;
        return next;
        return;
    end if;
    if v.path_rev > p_since then
        superseded := stretches_json(coalesce((
            select range_agg(x)
            from path_changes h cross join lateral unnest(h.removed) x
            where h.conversation_id = v.id and h.rev > p_since and h.rev <= upto), '{}') - v_active);
    end if;
    -- With the stretch their change falls in: a reader who asks on from upto is past it.
    if v.people_rev > p_since and v.people_rev <= upto then
        participants := participants_json(v.id);
    end if;
    return next;
end $$;

-- People in a conversation: who joins and leaves, invitations, and how far everybody has read.

set search_path = greffier;

-- Every advance of a mark: who had read up to where, and when.  When somebody read message s is the
-- earliest mark at or above s.
create table read_marks (
    conversation_id uuid not null,
    user_id text not null,
    upto_seq bigint not null,
    at timestamptz not null,
    primary key (conversation_id, user_id, upto_seq)
);

create table invitations (
    conversation_id uuid not null,
    id uuid not null,
    token_hash bytea not null,
    role text not null check (role in ('member', 'viewer')),
    created_by text not null,
    created_at timestamptz not null,
    expires_at timestamptz,
    max_uses integer check (max_uses > 0),
    uses integer not null default 0,
    revoked_at timestamptz,
    primary key (conversation_id, id)
);

-- An invitation is found by its token's hash, so that has a small table of its own.
create table invitation_tokens (
    token_hash bytea primary key,
    conversation_id uuid not null,
    invitation_id uuid not null
);

-- Promise: a system message that tells people an event is the conversation's next; it belongs to
--          the change under way and has its rev.
-- Locks:   none beyond the conversation's row, which the caller holds.
create function append_event_v1(
    p_conversation conversations, p_id uuid, p_rev bigint, p_content text, p_event text,
    p_user text, p_by text, p_at timestamptz
) returns void
language plpgsql as $$
begin
    -- No request made it; a hash that none has refuses its id to all.
    insert into messages (
        conversation_id, seq, id, request_hash, parent_seq, role, written_by, content, created_at,
        rev, said_no, tool_no, metadata
    ) values (
        p_conversation.id, p_conversation.last_seq + 1, p_id, uuid_send(p_id),
        path_end(p_conversation.path, p_conversation.first_seq, p_conversation.last_seq),
        'system', p_by, p_content, p_at, p_rev, p_conversation.said_total, p_conversation.tool_total,
        jsonb_build_object('greffier_event', p_event, 'user_id', p_user)
    );
    update conversations set last_seq = last_seq + 1, message_count = message_count + 1
    where id = p_conversation.id;
    if exists (select from endpoints) then
        perform enqueue_out_v1(
            array[p_conversation.id], array[p_conversation.last_seq + 1],
            array[p_conversation.last_seq + 1]);
    end if;
end $$;

-- Promise: none of the invitations this user made lets anybody in any more.
-- Locks:   none beyond the conversation's row, which the caller holds.
create function revoke_invitations_of_v1(
    p_conversation_id uuid, p_user text, p_at timestamptz
) returns void
language plpgsql as $$
begin
    delete from invitation_tokens t using invitations i
    where i.conversation_id = p_conversation_id and i.created_by = p_user
      and t.token_hash = i.token_hash;
    update invitations set revoked_at = p_at
    where conversation_id = p_conversation_id and created_by = p_user and revoked_at is null;
end $$;

-- Promise: the user is in the conversation with this role, and everybody is told in a system
--          message; who was there with this role already changes nothing.  Whoever may no longer
--          invite has no open invitations either.
-- Locks:   none beyond the conversation's row, which the caller holds; users by id.
create function join_v1(
    p_conversation conversations, p_user text, p_role text, p_by text, p_message_id uuid
) returns bigint
language plpgsql as $$
declare
    v_now timestamptz := greatest(clock_timestamp(), p_conversation.updated_at);
    v_rev bigint := p_conversation.rev + 1;
    v_old participants;
    v_name text;
begin
    select * into v_old from participants
    where conversation_id = p_conversation.id and user_id = p_user;
    if v_old.left_at is null and v_old.role = p_role then
        return p_conversation.rev;
    end if;
    insert into participants as p (conversation_id, user_id, role, joined_at, rev)
    values (p_conversation.id, p_user, p_role, v_now, v_rev)
    on conflict (conversation_id, user_id) do update set
        role = excluded.role, rev = excluded.rev,
        joined_at = case when p.left_at is null then p.joined_at else excluded.joined_at end,
        left_at = null;
    if v_old.user_id is null or v_old.left_at is not null then
        insert into listings as l (
            user_id, conversation_id, listed_at, kind, subject, archived, list_rev
        )
        select a.user_id, p_conversation.id, p_conversation.listed_at, p_conversation.kind, null,
            p_conversation.archived_at is not null, a.list_rev
        from advance_lists_v1(array[p_user]) a
        on conflict (user_id, conversation_id) do update set
            listed_at = excluded.listed_at, archived = excluded.archived,
            list_rev = excluded.list_rev, removed_at = null;
        select coalesce(name, p_user) into v_name from users where id = p_user;
        perform append_event_v1(
            p_conversation, p_message_id, v_rev, v_name || ' joined', 'joined', p_user, p_by, v_now);
    elsif p_role = 'viewer' then
        perform revoke_invitations_of_v1(p_conversation.id, p_user, v_now);
    end if;
    update conversations set people_rev = v_rev where id = p_conversation.id;
    perform advance_v1(p_conversation, v_now);
    return v_rev;
end $$;

-- Promise: the room is the user's, and its former owner a member; the change has the next rev.
-- Locks:   none beyond the slot and the row, which the caller holds.
create function hand_over_v1(p_conversation conversations, p_user text) returns void
language plpgsql as $$
begin
    update participants
    set role = case when user_id = p_user then 'owner' else 'member' end, rev = p_conversation.rev + 1
    where conversation_id = p_conversation.id and user_id in (p_user, p_conversation.owner_id);
    update listings set subject = null
    where user_id = p_conversation.owner_id and conversation_id = p_conversation.id;
    update conversations
    set owner_id = p_user, subject = null, people_rev = p_conversation.rev + 1
    where id = p_conversation.id;
end $$;

-- Promise: the user is a participant with this role.  The owner manages people; making somebody the
--          owner hands a room over, and the former owner stays as a member; their subject, if it has
--          one, is theirs alone and free again.
-- Locks:   subject slot (only to hand over), conversation, users by id.
create function set_participant_v1(
    p_conversation_id uuid, p_actor text, p_user text, p_role text, p_must_exist boolean,
    p_by text, p_message_id uuid
) returns bigint
language plpgsql as $$
declare
    v_slot uuid := case when p_role = 'owner' then hold_subject_v1(p_conversation_id, p_actor) end;
    v conversations := lock_conversation_v1(p_conversation_id, p_actor, 'owner');
    v_now timestamptz := greatest(clock_timestamp(), v.updated_at);
    v_present boolean := exists (
        select from participants
        where conversation_id = p_conversation_id and user_id = p_user and left_at is null);
begin
    if v_slot = v.id and (p_user <> v.owner_id or v.archived_at is not null) then
        delete from subject_slots
        where owner_id = v.owner_id and subject = v.subject and conversation_id = v.id;
    end if;
    if p_must_exist and not v_present then
        raise exception using errcode = 'GR404', message = 'no such participant';
    end if;
    if p_user = v.owner_id then
        if p_role = 'owner' then
            return v.rev;
        end if;
        raise exception using errcode = 'GR403', message = 'an owner hands the room over first';
    end if;
    if p_role <> 'owner' then
        return join_v1(v, p_user, p_role, p_by, p_message_id);
    end if;
    if v.kind <> 'room' or not v_present then
        raise exception using errcode = 'GR422', message = 'only a room is handed over, to a member';
    end if;
    perform hand_over_v1(v, p_user);
    perform advance_v1(v, v_now);
    return v.rev + 1;
end $$;

-- Promise: the user is no participant any more, from this rev on; everybody is told.  The owner
--          removes anybody else, and anybody but the owner leaves.  Invitations they made are no way
--          back.
-- Locks:   the conversation's row, users by id.
create function remove_participant_v1(
    p_conversation_id uuid, p_actor text, p_user text, p_by text, p_message_id uuid
) returns bigint
language plpgsql as $$
declare
    v conversations := lock_conversation_v1(
        p_conversation_id, p_actor, case when p_actor = p_user then 'viewer' else 'owner' end);
    v_now timestamptz := greatest(clock_timestamp(), v.updated_at);
    v_name text;
begin
    if p_user = v.owner_id then
        raise exception using errcode = 'GR403',
            message = 'an owner hands the room over first, or erases it';
    end if;
    update participants set left_at = v_now, rev = v.rev + 1
    where conversation_id = p_conversation_id and user_id = p_user and left_at is null;
    if not found then
        raise exception using errcode = 'GR404', message = 'no such participant';
    end if;
    update listings l set removed_at = v_now, list_rev = a.list_rev
    from advance_lists_v1(array[p_user]) a
    where l.user_id = a.user_id and l.conversation_id = p_conversation_id;
    select coalesce(name, p_user) into v_name from users where id = p_user;
    perform append_event_v1(
        v, p_message_id, v.rev + 1, v_name || ' left', 'left', p_user, p_by, v_now);
    perform revoke_invitations_of_v1(v.id, p_user, v_now);
    update conversations set people_rev = v.rev + 1 where id = v.id;
    perform advance_v1(v, v_now);
    return v.rev + 1;
end $$;

-- Promise: an invitation with a role at most the inviter's; only its token's hash is kept.
-- Locks:   the conversation's row.
create function invite_v1(
    p_conversation_id uuid, p_actor text, p_id uuid, p_token_hash bytea, p_role text,
    p_lifetime interval, p_max_uses integer, p_by text
) returns timestamptz
language plpgsql as $$
declare
    v conversations := lock_conversation_v1(p_conversation_id, p_actor, 'member');
    v_now timestamptz := clock_timestamp();
begin
    insert into invitations (
        conversation_id, id, token_hash, role, created_by, created_at, expires_at, max_uses
    ) values (
        v.id, p_id, p_token_hash, p_role, p_by, v_now, v_now + p_lifetime, p_max_uses
    );
    insert into invitation_tokens (token_hash, conversation_id, invitation_id)
    values (p_token_hash, v.id, p_id);
    return v_now + p_lifetime;
end $$;

-- Promise: the invitation lets nobody in any more.  Its maker and the owner may.
-- Locks:   the conversation's row.
create function revoke_invitation_v1(p_conversation_id uuid, p_actor text, p_id uuid) returns void
language plpgsql as $$
declare
    v conversations := lock_conversation_v1(p_conversation_id, p_actor, 'member');
    v_now timestamptz := clock_timestamp();
    v_maker text;
begin
    select created_by into v_maker from invitations
    where conversation_id = v.id and id = p_id and revoked_at is null;
    if not found then
        raise exception using errcode = 'GR404', message = 'no such invitation';
    end if;
    if p_actor is not null and v_maker <> p_actor and v.owner_id <> p_actor then
        raise exception using errcode = 'GR403', message = 'its maker or the owner revokes it';
    end if;
    update invitations set revoked_at = v_now where conversation_id = v.id and id = p_id;
    delete from invitation_tokens t using invitations i
    where i.conversation_id = v.id and i.id = p_id and t.token_hash = i.token_hash;
end $$;

-- Promise: whoever brings a living token is in; its uses never exceed max_uses, and one who was in
--          already uses none up.
-- How:     the token names the conversation; everything is looked at again under its row lock.
-- Locks:   the conversation's row, users by id.
create function accept_invitation_v1(p_token_hash bytea, p_user text, p_message_id uuid) returns uuid
language plpgsql as $$
declare
    v conversations;
    i invitations;
begin
    select c.* into v from invitation_tokens t join conversations c on c.id = t.conversation_id
    where t.token_hash = p_token_hash
    for no key update of c;
    if found then
        select * into i from invitations
        where conversation_id = v.id and token_hash = p_token_hash and revoked_at is null
          and (expires_at is null or expires_at > clock_timestamp());
    end if;
    if i.id is null then
        raise exception using errcode = 'GR404', message = 'no such invitation';
    end if;
    if exists (
        select from participants
        where conversation_id = v.id and user_id = p_user and left_at is null
    ) then
        return v.id;
    end if;
    if i.uses >= i.max_uses then
        raise exception using errcode = 'GR404', message = 'no such invitation';
    end if;
    update invitations set uses = uses + 1 where conversation_id = v.id and id = i.id;
    perform join_v1(v, p_user, i.role, p_user, p_message_id);
    return v.id;
end $$;

-- Promise: the user's mark is at least here, never moved back, never beyond the last message.
-- Locks:   the conversation's row.
create function read_upto_v1(
    p_conversation_id uuid, p_user text, p_seq bigint, out last_read_seq bigint, out rev bigint
)
language plpgsql as $$
declare
    v conversations := lock_conversation_v1(p_conversation_id, p_user, 'viewer');
    v_to bigint := least(p_seq, v.last_seq);
    v_now timestamptz := clock_timestamp();
begin
    select p.last_read_seq into last_read_seq from participants p
    where p.conversation_id = v.id and p.user_id = p_user and p.left_at is null;
    rev := v.rev;
    if last_read_seq is null then
        raise exception using errcode = 'GR403', message = 'only a participant reads';
    end if;
    if v_to <= last_read_seq then
        return;
    end if;
    last_read_seq := v_to;
    rev := v.rev + 1;
    update participants p set last_read_seq = v_to, rev = v.rev + 1
    where p.conversation_id = v.id and p.user_id = p_user;
    insert into read_marks (conversation_id, user_id, upto_seq, at) values (v.id, p_user, v_to, v_now);
    -- Reading is no activity: the conversation keeps its place in everybody's list.
    update conversations c set rev = c.rev + 1, people_rev = c.rev + 1 where c.id = v.id;
end $$;

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

-- Direct access: people who reach the database with a role of their own see and change what is
-- theirs, in the schema greffier_me (reading in 86, writing in 87 to 89), and nothing else.
--
-- Who somebody is: database_roles maps current_user, and nothing else, to a user of ours.  A client
-- becomes another current_user only through a role it was given (SET ROLE) or a SECURITY DEFINER
-- function of whoever owns it; no setting, argument or search_path takes part.
--
-- What holds them, from outside in:
--   1. USAGE on greffier_me is granted to each admitted role, and on greffier to none.  What is in
--      greffier_me is granted to PUBLIC, so that there is one GRANT a person to give, revoke and
--      restore, and no group role, which is the whole cluster's and would be in every dump's way.
--   2. Every row they read comes through a view for current_user, with security_barrier: a cheap
--      function in a WHERE sees no row that is not theirs.
--   3. Row-level security is on for every table that holds somebody's words or name (99), so that a
--      GRANT too many, or pg_read_all_data, shows one's own rows at most.
--   4. They write through one SECURITY DEFINER function (88), which calls what the server calls.
--
-- Row-level security is not forced on the owner: the service owns the tables, asks for everything
-- under its own checks, and its plans stay what they are.

do $$ begin
    if to_regnamespace('greffier_me') is null then
        create schema greffier_me;
    end if;
end $$;
set search_path = greffier;

-- Which user a database role is.  By name, so that a dump can be restored elsewhere; the name alone
-- opens nothing to a later role called the same, which lacks the GRANT.
create table database_roles (
    role_name name primary key,
    user_id text not null check (user_id <> '')
);
alter table database_roles
    -- as for all that names somebody (90)
    alter role_name set statistics 0, alter user_id set statistics 0,
    enable row level security;
create policy own on database_roles for select using (role_name = current_user);
grant select on database_roles to public;

-- The user whom this role is; null when it was not admitted.  No definer's function, for it is to
-- see the caller's current_user.
create function greffier_me.whoami() returns text
language sql stable parallel safe
return (select user_id from greffier.database_roles where role_name = current_user);

-- Tables whose rows name their user: a policy on that column, without a subquery.
alter table users enable row level security;
create policy own on users for select using (id = greffier_me.whoami());
alter table participants enable row level security;
create policy own on participants for select using (user_id = greffier_me.whoami());
alter table listings enable row level security;
create policy own on listings for select using (user_id = greffier_me.whoami());
alter table feedback enable row level security;
create policy own on feedback for select using (user_id = greffier_me.whoami());
alter table read_marks enable row level security;
create policy own on read_marks for select using (user_id = greffier_me.whoami());
grant select on users, listings, feedback, read_marks to public;

-- Promise: the database role is this user from now on and may use greffier_me; said again, it is
--          another user.  A role that nothing here would hold is refused.  The owner alone may.
-- How:     to be run again for all after a restore into a cluster with the same roles:
--          select greffier.admit_role_v1(role_name, user_id) from greffier.database_roles
-- Locks:   the user's row, only when it is new.
create function admit_role_v1(p_role name, p_user text) returns void
language plpgsql as $$
declare
    v_role pg_roles;
    v_owner name := (
        select pg_get_userbyid(relowner) from pg_class where oid = 'greffier.messages'::regclass);
begin
    select * into v_role from pg_roles where rolname = p_role;
    if not found then
        raise exception using errcode = 'GR404', message = 'no such database role';
    end if;
    -- CREATEROLE gives itself the roles of others; these members read or write past all checks.
    if v_role.rolsuper or v_role.rolbypassrls or v_role.rolcreaterole or exists (
        select from unnest(array[
            v_owner, 'pg_read_all_data', 'pg_write_all_data', 'pg_read_all_stats',
            'pg_read_server_files', 'pg_write_server_files', 'pg_execute_server_program'
        ]) as power
        where pg_has_role(p_role, power, 'member')
    ) then
        raise exception using errcode = 'GR422',
            message = 'nothing here would hold this role: it has rights beyond its own rows';
    end if;
    if octet_length(p_user) not between 1 and 256 then
        raise exception using errcode = 'GR422', message = 'a user id has 1 to 256 bytes';
    end if;
    -- What the service's own keys write is written by these.
    if p_user = 'service' or starts_with(p_user, 'service:') then
        raise exception using errcode = 'GR422', message = 'this is the service, and no user';
    end if;
    perform see_user_v1(p_user, null, null);
    insert into database_roles (role_name, user_id) values (p_role, p_user)
    on conflict (role_name) do update set user_id = excluded.user_id;
    execute format('grant usage on schema greffier_me to %I', p_role);
end $$;

-- Promise: the database role is nobody here any more; what its user wrote stays.  A role that is
--          gone can be dismissed too.
-- Locks:   none.
create function dismiss_role_v1(p_role name) returns void
language plpgsql as $$
begin
    delete from database_roles where role_name = p_role;
    if exists (select from pg_roles where rolname = p_role) then
        execute format('revoke usage on schema greffier_me from %I', p_role);
    end if;
end $$;

-- Direct access, reading: what an admitted role sees.  Each view is the caller's alone, whoever
-- that is when it is read: also in a cursor, a prepared statement, a function, or COPY.

set search_path = greffier;

-- The caller's conversations; every view of a conversation starts here.
--
-- Listings find them by user, and the participant's row proves it.  The cast hides from the planner
-- that it is one id: it could otherwise begin with the messages of somebody else's conversation,
-- throw them away afterwards, and EXPLAIN ANALYZE would tell a stranger how many there are.
create view mine as
select l.conversation_id, r.user_id as me, p.role as my_role, p.last_read_seq, c.id, c.kind, c.title,
    c.subject, c.agent_id, c.owner_id, c.history_limit, c.metadata, c.created_at, c.updated_at,
    c.archived_at, c.first_seq, c.last_seq, c.path, c.message_count, c.rev
from database_roles r
join listings l on l.user_id = r.user_id and l.removed_at is null
join participants p on p.user_id = l.user_id and p.left_at is null
    and p.conversation_id = l.conversation_id::text::uuid
join conversations c on c.id = p.conversation_id
where r.role_name = current_user;

create view my_conversations with (security_barrier) as
select c.conversation_id as id, c.kind, c.title, c.subject, c.agent_id, c.owner_id, c.my_role,
    c.last_read_seq, c.history_limit, c.metadata, c.archived_at is not null as archived,
    c.created_at, c.updated_at, c.archived_at, c.first_seq, c.last_seq, c.message_count, c.rev
from mine c;

-- Everything ever said, superseded (not active) or not.  Of a deleted message as much is left as
-- message_json shows.
create view my_record with (security_barrier) as
select c.conversation_id, m.seq, m.id, m.parent_seq, m.role, m.author_id, m.author_name,
    m.written_by,
    case when m.deleted_at is null then m.content end as content,
    case when m.deleted_at is null then m.parts end as parts,
    case when m.deleted_at is null then m.tool_calls end as tool_calls,
    m.tool_call_id, m.name,
    case when m.deleted_at is null then m.reasoning end as reasoning,
    m.status, m.run_id, m.created_at, m.said_at, m.edited_at, m.deleted_at,
    coalesce(m.changed_rev, m.rev) as rev,
    coalesce(case when m.deleted_at is null then m.metadata end, '{}') as metadata,
    m.seq <@ c.path as active
from mine c
join messages m on m.conversation_id = c.id and m.seq between c.first_seq and c.last_seq;

create view my_participants with (security_barrier) as
select c.conversation_id, p.user_id, u.name, p.role, p.joined_at, p.last_read_seq
from mine c
join participants p on p.conversation_id = c.id and p.left_at is null
left join users u on u.id = p.user_id;

grant select on my_conversations, my_record, my_participants to public;

-- Views that are written to (89) stand before these as the caller's own, with SELECT as all that
-- the caller has behind them.  LOCK TABLE and FOR UPDATE reach through a view to its tables: with
-- the owner's rights, DELETE on a view would do to stop the whole service by an open transaction.
create view greffier_me.conversations with (security_barrier, security_invoker) as
select * from my_conversations;

-- The active path, as a page shows it.
create view greffier_me.messages with (security_barrier, security_invoker) as
select conversation_id, seq, id, parent_seq, role, author_id, author_name, written_by, content,
    parts, tool_calls, tool_call_id, name, reasoning, status, run_id, created_at, said_at,
    edited_at, deleted_at, rev, metadata
from my_record
where active;

create view greffier_me.participants with (security_barrier, security_invoker) as
select * from my_participants;

create view greffier_me.record with (security_barrier, security_invoker) as
select * from my_record;

-- The active path as stretches of seqs, normally one.
create view greffier_me.path with (security_barrier) as
select c.conversation_id, lower(x) as first_seq, upper(x) - 1 as last_seq
from mine c
cross join lateral unnest(c.path * int8multirange(int8range(c.first_seq, c.last_seq + 1))) x;

-- Earlier texts of edited messages; none of a deleted one.
create view greffier_me.versions with (security_barrier) as
select c.conversation_id, v.seq, v.rev, v.content, v.parts, v.written_at, v.replaced_at,
    v.replaced_by
from mine c
join message_versions v on v.conversation_id = c.id
join messages m on m.conversation_id = v.conversation_id and m.seq = v.seq
where m.deleted_at is null;

create view greffier_me.branches with (security_barrier) as
select c.conversation_id, b.id, b.path, b.left_at_rev, b.last_seq
from mine c
join branches b on b.conversation_id = c.id;

-- Those that still let somebody in: all for the owner, else one's own.  Nobody sees a token again.
create view greffier_me.invitations with (security_barrier) as
select c.conversation_id, i.id, i.role, i.expires_at, i.max_uses, i.uses, i.created_by
from mine c
join invitations i on i.conversation_id = c.id and i.revoked_at is null
    and (i.expires_at is null or i.expires_at > clock_timestamp())
    and (i.max_uses is null or i.uses < i.max_uses)
    and (c.my_role = 'owner' or i.created_by = c.me);

-- What hangs on the user alone is read from the tables with the caller's own rights, under their
-- policies.  Listings name the conversations by which feedback and marks are found; without them it
-- would be a walk through everybody's.
create view greffier_me.me with (security_barrier, security_invoker) as
select r.user_id, u.name, u.email, r.role_name
from database_roles r left join users u on u.id = r.user_id
where r.role_name = current_user;

create view greffier_me.feedback with (security_barrier, security_invoker) as
select f.conversation_id, f.seq, f.rating, f.comment, f.at
from database_roles r
join listings l on l.user_id = r.user_id and l.removed_at is null
join feedback f on f.conversation_id = l.conversation_id and f.user_id = l.user_id
where r.role_name = current_user;

create view greffier_me.read_marks with (security_barrier, security_invoker) as
select k.conversation_id, k.upto_seq, k.at
from database_roles r
join listings l on l.user_id = r.user_id and l.removed_at is null
join read_marks k on k.conversation_id = l.conversation_id and k.user_id = l.user_id
where r.role_name = current_user;

grant select on all tables in schema greffier_me to public;

-- The newest messages before a seq (or at the end), oldest first, at the cost of what is returned:
-- ORDER BY seq DESC LIMIT on the view would sort the whole conversation.
create function greffier_me.page(
    conversation_id uuid, before bigint default null, how_many integer default 15
) returns setof greffier_me.messages
language plpgsql stable rows 15
set search_path = greffier_me, pg_temp as $$
declare
    x record;
begin
    for x in
        select greatest(w.lo, w.hi - (page.how_many - w.newer) + 1) as lo, w.hi
        from (
            select s.lo, s.hi,
                sum(s.hi - s.lo + 1) over (order by s.lo desc)::bigint - (s.hi - s.lo + 1) as newer
            from (
                select p.first_seq as lo, least(p.last_seq, page.before - 1) as hi
                from path p
                where p.conversation_id = page.conversation_id
                  and (page.before is null or p.first_seq < page.before)
            ) s
        ) w
        where w.newer < page.how_many
        order by w.lo
    loop
        return query
            select m.* from messages m
            where m.conversation_id = page.conversation_id and m.seq between x.lo and x.hi
            order by m.seq;
    end loop;
end $$;

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

-- Nothing is open but what was opened: the last file, for everything before it.

set search_path = greffier;

-- Functions are everybody's unless taken back.
revoke execute on all functions in schema greffier from public;

-- Row-level security for every table that holds somebody's words, names or numbers: without a
-- policy nobody but the owner, whom it does not concern, sees a row, whatever was granted.  The two
-- others say nothing of anybody.
do $$
declare
    v_table regclass;
begin
    for v_table in
        select oid from pg_class
        where relnamespace = 'greffier'::regnamespace and relkind in ('r', 'p')
          and relname not in ('identity', 'schema_changes')
        order by relname
    loop
        execute format('alter table %s enable row level security', v_table);
    end loop;
end $$;
