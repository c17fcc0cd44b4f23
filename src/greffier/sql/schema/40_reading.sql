-- What the API shows of a conversation, built where the rows are: the server passes the text on
-- without decoding it, which halves its work per page.  In plpgsql, because a function in SQL that
-- cannot be inlined is planned anew in every query that calls it (1 ms each).

set search_path = greffier;

-- The newest undeleted message on the active path, with its first 200 characters; looked for among
-- the newest 200, so that a long deleted tail costs no more than that.
create function last_message_json(c conversations) returns text
language plpgsql stable as $$ begin return (
select '{"seq":' || m.seq || ',"role":"' || m.role
    || '","author_id":' || coalesce(to_json(m.author_id)::text, 'null')
    || ',"preview":' || coalesce(to_json(left(m.content, 200))::text, 'null')
    || ',"created_at":"' || rfc3339(m.created_at) || '"}'
from path_window(c.path, c.first_seq, c.last_seq, c.last_seq, 200, 0) w
cross join lateral (
    select * from messages m
    where m.conversation_id = c.id and m.seq between w.lo and w.hi and m.deleted_at is null
    order by m.seq desc limit 1
) m
order by m.seq desc
limit 1
); end $$;

-- Others' undeleted messages on the active path, not system, after a mark: counted to 1000, among
-- the 4000 newest, so that it is bounded also for somebody who only writes and never reads.
create function unread_count(c conversations, p_user text, p_mark bigint) returns bigint
language plpgsql stable as $$ begin return (
select count(*) from (
    select
    from path_window(c.path, greatest(c.first_seq, p_mark + 1), c.last_seq, c.last_seq, 4000, 0) w
    -- The inner limit cuts nothing: with it the planner reads the stretch and not the conversation.
    cross join lateral (
        select m.author_id, m.role, m.deleted_at from messages m
        where m.conversation_id = c.id and m.seq between w.lo and w.hi
        order by m.seq limit 4000
    ) m
    where m.author_id is distinct from p_user and m.role <> 'system' and m.deleted_at is null
    limit 1000
) unread
); end $$;

-- A conversation as p_user sees it (null: the service, who is nobody here and has no "me").
create function conversation_json(c conversations, p_user text, p_epoch text) returns text
language plpgsql stable as $$ begin return (
select '{"id":"' || c.id || '","kind":"' || c.kind
    || '","title":' || to_json(c.title)
    || ',"subject":' || coalesce(to_json(c.subject)::text, 'null')
    || ',"agent_id":' || coalesce('"' || c.agent_id || '"', 'null')
    || ',"owner_id":' || to_json(c.owner_id)
    || ',"history_limit":' || c.history_limit
    || ',"metadata":' || c.metadata
    || ',"created_at":"' || rfc3339(c.created_at)
    || '","updated_at":"' || rfc3339(c.updated_at)
    || '","archived_at":' || coalesce('"' || rfc3339(c.archived_at) || '"', 'null')
    || ',"first_seq":' || c.first_seq
    || ',"last_seq":' || c.last_seq
    || ',"message_count":' || c.message_count
    || ',"rev":' || c.rev
    || ',"epoch":' || to_json(p_epoch)
    || ',"last_message":' || coalesce(last_message_json(c), 'null')
    || ',"active_run_id":' || coalesce('"' || c.active_run_id || '"', 'null')
    || ',"me":' || coalesce((
        select '{"role":"' || p.role || '","last_read_seq":' || p.last_read_seq
            || ',"unread":' || unread_count(c, p_user, p.last_read_seq) || '}'
        from participants p
        where p.conversation_id = c.id and p.user_id = p_user and p.left_at is null), 'null')
    || '}'
); end $$;
