-- The audit: each query looks at the whole database and gives a row for each fault, as
-- ("check", conversation_id, seq, detail); read/audit.py says what each check proves, counts the
-- rows and keeps the first of each.  Set-based throughout, one pass over messages at a time.

-- name: audit_messages
-- Every message against the one before it, and against its conversation's numbers.
select x."check", m.conversation_id, m.seq, x.detail
from (
    select m.conversation_id, m.seq, m.parent_seq, m.rev, m.changed_rev, m.created_at,
        m.said_no, m.tool_no,
        is_said(m.role, m.content, m.parts)::integer as said,
        is_tool_traffic(m.role, m.content, m.parts, m.tool_calls)::integer as tool,
        lag(m.seq) over w as before_seq, lag(m.rev) over w as before_rev,
        lag(m.created_at) over w as before_at, lag(m.said_no) over w as before_said,
        lag(m.tool_no) over w as before_tool,
        c.id, c.first_seq, c.last_seq
    from messages m
    left join conversations c on c.id = m.conversation_id
    window w as (partition by m.conversation_id order by m.seq)
) m
cross join lateral (values
    ('orphan', m.id is null and not exists (
            select from erased e where e.conversation_id = m.conversation_id),
        'a message without a conversation'),
    ('seq-gap', m.seq > m.before_seq + 1, 'nothing between ' || m.before_seq || ' and ' || m.seq),
    ('seq-double', m.seq = m.before_seq, 'two messages have this seq'),
    ('seq-outside', m.seq not between m.first_seq and m.last_seq,
        'the conversation says ' || m.first_seq || ' to ' || m.last_seq),
    ('rev-order', m.rev < m.before_rev,
        'rev ' || m.rev || ' after rev ' || m.before_rev || ' of the message before it'),
    ('rev-order', m.changed_rev <= m.rev,
        'changed at rev ' || m.changed_rev || ', not after its own rev ' || m.rev),
    ('created-order', m.created_at < m.before_at, 'created before the message before it'),
    ('parent', m.parent_seq not between 1 and m.seq - 1, 'its parent is ' || m.parent_seq),
    -- What was edited or erased meanwhile may have counted for another than it is now.
    ('said-no',
        case when m.before_seq is null and m.seq = 1 then m.said_no
             when m.seq = m.before_seq + 1 then m.said_no - m.before_said
        end not between case when m.changed_rev is null then m.said else 0 end
                and case when m.changed_rev is null then m.said else 1 end,
        'said_no ' || m.said_no || ' after ' || coalesce(m.before_said, 0)),
    ('tool-no',
        case when m.before_seq is null and m.seq = 1 then m.tool_no
             when m.seq = m.before_seq + 1 then m.tool_no - m.before_tool
        end not between case when m.changed_rev is null then m.tool else 0 end
                and case when m.changed_rev is null then m.tool else 1 end,
        'tool_no ' || m.tool_no || ' after ' || coalesce(m.before_tool, 0))
) x ("check", wrong, detail)
where x.wrong;

