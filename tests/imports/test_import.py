"""An import puts every row somewhere, once, and says where."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from greffier.imports import Account, Fault, Options, import_files
from greffier.read.audit import audit
from helpers.importing import Desk, jsonl, source
from helpers.pi_sessions import drafts
from helpers.sample_data import sample_data


def said(*texts: str, role: str = "user") -> list[dict[str, Any]]:
    """Messages with these texts."""
    return [{"role": role, "content": text} for text in texts]


async def test_real_conversations_come_back_equal(desk: Desk) -> None:
    """All 75 of tau-bench, to the last key; importing them again adds nothing."""
    raw = (sample_data("tau-bench") / "airline_openai_messages.jsonl").read_bytes()
    account = await desk.take(raw)
    assert (account.read, account.mapped, account.conversations) == (1834, 1834, 75)
    assert not account.altered

    exported = [json.loads(line) for line in (await desk.exported("openai")).splitlines()]
    sources = [json.loads(line) for line in raw.splitlines()]
    assert {canonical(one) for one in exported} == {canonical(one) for one in sources}
    assert len(exported) == len(sources)

    again = await desk.take(raw)
    assert (again.already, again.mapped, again.conversations) == (1834, 0, 0)


def canonical(value: Any) -> str:
    """The same text for the same value, whatever the order of keys."""
    return json.dumps(value, sort_keys=True)


async def test_a_long_rough_session_comes_back_byte_for_byte(desk: Desk) -> None:
    """Thinking, aborted turns, calls without results, lines of 100 kB."""
    path = sample_data("pi-agent-sessions") / "before-compaction.head.jsonl"
    with path.open(encoding="utf-8", newline="\n") as lines:
        session = list(drafts(lines))
    entry = {
        "id": "pi",
        "messages": [
            {
                "role": one.role,
                "content": one.content,
                "reasoning": one.reasoning,
                "tool_call_id": one.tool_call_id,
                "tool_calls": [
                    {
                        "id": c.id,
                        "function": {"name": c.function.name, "arguments": c.function.arguments},
                    }
                    for c in one.tool_calls or ()
                ],
                "created_at": one.said_at.isoformat() if one.said_at else None,
            }
            for one in session
        ],
    }
    account = await desk.take(jsonl([entry]))
    assert account.mapped == account.read == len(session)
    (line,) = (await desk.exported("openai")).splitlines()
    assert json.loads(line) == entry
    (conversation,) = await desk.conversations()
    kept = await desk.messages(conversation)
    assert [one.said_at for one in kept] == [one.said_at for one in session][-len(kept) :]


async def test_hard_threads_are_kept_or_told(desk: Desk) -> None:
    """The hand-made threads: double encoding, orphan results, roles of other programs."""
    path = sample_data("nasties-synthetic") / "legacy_rows.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
    entries = [row["row"] for row in rows if row["table"] == "threads"]
    entries += [
        {"id": row["row"]["id"] or "none", "messages": said(row["row"]["question"])}
        for row in rows
        if row["case"] in ("NUL in text", "lone high surrogate", "emoji ZWJ + combining")
    ]
    account = await desk.take(jsonl(entries))
    assert account.quarantined == 0
    assert account.altered == {
        "double-encoded": 1,
        "role-alias": 3,
        "nul-escaped": 1,
        "surrogate-replaced": 1,
    }
    exported = [json.loads(line) for line in (await desk.exported("openai")).splitlines()]
    by_id = {one["id"]: one["messages"] for one in exported}
    for entry in entries:
        expected = entry["messages"]
        if isinstance(expected, str):
            expected = json.loads(expected)
        if entry["id"] == "conv_23":
            expected = said("bad \ufffd end")
        assert by_id[entry["id"]] == expected


@pytest.mark.parametrize(
    "text",
    [
        jsonl([{"messages": said("a"), "topic": "x"}, {"messages": said("b")}]),
        jsonl([said("a"), said("b")]),
        json.dumps([{"messages": said("a")}, {"messages": said("b")}], indent=1),
        json.dumps([said("a"), said("b")]),
        json.dumps({"conversations": [{"messages": said("a")}, said("b")]}),
        jsonl([[{"messages": said("a")}, {"messages": said("b")}]]),
    ],
    ids=[
        "objects",
        "bare lists",
        "a document",
        "bare lists in one",
        "an envelope",
        "a list a line",
    ],
)
async def test_a_thread_is_known_in_every_wrapping(desk: Desk, text: str) -> None:
    """A line each, or one document; an object, or the bare list of messages."""
    account = await desk.take(text)
    assert (account.conversations, account.messages, account.read) == (2, 2, 2)
    conversations = await desk.conversations()
    assert sorted([await desk.said(one) for one in conversations]) == [["a"], ["b"]]


async def test_other_keys_are_kept_with_the_conversation(desk: Desk) -> None:
    """As its metadata, with the title as its title too."""
    await desk.take(
        jsonl([{"title": "Plans", "messages": said("a"), "n": [1, None], "\x00": "\x00"}])
    )
    (listed,) = (await desk.record.conversations.list(user="ada")).data
    assert listed.title == "Plans"
    assert listed.metadata["n"] == [1, None]
    (line,) = (await desk.exported("openai")).splitlines()
    assert json.loads(line) == {
        "title": "Plans",
        "messages": said("a"),
        "n": [1, None],
        "\x00": "\x00",
    }


async def test_each_entry_is_told_by_itself(desk: Desk) -> None:
    """A file may mix threads, exports of ours, and things that are no conversation."""
    talk = await desk.record.conversations.create(owner="bob", title="Ours")
    await desk.record.messages.append(talk.id, content="first", actor="bob")
    export = await desk.exported()
    await desk.record.conversations.erase(talk.id)
    mixed = b"".join(
        [
            jsonl([{"messages": said("a")}, "massive error", 42, [1], {"folder": "x"}]).encode(),
            export.replace(str(talk.id).encode(), b"11111111-1111-4111-8111-111111111111"),
            b'{"broken": \n',
            jsonl([said("b"), {"id": "x", "messages": None}]).encode(),
        ]
    )
    account = await desk.take(mixed, owner=None, nobody="ada")
    assert account.mapped == 3
    assert account.reasons == {"no-conversation": 5, "not-json": 1}
    places = {str(fault.place): fault.reason for fault in desk.faults}
    assert places == {
        "file1:2": "no-conversation",
        "file1:3": "no-conversation",
        "file1:4 entry 1": "no-conversation",
        "file1:5": "no-conversation",
        "file1:8": "not-json",
        "file1:10": "no-conversation",
    }
    assert (await desk.record.conversations.list(user="bob")).data[0].title == "Ours"


async def test_a_bad_message_is_set_aside_alone(desk: Desk) -> None:
    """Its neighbours pass; the next one says that something is missing before it."""
    rows: list[Any] = [*said("a"), {"role": "narrator", "content": "b"}, 7, *said("c", "d")]
    account = await desk.take(jsonl([{"messages": rows}]))
    assert (account.read, account.mapped, account.quarantined) == (5, 3, 2)
    assert [(str(one.place), one.reason, one.raw) for one in desk.faults] == [
        ("file1:1 message 2", "unknown-role", rows[1]),
        ("file1:1 message 3", "not-a-message", 7),
    ]
    (conversation,) = await desk.conversations()
    kept = await desk.messages(conversation)
    assert [one.content for one in kept] == ["a", "c", "d"]
    assert [one.metadata.get("greffier:gap") for one in kept] == [None, 2, None]


async def test_a_thread_of_which_nothing_can_be_kept_is_not_made(desk: Desk) -> None:
    """An empty conversation would be there otherwise, and be a lie."""
    account = await desk.take(jsonl([{"messages": [7, 8]}, {"messages": [], "title": "Empty"}]))
    assert (account.read, account.quarantined, account.conversations) == (2, 2, 1)
    (listed,) = (await desk.record.conversations.list(user="ada")).data
    assert listed.title == "Empty"


async def test_what_is_too_large_goes_to_quarantine(desk: Desk) -> None:
    """A content of 16 MiB is taken, one byte more is not; metadata has its bound too."""
    most = "x" * (16 << 20)
    account = await desk.take(
        jsonl([{"messages": said(most, most + "x")}]),
        jsonl([{"messages": said("a"), "big": "x" * (64 << 10)}]),
        jsonl([{"messages": [{"role": "user", "content": "a", "big": "x" * (64 << 10)}]}]),
    )
    assert account.mapped == 1
    assert account.reasons == {"too-large": 2, "metadata-too-large": 1}


async def test_equal_entries_without_ids_are_as_many_as_there_are(desk: Desk) -> None:
    """Two people may say the same; and again the same file adds none."""
    text = jsonl([said("hi"), said("hi"), {"messages": said("hi")}])
    assert (await desk.take(text)).conversations == 3
    again = await desk.take(text)
    assert (again.conversations, again.already) == (0, 3)
    # Each file counts for itself: two files at once are the same as one after the other.
    assert (await desk.take(text, text)).conversations == 0


async def test_another_owner_has_a_copy_of_their_own(desk: Desk) -> None:
    """Whose a conversation is belongs to its identity."""
    text = jsonl([{"id": "t", "messages": said("hi")}])
    await desk.take(text)
    assert (await desk.take(text, owner="bob")).conversations == 1
    (one,) = await desk.conversations("bob")
    assert (await desk.messages(one))[0].author_id == "bob"


async def test_a_newer_export_of_a_thread_adds_what_is_new(desk: Desk) -> None:
    """A thread with an id of its own is known again, also with another title."""
    first = {"id": "t", "title": "Old", "messages": said("a", "b", "a")}
    second = {"id": "t", "title": "New", "messages": said("a", "b", "a", "a", "c")}
    await desk.take(jsonl([first]))
    account = await desk.take(jsonl([second]))
    assert (account.already, account.mapped, account.conversations) == (3, 2, 0)
    (conversation,) = await desk.conversations()
    assert await desk.said(conversation) == ["a", "b", "a", "a", "c"]
    older = await desk.take(jsonl([first]))
    assert (older.already, older.mapped) == (3, 0)


async def test_both_versions_may_stand_in_one_file(desk: Desk) -> None:
    """They are stored one after the other, however many are under way at once."""
    entries = [
        {"id": f"t{n}", "messages": said(*"abcdefgh"[: 2 + k])} for k in range(5) for n in range(20)
    ]
    account = await desk.take(jsonl(entries))
    assert (account.conversations, account.mapped) == (20, 20 * 6)
    for conversation in await desk.conversations():
        assert await desk.said(conversation) == list("abcdef")


async def test_messages_with_ids_may_repeat_them(desk: Desk) -> None:
    """Real exports have one id twice; both are kept, and neither is added again."""
    rows = [{"role": "user", "content": text, "id": "m"} for text in ("a", "b", "a")]
    text = jsonl([{"id": "t", "messages": rows}])
    assert (await desk.take(text)).mapped == 3
    assert (await desk.take(text)).already == 3


async def test_a_message_that_was_changed_elsewhere_is_told(desk: Desk) -> None:
    """The record keeps what it has; the other words are in quarantine."""

    def entry(text: str) -> dict[str, Any]:
        return {"id": "t", "messages": [{"role": "user", "content": text, "id": "m"}]}

    await desk.take(jsonl([entry("before")]))
    account = await desk.take(jsonl([entry("after")]))
    assert account.reasons == {"changed": 1}
    (conversation,) = await desk.conversations()
    assert await desk.said(conversation) == ["before"]


async def test_a_thread_that_went_on_differently_is_not_glued_on(desk: Desk) -> None:
    """At the end of the record its messages would tell a talk that nobody had."""
    await desk.take(jsonl([{"id": "t", "messages": said("question", "answer", "thanks")}]))
    account = await desk.take(jsonl([{"id": "t", "messages": said("question", "other", "fine")}]))
    assert (account.already, account.reasons) == (1, {"out-of-place": 2})
    (conversation,) = await desk.conversations()
    assert await desk.said(conversation) == ["question", "answer", "thanks"]
    # What belongs in between cannot go there either; what comes after it all can.
    rows = said("question", "new", "answer", "thanks", "later")
    account = await desk.take(jsonl([{"id": "t", "messages": rows}]))
    assert (account.already, account.mapped, account.reasons) == (3, 1, {"out-of-place": 1})
    assert await desk.said(conversation) == ["question", "answer", "thanks", "later"]


async def test_another_origin_keeps_equal_ids_apart(desk: Desk) -> None:
    """Two systems that both count their threads 1, 2, 3 are not one."""
    await desk.take(jsonl([{"id": 1, "messages": said("a")}]), origin="one")
    account = await desk.take(jsonl([{"id": 1, "messages": said("b")}]), origin="two")
    assert (account.conversations, account.mapped) == (1, 1)


async def test_what_was_said_here_meanwhile_is_no_obstacle(desk: Desk) -> None:
    """A newer export continues a conversation that went on here; it comes after."""
    await desk.take(jsonl([{"id": "t", "messages": said("a")}]))
    (conversation,) = await desk.conversations()
    await desk.record.messages.append(conversation, content="here", actor="ada")
    assert (await desk.take(jsonl([{"id": "t", "messages": said("a", "b")}]))).mapped == 1
    assert await desk.said(conversation) == ["a", "here", "b"]


async def test_what_was_erased_does_not_come_back(desk: Desk) -> None:
    """Neither a conversation nor a message; the account names the policy."""
    text = jsonl([{"id": "t", "messages": said("a", "b")}, {"id": "u", "messages": said("c", "d")}])
    await desk.take(text)
    gone, kept = await desk.conversations()
    if await desk.said(gone) != ["a", "b"]:
        gone, kept = kept, gone
    await desk.record.conversations.erase(gone)
    await desk.record.messages.delete(kept, 1, erase=True)
    account = await desk.take(text)
    assert (account.deleted, account.already, account.deletions) == (3, 1, {"erased": 3})
    assert await desk.conversations() == [kept]


async def test_an_archived_conversation_takes_nothing_new(desk: Desk) -> None:
    """What it has is found; what is new waits until it is brought back."""
    await desk.take(jsonl([{"id": "t", "messages": said("a")}]))
    (conversation,) = await desk.conversations()
    await desk.record.conversations.archive(conversation)
    longer = jsonl([{"id": "t", "messages": said("a", "b")}])
    for dry_run in (True, False):
        account = await desk.take(longer, dry_run=dry_run)
        assert (account.already, account.reasons) == (1, {"archived": 1})


async def test_a_rehearsal_gives_the_account_of_the_run(desk: Desk) -> None:
    """Row by row the same, and nothing is written; after it the run does what it said."""
    await desk.take(jsonl([{"id": "t", "messages": said("a", "b")}]))
    before = await desk.exported()
    text = jsonl(
        [
            {"id": "t", "messages": said("a", "b", "c")},
            {"id": "t", "messages": said("a", "b", "c", "d")},
            {"id": "t", "messages": said("a", "x")},
            {"id": "new", "messages": [*said("a"), 7]},
            {"id": "new", "messages": said("a", "b")},
            said("hi"),
            said("hi"),
            "nothing",
        ]
    )
    rehearsal = await desk.take(text, dry_run=True)
    assert await desk.exported() == before
    run = await desk.take(text)
    assert rehearsal.as_json() == run.as_json()
    assert run.as_json() == {
        "read": 16,
        "mapped": 6,
        "already": 7,
        "quarantined": 3,
        "deleted": 0,
        "conversations": 3,
        "messages": 6,
        "altered": {},
        "reasons": {"no-conversation": 1, "not-a-message": 1, "out-of-place": 1},
        "deletions": {},
    }


async def test_times_are_kept_as_they_were_said(desk: Desk) -> None:
    """Order is the source's, whatever they say; one without a zone is left out and counted."""
    rows = [
        {"role": "user", "content": "a", "created_at": 1704629915.775304},
        {"role": "user", "content": "b", "created_at": "2024-01-01T00:00:00Z"},
        {"role": "user", "content": "c", "created_at": "2024-01-01 10:00:00"},
    ]
    account = await desk.take(jsonl([{"messages": rows}]))
    assert account.altered == {"time-without-zone": 1}
    (conversation,) = await desk.conversations()
    times = [one.said_at for one in await desk.messages(conversation)]
    assert [at.isoformat() if at else None for at in times] == [
        "2024-01-07T12:18:35.775304+00:00",
        "2024-01-01T00:00:00+00:00",
        None,
    ]


