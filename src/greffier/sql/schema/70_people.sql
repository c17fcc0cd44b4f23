-- People in a conversation: who joins and leaves, invitations, and how far everybody has read.

set search_path = greffier;

-- Every advance of a mark: who had read up to where, and when.  When somebody read message s is the
-- earliest mark at or above s.
create table read_marks (
    conversation_id uuid not null,
    user_id text not null,
    upto_seq bigint not null,
    at timestamptz not null,
    primary key (conversation_id, user_id, upto_seq)
);

create table invitations (
    conversation_id uuid not null,
    id uuid not null,
    token_hash bytea not null,
    role text not null check (role in ('member', 'viewer')),
    created_by text not null,
    created_at timestamptz not null,
    expires_at timestamptz,
    max_uses integer check (max_uses > 0),
    uses integer not null default 0,
    revoked_at timestamptz,
    primary key (conversation_id, id)
);

-- An invitation is found by its token's hash, so that has a small table of its own.
create table invitation_tokens (
    token_hash bytea primary key,
    conversation_id uuid not null,
    invitation_id uuid not null
);

-- Promise: a system message that tells people an event is the conversation's next; it belongs to
--          the change under way and has its rev.
-- Locks:   none beyond the conversation's row, which the caller holds.
create function append_event_v1(
    p_conversation conversations, p_id uuid, p_rev bigint, p_content text, p_event text,
    p_user text, p_by text, p_at timestamptz
) returns void
language plpgsql as $$
begin
    -- No request made it; a hash that none has refuses its id to all.
    insert into messages (
        conversation_id, seq, id, request_hash, parent_seq, role, written_by, content, created_at,
        rev, said_no, tool_no, metadata
    ) values (
        p_conversation.id, p_conversation.last_seq + 1, p_id, uuid_send(p_id),
        path_end(p_conversation.path, p_conversation.first_seq, p_conversation.last_seq),
        'system', p_by, p_content, p_at, p_rev, p_conversation.said_total, p_conversation.tool_total,
        jsonb_build_object('greffier_event', p_event, 'user_id', p_user)
    );
    update conversations set last_seq = last_seq + 1, message_count = message_count + 1
    where id = p_conversation.id;
    if exists (select from endpoints) then
        perform enqueue_out_v1(
            array[p_conversation.id], array[p_conversation.last_seq + 1],
            array[p_conversation.last_seq + 1]);
    end if;
end $$;

-- Promise: none of the invitations this user made lets anybody in any more.
-- Locks:   none beyond the conversation's row, which the caller holds.
create function revoke_invitations_of_v1(
    p_conversation_id uuid, p_user text, p_at timestamptz
) returns void
language plpgsql as $$
begin
    delete from invitation_tokens t using invitations i
    where i.conversation_id = p_conversation_id and i.created_by = p_user
      and t.token_hash = i.token_hash;
    update invitations set revoked_at = p_at
    where conversation_id = p_conversation_id and created_by = p_user and revoked_at is null;
end $$;

-- Promise: the user is in the conversation with this role, and everybody is told in a system
--          message; who was there with this role already changes nothing.  Whoever may no longer
--          invite has no open invitations either.
-- Locks:   none beyond the conversation's row, which the caller holds; users by id.
create function join_v1(
    p_conversation conversations, p_user text, p_role text, p_by text, p_message_id uuid
) returns bigint
language plpgsql as $$
declare
    v_now timestamptz := greatest(clock_timestamp(), p_conversation.updated_at);
    v_rev bigint := p_conversation.rev + 1;
    v_old participants;
    v_name text;
begin
    select * into v_old from participants
    where conversation_id = p_conversation.id and user_id = p_user;
    if v_old.left_at is null and v_old.role = p_role then
        return p_conversation.rev;
    end if;
    insert into participants as p (conversation_id, user_id, role, joined_at, rev)
    values (p_conversation.id, p_user, p_role, v_now, v_rev)
    on conflict (conversation_id, user_id) do update set
        role = excluded.role, rev = excluded.rev,
        joined_at = case when p.left_at is null then p.joined_at else excluded.joined_at end,
        left_at = null;
    if v_old.user_id is null or v_old.left_at is not null then
        insert into listings as l (
            user_id, conversation_id, listed_at, kind, subject, archived, list_rev
        )
        select a.user_id, p_conversation.id, p_conversation.listed_at, p_conversation.kind, null,
            p_conversation.archived_at is not null, a.list_rev
        from advance_lists_v1(array[p_user]) a
        on conflict (user_id, conversation_id) do update set
            listed_at = excluded.listed_at, archived = excluded.archived,
            list_rev = excluded.list_rev, removed_at = null;
        select coalesce(name, p_user) into v_name from users where id = p_user;
        perform append_event_v1(
            p_conversation, p_message_id, v_rev, v_name || ' joined', 'joined', p_user, p_by, v_now);
    elsif p_role = 'viewer' then
        perform revoke_invitations_of_v1(p_conversation.id, p_user, v_now);
    end if;
    update conversations set people_rev = v_rev where id = p_conversation.id;
    perform advance_v1(p_conversation, v_now);
    return v_rev;