-- name: audit_conversations
-- Every conversation's numbers against the messages it has.
select x."check", c.id as conversation_id, x.seq, x.detail
from conversations c
left join (
    select m.conversation_id, min(m.seq) as lo, max(m.seq) as hi,
        count(*) filter (where m.deleted_at is null and m.seq <@ c.path) as active,
        max(greatest(m.rev, m.changed_rev)) as rev
    from messages m
    join conversations c on c.id = m.conversation_id
    group by m.conversation_id
) m on m.conversation_id = c.id
left join messages l on l.conversation_id = c.id and l.seq = c.last_seq
left join (
    select p.conversation_id, max(p.rev) as rev,
        count(*) filter (where p.role = 'owner' and p.left_at is null) as owners,
        min(p.user_id) filter (where p.role = 'owner' and p.left_at is null) as owner
    from participants p group by p.conversation_id
) p on p.conversation_id = c.id
left join (
    select b.conversation_id, max(b.left_at_rev) as rev,
        bool_and(not isempty(b.path) and b.path <@ int8multirange(int8range(1, c.last_seq + 1)))
            as within
    from branches b
    join conversations c on c.id = b.conversation_id
    group by b.conversation_id
) b on b.conversation_id = c.id
left join subject_slots s on s.owner_id = c.owner_id and s.subject = c.subject
cross join lateral (values
    ('seq-bounds', null::bigint, c.first_seq < 1 or c.last_seq < c.first_seq - 1,
        'it says ' || c.first_seq || ' to ' || c.last_seq),
    ('seq-gap', c.first_seq, c.last_seq >= c.first_seq and coalesce(m.lo > c.first_seq, true),
        'it begins at ' || c.first_seq || ', the messages at ' || coalesce(m.lo::text, 'none')),
    ('seq-gap', c.last_seq, m.hi < c.last_seq,
        'it ends at ' || c.last_seq || ', the messages at ' || m.hi),
    ('message-count', null, c.message_count <> coalesce(m.active, 0),
        'it says ' || c.message_count || ', there are ' || coalesce(m.active, 0)),
    ('said-total', null, c.said_total <> case when c.last_seq = 0 then 0 else l.said_no end,
        'it says ' || c.said_total || ', the last message ' || coalesce(l.said_no, 0)),
    ('tool-total', null, c.tool_total <> case when c.last_seq = 0 then 0 else l.tool_no end,
        'it says ' || c.tool_total || ', the last message ' || coalesce(l.tool_no, 0)),
    ('rev-behind', null, c.rev < greatest(m.rev, p.rev, b.rev, c.path_rev, c.people_rev),
        'it is at rev ' || c.rev || ', something in it at '
            || greatest(m.rev, p.rev, b.rev, c.path_rev, c.people_rev)),
    ('path', null, isempty(c.path) or lower_inf(c.path) or lower(c.path) < 1 or not upper_inf(c.path),
        'the active path is ' || c.path),
    ('path', null, not b.within, 'a branch leads out of the record'),
    ('owner', null, coalesce(p.owners, 0) <> 1 or p.owner <> c.owner_id,
        'it belongs to ' || to_json(c.owner_id) || ', and has ' || coalesce(p.owners, 0)
            || ' owner(s) among its participants'),
    ('slot', null, c.subject is not null and c.archived_at is null
            and s.conversation_id is distinct from c.id,
        'its subject is not taken by it')
) x ("check", seq, wrong, detail)
where x.wrong;

-- name: audit_ids
-- A message id names one message of its conversation.
select 'id-double' as "check", m.conversation_id, min(m.seq) as seq,
    count(*) || ' messages have the id ' || m.id as detail
from messages m
group by m.conversation_id, m.id
having count(*) > 1;

-- name: audit_people
-- What hangs on a conversation, and what lies by user, against the conversations they speak of.
select 'orphan' as "check", x.conversation_id, x.seq, x.what || ' without a conversation' as detail
from (
    select 'a participant' as what, conversation_id, null::bigint as seq from participants
    union all select 'an earlier text', conversation_id, seq from message_versions
    union all select 'a branch', conversation_id, null from branches
    union all select 'a change of path', conversation_id, null from path_changes
    union all select 'a rating', conversation_id, seq from feedback
    union all select 'a read mark', conversation_id, upto_seq from read_marks
    union all select 'an invitation', conversation_id, null from invitations
    union all select 'the token of an invitation', conversation_id, null from invitation_tokens
    union all select 'a run', conversation_id, null from runs
    union all select 'the id of a run', conversation_id, null from run_ids
    union all select 'an event of a run', conversation_id, null from run_events
    union all select 'a step of a run', conversation_id, null from run_steps
    union all select 'a lane', conversation_id, null from lanes
    union all select 'an attempt', conversation_id, seq from attempts
    union all select 'an endpoint', conversation_id, null from conversation_endpoints
    union all select 'a receipt', conversation_id, seq from receipts
    union all select 'a contact', conversation_id, null from source_contacts
) x
where not exists (select from conversations c where c.id = x.conversation_id)
  and not exists (select from erased e where e.conversation_id = x.conversation_id)
union all
select 'orphan', v.conversation_id, v.seq, 'an earlier text of no message'
from message_versions v
where exists (select from conversations c where c.id = v.conversation_id)
  and not exists (
      select from messages m where m.conversation_id = v.conversation_id and m.seq = v.seq)
