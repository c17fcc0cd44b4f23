-- The record, as it is today.  Read the files in the order of their numbers; each holds one topic:
-- its tables, then the functions that change them.  Reads are plain queries in ../queries.
--
-- Names: p_ parameters, v_ variables, _v1 the version of a function (a changed meaning is a new
-- function, so that servers of two releases can share a database).
--
-- Locks, always in this order: subject slot, conversation rows by id, lanes by id (then their token is
-- looked at), users by id.  What hangs on a
-- conversation (its messages, participants, listings) is written under its row lock and needs none.
--
-- Refusals have an SQLSTATE of their own; greffier/errors.py maps them:
--   GR403 forbidden   GR404 not-found   GR409 id-reused     GR410 gone          GR412 stale
--   GR419 archived    GR422 validation  GR429 subject-taken GR439 agent-fixed   GR449 run-active
--
-- Everything keyed by a conversation leads its keys with conversation_id and has no foreign key
-- to another table: a foreign key on messages costs 17 % of an append, and the UPDATE of the
-- conversation's counters proves that it exists.

-- Its owner may have made it already for a role that may not create schemas.
do $$ begin
    if to_regnamespace('greffier') is null then
        create schema greffier;
    end if;
end $$;
set search_path = greffier;

-- Which conversations one statement may touch together.  One group on plain PostgreSQL; on a
-- distributed database this becomes the shard group, and the writer batches by it.
create function route(p_conversation_id uuid) returns integer
language sql immutable parallel safe
return 0;

-- A time as the API shows it: RFC 3339, UTC, microseconds, always of the same length.
create function rfc3339(p_at timestamptz) returns text
language sql stable parallel safe
return to_char(p_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"');

-- The first bytes of a text, at most p_bytes, never half a character.
create function cut_text(p_text text, p_bytes integer) returns text
language plpgsql immutable parallel safe as $$
declare
    v_bytes bytea;
    v_end integer := p_bytes;
begin
    if octet_length(p_text) <= p_bytes then
        return p_text;
    end if;
    v_bytes := convert_to(left(p_text, p_bytes), 'UTF8');
    if length(v_bytes) <= p_bytes then
        return left(p_text, p_bytes);
    end if;
    -- A byte 10xxxxxx continues a character: step back until the cut falls before a first byte.
    while get_byte(v_bytes, v_end) & 192 = 128 loop
        v_end := v_end - 1;
    end loop;
    return convert_from(substring(v_bytes from 1 for v_end), 'UTF8');
end $$;

-- Which history of the database this is.  The epoch changes when the system identifier or the
-- timeline does (a restore, a promotion) and when `greffier restore` says so; a client that holds
-- another epoch starts afresh instead of comparing numbers that mean something else.
create table identity (
    one boolean primary key default true check (one),
    epoch text not null,
    system_identifier bigint not null,
    timeline integer not null,
    since timestamptz not null default clock_timestamp(),
    -- Whoever may connect to a database may LISTEN and NOTIFY there: what keeps strangers out of our
    -- channels is that they do not know their names.
    channel_key text not null default replace(gen_random_uuid()::text, '-', ''),
    -- how far the lanes' clock is off, for tests of clocks that jump
    clock_shift interval not null default '0'
);

-- The name of one of our channels in this database.  For the service; nobody else may call it.
create function channel(p_name text) returns text
language sql stable
return p_name || coalesce('_' || (select channel_key from identity), '');

-- Every migration that was applied, with the checksum of its text.
create table schema_changes (
    id integer primary key,
    name text not null,
    checksum text not null,
    applied_at timestamptz not null default clock_timestamp(),
    applied_by text not null
);
