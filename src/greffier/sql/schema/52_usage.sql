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
