"""What a client shows of a person's list of conversations: a pure state that cannot flicker.

Which conversations are in the list is ordered by ``list_rev``; what a row says, by the row's own
``rev``.  A conversation the person just made is shown until the list itself shows it; one they just
left or erased is hidden until the list itself has dropped it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TypeAlias
from uuid import UUID

import msgspec

from greffier.client.wire import Activity, ListChange
from greffier.model.conversation import Conversation, NewConversation
from greffier.model.page import ConversationList

Rows: TypeAlias = Mapping[UUID, Conversation]


@dataclass(frozen=True)
class Listing:
    """A person's list as their client knows it; ``Listing()`` knows nothing yet.

    Attributes:
        epoch: The history its numbers belong to; None before the first row.
        list_rev: Which state of the list the rows are; -1 before the first page of it.
        heard: The highest list_rev anybody told us of.
        rows: What the list holds, as far as it was loaded.
        pending: What the person makes and nobody acknowledged yet.
        made: What they made and the list does not show yet.
        hidden: What they left or erased and the list may still show.
    """

    epoch: str | None = None
    list_rev: int = -1
    heard: int = 0
    rows: Rows = field(default_factory=dict)
    pending: tuple[NewConversation, ...] = ()
    made: Rows = field(default_factory=dict)
    hidden: frozenset[UUID] = frozenset()
    former: frozenset[str] = frozenset()

    @property
    def ask(self) -> bool:
        """Whether the newest page of the list has to be read."""
        return self.heard > self.list_rev

    @property
    def view(self) -> tuple[Conversation | NewConversation, ...]:
        """What is shown: what is on its way first, then by last activity."""
        shown = {i: one for i, one in {**self.made, **self.rows}.items() if i not in self.hidden}
        rows = sorted(shown.values(), key=_order, reverse=True)
        return (*reversed(self.pending), *rows)

    # -- what comes from the server ------------------------------------------------------------

    def snapshot(self, page: ConversationList) -> Listing:
        """Take the newest page of the list, however late it comes."""
        epoch = page.data[0].epoch if page.data else self.epoch
        if epoch in self.former:
            return self
        if self.epoch is not None and epoch != self.epoch:
            # Numbers of another history say nothing here; what is unsent stays the person's own.
            fresh = Listing(pending=self.pending, former=self.former | {self.epoch})
            return fresh.snapshot(page)
        if page.list_rev < self.list_rev:
            # It may know newer rows, and nothing of which rows there are.
            known = [one for one in page.data if one.id in self.rows]
            return replace(self, rows=_merged(self.rows, known))
        rows = _merged(self.rows, page.data)
        shown = {one.id for one in page.data}
        # A row that would be within the page and is not has left the list.
        end = _order(page.data[-1]) if page.data and page.next_cursor is not None else None
        gone = {
            i for i, one in rows.items() if i not in shown and (end is None or _order(one) > end)
        }
        if page.list_rev == self.list_rev:
            # The same list, read while conversations in it moved: a row that fell out of the
            # page's end only looks as if it were gone.
            gone = set()
        return replace(
            self,
            epoch=epoch,
            list_rev=page.list_rev,
            heard=max(self.heard, page.list_rev),
            rows={i: one for i, one in rows.items() if i not in gone},
            pending=tuple(one for one in self.pending if one.id not in shown),
            made={i: one for i, one in self.made.items() if i not in shown},
            hidden=self.hidden & (shown | set(rows)) if page.next_cursor is None else self.hidden,
        )

    def change(self, change: ListChange) -> Listing:
        """Take a change of the list: it applies when ``since ≤ mine < list_rev``."""
        if change.conversations and change.conversations[0].epoch in self.former:
            return self
        state = replace(self, heard=max(self.heard, change.list_rev))
        if not change.since <= self.list_rev < change.list_rev:
            return state
        removed = set(change.removed)
        listed = [one for one in change.conversations if one.archived_at is None]
        away = {one.id for one in change.conversations if one.archived_at is not None} | removed
        here = {one.id for one in listed}
        rows = _merged({i: one for i, one in self.rows.items() if i not in away}, listed)
        return replace(
            state,
            list_rev=change.list_rev,
            rows=rows,
            pending=tuple(one for one in self.pending if one.id not in here),
            made={i: one for i, one in self.made.items() if i not in here | away},
            hidden=self.hidden - removed - here,
        )

    def activity(self, activity: Activity) -> Listing:
        """Hear that a conversation moved; one older than its row says nothing."""
        for rows, name in ((self.rows, "rows"), (self.made, "made")):
            row = rows.get(activity.conversation_id)
            if row is None or activity.rev <= row.rev:
                continue
            last = activity.last_message
            moved = msgspec.structs.replace(
                row,
                rev=activity.rev,
                last_message=last,
                updated_at=max(row.updated_at, last.created_at) if last else row.updated_at,
                me=row.me and msgspec.structs.replace(row.me, unread=activity.unread),
            )
            after = {**rows, row.id: moved}
            return replace(self, rows=after) if name == "rows" else replace(self, made=after)
        return self

    # -- what the person does ------------------------------------------------------------------

    def create(self, new: NewConversation) -> Listing:
        """Show what the person makes, at once; its id is theirs."""
        if new.id is None:
            raise ValueError("What is shown before it is stored needs an id.")
        if new.id in self.rows or new.id in self.made or any(p.id == new.id for p in self.pending):
            return self
        return replace(self, pending=(*self.pending, new))

    def acknowledge(self, conversation: Conversation) -> Listing:
        """Hear that what the person made or changed is on record."""
        pending = tuple(one for one in self.pending if one.id != conversation.id)
        state = replace(self, pending=pending)
        if conversation.id in self.rows:
            return replace(state, rows=_merged(self.rows, [conversation]))
        return replace(state, made=_merged(self.made, [conversation]))

    def fail(self, conversation_id: UUID, *, definite: bool) -> Listing:
        """Hear that making one failed; what may have been stored stays."""
        if not definite:
            return self
        return replace(
            self, pending=tuple(one for one in self.pending if one.id != conversation_id)
        )

    def hide(self, conversation_id: UUID) -> Listing:
        """Hear that the person's leaving or erasing is on record."""
        made = {i: one for i, one in self.made.items() if i != conversation_id}
        return replace(self, made=made, hidden=self.hidden | {conversation_id})


def _order(row: Conversation) -> tuple[object, UUID]:
    return row.updated_at, row.id


def _merged(rows: Rows, newer: list[Conversation]) -> dict[UUID, Conversation]:
    """Lay rows over rows: of two with one id the later rev stays, and ``me`` if it has none."""
    merged = dict(rows)
    for one in newer:
        known = merged.get(one.id)
        if known is not None and known.epoch == one.epoch:
            if one.rev < known.rev:
                continue
            if one.me is None:
                one = msgspec.structs.replace(one, me=known.me)  # noqa: PLW2901
        merged[one.id] = one
    return merged
