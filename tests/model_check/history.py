"""One random history: the same steps for real and in the model, and then everything is read."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from random import Random
from typing import Any, TypeVar
from uuid import UUID

import msgspec

from greffier import Error, Gone, Greffier
from greffier.access import SEE_USER
from greffier.change import append as append_verb
from greffier.change import conversation as conversation_verbs
from greffier.change import feedback as feedback_verbs
from greffier.change import message as message_verbs
from greffier.change import path as path_verbs
from greffier.change import people as people_verbs
from greffier.change import subject as subject_verbs
from greffier.change.forget import ForgottenAccount, forget_user
from greffier.model.conversation import ConversationPatch, NewConversation, NewParticipant
from greffier.model.draft import Speaker
from greffier.model.message import Draft, Function, Message, ToolCall
from greffier.store.database import open_database
from model_check.checks import Checks, plain
from model_check.record import Record
from model_check.steps import number, one_of, several, some_of, step
from model_check.talk import Invitation, Line, Talk

T = TypeVar("T")

PEOPLE = ("ada", "bob", "cleo", "dan", "eve")
NAMES = {"ada": "Ada Lovelace", "bob": "Bob", "cleo": "Cléo"}
AGENT = UUID(int=7)


def call(call_id: str) -> ToolCall:
    """A tool call."""
    return ToolCall(id=call_id, function=Function(name="look", arguments="{}"))


#: What is said: every kind of message, few of each, so that the same is said again.
DRAFTS = (
    Draft(content="a"),
    Draft(content="bonjour, où est la gare ?"),
    Draft(content="x" * 300),
    Draft(
        parts=[{"type": "text", "text": "see"}, {"type": "image_url", "image_url": {"url": "u"}}]
    ),
    Draft(parts=[{"type": "image_url", "image_url": {"url": "u"}}], metadata={"n": 1}),
    Draft(role="assistant", content="b", reasoning="hm"),
    Draft(role="assistant", tool_calls=[call("c1"), call("c2")]),
    Draft(role="assistant", content="let me look", tool_calls=[call("c1")]),
    Draft(role="assistant", content=""),
    Draft(role="tool", content="found", tool_call_id="c1"),
    Draft(role="tool", content="", tool_call_id="c2"),
    Draft(role="system", content="be kind", name="rules"),
)

drafts = number(0, len(DRAFTS) - 1)
#: A few ids that callers bring, so that they meet; None lets the server make one.
ids = one_of(None, None, None, 1, 2, 3, 4)
#: Chosen from what there is when the step comes: an index, taken modulo.
some = number(0, 9999)
#: Mostly those who may: refusals are steps too, but lead nowhere.
_MOSTLY = ("owner",) * 5 + ("author",) * 4 + ("member",) * 3
actors = one_of(*_MOSTLY, "service", *PEOPLE[2:])
writers = one_of(*_MOSTLY, "service", "admin", *PEOPLE[2:])
texts = one_of("a", "b", "edited", "y" * 400)
roles = one_of("member", "member", "viewer", "owner")
stale = one_of(None, None, None, 0, 1)


class World:
    """One database, its event loop, and how many histories were made in it."""

    def __init__(
        self,
        dsn: str,
        *,
        replicas: Sequence[str] = (),
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        # A loop of our own, so that a history is plain code without await.
        self.loop = loop or asyncio.new_event_loop()
        self.opened = open_database(dsn, replicas=replicas)
        self.g = Greffier(self.run(self.opened.__aenter__()))
        self.run(self.g.agents.create(id=AGENT, name="Guide", provider="echo", model="echo"))
        self.histories = 0

    def run(self, work: Awaitable[T]) -> T:
        """Wait for work to be done."""
        return self.loop.run_until_complete(work)

    def close(self) -> None:
        """Close the database."""
        self.run(self.opened.__aexit__(None, None, None))


class History:
    """One history: steps that people, services and admins take, each checked against the model."""

    def __init__(self, world: World) -> None:
        self.world = world
        world.histories += 1
        self.number = self.world.histories
        self.seed = 0
        self.looks = 0
        self.before = 0
        self.database = self.world.g.database
        names = {self.user(person): name for person, name in NAMES.items()}
        self.record = Record(names)
        self.checks = Checks(self.world.g, self.record)
        self.tokens: list[tuple[UUID, Invitation, str]] = []
        self.ever: list[UUID] = []
        for user, name in names.items():
            self.world.run(self.database.verb(SEE_USER, user, name, None, again=True))
        self.begin()

    # -- who and which

    def user(self, person: str) -> str:
        """A user of this history alone."""
        return f"{person}-{self.number}"

    def actor(self, who: str, talk: Talk | None, at: int = 0) -> str | None:
        """The user that a name of the strategies stands for; None is the service or an admin."""
        if who in ("service", "admin"):
            return None
        if talk is None:
            return self.user("ada")
        if who == "author" and 1 <= at <= len(talk.lines):
            return talk.line(at).author
        if who in ("author", "member"):
            present = [user for user, person in talk.people.items() if person.present]
            return present[at % len(present)]
        return talk.owner if who == "owner" else self.user(who)

    def speaker(self, who: str, talk: Talk | None, at: int = 0) -> Speaker:
        """The same as somebody who writes."""
        if who == "admin":
            return Speaker(None, "boss", "The boss", "boss")
        actor = self.actor(who, talk, at)
        if actor is None:
            return Speaker()
        return Speaker(actor, actor, self.record.names.get(actor), actor)

    def which(self, pick: int) -> tuple[UUID, Talk | None]:
        """A conversation there is, or seldom one that was."""
        alive = list(self.record.talks)
        talk_id = (alive if alive and pick % 10 else self.ever)[pick % len(alive or self.ever)]
        return talk_id, self.record.talks.get(talk_id)

    @staticmethod
    def seq(pick: int, talk: Talk | None) -> int:
        """A seq there is, one of the last; seldom 0 or the next one."""
        if talk is None or not talk.lines or pick % 12 < 2:
            return 0 if pick % 12 == 0 or talk is None else len(talk.lines) + 1
        return len(talk.lines) - pick // 12 % min(8, len(talk.lines))

    @staticmethod
    def on_path(pick: int, talk: Talk | None) -> int:
        """A seq of the active path, mostly; or 0, or one that is not on it."""
        if talk is None or not talk.path or not pick % 10:
            return History.seq(pick // 10, talk)
        return ([0, *talk.path])[-1 - pick % min(6, len(talk.path) + 1)]

    def somebody(self, pick: int, talk: Talk | None) -> str:
        """Somebody who is in it, mostly."""
        present = [user for user, person in talk.people.items() if person.present] if talk else []
        chosen = [*present, *present, *map(self.user, PEOPLE)]
        return chosen[pick % len(chosen)]

    # -- one step

    def both(
        self, done: Awaitable[T], promised: Callable[[], Any], check: Callable[[T, Any], None]
    ) -> None:
        """Do something for real and in the model: the same comes of it, or the same refusal."""
        outcome: T | Error
        try:
            outcome = self.world.run(done)
        except Error as error:
            outcome = error
        try:
            expected = promised()
        except Error as error:
            expected = error
        if isinstance(outcome, Error) or isinstance(expected, Error):
            assert type(outcome) is type(expected), f"{outcome!r} instead of {expected!r}"
        else:
            check(outcome, expected)

    def look(self, *talk_ids: UUID) -> None:
        """Read everything that the step may have touched."""
        self.looks += 1
        random = Random(self.seed)
        for talk_id in talk_ids:
            talk = self.record.talks.get(talk_id)
            if talk is None:
                self.world.run(self.checks.absent(talk_id))
            else:
                self.world.run(self.checks.conversation(talk, random))
        for person in random.sample(PEOPLE, 2):
            self.world.run(self.checks.lists(self.user(person), random))

    @staticmethod
    def same(messages: list[Message], lines: list[Line]) -> None:
        """The answer to who said something is the message as it stands."""
        for message, line in zip(messages, lines, strict=True):
            if line.id is None:
                line.id = message.id
            assert plain(msgspec.to_builtins(message)) == line.shown()

    # -- conversations

    def begin(self) -> None:
        """Begin with a room of three and an assistant's conversation, in which they spoke."""
        self.make(1, "ada", "room", None, None, {"bob": "member", "cleo": "viewer"})
        self.make(2, "ada", "assistant", "maths", None, {})
        for talk in list(self.record.talks.values()):
            for turn in range(4):
                speaker = self.speaker("member", talk, turn % 2)
                self.say_in(talk.id, speaker, [Draft(content=f"{turn}")])
            self.look(talk.id)

    @step(
        1,
        number=number(1, 4),
        who=one_of(*PEOPLE[:2]),
        kind=one_of("assistant", "room"),
        subject=one_of(None, None, "maths", "music"),
        agent=one_of(None, AGENT),
        others=some_of(PEOPLE[2:], one_of("member", "viewer")),
    )
    def create(
        self,
        number: int,
        who: str,
        kind: str,
        subject: str | None,
        agent: UUID | None,
        others: dict[str, str],
    ) -> None:
        """Create a conversation under a new id, or under one there is or was."""
        self.make(number, who, kind, subject, agent, others)

    def make(
        self,
        number: int,
        who: str,
        kind: Any,
        subject: str | None,
        agent: UUID | None,
        others: dict[str, str],
    ) -> None:
        """Create a conversation."""
        talk_id = UUID(int=number + (self.number << 64))
        owner = self.user(who)
        people = {self.user(person): role for person, role in others.items()}
        new = NewConversation(
            id=talk_id,
            kind=kind,
            subject=subject,
            agent_id=agent,
            participants=[NewParticipant(user, role) for user, role in people.items()],  # type: ignore[arg-type]
        )
        was_there = talk_id in self.record.talks

        def check(made: tuple[UUID, bool], _: Talk) -> None:
            assert made == (talk_id, not was_there)

        self.both(
            conversation_verbs.create(self.database, new, owner),
            lambda: self.record.create(talk_id, kind, owner, subject, agent, people),
            check,
        )
        if talk_id in self.record.talks:
            if talk_id not in self.ever:
                self.ever.append(talk_id)
            self.look(talk_id)

    @step(
        1.5,
        pick=some,
        who=actors,
        title=one_of(None, "", "Plans"),
        metadata=one_of(None, {"k": [1]}),
        limit=one_of(None, 3, 30),
        archived=one_of(None, None, None, True, False),
        off=stale,
    )
    def patch(
        self,
        pick: int,
        who: str,
        title: str | None,
        metadata: dict[str, Any] | None,
        limit: int | None,
        archived: bool | None,
        off: int | None,
    ) -> None:
        """Change title, metadata, limit, archiving, perhaps with an If-Match."""
        talk_id, talk = self.which(pick)
        given = {
            "title": title,
            "metadata": metadata,
            "history_limit": limit,
            "archived": archived,
        }
        change: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        if_rev = None if off is None or talk is None else talk.rev - off
        actor = self.actor(who, talk)

        def check(rev: int, patched: Talk) -> None:
            assert rev == patched.rev

        self.both(
            conversation_verbs.patch(
                self.database, talk_id, ConversationPatch(**change), actor, if_rev=if_rev
            ),
            lambda: self.record.patch(talk_id, actor, change, if_rev),
            check,
        )
        self.look(talk_id)

    @step(0.7, pick=some, who=actors, archived=one_of(True, False, False))
    def archive(self, pick: int, who: str, archived: bool) -> None:
        """Archive a conversation, or bring it back."""
        self.patch(pick, who, None, None, None, archived, None)

    @step(0.4, pick=some, who=actors)
    def erase(self, pick: int, who: str) -> None:
        """Erase a conversation."""
        talk_id, talk = self.which(pick)
        actor = self.actor(who, talk)
        self.both(
            conversation_verbs.erase(self.database, talk_id, actor),
            lambda: self.record.erase(talk_id, actor),
            lambda _, __: None,
        )
        self.look(talk_id)

    # -- messages

    @step(3, pick=some, who=writers, said=several(1, 4, drafts, ids))
    def append(self, pick: int, who: str, said: list[tuple[int, int | None]]) -> None:
        """Say one thing or several, under ids that are brought or not."""
        used: set[int | None] = set()
        batch = []
        for draft, chosen in said:
            message_id = None if chosen is None or chosen in used else UUID(int=chosen)
            batch.append(msgspec.structs.replace(DRAFTS[draft], id=message_id))
            used.add(chosen)
        talk_id, talk = self.which(pick)
        self.say_in(talk_id, self.speaker(who, talk, pick), batch)
        self.look(talk_id)

    @step(5, pick=some, who=writers, draft=drafts)
    def add(self, pick: int, who: str, draft: int) -> None:
        """Say one more thing."""
        self.append(pick, who, [(draft, None)])

    def say_in(self, talk_id: UUID, speaker: Speaker, batch: list[Draft]) -> None:
        """Append messages."""

        def check(appended: append_verb.Appended, lines: list[Line]) -> None:
            self.same(appended.messages(), lines)

        self.both(
            append_verb.append(self.database, talk_id, batch, speaker),
            lambda: self.record.append(talk_id, speaker, batch),
            check,
        )

    @step(0.7, pick=some, many=number(20, 45), draft=drafts)
    def append_many(self, pick: int, many: int, draft: int) -> None:
        """Say more than a context reads at first."""
        talk_id, talk = self.which(pick)
        if talk is not None and len(talk.lines) < 120:
            batch = [DRAFTS[(draft + n) % len(DRAFTS)] for n in range(many)]
            self.say_in(talk_id, Speaker(), batch)
            self.look(talk_id)

    @step(2, pick=some, line=some, who=writers, change=one_of(True, False))
    def send_again(self, pick: int, line: int, who: str, change: bool) -> None:
        """Send an id again that is on record: by who said it or by another, as it was or not."""
        talk_id, talk = self.which(pick)
        if talk is None or not talk.lines:
            return
        old = talk.lines[line % len(talk.lines)]
        draft = Draft(content="again")
        speaker = self.speaker(who, talk, old.seq)
        if isinstance(old.request, dict):
            draft = msgspec.convert(
                {name: value for name, value in old.request.items() if name != "author"}, Draft
            )
            if not change and draft.role == "user":
                author = old.request["author"]
                admin = Speaker(None, author, None, author or "service")
                speaker = admin if who in ("service", "admin") else speaker
        if change:
            draft = msgspec.structs.replace(draft, content=f"{draft.content}!", parts=None)
        self.say_in(talk_id, speaker, [msgspec.structs.replace(draft, id=old.id)])
        self.look(talk_id)

    @step(2, requests=several(2, 6, some, writers, drafts, one_of(True, False, False)))
    def append_at_once(self, requests: list[tuple[int, str, int, bool]]) -> None:
        """Several people speak at once, some of them twice: the model hears them by seq."""
        sent: list[tuple[UUID, Speaker, Draft]] = []
        for place, (pick, who, draft, twice) in enumerate(requests):
            talk_id, talk = self.which(pick)
            speaker = self.speaker(who, talk, pick)
            own = msgspec.structs.replace(
                DRAFTS[draft], id=UUID(int=(self.looks << 32) + 1000 + place)
            )
            sent += [(talk_id, speaker, own)] * (2 if twice else 1)

        async def send() -> list[append_verb.Appended | BaseException]:
            return await asyncio.gather(
                *(
                    append_verb.append(self.database, talk_id, [own], speaker)
                    for talk_id, speaker, own in sent
                ),
                return_exceptions=True,
            )

        def place_of(found: append_verb.Appended | BaseException) -> int:
            return 0 if isinstance(found, BaseException) else found.messages()[0].seq

        self.before = self.record.clock
        answers = sorted(
            zip(sent, self.world.run(send()), strict=True), key=lambda pair: place_of(pair[1])
        )
        for (talk_id, speaker, own), answer in answers:

            async def answered(answer: append_verb.Appended | BaseException = answer) -> Any:
                if isinstance(answer, BaseException):
                    raise answer
                return answer

            self.both(
                answered(),
                lambda: self.record.append(talk_id, speaker, [own]),  # noqa: B023 - called at once
                lambda appended, lines: self.same(appended.messages(), lines),
            )
        touched = list(dict.fromkeys(talk_id for talk_id, _, _ in sent))
        self.world.run(self.learn_order(touched))
        self.look(*touched)

    async def learn_order(self, talk_ids: list[UUID]) -> None:
        """Of what happened at once, the record says what was last."""
        talks = [self.record.talks[one] for one in talk_ids if one in self.record.talks]
        found = [await self.world.g.conversations.get(talk.id) for talk in talks]
        for shown in sorted(found, key=lambda one: (one.updated_at, one.id)):
            talk = self.record.talks[shown.id]
            if talk.active > self.before:
                talk.active = self.record.tick()

    @step(4, pick=some, who=writers, at=some, text=texts, off=stale)
    def edit(self, pick: int, who: str, at: int, text: str, off: int | None) -> None:
        """Give a message a new text, or the one it has."""
        talk_id, talk = self.which(pick)
        seq = self.seq(at, talk)
        speaker = self.speaker(who, talk, seq)
        if_rev = None
        if off is not None and talk is not None and 1 <= seq <= len(talk.lines):
            if_rev = talk.line(seq).rev - off

        def check(rev: int, _: Line) -> None:
            assert rev == self.record.talks[talk_id].rev

        self.both(
            message_verbs.edit(self.database, talk_id, seq, text, speaker, if_rev=if_rev),
            lambda: self.record.edit(talk_id, speaker, seq, text, if_rev),
            check,
        )
        self.look(talk_id)

    @step(4, pick=some, who=actors, at=some, erase=one_of(True, False))
    def delete(self, pick: int, who: str, at: int, erase: bool) -> None:
        """Delete a message, or erase it."""
        talk_id, talk = self.which(pick)
        seq = self.seq(at, talk)
        actor = self.actor(who, talk, seq)

        def check(rev: int, expected: int) -> None:
            assert rev == expected

        self.both(
            message_verbs.delete(self.database, talk_id, seq, actor, erase=erase),
            lambda: self.record.delete(talk_id, actor, seq, erase=erase),
            check,
        )
        self.look(talk_id)

    # -- paths

    @step(4, pick=some, who=actors, at=some)
    def rewind(self, pick: int, who: str, at: int) -> None:
        """Rewind after any number, on the path or not."""
        talk_id, talk = self.which(pick)
        seq, actor = self.on_path(at, talk), self.actor(who, talk)

        def check(found: path_verbs.Rewound, expected: tuple[int, int]) -> None:
            assert tuple(found) == expected

        self.both(
            path_verbs.rewind(self.database, talk_id, seq, actor),
            lambda: self.record.rewind(talk_id, actor, seq),
            check,
        )
        self.look(talk_id)

    @step(4, pick=some, at=some, draft=drafts)
    def say_instead(self, pick: int, at: int, draft: int) -> None:
        """Rewind and say something else, as who has an answer made again."""
        self.rewind(pick, "owner", at)
        self.add(pick, "owner", draft)

    @step(4, pick=some, who=actors, branch=some)
    def activate(self, pick: int, who: str, branch: int) -> None:
        """Take up a path that was left, or one that never was."""
        talk_id, talk = self.which(pick)
        forked = [one for one in self.record.talks.values() if one.branches]
        if forked and branch % 8:
            talk = forked[pick % len(forked)]
            talk_id = talk.id
        actor = self.actor(who, talk)
        branch_id, left_at = UUID(int=99), -1
        if talk is not None and talk.branches:
            chosen = branch % len(talk.branches)
            found = self.world.run(self.world.g.conversations.branches(talk_id))
            branch_id, left_at = found[-1 - chosen].id, talk.branches[chosen].left_at

        def check(rev: int, expected: int) -> None:
            assert rev == expected

        self.both(
            path_verbs.activate(self.database, talk_id, branch_id, actor),
            lambda: self.record.activate(talk_id, actor, left_at),
            check,
        )
        self.look(talk_id)

    # -- people

    @step(3, pick=some, who=actors, person=one_of(*PEOPLE), role=roles)
    def bring(self, pick: int, who: str, person: str, role: str) -> None:
        """Bring somebody in, change their role, or hand a room over."""
        talk_id, talk = self.which(pick)
        user, actor = self.user(person), self.actor(who, talk)

        def check(rev: int, expected: int) -> None:
            assert rev == expected

        self.both(
            people_verbs.set_participant(self.database, talk_id, user, role, actor),
            lambda: self.record.bring(talk_id, actor, user, role),
            check,
        )
        self.look(talk_id)

    @step(1.5, pick=some, who=actors, person=some)
    def remove(self, pick: int, who: str, person: int) -> None:
        """Take somebody out."""
        talk_id, talk = self.which(pick)
        self.take_out(talk_id, self.somebody(person, talk), self.actor(who, talk))

    @step(1, pick=some, person=some)
    def leave(self, pick: int, person: int) -> None:
        """Leave."""
        talk_id, talk = self.which(pick)
        user = self.somebody(person, talk)
        self.take_out(talk_id, user, user)

    def take_out(self, talk_id: UUID, user: str, actor: str | None) -> None:
        """Remove a participant."""

        def check(rev: int, expected: int) -> None:
            assert rev == expected

        self.both(
            people_verbs.remove_participant(self.database, talk_id, user, actor),
            lambda: self.record.remove(talk_id, actor, user),
            check,
        )
        self.look(talk_id)

    @step(1, pick=some, who=actors, role=one_of("member", "viewer"), uses=one_of(None, 1))
    def invite(self, pick: int, who: str, role: str, uses: int | None) -> None:
        """Make an invitation."""
        talk_id, talk = self.which(pick)
        actor = self.actor(who, talk)

        def check(made: people_verbs.Invited, invitation: Invitation) -> None:
            self.tokens.append((talk_id, invitation, made.token))

        self.both(
            people_verbs.invite(self.database, talk_id, actor, role=role, max_uses=uses),
            lambda: self.record.invite(talk_id, actor, role, uses),
            check,
        )
        self.look(talk_id)

    @step(2, pick=some, person=one_of(*PEOPLE))
    def accept(self, pick: int, person: str) -> None:
        """Come in by an invitation."""
        if not self.tokens:
            return
        talk_id, invitation, token = self.tokens[pick % len(self.tokens)]
        user = self.user(person)

        def check(found: UUID, talk: Talk) -> None:
            assert found == talk.id

        self.both(
            people_verbs.accept(self.database, token, user),
            lambda: self.record.accept(talk_id, invitation, user),
            check,
        )
        self.look(talk_id)

    @step(3, pick=some, person=some, at=some)
    def read(self, pick: int, person: int, at: int) -> None:
        """Say up to where somebody has read."""
        talk_id, talk = self.which(pick)
        user, seq = self.somebody(person, talk), self.seq(at, talk)

        def check(mark: people_verbs.Mark, expected: tuple[int, int]) -> None:
            assert tuple(mark) == expected

        self.both(
            people_verbs.read_upto(self.database, talk_id, user, seq),
            lambda: self.record.read(talk_id, user, seq),
            check,
        )
        self.look(talk_id)

    @step(2, pick=some, person=some, at=some, rating=one_of(1, -1, None))
    def rate(self, pick: int, person: int, at: int, rating: int | None) -> None:
        """Give a thumb to a message or to the conversation, or take it back."""
        talk_id, talk = self.which(pick)
        user, seq = self.somebody(person, talk), self.seq(at, talk)
        whole = seq or None

        async def do() -> None:
            if rating is None:
                await feedback_verbs.unrate(self.database, talk_id, whole, user)
            else:
                await feedback_verbs.rate(self.database, talk_id, whole, user, rating)

        self.both(do(), lambda: self.record.rate(talk_id, user, seq, rating), lambda _, __: None)
        self.look(talk_id)

    # -- subjects

    @step(
        2,
        person=one_of(*PEOPLE[:2]),
        subject=one_of("maths", "music"),
        chosen=one_of(None, 101, 102),
        draft=number(0, 1),
        agent=one_of(None, None, AGENT),
    )
    def say(
        self, person: str, subject: str, chosen: int | None, draft: int, agent: UUID | None
    ) -> None:
        """Speak on a subject: where it goes is found, or made."""
        user = self.user(person)
        speaker = Speaker(user, user, None, user)
        message_id = None if chosen is None else UUID(int=chosen)
        own = msgspec.structs.replace(DRAFTS[draft], id=message_id)
        made: list[UUID] = []

        async def do() -> subject_verbs.Said:
            said = await subject_verbs.say(
                self.database, subject, own, user, speaker, agent_id=agent
            )
            if said.created:
                made.append(said.appended.conversation_id)
            return said

        def check(said: subject_verbs.Said, expected: tuple[Talk, Line, bool]) -> None:
            talk, line, created = expected
            assert said.appended.conversation_id == talk.id
            assert said.created == created
            self.same(said.appended.messages(), [line])
            made[:] = [talk.id]

        self.both(
            do(),
            lambda: self.record.say(subject, speaker, own, agent, made[0] if made else None),
            check,
        )
        if made and made[0] not in self.ever:
            self.ever.append(made[0])
        self.look(*made)

    # -- forgetting

    @step(0.5, person=one_of(*PEOPLE))
    def forget(self, person: str) -> None:
        """Forget somebody, who may come again as somebody new."""
        user = self.user(person)
        named = [talk.id for talk in self.record.named_in(user)]
        nobody: dict[UUID, str] = {}

        async def do() -> ForgottenAccount:
            account = await forget_user(self.database, user)
            for talk_id in named:
                nobody[talk_id] = await self.name_of(user, talk_id)
            return account

        def check(account: ForgottenAccount, expected: tuple[int, int]) -> None:
            assert (account.erased, account.anonymous) == expected

        self.both(do(), lambda: self.record.forget(user, nobody), check)
        self.look(*named)

    async def name_of(self, user: str, talk_id: UUID) -> str:
        """What somebody who was forgotten is called where they wrote."""
        for line in self.record.talks[talk_id].lines:
            if not line.names(user):
                continue
            try:
                shown = await self.world.g.messages.get(talk_id, line.seq)
            except Gone:
                break
            if line.author == user:
                return str(shown.author_id)
            if line.written_by == user:
                return shown.written_by
            if not line.deleted:
                return str(shown.metadata["user_id"])
        return "nobody"

    # -- time

    @step(1, minutes=one_of(4, 11))
    def time_passes(self, minutes: int) -> None:
        """All activity so far was some minutes earlier: lists are sorted under older times."""

        async def do() -> None:
            async with self.database.slots.use() as slot:
                live = await slot.open()
                earlier = "listed_at = listed_at - $1 * interval '1 minute'"
                await live.execute(
                    f"update conversations set {earlier},"
                    " updated_at = updated_at - $1 * interval '1 minute'",
                    minutes,
                )
                await live.execute(f"update listings set {earlier}", minutes)

        self.world.run(do())
        self.look()
