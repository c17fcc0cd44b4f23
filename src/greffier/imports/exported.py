"""Greffier's own export as pieces, however long the conversation is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Final

from greffier.imports import own
from greffier.imports.account import Fault, Place
from greffier.imports.piece import Piece, Talk, item
from greffier.imports.scrub import UnfitError
from greffier.imports.values import Value
from greffier.model.conversation import NewConversation

#: A piece of an own export: so many messages at most, of so many bytes.
PIECE_MESSAGES: Final = 100
PIECE_BYTES: Final = 1 << 20


class Exported:
    """An own export being read: hands on its messages a piece at a time."""

    def __init__(self, head: own.OwnConversation, owner: str | None, place: Place) -> None:
        self.head = head
        owner = owner or head.owner_id
        subject, metadata = head.subject, head.metadata
        altered: Counter[str] = Counter()
        if subject is not None and head.archived_at is not None:
            # It gave its subject back. To take it for as long as this goes on would take it from
            # the conversation that has it, which may stand in the same file.
            subject, metadata = None, {own.SEEN: {"subject": subject}, **metadata}
            altered["archived-subject"] += 1
        self._talk = Talk(
            NewConversation(
                id=head.id_for(owner),
                kind=head.kind,
                title=head.title,
                subject=subject,
                agent_id=head.agent_id,
                history_limit=head.history_limit,
                metadata=metadata,
            ),
            head.id_for(owner),
            owner,
            place,
            archived=head.archived_at is not None,
            own=True,
        )
        self._piece = Piece(self._talk, last=False, altered=altered)
        self._gap = 0

    def message(self, found: Value) -> Iterator[Piece]:
        """Take the next message; gives a piece when one is full."""
        piece = self._piece
        piece.read += 1
        piece.size += found.size
        try:
            made = own.draft(found.value, was_owner=self.head.owner_id, owner=self._talk.owner)
            if made is None:
                piece.deletions.append("deleted-in-source")
            else:
                draft, speaker, altered = made
                piece.items.append(
                    item(draft, speaker, self._gap, found.place, found.value, altered)
                )
                self._gap = 0
        except UnfitError as error:
            self._gap += 1
            piece.faults.append(Fault(found.place, error.reason, error.detail, raw=found.value))
        yield from self._full()

    def fault(self, fault: Fault) -> Iterator[Piece]:
        """Take a row that could not be read, where a message should be."""
        self._piece.read += 1
        self._piece.faults.append(fault)
        self._gap += 1
        yield from self._full()

    def take(self, *, last: bool) -> Piece:
        """Hand on what there is."""
        piece, self._piece = self._piece, Piece(self._talk, last=False)
        piece.last = last
        return piece

    def _full(self) -> Iterator[Piece]:
        if self._piece.read >= PIECE_MESSAGES or self._piece.size >= PIECE_BYTES:
            yield self.take(last=False)
