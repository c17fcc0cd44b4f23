"""Did what people did and saw happen in one conversation that keeps its promises?

Record a history while writers write and followers follow, through whatever faults you like, then
``check`` it: every breach of the promises P1, P2, P3, P5, P6 and P11 that the history shows is a
``Finding``.  An empty list says that nobody could have told this service from a perfect one.

    history = History()
    attempt = history.invoke("ada", message_id)
    history.ok(attempt, seq=said.seq, rev=said.rev)
    history.started("bob's phone", rev=page.rev)
    history.delivered("bob's phone", since=5, rev=6, seen=[Seen(3, message_id, 6, "Hello")])
    edit = history.altering("ada", message_id, "edit", "Hello!")
    history.done(edit, rev=7)
    history.final(everything, rev=7, active=[1, 2, 3])
    assert check(history) == []

The anomalies are those of Jepsen's kafka and set-full checkers under this domain's names, and those
of what is edited, deleted, erased, rewound and brought back.  A check takes time linear in the
history, times the changes of path that it has: ids are unique and a conversation is append-only, so
that no search is needed.  It knows no clock but the recorder's and does no I/O.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple
from uuid import UUID

Kind = Literal[
    "lost",
    "doubled",
    "inconsistent-seq",
    "out-of-order",
    "skipped",
    "unseen",
    "stale-own-read",
    "went-back",
    "seen-after-removal",
    "content-after-erasure",
    "content-after-deletion",
    "stale-version",
    "inconsistent-content",
    "superseded-shown",
    "aborted-read",
]

Outcome = Literal["open", "ok", "fail", "unknown"]


class Seen(NamedTuple):
    """A message as somebody saw it; ``rev`` is its own, and ``content`` None once it is gone."""

    seq: int
    id: UUID
    rev: int
    content: str | None = ""


class Finding(NamedTuple):
    """A promise that was broken: which, to whom, and what shows it."""

    kind: Kind
    who: str
    detail: str


@dataclass(slots=True)
class Attempt:
    """One message somebody tried to say, however often they had to send it."""

    process: str
    id: UUID
    invoked: float
    outcome: Outcome = "open"
    completed: float = 0.0
    seq: int = 0
    rev: int = 0


@dataclass(slots=True)
class Alteration:
    """What somebody tried to do to a message: give it another text, delete it, erase it."""

    process: str
    id: UUID
    kind: Literal["edit", "delete", "erase"]
    #: Of an edit; nobody else ever says the same.
    content: str | None
    invoked: float
    outcome: Outcome = "open"
    completed: float = 0.0
    rev: int = 0


@dataclass(slots=True)
class Turn:
    """A change of path somebody tried: a rewind, or the activation of a branch."""

    process: str
    invoked: float
    #: Of a rewind: the seq after which everything leaves the path.
    after: int | None = None
    #: Of an activation: the stretches of seqs that become the path.
    path: tuple[tuple[int, int], ...] = ()
    outcome: Outcome = "open"
    completed: float = 0.0
    rev: int = 0


class Delivery(NamedTuple):
    """A change that reached a follower."""

    at: float
    since: int
    rev: int
    seen: tuple[Seen, ...]
    superseded: tuple[tuple[int, int], ...] = ()


@dataclass(slots=True)
class Following:
    """All that reached one follower, in the order it came, from the rev they started at."""

    user: str
    started: int
    #: What they saw when they started.
    base: tuple[Seen, ...] = ()
    deliveries: list[Delivery] = field(default_factory=list)
    #: They were there to the end, so that in the end they have seen everything.
    stayed: bool = True


class Reading(NamedTuple):
    """A page somebody read: what it showed, as of which rev, and when it was asked for."""

    process: str
    invoked: float
    at: float
    rev: int
    seen: tuple[Seen, ...]


@dataclass
class History:
    """What writers and followers of one conversation did and saw; append-only, not thread-safe."""

    clock: Callable[[], float] = time.monotonic
    attempts: list[Attempt] = field(default_factory=list)
    alterations: list[Alteration] = field(default_factory=list)
    turns: list[Turn] = field(default_factory=list)
    followings: dict[str, Following] = field(default_factory=dict)
    readings: list[Reading] = field(default_factory=list)
    #: (user, rev): from this rev on they may see nothing.
    removals: list[tuple[str, int]] = field(default_factory=list)
    #: message → the rev from which on its content is nowhere.
    erasures: dict[UUID, int] = field(default_factory=dict)
    #: The whole record in the end, superseded messages too; None before it was read.
    record: tuple[Seen, ...] | None = None
    record_rev: int = 0
    #: Which seqs are on the path in the end; None when nobody looked.
    active: frozenset[int] | None = None

    # -- writers -------------------------------------------------------------------------------

    def invoke(self, process: str, message_id: UUID) -> Attempt:
        """Somebody begins to say a message."""
        attempt = Attempt(process, message_id, self.clock())
        self.attempts.append(attempt)
        return attempt

    def ok(self, attempt: Attempt, *, seq: int, rev: int) -> None:
        """It was acknowledged under this number."""
        attempt.outcome, attempt.seq, attempt.rev = "ok", seq, rev
        attempt.completed = self.clock()

    def altering(
        self,
        process: str,
        message_id: UUID,
        kind: Literal["edit", "delete", "erase"],
        content: str | None = None,
    ) -> Alteration:
        """Somebody begins to edit (to this content), delete or erase a message."""
        alteration = Alteration(process, message_id, kind, content, self.clock())
        self.alterations.append(alteration)
        return alteration

    def turning(
        self, process: str, *, after: int | None = None, path: Iterable[tuple[int, int]] = ()
    ) -> Turn:
        """Somebody begins to rewind after a seq, or to activate a branch with this path."""
        turn = Turn(process, self.clock(), after, tuple((low, high) for low, high in path))
        self.turns.append(turn)
        return turn

    def done(self, step: Alteration | Turn, *, rev: int) -> None:
        """It was acknowledged as done in this rev, or at the latest in this one."""
        step.outcome, step.rev, step.completed = "ok", rev, self.clock()

    def fail(self, step: Attempt | Alteration | Turn) -> None:
        """It was refused for good, and no earlier try of it can have been stored."""
        step.outcome, step.completed = "fail", self.clock()

    def unknown(self, step: Attempt | Alteration | Turn) -> None:
        """Nobody knows whether it was stored."""
        step.outcome, step.completed = "unknown", self.clock()

    # -- readers -------------------------------------------------------------------------------

    def started(
        self, follower: str, *, rev: int, user: str | None = None, base: Iterable[Seen] = ()
    ) -> None:
        """A follower has seen all up to this rev, shows ``base`` of it, and follows from here."""
        self.followings[follower] = Following(user or follower, rev, tuple(base))

    def delivered(
        self,
        follower: str,
        *,
        since: int,
        rev: int,
        seen: Iterable[Seen],
        superseded: Iterable[tuple[int, int]] = (),
    ) -> None:
        """A change reached a follower, who took it as applying."""
        delivery = Delivery(self.clock(), since, rev, tuple(seen), tuple(superseded))
        self.followings[follower].deliveries.append(delivery)

    def left(self, follower: str) -> None:
        """A follower stopped looking: what came later they need not have seen."""
        self.followings[follower].stayed = False

    def read(self, process: str, *, invoked: float, rev: int, seen: Iterable[Seen]) -> None:
        """Somebody read a page that they had asked for at ``invoked`` (of the same clock)."""
        self.readings.append(Reading(process, invoked, self.clock(), rev, tuple(seen)))

    # -- what ends sight -----------------------------------------------------------------------

    def removed(self, user: str, *, rev: int) -> None:
        """A user was taken out with this rev."""
        self.removals.append((user, rev))
        for following in self.followings.values():
            if following.user == user:
                following.stayed = False

    def erased(self, message_id: UUID, *, rev: int) -> None:
        """A message's content was destroyed with this rev."""
        self.erasures[message_id] = rev

    def final(
        self, record: Iterable[Seen], *, rev: int, active: Iterable[int] | None = None
    ) -> None:
        """The whole record, read after everything has come to rest, and the seqs on its path."""
        self.record, self.record_rev = tuple(record), rev
        self.active = None if active is None else frozenset(active)


