-- Direct access: people who reach the database with a role of their own see and change what is
-- theirs, in the schema greffier_me (reading in 86, writing in 87 to 89), and nothing else.
--
-- Who somebody is: database_roles maps current_user, and nothing else, to a user of ours.  A client
-- becomes another current_user only through a role it was given (SET ROLE) or a SECURITY DEFINER
-- function of whoever owns it; no setting, argument or search_path takes part.
--
-- What holds them, from outside in:
--   1. USAGE on greffier_me is granted to each admitted role, and on greffier to none.  What is in
--      greffier_me is granted to PUBLIC, so that there is one GRANT a person to give, revoke and
--      restore, and no group role, which is the whole cluster's and would be in every dump's way.
--   2. Every row they read comes through a view for current_user, with security_barrier: a cheap
--      function in a WHERE sees no row that is not theirs.
--   3. Row-level security is on for every table that holds somebody's words or name (99), so that a
--      GRANT too many, or pg_read_all_data, shows one's own rows at most.
--   4. They write through one SECURITY DEFINER function (88), which calls what the server calls.
--
-- Row-level security is not forced on the owner: the service owns the tables, asks for everything
-- under its own checks, and its plans stay what they are.

do $$ begin
    if to_regnamespace('greffier_me') is null then
        create schema greffier_me;
    end if;
end $$;
set search_path = greffier;

-- Which user a database role is.  By name, so that a dump can be restored elsewhere; the name alone
-- opens nothing to a later role called the same, which lacks the GRANT.
create table database_roles (
    role_name name primary key,
    user_id text not null check (user_id <> '')
);
alter table database_roles
    -- as for all that names somebody (90)
    alter role_name set statistics 0, alter user_id set statistics 0,
    enable row level security;
create policy own on database_roles for select using (role_name = current_user);
grant select on database_roles to public;

-- The user whom this role is; null when it was not admitted.  No definer's function, for it is to
-- see the caller's current_user.
create function greffier_me.whoami() returns text
language sql stable parallel safe
return (select user_id from greffier.database_roles where role_name = current_user);

-- Tables whose rows name their user: a policy on that column, without a subquery.
alter table users enable row level security;
create policy own on users for select using (id = greffier_me.whoami());
alter table participants enable row level security;
create policy own on participants for select using (user_id = greffier_me.whoami());
alter table listings enable row level security;
create policy own on listings for select using (user_id = greffier_me.whoami());
alter table feedback enable row level security;
create policy own on feedback for select using (user_id = greffier_me.whoami());
alter table read_marks enable row level security;
create policy own on read_marks for select using (user_id = greffier_me.whoami());
grant select on users, listings, feedback, read_marks to public;

-- Promise: the database role is this user from now on and may use greffier_me; said again, it is
--          another user.  A role that nothing here would hold is refused.  The owner alone may.
-- How:     to be run again for all after a restore into a cluster with the same roles:
--          select greffier.admit_role_v1(role_name, user_id) from greffier.database_roles
-- Locks:   the user's row, only when it is new.
create function admit_role_v1(p_role name, p_user text) returns void
language plpgsql as $$
declare
    v_role pg_roles;
    v_owner name := (
        select pg_get_userbyid(relowner) from pg_class where oid = 'greffier.messages'::regclass);
begin
    select * into v_role from pg_roles where rolname = p_role;
    if not found then
        raise exception using errcode = 'GR404', message = 'no such database role';
    end if;
    -- CREATEROLE gives itself the roles of others; these members read or write past all checks.
    if v_role.rolsuper or v_role.rolbypassrls or v_role.rolcreaterole or exists (
        select from unnest(array[
            v_owner, 'pg_read_all_data', 'pg_write_all_data', 'pg_read_all_stats',
            'pg_read_server_files', 'pg_write_server_files', 'pg_execute_server_program'
        ]) as power
        where pg_has_role(p_role, power, 'member')
    ) then
        raise exception using errcode = 'GR422',
            message = 'nothing here would hold this role: it has rights beyond its own rows';
    end if;
    if octet_length(p_user) not between 1 and 256 then
        raise exception using errcode = 'GR422', message = 'a user id has 1 to 256 bytes';
    end if;
    -- What the service's own keys write is written by these.
    if p_user = 'service' or starts_with(p_user, 'service:') then
        raise exception using errcode = 'GR422', message = 'this is the service, and no user';
    end if;
    perform see_user_v1(p_user, null, null);
    insert into database_roles (role_name, user_id) values (p_role, p_user)
    on conflict (role_name) do update set user_id = excluded.user_id;
    execute format('grant usage on schema greffier_me to %I', p_role);
end $$;

-- Promise: the database role is nobody here any more; what its user wrote stays.  A role that is
--          gone can be dismissed too.
-- Locks:   none.
create function dismiss_role_v1(p_role name) returns void
language plpgsql as $$
begin
    delete from database_roles where role_name = p_role;
    if exists (select from pg_roles where rolname = p_role) then
        execute format('revoke usage on schema greffier_me from %I', p_role);
    end if;
end $$;
