-- Reads of users.

-- name: user_name
select name from users where id = $1;