def check(history: History) -> list[Finding]:
    """Find every broken promise that a history shows.

    Raises:
        ValueError: The history has no ``final`` record to compare with.
    """
    if history.record is None:
        raise ValueError("Record the whole conversation with final() before you check.")
    record = history.record
    turns = _Path(history)
    found = [*_numbers(history), *_kept(history, record), *_real_time(history)]
    for name, following in history.followings.items():
        found += _followed(name, following, history, turns)
    found += _own_reads(history)
    found += _removals(history)
    found += _erasures(history)
    found += _versions(history)
    found += _off_path(history, turns)
    return found


def _sightings(history: History) -> Iterator[tuple[str, int, Seen]]:
    """Give every sight anybody had of a message, with who had it and as of which rev."""
    for one in history.record or ():
        yield "record", history.record_rev, one
    for name, following in history.followings.items():
        for one in following.base:
            yield name, following.started, one
        for delivery in following.deliveries:
            for one in delivery.seen:
                yield name, delivery.rev, one
    for reading in history.readings:
        for one in reading.seen:
            yield reading.process, reading.rev, one


def _numbers(history: History) -> Iterator[Finding]:
    """One seq names one message for everybody, one message has one seq, refused ones have none."""
    refused = {one.id for one in history.attempts if one.outcome == "fail"}
    id_at: dict[int, UUID] = {}
    seq_of: dict[UUID, int] = {}
    told: set[tuple[str, UUID]] = set()
    acks = (("ack", 0, Seen(a.seq, a.id, a.rev)) for a in history.attempts if a.outcome == "ok")
    for who, _, one in (*_sightings(history), *acks):
        if id_at.setdefault(one.seq, one.id) != one.id and ("seq", one.id) not in told:
            told.add(("seq", one.id))
            yield Finding("inconsistent-seq", who, f"seq {one.seq}: {id_at[one.seq]}, {one.id}")
        if seq_of.setdefault(one.id, one.seq) != one.seq and ("id", one.id) not in told:
            told.add(("id", one.id))
            yield Finding("doubled", who, f"{one.id} at seq {seq_of[one.id]} and {one.seq}")
        if one.id in refused and ("fail", one.id) not in told:
            told.add(("fail", one.id))
            yield Finding("aborted-read", who, f"{one.id} was refused, and is at seq {one.seq}")


