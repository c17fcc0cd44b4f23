"""The context window: valid for every provider, pairs kept, the same every time, explained."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from greffier.model.context import (
    EVENT_KEY,
    INTERRUPTED,
    Tally,
    build_context,
    enough,
    leading,
    tally,
)
from greffier.model.message import Draft, Message
from greffier.model.page import Context, Omitted
from greffier.model.tokens import PER_ATTACHMENT, PER_MESSAGE, estimate
from helpers.history import (
    assistant,
    call,
    deleted,
    from_chat,
    record,
    system,
    tool,
    user,
)
from helpers.openai_validator import InvalidChatError, validate

ALL = 1_000


def context(*drafts: Draft, max_messages: int = ALL, **more: Any) -> Context:
    """The context of a whole conversation, seen by the validator."""
    built = build_context(record(drafts), max_messages=max_messages, complete=True, **more)
    validate(built.messages)
    return built


def texts(built: Context) -> list[Any]:
    """The contents of a context, in order."""
    return [line["content"] for line in built.messages]


class TestWindow:
    """Which messages are in."""

    def test_the_newest_messages_are_in_up_to_the_limit(self) -> None:
        """``max_messages`` user and assistant messages, the newest, in their order."""
        built = context(user("1"), assistant("2"), user("3"), assistant("4"), max_messages=2)
        assert built.messages == [
            {"role": "user", "content": "3"},
            {"role": "assistant", "content": "4"},
        ]
        assert built.omitted == Omitted(messages=2, tools=0, reason="max_messages")

    def test_a_conversation_shorter_than_the_limit_is_whole(self) -> None:
        """Nothing is left out, and the explanation says so."""
        built = context(user("1"), assistant("2"), max_messages=2)
        assert texts(built) == ["1", "2"]
        assert built.omitted == Omitted(messages=0, tools=0, reason=None)

    def test_an_empty_conversation_has_an_empty_context(self) -> None:
        """No message, no tokens, nothing left out."""
        assert context() == Context(
            messages=[], omitted=Omitted(messages=0, tools=0, reason=None), tokens=0
        )

    def test_tool_traffic_is_not_counted_as_messages(self) -> None:
        """A question answered after two calls is two messages, and the calls are in with it."""
        built = context(
            user("1"),
            assistant("2"),
            user("3"),
            assistant(None, call("a")),
            tool("a"),
            assistant(None, call("b")),
            tool("b"),
            assistant("4"),
            max_messages=2,
        )
        assert [line["role"] for line in built.messages] == [
            "user",
            "assistant",
            "tool",
            "assistant",
            "tool",
            "assistant",
        ]
        assert built.omitted == Omitted(messages=2, tools=0, reason="max_messages")

    def test_the_window_does_not_begin_with_tool_traffic_of_a_message_left_out(self) -> None:
        """The limit reached, nothing more comes in: calls need the question they were made for."""
        built = context(
            user("1"), assistant(None, call("a")), tool("a"), assistant("2"), max_messages=1
        )
        assert texts(built) == ["2"]
        assert built.omitted == Omitted(messages=1, tools=2, reason="max_messages")

    def test_tool_traffic_at_the_end_is_in(self) -> None:
        """A run that goes on after a tool's result sees it, and the message it works for."""
        built = context(user("1"), user("2"), assistant(None, call("a")), tool("a"), max_messages=1)
        assert texts(built) == ["2", None, "found"]

    def test_a_message_that_speaks_and_calls_is_one_message(self) -> None:
        """It counts, and is never without its results."""
        built = context(
            user("1"), assistant("let me look", call("a")), tool("a"), assistant("2"),
            max_messages=2,
        )  # fmt: skip
        assert texts(built) == ["let me look", "found", "2"]
        assert built.omitted == Omitted(messages=1, tools=0, reason="max_messages")

    def test_a_limit_of_zero_leaves_only_the_instructions(self) -> None:
        """Tool traffic at the end is out, too."""
        built = context(system(), user("1"), assistant(None, call("a")), tool("a"), max_messages=0)
        assert texts(built) == ["be kind"]
        assert built.omitted == Omitted(messages=1, tools=2, reason="max_messages")

    def test_deleted_messages_are_out(self) -> None:
        """Whether or not the caller already left them out; they are not counted as omitted."""
        messages = record([user("1"), user("secret"), user("3")])
        messages[1] = deleted(messages[1])
        built = build_context(messages, max_messages=2, complete=True)
        assert texts(built) == ["1", "3"]
        assert built.omitted == Omitted(messages=0, tools=0, reason=None)

    @pytest.mark.parametrize("status", ["interrupted", "cancelled", "failed"])
    def test_an_answer_cut_short_stays(self, status: str) -> None:
        """What was said was said: people saw it and answer to it."""
        messages = [
            msgspec.structs.replace(message, status=status)
            for message in record([assistant("The capital of")])
        ]
        assert texts(build_context(messages, max_messages=9, complete=True)) == ["The capital of"]


