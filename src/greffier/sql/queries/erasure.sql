-- Reads for erasure.

-- name: conversations_naming
-- $1 user: every conversation that names them: which they have or had in their list, and where they
-- wrote or paid without being in it (an admin, an import).  No index leads from a person to their
-- messages, for one would cost every append: this reads all of them once, as erasing a person is rare.
select conversation_id from listings where user_id = $1
union
select conversation_id from participants where user_id = $1
union
select conversation_id from messages where author_id = $1 or written_by = $1
union
select conversation_id from message_versions where replaced_by = $1
union
select conversation_id from runs where asked_by = $1
order by conversation_id;