def _kept(history: History, record: Sequence[Seen]) -> Iterator[Finding]:
    """What was acknowledged is on record, and the record has no hole."""
    kept = {one.id for one in record}
    for attempt in history.attempts:
        if attempt.outcome == "ok" and attempt.id not in kept:
            yield Finding("lost", attempt.process, f"{attempt.id}, acknowledged as {attempt.seq}")
    for before, after in itertools.pairwise(record):
        if after.seq > before.seq + 1:
            yield Finding("lost", "record", f"nothing between seq {before.seq} and {after.seq}")


def _real_time(history: History) -> Iterator[Finding]:
    """Who was answered before another began stands before them."""
    acknowledged = sorted((one for one in history.attempts if one.outcome == "ok"), key=_seq)
    latest: Attempt | None = None
    for one in acknowledged:
        if latest is not None and one.completed < latest.invoked:
            detail = f"seq {one.seq} was answered before seq {latest.seq} was begun"
            yield Finding("out-of-order", one.process, detail)
        if latest is None or one.invoked > latest.invoked:
            latest = one


def _seq(attempt: Attempt) -> int:
    return attempt.seq


class _Path:
    """What changes of path say of a message: whether it was off the path, or may have come back."""

    def __init__(self, history: History) -> None:
        self._turns = sorted((one for one in history.turns if one.outcome == "ok"), key=_rev)
        #: Whether it is known what the path was at every rev.
        self.known = all(one.outcome in ("ok", "fail") for one in history.turns)
        self._returns = [one.rev for one in self._turns if one.after is None]
        self._altered = {one.id for one in history.alterations if one.outcome != "fail"}
        # At the latest: the least rev under which anybody saw it.
        self._appended = {one.id: one.rev for one in history.attempts if one.outcome == "ok"}
        for _, _, one in _sightings(history):
            if one.rev < self._appended.get(one.id, one.rev + 1):
                self._appended[one.id] = one.rev

    def off(self, one: Seen, rev: int) -> bool:
        """Whether a message was off the path at a rev; False when that is not known."""
        appended = self._appended[one.id]
        for turn in reversed(self._turns) if self.known else ():
            if turn.rev > rev or turn.rev <= appended:
                continue
            if turn.after is None:
                return not any(low <= one.seq <= high for low, high in turn.path)
            if one.seq > turn.after:
                return True
        return False

    def may_return(self, one: Seen, since: int, rev: int) -> bool:
        """Whether it may have come back to the path in a change of this span."""
        appended = self._appended[one.id]
        return not self.known or any(since < at <= rev and at > appended for at in self._returns)

    def in_order(self, one: Seen, rev: int) -> bool:
        """Whether it must come before those with a larger seq, as of a rev."""
        return one.id not in self._altered and not self.may_return(one, 0, rev)