async def test_an_import_only_takes_the_format_it_was_told(desk: Desk) -> None:
    """With a format named, everything else is no conversation."""
    assert (await desk.take(jsonl([said("a")]), form="greffier")).quarantined == 1
    talk = await desk.record.conversations.create(owner="ada")
    await desk.record.messages.append(talk.id, content="x")
    account = await desk.take(await desk.exported(), form="openai")
    assert account.reasons == {"no-conversation": 2}


anything = st.recursive(
    st.none()
    | st.integers()
    | st.text(st.characters() | st.just("\x00"), max_size=8)
    | st.sampled_from(["user", "assistant", "tool", "function", "m1"]),
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.dictionaries(
            st.sampled_from(
                [
                    "messages",
                    "role",
                    "content",
                    "id",
                    "conversation",
                    "owner_id",
                    "tool_calls",
                    "data",
                ]
            )
            | st.text(max_size=3),
            inner,
            max_size=5,
        )
    ),
    max_leaves=25,
)


@settings(max_examples=150)
@given(st.lists(anything.map(json.dumps) | st.text(max_size=20), max_size=6))
async def test_every_row_is_accounted_for_whatever_the_file_holds(lines: list[str]) -> None:
    """Read is mapped, already there, set aside or left out: of anything, and nothing breaks."""
    account = Account()
    faults: list[Fault] = []
    text = "\n".join(lines).encode("utf-8", "surrogatepass")
    for _ in range(2):
        account, faults = Account(), []
        await import_files(
            None, [source(text)], Options("ada"), account, dry_run=True, on_fault=faults.append
        )
        assert account.balanced
        assert account.quarantined == len(faults)
        assert account.mapped == account.messages
        for fault in faults:
            json.loads(fault.line())


async def test_two_imports_of_one_file_at_once_are_one(desk: Desk) -> None:
    """Between them every row is stored once and found once, in the source's order."""
    talks = [{"id": n, "messages": said(*map(str, range(150)))} for n in range(12)]
    first, second = await asyncio.gather(desk.take(jsonl(talks)), desk.take(jsonl(talks)))
    assert first.mapped + second.mapped == first.already + second.already == 12 * 150
    assert first.conversations + second.conversations == 12
    for conversation in await desk.conversations():
        assert await desk.said(conversation) == [str(n) for n in range(150)]
    assert (await audit(desk.record.database)).clean
