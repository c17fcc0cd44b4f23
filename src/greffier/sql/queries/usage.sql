-- Reads of what models cost.  A month begins with its first second in UTC, as for quota_refusal.

-- name: usage_of
-- $1 user, $2 when a month begins, or null for the present one: what it took, by agent and model.  One
-- row at least, which says the month.
select m.since, u.*, a.name as agent
from (select date_trunc('month', coalesce($2::timestamptz, clock_timestamp()), 'UTC') as since) m
left join lateral (
    select u.agent_id, u.provider, u.model, count(*) as runs, sum(u.calls) as calls,
        sum(u.input_tokens)::bigint as input_tokens, sum(u.output_tokens)::bigint as output_tokens,
        sum(u.cached_tokens)::bigint as cached_tokens, trim_scale(sum(u.cost)) as cost
    from usage u
    where u.user_id = $1 and u.at >= m.since
      and u.at < (m.since at time zone 'UTC' + interval '1 month') at time zone 'UTC'
    group by u.agent_id, u.provider, u.model
) u on true
left join agents a on a.id = u.agent_id
order by u.cost desc, u.input_tokens + u.output_tokens desc, u.agent_id, u.provider, u.model;

-- name: usage_of_all
-- $1 when a month begins, or null for the present one: what everybody's runs took, by user.  It reads
-- the whole ledger.
select m.since, u.*
from (select date_trunc('month', coalesce($1::timestamptz, clock_timestamp()), 'UTC') as since) m
left join lateral (
    select u.user_id, count(*) as runs, sum(u.calls) as calls,
        sum(u.input_tokens)::bigint as input_tokens, sum(u.output_tokens)::bigint as output_tokens,
        sum(u.cached_tokens)::bigint as cached_tokens, trim_scale(sum(u.cost)) as cost
    from usage u
    where u.at >= m.since
      and u.at < (m.since at time zone 'UTC' + interval '1 month') at time zone 'UTC'
    group by u.user_id
) u on true
order by u.cost desc, u.input_tokens + u.output_tokens desc, u.user_id;

-- name: statement_of
-- $1 user, $2 when a month begins, or null for the present one: its runs in their order.
select u.at, u.user_id, u.run_id, u.conversation_id, u.agent_id, a.name as agent, u.provider, u.model,
    u.calls, u.input_tokens, u.output_tokens, u.cached_tokens, trim_scale(u.cost) as cost
from (select date_trunc('month', coalesce($2::timestamptz, clock_timestamp()), 'UTC') as since) m
join usage u on u.user_id = $1 and u.at >= m.since
  and u.at < (m.since at time zone 'UTC' + interval '1 month') at time zone 'UTC'
left join agents a on a.id = u.agent_id
order by u.at, u.run_id;

-- name: statement_of_all
-- $1 when a month begins, or null for the present one: everybody's runs, each user's together.
select u.at, u.user_id, u.run_id, u.conversation_id, u.agent_id, a.name as agent, u.provider, u.model,
    u.calls, u.input_tokens, u.output_tokens, u.cached_tokens, trim_scale(u.cost) as cost
from (select date_trunc('month', coalesce($1::timestamptz, clock_timestamp()), 'UTC') as since) m
join usage u on u.at >= m.since
  and u.at < (m.since at time zone 'UTC' + interval '1 month') at time zone 'UTC'
left join agents a on a.id = u.agent_id
order by u.user_id, u.at, u.run_id;

-- name: my_usage
-- $1 user: every run of theirs on the ledger, a line each.
select json_build_object(
    'at', rfc3339(u.at), 'run_id', u.run_id, 'conversation_id', u.conversation_id,
    'agent_id', u.agent_id, 'provider', u.provider, 'model', u.model, 'calls', u.calls,
    'input_tokens', u.input_tokens, 'output_tokens', u.output_tokens,
    'cached_tokens', u.cached_tokens, 'cost', trim_scale(u.cost))::text as body
from usage u
where u.user_id = $1
order by u.at, u.run_id;

-- name: quota_of
-- $1 user; no row when nobody ever said.
select tokens_per_month, trim_scale(cost_per_month) as cost_per_month from quotas where user_id = $1;