def _rev(step: Turn | Alteration) -> int:
    return step.rev


def _followed(name: str, following: Following, history: History, path: _Path) -> Iterator[Finding]:
    """A follower saw every message once, in order, and in the end what is on record."""
    rev, top = following.started, 0
    seen = {one.id: one for one in following.base}
    back: set[UUID] = set()
    for delivery in following.deliveries:
        if delivery.since > rev:
            yield Finding("skipped", name, f"from rev {rev} to a change since {delivery.since}")
        if delivery.rev <= rev:
            yield Finding("went-back", name, f"at rev {rev} took a change to {delivery.rev}")
        rev = max(rev, delivery.rev)
        gone = (
            [
                one
                for one in seen.values()
                if any(low <= one.seq <= high for low, high in delivery.superseded)
            ]
            if delivery.superseded
            else []
        )
        for one in gone:
            back.add(one.id)
            del seen[one.id]
        for one in delivery.seen:
            known = seen.get(one.id)
            if known is not None and one.rev <= known.rev:
                if not path.may_return(one, delivery.since, delivery.rev):
                    yield Finding("doubled", name, f"{one.id} of rev {one.rev} a second time")
            elif (
                known is None
                and one.id not in back
                and one.rev > following.started
                and path.in_order(one, delivery.rev)
            ):
                # What was altered, or came back, comes when it did; of the new ones each is above.
                if one.seq < top:
                    yield Finding("out-of-order", name, f"seq {one.seq} after {top}")
                top = max(top, one.seq)
            seen[one.id] = one
    yield from _in_the_end(name, following, history, path, seen, back, rev)


def _in_the_end(
    name: str,
    following: Following,
    history: History,
    path: _Path,
    seen: dict[UUID, Seen],
    back: set[UUID],
    rev: int,
) -> Iterator[Finding]:
    """A follower shows what is on record, as far as they came."""
    record, upto, active = history.record or (), history.record_rev, history.active
    low = min((one.seq for one in following.base), default=None)
    for one in record:
        known = seen.get(one.id)
        if active is not None and one.seq not in active:
            if known is not None and rev >= upto:
                yield Finding("superseded-shown", name, f"seq {one.seq}, in the end")
            continue
        if known is not None:
            if known.rev < one.rev <= rev:
                yield Finding("stale-version", name, f"seq {one.seq} of rev {known.rev}, at {rev}")
            continue
        if active is None and one.id in back:
            continue
        if one.rev > following.started or (low is not None and one.seq >= low):
            if one.rev <= rev and not path.may_return(one, rev, upto):
                yield Finding("skipped", name, f"seq {one.seq} of rev {one.rev}, at rev {rev}")
            elif following.stayed:
                yield Finding("unseen", name, f"seq {one.seq}, of {upto} revs saw {rev}")


