-- Direct access, reading: what an admitted role sees.  Each view is the caller's alone, whoever
-- that is when it is read: also in a cursor, a prepared statement, a function, or COPY.

set search_path = greffier;

-- The caller's conversations; every view of a conversation starts here.
--
-- Listings find them by user, and the participant's row proves it.  The cast hides from the planner
-- that it is one id: it could otherwise begin with the messages of somebody else's conversation,
-- throw them away afterwards, and EXPLAIN ANALYZE would tell a stranger how many there are.
create view mine as
select l.conversation_id, r.user_id as me, p.role as my_role, p.last_read_seq, c.id, c.kind, c.title,
    c.subject, c.agent_id, c.owner_id, c.history_limit, c.metadata, c.created_at, c.updated_at,
    c.archived_at, c.first_seq, c.last_seq, c.path, c.message_count, c.rev
from database_roles r
join listings l on l.user_id = r.user_id and l.removed_at is null
join participants p on p.user_id = l.user_id and p.left_at is null
    and p.conversation_id = l.conversation_id::text::uuid
join conversations c on c.id = p.conversation_id
where r.role_name = current_user;

create view my_conversations with (security_barrier) as
select c.conversation_id as id, c.kind, c.title, c.subject, c.agent_id, c.owner_id, c.my_role,
    c.last_read_seq, c.history_limit, c.metadata, c.archived_at is not null as archived,
    c.created_at, c.updated_at, c.archived_at, c.first_seq, c.last_seq, c.message_count, c.rev
from mine c;

-- Everything ever said, superseded (not active) or not.  Of a deleted message as much is left as
-- message_json shows.
create view my_record with (security_barrier) as
select c.conversation_id, m.seq, m.id, m.parent_seq, m.role, m.author_id, m.author_name,
    m.written_by,
    case when m.deleted_at is null then m.content end as content,
    case when m.deleted_at is null then m.parts end as parts,
    case when m.deleted_at is null then m.tool_calls end as tool_calls,
    m.tool_call_id, m.name,
    case when m.deleted_at is null then m.reasoning end as reasoning,
    m.status, m.run_id, m.created_at, m.said_at, m.edited_at, m.deleted_at,
    coalesce(m.changed_rev, m.rev) as rev,
    coalesce(case when m.deleted_at is null then m.metadata end, '{}') as metadata,
    m.seq <@ c.path as active
from mine c
join messages m on m.conversation_id = c.id and m.seq between c.first_seq and c.last_seq;

create view my_participants with (security_barrier) as
select c.conversation_id, p.user_id, u.name, p.role, p.joined_at, p.last_read_seq
from mine c
join participants p on p.conversation_id = c.id and p.left_at is null
left join users u on u.id = p.user_id;

grant select on my_conversations, my_record, my_participants to public;

-- Views that are written to (89) stand before these as the caller's own, with SELECT as all that
-- the caller has behind them.  LOCK TABLE and FOR UPDATE reach through a view to its tables: with
-- the owner's rights, DELETE on a view would do to stop the whole service by an open transaction.
create view greffier_me.conversations with (security_barrier, security_invoker) as
select * from my_conversations;

-- The active path, as a page shows it.
create view greffier_me.messages with (security_barrier, security_invoker) as
select conversation_id, seq, id, parent_seq, role, author_id, author_name, written_by, content,
    parts, tool_calls, tool_call_id, name, reasoning, status, run_id, created_at, said_at,
    edited_at, deleted_at, rev, metadata
from my_record
where active;

create view greffier_me.participants with (security_barrier, security_invoker) as
select * from my_participants;

create view greffier_me.record with (security_barrier, security_invoker) as
select * from my_record;

-- The active path as stretches of seqs, normally one.
create view greffier_me.path with (security_barrier) as
select c.conversation_id, lower(x) as first_seq, upper(x) - 1 as last_seq
from mine c
cross join lateral unnest(c.path * int8multirange(int8range(c.first_seq, c.last_seq + 1))) x;

-- Earlier texts of edited messages; none of a deleted one.
create view greffier_me.versions with (security_barrier) as
select c.conversation_id, v.seq, v.rev, v.content, v.parts, v.written_at, v.replaced_at,
    v.replaced_by
from mine c
join message_versions v on v.conversation_id = c.id
join messages m on m.conversation_id = v.conversation_id and m.seq = v.seq
where m.deleted_at is null;

create view greffier_me.branches with (security_barrier) as
select c.conversation_id, b.id, b.path, b.left_at_rev, b.last_seq
from mine c
join branches b on b.conversation_id = c.id;

-- Those that still let somebody in: all for the owner, else one's own.  Nobody sees a token again.
create view greffier_me.invitations with (security_barrier) as
select c.conversation_id, i.id, i.role, i.expires_at, i.max_uses, i.uses, i.created_by
from mine c
join invitations i on i.conversation_id = c.id and i.revoked_at is null
    and (i.expires_at is null or i.expires_at > clock_timestamp())
    and (i.max_uses is null or i.uses < i.max_uses)
    and (c.my_role = 'owner' or i.created_by = c.me);

-- What hangs on the user alone is read from the tables with the caller's own rights, under their
-- policies.  Listings name the conversations by which feedback and marks are found; without them it
-- would be a walk through everybody's.
create view greffier_me.me with (security_barrier, security_invoker) as
select r.user_id, u.name, u.email, r.role_name
from database_roles r left join users u on u.id = r.user_id
where r.role_name = current_user;

create view greffier_me.feedback with (security_barrier, security_invoker) as
select f.conversation_id, f.seq, f.rating, f.comment, f.at
from database_roles r
join listings l on l.user_id = r.user_id and l.removed_at is null
join feedback f on f.conversation_id = l.conversation_id and f.user_id = l.user_id
where r.role_name = current_user;

create view greffier_me.read_marks with (security_barrier, security_invoker) as
select k.conversation_id, k.upto_seq, k.at
from database_roles r
join listings l on l.user_id = r.user_id and l.removed_at is null
join read_marks k on k.conversation_id = l.conversation_id and k.user_id = l.user_id
where r.role_name = current_user;

grant select on all tables in schema greffier_me to public;

-- The newest messages before a seq (or at the end), oldest first, at the cost of what is returned:
-- ORDER BY seq DESC LIMIT on the view would sort the whole conversation.
create function greffier_me.page(
    conversation_id uuid, before bigint default null, how_many integer default 15
) returns setof greffier_me.messages
language plpgsql stable rows 15
set search_path = greffier_me, pg_temp as $$
declare
    x record;
begin
    for x in
        select greatest(w.lo, w.hi - (page.how_many - w.newer) + 1) as lo, w.hi
        from (
            select s.lo, s.hi,
                sum(s.hi - s.lo + 1) over (order by s.lo desc)::bigint - (s.hi - s.lo + 1) as newer
            from (
                select p.first_seq as lo, least(p.last_seq, page.before - 1) as hi
                from path p
                where p.conversation_id = page.conversation_id
                  and (page.before is null or p.first_seq < page.before)
            ) s
        ) w
        where w.newer < page.how_many
        order by w.lo
    loop
        return query
            select m.* from messages m
            where m.conversation_id = page.conversation_id and m.seq between x.lo and x.hi
            order by m.seq;
    end loop;
end $$;
