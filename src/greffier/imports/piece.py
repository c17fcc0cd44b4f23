"""What was read, on its way to the record: conversations in pieces, messages as checked rows."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import tzinfo
from typing import Any, Final
from uuid import UUID

import msgspec

from greffier.errors import Invalid, PayloadTooLarge
from greffier.imports.account import Fault, Place
from greffier.imports.scrub import UnfitError
from greffier.model.conversation import NewConversation
from greffier.model.draft import Checked, Speaker, check
from greffier.model.limits import IMPORT
from greffier.model.message import Draft

#: The metadata key that tells how many messages before this one could not be kept.
GAP: Final = "greffier:gap"


@dataclass(frozen=True, slots=True)
class Options:
    """How to import.

    Attributes:
        owner: Whose the conversations are; own exports keep their owner without it.
        nobody: Whose they are when neither is said.
        form: ``auto``, or the one format that is accepted: ``openai`` or ``greffier``.
        zone: What times without an offset are meant in; without it they are left out.
        origin: A name that keeps equal ids of different systems apart.
    """

    owner: str | None = None
    nobody: str = "local"
    form: str = "auto"
    zone: tzinfo | None = None
    origin: str = ""


@dataclass(slots=True)
class Talk:
    """A conversation as its source says it; shared by all of its pieces."""

    new: NewConversation
    id: UUID
    owner: str
    place: Place
    #: to be archived at its end
    archived: bool = False
    #: how an own export is compared: ids are true ones, and texts may have been edited
    own: bool = False
    #: rows of it that were stored, or not, so far
    rows: int = 0


@dataclass(frozen=True, slots=True)
class Item:
    """A message that may be stored, and where it came from."""

    checked: Checked
    place: Place
    raw: Any
    altered: frozenset[str]


@dataclass(slots=True)
class Piece:
    """Some rows of a source, in order, all of one conversation (or of none: then only faults)."""

    talk: Talk | None
    read: int = 0
    size: int = 0
    items: list[Item] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    #: rows left out by a policy
    deletions: list[str] = field(default_factory=list)
    #: what was changed of the conversation itself
    altered: Counter[str] = field(default_factory=Counter)
    #: nothing of this conversation follows
    last: bool = True


def item(
    draft: Draft, speaker: Speaker, gap: int, place: Place, raw: Any, altered: set[str]
) -> Item:
    """Check a draft as an import does, and note how many before it are missing.

    Raises:
        UnfitError: It breaks a rule, or is too large.
    """
    if gap:
        draft = msgspec.structs.replace(draft, metadata={**(draft.metadata or {}), GAP: gap})
    try:
        checked = check(draft, speaker, limits=IMPORT, lenient=True)
        return Item(checked, place, raw, frozenset(altered))
    except Invalid as error:
        code = error.problems[0].code if error.problems else error.code
        raise UnfitError(code, error.detail) from error
    except PayloadTooLarge as error:
        raise UnfitError("too-large", error.detail) from error
