"""Promise: a program written for one face of Greffier runs on the others.

``greffier.open()`` says the names; ``greffier.open_sync()`` offers them without ``await``, and
``greffier.client.connect()`` offers them for a server far away.  What cannot be the same stands
below with its reason, and anything else that differs is a gap.
"""

from __future__ import annotations

import inspect
import types
from collections.abc import Iterator
from typing import Any

from greffier import sync
from greffier.client.calls import Conversations
from greffier.client.connection import Client
from greffier.client.http import Wire
from greffier.client.live import Live
from greffier.library import Greffier

PARTS = ("conversations", "messages", "agents", "runs", "endpoints", "sources")
#: What only a process that holds the record can offer.
ONLY_HERE = {
    "database": "the connection itself",
    "close": "leaving the block closes a client",
    "tool": "a function is called in the process that runs the answer, which is the server's",
    "tools": "as tool",
    "working": "the server works",
    "context(count)": "a tokeniser is a function, and the server chooses the messages",
    "set_quota(actor)": "whose token it is says so",
}
#: What only somebody who came over a wire needs.
ONLY_FAR = {
    "wire": "the connection itself",
    "live": "the socket",
    "board": "what a person is shown of their list, which no commit of their own can flicker",
    "view": "as board, of a conversation",
    "keys": "a record has no door that a key could open",
    "ops": "who holds the record has greffier queue beside it",
    "conversations.make": "the outbox sends a value again as it was",
    "messages.put": "as make, and the rev tells a view what it has seen",
    "messages.rewound": "as put",
    "follow(via)": "a network may let no WebSocket through",
    "receive(secret)": "a server has to be shown who brings it",
    "sources.receive(secret)": "as receive",
    "sources.report(secret)": "as receive",
}
#: Where the answers differ, since one over HTTP says what the contract says it does.
ANSWERS = {
    "conversations.join": "the participant instead of the rev",
    "conversations.leave": "204 has no body that could tell a rev",
    "messages.delete": "as leave",
}


class NoDatabase:
    """Nobody is asked anything: only names are read."""

    dsn = ""


def record() -> Greffier:
    """A record that is not open, whose names are there."""
    return Greffier(NoDatabase())  # type: ignore[arg-type]


async def client() -> Client:
    """A client that is connected to nothing, whose names are there."""
    async with Wire("http://127.0.0.1:9", "token") as wire:
        conversations = Conversations(wire)
        return Client(wire, Live(wire, conversations), conversations)


def names(face: object) -> dict[str, Any]:
    """Every public name of a face, those of its parts after a dot."""

    def walk() -> Iterator[tuple[str, Any]]:
        for name in public(face):
            found = getattr(face, name)
            yield name, found
            if not callable(found) and name in PARTS:
                for inner in public(found):
                    yield f"{name}.{inner}", getattr(found, inner)

    return dict(walk())


def public(face: object) -> list[str]:
    """The names that somebody may use."""
    return [name for name in dir(face) if not name.startswith("_")]


def parameters(found: Any) -> dict[str, inspect.Parameter]:
    """What a method is given."""
    return dict(inspect.signature(found).parameters)


async def test_the_client_offers_what_the_library_offers() -> None:
    """Every name, and what each is given: nothing less, and nothing more that must be given."""
    here, far = names(record()), names(await client())
    gaps = [f"{name}: not far away" for name in here.keys() - far.keys() - ONLY_HERE.keys()]
    gaps += [f"{name}: not here" for name in far.keys() - here.keys() - ONLY_FAR.keys()]
    for name in here.keys() & far.keys():
        if callable(here[name]):
            ours, theirs = parameters(here[name]), parameters(far[name])
            gaps += [f"{name}({one})" for one in ours.keys() ^ theirs.keys()]
            gaps += [
                f"{name}({one}) differs"
                for one in ours.keys() & theirs.keys()
                if ours[one].kind is not theirs[one].kind
                # What must be said here may have a default there: whom the token names.
                or ours[one].default not in (theirs[one].default, inspect.Parameter.empty)
            ]
    assert not sorted({*gaps} - ONLY_HERE.keys() - ONLY_FAR.keys())


async def test_the_client_answers_with_the_library_s_values() -> None:
    """The same type from the same name; an iterator is one, however it was written."""
    here, far = names(record()), names(await client())
    differ = {
        name
        for name in here.keys() & far.keys()
        if callable(here[name]) and answer(here[name]) != answer(far[name])
    }
    assert differ == ANSWERS.keys()


def answer(method: Any) -> str:
    """What comes back, by its name: generators are iterators to whoever reads them."""
    said = str(inspect.signature(method).return_annotation).removeprefix("builtins.")
    return said.replace("AsyncGenerator", "AsyncIterator").replace(", None]", "]")


async def test_every_exception_is_one() -> None:
    """A name that both have by now, or that nobody has any more, is taken off the list."""
    here, far = names(record()), names(await client())
    for reasons, mine, other in ((ONLY_HERE, here, far), (ONLY_FAR, far, here)):
        for spelling in reasons:
            name, _, parameter = spelling.rstrip(")").partition("(")
            assert name in mine, spelling
            if parameter:
                assert parameter in parameters(mine[name]), spelling
                assert parameter not in parameters(other[name]), spelling
            else:
                assert name not in other, spelling


def test_without_await_everything_is_offered() -> None:
    """Every name of the library: what is awaited, iterated or entered there is so here at once."""
    loop = sync._Loop()
    try:
        plain = record()
        waiting = names(plain)
        offered = names(sync.Sync(plain, loop))
    finally:
        loop.close()
    assert offered.keys() == waiting.keys()
    for name, found in offered.items():
        if name == "database":
            continue
        inner = inspect.unwrap(found) if isinstance(found, types.FunctionType) else found
        asynchronous = inspect.iscoroutinefunction(inner) or inspect.isasyncgenfunction(inner)
        # Wrapped once more than the library's own: by what waits for it.
        assert not asynchronous or found.__wrapped__ == waiting[name], name
        assert not inspect.iscoroutinefunction(found), name
        assert not inspect.isasyncgenfunction(found), name
