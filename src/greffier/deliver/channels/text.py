"""A message in words, for channels that people read."""

from __future__ import annotations

import unicodedata

import msgspec

from greffier.deliver.channels.protocol import Outgoing, one_line
from greffier.model.message import Message
from greffier.read.formats import attachments

_message = msgspec.json.Decoder(Message).decode
#: What must not be parted from the character before it: accents, joiners, variants, skin tones.
_CLINGS = frozenset(("Mn", "Me", "Mc", "Cf", "Sk"))
_JOINER = "\u200d"


def words(outgoing: Outgoing) -> str:
    """Say what a person reads of a message: who said it, if a person did, its text, its links.

    Calls of tools and their results are for programs: a message of nothing else has no words.
    """
    message = _message(outgoing.message)
    if message.role == "tool" or message.deleted_at is not None:
        return ""
    pieces = [message.content.strip()] if message.content else []
    pieces += [f"[{one}]" for one in attachments(message)]
    text = "\n\n".join(piece for piece in pieces if piece)
    who = one_line(message.author_name or message.author_id or "", 100)
    return f"{who}:\n{text}" if text and who and message.role == "user" else text


def silent(outgoing: Outgoing) -> str | None:
    """Say why a channel for people has nothing to send, if so."""
    return None if words(outgoing) else "It has no words for people."


def units(text: str) -> int:
    """Count as UTF-16 does, which is how Telegram measures."""
    return len(text) + sum(char > "\uffff" for char in text)


def cut(text: str, longest: int) -> list[str]:
    """Cut a text into pieces of at most so many UTF-16 units, where it hurts least.

    At the last empty line, else line, else blank of a piece's second half; else between two
    characters as people see them.  Blanks at a cut are left out, everything else is kept.
    """
    pieces: list[str] = []
    rest = text.strip()
    while units(rest) > longest:
        at = _fitting(rest, longest)
        for mark in ("\n\n", "\n", " "):
            found = rest.rfind(mark, at // 2, at)
            if found > 0:
                at = found
                break
        else:
            at = _between(rest, at)
        pieces.append(rest[:at].rstrip())
        rest = rest[at:].lstrip()
    return [piece for piece in (*pieces, rest) if piece]


def _fitting(text: str, longest: int) -> int:
    """How many characters make at most so many units."""
    size = 0
    for index, char in enumerate(text):
        size += 2 if char > "\uffff" else 1
        if size > longest:
            return index
    return len(text)


def _between(text: str, at: int) -> int:
    """The nearest place before that parts no character from what belongs to it."""
    # 64: a pile of accents as high as that is no word, and a cut has to be somewhere.
    for place in range(at, max(at - 64, 0), -1):
        clings = unicodedata.category(text[place]) in _CLINGS
        if not clings and text[place - 1] != _JOINER:
            return place
    return at