class TestSystemMessages:
    """Instructions stay, events are for people."""

    def test_leading_system_messages_are_always_there_and_never_counted(self) -> None:
        """They are the instructions of the conversation."""
        built = context(system("A"), system("B"), user("1"), user("2"), max_messages=1)
        assert texts(built) == ["A", "B", "2"]
        assert built.omitted == Omitted(messages=1, tools=0, reason="max_messages")

    def test_a_system_message_in_the_middle_goes_with_what_follows(self) -> None:
        """In when the next message is in, out when it is out, and always in its place."""
        talk = (user("1"), system("now in French"), user("2"), user("3"))
        assert texts(context(*talk)) == ["1", "now in French", "2", "3"]
        assert texts(context(*talk, max_messages=2)) == ["now in French", "2", "3"]
        assert texts(context(*talk, max_messages=1)) == ["3"]

    def test_a_system_message_between_a_call_and_its_result_comes_after_both(self) -> None:
        """Nothing may stand between a call and its results."""
        built = context(assistant(None, call("a")), system("hurry"), tool("a"), user("1"))
        assert texts(built) == [None, "found", "hurry", "1"]

    def test_a_system_message_at_the_end_is_in(self) -> None:
        """Somebody instructs the next answer."""
        assert texts(context(user("1"), system("answer briefly"))) == ["1", "answer briefly"]

    def test_events_of_a_room_are_not_for_a_model(self) -> None:
        """A message like "Ada joined" has the event in its metadata; it stays out anywhere."""
        joined = system("Ada joined", metadata={EVENT_KEY: "joined"})
        assert texts(context(joined, system("A"), user("1"), joined, user("2"))) == ["A", "1", "2"]


