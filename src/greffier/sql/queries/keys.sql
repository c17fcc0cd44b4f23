-- Reads of API keys.

-- name: find_key
select id, scope, user_id, name, created_by, created_at, expires_at
from api_keys
where key_hash = $1 and (expires_at is null or expires_at > clock_timestamp());

-- name: list_keys
-- $1 user; null lists everybody's.
select id, scope, user_id, name, created_by, created_at, expires_at
from api_keys
where $1::text is null or user_id = $1
order by created_at desc, id;
