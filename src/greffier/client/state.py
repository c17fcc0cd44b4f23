"""What a client shows of one conversation: a pure state that cannot flicker.

The state is ``base``, what the record looked like at one rev, and what is the person's own and not
in it yet.  Every event gives a new state; ``ask`` says what the state still needs.  It promises:

- ``rev`` never goes back within an epoch: what is older than what is known changes nothing.
- A message the person sent is shown from the moment they sent it, whatever answers arrive in
  whatever order, until the record shows it, or it is refused for good, or leaves the path.  It is
  never shown twice.
- A gap is never applied over: the state asks for what is between.

No clock, no I/O.  ``tests/cases/client`` holds its cases, which the web app's twin runs too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeAlias
from uuid import UUID

import msgspec

from greffier.client.wire import Change
from greffier.model.conversation import Conversation
from greffier.model.message import Draft, Message
from greffier.model.page import Page
from greffier.read.people import Participant

Messages: TypeAlias = Mapping[int, Message]


@dataclass(frozen=True, slots=True)
class AskPage:
    """Read the latest page: there is nothing to continue from."""


@dataclass(frozen=True, slots=True)
class AskChanges:
    """Ask what changed since this rev."""

    since: int


@dataclass(frozen=True, slots=True)
class Stretch:
    """A run of a conversation's active path, complete from ``low`` on, as of one rev."""

    rev: int
    low: int
    has_before: bool
    messages: Messages

    @classmethod
    def of(cls, page: Page) -> Stretch:
        """Take a page; without anything before it, it is complete from the start."""
        low = page.data[0].seq if page.has_before and page.data else 0
        return cls(page.rev, low, page.has_before, {one.seq: one for one in page.data})

    def apply(self, change: Change) -> Stretch:
        """Bring it to a change's rev; what lies before ``low`` was never loaded and stays out."""
        kept = {seq: one for seq, one in self.messages.items() if not within(seq, change)}
        kept |= {one.seq: one for one in change.messages if one.seq >= self.low}
        return replace(self, rev=change.rev, messages=dict(sorted(kept.items())))


def within(seq: int, change: Change) -> bool:
    """Say whether a seq lies in a stretch that left the path."""
    return any(low <= seq <= high for low, high in change.superseded)


def fits(change: Change, rev: int) -> bool:
    """Say whether a change applies to who is at this rev."""
    return change.since <= rev < change.rev


