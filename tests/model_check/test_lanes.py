"""Any history of a lane, its holders and its zombies is what a model in plain memory says.

The model knows no time but the one that is let pass, by the clock that lanes go by: leases last
1,000 seconds, retries wait 700, and time passes 400 or 1,100 at once, so that nothing a busy
machine takes comes near.  ``GREFFIER_HISTORIES`` says how many are tried.
"""

from __future__ import annotations

import asyncio
import itertools
import os
from dataclasses import dataclass, field
from typing import Any

import asyncpg
import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from hypothesis.stateful import run_state_machine_as_test as run_machine

from greffier.store.connection import connect
from helpers.lanes import Claim, Hand, Lane

LEASE, RETRY, TRIES = 1000, 700, 3


@dataclass
class Worker:
    """Somebody who has claimed the lane, and does not hear when it is theirs no more."""

    claim: Claim
    #: The message they are at.
    at: int
    intended: bool = False
    #: What they have last said, which may be said again.
    said: tuple[str, int, float | None] | None = None


@dataclass
class Model:
    """A lane, as the promises of 50_lanes.sql describe it."""

    head: int = 1
    tail: int = 0
    due: int | None = None
    fence: int = 0
    holder: Worker | None = None
    tries: int = 0
    parked: bool = False
    paused: bool = False
    refused: int = 0
    deleted: set[int] = field(default_factory=set)
    #: (seq, fence) → what came of it.
    journal: dict[tuple[int, int], str | None] = field(default_factory=dict)

    @property
    def work(self) -> bool:
        """Whether there is any."""
        return self.head <= self.tail

    def ready(self, now: int) -> None:
        """Nobody holds it: due if there is work and it is not paused."""
        self.holder = None
        self.due = now if self.work and not self.paused else None