class TestPairs:
    """Tool calls and their results."""

    def test_parallel_results_follow_in_the_order_of_the_calls(self) -> None:
        """In whatever order they came."""
        built = context(
            assistant(None, call("a"), call("b"), call("c")),
            tool("c", "C"),
            tool("a", "A"),
            tool("b", "B"),
        )
        assert texts(built)[1:] == ["A", "B", "C"]

    def test_what_stands_between_a_call_and_its_result_comes_after(self) -> None:
        """People may write while a tool works."""
        built = context(assistant(None, call("a")), user("are you there?"), tool("a"))
        assert texts(built) == [None, "found", "are you there?"]

    def test_ids_used_again_are_paired_by_position(self) -> None:
        """Real agents name two calls of one conversation alike; each keeps its own result."""
        built = context(
            assistant(None, call("x", "look")),
            tool("x", "first"),
            user("again"),
            assistant(None, call("x", "look")),
            tool("x", "second"),
        )
        assert texts(built) == [None, "first", "again", None, "second"]

    def test_a_result_goes_to_the_nearest_call_that_waits(self) -> None:
        """The later call of an id is answered first, the earlier one by what comes then."""
        built = context(
            assistant(None, call("x")),
            assistant(None, call("x")),
            tool("x", "for the second"),
            tool("x", "for the first"),
        )
        assert texts(built) == [None, "for the first", None, "for the second"]

    def test_a_call_without_a_result_gets_one_that_says_so(self) -> None:
        """An aborted turn does not block its conversation for good."""
        built = context(assistant("hm", call("a"), call("b")), tool("b", "B"), user("go on"))
        assert built.messages[1:3] == [
            {"role": "tool", "tool_call_id": "a", "content": INTERRUPTED},
            {"role": "tool", "tool_call_id": "b", "content": "B"},
        ]
        assert built.omitted == Omitted(messages=0, tools=0, reason=None)

    def test_a_result_without_a_call_is_out_and_counted(self) -> None:
        """At the front, and anywhere."""
        built = context(tool("a"), user("1"), tool("b"), tool(None), assistant("2"))
        assert texts(built) == ["1", "2"]
        assert built.omitted == Omitted(messages=0, tools=3, reason="tools")

    def test_only_an_assistant_calls(self) -> None:
        """Calls on a message of another role are no calls: who writes cannot forge one."""
        built = context(user("1", tool_calls=[call("a")]), tool("a", "forged"))
        assert built.messages == [{"role": "user", "content": "1"}]
        assert built.omitted == Omitted(messages=0, tools=1, reason="tools")

    def test_a_result_before_its_call_is_no_result_of_it(self) -> None:
        """Cause first."""
        built = context(user("1"), tool("a", "too soon"), assistant(None, call("a")))
        assert texts(built) == ["1", None, INTERRUPTED]

    def test_the_first_of_two_results_counts(self) -> None:
        """A tool that reports twice is heard once."""
        built = context(assistant(None, call("a")), tool("a", "one"), tool("a", "two"))
        assert texts(built) == [None, "one"]
        assert built.omitted == Omitted(messages=0, tools=1, reason="tools")

    def test_a_deleted_result_leaves_its_call_answered(self) -> None:
        """Deleting a tool's output does not make the conversation invalid."""
        messages = record([assistant(None, call("a")), tool("a", "secret")])
        messages[1] = deleted(messages[1])
        built = build_context(messages, max_messages=9, complete=True)
        validate(built.messages)
        assert texts(built) == [None, INTERRUPTED]

    def test_an_empty_result_is_a_result(self) -> None:
        """A tool may have nothing to say."""
        assert texts(context(assistant(None, call("a")), tool("a", ""))) == [None, ""]
        assert texts(context(assistant(None, call("a")), tool("a", None))) == [None, ""]

    def test_doubled_and_empty_ids_are_told_apart(self) -> None:
        """Call and result get the same new id; an id that is already right is not touched."""
        built = context(
            assistant(None, call("x"), call("x-2"), call("x"), call(""), call("")),
            tool("x", "1"),
            tool("", "4"),
            tool("x", "3"),
            tool(None, "5"),
            tool("x-2", "2"),
        )
        ids = ["x", "x-2", "x-3", "call", "call-2"]
        assert [each["id"] for each in built.messages[0]["tool_calls"]] == ids
        assert [line["tool_call_id"] for line in built.messages[1:]] == ids
        assert texts(built)[1:] == ["1", "2", "3", "4", "5"]

    def test_an_aborted_turn_that_says_nothing_is_out(self) -> None:
        """No provider takes a message with neither content nor calls; it counts as nothing."""
        built = context(user("1"), assistant(""), assistant(None, reasoning="hm"), user(""))
        assert texts(built) == ["1"]
        assert built.omitted == Omitted(messages=0, tools=0, reason=None)


class TestWithoutTools:
    """``include_tools=False``."""

    TALK = (
        user("1"),
        assistant("let me look", call("a")),
        tool("a"),
        assistant(None, call("b")),
        tool("b"),
        assistant("2"),
    )

    def test_tool_traffic_is_out_and_counted(self) -> None:
        """What was said stays, the calls go, and the explanation says why."""
        built = context(*self.TALK, include_tools=False)
        assert built.messages == [
            {"role": "user", "content": "1"},
            {"role": "assistant", "content": "let me look"},
            {"role": "assistant", "content": "2"},
        ]
        assert built.omitted == Omitted(messages=0, tools=3, reason="tools")

    def test_the_limit_that_cut_is_named_first(self) -> None:
        """Tools were asked to be out; that messages are missing is the news."""
        built = context(*self.TALK, include_tools=False, max_messages=2)
        assert built.omitted == Omitted(messages=1, tools=3, reason="max_messages")

    def test_nothing_to_leave_out_is_no_reason(self) -> None:
        """A talk without tools is whole."""
        built = context(user("1"), include_tools=False)
        assert built.omitted == Omitted(messages=0, tools=0, reason=None)