def _own_reads(history: History) -> Iterator[Finding]:
    """Nobody reads a state without what they were told is stored, nor an older one than before."""
    steps: dict[str, list[tuple[float, int, int, int]]] = {}
    for attempt in history.attempts:
        if attempt.outcome == "ok":
            steps.setdefault(attempt.process, []).append((attempt.completed, 0, attempt.rev, 0))
    others: list[Alteration | Turn] = [*history.alterations, *history.turns]
    for step in others:
        if step.outcome == "ok":
            steps.setdefault(step.process, []).append((step.completed, 0, step.rev, 0))
    for index, reading in enumerate(history.readings):
        # What counts is what was known when it was asked for.
        steps.setdefault(reading.process, []).append((reading.invoked, 2, reading.rev, index))
        steps[reading.process].append((reading.at, 1, reading.rev, index))
    for process, mine in steps.items():
        written = seen = 0
        for _, what, rev, _ in sorted(mine):
            if what == 0:
                written = max(written, rev)
            elif what == 1:
                seen = max(seen, rev)
            elif rev < written:
                yield Finding("stale-own-read", process, f"read rev {rev} after writing {written}")
            elif rev < seen:
                yield Finding("went-back", process, f"read rev {rev} after reading {seen}")


def _removals(history: History) -> Iterator[Finding]:
    for user, rev in history.removals:
        for name, following in history.followings.items():
            for delivery in following.deliveries if following.user == user else ():
                if delivery.rev >= rev:
                    detail = f"removed at rev {rev}, was told of {delivery.rev}"
                    yield Finding("seen-after-removal", name, detail)


def _erasures(history: History) -> Iterator[Finding]:
    """What is deleted or erased is nowhere to be seen."""
    erased, deleted = dict(history.erasures), dict[UUID, int]()
    for one in history.alterations:
        if one.outcome == "ok" and one.kind != "edit":
            kept = erased if one.kind == "erase" else deleted
            kept[one.id] = min(one.rev, kept.get(one.id, one.rev))
    if not erased and not deleted:
        return
    for who, rev, seen in _sightings(history):
        if seen.content is None:
            continue
        if rev >= erased.get(seen.id, rev + 1):
            yield Finding("content-after-erasure", who, f"seq {seen.seq} as of rev {rev}")
        elif rev >= deleted.get(seen.id, rev + 1):
            yield Finding("content-after-deletion", who, f"seq {seen.seq} as of rev {rev}")


def _versions(history: History) -> Iterator[Finding]:
    """A message of one rev has one content for everybody; who could know of an edit shows it."""
    edits = [one for one in history.alterations if one.kind == "edit"]
    refused = {(one.id, one.content) for one in edits if one.outcome == "fail"}
    done: dict[UUID, list[Alteration]] = {}
    content_of: dict[tuple[UUID, int], str | None] = {}
    for one in edits:
        if one.outcome == "ok":
            done.setdefault(one.id, []).append(one)
            content_of[one.id, one.rev] = one.content
    for who, rev, seen in _sightings(history):
        if content_of.setdefault((seen.id, seen.rev), seen.content) != seen.content:
            detail = f"seq {seen.seq} of rev {seen.rev}: {content_of[seen.id, seen.rev]!r}"
            yield Finding("inconsistent-content", who, f"{detail}, {seen.content!r}")
        if (seen.id, seen.content) in refused:
            yield Finding("aborted-read", who, f"seq {seen.seq}: a text that was refused")
        if any(seen.rev < edit.rev <= rev for edit in done.get(seen.id, ())):
            yield Finding("stale-version", who, f"seq {seen.seq} of rev {seen.rev}, as of {rev}")


def _off_path(history: History, path: _Path) -> Iterator[Finding]:
    """Nobody is shown as present what had left the path."""
    if not history.turns or not path.known:
        return
    for who, rev, one in _sightings(history):
        if who != "record" and path.off(one, rev):
            yield Finding("superseded-shown", who, f"seq {one.seq} as of rev {rev}")
