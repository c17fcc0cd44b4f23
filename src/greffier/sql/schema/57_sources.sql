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