class TestFormat:
    """How a message is written."""

    def test_parts_of_a_user_are_kept_as_given(self) -> None:
        """Pictures reach the model."""
        parts = [
            {"type": "text", "text": "what is this?"},
            {"type": "image_url", "image_url": {"url": "https://example.org/cat.png"}},
        ]
        built = context(user("what is this?", parts=parts))
        assert built.messages == [{"role": "user", "content": parts}]

    def test_parts_of_a_system_message_are_kept_when_they_are_text(self) -> None:
        """The format takes no other there."""
        parts = [{"type": "text", "text": "be"}, {"type": "text", "text": "kind"}]
        assert texts(context(system("be\nkind", parts=parts))) == [parts]
        assert texts(context(system("be", parts=[parts[0], {"type": "file"}]))) == ["be\n[file]"]

    def test_parts_of_an_assistant_and_of_a_tool_are_sent_as_text(self) -> None:
        """A picture they may not carry is at least named."""
        picture = {"type": "image_url", "image_url": {"url": "https://example.org/cat.png"}}
        text = {"type": "text", "text": "a cat"}
        refusal = {"type": "refusal", "refusal": "I cannot draw."}
        assert texts(context(assistant("a cat", parts=[text]))) == ["a cat"]
        assert texts(context(assistant("a cat", parts=[text, picture]))) == ["a cat\n[image_url]"]
        assert texts(context(assistant(None, parts=[refusal]))) == ["I cannot draw."]
        assert texts(context(assistant(None, call("a")), tool("a", "", parts=[picture]))) == [
            None,
            "[image_url]",
        ]

    def test_a_name_is_sent_only_if_the_format_allows_it(self) -> None:
        """One name with a space would have the whole request refused."""
        built = context(
            user("1", name="ada"),
            user("2", name="Ada Lovelace"),
            user("3", name="é"),
            user("4", name="a" * 65),
            user("5", name="ada\n"),
            user("6", name=""),
        )
        assert [line.get("name") for line in built.messages] == ["ada"] + [None] * 5

    def test_a_tool_message_has_no_name(self) -> None:
        """The format has none there, though records have."""
        built = context(assistant(None, call("a")), tool("a", name="look"))
        assert built.messages[1] == {"role": "tool", "tool_call_id": "a", "content": "found"}

    def test_reasoning_and_the_rest_of_the_record_are_not_sent(self) -> None:
        """Only what the format knows."""
        built = context(assistant("2", reasoning="hm", metadata={"private": 1}))
        assert built.messages == [{"role": "assistant", "content": "2"}]

    def test_calls_are_written_in_full(self) -> None:
        """Arguments are the text the model wrote, valid JSON or not."""
        built = context(assistant(None, call("a", "look", "{broken")), tool("a"))
        assert built.messages[0] == {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {
                    "id": "a",
                    "type": "function",
                    "function": {"name": "look", "arguments": "{broken"},
                }
            ],
        }


def one(_message: Mapping[str, Any], /) -> int:
    """A counter for which every message costs one token."""
    return 1