union all
select 'read-mark', c.id, p.last_read_seq,
    to_json(p.user_id) || ' has read further than ' || c.last_seq
from participants p
join conversations c on c.id = p.conversation_id
where p.last_read_seq > c.last_seq
union all
select 'orphan', l.conversation_id, null,
    'a listing without a conversation, of ' || to_json(l.user_id)
from listings l
where l.removed_at is null
  and not exists (select from conversations c where c.id = l.conversation_id)
  and not exists (select from erased e where e.conversation_id = l.conversation_id)
union all
select 'listing', c.id, null, 'not in the list of ' || to_json(p.user_id) || ', who takes part'
from participants p
join conversations c on c.id = p.conversation_id
left join listings l on l.user_id = p.user_id and l.conversation_id = p.conversation_id
where p.left_at is null and (l.user_id is null or l.removed_at is not null)
union all
select 'listing', c.id, null, 'in the list of ' || to_json(l.user_id) || ', who takes no part'
from listings l
join conversations c on c.id = l.conversation_id
left join participants p on p.conversation_id = l.conversation_id and p.user_id = l.user_id
where l.removed_at is null and (p.user_id is null or p.left_at is not null)
union all
select 'listing', c.id, null, 'the list of ' || to_json(l.user_id) || ' says otherwise: ' || x.what
from listings l
join conversations c on c.id = l.conversation_id
left join users u on u.id = l.user_id
cross join lateral (values
    ('archived', l.archived <> (c.archived_at is not null)),
    ('kind', l.kind <> c.kind),
    -- Who joined later has it without the subject, which is its owner's.
    ('subject', l.subject <> c.subject or (l.subject is not null and c.subject is null)),
    ('listed later than its last activity', l.listed_at > c.updated_at),
    ('a list_rev that the user has not reached', l.list_rev > coalesce(u.list_rev, 0))
) x (what, wrong)
where l.removed_at is null and x.wrong
union all
select 'slot', s.conversation_id, null,
    to_json(s.owner_id) || ' has the subject ' || to_json(s.subject) || ' taken by '
        || case when c.id is null then 'no conversation'
                when c.archived_at is not null then 'an archived conversation'
                else 'another conversation' end
from subject_slots s
left join conversations c on c.id = s.conversation_id
where (c.id is null and not exists (
        select from erased e where e.conversation_id = s.conversation_id))
   or c.archived_at is not null or c.owner_id <> s.owner_id or c.subject is distinct from s.subject;

-- name: audit_erased
-- Nothing of an erased conversation is left.
select 'erased' as "check", e.conversation_id, null::bigint as seq, x.what || ' is still there' as detail
from erased e
cross join lateral (values
    ('its row', exists (select from conversations c where c.id = e.conversation_id)),
    ('a message', exists (select from messages m where m.conversation_id = e.conversation_id)),
    ('a participant', exists (
        select from participants p where p.conversation_id = e.conversation_id)),
    ('a listing', exists (
        select from listings l
        where l.conversation_id = e.conversation_id and l.removed_at is null)),
    ('a subject', exists (
        select from subject_slots s where s.conversation_id = e.conversation_id)),
    ('an earlier text', exists (
        select from message_versions v where v.conversation_id = e.conversation_id)),
    ('a branch', exists (select from branches b where b.conversation_id = e.conversation_id)),
    ('a change of path', exists (
        select from path_changes h where h.conversation_id = e.conversation_id)),
    ('a rating', exists (select from feedback f where f.conversation_id = e.conversation_id)),
    ('a read mark', exists (select from read_marks r where r.conversation_id = e.conversation_id)),
    ('an invitation', exists (
        select from invitations i where i.conversation_id = e.conversation_id)),
    ('the token of an invitation', exists (
        select from invitation_tokens t where t.conversation_id = e.conversation_id)),
    ('a run', exists (select from runs r where r.conversation_id = e.conversation_id)),
    ('the id of a run', exists (select from run_ids i where i.conversation_id = e.conversation_id)),
    ('an event of a run', exists (
        select from run_events v where v.conversation_id = e.conversation_id)),
    ('a step of a run', exists (
        select from run_steps s where s.conversation_id = e.conversation_id)),
    ('a lane', exists (select from lanes l where l.conversation_id = e.conversation_id)),
    ('an attempt', exists (select from attempts a where a.conversation_id = e.conversation_id)),
    ('an endpoint', exists (
        select from conversation_endpoints o where o.conversation_id = e.conversation_id)),
    ('a receipt', exists (select from receipts t where t.conversation_id = e.conversation_id)),
    ('a contact', exists (
        select from source_contacts s where s.conversation_id = e.conversation_id))
) x (what, found)
where x.found;

