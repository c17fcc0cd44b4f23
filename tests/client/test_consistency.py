"""The checker of ``greffier.testing.consistency`` finds every fault it is there for.

Each test takes a history in which all went well and plants one fault; the checker finds that fault
and nothing else.  A checker that finds nothing is worth what it would have found.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from typing import Any, Literal
from uuid import UUID

import pytest

from greffier.testing.consistency import Delivery, Finding, History, Reading, Seen, check

MESSAGES = 8


def message_id(number: int) -> UUID:
    """The id of a numbered message."""
    return UUID(int=number)


def clean() -> History:
    """Two writers say eight messages in turns; bob follows from rev 1 on, and ada reads."""
    moments = itertools.count(1)
    history = History(clock=lambda: float(next(moments)))
    history.started("bob", rev=1)
    record = []
    for number in range(1, MESSAGES + 1):
        process = "ada" if number % 2 else "eve"
        attempt = history.invoke(process, message_id(number))
        rev = number + 1
        history.ok(attempt, seq=number, rev=rev)
        seen = Seen(number, message_id(number), rev, f"n{number}")
        record.append(seen)
        history.delivered("bob", since=rev - 1, rev=rev, seen=[seen])
        invoked = history.clock()
        history.read("ada", invoked=invoked, rev=rev, seen=record)
    refused = history.invoke("eve", message_id(100))
    history.fail(refused)
    history.unknown(history.invoke("eve", message_id(101)))
    history.final(record, rev=MESSAGES + 1)
    return history


def deliveries(history: History) -> list[Delivery]:
    """What reached bob."""
    return history.followings["bob"].deliveries


def lose(history: History) -> None:
    """An acknowledged message is not on record, nor was ever seen."""
    history.record = history.record[:-1] if history.record else ()
    deliveries(history)[-1] = deliveries(history)[-1]._replace(seen=())
    history.readings[-1] = history.readings[-1]._replace(seen=())


def tear_a_hole(history: History) -> None:
    """A number has no message, though nobody was told that one is stored."""
    assert history.record is not None
    history.record = tuple(one for one in history.record if one.seq != 4)
    history.attempts = [one for one in history.attempts if one.seq != 4]


def store_twice(history: History) -> None:
    """One message stands at two numbers."""
    assert history.record is not None
    again = history.record[0]._replace(seq=MESSAGES + 1)
    history.record = (*history.record, again)


def deliver_twice(history: History) -> None:
    """A follower is handed the same message again as something new."""
    first, last = deliveries(history)[0], deliveries(history)[-1]
    rev = last.rev + 1
    deliveries(history).append(last._replace(since=last.rev, rev=rev, seen=first.seen))


def swap(history: History) -> None:
    """Two messages reach a follower in the wrong order."""
    two, three = deliveries(history)[2], deliveries(history)[3]
    deliveries(history)[2] = two._replace(seen=three.seen)
    deliveries(history)[3] = three._replace(seen=two.seen)


def drop(history: History) -> None:
    """A change is missing, and the follower takes the next as if it were not."""
    del deliveries(history)[3]


def empty(history: History) -> None:
    """A change comes without its message."""
    deliveries(history)[3] = deliveries(history)[3]._replace(seen=())


def stop_short(history: History) -> None:
    """The last change never comes."""
    del deliveries(history)[-1]


def rewind_follower(history: History) -> None:
    """A follower is brought to an older rev."""
    last = deliveries(history)[-1]
    deliveries(history).append(Delivery(last.at + 1, 2, 3, ()))


def renumber(history: History) -> None:
    """A follower sees another message at a number than everybody else."""
    other = Seen(5, message_id(101), 6, "n5")
    deliveries(history)[4] = deliveries(history)[4]._replace(seen=(other,))
    deliveries(history)[5] = deliveries(history)[5]._replace(
        seen=(*deliveries(history)[5].seen, Seen(5, message_id(5), 6, "n5"))
    )


def answer_stale(history: History) -> None:
    """Somebody who was told that rev 10 is theirs reads a state before it."""
    assert history.record is not None
    attempt = history.invoke("eve", message_id(9))
    history.ok(attempt, seq=9, rev=10)
    said = Seen(9, message_id(9), 10)
    history.final([*history.record, said], rev=10)
    history.delivered("bob", since=9, rev=10, seen=[said])
    invoked = history.clock()
    history.read("eve", invoked=invoked, rev=9, seen=[])


def read_back(history: History) -> None:
    """Somebody who only reads sees an older state than before."""
    for rev in (9, 8):
        history.read("carl", invoked=history.clock(), rev=rev, seen=[])


def remove(history: History) -> None:
    """Bob is taken out at rev 8 and is told of what came with it and after it."""
    history.removed("bob", rev=9)


def erase(history: History) -> None:
    """A message is erased, and its content comes once more."""
    history.erased(message_id(8), rev=10)
    assert history.record is not None
    gone = history.record[-1]._replace(content=None, rev=10)
    history.final([*history.record[:-1], gone], rev=10)
    history.delivered("bob", since=9, rev=10, seen=[gone])
    history.read("eve", invoked=history.clock(), rev=10, seen=[gone._replace(content="n8", rev=9)])


def show_the_refused(history: History) -> None:
    """What was refused for good is on record all the same."""
    assert history.record is not None
    refused = Seen(MESSAGES + 1, message_id(100), MESSAGES + 2)
    history.final([*history.record, refused], rev=MESSAGES + 2)
    history.delivered("bob", since=MESSAGES + 1, rev=MESSAGES + 2, seen=[refused])


def answer_too_early(history: History) -> None:
    """A message that was answered before another was begun stands behind it."""
    first, second = history.attempts[2], history.attempts[3]
    second.invoked, second.completed = first.invoked - 2, first.invoked - 1


def altered() -> History:
    """The same, and then all that may be done to it, followed by bob from his page on.

    Rev 10 edits message 8, rev 11 deletes 7, rev 12 erases 6; 13 rewinds after 4, 14 says message 9
    on the new path, 15 brings the former path back.
    """
    history = clean()
    assert history.record is not None
    record = {one.seq: one for one in history.record}
    following = history.followings["bob"]
    following.base = ()

    def alter(seq: int, kind: Literal["edit", "delete", "erase"], content: str | None) -> None:
        rev = history.record_rev + 1
        process = "ada" if seq % 2 else "eve"
        history.done(history.altering(process, message_id(seq), kind, content), rev=rev)
        record[seq] = record[seq]._replace(rev=rev, content=content)
        show(rev, seen=[record[seq]])

    def show(rev: int, **what: Any) -> None:
        history.delivered("bob", since=rev - 1, rev=rev, **{"seen": (), **what})
        history.record_rev = rev

    alter(8, "edit", "n8, better")
    alter(7, "delete", None)
    alter(6, "erase", None)
    history.done(history.turning("ada", after=4), rev=13)
    show(13, superseded=[(5, 8)])
    history.ok(history.invoke("eve", message_id(9)), seq=9, rev=14)
    record[9] = Seen(9, message_id(9), 14, "n9")
    show(14, seen=[record[9]])
    former = [record[seq] for seq in (1, 2, 3, 4, 9)]
    history.read("ada", invoked=history.clock(), rev=14, seen=former)
    history.done(history.turning("ada", path=[(1, 8)]), rev=15)
    show(15, seen=[record[seq] for seq in (5, 8, 7, 6)], superseded=[(9, 9)])
    active = [record[seq] for seq in range(1, 9)]
    history.read("ada", invoked=history.clock(), rev=15, seen=active)
    history.final([record[seq] for seq in range(1, 10)], rev=15, active=range(1, 9))
    return history


def reread(history: History, seq: int, **changed: Any) -> None:
    """The last page shows a message otherwise."""
    last = history.readings[-1]
    seen = [one._replace(**changed) if one.seq == seq else one for one in last.seen]
    history.readings[-1] = last._replace(seen=tuple(seen))


def show_the_old_text(history: History) -> None:
    """Who could know of an edit is shown what was there before."""
    reread(history, 8, rev=9, content="n8")


def tear_a_text(history: History) -> None:
    """One version of a message has two contents."""
    reread(history, 8, content="n8, worse")


def store_another_text(history: History) -> None:
    """What everybody sees is not what its author was told is stored."""
    (edit,) = [one for one in history.alterations if one.kind == "edit"]
    edit.content = "n8, as they said"


def show_a_refused_text(history: History) -> None:
    """An edit that was refused for good is seen all the same."""
    history.fail(history.altering("eve", message_id(2), "edit", "n2"))


def show_the_deleted(history: History) -> None:
    """A page shows the content of a message that was deleted before."""
    reread(history, 7, rev=8, content="n7")


def show_the_erased(history: History) -> None:
    """A page shows the content of a message that was erased before."""
    reread(history, 6, rev=7, content="n6")


def show_the_rewound(history: History) -> None:
    """A page of the new path shows a message of the path that was left."""
    page = history.readings[-2]
    left = deliveries(history)[4].seen[0]
    history.readings[-2] = page._replace(seen=(*page.seen, left))


def deliver_the_rewound(history: History) -> None:
    """A change that comes after a rewind carries a message that it took off."""
    at = next(n for n, one in enumerate(deliveries(history)) if one.rev == 14)
    left = deliveries(history)[4].seen[0]
    delivery = deliveries(history)[at]
    deliveries(history)[at] = delivery._replace(seen=(*delivery.seen, left))


def keep_the_rewound(history: History) -> None:
    """Nobody tells a follower that a path was left; in the end they show what is not on it."""
    deliveries(history)[-1] = deliveries(history)[-1]._replace(superseded=())


def bring_back_too_little(history: History) -> None:
    """A branch is activated, and a follower lacks a message of it."""
    last = deliveries(history)[-1]
    deliveries(history)[-1] = last._replace(seen=last.seen[1:])


def forget_an_edit(history: History) -> None:
    """A change that carries an edit comes without it, and the follower keeps the old text."""
    early = next(n for n, one in enumerate(deliveries(history)) if one.rev == 10)
    deliveries(history)[early] = deliveries(history)[early]._replace(seen=())
    last = deliveries(history)[-1]
    deliveries(history)[-1] = last._replace(
        seen=tuple(one for one in last.seen if one.seq != 8), superseded=((9, 9),)
    )
    rewind = next(n for n, one in enumerate(deliveries(history)) if one.rev == 13)
    deliveries(history)[rewind] = deliveries(history)[rewind]._replace(superseded=((5, 7),))


def answer_an_edit_stale(history: History) -> None:
    """Who was told that their edit is stored reads a state before it."""
    history.read("eve", invoked=history.clock(), rev=9, seen=())


@pytest.mark.parametrize(
    ("plant", "kinds"),
    [
        (show_the_old_text, ["stale-version"]),
        (tear_a_text, ["inconsistent-content"]),
        (store_another_text, ["inconsistent-content"] * 4),
        (show_a_refused_text, None),
        (show_the_deleted, ["content-after-deletion"]),
        (show_the_erased, ["content-after-erasure"]),
        (show_the_rewound, ["superseded-shown"]),
        (deliver_the_rewound, ["superseded-shown"]),
        (keep_the_rewound, ["superseded-shown"]),
        (bring_back_too_little, ["skipped"]),
        (forget_an_edit, ["stale-version"]),
        (answer_an_edit_stale, ["stale-own-read"]),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_a_fault_in_what_was_altered_is_found_and_nothing_else(
    plant: Callable[[History], None], kinds: list[str] | None
) -> None:
    """Edits, deletions, erasures, rewinds and branches are judged like words."""
    history = altered()
    plant(history)

    found = [one.kind for one in check(history)]
    if kinds is None:
        # Seen by everybody who saw the message.
        assert set(found) == {"aborted-read"}
    else:
        assert sorted(found) == kinds


def test_what_was_altered_well_has_no_findings() -> None:
    """No false alarm: also where changes are folded, and where an outcome is not known."""
    folded = altered()
    several = deliveries(folded)
    last = several[-1]
    at = next(n for n, one in enumerate(several) if one.rev == 13)
    # Rewound, continued and brought back in one change: what was there comes again, 9 never.
    several[at:] = [Delivery(last.at, 12, 15, last.seen)]
    unsure = altered()
    for turn in unsure.turns:
        unsure.unknown(turn)
    for alteration in unsure.alterations:
        unsure.unknown(alteration)

    assert check(altered()) == []
    assert check(folded) == []
    assert check(unsure) == []


@pytest.mark.parametrize(
    ("plant", "kinds"),
    [
        (lose, ["lost"]),
        (tear_a_hole, ["lost"]),
        (store_twice, ["doubled"]),
        (deliver_twice, ["doubled"]),
        (swap, ["out-of-order"]),
        (drop, ["skipped", "skipped"]),
        (empty, ["skipped"]),
        (stop_short, ["unseen"]),
        (rewind_follower, ["went-back"]),
        (renumber, ["inconsistent-seq", "out-of-order"]),
        (answer_stale, ["stale-own-read"]),
        (read_back, ["went-back"]),
        (remove, ["seen-after-removal"]),
        (erase, ["content-after-erasure"]),
        (show_the_refused, ["aborted-read"]),
        (answer_too_early, ["out-of-order"]),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_a_planted_fault_is_found_and_nothing_else(
    plant: Callable[[History], None], kinds: list[str]
) -> None:
    """Each promise is really checked."""
    history = clean()
    plant(history)

    assert sorted(one.kind for one in check(history)) == kinds


def test_a_clean_history_has_no_findings() -> None:
    """No false alarm: also an unknown outcome, stored or not, breaks nothing."""
    stored = clean()
    assert stored.record is not None
    unsure = Seen(MESSAGES + 1, message_id(101), MESSAGES + 2)
    stored.final([*stored.record, unsure], rev=MESSAGES + 2)
    stored.delivered("bob", since=MESSAGES + 1, rev=MESSAGES + 2, seen=[unsure])

    assert check(clean()) == []
    assert check(stored) == []


def test_what_was_superseded_may_come_back() -> None:
    """A rewound message that a branch brings back is no double."""
    history = clean()
    last = deliveries(history)[-1]
    history.delivered("bob", since=9, rev=10, seen=[], superseded=[(7, 8)])
    history.delivered("bob", since=10, rev=11, seen=last.seen)

    assert check(history) == []


def test_who_left_need_not_have_seen_the_rest() -> None:
    """Nothing is unseen to somebody who does not look."""
    history = clean()
    stop_short(history)
    history.left("bob")

    assert check(history) == []


def test_a_history_without_an_end_is_refused() -> None:
    """Nothing can be said to be lost before the record was read."""
    with pytest.raises(ValueError, match="final"):
        check(History())


def test_a_finding_says_which_promise_and_to_whom() -> None:
    """So that the test that fails names the follower to look at."""
    history = clean()
    stop_short(history)

    assert check(history) == [Finding("unseen", "bob", "seq 8, of 9 revs saw 8")]


def test_a_check_is_linear() -> None:
    """A history ten times as long takes about ten times the work, counted in calls of our own."""
    import sys

    def calls(messages: int) -> int:
        history = History(clock=time.monotonic)
        history.started("bob", rev=1)
        record = []
        for number in range(1, messages + 1):
            history.ok(history.invoke("ada", message_id(number)), seq=number, rev=number + 1)
            record.append(Seen(number, message_id(number), number + 1))
            history.delivered("bob", since=number, rev=number + 1, seen=record[-1:])
            history.readings.append(Reading("ada", number, number, number + 1, ()))
        history.final(record, rev=messages + 1)
        count = 0

        def tick(*_: object) -> None:
            nonlocal count
            count += 1

        sys.setprofile(tick)
        try:
            check(history)
        finally:
            sys.setprofile(None)
        return count

    assert calls(2000) < 15 * calls(200)
