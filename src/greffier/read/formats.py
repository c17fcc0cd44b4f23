"""Forms a conversation is written out in: for programs (jsonl, json), for people (md, csv, html).

A form writes a head, one piece a message, and a tail.  What it writes is text and stays text: a
cell of the table cannot become a formula, and the page has no script, loads nothing, and shows
markup as the characters it is.
"""

from __future__ import annotations

import csv
import html
import io
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, Protocol, TypeAlias

import msgspec

from greffier.model.conversation import Conversation
from greffier.model.message import Message
from greffier.model.wire import rfc3339

Language: TypeAlias = Literal["en", "fr"]

_conversation = msgspec.json.Decoder(Conversation).decode
_message = msgspec.json.Decoder(Message).decode


class Form(Protocol):
    """One form, for one conversation; it is given the JSON of what it writes."""

    def head(self) -> bytes:
        """Begin, with the conversation."""
        ...

    def message(self, body: bytes) -> bytes:
        """Write the next message."""
        ...

    def tail(self) -> bytes:
        """End."""
        ...


@dataclass(slots=True)
class JsonLines:
    """The conversation on the first line, one message a line after it."""

    conversation: bytes

    def head(self) -> bytes:
        """Begin, with the conversation."""
        return b'{"conversation":' + self.conversation + b"}\n"

    def message(self, body: bytes) -> bytes:
        """Write the next message."""
        return body + b"\n"

    def tail(self) -> bytes:
        """End."""
        return b""


@dataclass(slots=True)
class Json:
    """One object: ``{"conversation": …, "messages": […]}``."""

    conversation: bytes
    _first: bool = True

    def head(self) -> bytes:
        """Begin, with the conversation."""
        return b'{"conversation":' + self.conversation + b',"messages":['

    def message(self, body: bytes) -> bytes:
        """Write the next message."""
        separator = b"" if self._first else b",\n"
        self._first = False
        return separator + body

    def tail(self) -> bytes:
        """End."""
        return b"]}\n"


@dataclass(frozen=True, slots=True)
class _Words:
    """What a person reads around the messages."""

    roles: dict[str, str]
    untitled: str
    deleted: str
    edited: str
    status: dict[str, str]
    calls: str
    reasoning: str
    attached: str


_WORDS: dict[str, _Words] = {
    "en": _Words(
        {"user": "User", "assistant": "Assistant", "tool": "Tool", "system": "System"},
        "Conversation",
        "This message was deleted.",
        "edited",
        {"interrupted": "interrupted", "cancelled": "cancelled", "failed": "failed"},
        "calls",
        "Reasoning",
        "attached",
    ),
    "fr": _Words(
        {"user": "Utilisateur", "assistant": "Assistant", "tool": "Outil", "system": "Système"},
        "Conversation",
        "Ce message a été supprimé.",
        "modifié",
        {"interrupted": "interrompu", "cancelled": "annulé", "failed": "échoué"},
        "appelle",
        "Raisonnement",
        "joint",
    ),
}


def _when(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _heading(message: Message, words: _Words) -> str:
    who = message.author_name or message.author_id or words.roles[message.role]
    marks = [words.edited] if message.edited_at else []
    if message.status in words.status:
        marks.append(words.status[message.status])
    return who + (f" ({', '.join(marks)})" if marks else "")


def attachments(message: Message) -> list[str]:
    """Where parts that are not text point to; shown as an address, never loaded."""
    found = []
    for part in message.parts or ():
        kind = part.get("type")
        if kind == "text":
            continue
        value: Any = part.get(str(kind))
        address = value.get("url") or value.get("file_id") if isinstance(value, dict) else value
        found.append(f"{kind}: {address}" if isinstance(address, str) else str(kind))
    return found


@dataclass(slots=True)
class Markdown:
    """For reading and for notes: a heading a message, its words as they were written."""

    conversation: bytes
    language: Language = "en"

    def head(self) -> bytes:
        """Begin, with the conversation."""
        talk = _conversation(self.conversation)
        title = " ".join((talk.title or _WORDS[self.language].untitled).split())
        return f"# {title}\n\n{talk.owner_id} · {_when(talk.created_at)}\n".encode()

    def message(self, body: bytes) -> bytes:
        """Write the next message."""
        message = _message(body)
        words = _WORDS[self.language]
        heading = " ".join(_heading(message, words).split())
        pieces = [
            f"## {message.seq}. {heading}",
            f"*{_when(message.said_at or message.created_at)}*",
        ]
        if message.deleted_at:
            pieces.append(f"*{words.deleted}*")
        if message.reasoning:
            quoted = message.reasoning.replace("\n", "\n> ")
            pieces.append(f"> **{words.reasoning}**\n>\n> {quoted}")
        if message.content:
            # A tool's result is data: fenced, so that nothing in it is taken for a heading.
            pieces.append(_fenced(message.content) if message.role == "tool" else message.content)
        pieces += [f"[{words.attached}: {one}]" for one in attachments(message)]
        pieces += [
            f"{words.calls} `{call.function.name}`\n\n{_fenced(call.function.arguments)}"
            for call in message.tool_calls or ()
        ]
        return ("\n" + "\n\n".join(pieces) + "\n").encode()

    def tail(self) -> bytes:
        """End."""
        return b""


def _fenced(text: str) -> str:
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}\n{text}\n{fence}"


#: A spreadsheet takes a cell that begins so for a formula (OWASP, CSV injection); also behind
#: blanks and in the wide forms that some programs fold.
_FORMULA = re.compile(r"[\s\u00a0]*[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")

