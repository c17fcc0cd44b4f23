"""What Greffier promises, said the plainest way: verbs on lists in memory, one caller at a time.

It is written from the promises and not from the SQL.  A verb that is refused raises the error that
the caller would meet.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import msgspec

from greffier.errors import (
    AgentFixed,
    Archived,
    Forbidden,
    Gone,
    IdReused,
    Invalid,
    NotFound,
    Stale,
    SubjectTaken,
)
from greffier.model.draft import Speaker, parts_text
from greffier.model.message import Draft
from model_check.talk import Branch, Invitation, Line, Person, Talk


def asked(draft: Draft, speaker: Speaker) -> Any:
    """What the same id must always stand for: all that was said, and for whom."""
    author = speaker.author_id if draft.role == "user" else None
    return msgspec.to_builtins(draft) | {"id": None, "author": author}


class Record:
    """All conversations, and each user's list of them."""

    def __init__(self, names: dict[str, str]) -> None:
        self.names = names
        self.talks: dict[UUID, Talk] = {}
        self.erased: set[UUID] = set()
        self.list_revs: dict[str, int] = {}
        self.clock = 0

    # -- what everything begins with

    def find(self, talk_id: UUID, actor: str | None) -> Talk:
        """A conversation for somebody who may see it.

        Raises:
            NotFound, Gone: They may not, or it was erased.
        """
        if talk_id in self.erased:
            raise Gone
        talk = self.talks.get(talk_id)
        if talk is None:
            raise NotFound
        if actor is not None and (actor not in talk.people or not talk.people[actor].present):
            raise NotFound
        return talk

    def find_for(self, talk_id: UUID, actor: str | None, roles: str) -> Talk:
        """A conversation for somebody who is one of these in it.

        Raises:
            NotFound, Gone, Forbidden: They are not.
        """
        talk = self.find(talk_id, actor)
        if actor is not None and talk.people[actor].role not in roles.split():
            raise Forbidden
        return talk

    def tick(self) -> int:
        """The next moment."""
        self.clock += 1
        return self.clock

    def changed(self, talk: Talk) -> int:
        """Count a change that is also activity."""
        talk.rev += 1
        talk.active = self.tick()
        return talk.rev

    def listed(self, *users: str) -> None:
        """Count a change of which conversations these users have."""
        for user in users:
            self.list_revs[user] = self.list_revs.get(user, 0) + 1

    # -- conversations

    def create(
        self,
        talk_id: UUID,
        kind: str,
        owner: str,
        subject: str | None,
        agent: UUID | None,
        others: dict[str, str],
    ) -> Talk:
        """Create a conversation, or find the one that the same request made.

        Raises:
            Gone, IdReused, SubjectTaken: See the errors.
        """
        request = (kind, owner, subject, agent, sorted(others.items()))
        if talk_id in self.erased:
            raise Gone
        if talk_id in self.talks:
            if self.talks[talk_id].request != request:
                raise IdReused
            return self.find(talk_id, owner)
        if subject is not None and self.on_subject(owner, subject):
            raise SubjectTaken
        now = self.tick()
        people = {owner: Person("owner", now, subject=subject)}
        for user, role in others.items():
            people[user] = Person(role, now)
        self.talks[talk_id] = Talk(talk_id, request, kind, owner, subject, agent, people, now)
        self.listed(*people)
        return self.talks[talk_id]

    def on_subject(self, owner: str, subject: str) -> Talk | None:
        """The owner's active conversation on a subject."""
        for talk in self.talks.values():
            if talk.owner == owner and talk.subject == subject and not talk.archived:
                return talk
        return None

    def patch(
        self,
        talk_id: UUID,
        actor: str | None,
        change: dict[str, Any],
        if_rev: int | None,
    ) -> Talk:
        """Change title, metadata, history limit or archiving.

        Raises:
            NotFound, Gone, Forbidden, Stale, SubjectTaken: See the errors.
        """
        talk = self.find_for(talk_id, actor, "owner")
        if if_rev is not None and if_rev != talk.rev:
            raise Stale
        bring_back = change.get("archived") is False and talk.archived
        if bring_back and talk.subject is not None and self.on_subject(talk.owner, talk.subject):
            raise SubjectTaken
        before = (talk.title, talk.metadata, talk.history_limit, talk.archived)
        for name, value in change.items():
            setattr(talk, name, value)
        if before == (talk.title, talk.metadata, talk.history_limit, talk.archived):
            return talk
        if talk.archived != before[3]:
            self.listed(*(user for user, p in talk.people.items() if p.present))
        self.changed(talk)
        return talk

    def erase(self, talk_id: UUID, actor: str | None) -> None:
        """Erase a conversation.

        Raises:
            NotFound, Gone, Forbidden: See the errors.
        """
        talk = self.find_for(talk_id, actor, "owner")
        self.listed(*(user for user, p in talk.people.items() if p.present))
        del self.talks[talk_id]
        self.erased.add(talk_id)

    # -- messages

    def append(self, talk_id: UUID, speaker: Speaker, drafts: Sequence[Draft]) -> list[Line]:
        """Append messages, all or none, as one change.

        Raises:
            NotFound, Gone, Forbidden, IdReused, Archived: See the errors.
        """
        talk = self.find_for(talk_id, speaker.actor, "owner member")
        owns = speaker.actor is None or (talk.owner == speaker.actor and talk.kind == "assistant")
        if not owns and any(draft.role != "user" for draft in drafts):
            raise Forbidden
        for draft in drafts:
            line = talk.known(draft.id)
            if line is not None and not line.erased and line.request != asked(draft, speaker):
                raise IdReused
        news = [draft for draft in drafts if talk.known(draft.id) is None]
        if news and talk.archived:
            raise Archived
        if news:
            self.changed(talk)
        answer = []
        for draft in drafts:
            line = talk.known(draft.id)
            if line is None:
                line = self._put(talk, speaker, draft)
            answer.append(line)
        return answer

    def _put(self, talk: Talk, speaker: Speaker, draft: Draft) -> Line:
        author = speaker.author_id
        if author is None and talk.kind == "assistant":
            author = talk.owner
        content = draft.content
        if draft.parts and content is None:
            content = parts_text(draft.parts) or None
        said = draft.role == "user"
        line = Line(
            seq=len(talk.lines) + 1,
            id=draft.id,
            request=asked(draft, speaker),
            parent=talk.path[-1] if talk.path else None,
            role=draft.role,
            author=author if said else None,
            author_name=speaker.author_name if said and speaker.author_id else None,
            written_by=speaker.written_by,
            content=content,
            parts=draft.parts,
            tool_calls=msgspec.to_builtins(draft.tool_calls),
            tool_call_id=draft.tool_call_id,
            name=draft.name,
            reasoning=draft.reasoning,
            metadata=draft.metadata or {},
            rev=talk.rev,
        )
        talk.lines.append(line)
        talk.path.append(line.seq)
        return line

    def edit(
        self, talk_id: UUID, speaker: Speaker, seq: int, content: str, if_rev: int | None
    ) -> Line:
        """Give a message a new text.

        Raises:
            NotFound, Gone, Forbidden, Stale, Archived, Invalid: See the errors.
        """
        if not content:
            raise Invalid
        actor = speaker.actor
        talk = self.find_for(talk_id, actor, "owner member")
        line = talk.line(seq)
        owns = talk.kind == "assistant" and talk.owner == actor
        if actor is not None and line.author != actor and not owns:
            raise Forbidden
        if if_rev is not None and if_rev != line.rev:
            raise Stale
        if line.deleted:
            raise NotFound
        if talk.archived:
            raise Archived
        if not line.content and not line.parts:
            raise Invalid
        if line.content == content and not line.parts:
            return line
        line.rev = self.changed(talk)
        line.versions.append(
            {
                "content": line.content,
                "parts": line.parts,
                "replaced_by": speaker.written_by,
                "rev": line.rev,
            }
        )
        line.content = content
        line.parts = None
        line.edited = True
        return line

    def delete(self, talk_id: UUID, actor: str | None, seq: int, *, erase: bool) -> int:
        """Delete a message, or erase it.

        Raises:
            NotFound, Gone, Forbidden: See the errors.
        """
        talk = self.find(talk_id, actor)
        line = talk.line(seq)
        if actor is not None and actor not in (line.author, talk.owner):
            raise Forbidden
        if line.erased or (line.deleted and not erase):
            return talk.rev
        line.deleted = True
        line.rev = self.changed(talk)
        if erase:
            line.erased = True
            line.request = line.content = line.parts = line.tool_calls = None
            line.tool_call_id = line.name = line.reasoning = None
            line.metadata = {}
            line.versions = []
            for key in [key for key in talk.thumbs if key[0] == seq]:
                del talk.thumbs[key]
        return talk.rev

    def rewind(self, talk_id: UUID, actor: str | None, after: int) -> tuple[int, int]:
        """Take everything after a message off the path; how many undeleted that was, and the rev.

        Raises:
            NotFound, Gone, Forbidden, Archived, Invalid: See the errors.
        """
        talk = self.find_for(talk_id, actor, "owner")
        if after != 0 and after not in talk.path:
            raise Invalid
        kept = [seq for seq in talk.path if seq <= after]
        if kept == talk.path:
            return 0, talk.rev
        if talk.archived:
            raise Archived
        removed = [seq for seq in talk.path if seq > after and not talk.line(seq).deleted]
        talk.branches.append(Branch(talk.path, self.changed(talk)))
        talk.path = kept
        return len(removed), talk.rev

    def activate(self, talk_id: UUID, actor: str | None, left_at: int) -> int:
        """Make the path that was left at a rev the active one.

        Raises:
            NotFound, Gone, Forbidden, Archived: See the errors.
        """
        talk = self.find_for(talk_id, actor, "owner")
        for branch in talk.branches:
            if branch.left_at == left_at:
                break
        else:
            raise NotFound
        if talk.archived:
            raise Archived
        talk.branches.remove(branch)
        rev = self.changed(talk)
        if talk.path:
            talk.branches.append(Branch(talk.path, rev))
        talk.path = branch.path
        return rev

    # -- people

    def bring(self, talk_id: UUID, actor: str | None, user: str, role: str) -> int:
        """Bring somebody in, change their role, or hand a room over.

        Raises:
            NotFound, Gone, Forbidden, Invalid: See the errors.
        """
        talk = self.find_for(talk_id, actor, "owner")
        person = talk.people.get(user)
        if user == talk.owner:
            if role == "owner":
                return talk.rev
            raise Forbidden
        if role != "owner":
            return self.let_in(talk, user, role, actor or "service")
        if talk.kind != "room" or person is None or not person.present:
            raise Invalid
        former = talk.people[talk.owner]
        former.role = "member"
        person.role = "owner"
        talk.owner = user
        # The subject was its former owner's, and is free again.
        former.subject = talk.subject = None
        return self.changed(talk)

    def let_in(self, talk: Talk, user: str, role: str, by: str) -> int:
        """Let somebody be in with this role."""
        person = talk.people.get(user)
        if person is not None and person.present:
            if person.role == role:
                return talk.rev
            person.role = role
            if role == "viewer":
                self._revoke_all_of(talk, user)
            return self.changed(talk)
        self.changed(talk)
        if person is None:
            person = talk.people[user] = Person(role, talk.active)
        person.role = role
        person.present = True
        person.came = talk.active
        self.listed(user)
        self._announce(talk, user, "joined", by)
        return talk.rev

    def remove(self, talk_id: UUID, actor: str | None, user: str) -> int:
        """Take somebody out, or leave.

        Raises:
            NotFound, Gone, Forbidden: See the errors.
        """
        if actor == user:
            talk = self.find(talk_id, actor)
        else:
            talk = self.find_for(talk_id, actor, "owner")
        if user == talk.owner:
            raise Forbidden
        if user not in talk.people or not talk.people[user].present:
            raise NotFound
        talk.people[user].present = False
        self._revoke_all_of(talk, user)
        self.changed(talk)
        self.listed(user)
        self._announce(talk, user, "left", actor or "service")
        return talk.rev

    def _announce(self, talk: Talk, user: str, event: str, by: str) -> None:
        draft = Draft(
            role="system",
            content=f"{self.names.get(user, user)} {event}",
            metadata={"greffier_event": event, "user_id": user},
        )
        line = self._put(talk, Speaker(written_by=by), draft)
        line.request = "an event, which no request can name"

    def _revoke_all_of(self, talk: Talk, user: str) -> None:
        for invitation in talk.invitations:
            if invitation.maker == user:
                invitation.revoked = True

    def invite(
        self, talk_id: UUID, actor: str | None, role: str, max_uses: int | None
    ) -> Invitation:
        """Make an invitation.

        Raises:
            NotFound, Gone, Forbidden: See the errors.
        """
        talk = self.find_for(talk_id, actor, "owner member")
        talk.invitations.append(Invitation(role, actor or "service", max_uses))
        return talk.invitations[-1]

    def accept(self, talk_id: UUID, invitation: Invitation, user: str) -> Talk:
        """Come in by an invitation.

        Raises:
            NotFound: It lets nobody in.
        """
        if talk_id not in self.talks or invitation.revoked:
            raise NotFound
        talk = self.talks[talk_id]
        if user in talk.people and talk.people[user].present:
            return talk
        if invitation.uses == invitation.max_uses:
            raise NotFound
        invitation.uses += 1
        self.let_in(talk, user, invitation.role, user)
        return talk

    def read(self, talk_id: UUID, user: str, seq: int) -> tuple[int, int]:
        """Move a mark forward.

        Raises:
            NotFound, Gone: See the errors.
        """
        talk = self.find(talk_id, user)
        person = talk.people[user]
        upto = min(seq, len(talk.lines))
        if upto > person.mark:
            person.mark = upto
            talk.rev += 1
        return person.mark, talk.rev

    def rate(self, talk_id: UUID, user: str, seq: int, rating: int | None) -> None:
        """Give or take back a thumb.

        Raises:
            NotFound, Gone: See the errors.
        """
        talk = self.find(talk_id, user)
        if seq and talk.line(seq).deleted:
            raise NotFound
        talk.thumbs.pop((seq, user), None)
        if rating is not None:
            talk.thumbs[seq, user] = rating

    # -- forgetting

    def named_in(self, user: str) -> list[Talk]:
        """Every conversation that names somebody."""
        return [
            talk
            for talk in self.talks.values()
            if user in talk.people or any(line.names(user) for line in talk.lines)
        ]

    def forget(self, user: str, nobody: dict[UUID, str]) -> tuple[int, int]:
        """Forget a person; nobody is what they are called from now on, by conversation.

        Returns:
            How many conversations were erased, and in how many they are nobody.
        """
        erased = anonymous = 0
        for talk in self.named_in(user):
            heirs = [
                (person.role == "viewer", person.came, other)
                for other, person in talk.people.items()
                if person.present and other != user
            ]
            if talk.owner == user and (talk.kind == "assistant" or not heirs):
                self.erase(talk.id, None)
                erased += 1
                continue
            anonymous += 1
            self.changed(talk)
            if talk.owner == user:
                talk.owner = min(heirs)[2]
                talk.people[talk.owner].role = "owner"
                talk.subject = None
            self._revoke_all_of(talk, user)
            for line in talk.lines:
                if line.names(user):
                    line.forget(user, nobody[talk.id])
                    line.rev = talk.rev
                for version in line.versions:
                    if version["replaced_by"] == user:
                        version["replaced_by"] = nobody[talk.id]
            for key in [key for key in talk.thumbs if key[1] == user]:
                del talk.thumbs[key]
            talk.people.pop(user, None)
        self.list_revs.pop(user, None)
        self.names.pop(user, None)
        return erased, anonymous

    # -- subjects

    def say(
        self,
        subject: str,
        speaker: Speaker,
        draft: Draft,
        agent: UUID | None,
        new_id: UUID | None,
    ) -> tuple[Talk, Line, bool]:
        """Speak on a subject; new_id is what a new conversation is called.

        Raises:
            IdReused, AgentFixed: See the errors.
        """
        user = speaker.actor or ""
        for talk in self.talks.values():
            line = talk.known(draft.id)
            mine = talk.people[user].subject == subject if user in talk.people else False
            if mine and line is not None:
                if not line.erased and line.request != asked(draft, speaker):
                    raise IdReused
                return talk, line, False
        found = self.on_subject(user, subject)
        if found is None:
            assert new_id is not None, "a conversation was to be made, and none was"
            made = self.create(new_id, "assistant", user, subject, agent, {})
            return made, self.append(new_id, speaker, [draft])[0], True
        if agent is not None and agent != found.agent:
            raise AgentFixed
        return found, self.append(found.id, speaker, [draft])[0], False

    # -- lists

    def listing(
        self, user: str, *, archived: bool, kind: str | None, subject: str | None
    ) -> list[UUID]:
        """A user's conversations, last activity first."""
        found = [
            talk
            for talk in self.talks.values()
            if user in talk.people
            and talk.people[user].present
            and talk.archived == archived
            and kind in (None, talk.kind)
            and subject in (None, talk.people[user].subject)
        ]
        return [talk.id for talk in sorted(found, key=lambda talk: -talk.active)]
