-- What somebody with a database role may try, to be another or to see another's words.  Each attack
-- is run statement by statement, whatever became of the one before.
--
-- :ada and :bob are roles, and bob tries; :private is a room of ada's, :shared one of them both; lair
-- is a schema of bob's own.

-- attack: roles, sessions and their settings
set role :ada;
set role none;
set session authorization :ada;

select set_config('role', ':ada', false);
select set_config('session_authorization', ':ada', false);

grant :ada to :bob;
create role other in role :ada;

create function lair.f() returns text language sql set role = ':ada'
    as $$ select greffier_me.whoami() $$;
select lair.f();
create function lair.g(text) returns bigint language sql set search_path = lair
    as $$ select greffier_me.append(':private', $1) $$;
select lair.g('x');

begin;
set local role :ada;

-- attack: settings a client may set
set greffier.user_id = 'ada';
set greffier.role = ':ada';
set request.jwt.claims = '{"sub": "ada"}';
set application_name = ':ada';

set session_replication_role = replica;

set row_security = off;
select * from greffier_me.feedback;

-- attack: settings that change how SQL is read and run
set standard_conforming_strings = off;
set transform_null_equals = on;
set plpgsql.variable_conflict = use_column;
set array_nulls = off;
set extra_float_digits = -15;
set timezone = 'Asia/Kathmandu';
set datestyle = 'German';
set bytea_output = 'escape';
set intervalstyle = 'sql_standard';
set enable_indexscan = off;
set force_parallel_mode = on;
set debug_parallel_query = on;
select * from greffier_me.record;

-- attack: another caller at the door
update greffier_me.request set caller = ':ada', verb = 'create';
update greffier_me.request set verb = 'append', arguments = '{
    "conversation_id": ":private", "caller": ":ada", "actor": "ada", "p_user": "ada",
    "messages": [{"content": "x"}]}';
update greffier_me.request set verb = 'append', arguments = '{
    "conversation_id": ":shared", "messages": [{"content": "x", "author_id": "ada"}]}';
insert into greffier_me.request (caller, verb) values (':ada', 'create');
delete from greffier_me.request;

create temp table trap (caller name, verb text, arguments json, answer json);
insert into trap values (':ada');
create trigger serve before update on trap
    for each row execute function greffier.serve_request_v1();
update trap set verb = 'create';

-- attack: what lies behind
insert into greffier.database_roles values (':bob', 'ada');
update greffier.database_roles set user_id = 'ada';
select greffier.admit_role_v1(':bob', 'ada');
select greffier.dismiss_role_v1(':ada');

select * from greffier.messages;
table greffier.participants;
select * from greffier.my_record;
select * from greffier.mine;
insert into greffier.participants values (':private', 'bob', 'owner', now(), null, 0, 1);
update greffier.messages set content = 'x';
delete from greffier.messages;
truncate greffier.messages;
drop table greffier.messages;

select greffier.direct_verb_v1('ada', 'create', '{}');
select greffier.edit_message_v1(':private', null, 1, 'x', null, 'bob');
select greffier.erase_conversation_v1(':private', null);
select greffier.serve_request_v1();

-- attack: tables in front of ours
create temp table database_roles as select ':bob'::name as role_name, 'ada' as user_id;
create temp table participants as
    select ':private'::uuid as conversation_id, 'bob'::text as user_id, 'owner'::text as role,
        null::timestamptz as left_at;
create temp table request as
    select ':ada'::name as caller, null::text as verb, null::json as arguments, null::json as answer;
create temp view record as select 1 as seq;
set search_path = pg_temp, greffier_me, greffier;

-- attack: functions in front of ours
create function lair.whoami() returns text language sql as $$ select 'ada' $$;
create function lair.json_build_object(text, uuid, text, json) returns json language sql
    as $$ select '{"conversation_id": ":private"}'::json $$;
create function lair.append(uuid, text) returns bigint language sql as $$ select 1 $$;
create function lair.sha256(bytea) returns bytea language sql as $$ select ''::bytea $$;
create function lair.check_text(text, text, integer, integer) returns void language sql
    as $$ select $$;
set search_path = lair, pg_temp, pg_catalog, greffier_me;