@dataclass(frozen=True)
class State:
    """A conversation as one person's client knows it; ``State()`` knows nothing yet.

    Attributes:
        epoch: The history its revs belong to.
        base: The record as of ``rev``; None before the first page.
        continues: Whether changes may be applied to the base; not after a reset.
        heard: The highest rev anybody told us of.
        ahead: The same of a history that we have no page of yet.
        older: An earlier page that was read at another rev and waits to be joined to the base.
        pending: What the person sent and nobody acknowledged yet, in the order they sent it.
        acknowledged: What is on record and not in the base yet, with the rev it is in.
        cut: The person's own rewind that is not in the base yet: (after_seq, rev).
        revoked: They may see no more of it.
    """

    epoch: str | None = None
    base: Stretch | None = None
    continues: bool = False
    heard: int = 0
    ahead: tuple[str, int] | None = None
    older: Stretch | None = None
    pending: tuple[Draft, ...] = ()
    acknowledged: Mapping[UUID, tuple[Message, int]] = field(default_factory=dict)
    cut: tuple[int, int] | None = None
    conversation: Conversation | None = None
    participants: tuple[Participant, ...] = ()
    revoked: bool = False
    former: frozenset[str] = frozenset()

    # -- what it is ----------------------------------------------------------------------------

    @property
    def rev(self) -> int:
        """The rev of the record that is shown."""
        return self.base.rev if self.base is not None else 0

    @property
    def ask(self) -> AskPage | AskChanges | None:
        """What has to be asked for now; the same question need not be asked twice at once."""
        if self.revoked:
            return None
        if self.base is None or not self.continues:
            return AskPage()
        if self.older is not None and self.older.rev < self.base.rev:
            return AskChanges(self.older.rev)
        if self.heard > self.base.rev or self.older is not None:
            return AskChanges(self.base.rev)
        return None

    @property
    def view(self) -> tuple[Message | Draft, ...]:
        """What is shown, in order: what is on record, then what is on its way to it."""
        if self.revoked:
            return ()
        shown = dict(self.base.messages) if self.base is not None else {}
        if self.cut is not None:
            after, rev = self.cut
            shown = {seq: one for seq, one in shown.items() if seq <= after or one.rev >= rev}
        for one, _ in self.acknowledged.values():
            shown[one.seq] = one
        return (*(shown[seq] for seq in sorted(shown)), *self.pending)

    # -- what comes from the server ------------------------------------------------------------

    def snapshot(self, page: Page) -> State:
        """Take the latest page, however it came: by HTTP, with a join, from a cache."""
        if self.revoked or page.epoch in self.former:
            return self
        if self.epoch != page.epoch:
            heard = self.ahead[1] if self.ahead and self.ahead[0] == page.epoch else 0
            fresh = State(epoch=page.epoch, heard=heard, pending=self.pending)
            if self.epoch is None:
                # What was acknowledged before the first page is of its history.
                fresh = replace(fresh, acknowledged=self.acknowledged, cut=self.cut)
            else:
                # Numbers of another say nothing here; what is unsent stays the person's own.
                fresh = replace(fresh, former=self.former | {self.epoch})
            floor = max((rev for _, rev in fresh.acknowledged.values()), default=0)
            return _based(fresh, Stretch.of(page)).hears(page.epoch, floor)
        taken = Stretch.of(page)
        if self.base is None or not self.continues:
            return self if page.rev < self.rev else _based(replace(self, older=None), taken)
        if page.rev <= self.rev:
            return self
        if taken.low <= self.base.low:
            return _based(replace(self, older=None), taken)
        # It would take away what is shown above it; what is between is asked for instead.
        return self.hears(page.epoch, page.rev)

    def earlier(self, before: int, page: Page) -> State:
        """Take the page before a seq, asked for because somebody scrolled up to the first shown."""
        base = self.base
        if self.revoked or page.epoch != self.epoch or not self.continues:
            return self
        if base is None or before != base.low:
            # The base has got another beginning meanwhile: a hole would lie between.
            return self
        return _joined(replace(self, older=Stretch.of(page)))

    def change(self, change: Change) -> State:
        """Take a change, live or as an answer to ``ask``."""
        if self.revoked or change.epoch in self.former:
            return self
        state = self.hears(change.epoch, change.rev)
        if change.reset:
            return replace(state, continues=False, older=None)
        if self.base is None or not state.continues:
            return state
        older = self.older
        if older is not None and fits(change, older.rev):
            state = replace(state, older=older.apply(change))
        if fits(change, self.rev):
            state = _based(_told(state, change), self.base.apply(change))
        return _joined(state)

    def hears(self, epoch: str, rev: int) -> State:
        """Hear that the conversation has reached a rev (``positions``)."""
        if epoch in self.former:
            return self
        if epoch != self.epoch:
            # Another history: nothing of it can be applied to what is shown.
            known = self.ahead[1] if self.ahead and self.ahead[0] == epoch else 0
            return replace(self, continues=False, older=None, ahead=(epoch, max(known, rev)))
        return self if rev <= self.heard else replace(self, heard=rev)

    def describes(self, conversation: Conversation) -> State:
        """Take the conversation itself; ``me`` of a broadcast is nobody's and is not taken."""
        known = self.conversation
        if known is None or conversation.epoch != known.epoch:
            return replace(self, conversation=conversation)
        if conversation.rev < known.rev:
            return self
        if conversation.me is None:
            conversation = msgspec.structs.replace(conversation, me=known.me)
        return replace(self, conversation=conversation)

    def reset(self) -> State:
        """Start again from a page; what is shown stays until it comes."""
        return replace(self, continues=False, older=None, revoked=False)

    def revoke(self) -> State:
        """Show nothing any more: the person was taken out, or it was erased."""
        return State(epoch=self.epoch, revoked=True, former=self.former)

    # -- what the person does ------------------------------------------------------------------

    def send(self, draft: Draft) -> State:
        """Show what the person sends, at once; its id is theirs."""
        if draft.id is None:
            raise ValueError("What is shown before it is stored needs an id.")
        if self._knows(draft.id):
            return self
        return replace(self, pending=(*self.pending, draft))

    def acknowledge(self, message: Message, rev: int) -> State:
        """Hear that a write is on record: a message as it now stands, and the rev it is in."""
        state = replace(self, pending=_without(self.pending, {message.id}))
        if self.revoked:
            return state
        known = self.acknowledged.get(message.id)
        # What the base has reached, it shows, or it left the path: nothing is to be laid over it.
        if rev > self.rev and (known is None or known[1] <= rev):
            state = replace(state, acknowledged={**self.acknowledged, message.id: (message, rev)})
        if self.epoch is not None:
            state = state.hears(self.epoch, rev)
        return state

    def rewind(self, after_seq: int, rev: int) -> State:
        """Hear that the person's own rewind is on record."""
        if rev <= self.rev or self.revoked:
            return self
        kept = {
            i: (m, r) for i, (m, r) in self.acknowledged.items() if m.seq <= after_seq or r > rev
        }
        state = replace(self, cut=(after_seq, rev), acknowledged=kept)
        return state if self.epoch is None else state.hears(self.epoch, rev)

    def fail(self, message_id: UUID, *, definite: bool) -> State:
        """Hear that a send failed; what may have been stored stays, and is sent again."""
        if not definite:
            return self
        return replace(self, pending=_without(self.pending, {message_id}))

    def _knows(self, message_id: UUID) -> bool:
        if message_id in self.acknowledged or any(one.id == message_id for one in self.pending):
            return True
        return self.base is not None and message_id in _ids(self.base.messages)


def _based(state: State, base: Stretch) -> State:
    """Stand on this base: what of the person's own is in it is laid over it no more."""
    ids = _ids(base.messages)
    return replace(
        state,
        base=base,
        continues=True,
        heard=max(state.heard, base.rev),
        pending=_without(state.pending, ids),
        acknowledged={i: kept for i, kept in state.acknowledged.items() if kept[1] > base.rev},
        cut=state.cut if state.cut is not None and state.cut[1] > base.rev else None,
    )


def _told(state: State, change: Change) -> State:
    if change.conversation is not None:
        state = state.describes(change.conversation)
    if change.participants is not None:
        state = replace(state, participants=tuple(change.participants))
    return state


def _joined(state: State) -> State:
    """Join the earlier page to the base once both are of the same rev."""
    older, base = state.older, state.base
    if older is None or base is None or older.rev != base.rev:
        return state
    joined = Stretch(base.rev, older.low, older.has_before, {**older.messages, **base.messages})
    return _based(replace(state, older=None), joined)


def _ids(messages: Messages) -> set[UUID]:
    return {one.id for one in messages.values()}


def _without(pending: tuple[Draft, ...], ids: Iterable[UUID | None]) -> tuple[Draft, ...]:
    return tuple(one for one in pending if one.id not in ids)
