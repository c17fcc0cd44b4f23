-- Runs: their state, and what they have said.

-- name: run
-- One run, for somebody who takes part in its conversation (null: the service).
select run_json(r) as body, r.conversation_id, r.status
from run_ids i
join runs r on r.conversation_id = i.conversation_id and r.id = i.run_id
where i.run_id = $1
  and ($2::text is null or exists (
      select from participants p
      where p.conversation_id = r.conversation_id and p.user_id = $2 and p.left_at is null));

-- name: run_said
-- What a run has said after an event, as it is stored: the events while it runs ([id, event, body]);
-- once it is over, its tape and the messages it became, as they were first said.  One snapshot: a
-- run that ends meanwhile is seen before or after, never between.
select r.conversation_id, r.status, r.last_event, r.tape, run_json(r) as body,
    r.error_code, r.error_detail,
    case when r.tape is null then (
        -- json_agg takes a quarter more
        select '[' || string_agg(
            '[' || e.id || ',"' || e.event || '",' || to_json(e.body) || ']', ',' order by e.id) || ']'
        from run_events e
        where e.conversation_id = r.conversation_id and e.run_id = r.id and e.id > $3
    ) end as events,
    case when r.tape is not null and $3 < r.last_event then (
        select '[' || string_agg(
            '{"role":"' || m.role || '","content":' || coalesce(to_json(case
                when m.deleted_at is null then coalesce(
                    (select v.content from message_versions v
                     where v.conversation_id = m.conversation_id and v.seq = m.seq
                     order by v.rev limit 1), m.content) end)::text, 'null')
            || ',"reasoning":' || coalesce(to_json(
                case when m.deleted_at is null then m.reasoning end)::text, 'null')
            -- Whole, where the message below may leave them out.
            || ',"tool_calls":' || coalesce(
                case when m.deleted_at is null then m.tool_calls end::text, 'null')
            || ',"tool_call_id":' || coalesce(to_json(m.tool_call_id)::text, 'null')
            || ',"message":' || message_json(m, $4) || '}', ',' order by m.seq) || ']'
        from messages m
        where m.conversation_id = r.conversation_id and m.run_id = r.id
          and m.seq >= r.first_seq and m.seq < r.first_seq + 2 * cardinality(r.tape)
    ) end as messages
from run_ids i
join runs r on r.conversation_id = i.conversation_id and r.id = i.run_id
where i.run_id = $1
  and ($2::text is null or exists (
      select from participants p
      where p.conversation_id = r.conversation_id and p.user_id = $2 and p.left_at is null));
