"""The queue as those who operate it see it, and what is to be said about it.

Nothing here holds what anybody said, nor where an endpoint points: numbers, ids, times, and the
reasons that our own functions and channels gave.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final, Literal, TypeAlias
from uuid import UUID

import msgspec

from greffier.model.wire import rfc3339

#: Where a lane stands (``lane_state`` of the schema).
LaneState: TypeAlias = Literal[
    "idle", "due", "leased", "expired", "waiting", "endpoint", "paused", "parked"
]
LANE_STATES: Final[tuple[LaneState, ...]] = (
    *("idle", "due", "leased", "expired", "waiting", "endpoint", "paused", "parked"),
)
Kind: TypeAlias = Literal["run", "out"]

#: Seconds after which a worker that says nothing is silent: three of its words.
SILENT = 30.0
#: Seconds that a head may be worked on before somebody should look.
LONG = 30 * 60.0
#: Seconds that something may be due.
OVERDUE = 5 * 60.0
#: Messages and answers that may fail in a day.
FAILED = 10
#: Seconds by which clocks may differ: receivers of webhooks refuse what is five minutes off.
CLOCK = 60.0
#: Seconds that one transaction may be open before dead rows pile up behind it.
SNAPSHOT = 10 * 60.0


#: What the journal says of a try that was not made, since an earlier one may have arrived.
NOT_MADE: Final = "an earlier try may have arrived"


class Lane(msgspec.Struct, frozen=True, kw_only=True):
    """A lane: one ordered stream of work, to one endpoint (``out``) or for an agent (``run``).

    ``head_seq`` is the first number that is not done, ``tail_seq`` the last there is work for; of
    a run lane ``run_id`` is the run at its head. ``due_at`` is null where nothing is to happen by
    itself. ``refused_writes`` were brought by workers whose lease was over.
    """

    id: UUID
    conversation_id: UUID
    kind: Kind
    endpoint_id: UUID | None
    run_id: UUID | None
    state: LaneState
    head_seq: int
    tail_seq: int
    tries: int
    fence: int
    due_at: datetime | None
    owner: str | None
    claimed_at: datetime | None
    parked_at: datetime | None
    park_reason: str | None
    paused_at: datetime | None
    refused_writes: int


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """A line of a lane's journal: written before a message leaves, completed after.

    ``outcome`` is null while nobody knows what came of it.
    """

    lane_id: UUID
    seq: int
    fence: int
    intended_at: datetime
    outcome: Literal["accepted", "rejected", "not_sent", "uncertain", "skipped"] | None
    detail: str | None
    external_id: str | None
    settled_at: datetime | None


class Unlockable(msgspec.Struct, frozen=True, kw_only=True):
    """A lane that can be unlocked, and what it is: ``expired``, ``parked`` or ``stolen``."""

    was: str
    lane: Lane


class LaneList(msgspec.Struct, frozen=True, kw_only=True):
    """Some of the lanes; ``next_cursor`` is null when nothing follows."""

    data: list[Lane]
    next_cursor: str | None


class AttemptList(msgspec.Struct, frozen=True, kw_only=True):
    """Some lines of the journal, newest first; ``next_cursor`` is null when nothing follows."""

    data: list[Attempt]
    next_cursor: str | None


class Unlock(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How: ``force`` also when the tries are used up, ``steal`` also when somebody works on it."""

    force: bool = False
    steal: bool = False


class Operated(msgspec.Struct, frozen=True, kw_only=True):
    """What was done to a lane, and how it stands now.

    ``changed`` is false when there was nothing to do, or somebody works on it. After an unlock
    ``was`` says what it was: ``expired``, ``parked`` or ``stolen``; after a skip ``skipped_seq`` is
    what was given up.
    """

    changed: bool
    was: Literal["expired", "parked", "stolen"] | None = None
    skipped_seq: int | None = None
    lane: Lane


class LaneCount(msgspec.Struct, frozen=True):
    """How many lanes of a kind stand somewhere."""

    kind: Kind
    state: LaneState
    lanes: int


class Tries(msgspec.Struct, frozen=True):
    """How many lanes are at which try of their head."""

    tries: int
    lanes: int


class Parked(msgspec.Struct, frozen=True, kw_only=True):
    """Why lanes are parked; those with tries left are unlocked without force."""

    kind: Kind
    reason: str | None
    lanes: int
    with_tries_left: int
    oldest_at: datetime


