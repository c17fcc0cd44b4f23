"""The client's state cannot flicker: whatever comes, in whatever order, however often and late.

A model of the server gives answers as of any moment; the network keeps every one of them and hands
them over in any order, again and again.  The client does only what its state asks for.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from greffier.client.state import AskChanges, AskPage, State
from greffier.client.wire import Change
from greffier.model.message import Draft, Message
from greffier.model.page import Page
from helpers import cases

#: Messages of a page: small, so that windows and their edges are met.
PAGE = 3


@dataclass
class Server:
    """A conversation, and what it was at each rev."""

    active: dict[int, Message] = field(default_factory=dict)
    last_seq: int = 0
    states: list[dict[int, Message]] = field(default_factory=lambda: [{}])
    left: list[set[int]] = field(default_factory=lambda: [set()])

    @property
    def rev(self) -> int:
        """The rev it has reached."""
        return len(self.states) - 1

    def commit(self, gone: set[int] = frozenset()) -> int:  # type: ignore[assignment]
        """Remember what it is now as the next rev."""
        self.states.append(dict(self.active))
        self.left.append(set(gone))
        return self.rev

    def append(self, name: str) -> Message:
        """Put a message on record; the same one again is found."""
        for state in self.states:
            for one in state.values():
                if one.id == cases.long(name):
                    return one
        self.last_seq += 1
        said = cases.message([self.last_seq, name, self.rev + 1])
        self.active[said.seq] = said
        self.commit()
        return said

    def edit(self, seq: int, content: str) -> Message:
        """Give a message another text."""
        edited = msgspec.structs.replace(self.active[seq], content=content, rev=self.rev + 1)
        self.active[seq] = edited
        self.commit()
        return edited

    def rewind(self, after: int) -> int:
        """Take what follows off the path."""
        gone = {seq for seq in self.active if seq > after}
        for seq in gone:
            del self.active[seq]
        return self.commit(gone)

    def page(self, before: int | None = None) -> Page:
        """A page as of now."""
        seqs = [seq for seq in self.active if before is None or seq < before]
        shown = seqs[-PAGE:]
        page = cases.page(self.rev, [], has_before=len(seqs) > len(shown))
        return msgspec.structs.replace(page, data=[self.active[seq] for seq in shown])

    def change(self, since: int, upto: int) -> Change:
        """What happened between two revs, as of the latter."""
        before, after = self.states[since], self.states[upto]
        gone = set().union(*self.left[since + 1 : upto + 1]) - set(after)
        told = [one for seq, one in sorted(after.items()) if before.get(seq) != one]
        change = cases.change(since, upto, [], superseded=[[seq, seq] for seq in sorted(gone)])
        return msgspec.structs.replace(change, messages=told)


class Client(RuleBasedStateMachine):
    """One client, one server, and a network that loses nothing and orders nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.server = Server()
        self.state = State()
        self.answers: list[Any] = []
        self.sent: list[str] = []
        self.number = 0
        self.rev = 0

    def after(self, state: State) -> None:
        """Take a new state, whose rev is never below the one before."""
        assert state.rev >= self.state.rev
        self.state = state

    def name(self, stem: str) -> str:
        """A name that is new."""
        self.number += 1
        return f"{stem}{self.number}"

    @initialize(before=st.integers(0, 8), opened=st.booleans())
    def begin(self, before: int, opened: bool) -> None:
        """The conversation has some messages already, and perhaps the client has its page."""
        for _ in range(before):
            self.server.append(self.name("before"))
        if opened:
            self.state = self.state.snapshot(self.server.page())

    # -- what happens at the server

    @rule()
    def somebody_speaks(self) -> None:
        """Another's message."""
        self.server.append(self.name("other"))

    @precondition(lambda self: self.server.active)
    @rule(data=st.data())
    def somebody_edits(self, data: st.DataObject) -> None:
        """Any message gets another text."""
        self.server.edit(data.draw(st.sampled_from(sorted(self.server.active))), self.name("text"))

    @precondition(lambda self: self.server.active)
    @rule(data=st.data())
    def somebody_rewinds(self, data: st.DataObject) -> None:
        """The end of the path is left."""
        self.server.rewind(data.draw(st.sampled_from([0, *sorted(self.server.active)])))

    # -- what the person does

    @rule()
    def send(self) -> None:
        """Something new, shown at once."""
        name = self.name("mine")
        self.sent.append(name)
        self.after(self.state.send(cases.draft(name)))
        assert cases.long(name) in shown(self.state)

    @precondition(lambda self: self.sent)
    @rule(data=st.data())
    def a_send_is_stored(self, data: st.DataObject) -> None:
        """A request arrives, or arrives again; its answer goes on its way."""
        said = self.server.append(data.draw(st.sampled_from(self.sent)))
        self.answers.append(("acknowledge", said, said.rev))

    @precondition(lambda self: self.sent)
    @rule(data=st.data())
    def a_send_fails_without_a_word(self, data: st.DataObject) -> None:
        """A connection breaks: nobody knows."""
        name = data.draw(st.sampled_from(self.sent))
        self.after(self.state.fail(cases.long(name), definite=False))

    @precondition(lambda self: self.server.active)
    @rule(data=st.data())
    def edit(self, data: st.DataObject) -> None:
        """One's own edit."""
        seq = data.draw(st.sampled_from(sorted(self.server.active)))
        edited = self.server.edit(seq, self.name("my text"))
        self.answers.append(("acknowledge", edited, edited.rev))

    # -- what the network does

    @rule()
    def a_page_is_read(self) -> None:
        """Its answer is of this moment and comes when it comes."""
        self.answers.append(("snapshot", self.server.page()))

    @rule(data=st.data())
    def a_change_is_told(self, data: st.DataObject) -> None:
        """Of any stretch of revs, partial answers and old ones too."""
        near = st.integers(max(0, self.state.rev - 2), self.server.rev)
        since, upto = sorted((data.draw(near), data.draw(near)))
        self.answers.append(("change", self.server.change(since, upto)))

    @precondition(lambda self: self.state.base is not None and self.state.base.has_before)
    @rule()
    def an_earlier_page_is_read(self) -> None:
        """Somebody scrolls up."""
        assert self.state.base is not None
        low = self.state.base.low
        self.answers.append(("earlier", low, self.server.page(low)))

    @precondition(lambda self: self.answers)
    @rule(data=st.data())
    def answers_arrive(self, data: st.DataObject) -> None:
        """The latest, in any order; they may come again."""
        for event, *values in data.draw(st.permutations(self.answers[-5:])):
            self.after(getattr(self.state, event)(*values))

    @precondition(lambda self: self.answers)
    @rule(data=st.data())
    def an_old_answer_arrives(self, data: st.DataObject) -> None:
        """A request that hung comes back."""
        event, *values = data.draw(st.sampled_from(self.answers))
        self.after(getattr(self.state, event)(*values))

    @rule()
    def what_is_asked_for_comes(self) -> None:
        """The state asks, and the answer is fresh."""
        match self.state.ask:
            case AskPage():
                self.after(self.state.snapshot(self.server.page()))
            case AskChanges(since):
                self.after(self.state.change(self.server.change(since, self.server.rev)))

    @rule()
    def a_position_is_heard(self) -> None:
        """The server says where it is."""
        self.after(self.state.hears("e", self.server.rev))

    @rule()
    def start_again(self) -> None:
        """A position that cannot be continued."""
        self.after(self.state.reset())

    # -- what holds at all times

    @invariant()
    def the_base_is_what_the_server_was(self) -> None:
        """At its rev, from its lowest message on, nothing more and nothing less."""
        base = self.state.base
        if base is not None:
            expected = {s: one for s, one in self.server.states[base.rev].items() if s >= base.low}
            assert base.messages == expected

    @invariant()
    def nothing_is_shown_twice(self) -> None:
        """Neither an id nor a seq."""
        ids = shown(self.state)
        assert len(ids) == len(set(ids))
        seqs = [one.seq for one in self.state.view if isinstance(one, Message)]
        assert seqs == sorted(set(seqs))

    @invariant()
    def nothing_of_one_s_own_is_missing(self) -> None:
        """Everything sent is shown, unless it left the path or lies before what was loaded."""
        ids = set(shown(self.state))
        base = self.state.base
        for name in self.sent:
            if cases.long(name) in ids:
                continue
            (said,) = [
                one
                for one in {one.seq: one for s in self.server.states for one in s.values()}.values()
                if one.id == cases.long(name)
            ]
            assert base is not None
            left = any(said.seq in gone for gone in self.server.left)
            assert left or said.seq < base.low

    def teardown(self) -> None:
        """In the end, when everything asked for is answered, the view is the record."""
        state = self.state.hears("e", self.server.rev)
        for name in self.sent:
            said = self.server.append(name)
            state = state.acknowledge(said, said.rev)
        state = state.hears("e", self.server.rev)
        for _ in range(4):
            match state.ask:
                case AskPage():
                    state = state.snapshot(self.server.page())
                case AskChanges(since):
                    state = state.change(self.server.change(since, self.server.rev))
        assert state.ask is None
        assert state.base is not None
        low = state.base.low
        record = [one for seq, one in sorted(self.server.active.items()) if seq >= low]
        assert list(state.view) == record


def shown(state: State) -> list[UUID | None]:
    """The ids of what is shown."""
    return [one.id for one in state.view]


TestClient = Client.TestCase
TestClient.settings = settings(max_examples=100, stateful_step_count=50, deadline=None)


def test_what_was_sent_is_a_draft_until_it_is_on_record() -> None:
    """So that it can be shown as on its way."""
    state = State().snapshot(cases.page(1, [])).send(cases.draft("mine"))

    assert [type(one) for one in state.view] == [Draft]
