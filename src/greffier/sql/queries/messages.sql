-- Reads of messages.  Seqs are dense and the path says which are active, so path_window names the
-- stretches a page needs and the primary key gives them: the cost is that of the page, whatever
-- came before it.
--
-- Whether a reader is let in is asked by key and not with exists: for that a plan made while there
-- are few participants would read all of them, and be kept (35 us of a page with 500 people).

-- name: page
-- $1 conversation, $2 reader, $3 anchor (null: the end), $4 how many up to the anchor, $5 how many
-- after it, $6 whole record (also superseded), $7 cut texts above, $8 bytes at most.
-- Nearest to the anchor first: what does not fit into the bytes is left for the next page.
select c.rev, c.path_rev, c.message_count as total, k.data, k.lo, k.hi,
    lower(c.path * int8multirange(int8range(c.first_seq, c.last_seq + 1))) as path_lo,
    upper(c.path * int8multirange(int8range(c.first_seq, c.last_seq + 1))) - 1 as path_hi,
    (
        select string_agg(
            to_json(a) || ':{"name":'
                || coalesce(to_json((select u.name from users u where u.id = a))::text, 'null')
                -- the owner's is known: their row need not be looked at
                || ',"role":' || case when a = c.owner_id then '"owner"' else coalesce('"' || (
                    select p.role from participants p
                    where p.conversation_id = $1 and p.user_id = a and p.left_at is null) || '"',
                    'null') end || '}', ',')
        from unnest(k.authors) a
    ) as authors
from (
    select c.rev, c.path_rev, c.message_count, c.first_seq, c.last_seq, c.owner_id,
        case when $6 then '{[1,)}'::int8multirange else c.path end as path
    from conversations c
    where c.id = $1
      and ($2::text is null or (
          select p.left_at is null from participants p
          where p.conversation_id = c.id and p.user_id = $2))
    -- By key, also where the page is one of several that are asked for together.
    limit 1
) c
cross join lateral (
    select string_agg(s.body, ',' order by s.seq) as data, min(s.seq) as lo, max(s.seq) as hi,
        array_agg(distinct s.author_id) filter (where s.author_id is not null) as authors
    from (
        select f.*, sum(octet_length(f.body) + 1) over near as bytes, row_number() over near as place
        from (
            select m.seq, m.author_id, message_json(m, $7) as body,
                abs(m.seq - coalesce($3, c.last_seq)) as far
            from path_window(c.path, c.first_seq, c.last_seq, coalesce($3, c.last_seq), $4, $5) w
            -- A stretch is never longer than that; the limit is for the planner, who takes a range
            -- between unknown bounds for a ninth of the conversation and would read all of it.
            cross join lateral (
                select * from messages m
                where m.conversation_id = $1 and m.seq between w.lo and w.hi
                order by m.seq limit $4 + $5
            ) m
            -- A fence, or the window would write each message's JSON twice: a quarter of the page.
            offset 0
        ) f
        window near as (order by f.far, f.seq)
    ) s
    where s.bytes <= $8 or s.place = 1
) k;

-- name: get_message
-- $1 conversation, $2 reader, $3 seq: one message, whole, on the active path or not.
select message_json(m, null) as body, coalesce(m.changed_rev, m.rev) as rev
from messages m
where m.conversation_id = $1 and m.seq = $3
  and ($2::text is null or (
      select p.left_at is null from participants p
      where p.conversation_id = $1 and p.user_id = $2));

-- name: messages_by_seq
-- $1 conversation, $2 seqs, whole: for answers to a write, where access was already decided.
select m.seq, message_json(m, null) as body, coalesce(m.changed_rev, m.rev) as rev
from messages m where m.conversation_id = $1 and m.seq = any ($2);

-- name: stretch_counts
-- $1 conversation, $2 reader: said and tool-traffic messages on the active path that are not
-- deleted.  Each message keeps its running number, so a stretch costs two look-ups; the deleted are
-- subtracted one by one through their own index, by their numbers too, for an erased one shows no
-- more what it was.  speaks_first: the first message on the path is somebody's words, so that no
-- instructions come before them.
select
    c.history_limit, c.rev, c.path_rev, c.last_seq,
    coalesce((
        select m.role in ('user', 'assistant') and m.content <> '' and m.deleted_at is null
        from messages m
        where m.conversation_id = $1
          and m.seq = lower(c.path * int8multirange(int8range(c.first_seq, c.last_seq + 1)))
        limit 1), false) as speaks_first,
    coalesce(sum(r.said), 0)::bigint - coalesce(min(d.said), 0)::bigint as said,
    coalesce(sum(r.tool), 0)::bigint - coalesce(min(d.tool), 0)::bigint as tool
