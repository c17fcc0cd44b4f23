"""The OpenAI chat format: what comes in goes out again as it was, whatever producers add to it."""

from __future__ import annotations

import json
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from greffier.imports.openai import SOURCE, Reader, write
from greffier.imports.scrub import UnfitError
from greffier.imports.values import parse
from greffier.model.draft import SERVICE, check
from greffier.model.limits import IMPORT
from greffier.model.message import Draft
from helpers.history import record
from helpers.sample_data import sample_data


def stored(draft: Draft) -> Draft:
    """A draft as it is after PostgreSQL had it: checked, and its JSON written and read."""
    check(draft, SERVICE, limits=IMPORT, lenient=True)
    return msgspec.json.decode(msgspec.json.encode(draft), type=Draft)


def there_and_back(message: Any, place: int = 1) -> dict[str, Any]:
    """Import a message and write it again."""
    return write(stored(Reader(None).draft(message, place)))


CALL = {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": '{"a": 1}'}}
TEXT = {"type": "text", "text": "see"}
PICTURE = {"type": "image_url", "image_url": {"url": "https://a.example/1.png", "detail": "low"}}

MESSAGES: dict[str, dict[str, Any]] = {
    "words": {"role": "user", "content": "Bonjour à tous ! 🎓"},
    "named": {"role": "user", "name": "Ada", "content": "hi"},
    "named by no text": {"role": "user", "name": 7, "content": "hi"},
    "named at length": {"role": "user", "name": "n" * 1000, "content": "hi"},
    "empty": {"role": "user", "content": ""},
    "no content": {"role": "user", "content": None},
    "nothing but a role": {"role": "assistant"},
    "parts": {"role": "user", "content": [TEXT, PICTURE]},
    "a picture alone": {"role": "user", "content": [PICTURE]},
    "no parts": {"role": "user", "content": []},
    "parts of an answer": {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]},
    "a system text in parts": {"role": "system", "content": [TEXT]},
    "a system text that is null": {"role": "system", "content": None},
    "calls": {"role": "assistant", "content": None, "tool_calls": [CALL, CALL]},
    "calls without content": {"role": "assistant", "tool_calls": [CALL]},
    "calls and words": {"role": "assistant", "content": "I look", "tool_calls": [CALL]},
    "no calls": {"role": "assistant", "content": "a", "tool_calls": []},
    "calls with more": {"role": "assistant", "content": None, "tool_calls": [{**CALL, "index": 0}]},
    "a call with an object": {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"function": {"name": "look", "arguments": {"café": [1.5]}}}],
    },
    "a result": {"role": "tool", "tool_call_id": "call_1", "content": "18 °C"},
    "a named result": {"role": "tool", "tool_call_id": "c", "name": "look", "content": ""},
    "a result in parts": {"role": "tool", "tool_call_id": "c", "content": [TEXT, TEXT]},
    "a result of nothing": {"role": "tool", "content": None},
    "a result of no call": {"role": "tool", "content": "x"},
    "a developer": {"role": "developer", "content": "be kind"},
    "a human": {"role": "human", "content": "alias"},
    "a bot": {"role": "bot", "content": "alias"},
    "an old call": {
        "role": "assistant",
        "content": None,
        "function_call": {"name": "f", "arguments": "{}"},
    },
    "an old result": {"role": "function", "name": "f", "content": "old"},
    "thoughts": {"role": "assistant", "content": "4", "reasoning_content": "2 and 2"},
    "thoughts by another name": {"role": "assistant", "content": "4", "reasoning": "2 and 2"},
    "thoughts twice": {
        "role": "assistant",
        "content": "4",
        "reasoning": "a",
        "reasoning_content": "b",
    },
    "a user's thoughts": {"role": "user", "content": "4", "reasoning": "2 and 2"},
    "a user who calls": {"role": "user", "content": "4", "tool_calls": [CALL]},
    "all that a library dumps": {
        "content": "x",
        "refusal": None,
        "role": "assistant",
        "annotations": [],
        "audio": None,
        "function_call": None,
        "tool_calls": None,
    },
    "a date": {"role": "user", "content": "x", "created_at": 1704629915.775},
    "a strange date": {"role": "user", "content": "x", "timestamp": "yesterday"},
    "keys of ours": {"role": "user", "content": "x", "source": {"a": 1}, "metadata": {"b": 2}},
    "a NUL": {"role": "user", "content": "a\x00b", "extra": ["\x00", {"k\x00": "\ue000"}]},
    "a NUL in a part": {"role": "user", "content": [TEXT, {"type": "text", "text": "\x00\ue001"}]},
    "a NUL in a call": {
        "role": "assistant",
        "content": None,
        "tool_calls": [{**CALL, "function": {"name": "look", "arguments": '"\x00"'}}],
    },
}


@pytest.mark.parametrize("message", MESSAGES.values(), ids=MESSAGES)
def test_a_message_goes_out_as_it_came_in(message: dict[str, Any]) -> None:
    """With the keys it had and no other, the values it had, NULs and all."""
    assert there_and_back(message) == message


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
calls = st.fixed_dictionaries(
    {"function": st.fixed_dictionaries({"name": st.text(), "arguments": st.text() | json_values})},
    optional={"id": st.text(), "type": st.just("function"), "index": st.integers(0, 9)},
)
parts = st.fixed_dictionaries({"type": st.just("text"), "text": st.text()}) | st.fixed_dictionaries(
    {"type": st.text().filter(lambda kind: kind != "text")}, optional={"more": json_values}
)
messages = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", "tool", "system", "developer", "function"])},
    optional={
        "content": st.none() | st.text() | st.lists(parts, max_size=3),
        "name": st.text() | json_values,
        "tool_call_id": st.text(),
        "tool_calls": st.none() | st.lists(calls, max_size=2),
        "function_call": st.none() | calls.map(lambda call: call["function"]),
        "reasoning": st.text(),
        "reasoning_content": json_values,
        "created_at": json_values,
        "more": json_values,
    },
)


