-- Reads of agents.

-- name: get_agent
-- $1 agent; no row when there is none, or it was deleted.
select agent_json(a) as body, a.version from agents a where a.id = $1 and a.deleted_at is null;

-- name: list_agents
-- $1 the last one so far, or null, $2 how many: the oldest first.  A row never leaves the table, so
-- that also one deleted meanwhile says where a list goes on.
select agent_json(a) as body, a.id
from agents a
where a.deleted_at is null
  and ($1::uuid is null
       or (a.created_at, a.id) > (select l.created_at, l.id from agents l where l.id = $1))
order by a.created_at, a.id
limit $2;