-- name: audit_lanes
-- Every lane is idle, due, held, parked with its reason or paused; and its journal agrees.
select 'lane' as "check", l.conversation_id, x.seq, x.detail
from lanes l
left join conversations c on c.id = l.conversation_id
cross join lateral (values
    (null::bigint, l.id not in (lane_id(l.conversation_id, l.kind, l.endpoint_id),
            coalesce(aside_id(l.conversation_id, l.endpoint_id, l.tail_seq), l.conversation_id))
        or (l.kind = 'out') <> (l.endpoint_id is not null), 'a lane is not named after what it is for'),
    (l.head_seq, l.head_seq < 1 or l.head_seq > l.tail_seq + 1,
        'its head is ' || l.head_seq || ', its tail ' || l.tail_seq),
    (l.tail_seq, l.kind = 'out' and l.tail_seq > c.last_seq,
        'its tail is ' || l.tail_seq || ', the last message ' || c.last_seq),
    (l.head_seq, l.token is not null and l.due_at is null, 'somebody holds it for ever'),
    (l.head_seq, l.due_at is null and l.parked_at is null and l.paused_at is null
            and l.head_seq <= l.tail_seq,
        'there is work in it, and nobody will look'),
    (l.head_seq, l.parked_at is not null and (l.due_at is not null or l.token is not null),
        'it is parked, and not left alone'),
    (l.head_seq, (l.parked_at is null) <> (l.park_reason is null), 'it is parked without a reason'),
    -- A run that was under way has to be ended, paused or not.
    (l.head_seq, l.paused_at is not null and l.due_at is not null and l.token is null
            and l.kind <> 'run',
        'it is paused, and due')
) x (seq, wrong, detail)
where x.wrong
union all
select 'intent', a.conversation_id, a.seq, x.detail
from (
    select a.*, count(*) filter (where a.outcome = 'accepted')
        over (partition by a.conversation_id, a.lane_id, a.seq) as accepted
    from attempts a
) a
-- The lane of an endpoint that was deleted is gone; what was sent stays on record.
left join lanes l on l.conversation_id = a.conversation_id and l.id = a.lane_id
cross join lateral (values
    (a.outcome = 'accepted' and a.accepted > 1, 'it was accepted ' || a.accepted || ' times'),
    (a.outcome in ('accepted', 'skipped') and a.seq >= l.head_seq,
        'it is done, and the head is ' || l.head_seq),
    (a.fence > l.fence, 'its fence is ' || a.fence || ', the lane''s ' || l.fence),
    ((a.outcome is null) <> (a.settled_at is null), 'what came of it is known by half')
) x (wrong, detail)
where x.wrong
  -- Said above all: everything of it is an orphan.
  and exists (select from conversations c where c.id = a.conversation_id);

-- name: audit_runs
-- Every run against its conversation, its lane, the messages it became and what it took.
select 'run' as "check", r.conversation_id, x.seq, x.detail || ': run ' || r.id as detail
from (
    select r.*, r.status not in ('queued', 'running') as over,
        cardinality(array_positions(r.tape, event_mark('message', null))) as marks
    from runs r
) r
join conversations c on c.id = r.conversation_id
left join lanes l on l.conversation_id = r.conversation_id
    and l.id = lane_id(r.conversation_id, 'run', null)
left join (
    select m.conversation_id, m.run_id, count(*) as many, min(m.seq) as lo
    from messages m
    where m.run_id is not null
    group by m.conversation_id, m.run_id
) m on m.conversation_id = r.conversation_id and m.run_id = r.id
left join messages answer on answer.conversation_id = r.conversation_id
    and answer.seq = r.message_seq
