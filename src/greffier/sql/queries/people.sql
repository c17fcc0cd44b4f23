-- Reads of people.  No row says that the conversation is not the reader's; a row of nulls that it is
-- and has none of what was asked for.

-- name: changes
-- $1 conversation, $2 reader, $3 since, $4 epoch, $5 cut, $6 bytes; see schema/61_catching_up.sql
select reset, upto, more, messages, superseded, conversation, participants
from changes_since($1, $2, $3, $4, $5, $6);

-- name: role_in
select role from participants where conversation_id = $1 and user_id = $2 and left_at is null;

-- name: participants
select participants_json(c.id) as body
from conversations c
where c.id = $1
  and ($2::text is null or exists (
      select from participants p
      where p.conversation_id = c.id and p.user_id = $2 and p.left_at is null));

-- name: invitations
-- Those that still let somebody in: all for the owner and the service, else one's own.
select i.id, i.role, i.expires_at, i.max_uses, i.uses, i.created_by
from conversations c
left join invitations i on i.conversation_id = c.id and i.revoked_at is null
    and (i.expires_at is null or i.expires_at > clock_timestamp())
    and (i.max_uses is null or i.uses < i.max_uses)
    and ($2::text is null or c.owner_id = $2 or i.created_by = $2)
where c.id = $1
  and ($2::text is null or exists (
      select from participants p
      where p.conversation_id = c.id and p.user_id = $2 and p.left_at is null))
order by i.created_at desc, i.id;

-- name: my_feedback
-- $3 seq, 0 for the conversation: of somebody who is in it, on what is not deleted.
select f.rating, f.comment, f.at
from feedback f
join participants p on p.conversation_id = f.conversation_id and p.user_id = f.user_id
    and p.left_at is null
where f.conversation_id = $1 and f.user_id = $2 and f.seq = $3
  and ($3 = 0 or exists (
      select from messages m
      where m.conversation_id = $1 and m.seq = $3 and m.deleted_at is null));

-- name: readers
-- $3 seq: participants whose mark is at or above it, without its author, each with the time of the
-- first mark that reached it.
select p.user_id, (
    select k.at from read_marks k
    where k.conversation_id = m.conversation_id and k.user_id = p.user_id and k.upto_seq >= $3
    order by k.upto_seq limit 1) as at
from messages m
left join participants p on p.conversation_id = m.conversation_id and p.left_at is null
    and p.last_read_seq >= $3 and p.user_id is distinct from m.author_id
where m.conversation_id = $1 and m.seq = $3
  and ($2::text is null or exists (
      select from participants r
      where r.conversation_id = $1 and r.user_id = $2 and r.left_at is null))
order by at, p.user_id;

-- name: readers_of
-- $1 conversation, $2 seqs: the same for the messages of a page, access being decided there.
select m.seq, '[' || string_agg(
    '{"user_id":' || to_json(r.user_id) || ',"at":"' || rfc3339(r.at) || '"}', ',' order by r.at, r.user_id)
    || ']' as body
from messages m
cross join lateral (
    select p.user_id, (
        select k.at from read_marks k
        where k.conversation_id = $1 and k.user_id = p.user_id and k.upto_seq >= m.seq
        order by k.upto_seq limit 1) as at
    from participants p
    where p.conversation_id = $1 and p.left_at is null and p.last_read_seq >= m.seq
      and p.user_id is distinct from m.author_id
) r
where m.conversation_id = $1 and m.seq = any ($2)
group by m.seq;

-- name: versions
-- $3 seq: the earlier texts of a message that is not deleted, oldest first.
select v.content, v.parts, v.written_at, v.replaced_at, v.replaced_by, v.rev
from messages m
left join message_versions v on v.conversation_id = m.conversation_id and v.seq = m.seq
    and m.deleted_at is null
where m.conversation_id = $1 and m.seq = $3
  and ($2::text is null or exists (
      select from participants p
      where p.conversation_id = $1 and p.user_id = $2 and p.left_at is null))
order by v.rev;

-- name: branches
-- The last left first, each with how its last undeleted message begins (of the newest 200).
select b.id, stretches_json(b.path) as path, b.left_at_rev, b.last_seq, (
    select left(m.content, 200)
    from path_window(b.path, c.first_seq, b.last_seq, b.last_seq, 200, 0) w
    cross join lateral (
        select m.content, m.seq from messages m
        where m.conversation_id = c.id and m.seq between w.lo and w.hi and m.deleted_at is null
        order by m.seq desc limit 1
    ) m
    order by m.seq desc limit 1) as preview
from conversations c
left join branches b on b.conversation_id = c.id
where c.id = $1
  and ($2::text is null or exists (
      select from participants p
      where p.conversation_id = c.id and p.user_id = $2 and p.left_at is null))
order by b.left_at_rev desc, b.id;