from conversations c
left join lateral (
    select hi.said_no - coalesce(lo.said_no, 0) as said, hi.tool_no - coalesce(lo.tool_no, 0) as tool
    from unnest(c.path * int8multirange(int8range(c.first_seq, c.last_seq + 1))) x
    -- limit 1 keeps these two index probes: a generic plan would hash the whole conversation
    cross join lateral (
        select m.said_no, m.tool_no from messages m
        where m.conversation_id = $1 and m.seq = upper(x) - 1 limit 1) hi
    left join lateral (
        select m.said_no, m.tool_no from messages m
        where m.conversation_id = $1 and m.seq = lower(x) - 1 limit 1) lo on true
) r on true
cross join lateral (
    select sum(d.said_no - coalesce(before.said_no, 0)) as said,
        sum(d.tool_no - coalesce(before.tool_no, 0)) as tool
    from messages d
    left join lateral (
        select m.said_no, m.tool_no from messages m
        where m.conversation_id = $1 and m.seq = d.seq - 1 limit 1) before on true
    where d.conversation_id = $1 and d.deleted_at is not null and d.seq <@ c.path
) d
where c.id = $1
  and ($2::text is null or (
      select p.left_at is null from participants p
      where p.conversation_id = c.id and p.user_id = $2))
group by c.id;

-- name: stats
-- $1 conversation, $2 reader: how many of each role, when, how many bytes of text, and how long
-- answers took (an assistant's message right after a user's, by said_at or created_at).
with conversation as (
    select c.* from conversations c
    where c.id = $1
      and ($2::text is null or (
          select p.left_at is null from participants p
          where p.conversation_id = c.id and p.user_id = $2))
), active as (
    select m.role, coalesce(m.said_at, m.created_at) as at, octet_length(m.content) as bytes,
        lag(m.role) over w as before_role, lag(coalesce(m.said_at, m.created_at)) over w as before_at,
        greatest(octet_length(m.content), 0) + coalesce(octet_length(m.tool_calls::text), 0) as size
    from conversation c
    join messages m on m.conversation_id = c.id and m.seq between c.first_seq and c.last_seq
    where m.deleted_at is null and m.seq <@ c.path
    window w as (order by m.seq)
)
select
    (select count(*) from conversation) > 0 as visible,
    (select count(*) from feedback f where f.conversation_id = $1 and f.rating = 1) as up,
    (select count(*) from feedback f where f.conversation_id = $1 and f.rating = -1) as down,
    count(*) filter (where role = 'user') as "user",
    count(*) filter (where role = 'assistant') as assistant,
    count(*) filter (where role = 'tool') as tool,
    count(*) filter (where role = 'system') as system,
    coalesce(sum(size), 0)::bigint as bytes, count(*) as messages,
    min(at) as first_at, max(at) as last_at,
    percentile_cont(0.5) within group (order by greatest(extract(epoch from at - before_at), 0))
        filter (where role = 'assistant' and before_role = 'user') as p50,
    percentile_cont(0.95) within group (order by greatest(extract(epoch from at - before_at), 0))
        filter (where role = 'assistant' and before_role = 'user') as p95
from active;

-- name: export_messages
-- $1 conversation: the active path, whole, oldest first; access was decided in the same snapshot.
select message_json(m, null) as body
from conversations c
cross join lateral unnest(c.path * int8multirange(int8range(c.first_seq, c.last_seq + 1))) x
cross join lateral (
    select * from messages m
    where m.conversation_id = $1 and m.seq >= lower(x) and m.seq < upper(x)
    order by m.seq
) m
where c.id = $1
order by lower(x), m.seq;

-- name: known_messages
-- $1 conversation, $2 reader, $3 ids: how many of them are messages of role user here, for a reader
-- who may see them.
select count(*) as known
from messages m
where m.conversation_id = $1 and m.id = any ($3::uuid[]) and m.role = 'user'
  and ($2::text is null or (
      select p.left_at is null from participants p
      where p.conversation_id = $1 and p.user_id = $2));

-- name: known_on_subject
-- $1 owner, $2 subject, $3 ids: how many of them were said on this subject, archived or not.
select count(*) as known
from listings l
cross join lateral (
    select from messages m
    where m.conversation_id = l.conversation_id and m.id = any ($3::uuid[])
) m
where l.user_id = $1 and l.subject = $2 and l.removed_at is null;
