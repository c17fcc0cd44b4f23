-- Nothing is open but what was opened: the last file, for everything before it.

set search_path = greffier;

-- Functions are everybody's unless taken back.
revoke execute on all functions in schema greffier from public;

-- Row-level security for every table that holds somebody's words, names or numbers: without a
-- policy nobody but the owner, whom it does not concern, sees a row, whatever was granted.  The two
-- others say nothing of anybody.
do $$
declare
    v_table regclass;
begin
    for v_table in
        select oid from pg_class
        where relnamespace = 'greffier'::regnamespace and relkind in ('r', 'p')
          and relname not in ('identity', 'schema_changes')
        order by relname
    loop
        execute format('alter table %s enable row level security', v_table);
    end loop;
end $$;