@given(messages)
def test_any_message_that_is_taken_goes_out_as_it_came_in(message: dict[str, Any]) -> None:
    """Or it is not taken, and then a stable word says why."""
    try:
        draft = Reader(None).draft(message, 1)
    except UnfitError as error:
        assert error.reason in {"bad-tool-call", "bad-content"}  # noqa: PT017 - either may be
        return
    assert write(stored(draft)) == message


def test_real_conversations_go_out_as_they_came_in() -> None:
    """Every message of tau-bench, tool names and empty results included."""
    path = sample_data("tau-bench") / "airline_openai_messages.jsonl"
    count = 0
    with path.open("rb") as lines:
        for line in lines:
            reader = Reader(None)
            for place, message in enumerate(json.loads(line)["messages"], start=1):
                draft = reader.draft(message, place)
                assert write(stored(draft)) == message
                assert draft.metadata is None  # our columns say it all
                count += 1
    assert count == 1834


def test_what_our_columns_do_not_hold_is_kept_under_source() -> None:
    """Unknown keys are there for whoever wants them, by their own names."""
    draft = Reader(None).draft({"role": "user", "content": "x", "weight": 1, "id": "m1"}, 1)
    assert draft.metadata is not None
    assert draft.metadata[SOURCE] == {"weight": 1, "id": "m1"}


def test_half_a_pair_is_the_only_thing_that_does_not_come_back() -> None:
    """It is no character; the rest of the message does."""
    message = parse('{"role": "user", "content": "bad \\ud83d end", "x": "\\u0000"}')
    assert there_and_back(message) == {"role": "user", "content": "bad \ufffd end", "x": "\x00"}


def test_an_edited_message_goes_out_as_it_stands() -> None:
    """The edit's text is nobody's escape, whatever characters it has."""
    draft = stored(Reader(None).draft({"role": "user", "content": "a\x00"}, 1))
    (message,) = record([draft])
    assert write(message)["content"] == "a\x00"
    edited = msgspec.structs.replace(
        message, content="\ue000\ue001", edited_at=message.created_at, rev=2
    )
    assert write(edited)["content"] == "\ue000\ue001"


def test_calls_of_the_old_kind_stay_with_their_results() -> None:
    """They have no ids; ours pair them, so that a model's context keeps both."""
    reader = Reader(None)
    call = reader.draft(
        {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}}, 1
    )
    other = reader.draft({"role": "function", "name": "g", "content": "of another"}, 2)
    result = reader.draft({"role": "function", "name": "f", "content": "found"}, 3)
    late = reader.draft({"role": "function", "name": "f", "content": "again"}, 4)
    assert call.tool_calls is not None
    assert result.tool_call_id == call.tool_calls[0].id
    assert other.tool_call_id is None
    assert late.tool_call_id is None


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ("hello", "not-a-message"),
        ([], "not-a-message"),
        ({}, "no-role"),
        ({"role": None, "content": "x"}, "no-role"),
        ({"role": "narrator", "content": "x"}, "unknown-role"),
        ({"role": "user", "content": 7}, "bad-content"),
        ({"role": "user", "content": {"text": "x"}}, "bad-content"),
        ({"role": "user", "content": ["x"]}, "bad-content"),
        ({"role": "assistant", "content": "x", "tool_calls": {"id": 1}}, "bad-tool-call"),
        ({"role": "assistant", "content": "x", "tool_calls": [{"id": "a"}]}, "bad-tool-call"),
    ],
)
def test_what_is_no_message_says_why(message: Any, reason: str) -> None:
    """A stable word for each reason, for quarantine to count by."""
    with pytest.raises(UnfitError) as caught:
        Reader(None).draft(message, 1)
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("message", "altered"),
    [
        ({"role": "user", "content": "x"}, set()),
        ({"role": "developer", "content": "x"}, {"role-alias"}),
        ({"role": "tool", "content": None}, {"content-filled"}),
        ({"role": "user", "content": [TEXT]}, {"content-parts"}),
        ({"role": "user", "content": "\x00"}, {"nul-escaped"}),
        ({"role": "user", "content": "\ud800"}, {"surrogate-replaced"}),
        ({"role": "user", "content": "x", "timestamp": "2024-01-01 10:00"}, {"time-without-zone"}),
        ({"role": "user", "content": "x", "create_time": "soon"}, {"time-unreadable"}),
        (
            {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": {}}}]},
            {"arguments-encoded"},
        ),
        (
            {"role": "assistant", "function_call": {"name": "f", "arguments": "{}"}},
            {"function-call"},
        ),
    ],
)
def test_every_alteration_has_a_name(message: Any, altered: set[str]) -> None:
    """Nothing is changed in silence."""
    reader = Reader(None)
    reader.draft(message, 1)
    assert reader.altered == altered


def test_a_time_is_when_it_was_said() -> None:
    """From any of the usual keys; a local time in the zone that was given."""
    draft = Reader(ZoneInfo("Europe/Paris")).draft(
        {"role": "user", "content": "x", "created_at": None, "timestamp": "2024-07-01 10:00:00"}, 1
    )
    assert draft.said_at is not None
    assert draft.said_at.isoformat() == "2024-07-01T08:00:00+00:00"
