"""People: who is in a conversation, who is invited, and how far everybody has read."""

from __future__ import annotations

from datetime import datetime
from typing import Literal
from uuid import UUID

import msgspec

from greffier import access
from greffier.change import people as verbs
from greffier.errors import Forbidden, Gone, NotFound, UnsupportedMediaType
from greffier.model.conversation import Conversation, MemberRole, NewParticipant
from greffier.read import conversations
from greffier.read import people as reads
from greffier.read.people import Invitation, Participant, Reader
from greffier.server.answers import Answer, encoded, no_content
from greffier.server.call import Call
from greffier.server.decode import optional_decoder
from greffier.server.routes.lists import Listed, listed
from greffier.server.table import Route


class NewRole(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A participant's new role; ``owner`` hands a room over."""

    role: MemberRole


async def list_participants(call: Call) -> Answer:
    """List who is in a conversation, in the order they came."""
    found = await reads.participants(
        call.database, call.conversation_id, access.reader(call.principal)
    )
    return listed(found)


async def add_participant(call: Call) -> Answer:
    """Bring somebody in; a system message tells everybody. The owner may.

    Who is in with this role already is left as they are.
    """
    asked: NewParticipant = call.body
    before = await _participant(call, asked.user_id)
    await verbs.set_participant(
        call.database,
        call.conversation_id,
        asked.user_id,
        asked.role,
        access.reader(call.principal),
    )
    answer = encoded(await _participant(call, asked.user_id))
    answer.status = 200 if before else 201
    return answer


async def update_participant(call: Call) -> Answer:
    """Change a participant's role. The owner may; making another the owner hands a room over."""
    asked: NewRole = call.body
    user = call.params["user_id"]
    await verbs.set_participant(
        call.database,
        call.conversation_id,
        user,
        asked.role,
        access.reader(call.principal),
        must_exist=True,
    )
    return encoded(await _participant(call, user))


async def remove_participant(call: Call) -> Answer:
    """Take somebody out, or leave; a system message tells those who stay.

    The owner removes anybody else; anybody but the owner may leave. Who has left sees nothing of
    the conversation any more.
    """
    await verbs.remove_participant(
        call.database,
        call.conversation_id,
        call.params["user_id"],
        access.reader(call.principal),
    )
    return no_content()


async def _participant(call: Call, user: str) -> Participant | None:
    found = await reads.participants(
        call.database, call.conversation_id, access.reader(call.principal)
    )
    return next((one for one in found if one.user_id == user), None)


class NewInvitation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What an invitation allows: a role, for how many seconds, for how many people."""

    role: Literal["member", "viewer"] = "member"
    expires_in: float | None = None
    max_uses: int | None = None


class Invited(msgspec.Struct, frozen=True):
    """A new invitation with its token, which is shown this once."""

    id: UUID
    role: MemberRole
    expires_at: datetime | None
    max_uses: int | None
    uses: int
    created_by: str
    token: str


async def create_invitation(call: Call) -> Answer:
    """Make an invitation; whoever has its token may join. Owners and members may."""
    asked: NewInvitation = call.body
    made = await verbs.invite(
        call.database,
        call.conversation_id,
        access.reader(call.principal),
        role=asked.role,
        expires_in=asked.expires_in,
        max_uses=asked.max_uses,
        by=call.user_id,
    )
    answer = encoded(
        Invited(
            made.id,
            asked.role,
            made.expires_at,
            asked.max_uses,
            0,
            call.user_id or "service",
            made.token,
        )
    )
    answer.status = 201
    return answer


async def list_invitations(call: Call) -> Answer:
    """List the invitations that still let somebody in: the owner sees all, others their own."""
    found = await reads.invitations(
        call.database, call.conversation_id, access.reader(call.principal)
    )
    return listed(found)


async def revoke_invitation(call: Call) -> Answer:
    """Let an invitation let nobody in any more. Its maker and the owner may."""
    await verbs.revoke(
        call.database,
        call.conversation_id,
        call.params["invitation_id"],
        access.reader(call.principal),
    )
    return no_content()


class Token(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An invitation's token."""

    token: str


async def accept_invitation(call: Call) -> Answer:
    """Join a conversation by an invitation's token; who is in already uses none of its uses up."""
    asked: Token = call.body
    database = call.database
    user = access.myself(call.principal)
    joined = await verbs.accept(database, asked.token, user)
    body, _ = await conversations.get(database, joined, user)
    return Answer(body)


class Mark(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Up to which message the caller has read."""

    seq: int


class Marked(msgspec.Struct, frozen=True):
    """How far the caller has read now, and the conversation's rev."""

    last_read_seq: int
    rev: int


async def mark_read(call: Call) -> Answer:
    """Move the caller's mark forward, never back, at most to the last message."""
    asked: Mark = call.body
    mark = await verbs.read_upto(
        call.database, call.conversation_id, access.myself(call.principal), asked.seq
    )
    return encoded(Marked(mark.last_read_seq, mark.rev))


async def list_readers(call: Call) -> Answer:
    """Say who has read a message, and when; never its author."""
    found = await reads.readers(
        call.database,
        call.conversation_id,
        access.reader(call.principal),
        call.params["seq"],
    )
    return encoded(found)


_ONE = "/v1/conversations/{conversation_id}"
_PEOPLE = _ONE + "/participants"
_INVITATIONS = _ONE + "/invitations"

ROUTES = (
    Route(
        method="PUT",
        path=_ONE + "/read",
        handler=mark_read,
        request=Mark,
        response=Marked,
        errors=(Forbidden, NotFound, Gone, UnsupportedMediaType),
        writes=True,
    ),
    Route(
        method="GET",
        path=_ONE + "/messages/{seq}/readers",
        handler=list_readers,
        response=list[Reader],
        errors=(NotFound, Gone),
    ),
    Route(
        method="GET",
        path=_PEOPLE,
        handler=list_participants,
        response=Listed[Participant],
        errors=(NotFound, Gone),
    ),
    Route(
        method="POST",
        path=_PEOPLE,
        handler=add_participant,
        request=NewParticipant,
        response=Participant,
        status=201,
        also={200: "They were in; their role is the one asked for."},
        errors=(Forbidden, NotFound, Gone, UnsupportedMediaType),
        writes=True,
    ),
    Route(
        method="PATCH",
        path=_PEOPLE + "/{user_id}",
        handler=update_participant,
        request=NewRole,
        response=Participant,
        errors=(Forbidden, NotFound, Gone, UnsupportedMediaType),
        writes=True,
    ),
    Route(
        method="DELETE",
        path=_PEOPLE + "/{user_id}",
        handler=remove_participant,
        status=204,
        errors=(Forbidden, NotFound, Gone),
        writes=True,
    ),
    Route(
        method="POST",
        path=_INVITATIONS,
        handler=create_invitation,
        request=NewInvitation,
        decode=optional_decoder(NewInvitation),
        response=Invited,
        status=201,
        errors=(Forbidden, NotFound, Gone, UnsupportedMediaType),
        writes=True,
    ),
    Route(
        method="GET",
        path=_INVITATIONS,
        handler=list_invitations,
        response=Listed[Invitation],
        errors=(NotFound, Gone),
    ),
    Route(
        method="DELETE",
        path=_INVITATIONS + "/{invitation_id}",
        handler=revoke_invitation,
        status=204,
        errors=(Forbidden, NotFound, Gone),
        writes=True,
    ),
    Route(
        method="POST",
        path="/v1/invitations/accept",
        handler=accept_invitation,
        request=Token,
        response=Conversation,
        errors=(Forbidden, NotFound, UnsupportedMediaType),
        writes=True,
    ),
)