class TestTokens:
    """The budget, and the estimate."""

    def test_groups_are_taken_while_they_fit(self) -> None:
        """A call and its results go in together or stay out together."""
        talk = (user("1"), assistant(None, call("a"), call("b")), tool("a"), tool("b"), user("2"))
        assert texts(context(*talk, max_tokens=5, count=one))[0] == "1"
        four = context(*talk, max_tokens=4, count=one)
        assert texts(four) == [None, "found", "found", "2"]
        assert (four.omitted.reason, four.omitted.messages, four.tokens) == ("max_tokens", 1, 4)
        three = context(*talk, max_tokens=3, count=one)
        assert texts(three) == ["2"]
        assert three.omitted == Omitted(messages=1, tools=3, reason="max_tokens")

    def test_instructions_are_reserved_first(self) -> None:
        """They take their share of the budget before any message."""
        talk = (system("A"), system("B"), user("1"), user("2"))
        assert texts(context(*talk, max_tokens=3, count=one)) == ["A", "B", "2"]

    def test_a_message_too_large_leaves_the_instructions_and_a_reason(self) -> None:
        """Nothing is cut in two to make it fit."""
        built = context(system("A"), user("long " * 1000), max_tokens=100)
        assert texts(built) == ["A"]
        assert built.omitted == Omitted(messages=1, tools=0, reason="max_tokens")

    def test_nothing_older_slips_in_beside_what_did_not_fit(self) -> None:
        """The window is one stretch: a model must not see an answer without its question."""
        built = context(user("1"), user("long " * 1000), user("3"), max_tokens=100)
        assert texts(built) == ["3"]

    def test_instructions_larger_than_the_budget_stay_alone(self) -> None:
        """Without them it would be another agent."""
        built = context(system("A"), system("B"), user("1"), max_tokens=1, count=one)
        assert (texts(built), built.tokens) == (["A", "B"], 2)
        assert built.omitted == Omitted(messages=1, tools=0, reason="max_tokens")

    def test_only_what_may_be_in_is_counted(self) -> None:
        """A slow counter sees a window's worth of messages, each once, in a talk of any length."""
        seen = 0

        def slow(_message: Mapping[str, Any], /) -> int:
            nonlocal seen
            seen += 1
            return 1

        messages = record(user(str(n)) for n in range(5_000))
        built = build_context(
            messages, max_messages=1_000, max_tokens=20, count=slow, complete=True
        )
        assert (len(built.messages), seen) == (20, 21)

    def test_the_estimate_counts_bytes(self) -> None:
        """Three bytes a token, rounded up, and four for the message."""
        assert estimate({"role": "user", "content": ""}) == PER_MESSAGE
        assert estimate({"role": "user", "content": "abcd"}) == PER_MESSAGE + 2
        assert estimate({"role": "user", "content": "été"}) == PER_MESSAGE + 2
        assert estimate({"role": "user", "content": "\ud800"}) == PER_MESSAGE + 1
        assert estimate({"role": "user", "content": "ab", "name": "c"}) == PER_MESSAGE + 1

    def test_the_estimate_counts_calls_and_pictures(self) -> None:
        """A picture costs the same whatever its address or its base64 weighs."""
        picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 9999}}
        content = [picture, {"type": "text", "text": "abc"}]
        assert estimate({"role": "user", "content": content}) == PER_MESSAGE + PER_ATTACHMENT + 1
        built = context(assistant(None, call("abc", "def", "ghi")), tool("abc", "xyz"))
        assert [estimate(line) for line in built.messages] == [PER_MESSAGE + 3, PER_MESSAGE + 2]
        assert built.tokens == 2 * PER_MESSAGE + 5


