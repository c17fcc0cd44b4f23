-- Reads of endpoints and sources.

-- name: get_endpoint
-- $1 endpoint, $2 actor, $3 whether all are theirs to look after; no row when it is not there for them.
select endpoint_json(e) as body, e.version, e.only_conversation_id
from endpoints e where e.id = $1 and keeps_endpoint(e, $2, $3);

-- name: list_endpoints
-- $1 actor, $2 as above, $3 only those for this conversation, or null, $4 the last one so far, or null,
-- $5 how many: the oldest first.
select endpoint_json(e) as body, e.id
from endpoints e
where keeps_endpoint(e, $1, $2)
  and ($3::uuid is null or e.only_conversation_id = $3)
  and ($4::uuid is null
       or (e.created_at, e.id) > (select l.created_at, l.id from endpoints l where l.id = $4))
order by e.created_at, e.id
limit $5;

-- name: get_source
select source_json(s) as body, s.version from sources s where s.id = $1;

-- name: list_sources
-- $1 the last one so far, or null, $2 how many: in the order of their ids.
select source_json(s) as body, s.id
from sources s
where $1::uuid is null or s.id > $1
order by s.id
limit $2;

-- name: source_secrets
-- What the senders of a source sign with, and how what they bring is read.
select secrets_now(s.secrets, s.rotated_at, clock_timestamp()) as secrets, s.adapter, s.endpoint_id
from sources s where s.id = $1;

-- name: any_endpoint
-- Whether what is said may have to leave.
select exists (select from endpoints where deleted_at is null) as found;