-- attack: operators in front of ours
create function lair.always(name, name) returns boolean language sql as $$ select true $$;
create function lair.always(uuid, uuid) returns boolean language sql as $$ select true $$;
create function lair.always(text, text) returns boolean language sql as $$ select true $$;
create operator lair.= (leftarg = name, rightarg = name, function = lair.always);
create operator lair.= (leftarg = uuid, rightarg = uuid, function = lair.always);
create operator lair.= (leftarg = text, rightarg = text, function = lair.always);
set search_path = lair, pg_catalog, greffier_me;
select * from greffier_me.record;

-- attack: our objects altered
create or replace function greffier_me.whoami() returns text language sql as $$ select 'ada' $$;
create function greffier_me.extra() returns text language sql as $$ select 'ada' $$;
create or replace view greffier_me.me as select 'ada' as user_id;
alter view greffier_me.record set (security_barrier = false);
alter view greffier_me.record owner to :bob;
drop view greffier_me.record;
create rule r as on update to greffier_me.request do also select 1;
create policy p on greffier.participants using (true);
alter table greffier.participants disable row level security;
alter table greffier.participants owner to :bob;
grant select on greffier.messages to :bob;
grant usage on schema greffier to :bob;
create trigger t instead of update on greffier_me.request
    for each row execute function suppress_redundant_updates_trigger();

-- attack: our objects in one's own
create view lair.v as select * from greffier_me.record;
select * from lair.v;
create view lair.w as select * from greffier_me.request;
update lair.w set verb = 'create', arguments = '{"owner": "ada"}';
create table lair.copy (like greffier_me.record including all);
create table lair.heir () inherits (greffier.messages);
create materialized view lair.m as select * from greffier_me.record;
refresh materialized view lair.m;
select * from lair.m;

-- attack: prepared statements, cursors, DO
prepare p as select * from greffier_me.record;
execute p;
prepare q (text) as select * from greffier_me.record where content <> $1;
execute q ('x');
declare c cursor with hold for select * from greffier_me.record;
fetch all from c;
do $$ begin
    execute 'set role :ada';
exception when others then
    raise notice '%', sqlerrm;
end $$;
do $$
declare r record;
begin
    for r in select * from greffier_me.record loop
        raise notice '%', r;
    end loop;
end $$;

-- attack: other ways out
copy greffier.messages to stdout;
copy (select * from greffier.messages) to stdout;
copy (select 1) to program 'id';
create temp table x (a text);
copy x from '/etc/passwd';
copy x from program 'id';

select pg_read_file('postgresql.conf');
select pg_ls_dir('.');
select lo_import('/etc/passwd');
select lo_export(1, 'x');
select * from pg_largeobject;
select lo_get(oid) from pg_largeobject_metadata;

select query_to_xml('select * from greffier.messages', true, true, '');
select schema_to_xml('greffier', true, true, '');
select schema_to_xml('greffier_me', true, true, '');
select database_to_xml(true, true, '');

-- attack: the catalogue and plans
select s::text from pg_stats s;
select s::text from pg_stats_ext s;
select s::text from pg_statistic s;
select * from pg_stat_activity;
select * from pg_prepared_statements;
select * from pg_cursors;
select * from pg_roles;
select * from pg_authid;
select * from pg_stat_statements;
select * from information_schema.columns;
select pg_get_viewdef('greffier_me.record'::regclass);
select prosrc from pg_proc where proname = 'serve_request_v1';

explain (analyze, verbose) select * from greffier_me.record;
explain (analyze, verbose) select * from greffier_me.record where content = 'x';
explain (analyze, verbose) select greffier_me.append(':private', 'x');
set debug_print_plan = on;
set debug_print_parse = on;
set client_min_messages = debug5;
select * from greffier_me.record where content <> 'x';

-- attack: errors that quote
select content::integer from greffier_me.record order by content desc;
select 1 / (length(content) - 11) from greffier_me.record;
select greffier_me.create_conversation(id => ':private');
select greffier_me.append(':private', repeat('x', 300000));
select greffier_me.append(':shared', 'x', role => repeat('x', 10000000));
select greffier_me.rate(':private', 1, 2);
select greffier_me.edit(':private', 1, 'x');
select greffier_me.activate_branch(':private', ':private');
select greffier_me.join_by('gri_' || repeat('x', 43));
