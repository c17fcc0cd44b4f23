-- Users: whoever a token names.  They are made on first sight and keep their name for display.

set search_path = greffier;

create table users (
    id text primary key check (id <> ''),
    name text,
    email text,
    -- numbers the changes of *which* conversations this user has
    list_rev bigint not null default 0,
    created_at timestamptz not null default clock_timestamp(),
    erased_at timestamptz
) with (fillfactor = 80);

-- Promise: the user exists afterwards, with the name and e-mail last claimed; nothing is written
--          when nothing is new.
-- Locks:   the user's row, only when something changes.
create function see_user_v1(p_id text, p_name text, p_email text) returns void
language plpgsql as $$
begin
    if exists (
        select from users
        where id = p_id
          and name is not distinct from coalesce(p_name, name)
          and email is not distinct from coalesce(p_email, email)
    ) then
        return;
    end if;
    insert into users as u (id, name, email) values (p_id, p_name, p_email)
    on conflict (id) do update
        set name = coalesce(excluded.name, u.name), email = coalesce(excluded.email, u.email)
        where u.erased_at is null;
end $$;
