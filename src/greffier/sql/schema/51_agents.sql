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
