-- Reads of the feed.

-- name: revs
-- Where conversations are; one that is gone has no row.
select id, rev from conversations where id = any ($1);