end $$;

-- Promise: the room is the user's, and its former owner a member; the change has the next rev.
-- Locks:   none beyond the slot and the row, which the caller holds.
create function hand_over_v1(p_conversation conversations, p_user text) returns void
language plpgsql as $$
begin
    update participants
    set role = case when user_id = p_user then 'owner' else 'member' end, rev = p_conversation.rev + 1
    where conversation_id = p_conversation.id and user_id in (p_user, p_conversation.owner_id);
    update listings set subject = null
    where user_id = p_conversation.owner_id and conversation_id = p_conversation.id;
    update conversations
    set owner_id = p_user, subject = null, people_rev = p_conversation.rev + 1
    where id = p_conversation.id;
end $$;

-- Promise: the user is a participant with this role.  The owner manages people; making somebody the
--          owner hands a room over, and the former owner stays as a member; their subject, if it has
--          one, is theirs alone and free again.
-- Locks:   subject slot (only to hand over), conversation, users by id.
create function set_participant_v1(
    p_conversation_id uuid, p_actor text, p_user text, p_role text, p_must_exist boolean,
    p_by text, p_message_id uuid
) returns bigint
language plpgsql as $$
declare
    v_slot uuid := case when p_role = 'owner' then hold_subject_v1(p_conversation_id, p_actor) end;
    v conversations := lock_conversation_v1(p_conversation_id, p_actor, 'owner');
    v_now timestamptz := greatest(clock_timestamp(), v.updated_at);
    v_present boolean := exists (
        select from participants
        where conversation_id = p_conversation_id and user_id = p_user and left_at is null);
begin
    if v_slot = v.id and (p_user <> v.owner_id or v.archived_at is not null) then
        delete from subject_slots
        where owner_id = v.owner_id and subject = v.subject and conversation_id = v.id;
    end if;
    if p_must_exist and not v_present then
        raise exception using errcode = 'GR404', message = 'no such participant';
    end if;
    if p_user = v.owner_id then
        if p_role = 'owner' then
            return v.rev;
        end if;
        raise exception using errcode = 'GR403', message = 'an owner hands the room over first';
    end if;
    if p_role <> 'owner' then
        return join_v1(v, p_user, p_role, p_by, p_message_id);
    end if;
    if v.kind <> 'room' or not v_present then
        raise exception using errcode = 'GR422', message = 'only a room is handed over, to a member';
    end if;
    perform hand_over_v1(v, p_user);
    perform advance_v1(v, v_now);
    return v.rev + 1;
end $$;

-- Promise: the user is no participant any more, from this rev on; everybody is told.  The owner
--          removes anybody else, and anybody but the owner leaves.  Invitations they made are no way
--          back.
-- Locks:   the conversation's row, users by id.
create function remove_participant_v1(
    p_conversation_id uuid, p_actor text, p_user text, p_by text, p_message_id uuid
) returns bigint
language plpgsql as $$
declare
    v conversations := lock_conversation_v1(
        p_conversation_id, p_actor, case when p_actor = p_user then 'viewer' else 'owner' end);
    v_now timestamptz := greatest(clock_timestamp(), v.updated_at);
    v_name text;
begin
    if p_user = v.owner_id then
        raise exception using errcode = 'GR403',
            message = 'an owner hands the room over first, or erases it';
    end if;
    update participants set left_at = v_now, rev = v.rev + 1
    where conversation_id = p_conversation_id and user_id = p_user and left_at is null;
    if not found then
        raise exception using errcode = 'GR404', message = 'no such participant';
    end if;
    update listings l set removed_at = v_now, list_rev = a.list_rev
    from advance_lists_v1(array[p_user]) a
    where l.user_id = a.user_id and l.conversation_id = p_conversation_id;
    select coalesce(name, p_user) into v_name from users where id = p_user;
    perform append_event_v1(
        v, p_message_id, v.rev + 1, v_name || ' left', 'left', p_user, p_by, v_now);
    perform revoke_invitations_of_v1(v.id, p_user, v_now);
    update conversations set people_rev = v.rev + 1 where id = v.id;
    perform advance_v1(v, v_now);
    return v.rev + 1;
