"""The client's state does in every case what ``tests/cases/client`` says.

The web app's twin runs the same files: what one shows, the other shows.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from greffier.client.listing import Listing
from greffier.client.state import AskChanges, AskPage, State
from greffier.client.wire import Activity, ListChange
from greffier.model.conversation import NewConversation
from greffier.model.message import Draft
from greffier.model.page import ConversationList
from helpers import cases

FOLDER = Path(__file__).parents[1] / "cases" / "client"


def load(name: str) -> list[Any]:
    """The cases of a file."""
    return [
        pytest.param(one["steps"], id=one["name"])
        for one in json.loads((FOLDER / name).read_text(encoding="utf-8"))
    ]


def names(steps: list[dict[str, Any]]) -> dict[Any, str]:
    """Every short name that stands in some steps, by the id it stands for."""
    found = set()

    def look(value: Any) -> None:
        if isinstance(value, str):
            found.add(value.removeprefix("+"))
        for one in value.values() if isinstance(value, dict) else value:
            if isinstance(one, (str, dict, list)) and one != value:
                look(one)

    look(steps)
    return {cases.long(name): name for name in found}


def talked(state: State, step: dict[str, Any]) -> State:
    """The state of a conversation after a step."""
    epoch = step.get("epoch", "e")
    match step["event"]:
        case "snapshot" | "earlier" as event:
            page = cases.page(
                step["rev"], step["data"], epoch=epoch, has_before=step.get("has_before", False)
            )
            return (
                state.snapshot(page) if event == "snapshot" else state.earlier(step["before"], page)
            )
        case "change":
            told = step.get("conversation")
            return state.change(
                cases.change(
                    step["since"],
                    step["rev"],
                    step.get("messages", []),
                    superseded=step.get("superseded"),
                    epoch=epoch,
                    reset=step.get("reset", False),
                    told=told and cases.conversation("talk", told["rev"], title=told["title"]),
                )
            )
        case "hears":
            return state.hears(epoch, step["rev"])
        case "describes":
            return state.describes(
                cases.conversation("talk", step["rev"], title=step["title"], role=step["me"])
            )
        case "send":
            return state.send(cases.draft(step["id"]))
        case "acknowledge":
            return state.acknowledge(cases.message(step["message"]), step["rev"])
        case "rewind":
            return state.rewind(step["after_seq"], step["rev"])
        case "fail":
            return state.fail(cases.long(step["id"]), definite=step["definite"])
        case "reset":
            return state.reset()
        case "revoke":
            return state.revoke()
        case other:
            raise AssertionError(other)


def asked(state: State) -> Any:
    """What a state asks for, in the short form."""
    match state.ask:
        case AskPage():
            return "page"
        case AskChanges(since):
            return {"changes": since}
    return None


@pytest.mark.parametrize("steps", load("conversation.json"))
def test_a_conversation_is_shown_as_the_case_says(steps: list[dict[str, Any]]) -> None:
    """After each step: which messages in which order, as of which rev, and what is asked for."""
    known, state = names(steps), State()
    for number, step in enumerate(steps):
        state = talked(state, step)
        expect = dict(step["expect"])
        view = [("+" if isinstance(one, Draft) else "") + known[one.id] for one in state.view]
        found = {"view": view, "rev": state.rev, "ask": asked(state)}
        if "texts" in expect:
            found["texts"] = [one.content for one in state.view]
        if "title" in expect:
            assert state.conversation is not None
            found["title"] = state.conversation.title
            found["me"] = state.conversation.me and state.conversation.me.role
        assert found == expect, f"step {number}"


def listed(state: Listing, step: dict[str, Any]) -> Listing:
    """The state of a list after a step."""
    epoch = step.get("epoch", "e")

    def rows(name: str) -> list[Any]:
        return [cases.conversation(*one, epoch=epoch) for one in step.get(name, [])]

    match step["event"]:
        case "snapshot":
            cursor = "more" if step.get("more") else None
            return state.snapshot(
                ConversationList(data=rows("data"), next_cursor=cursor, list_rev=step["list_rev"])
            )
        case "change":
            return state.change(
                ListChange(
                    since=step["since"],
                    list_rev=step["list_rev"],
                    conversations=rows("conversations"),
                    removed=[cases.long(one) for one in step.get("removed", [])],
                )
            )
        case "activity":
            return state.activity(
                Activity(
                    conversation_id=cases.long(step["id"]),
                    rev=step["rev"],
                    last_message=cases.last(step["minute"]),
                )
            )
        case "create":
            return state.create(NewConversation(id=cases.long(step["id"])))
        case "acknowledge":
            return state.acknowledge(cases.conversation(*step["row"]))
        case "fail":
            return state.fail(cases.long(step["id"]), definite=step["definite"])
        case "hide":
            return state.hide(cases.long(step["id"]))
        case other:
            raise AssertionError(other)


@pytest.mark.parametrize("steps", load("list.json"))
def test_a_list_is_shown_as_the_case_says(steps: list[dict[str, Any]]) -> None:
    """After each step: which conversations in which order, and whether the list is asked for."""
    known, state = names(steps), Listing()
    for number, step in enumerate(steps):
        state = listed(state, step)
        view = [
            ("+" if isinstance(one, NewConversation) else "") + known[one.id] for one in state.view
        ]
        found = {"view": view, "list_rev": state.list_rev, "ask": state.ask}
        assert found == step["expect"], f"step {number}"
