-- Reads of API keys.

-- name: find_key
select k.id, k.scope, k.user_id, k.name, k.created_by, k.created_at, k.expires_at,
    u.name as user_name, u.email as user_email
from api_keys k
left join users u on u.id = k.user_id
where k.key_hash = $1 and (k.expires_at is null or k.expires_at > clock_timestamp());

-- name: list_keys
-- $1 user, or null for everybody's, $2 the last id so far, $3 how many.  Newest first: an id begins
-- with the time at which it was made.
select id, scope, user_id, name, created_by, created_at, expires_at
from api_keys
where id < $2 and ($1::text is null or user_id = $1)
order by id desc
limit $3;
