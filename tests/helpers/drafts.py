"""Hypothesis makes up messages: everything that somebody may say, and the odd characters first."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

from hypothesis import strategies as st

from greffier.model.message import ROLES, Draft, Function, Role, ToolCall

#: What has gone wrong somewhere: quotes, line ends, controls, a separator that JavaScript takes for
#: a line end, what an import puts in place of NUL, the last of Unicode, what looks like an escape.
ODD = (
    '"', "\\", "'", "\n", "\r\n", "\t", "\x01", "\x1f", "\x7f", "\x80", "\u2028", "\ue000\ue001",
    "\uffff", "\U0010ffff", "\\u0000", "\\ud800", "é", "œuvre à l'été", "e\u0301",
    "👩‍👩‍👧‍👦", "\ufeff",
    "ﷺ", "\u202e", "%s", "{}", "null", "$1", "''", "</script>", " ",
)  # fmt: skip

#: Any text that PostgreSQL can hold.
texts = st.lists(
    st.one_of(
        st.sampled_from(ODD),
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=10),
    ),
    max_size=5,
).map("".join)
words = texts.filter(bool)
names = words.filter(lambda text: len(text.encode()) <= 256)

numbers = st.one_of(
    st.integers(-(1 << 63), (1 << 64) - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from([0.1, 1e16, -0.0, 5e-324, 1.7976931348623157e308, 2**53 + 1, 1.0]),
)
scalars = st.one_of(st.none(), st.booleans(), numbers, texts)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(texts, inner, max_size=3)),
    max_leaves=8,
)
objects = st.dictionaries(texts, values, max_size=4)

_zones = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
times = st.one_of(
    # Naive bounds, in each of the zones.
    st.datetimes(datetime(2, 1, 1), datetime(9998, 12, 31), timezones=_zones),  # noqa: DTZ001
    st.sampled_from(
        [
            datetime(2, 1, 1, tzinfo=UTC),
            datetime(9998, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
            datetime(2026, 1, 1, tzinfo=UTC),
            datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=timezone(-timedelta(hours=9))),
        ]
    ),
)

parts = st.lists(
    st.one_of(
        st.builds(lambda text: {"type": "text", "text": text}, texts),
        st.builds(
            lambda url, more: {"type": "image_url", "image_url": {"url": url, "more": more}},
            texts,
            values,
        ),
    ),
    min_size=1,
    max_size=3,
)
calls = st.lists(
    st.builds(ToolCall, id=texts, function=st.builds(Function, name=texts, arguments=texts)),
    min_size=1,
    max_size=3,
)


@st.composite
def drafts(draw: st.DrawFn) -> Draft:
    """Any message that keeps the rules, of any role."""
    role: Role = draw(st.sampled_from(ROLES))
    given: dict[str, Any] = {
        "metadata": draw(st.none() | objects),
        "said_at": draw(st.none() | times),
        "name": draw(st.none() | names),
    }
    if draw(st.booleans()):
        given["parts"] = draw(parts)
    else:
        given["content"] = draw(words if role == "user" else texts)
    if role == "assistant":
        given["tool_calls"] = draw(st.none() | calls)
        given["reasoning"] = draw(st.none() | texts)
        if given["tool_calls"] and draw(st.booleans()):
            given.pop("content", None)
    if role == "tool":
        given["tool_call_id"] = draw(names)
    if draw(st.integers(0, 2)) == 0:
        # Words and nothing else, as most are: that goes a way of its own.
        given = {"content": draw(words), "tool_call_id": given.get("tool_call_id")}
    return Draft(role=role, **given)