class TestReading:
    """A long conversation is read from its end until it is enough."""

    def test_enough_is_when_a_limit_left_something_out(self) -> None:
        """One message more than the limit proves that the front of the window is whole."""
        messages = record([system("A"), user("1"), system("B"), user("2"), user("3")])
        assert not enough(messages[3:], max_messages=2)
        assert not enough(messages[2:], max_messages=2)
        assert enough(messages[1:], max_messages=2)
        assert enough(messages[4:], max_messages=2, max_tokens=3)

    def test_a_tail_that_is_enough_gives_the_context_of_the_whole(self) -> None:
        """With the head and the totals of the conversation beside it."""
        messages = record([system("A"), tool("lost"), user("1"), system("B"), user("2"), user("3")])
        head, ended = leading(messages)
        assert ended
        tail = build_context(
            messages[2:], max_messages=2, complete=False, head=head, total=tally(messages)
        )
        assert tail == build_context(messages, max_messages=2, complete=True)
        assert texts(tail) == ["A", "B", "2", "3"]
        assert tail.omitted == Omitted(messages=1, tools=1, reason="max_messages")

    def test_a_tail_that_starts_within_a_pair_leaves_the_rest_of_it_out(self) -> None:
        """A result whose call was not read is no result."""
        messages = record([assistant(None, call("a")), tool("a"), user("1")])
        built = build_context(messages[1:], max_messages=9, complete=False)
        assert texts(built) == ["1"]

    def test_a_caller_that_stops_early_gets_no_instruction_twice(self) -> None:
        """The head is not repeated where the tail reaches into it."""
        messages = record([system("A"), system("B"), user("1")])
        built = build_context(
            messages[1:], max_messages=9, complete=False, head=leading(messages)[0]
        )
        assert texts(built) == ["A", "B", "1"]
        late = record([system("A"), user("1"), system("B"), user("2")])
        built = build_context(late[2:], max_messages=9, complete=False, head=leading(late)[0])
        assert texts(built) == ["A", "B", "2"]

    def test_a_conversation_read_whole_needs_no_head(self) -> None:
        """Its own beginning says what leads it."""
        messages = record([user("1"), system("A"), user("2")])
        built = build_context(messages, max_messages=9, complete=True, head=messages[1:2])
        assert texts(built) == ["1", "A", "2"]

    def test_leading_says_whether_it_saw_the_end(self) -> None:
        """Messages that say nothing, events and lost results do not end the instructions."""
        joined = system("Ada joined", metadata={EVENT_KEY: "joined"})
        messages = record([joined, assistant(""), system("A"), tool("x"), system("B"), user("1")])
        assert leading(messages[:5]) == ([messages[2], messages[4]], False)
        assert leading(messages) == ([messages[2], messages[4]], True)

    def test_a_tally_counts_each_message_once(self) -> None:
        """What speaks, what is tool traffic; the rest is neither."""
        messages = record(
            [system(), user(), assistant("x", call("a")), tool("a"), assistant(None, call("b")),
             assistant(""), user(None, parts=[{"type": "text", "text": "x"}])]
        )  # fmt: skip
        assert tally(messages) == Tally(messages=3, tools=2)
        assert tally(map(deleted, messages)) == Tally(messages=0, tools=0)

    def test_a_very_long_conversation_is_no_deeper_than_a_short_one(self) -> None:
        """No recursion: twenty thousand unanswered calls of one id are repaired in one pass."""
        messages = record(assistant(None, call("x")) for _ in range(20_000))
        built = build_context(messages, max_messages=1, complete=True)
        assert len(built.messages) == 40_000


# Random histories: few ids, so that they collide, and every way a record can be rough.
_ids = st.sampled_from(["", "a", "b", "b-2"])
_said = st.sampled_from([None, "", "x", "un été à la mer", "long " * 40])
_picture = {"type": "image_url", "image_url": {"url": "https://example.org/cat.png"}}
_blank = {"type": "text", "text": ""}
_parts = st.sampled_from(
    [None, None, None, [], [{"type": "text", "text": "x"}], [_picture], [_blank]]
)
_drafts = st.one_of(
    st.builds(user, _said, parts=_parts, name=st.sampled_from([None, "ada", "not a name"])),
    st.builds(user, _said, tool_calls=st.just([call("a")])),
    st.builds(
        lambda content, calls, parts: assistant(content, *calls, parts=parts),
        _said,
        st.lists(st.builds(call, _ids), max_size=4),
        _parts,
    ),
    st.builds(tool, st.one_of(_ids, st.none()), _said, parts=_parts, name=st.just("look")),
    st.builds(tool, _ids, _said),
    st.builds(system, _said, metadata=st.sampled_from([None, None, {EVENT_KEY: "joined"}])),
)


def _record(drafts: list[Draft], gone: set[int]) -> list[Message]:
    return [deleted(each) if each.seq in gone else each for each in record(drafts)]


histories = st.builds(
    _record, st.lists(_drafts, max_size=25), st.sets(st.integers(1, 25), max_size=3)
)
limits = st.integers(0, 12)
budgets = st.one_of(st.none(), st.integers(0, 400))
thorough = settings(max_examples=400, deadline=None)