class LaneMachine(RuleBasedStateMachine):
    """One lane of one conversation, driven by everything that can be done to it."""

    hand: Hand
    runner: asyncio.Runner

    def __init__(self) -> None:
        super().__init__()
        self.now = 0
        self.model = Model()
        self.workers: list[Worker] = []
        self.do(self.hand.live.execute("delete from attempts"))
        self.do(self.hand.live.execute("delete from lanes"))
        self.do(self.hand.shift(0))
        self.talk = self.do(self.hand.talk())
        self.lane = self.more(6)

    def do(self, doing: Any) -> Any:
        """Do it in the database."""
        return self.runner.run(doing)

    # -- what happens in the conversation

    def more(self, many: int) -> Lane:
        """Say so many messages, which are work for the lane."""
        for _ in range(many):
            self.do(self.hand.say(self.talk))
        m = self.model
        m.tail += many
        if m.due is None and not m.parked and not m.paused:
            m.due = self.now
        lane: Lane = self.do(self.hand.enqueue(self.talk, m.tail))
        return lane

    @rule(many=st.integers(1, 3))
    def messages_come(self, many: int) -> None:
        """There is more to do, whatever the lane is at."""
        self.more(many)

    @precondition(lambda self: len(self.model.deleted) < 2)
    @rule(data=st.data())
    def a_message_is_deleted(self, data: st.DataObject) -> None:
        """Erased before it is sent, perhaps while it is."""
        seq = data.draw(st.integers(max(1, self.model.head - 1), self.model.tail))
        self.do(self.hand.call("delete_message_v1", self.talk, None, seq, True))
        self.model.deleted.add(seq)

    @rule(seconds=st.sampled_from([400, 1100]))
    def time_passes(self, seconds: int) -> None:
        """Retries come due, and leases run out."""
        self.now += seconds
        self.do(self.hand.shift(self.now / 3600))

    # -- workers

    @rule()
    def somebody_claims(self) -> None:
        """A worker looks for what is due."""
        m = self.model
        found = self.do(self.hand.claim(lease=LEASE, max_tries=TRIES))
        if m.due is None or m.due > self.now:
            assert found == []
            return
        lost = m.holder is not None
        m.fence += 1
        m.tries += lost
        m.holder, m.due = None, None
        if lost and m.tries >= TRIES:
            m.parked = True
            assert [(c.parked, c.token) for c in found] == [(True, None)]
        elif m.paused:
            assert found == []
        else:
            (claim,) = found
            assert (claim.fence, claim.head, claim.tail, claim.tries) == (
                m.fence, m.head, m.tail, m.tries,
            )  # fmt: skip
            m.holder, m.due = Worker(claim, m.head), self.now + LEASE
            self.workers.append(m.holder)

    def worker(self, data: st.DataObject) -> Worker:
        """Somebody who holds the lane, or did."""
        # The last are the interesting ones.
        return data.draw(st.sampled_from(self.workers[-3:]))

    @precondition(lambda self: self.workers)
    @rule(data=st.data())
    def somebody_begins(self, data: st.DataObject) -> None:
        """A holder, or who was one, says what they are about to do."""
        self.begin(self.worker(data))

    def begin(self, w: Worker) -> None:
        """Say what is about to be done."""
        m = self.model
        if w.at > m.tail:
            return
        answer = self.do(self.hand.intend(w.claim, w.at, margin=150))
        if w is not m.holder:
            m.refused += 1
            assert answer == "zombie"
        elif m.paused or (m.due or 0) <= self.now + 150:
            assert answer == "late"
        elif w.at in m.deleted:
            assert answer == "skip"
            m.journal[w.at, w.claim.fence] = "skipped"
            m.head, m.tries = w.at + 1, 0
            w.at, w.intended = m.head, False
        else:
            assert answer == "go"
            m.journal.setdefault((w.at, w.claim.fence), None)
            w.intended = True

    @precondition(lambda self: any(w.intended for w in self.workers[-3:]))
    @rule(data=st.data(), keep=st.booleans())
    def somebody_is_done(self, data: st.DataObject, keep: bool) -> None:
        """It was done, by whoever may have lost the lane meanwhile."""
        self.done(data.draw(st.sampled_from([w for w in self.workers[-3:] if w.intended])), keep)

    def done(self, w: Worker, keep: bool) -> None:
        """Say that it is done."""
        m, lease = self.model, LEASE if keep else None
        answer = self.do(self.hand.done(w.claim, w.at, keep=lease))
        if w is not m.holder:
            m.refused += 1
            assert answer is False
            return
        assert answer is True
        m.journal[w.at, w.claim.fence] = "accepted"
        m.head, m.tries = w.at + 1, 0
        w.said = ("done", w.at, lease)
        w.at, w.intended = m.head, False
        if keep and m.work and not m.paused:
            m.due = self.now + LEASE
        else:
            m.ready(self.now)

    @precondition(lambda self: any(w.intended for w in self.workers[-3:]))
    @rule(data=st.data(), for_good=st.booleans())
    def somebody_fails(self, data: st.DataObject, for_good: bool) -> None:
        """It was tried in vain, for now or for good."""
        w = data.draw(st.sampled_from([w for w in self.workers[-3:] if w.intended]))
        self.fail(w, for_good)

    def fail(self, w: Worker, for_good: bool) -> None:
        """Say that it was tried in vain."""
        m, reason = self.model, "410" if for_good else None
        answer = self.do(
            self.hand.fail(w.claim, w.at, retry_in=RETRY, max_tries=TRIES, reason=reason)
        )
        if w is not m.holder:
            m.refused += 1
            assert answer is False
            return
        assert answer is True
        m.journal[w.at, w.claim.fence] = "not_sent"
        w.said, w.intended = ("fail", w.at, None), False
        m.tries += 1
        m.holder = None
        m.parked = for_good or m.tries >= TRIES
        m.due = None if m.parked or m.paused else self.now + RETRY

    @precondition(lambda self: self.model.due is not None and not self.model.paused)
    @rule(
        hows=st.lists(
            st.sampled_from(["done", "kept", "fails", "fails for good", "dies", "is paused"]),
            min_size=2,
            max_size=6,
        )
    )
    def somebody_works(self, hows: list[str]) -> None:
        """Rounds as they should be: wait until it is due, claim, begin, and say how it went."""
        for how in hows:
            self.round(how)
            self.the_lane_is_what_the_model_says()

    def round(self, how: str) -> None:
        """One of them."""
        m = self.model
        while m.due is not None and m.due > self.now and m.holder is None:
            self.time_passes(400)
        if m.due is not None and m.due <= self.now:
            self.somebody_claims()
        w = m.holder
        if w is None:
            return
        self.begin(w)
        if how == "dies":
            self.time_passes(1100)
        elif how == "is paused":
            self.somebody_pauses_or_resumes(paused=True)
            self.more(1)
            # What is under way may end; else its holder dies, who may begin nothing.
            if w.intended and m.tail % 2:
                self.done(w, keep=True)
            self.begin(w)
            self.time_passes(1100)
            self.somebody_claims()
            self.the_lane_is_what_the_model_says()
            self.somebody_pauses_or_resumes(paused=False)
        elif w.intended and how.startswith("fails"):
            self.fail(w, how != "fails")
        elif w.intended:
            self.done(w, how == "kept")

    @precondition(lambda self: any(w.said for w in self.workers[-3:]))
    @rule(data=st.data())
    def somebody_says_it_again(self, data: st.DataObject) -> None:
        """The answer was lost on the way: it is said once more, whatever happened since."""
        w = data.draw(st.sampled_from([w for w in self.workers[-3:] if w.said]))
        assert w.said is not None
        what, seq, lease = w.said
        if what == "done":
            assert self.do(self.hand.done(w.claim, seq, keep=lease)) is True
        else:
            assert self.do(self.hand.fail(w.claim, seq, retry_in=RETRY)) is True

    @precondition(lambda self: self.workers)
    @rule(data=st.data())
    def somebody_lets_go(self, data: st.DataObject) -> None:
        """A worker stops."""
        m, w = self.model, self.worker(data)
        answer = self.do(self.hand.release(w.claim))
        assert answer is (w is m.holder)
        if w is m.holder:
            m.ready(self.now)
        else:
            m.refused += 1

    @precondition(lambda self: self.workers)
    @rule(data=st.data())
    def somebody_renews(self, data: st.DataObject) -> None:
        """A heartbeat, perhaps too late."""
        m, w = self.model, self.worker(data)
        kept = self.do(self.hand.heartbeat(w.claim, lease=LEASE))
        assert kept == ({self.lane.id} if w is m.holder else set())
        if w is m.holder:
            m.due = self.now + LEASE
        else:
            m.refused += m.holder is not None

    # -- operators

    @rule(force=st.booleans(), steal=st.booleans())
    def somebody_unlocks(self, force: bool, steal: bool) -> None:
        """An operator, with or without force."""
        m = self.model
        was = self.do(self.hand.unlock(self.lane, max_tries=TRIES, force=force, steal=steal))
        expected = None
        if m.parked:
            expected = "parked" if force or m.tries < TRIES else None
        elif m.holder is not None:
            expected = "expired" if (m.due or 0) <= self.now else "stolen" if steal else None
        assert was == expected
        if was is not None:
            m.fence, m.tries, m.parked = m.fence + 1, 0, False
            m.ready(self.now)

    @rule()
    def somebody_retries(self) -> None:
        """An operator, who does not want to wait."""
        m = self.model
        may = m.holder is None and m.work
        assert self.do(self.hand.call("retry_v1", *self.lane)) is may
        if may:
            m.tries, m.parked = 0, False
            m.ready(self.now)

    @rule()
    def somebody_gives_the_head_up(self) -> None:
        """An operator, who wants the others to be sent."""
        m = self.model
        may = m.holder is None and m.work
        assert self.do(self.hand.call("skip_head_v1", *self.lane, "eve")) == (
            m.head if may else None
        )
        if may:
            m.fence += 1
            m.journal[m.head, m.fence] = "skipped"
            m.head, m.tries, m.parked = m.head + 1, 0, False
            m.ready(self.now)

    @rule(paused=st.booleans())
    def somebody_pauses_or_resumes(self, paused: bool) -> None:
        """An operator, perhaps while somebody works on it."""
        m = self.model
        assert self.do(self.hand.pause(self.lane, paused)) is (paused != m.paused)
        if paused != m.paused:
            m.paused = paused
            if m.holder is None:
                m.due = None if paused or m.parked or not m.work else self.now

    @rule()
    def the_database_is_restored(self) -> None:
        """Every claim may be lost, and none of before may write."""
        m = self.model
        self.do(self.hand.call("refence_lanes_v1"))
        m.fence += 1_000_000
        if m.holder is not None:
            m.ready(self.now)

    # -- what must hold

    @invariant()
    def the_lane_is_what_the_model_says(self) -> None:
        """After each step, every number of it."""
        if not hasattr(self, "lane"):
            return
        m, row = self.model, self.do(self.hand.look(self.lane))
        assert row["token"] == (None if m.holder is None else m.holder.claim.token)
        assert (row["head_seq"], row["tail_seq"], row["tries"]) == (m.head, m.tail, m.tries)
        assert (row["fence"], row["refused"]) == (m.fence, m.refused)
        assert (row["parked_at"] is not None, row["paused_at"] is not None) == (m.parked, m.paused)
        assert (row["due_at"] is None) == (m.due is None)
        if m.due is not None:
            off = (row["due_at"] - self.do(self.hand.clock())).total_seconds()
            assert abs(off - (m.due - self.now)) < 90
        # I7: it stands somewhere where somebody will look.
        assert not self.do(self.hand.state(self.lane)).startswith("lost")

    def teardown(self) -> None:
        """Let everything be done; the journal then tells of nothing lost, doubled or moved."""
        if not hasattr(self, "lane"):
            return
        m = self.model
        self.somebody_pauses_or_resumes(paused=False)
        while m.work:
            if m.holder is None or m.parked:
                self.somebody_retries()
                self.somebody_claims()
                continue
            w = m.holder
            self.somebody_renews_as(w)
            if self.do(self.hand.intend(w.claim, m.head, margin=150)) == "go":
                m.journal.setdefault((m.head, w.claim.fence), None)
                assert self.do(self.hand.done(w.claim, m.head, keep=LEASE))
                m.journal[m.head, w.claim.fence] = "accepted"
                m.head, m.tries = m.head + 1, 0
                if not m.work:
                    m.ready(self.now)
            else:
                m.journal[m.head, w.claim.fence] = "skipped"
                m.head, m.tries = m.head + 1, 0
        rows = self.do(
            self.hand.live.fetch(
                "select seq, fence, outcome, intended_at from attempts where lane_id = $1 "
                "order by fence, seq",
                self.lane.id,
            )
        )
        assert {(r["seq"], r["fence"]): r["outcome"] for r in rows} == m.journal
        # I1, I2: each message was accepted or given up, once.
        ended = [r["seq"] for r in rows if r["outcome"] in ("accepted", "skipped")]
        assert sorted(ended) == list(range(1, m.tail + 1))
        # I3, I4: in order, whoever did it; and none was begun before the one before it was over.
        assert ended == sorted(ended)
        assert [r["seq"] for r in rows] == sorted(r["seq"] for r in rows)
        # I5: who sees a message twice sees a higher fence the second time.
        for one, other in itertools.pairwise(rows):
            if one["seq"] == other["seq"]:
                assert one["fence"] < other["fence"]

    def somebody_renews_as(self, worker: Worker) -> None:
        """Be sure that the lease lasts."""
        assert self.do(self.hand.heartbeat(worker.claim, lease=LEASE)) == {self.lane.id}
        self.model.due = self.now + LEASE


@pytest.mark.slow
@pytest.mark.timeout(0)
def test_every_history_of_a_lane_is_what_the_model_says(database: str) -> None:
    """Whoever does what in which order: holders, zombies, operators, clocks and restores."""
    with asyncio.Runner() as runner:
        live: asyncpg.Connection[Any] = runner.run(connect(database))
        try:
            LaneMachine.runner = runner
            LaneMachine.hand = Hand(live)
            run_machine(
                LaneMachine,
                settings=settings(
                    max_examples=int(os.environ.get("GREFFIER_HISTORIES", "40")),
                    stateful_step_count=40,
                    deadline=None,
                ),
            )
        finally:
            runner.run(live.close())
