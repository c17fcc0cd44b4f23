-- Reads of conversations.  $2 is always the reader: null is the service, who sees all.

-- name: get_conversation
-- One conversation for its reader; no row when it is not there or not theirs.
select conversation_json(c, $2, $3) as body, c.rev
from conversations c
where c.id = $1
  and ($2::text is null or exists (
      select from participants p
      where p.conversation_id = c.id and p.user_id = $2 and p.left_at is null));

-- name: why_absent
-- After a miss: gone when its id was erased, not-found otherwise (also: not yours).
select case when exists (select from erased where conversation_id = $1) then 'gone' else 'not-found' end;

-- name: list_conversations
-- $1 user, $2 epoch, $3 archived, $4 kind, $5 subject, $6/$7 cursor (updated_at, id), $8 how many.
-- A listing's listed_at is at most ten minutes behind its conversation's updated_at, so whoever is
-- among the $8 newest is not listed more than that before the $8th certain one: the index gives
-- the candidates in order, and only they are sorted exactly.
with certain as (
    select min(n.listed_at) as since, count(*) as many
    from (
        select l.listed_at from listings l
        where l.user_id = $1 and l.archived = $3 and l.removed_at is null
          and l.listed_at < $6::timestamptz - interval '10 minutes'
          and ($4::text is null or l.kind = $4) and ($5::text is null or l.subject = $5)
        order by l.listed_at desc
        limit $8
    ) n
)
select conversation_json(c, $1, $2) as body, c.updated_at, c.id
from (
    select c
    from certain, listings l
    join conversations c on c.id = l.conversation_id
    where l.user_id = $1 and l.archived = $3 and l.removed_at is null
      and l.listed_at <= $6::timestamptz
      and l.listed_at >= case when certain.many < $8 then '-infinity'
                              else certain.since - interval '10 minutes' end
      and ($4::text is null or l.kind = $4) and ($5::text is null or l.subject = $5)
      and (c.updated_at, c.id) < ($6::timestamptz, $7::uuid)
    order by c.updated_at desc, c.id desc
    limit $8
) newest (row)
cross join lateral (select (newest.row).*) c
order by c.updated_at desc, c.id desc;

-- name: list_rev
select coalesce((select list_rev from users where id = $1), 0);
