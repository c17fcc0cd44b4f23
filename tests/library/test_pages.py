"""What a page holds, wherever it lies and whatever happened to the conversation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import zip_longest

import msgspec
import pytest
from asyncpg import Range
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from greffier.errors import Invalid
from greffier.library import Greffier
from greffier.model.limits import DEFAULT
from greffier.model.message import Draft, Message, ToolCall
from greffier.read.pages import Found, Where, check, page
from helpers.sessions import Session
from helpers.talks import Talk, steps

_decode = msgspec.json.Decoder(list[Message]).decode

examples = settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture
def database(one_database: str) -> str:
    """One for all tests here."""
    return one_database


def messages(found: Found) -> list[Message]:
    """What is on a page."""
    return _decode(b"[%b]" % found.data)


def seqs(found: Found) -> list[int]:
    """The numbers on a page."""
    return [message.seq for message in messages(found)]


# -- the arithmetic ----------------------------------------------------------------------------

OPEN = 1 << 62
cuts = st.lists(st.integers(1, 60), max_size=12, unique=True).map(sorted)


@settings(examples, max_examples=300)
@given(
    cuts=cuts,
    first=st.integers(1, 50),
    length=st.integers(0, 60),
    anchor=st.integers(-5, 70) | st.just((1 << 63) - 2),
    before=st.integers(0, 20) | st.just(200),
    after=st.integers(0, 20) | st.just(200),
)
async def test_a_window_is_the_nearest_of_the_path_on_either_side(
    rival: Session, cuts: list[int], first: int, length: int, anchor: int, before: int, after: int
) -> None:
    """However the path is cut, and wherever the anchor lies: on it, off it, or outside."""
    # A path of stretches [cuts[0], cuts[1]), [cuts[2], cuts[3]) …, the last one open.
    stretches = list(zip_longest(cuts[::2] or [1], cuts[1::2], fillvalue=OPEN))
    stretches[-1] = (stretches[-1][0], OPEN)
    path = [Range(low, None if high == OPEN else high) for low, high in stretches]
    last = first + length - 1
    active = [
        seq for seq in range(first, last + 1) if any(low <= seq < high for low, high in stretches)
    ]

    rows = await rival.live.fetch(
        "select lo, hi from path_window($1, $2, $3, $4, $5, $6)",
        path, first, last, anchor, before, after,
    )  # fmt: skip
    found = sorted(seq for row in rows for seq in range(row["lo"], row["hi"] + 1))

    upto = [seq for seq in active if seq <= anchor]
    above = [seq for seq in active if seq > anchor]
    assert found == (upto[-before:] if before else []) + above[:after]


# -- pages -------------------------------------------------------------------------------------


@examples
@given(steps=steps, limit=st.integers(1, 7))
async def test_every_page_is_a_stretch_of_the_active_path(
    g: Greffier, steps: list[object], limit: int
) -> None:
    """In every direction, from every number, after any edits, deletions, rewinds and returns."""
    talk = await Talk.new(g)
    await talk.take(steps)
    active, record = talk.path, list(range(1, talk.last + 1))
    for superseded, wanted in ((False, active), (True, record)):

        async def read(where: Where, superseded: bool = superseded) -> Found:
            where = replace(where, superseded=superseded)
            return await page(g.database, talk.id, None, where)

        found = await read(Where(limit))
        assert seqs(found) == wanted[-limit:]
        assert (found.has_before, found.has_after) == (len(wanted) > limit, False)
        assert found.total == len([seq for seq in active if seq not in talk.deleted])

        for seq in {0, 1, talk.last // 2, talk.last, talk.last + 1, talk.last + 9}:
            below = [one for one in wanted if one < seq]
            upto = [one for one in wanted if one <= seq]
            above = [one for one in wanted if one > seq]

            found = await read(Where(limit, before=seq))
            assert seqs(found) == below[-limit:]
            assert found.has_before == (len(below) > limit)
            assert found.has_after == (len(wanted) > len(below))

            found = await read(Where(limit, after=seq))
            assert seqs(found) == above[:limit]
            assert found.has_after == (len(above) > limit)
            assert found.has_before == (len(wanted) > len(above))

            half = (limit + 1) // 2
            expected = upto[-half:] + above[: limit - half]
            found = await read(Where(limit, around=seq))
            assert seqs(found) == expected
            if expected:
                assert found.has_before == (expected[0] > wanted[0])
                assert found.has_after == (expected[-1] < wanted[-1])


@examples
@given(steps=steps, limit=st.integers(1, 7))
async def test_going_from_page_to_page_meets_each_message_once(
    g: Greffier, steps: list[object], limit: int
) -> None:
    """From the end to the beginning and back; a deleted message keeps its place, without words."""
    talk = await Talk.new(g)
    await talk.take(steps)
    back: list[Message] = []
    found = await g.messages.recent(talk.id, limit=limit)
    while True:
        back[:0] = found.data
        if not found.has_before:
            break
        found = await g.messages.before(talk.id, found.data[0].seq, limit=limit)
    forth: list[Message] = []
    while True:
        since = forth[-1].seq if forth else 0
        found = await g.messages.after(talk.id, since, limit=limit)
        forth += found.data
        if not found.has_after:
            break

    assert back == forth
    assert [m.seq for m in back] == talk.path
    assert [m.content for m in back] == [
        None if seq in talk.deleted else talk.texts[seq] for seq in talk.path
    ]


@examples
@given(
    sizes=st.lists(st.integers(1, 900), min_size=1, max_size=15),
    bound=st.integers(1, 4000),
    start=st.integers(0, 16),
    after_rewind=st.booleans(),
)
async def test_a_page_ends_early_when_it_grows_too_large_and_skips_nothing(
    g: Greffier, sizes: list[int], bound: int, start: int, after_rewind: bool
) -> None:
    """Never before the first message, and going on from its edge meets all the others."""
    talk = await Talk.new(g)
    for size in sizes:
        await talk.append("x" * size)
    if after_rewind:
        await talk.rewind(len(sizes) // 2)
        await talk.append("instead")
    limits = replace(DEFAULT, page_bytes=bound)

    async def walk(where: Where, go_on: Callable[[list[int]], Where]) -> list[int]:
        met: list[int] = []
        while True:
            found = await page(g.database, talk.id, None, where, limits=limits)
            here = seqs(found)
            assert len(here) == 1 or len(found.data) <= bound
            met += here
            more = found.has_before if where.after is None else found.has_after
            if not more:
                return sorted(met)
            assert here, "it must get on"
            where = go_on(here)

    assert await walk(Where(50), lambda here: Where(50, before=here[0])) == talk.path
    assert await walk(Where(50, after=0), lambda here: Where(50, after=here[-1])) == talk.path

    # Around a message, both edges go on.
    found = await page(g.database, talk.id, None, Where(50, around=start), limits=limits)
    here = seqs(found)
    place = talk.path.index(here[0])
    assert here == talk.path[place : place + len(here)]
    assert found.has_before == (here[0] > talk.path[0])
    assert found.has_after == (here[-1] < talk.path[-1])


# -- long texts --------------------------------------------------------------------------------


async def test_a_long_text_is_cut_between_two_characters(g: Greffier) -> None:
    """In a page it is at most 16 KiB and no more than a character less, and says how long it is."""
    talk = await Talk.new(g)
    for char in ("a", "é", "€", "𝄞", "👩‍👩‍👧‍👦"):
        for shift in range(5):
            text = "x" * shift + char * (20_000 // len(char))
            said = await g.messages.append(talk.id, content=text)
            (cut,) = (await g.messages.recent(talk.id, limit=1)).data

            assert said.content == text
            assert cut.content is not None
            assert text.startswith(cut.content)
            assert DEFAULT.cut - 4 < len(cut.content.encode()) <= DEFAULT.cut
            assert (cut.truncated, cut.size) == (True, len(text.encode()))
            assert await g.messages.get(talk.id, said.seq) == said


@pytest.mark.parametrize("length", [DEFAULT.cut, DEFAULT.cut + 1])
async def test_a_text_of_just_the_size_is_whole(g: Greffier, length: int) -> None:
    """The limit itself is within the limit."""
    talk = await Talk.new(g)
    await g.messages.append(talk.id, content="é" * (length // 2) + "x" * (length % 2))
    (found,) = (await g.messages.recent(talk.id)).data

    assert (found.truncated is True) == (length > DEFAULT.cut)
    assert found.content is not None
    assert len(found.content.encode()) == min(length, DEFAULT.cut)


async def test_what_is_too_long_beside_the_text_is_left_out_and_counted(g: Greffier) -> None:
    """Parts and calls are whole or not there; size adds up the fields that were cut."""
    talk = await Talk.new(g)
    long = "x" * 20_000
    drafts = [
        Draft(parts=[{"type": "text", "text": long}]),
        Draft(
            role="assistant",
            content="brief",
            reasoning=long,
            tool_calls=msgspec.convert(
                [{"id": "1", "function": {"name": "look", "arguments": long}}], list[ToolCall]
            ),
        ),
        Draft(parts=[{"type": "text", "text": "brief"}]),
    ]
    whole = await g.messages.append_many(talk.id, drafts)
    first, second, third = (await g.messages.recent(talk.id)).data

    assert (first.content, first.parts) == (long[: DEFAULT.cut], None)
    assert first.size == len(long) + len(msgspec.json.encode(whole[0].parts))
    assert (second.content, second.tool_calls) == ("brief", None)
    assert second.reasoning == long[: DEFAULT.cut]
    assert second.size == len(long) + len(msgspec.json.encode(whole[1].tool_calls))
    assert third == whole[2]
    assert [await g.messages.get(talk.id, seq) for seq in (1, 2, 3)] == whole


# -- what cannot be asked ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "where",
    [
        Where(0),
        Where(DEFAULT.page_messages + 1),
        Where(before=-1),
        Where(after=1 << 63),
        Where(before=3, after=1),
        Where(around=1, before=1),
    ],
)
def test_a_stretch_that_makes_no_sense_is_refused(where: Where) -> None:
    """Before the database is asked."""
    with pytest.raises(Invalid):
        check(where, DEFAULT)


async def test_an_empty_conversation_has_an_empty_page(g: Greffier) -> None:
    """In every direction, and with nothing on either side."""
    talk = await Talk.new(g)
    for found in (
        await g.messages.recent(talk.id),
        await g.messages.before(talk.id, 5),
        await g.messages.after(talk.id, 0),
        await g.messages.around(talk.id, 1),
    ):
        assert (found.data, found.total) == ([], 0)
        assert (found.has_before, found.has_after) == (False, False)


async def test_a_conversation_rewound_to_its_beginning_is_empty_until_something_is_said(
    g: Greffier,
) -> None:
    """And then begins there, with nothing before it."""
    talk = await Talk.new(g)
    for text in "abc":
        await talk.append(text)
    await talk.rewind(0)
    found = await g.messages.recent(talk.id)
    assert (found.data, found.total, found.has_before, found.has_after) == ([], 0, False, False)

    said = await g.messages.append(talk.id, content="again")
    assert (said.seq, said.parent_seq) == (4, None)
    found = await g.messages.around(talk.id, 2)
    assert (found.data, found.has_before, found.has_after) == ([said], False, False)