end $$;

-- Promise: an invitation with a role at most the inviter's; only its token's hash is kept.
-- Locks:   the conversation's row.
create function invite_v1(
    p_conversation_id uuid, p_actor text, p_id uuid, p_token_hash bytea, p_role text,
    p_lifetime interval, p_max_uses integer, p_by text
) returns timestamptz
language plpgsql as $$
declare
    v conversations := lock_conversation_v1(p_conversation_id, p_actor, 'member');
    v_now timestamptz := clock_timestamp();
begin
    insert into invitations (
        conversation_id, id, token_hash, role, created_by, created_at, expires_at, max_uses
    ) values (
        v.id, p_id, p_token_hash, p_role, p_by, v_now, v_now + p_lifetime, p_max_uses
    );
    insert into invitation_tokens (token_hash, conversation_id, invitation_id)
    values (p_token_hash, v.id, p_id);
    return v_now + p_lifetime;
end $$;

-- Promise: the invitation lets nobody in any more.  Its maker and the owner may.
-- Locks:   the conversation's row.
create function revoke_invitation_v1(p_conversation_id uuid, p_actor text, p_id uuid) returns void
language plpgsql as $$
declare
    v conversations := lock_conversation_v1(p_conversation_id, p_actor, 'member');
    v_now timestamptz := clock_timestamp();
    v_maker text;
begin
    select created_by into v_maker from invitations
    where conversation_id = v.id and id = p_id and revoked_at is null;
    if not found then
        raise exception using errcode = 'GR404', message = 'no such invitation';
    end if;
    if p_actor is not null and v_maker <> p_actor and v.owner_id <> p_actor then
        raise exception using errcode = 'GR403', message = 'its maker or the owner revokes it';
    end if;
    update invitations set revoked_at = v_now where conversation_id = v.id and id = p_id;
    delete from invitation_tokens t using invitations i
    where i.conversation_id = v.id and i.id = p_id and t.token_hash = i.token_hash;
end $$;

-- Promise: whoever brings a living token is in; its uses never exceed max_uses, and one who was in
--          already uses none up.
-- How:     the token names the conversation; everything is looked at again under its row lock.
-- Locks:   the conversation's row, users by id.
create function accept_invitation_v1(p_token_hash bytea, p_user text, p_message_id uuid) returns uuid
language plpgsql as $$
declare
    v conversations;
    i invitations;
begin
    select c.* into v from invitation_tokens t join conversations c on c.id = t.conversation_id
    where t.token_hash = p_token_hash
    for no key update of c;
    if found then
        select * into i from invitations
        where conversation_id = v.id and token_hash = p_token_hash and revoked_at is null
          and (expires_at is null or expires_at > clock_timestamp());
    end if;
    if i.id is null then
        raise exception using errcode = 'GR404', message = 'no such invitation';
    end if;
    if exists (
        select from participants
        where conversation_id = v.id and user_id = p_user and left_at is null
    ) then
        return v.id;
    end if;
    if i.uses >= i.max_uses then
        raise exception using errcode = 'GR404', message = 'no such invitation';
    end if;
    update invitations set uses = uses + 1 where conversation_id = v.id and id = i.id;
    perform join_v1(v, p_user, i.role, p_user, p_message_id);
    return v.id;
end $$;

-- Promise: the user's mark is at least here, never moved back, never beyond the last message.
-- Locks:   the conversation's row.
create function read_upto_v1(
    p_conversation_id uuid, p_user text, p_seq bigint, out last_read_seq bigint, out rev bigint
)
language plpgsql as $$
declare
    v conversations := lock_conversation_v1(p_conversation_id, p_user, 'viewer');
    v_to bigint := least(p_seq, v.last_seq);
    v_now timestamptz := clock_timestamp();
begin
    select p.last_read_seq into last_read_seq from participants p
    where p.conversation_id = v.id and p.user_id = p_user and p.left_at is null;
    rev := v.rev;
    if last_read_seq is null then
        raise exception using errcode = 'GR403', message = 'only a participant reads';
    end if;
    if v_to <= last_read_seq then
        return;
    end if;
    last_read_seq := v_to;
    rev := v.rev + 1;
    update participants p set last_read_seq = v_to, rev = v.rev + 1
    where p.conversation_id = v.id and p.user_id = p_user;
    insert into read_marks (conversation_id, user_id, upto_seq, at) values (v.id, p_user, v_to, v_now);
    -- Reading is no activity: the conversation keeps its place in everybody's list.
    update conversations c set rev = c.rev + 1, people_rev = c.rev + 1 where c.id = v.id;
end $$;