class WorkerLine(msgspec.Struct, frozen=True, kw_only=True):
    """A worker as it last said itself; ``holds`` is what lanes say of it.

    ``clock_ahead`` is in seconds, as far as the worker could tell.
    """

    id: str
    host: str
    pid: int
    version: str
    kinds: list[str]
    started_at: datetime
    seen_at: datetime
    alive: bool
    busy: int
    holds: int
    claimed: int
    lost: int
    refused: int
    broken: int
    clock_ahead: float | None


class EndpointLine(msgspec.Struct, frozen=True, kw_only=True):
    """An endpoint that nothing leaves for, or that fails, and the lanes that wait for it."""

    id: UUID
    channel: str
    state: Literal["disabled", "paused", "slowed", "failing"]
    failures: int
    failing_since: datetime | None
    held_until: datetime | None
    paused_at: datetime | None
    disabled_at: datetime | None
    disabled_reason: str | None
    waiting: int


class Session(msgspec.Struct, frozen=True, kw_only=True):
    """The oldest transaction that keeps dead rows from being removed."""

    pid: int
    application: str | None
    state: str | None
    seconds: float


class Table(msgspec.Struct, frozen=True, kw_only=True):
    """A table that lanes work on, as PostgreSQL counts it."""

    name: str
    live: int
    dead: int
    vacuumed_at: datetime | None


class Alert(msgspec.Struct, frozen=True, kw_only=True):
    """Something that somebody should know.

    ``since`` is when it was first noticed, null when nobody had looked before; ``until`` is when it
    was noticed to be over.
    """

    code: str
    count: int
    detail: str
    since: datetime | None = None
    until: datetime | None = None


