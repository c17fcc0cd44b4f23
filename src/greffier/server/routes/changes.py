"""What changes after it was said: edits, deletions, rewinding, branches, and catching up."""

from __future__ import annotations

import msgspec

from greffier import access
from greffier.change import message as message_verbs
from greffier.change import path as path_verbs
from greffier.errors import (
    Archived,
    Forbidden,
    Gone,
    NotFound,
    PayloadTooLarge,
    Stale,
    UnsupportedMediaType,
)
from greffier.model.conversation import Conversation
from greffier.model.message import Message
from greffier.read import changes as changes_read
from greffier.read import history
from greffier.read.pages import one
from greffier.read.people import Participant
from greffier.server.answers import Answer, encoded, etag, matched_rev, no_content, tagged
from greffier.server.call import Call
from greffier.server.routes.lists import Listed, listed
from greffier.server.routes.messages import NotNegative
from greffier.server.table import Route


class Edit(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A message's new text."""

    content: str


async def edit_message(call: Call) -> Answer:
    """Give a message a new text; the earlier one stays on record among its versions.

    Its author may, and an assistant conversation's owner. The same text again changes nothing.
    """
    asked: Edit = call.body
    database = call.database
    seq = call.params["seq"]
    await message_verbs.edit(
        database,
        call.conversation_id,
        seq,
        asked.content,
        access.speaker(call.principal),
        if_rev=matched_rev(call.headers.get(b"if-match"), database.epoch),
        limits=call.service.limits,
    )
    body, rev = await one(database, call.conversation_id, access.reader(call.principal), seq)
    return tagged(body, etag(body, database.epoch, rev), None)


class DeleteQuery(msgspec.Struct, frozen=True):
    """Whether the content is only hidden, or destroyed."""

    erase: bool = False


async def delete_message(call: Call) -> Answer:
    """Delete a message: its number stays, its content is shown to nobody.

    With ``erase=true`` content, parts, tool calls, reasoning, metadata, feedback and earlier
    versions are destroyed. Its author, the conversation's owner and admins may.
    """
    asked: DeleteQuery = call.query
    await message_verbs.delete(
        call.database,
        call.conversation_id,
        call.params["seq"],
        access.reader(call.principal),
        erase=asked.erase,
    )
    return no_content()


async def list_versions(call: Call) -> Answer:
    """List the earlier texts of an edited message, oldest first."""
    found = await history.versions(
        call.database,
        call.conversation_id,
        access.reader(call.principal),
        call.params["seq"],
    )
    return listed(found)


class Rewind(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Up to where the path stays: 0, or a seq on the active path."""

    after_seq: int


class Rewound(msgspec.Struct, frozen=True):
    """How many undeleted messages left the path, and the conversation's rev."""

    removed: int
    rev: int


async def rewind_conversation(call: Call) -> Answer:
    """Take everything after a message off the active path; it stays on record as a branch.

    It costs the same however much that is. The owner may.
    """
    asked: Rewind = call.body
    done = await path_verbs.rewind(
        call.database,
        call.conversation_id,
        asked.after_seq,
        access.reader(call.principal),
    )
    return encoded(Rewound(done.removed, done.rev))


async def list_branches(call: Call) -> Answer:
    """List the paths that were left, the last left first."""
    found = await history.branches(
        call.database, call.conversation_id, access.reader(call.principal)
    )
    return listed(found)


class Activated(msgspec.Struct, frozen=True):
    """The conversation's rev after the change of path."""

    rev: int


async def activate_branch(call: Call) -> Answer:
    """Make a branch's path the active one; the path that was active becomes a branch."""
    rev = await path_verbs.activate(
        call.database,
        call.conversation_id,
        call.params["branch_id"],
        access.reader(call.principal),
    )
    return encoded(Activated(rev))


class ChangesQuery(msgspec.Struct, frozen=True):
    """Which rev the caller knows, and of which history it is."""

    since: NotNegative
    epoch: str | None = None


class Changes(msgspec.Struct, frozen=True):
    """What spans ``(since, rev]``: each message once and as it is now, oldest first.

    ``superseded`` are stretches of seqs that left the path; ``participants`` is null when nobody
    came, left or read. ``next``: there is more, ask on with ``rev`` as ``since``. ``reset``: that
    position cannot be continued, start from a page.
    """

    epoch: str
    since: int
    rev: int
    reset: bool
    next: bool
    messages: list[Message]
    superseded: list[tuple[int, int]]
    conversation: Conversation
    participants: list[Participant] | None


async def list_changes(call: Call) -> Answer:
    """Catch up: what changed since a rev.

    Applied to what was seen at ``since`` it gives what a fresh read gives at the returned ``rev``.
    """
    asked: ChangesQuery = call.query
    found = await changes_read.changes(
        call.database,
        call.conversation_id,
        access.reader(call.principal),
        asked.since,
        epoch=asked.epoch,
        limits=call.service.limits,
    )
    return Answer(found.body())


_ONE = "/v1/conversations/{conversation_id}"
_MESSAGE = _ONE + "/messages/{seq}"

ROUTES = (
    Route(
        method="PATCH",
        path=_MESSAGE,
        handler=edit_message,
        request=Edit,
        response=Message,
        errors=(
            Forbidden,
            NotFound,
            Gone,
            Archived,
            Stale,
            PayloadTooLarge,
            UnsupportedMediaType,
        ),
        writes=True,
        tagged=True,
        request_headers={
            "If-Match": "The ETag the edit was made for; 412 when the message has changed."
        },
    ),
    Route(
        method="DELETE",
        path=_MESSAGE,
        handler=delete_message,
        query=DeleteQuery,
        status=204,
        errors=(Forbidden, NotFound, Gone),
        writes=True,
    ),
    Route(
        method="GET",
        path=_MESSAGE + "/versions",
        handler=list_versions,
        response=Listed[history.Version],
        errors=(NotFound, Gone),
    ),
    Route(
        method="POST",
        path=_ONE + "/rewind",
        handler=rewind_conversation,
        request=Rewind,
        response=Rewound,
        errors=(Forbidden, NotFound, Gone, Archived, UnsupportedMediaType),
        writes=True,
    ),
    Route(
        method="GET",
        path=_ONE + "/branches",
        handler=list_branches,
        response=Listed[history.Branch],
        errors=(NotFound, Gone),
    ),
    Route(
        method="POST",
        path=_ONE + "/branches/{branch_id}/activate",
        handler=activate_branch,
        response=Activated,
        errors=(Forbidden, NotFound, Gone, Archived),
        writes=True,
    ),
    Route(
        method="GET",
        path=_ONE + "/changes",
        handler=list_changes,
        query=ChangesQuery,
        response=Changes,
        errors=(NotFound, Gone),
    ),
)