_COLUMNS: tuple[tuple[str, Callable[[Message], Any]], ...] = (
    ("seq", lambda m: m.seq),
    ("id", lambda m: m.id),
    ("role", lambda m: m.role),
    ("author_id", lambda m: m.author_id),
    ("author_name", lambda m: m.author_name),
    ("created_at", lambda m: rfc3339(m.created_at)),
    ("said_at", lambda m: m.said_at and rfc3339(m.said_at)),
    ("edited_at", lambda m: m.edited_at and rfc3339(m.edited_at)),
    ("deleted_at", lambda m: m.deleted_at and rfc3339(m.deleted_at)),
    ("status", lambda m: m.status),
    ("content", lambda m: m.content),
    ("tool_calls", lambda m: m.tool_calls and msgspec.json.encode(m.tool_calls).decode()),
    ("tool_call_id", lambda m: m.tool_call_id),
    ("name", lambda m: m.name),
    ("reasoning", lambda m: m.reasoning),
    ("metadata", lambda m: json.dumps(m.metadata, ensure_ascii=False) if m.metadata else None),
)


def cell(value: object) -> str:
    """Write one value so that a spreadsheet shows it and computes nothing.

    A text that would begin a formula gets an apostrophe before it, which spreadsheets hide.
    """
    text = "" if value is None else str(value)
    return "'" + text if isinstance(value, str) and _FORMULA.match(text) else text


@dataclass(slots=True)
class Csv:
    """For spreadsheets: RFC 4180, UTF-8, one message a row."""

    conversation: bytes

    def head(self) -> bytes:
        """Begin, with the names of the columns."""
        return _row([name for name, _ in _COLUMNS])

    def message(self, body: bytes) -> bytes:
        """Write the next message."""
        message = _message(body)
        return _row([cell(read(message)) for _, read in _COLUMNS])

    def tail(self) -> bytes:
        """End."""
        return b""


def _row(cells: list[str]) -> bytes:
    line = io.StringIO()
    csv.writer(line).writerow(cells)
    return line.getvalue().encode()


_STYLE = """
:root{color-scheme:light dark;--line:#8884;--soft:#8882}
body{font:16px/1.55 system-ui,sans-serif;max-width:48rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.5rem;overflow-wrap:anywhere}
article{border-top:1px solid var(--line);padding:.8rem 0}
article.assistant,article.tool{background:var(--soft);padding-inline:.8rem}
header{display:flex;gap:.8rem;flex-wrap:wrap;font-weight:600;overflow-wrap:anywhere}
time{font-weight:400;opacity:.7}
p,pre{white-space:pre-wrap;overflow-wrap:anywhere;margin:.4rem 0}
pre{font-size:.9em;border-inline-start:3px solid var(--line);padding-inline-start:.6rem}
.note{opacity:.7;font-style:italic}
"""


@dataclass(slots=True)
class Html:
    """For people: one page that needs nothing else, runs nothing and loads nothing."""

    conversation: bytes
    language: Language = "en"

    def head(self) -> bytes:
        """Begin, with the conversation."""
        talk = _conversation(self.conversation)
        title = html.escape(talk.title or _WORDS[self.language].untitled)
        owner = html.escape(talk.owner_id)
        policy = "default-src 'none'; style-src 'unsafe-inline'"
        return (
            f'<!doctype html>\n<html lang="{self.language}">\n<head>\n<meta charset="utf-8">\n'
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
            '<meta name="viewport" content="width=device-width,initial-scale=1">\n'
            '<meta name="referrer" content="no-referrer">\n'
            f"<title>{title}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
            f'<h1 dir="auto">{title}</h1>\n<p>{owner} · {_when(talk.created_at)}</p>\n'
        ).encode()

    def message(self, body: bytes) -> bytes:
        """Write the next message."""
        message = _message(body)
        words = _WORDS[self.language]
        at = message.said_at or message.created_at
        who = html.escape(_heading(message, words))
        pieces = [
            f'<article class="{message.role}" id="m{message.seq}"><header><span>{who}</span>',
            f'<time datetime="{rfc3339(at)}">{_when(at)}</time></header>',
        ]
        if message.deleted_at:
            pieces.append(f'<p class="note">{words.deleted}</p>')
        if message.reasoning:
            pieces.append(
                f"<details><summary>{words.reasoning}</summary>"
                f'<p dir="auto">{html.escape(message.reasoning)}</p></details>'
            )
        if message.content:
            tag = "pre" if message.role == "tool" else "p"
            pieces.append(f'<{tag} dir="auto">{html.escape(message.content)}</{tag}>')
        pieces += [
            f'<p class="note">{words.attached}: {html.escape(one)}</p>'
            for one in attachments(message)
        ]
        pieces += [
            f'<p class="note">{words.calls} {html.escape(call.function.name)}</p>'
            f"<pre>{html.escape(call.function.arguments)}</pre>"
            for call in message.tool_calls or ()
        ]
        return ("".join(pieces) + "</article>\n").encode()

    def tail(self) -> bytes:
        """End."""
        return b"</body>\n</html>\n"


#: Form → its media type.
MEDIA: dict[str, str] = {
    "jsonl": "application/x-ndjson",
    "json": "application/json",
    "md": "text/markdown; charset=utf-8",
    "csv": "text/csv; charset=utf-8",
    "html": "text/html; charset=utf-8",
}


def form(name: str, conversation: bytes, language: Language = "en") -> Form:
    """Choose a form by its name, one of ``MEDIA``, for one conversation (its JSON)."""
    match name:
        case "json":
            return Json(conversation)
        case "md":
            return Markdown(conversation, language)
        case "csv":
            return Csv(conversation)
        case "html":
            return Html(conversation, language)
        case _:
            return JsonLines(conversation)
