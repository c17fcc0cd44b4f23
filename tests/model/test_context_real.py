"""The context window over conversations that real agents had."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from greffier.model.context import INTERRUPTED, build_context, enough, leading, tally
from greffier.model.message import Message
from helpers import pi_sessions
from helpers.history import from_chat, record
from helpers.openai_validator import validate
from helpers.sample_data import sample_data


@cache
def _tau_bench(folder: Path) -> list[tuple[list[dict[str, Any]], list[Message]]]:
    lines = (folder / "airline_openai_messages.jsonl").read_text("utf-8").split("\n")
    chats = [json.loads(line)["messages"] for line in lines if line]
    return [(chat, from_chat(chat)) for chat in chats]


@pytest.fixture
def tau_bench() -> list[tuple[list[dict[str, Any]], list[Message]]]:
    """75 conversations as their authors had them, and as they stand on record."""
    return _tau_bench(sample_data("tau-bench"))


@pytest.fixture
def pi_session() -> list[Message]:
    """One long session with aborted turns and calls without results."""
    path = sample_data("pi-agent-sessions") / "before-compaction.head.jsonl"
    return record(pi_sessions.drafts(path.read_text("utf-8").rstrip("\n").split("\n")))


def test_tau_bench_is_valid_at_every_limit(
    tau_bench: list[tuple[list[dict[str, Any]], list[Message]]],
) -> None:
    """75 conversations with tool calls, cut after 1 to 50 messages, never break a pair."""
    for _, messages in tau_bench:
        for limit in range(1, 51):
            built = build_context(messages, max_messages=limit, complete=True)
            validate(built.messages)
            assert built.messages[0]["role"] == "system"
            spoken = tally(from_chat(built.messages)).messages
            assert spoken == min(limit, tally(messages).messages)


def test_tau_bench_comes_back_as_it_was(
    tau_bench: list[tuple[list[dict[str, Any]], list[Message]]],
) -> None:
    """With room for all, a valid conversation is sent as it was, reused ids included.

    Only the ``name`` of tool messages, which the format does not have, is gone.
    """
    reused = 0
    for chat, messages in tau_bench:
        built = build_context(messages, max_messages=10_000, complete=True)
        assert built.messages == [
            {key: line[key] for key in line if key != "name"} if line["role"] == "tool" else line
            for line in chat
        ]
        assert built.omitted.reason is None
        ids = [call["id"] for line in chat for call in line.get("tool_calls") or ()]
        reused += len(ids) - len(set(ids))
    assert reused > 0


def test_tau_bench_fits_every_budget(
    tau_bench: list[tuple[list[dict[str, Any]], list[Message]]],
) -> None:
    """From instructions alone to everything; what is in grows with the budget."""
    for _, messages in tau_bench[:20]:
        before = -1
        for budget in range(2_000, 12_000, 500):
            built = build_context(messages, max_messages=1_000, max_tokens=budget, complete=True)
            validate(built.messages)
            assert built.tokens <= budget or len(built.messages) == 1
            assert len(built.messages) >= before
            before = len(built.messages)


def test_a_long_session_with_aborted_turns_is_repaired(pi_session: list[Message]) -> None:
    """Each call has its one result, six of them made up; empty turns are gone."""
    built = build_context(pi_session, max_messages=10_000, complete=True)
    validate(built.messages)
    assert texts_of(built.messages, "tool").count(INTERRUPTED) == 6
    assert built.omitted.messages == built.omitted.tools == 0
    assert build_context(from_chat(built.messages), max_messages=10_000, complete=True) == built


@pytest.mark.parametrize("max_tokens", [None, 2_000, 30_000])
@pytest.mark.parametrize("include_tools", [True, False])
def test_a_long_session_is_read_from_its_end(
    pi_session: list[Message], max_tokens: int | None, include_tools: bool
) -> None:
    """The tail that is enough is valid and the same as the whole, at every limit up to 50."""
    head, total = leading(pi_session)[0], tally(pi_session)
    for limit in range(1, 51):
        asked: dict[str, Any] = {
            "max_messages": limit,
            "max_tokens": max_tokens,
            "include_tools": include_tools,
        }
        size = 10
        while not enough(pi_session[-size:], **asked):
            size *= 2
        assert size < len(pi_session)
        tail = pi_session[-size:]
        built = build_context(tail, complete=False, head=head, total=total, **asked)
        validate(built.messages)
        assert built == build_context(pi_session, complete=True, **asked)


def texts_of(chat: list[dict[str, Any]], role: str) -> list[str]:
    """The contents of one role's messages."""
    return [line["content"] for line in chat if line["role"] == role]