left join (
    select e.conversation_id, e.run_id, count(*) as many, max(e.id) as last
    from run_events e
    group by e.conversation_id, e.run_id
) e on e.conversation_id = r.conversation_id and e.run_id = r.id
left join (
    select u.run_id, count(*) as many, sum(u.calls) as calls, sum(u.input_tokens) as input_tokens,
        sum(u.output_tokens) as output_tokens, sum(u.cached_tokens) as cached_tokens,
        sum(u.cost) as cost
    from usage u
    group by u.run_id
) u on u.run_id = r.id
left join run_ids i on i.run_id = r.id
cross join lateral (values
    (null::bigint, i.conversation_id is distinct from r.conversation_id,
        'it is not found by its id'),
    (null, r.over <> (r.ended_at is not null) or r.over <> (r.tape is not null)
            or (r.status = 'queued' and r.started_at is not null)
            or (r.status in ('running', 'completed') and r.started_at is null),
        'it is ' || r.status || ', and its times say otherwise'),
    (null, r.status <> 'running' and e.many > 0, 'it does not speak, and has events'),
    (null, r.status = 'running' and (
            coalesce(e.many, 0) <> r.last_event or e.last is distinct from r.last_event),
        'its last event is ' || r.last_event || ', and it has ' || coalesce(e.many, 0)),
    (null, r.over and cardinality(r.tape) <> r.last_event,
        'its last event is ' || r.last_event || ', its tape has ' || cardinality(r.tape)),
    (r.first_seq, coalesce(r.marks, 0) <> coalesce(m.many, 0) and r.first_seq >= c.first_seq
            or (r.first_seq is null and m.many > 0),
        'it became ' || coalesce(r.marks, 0) || ' message(s), there are ' || coalesce(m.many, 0)),
    (r.first_seq, r.first_seq >= c.first_seq and m.lo is distinct from r.first_seq,
        'its messages begin at ' || coalesce(m.lo::text, 'none')),
    (r.message_seq, (r.first_seq is null) <> (r.message_seq is null)
            or (r.message_seq >= c.first_seq and (
                answer.run_id is distinct from r.id or answer.role <> 'assistant')),
        'its answer is not its own'),
    (r.message_seq, answer.run_id = r.id and answer.status <> case
            when r.status = 'completed' then 'complete' else r.status end,
        'it is ' || r.status || ', its answer ' || answer.status),
    (null, not r.over and (l.id is null or r.number not between l.head_seq and l.tail_seq),
        'its lane does not come to it'),
    (null, r.over and r.started_at is not null and coalesce(u.many, 0) <> 1
            or not (r.over and r.started_at is not null) and u.many > 0,
        'it stands ' || coalesce(u.many, 0) || ' times in the ledger'),
    (null, u.many = 1 and (u.calls, u.input_tokens, u.output_tokens, u.cached_tokens, u.cost)
            is distinct from (r.calls, r.input_tokens, r.output_tokens, r.cached_tokens, r.cost),
        'the ledger says otherwise')
) x (seq, wrong, detail)
where x.wrong
union all
select 'run', c.id, null, 'run ' || coalesce(c.active_run_id::text, 'none')
    || ' answers, and should be ' || coalesce(r.id::text, 'none')
from conversations c
left join (
    select distinct on (r.conversation_id) r.conversation_id, r.id
    from runs r
    where r.status in ('queued', 'running')
    order by r.conversation_id, r.number
) r on r.conversation_id = c.id
where c.active_run_id is distinct from r.id
union all
select 'run', x.conversation_id, x.seq, x.what || ' is of no run: ' || x.run_id
from (
    select 'the id' as what, i.conversation_id, null::bigint as seq, i.run_id from run_ids i
    union all select 'an event', e.conversation_id, null, e.run_id from run_events e
    union all select 'a step', s.conversation_id, null, s.run_id from run_steps s
    union all select 'a line of the ledger', u.conversation_id, null, u.run_id from usage u
    union all select 'a message', m.conversation_id, m.seq, m.run_id
        from messages m where m.run_id is not null
) x
join conversations c on c.id = x.conversation_id
where not exists (
    select from runs r where r.conversation_id = x.conversation_id and r.id = x.run_id);

-- name: audit_size
-- How much was looked at.
select (select count(*) from conversations) as conversations, (select count(*) from messages) as messages;
