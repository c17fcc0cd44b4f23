"""Promise: ``greffier.open_sync`` does what ``greffier.open`` does, for code without a loop."""

from __future__ import annotations

import asyncio

import pytest

import greffier
from greffier.errors import NotFound, Unavailable
from greffier.settings import load


def test_agents_answer_for_as_long_as_a_block_lasts(database: str) -> None:
    """``with g.working()``: a run is asked for, read as it is made, and is on record."""
    with greffier.open_sync(database) as g:
        agent = g.agents.create(name="Echo", provider="echo", model="echo")
        talk = g.conversations.create(owner="ada", agent=agent.id)
        with g.working(load({"database_url": database})):
            run = g.runs.start(talk.id, content="Bonjour")
            events = [event.name for event in g.runs.events(run.id)]
            assert g.runs.wait(run.id).status == "completed"
        assert (events[0], events[-1]) == ("run.started", "run.completed")
        assert [one.content for one in g.messages.recent(talk.id).data] == ["Bonjour", "Bonjour"]


def test_what_fails_on_entering_is_raised_there(database: str) -> None:
    """A block that cannot be entered raises what it would with ``async with``, and hangs nobody."""
    with pytest.raises(Unavailable), greffier.open_sync("postgresql://127.0.0.1:9/nowhere"):
        pass
    with (
        greffier.open_sync(database) as g,
        pytest.raises(ValueError, match="mine"),
        g.working(load({"database_url": database})),
    ):
        raise ValueError("mine")


def test_who_leaves_a_loop_half_way_follows_no_more(database: str) -> None:
    """``for change in g.follow(…)``: after ``break`` nothing is left following here."""
    with greffier.open_sync(database) as g:
        talk = g.conversations.create(owner="ada")
        g.messages.append(talk.id, content="one")
        changes = g.follow(talk.id, since=talk.rev)
        assert [one.content for one in next(changes).messages] == ["one"]
        following = g._inner._live.feed
        assert following._streams
        changes.close()
        assert not following._streams


def test_names_can_be_looked_at(database: str) -> None:
    """``dir`` and ``help`` show the library's names and words, as in a notebook."""
    with greffier.open_sync(database) as g:
        assert {"conversations", "follow", "working"} <= {*dir(g)}
        assert g.messages.append.__doc__ == greffier.Messages.append.__doc__
        assert not asyncio.iscoroutinefunction(g.messages.append)
        with pytest.raises(AttributeError):
            _ = g.messages.nothing
        with pytest.raises(NotFound):
            g.conversations.get("0197f0c8-7a10-7bbb-8f6e-1d2c3b4a5968")
