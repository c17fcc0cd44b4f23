"""A conversation beside a plain model of it: lists of numbers instead of ranges and locks."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from uuid import UUID

from hypothesis import strategies as st

from greffier.library import Greffier
from greffier.model.message import Draft

#: What may happen to a conversation; numbers choose among what is there, see ``Talk.take``.
steps = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.integers(1, 6)),
        st.tuples(st.just("rewind"), st.integers(0, 30)),
        st.tuples(st.just("activate"), st.integers(0, 5)),
        st.tuples(st.just("delete"), st.integers(0, 30)),
        st.tuples(st.just("erase"), st.integers(0, 30)),
        st.tuples(st.just("edit"), st.integers(0, 30)),
    ),
    min_size=1,
    max_size=12,
)


class Talk:
    """One conversation, and what it should be."""

    def __init__(self, g: Greffier, id_: UUID) -> None:
        self._g = g
        self.id = id_
        self.last = 0
        self.path: list[int] = []
        self.texts: dict[int, str | None] = {}
        self.deleted: set[int] = set()
        self.branches: list[tuple[UUID, list[int]]] = []

    @classmethod
    async def new(cls, g: Greffier) -> Talk:
        """Begin one."""
        return cls(g, (await g.conversations.create(owner="ada")).id)

    async def append(self, *contents: str) -> None:
        """Say something."""
        await self.append_drafts([Draft(content=content) for content in contents])

    async def append_drafts(self, drafts: list[Draft]) -> None:
        """Put messages on record."""
        for message in await self._g.messages.append_many(self.id, drafts):
            self.last += 1
            assert message.seq == self.last
            assert message.parent_seq == (self.path[-1] if self.path else None)
            self.path.append(self.last)
            self.texts[self.last] = message.content

    async def rewind(self, after: int) -> None:
        """Take everything after a message of the path off it."""
        cut = [seq for seq in self.path if seq > after]
        removed = await self._g.messages.rewind(self.id, after_seq=after)
        assert removed == len([seq for seq in cut if seq not in self.deleted])
        if cut:
            await self._keep(self.path)
            self.path = [seq for seq in self.path if seq <= after]

    async def activate(self, which: int) -> None:
        """Bring a branch back."""
        if not self.branches:
            return
        id_, path = self.branches.pop(which % len(self.branches))
        await self._g.conversations.activate(self.id, id_)
        if self.path:
            await self._keep(self.path)
        self.path = list(path)

    async def _keep(self, path: list[int]) -> None:
        known = {id_ for id_, _ in self.branches}
        (new,) = [b for b in await self._g.conversations.branches(self.id) if b.id not in known]
        assert [seq for lo, hi in new.path for seq in range(lo, hi + 1)] == path
        self.branches.append((new.id, list(path)))

    async def delete(self, seq: int, *, erase: bool = False) -> None:
        """Delete or erase a message."""
        await self._g.messages.delete(self.id, seq, erase=erase)
        self.deleted.add(seq)

    async def edit(self, seq: int, content: str) -> None:
        """Give a message that has words other ones."""
        if seq not in self.deleted and self.texts[seq]:
            await self._g.messages.edit(self.id, seq, content)
            self.texts[seq] = content

    async def take(self, steps: Iterable[Any]) -> None:
        """Go through steps; one that finds nothing to do does nothing."""
        for what, number in steps:
            if what == "append":
                await self.append(*(f"{self.last}+{n}" for n in range(number)))
            elif what == "rewind":
                await self.rewind(([0, *self.path])[number % (len(self.path) + 1)])
            elif what == "activate":
                await self.activate(number)
            elif self.last:
                seq = number % self.last + 1
                if what == "edit":
                    await self.edit(seq, f"edited {seq}")
                else:
                    await self.delete(seq, erase=what == "erase")