class TestProperties:
    """What holds for every history, every limit and every budget."""

    @thorough
    @given(histories, limits, budgets, st.booleans())
    def test_it_is_valid(
        self, messages: list[Message], limit: int, budget: int | None, tools: bool
    ) -> None:
        """A provider accepts it."""
        built = build_context(
            messages, max_messages=limit, max_tokens=budget, include_tools=tools, complete=True
        )
        validate(built.messages)
        assert tools or not any("tool_calls" in line for line in built.messages)

    @thorough
    @given(histories)
    def test_each_call_has_the_result_that_position_gives_it(self, messages: list[Message]) -> None:
        """Held against a second, slower pairing that says the rule word by word."""
        messages = [
            msgspec.structs.replace(each, content=f"result {each.seq}", parts=None)
            if each.role == "tool"
            else each
            for each in messages
        ]
        built = build_context(messages, max_messages=ALL, complete=True)
        assert [line["content"] for line in built.messages if line["role"] == "tool"] == [
            content for results in _paired(messages).values() for content in results
        ]

    @thorough
    @given(histories, limits, budgets, st.booleans())
    def test_building_it_from_itself_changes_nothing(
        self, messages: list[Message], limit: int, budget: int | None, tools: bool
    ) -> None:
        """A context that was stored and is built again is the same bytes."""
        asked: dict[str, Any] = {
            "max_messages": limit,
            "max_tokens": budget,
            "include_tools": tools,
            "complete": True,
        }
        built = build_context(messages, **asked)
        again = build_context(from_chat(built.messages), **asked)
        assert again.messages == built.messages
        assert again.tokens == built.tokens
        assert again.omitted == Omitted(messages=0, tools=0, reason=None)

    @thorough
    @given(histories, limits, budgets)
    def test_the_record_is_not_touched(
        self, messages: list[Message], limit: int, budget: int | None
    ) -> None:
        """And asking twice gives the same answer."""
        before = copy.deepcopy(messages)
        asked: dict[str, Any] = {"max_messages": limit, "max_tokens": budget, "complete": True}
        first = build_context(messages, **asked)
        assert build_context(messages, **asked) == first
        assert messages == before

    @thorough
    @given(histories, limits, budgets, st.booleans())
    def test_a_larger_limit_only_adds_at_the_front(
        self, messages: list[Message], limit: int, budget: int | None, tools: bool
    ) -> None:
        """What was in stays in, in its place."""
        count = len(leading(messages)[0])
        smaller, larger = (
            build_context(
                messages, max_messages=each, max_tokens=budget, include_tools=tools, complete=True
            ).messages
            for each in (limit, limit + 1)
        )
        assert larger[:count] == smaller[:count]
        window = smaller[count:]
        assert larger[len(larger) - len(window) :] == window

    @thorough
    @given(histories, limits, st.integers(0, 400), st.booleans())
    def test_it_keeps_within_the_budget(
        self, messages: list[Message], limit: int, budget: int, tools: bool
    ) -> None:
        """Only instructions may exceed it, and then they are alone."""
        built = build_context(
            messages, max_messages=limit, max_tokens=budget, include_tools=tools, complete=True
        )
        assert built.tokens == sum(map(estimate, built.messages))
        assert built.tokens <= budget or len(built.messages) == len(leading(messages)[0])

    @thorough
    @given(histories, limits, budgets, st.booleans())
    def test_everything_left_out_is_accounted_for(
        self, messages: list[Message], limit: int, budget: int | None, tools: bool
    ) -> None:
        """What is in and what is omitted are together what is on record; a cut has a reason."""
        built = build_context(
            messages, max_messages=limit, max_tokens=budget, include_tools=tools, complete=True
        )
        # A result that stands for a missing one is in the list and not on record.
        sent = tally(from_chat(line for line in built.messages if line["content"] != INTERRUPTED))
        assert sent.messages + built.omitted.messages == tally(messages).messages
        assert sent.tools + built.omitted.tools == tally(messages).tools
        assert sent.messages <= limit
        assert built.omitted.messages == 0 or built.omitted.reason in ("max_messages", "max_tokens")

    @thorough
    @given(histories, limits, budgets, st.booleans())
    def test_every_tail_that_is_enough_gives_the_same_context(
        self, messages: list[Message], limit: int, budget: int | None, tools: bool
    ) -> None:
        """So that a reader may stop there; and reading on never makes it less."""
        asked: dict[str, Any] = {
            "max_messages": limit,
            "max_tokens": budget,
            "include_tools": tools,
        }
        whole = build_context(messages, complete=True, **asked)
        head, _ = leading(messages)
        was_enough = False
        for start in range(len(messages), -1, -1):
            tail = messages[start:]
            if not enough(tail, **asked):
                assert not was_enough
                continue
            was_enough = True
            total = tally(messages)
            assert build_context(tail, complete=False, head=head, total=total, **asked) == whole

    @thorough
    @given(histories, limits, budgets, st.booleans())
    def test_any_tail_is_valid(
        self, messages: list[Message], limit: int, budget: int | None, tools: bool
    ) -> None:
        """Also for a caller that stops reading too early."""
        head, _ = leading(messages)
        for start in range(len(messages)):
            built = build_context(
                messages[start:],
                max_messages=limit,
                max_tokens=budget,
                include_tools=tools,
                complete=False,
                head=head,
            )
            validate(built.messages)