class Advice(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be done, in words; ``person`` when nothing but a person can."""

    code: str
    person: bool
    detail: str


class Diagnosis(msgspec.Struct, frozen=True, kw_only=True):
    """How the queue does, as of one moment.

    ``oldest_due`` is in seconds; ``long`` counts heads that somebody has been at for half an hour;
    ``unsure_parked`` counts parked heads that may have arrived or not, ``unsure_waiting`` those
    that are tried again by themselves; ``doubles``, ``given_up``, ``parked_today`` and ``runs``
    are of the last day. ``clock_ahead`` is how far the clock of whoever asks is ahead of the
    database's, in seconds. ``notifications`` is how full PostgreSQL's queue of them is, from 0
    to 1.
    """

    at: datetime
    well: bool
    lanes: list[LaneCount]
    oldest_due: float | None
    tries: list[Tries]
    parked: list[Parked]
    long: int
    longest: float | None
    unsure_parked: int
    unsure_waiting: int
    doubles: int
    given_up: int
    parked_today: int
    runs: dict[str, int]
    refused_writes: int
    workers: list[WorkerLine]
    endpoints: list[EndpointLine]
    clock_ahead: float | None
    notifications: float
    oldest_snapshot: Session | None
    tables: list[Table]
    alerts: list[Alert]
    advice: list[Advice]

    def count(self, *states: LaneState) -> int:
        """Count the lanes that stand in any of these states."""
        return sum(one.lanes for one in self.lanes if one.state in states)

    @property
    def alive(self) -> list[WorkerLine]:
        """The workers that live."""
        return [one for one in self.workers if one.alive]

    @property
    def failed_today(self) -> int:
        """Messages given up or parked, and answers that failed, within a day."""
        return self.given_up + self.parked_today + self.runs.get("failed", 0)


def find_alerts(found: Diagnosis) -> list[Alert]:
    """Say what somebody should know now; each has a code of its own."""
    disabled = [one for one in found.endpoints if one.state == "disabled"]
    due = found.count("due", "expired")
    alerts = [
        Alert(
            code="no-worker",
            # Not while all of them are replaced: the new ones have said nothing yet.
            count=due if not found.alive and (found.oldest_due or 0) > SILENT else 0,
            detail=f"{are(due, 'lane')} due, and no worker lives.",
        ),
        Alert(
            code="oldest-due",
            count=due if (found.oldest_due or 0) > OVERDUE else 0,
            detail=f"Work is due since {duration(found.oldest_due)}.",
        ),
        Alert(
            code="processing-long",
            count=found.long,
            detail=f"{are(found.long, 'lane')} worked on for more than {duration(LONG)}, "
            f"the longest for {duration(found.longest)}.",
        ),
        Alert(
            code="many-failed",
            count=found.failed_today if found.failed_today > FAILED else 0,
            detail=f"{found.failed_today} failed within a day: "
            f"{many(found.parked_today, 'lane')} parked, {many(found.given_up, 'message')} given "
            f"up, {many(found.runs.get('failed', 0), 'answer')} failed.",
        ),
        Alert(
            code="doubles",
            count=found.doubles,
            detail=f"{many(found.doubles, 'message')} of the last day may have arrived twice.",
        ),
        Alert(
            code="uncertain",
            count=found.unsure_parked,
            detail=f"{many(found.unsure_parked, 'message')} may have arrived or not, "
            "and nothing is done until a person decides.",
        ),
        Alert(
            code="endpoint-disabled",
            count=len(disabled),
            detail=f"{are(len(disabled), 'endpoint')} disabled, "
            f"{many(sum(one.waiting for one in disabled), 'lane')} waiting.",
        ),
    ]
    return [one for one in alerts if one.count]


def advise(found: Diagnosis) -> list[Advice]:
    """Say what is to be done, the most urgent first, each with the command that does it."""
    return [*_about_workers(found), *_about_lanes(found), *_about_places(found)]


def _about_workers(found: Diagnosis) -> list[Advice]:
    advice: list[Advice] = []
    due, expired = found.count("due", "expired"), found.count("expired")
    if due and not found.alive:
        advice.append(
            Advice(
                code="no-worker",
                person=True,
                detail=f"{are(due, 'lane')} due, and no worker lives: start one with "
                "greffier worker, or greffier serve with WORK on.",
            )
        )
    elif (found.oldest_due or 0) > OVERDUE:
        advice.append(
            Advice(
                code="oldest-due",
                person=True,
                detail=f"Work is due since {duration(found.oldest_due)}: "
                f"{many(len(found.alive), 'worker')} cannot keep up. Start more.",
            )
        )
    advice += [
        Advice(
            code="dead-worker",
            person=False,
            detail=f"Worker {one.id} has said nothing for "
            f"{duration((found.at - one.seen_at).total_seconds())} and holds "
            f"{many(one.holds, 'lane')}: what it holds comes back by itself when the lease ends, "
            "or now with greffier queue unlock LANE --steal --execute",
        )
        for one in found.workers
        if one.holds and not one.alive
    ]
    if expired:
        advice.append(
            Advice(
                code="expired-lease",
                person=False,
                detail=f"{are(expired, 'lease')} over: the next worker takes the lane and counts "
                "a lost try; greffier queue unlock --execute gives it all its tries again.",
            )
        )
    if found.long:
        advice.append(
            Advice(
                code="processing-long",
                person=True,
                detail=f"{are(found.long, 'lane')} worked on for more than {duration(LONG)}: see "
                "greffier queue list --state leased; to take them away, whatever their worker "
                "still writes is refused: greffier queue unlock LANE --steal --execute",
            )
        )
    ahead = [one.clock_ahead for one in found.workers if one.alive]
    off = max((abs(one) for one in (*ahead, found.clock_ahead) if one is not None), default=0.0)
    if off > CLOCK:
        advice.append(
            Advice(
                code="clock",
                person=True,
                detail=f"Clocks differ from the database's by {duration(off)}: lanes do not mind, "
                "but receivers refuse webhooks whose time is five minutes off. Set the clocks.",
            )
        )
    return advice


def _about_lanes(found: Diagnosis) -> list[Advice]:
    advice: list[Advice] = []
    parked = found.count("parked")
    if parked:
        left = sum(one.with_tries_left for one in found.parked)
        force = "" if left else " --force"
        why = (found.parked[0].reason if found.parked else None) or "no reason"
        also = f" ({left} of them; the others with --force)" if 0 < left < parked else ""
        advice.append(
            Advice(
                code="parked",
                person=True,
                detail=f"{are(parked, 'lane')} parked and waiting for a person, most often: "
                f"{why.rstrip('.')}. When the cause is mended: greffier queue unlock{force} "
                f"--execute{also}; to give up the message at the head: greffier queue skip LANE "
                "--execute",
            )
        )
    if found.unsure_parked:
        advice.append(
            Advice(
                code="uncertain",
                person=True,
                detail=f"{many(found.unsure_parked, 'message')} may have arrived or not: look at "
                "the far side; if it did: greffier queue skip LANE --execute; if not: "
                "greffier queue retry LANE",
            )
        )
    if found.doubles:
        advice.append(
            Advice(
                code="doubles",
                person=False,
                detail=f"{many(found.doubles, 'message')} of the last day may have arrived twice: "
                "each has two intents in its lane's journal: greffier queue list LANE",
            )
        )
    if found.failed_today > FAILED:
        advice.append(
            Advice(
                code="many-failed",
                person=True,
                detail=f"{found.failed_today} messages and answers failed within a day: look for "
                "what the reasons have in common.",
            )
        )
    paused = found.count("paused")
    if paused:
        advice.append(
            Advice(
                code="paused",
                person=False,
                detail=f"{are(paused, 'lane')} paused by a person: greffier queue resume LANE",
            )
        )
    return advice


def _about_places(found: Diagnosis) -> list[Advice]:
    advice: list[Advice] = []
    for one in found.endpoints:
        held = f"{many(one.waiting, 'lane')} waiting"
        if one.state == "disabled":
            detail = (
                f"Endpoint {one.id} ({one.channel}) is disabled, {held}: "
                f"{one.disabled_reason or 'no reason'} When it is mended, enable it: "
                f'PATCH /v1/endpoints/{one.id} {{"enabled": true}}.'
            )
        elif one.state == "paused":
            detail = f"Endpoint {one.id} ({one.channel}) is paused by a person, {held}."
        else:
            then = (
                f"{held}: it is tried again by itself, less and less often."
                if one.waiting
                else "and nothing waits for it: the next message tries it."
            )
            failed = "once" if one.failures == 1 else f"{one.failures} times in a row"
            detail = f"Endpoint {one.id} ({one.channel}) failed {failed}, {then}"
        advice.append(
            Advice(code=f"endpoint-{one.state}", person=one.state == "disabled", detail=detail)
        )
    snapshot = found.oldest_snapshot
    if snapshot is not None and snapshot.seconds > SNAPSHOT:
        advice.append(
            Advice(
                code="old-snapshot",
                person=True,
                detail=f"Session {snapshot.pid} ({snapshot.application or 'nameless'}, "
                f"{snapshot.state}) has had a transaction open for {duration(snapshot.seconds)}: "
                "no dead row is removed meanwhile, and lanes get slower. End it.",
            )
        )
    advice += [
        Advice(
            code="dead-rows",
            person=False,
            detail=f"Table {table.name} has {table.dead} dead rows for {table.live} that live: "
            f"VACUUM greffier.{table.name}; and see whether autovacuum keeps up.",
        )
        for table in found.tables
        if table.dead > max(10_000, 2 * table.live)
    ]
    if found.notifications > 0.5:
        advice.append(
            Advice(
                code="notifications",
                person=True,
                detail="PostgreSQL's queue of notifications is more than half full: some session "
                "LISTENs and stays in one transaction. Find and end it.",
            )
        )
    return advice


def many(count: int, what: str) -> str:
    """Count something in words: ``1 lane``, ``3 lanes``."""
    return f"{count} {what}{'' if count == 1 else 's'}"


def are(count: int, what: str) -> str:
    """Begin a sentence about how many: ``1 lane is``, ``3 lanes are``."""
    return f"{many(count, what)} {'is' if count == 1 else 'are'}"


def duration(seconds: float | None) -> str:
    """Say how long something is, in its largest unit: ``45 s``, ``12 min``, ``3 h``, ``2 days``."""
    if seconds is None:
        return "no time"
    for size, unit in ((2 * 86400, "days"), (2 * 3600, "h"), (2 * 60, "min")):
        if seconds >= size:
            return f"{seconds / (size / 2):.0f} {unit}"
    return f"{seconds:.0f} s"


def shown(value: Any) -> Any:
    """Give a value of this module as JSON has it, every time of the same length."""
    return _times(msgspec.to_builtins(value, builtin_types=(datetime,)))


def _times(value: Any) -> Any:
    if isinstance(value, datetime):
        return rfc3339(value)
    if isinstance(value, dict):
        return {key: _times(one) for key, one in value.items()}
    return [_times(one) for one in value] if isinstance(value, list) else value