def _paired(messages: list[Message]) -> dict[int, list[str | None]]:
    """The results of each assistant message by its seq, found by looking back from each result."""
    live = [each for each in messages if each.deleted_at is None]
    found: dict[int, list[str | None]] = {
        each.seq: [INTERRUPTED] * len(each.tool_calls or ())
        for each in live
        if each.role == "assistant"
    }
    for index, result in enumerate(live):
        if result.role != "tool":
            continue
        for asker in reversed(live[:index]):
            if asker.role != "assistant":
                continue
            places = [
                place
                for place, asked in enumerate(asker.tool_calls or ())
                if asked.id == (result.tool_call_id or "")
                and found[asker.seq][place] == INTERRUPTED
            ]
            if places:
                found[asker.seq][places[0]] = result.content
                break
    return found


class TestValidator:
    """The judge refuses what providers refuse, so that its silence means something."""

    @pytest.mark.parametrize(
        "chat",
        [
            [{"role": "user", "content": ""}],
            [{"role": "user", "content": None}],
            [{"role": "user"}],
            [{"role": "robot", "content": "x"}],
            [{"role": "user", "content": "x", "id": "1"}],
            [{"role": "user", "content": "x", "name": "not a name"}],
            [{"role": "assistant", "content": None}],
            [{"role": "assistant", "content": "x", "tool_calls": []}],
            [{"role": "assistant", "content": [{"type": "text", "text": "x"}]}],
            [{"role": "system", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}],
            [{"role": "tool", "content": "x", "tool_call_id": "a"}],
            [{"role": "user", "content": "x", "tool_calls": []}],
        ],
    )
    def test_it_refuses_a_bad_message(self, chat: list[dict[str, Any]]) -> None:
        """Wrong role, key, content or name."""
        with pytest.raises(InvalidChatError):
            validate(chat)

    @pytest.mark.parametrize(
        "change",
        [
            lambda chat: chat[:1],
            lambda chat: [chat[0], chat[2]],
            lambda chat: [chat[0], chat[1], chat[1], chat[2]],
            lambda chat: [chat[1], chat[0], chat[2]],
            lambda chat: [chat[0], {**chat[1], "tool_call_id": "b"}],
            lambda chat: [chat[0], {**chat[1], "name": "look"}],
            lambda chat: [chat[0], {**chat[1], "content": None}],
            lambda chat: [{**chat[0], "tool_calls": chat[0]["tool_calls"] * 2}, chat[1]],
        ],
    )
    def test_it_refuses_a_broken_pair(self, change: Any) -> None:
        """Missing, doubled, early, late or foreign results."""
        chat = context(assistant(None, call("a")), tool("a"), user("1")).messages
        with pytest.raises(InvalidChatError):
            validate(change(chat))
