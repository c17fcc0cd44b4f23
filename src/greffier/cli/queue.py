"""greffier queue."""

from __future__ import annotations

import getpass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from greffier.cli import exits
from greffier.cli.common import Config, DatabaseUrl, DataDir, Json, load_settings, open_record, run
from greffier.cli.output import emit, emit_json, table, talk

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from greffier.model.queue import Attempt, Diagnosis, Lane, Unlockable
    from greffier.settings import Settings

Lanes = Annotated[
    list[str], typer.Argument(metavar="LANE…", help="Ids of lanes.", show_default=False)
]
KindOption = Annotated[
    Literal["run", "out"] | None,
    typer.Option(
        help="Only answers (run), or only what leaves for endpoints (out).", show_default=False
    ),
]
Execute = Annotated[bool, typer.Option("--execute", help="Do it.")]


def diagnose(
    *,
    json: Json = False,
    database_url: DatabaseUrl = None,
    data_dir: DataDir = None,
    config: Config = None,
) -> None:
    """Say how the queue does, and what is to be done; exit code 3 when something needs a person.

    It looks at every lane once, and at the last day's journal.
    """
    found = run(_diagnose(load_settings(database_url, data_dir, config)))
    if json:
        from greffier.model.queue import shown  # noqa: PLC0415

        emit_json(shown(found))
    else:
        _show(found)
    if not found.well:
        raise typer.Exit(exits.PROBLEMS)


async def _diagnose(settings: Settings) -> Diagnosis:
    from greffier.read.queue import diagnose as read  # noqa: PLC0415

    async with open_record(settings) as database:
        return await read(database, max_attempts=settings.max_attempts)


def list_(
    *,
    lane: Annotated[
        str | None,
        typer.Argument(
            metavar="[LANE]", help="One lane, with its journal, newest first.", show_default=False
        ),
    ] = None,
    state: Annotated[
        Literal["idle", "due", "leased", "expired", "waiting", "endpoint", "paused", "parked"]
        | None,
        typer.Option(help="Only lanes that stand there.", show_default=False),
    ] = None,
    kind: KindOption = None,
    limit: Annotated[int, typer.Option(min=1, max=100, help="How many.")] = 20,
    cursor: Annotated[
        str | None, typer.Option(help="Go on where a list ended.", show_default=False)
    ] = None,
    json: Json = False,
    database_url: DatabaseUrl = None,
    data_dir: DataDir = None,
    config: Config = None,
) -> None:
    """List lanes, the longest due first; or show one, with what was tried in it.

    States: due, leased (somebody works on it), expired (whose worker was lost), waiting (for its
    time), endpoint (for its endpoint to go on), parked (for a person), paused (by a person), idle.
    """
    from greffier.model.queue import shown  # noqa: PLC0415

    settings = load_settings(database_url, data_dir, config)
    if lane is not None:
        one, tried, more = run(_one(settings, _id(lane), limit, cursor))
        if json:
            emit_json({**shown(one), "attempts": shown(tried), "next_cursor": more})
        else:
            _show_lanes([one])
            emit("\n")
            _show_attempts(tried)
    else:
        found, more = run(_list(settings, state, kind, limit, cursor))
        if json:
            emit_json({"data": shown(found), "next_cursor": more})
        elif found:
            _show_lanes(found)
        else:
            talk("There is no such lane.")
    if more and not json:
        talk(f"There are more: --cursor {more}")


async def _list(
    settings: Settings, state: Any, kind: Any, limit: int, cursor: str | None
) -> tuple[list[Lane], str | None]:
    from greffier.read.queue import lanes  # noqa: PLC0415

    async with open_record(settings) as database:
        return await lanes(database, state=state, kind=kind, limit=limit, cursor=cursor)


async def _one(
    settings: Settings, lane_id: UUID, limit: int, cursor: str | None
) -> tuple[Lane, list[Attempt], str | None]:
    from greffier.read.queue import attempts, lane  # noqa: PLC0415

    async with open_record(settings) as database:
        found = await lane(database, lane_id)
        tried, more = await attempts(database, lane_id, limit=limit, cursor=cursor)
        return found, tried, more


def unlock(
    *,
    lanes: Annotated[
        list[str] | None,
        typer.Argument(metavar="[LANE…]", help="Only these lanes.", show_default=False),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be unlocked, and change nothing.")
    ] = False,
    execute: Execute = False,
    force: Annotated[
        bool, typer.Option("--force", help="Also parked lanes whose tries are used up.")
    ] = False,
    steal: Annotated[
        bool,
        typer.Option(
            "--steal",
            help="Also lanes that somebody works on: whatever they still write is refused, and what"
            " they were sending may arrive twice.",
        ),
    ] = False,
    kind: KindOption = None,
    endpoint: Annotated[
        str | None,
        typer.Option(metavar="ID", help="Only lanes to this endpoint.", show_default=False),
    ] = None,
    json: Json = False,
    database_url: DatabaseUrl = None,
    data_dir: DataDir = None,
    config: Config = None,
) -> None:
    """Make lanes ready again: those whose lease is over, and parked ones with tries left.

    They have all their tries again, and whoever held them can write no more. Without --execute it
    shows exactly what it would do, as with --dry-run. When a lane that is named is left as it is,
    the exit code is 4.
    """
    if dry_run and execute:
        raise typer.BadParameter("Say one of --dry-run and --execute.", param_hint="--execute")
    from greffier.model.queue import shown  # noqa: PLC0415

    asked = {
        "ids": [_id(one) for one in lanes] if lanes else None,
        "force": force,
        "steal": steal,
        "kind": kind,
        "endpoint_id": _id(endpoint) if endpoint else None,
    }
    settings = load_settings(database_url, data_dir, config)
    found, left = run(_unlock(settings, execute=execute, **asked))
    if json:
        emit_json({"executed": execute, "data": shown(found)})
    elif found:
        _show_lanes([one.lane for one in found], was=[one.was for one in found])
    talk(f"{len(found)} lane(s) {'unlocked' if execute else 'would be unlocked'}.")
    for lane in left:
        talk(f"Lane {lane.id} is left as it is: it is {lane.state}.")
    if left:
        raise typer.Exit(exits.REFUSED)


async def _unlock(
    settings: Settings, *, execute: bool, **asked: Any
) -> tuple[list[Unlockable], list[Lane]]:
    """Unlock; gives what was unlocked, and lanes that were named and were not.

    Raises:
        NotFound: One that is named does not exist; then nothing is done to any.
    """
    from greffier.deliver import operate  # noqa: PLC0415
    from greffier.read.queue import lane, to_unlock  # noqa: PLC0415

    async with open_record(settings) as database:
        named = dict.fromkeys([(await lane(database, one)).id for one in asked["ids"] or ()])
        found = await to_unlock(database, max_attempts=settings.max_attempts, **asked)
        done = [
            one
            for one, most in found
            # What changed since it was listed is left as it is now.
            if not execute
            or await operate.unlock(
                database, one.lane, most, force=asked["force"], steal=asked["steal"]
            )
        ]
        left = named.keys() - {one.lane.id for one in done}
        return done, [await lane(database, one) for one in named if one in left]


def retry(
    *,
    lanes: Lanes,
    json: Json = False,
    database_url: DatabaseUrl = None,
    data_dir: DataDir = None,
    config: Config = None,
) -> None:
    """Try lanes now, with all their tries: those that wait for a later try, or are parked.

    A lane that somebody works on is left to them, and the exit code is 4.
    """
    _act("retry", lanes, load_settings(database_url, data_dir, config), json=json)


def pause(
    *,
    lanes: Lanes,
    json: Json = False,
    database_url: DatabaseUrl = None,
    data_dir: DataDir = None,
    config: Config = None,
) -> None:
    """Let nothing begin in lanes until they are resumed; what is under way may end."""
    _act("pause", lanes, load_settings(database_url, data_dir, config), json=json)


def resume(
    *,
    lanes: Lanes,
    json: Json = False,
    database_url: DatabaseUrl = None,
    data_dir: DataDir = None,
    config: Config = None,
) -> None:
    """Let lanes go on that were paused."""
    _act("resume", lanes, load_settings(database_url, data_dir, config), json=json)


def skip(
    *,
    lanes: Lanes,
    execute: Execute = False,
    json: Json = False,
    database_url: DatabaseUrl = None,
    data_dir: DataDir = None,
    config: Config = None,
) -> None:
    """Give up the message at the head of lanes, and go on behind it; the journal says who did.

    Without --execute it shows what it would give up. The message itself stays on record.
    """
    what: _What = "skip" if execute else "look"
    _act(what, lanes, load_settings(database_url, data_dir, config), json=json)


_What = Literal["retry", "pause", "resume", "skip", "look"]
_DONE = {
    "retry": "is tried now",
    "pause": "is paused",
    "resume": "goes on",
    "skip": "goes on behind",
    "look": "would go on behind",
}


def _act(what: _What, names: Sequence[str], settings: Settings, *, json: bool) -> None:
    from greffier.model.queue import shown  # noqa: PLC0415

    done = run(_each(what, [_id(name) for name in names], settings))
    if json:
        emit_json(
            {
                "executed": what != "look",
                "data": [
                    {"changed": changed is not None, "skipped_seq": seq, "lane": shown(lane)}
                    for lane, changed in done
                    for seq in [changed if what in ("skip", "look") else None]
                ],
            }
        )
    else:
        _show_lanes([lane for lane, _ in done])
    for lane, changed in done:
        if changed is None:
            talk(f"Lane {lane.id} was left as it is: it is {lane.state}.")
        else:
            behind = f" {changed}" if what in ("skip", "look") else ""
            talk(f"Lane {lane.id} {_DONE[what]}{behind}.")
    if any(changed is None for _, changed in done):
        raise typer.Exit(exits.REFUSED)


async def _each(
    what: _What, ids: Sequence[UUID], settings: Settings
) -> list[tuple[Lane, int | None]]:
    """Do it to each; gives the lanes as they are then, with their seq, or None: nothing was done.

    Raises:
        NotFound: One of them does not exist; then nothing is done to any.
    """
    from greffier.deliver import operate  # noqa: PLC0415
    from greffier.read.queue import lane  # noqa: PLC0415

    async with open_record(settings) as database:
        found = [await lane(database, one) for one in ids]
        done: list[tuple[Lane, int | None]] = []
        for one in found:
            changed: int | None = one.head_seq
            if what == "skip":
                changed = await operate.skip(database, one, _who())
            elif what == "look":
                changed = one.head_seq if operate.can_skip(one) else None
            else:
                did = (
                    await operate.retry(database, one)
                    if what == "retry"
                    else await operate.pause(database, one, paused=what == "pause")
                )
                changed = changed if did else None
            done.append((await lane(database, one.id), changed))
        return done


def _who() -> str:
    try:
        return f"{getpass.getuser()} on the command line"
    except (KeyError, OSError, ImportError):
        # A container's user may have no name.
        return "somebody on the command line"


def _id(text: str) -> UUID:
    from greffier.model.ids import parse_uuid  # noqa: PLC0415

    found = parse_uuid(text)
    if found is None:
        raise typer.BadParameter(f"{text} is no id.")
    return found


# -- in words --------------------------------------------------------------------------------------


def _show(found: Diagnosis) -> None:
    from greffier.model.queue import LANE_STATES, duration, many  # noqa: PLC0415

    kinds = sorted({one.kind for one in found.lanes})
    if kinds:
        counts = {(one.kind, one.state): one.lanes for one in found.lanes}
        table(
            [[kind, *(counts.get((kind, state), 0) for state in LANE_STATES)] for kind in kinds],
            head=["lanes", *LANE_STATES],
            right=range(1, len(LANE_STATES) + 1),
        )
        emit("\n")
    today = [
        f"{count} {status}" for status, count in sorted(found.runs.items(), key=lambda one: -one[1])
    ]
    offset = "not known" if found.clock_ahead is None else f"{abs(found.clock_ahead):.3f} s off"
    snapshot = found.oldest_snapshot
    rows = [
        ("oldest due", "nothing is" if found.oldest_due is None else duration(found.oldest_due)),
        ("longest at work", "nobody is" if found.longest is None else duration(found.longest)),
        ("tries", ", ".join(f"{one.tries}: {many(one.lanes, 'lane')}" for one in found.tries)),
        ("may have arrived or not", found.unsure_parked + found.unsure_waiting),
        ("may have arrived twice, in a day", found.doubles),
        ("given up, in a day", found.given_up),
        ("answers, in a day", ", ".join(today) or "none"),
        ("writes refused to zombies", found.refused_writes),
        ("clock here", offset),
        ("oldest snapshot", "none" if snapshot is None else duration(snapshot.seconds)),
        ("dead rows", ", ".join(f"{one.name} {one.dead}" for one in found.tables if one.dead)),
    ]
    table([row for row in rows if row[1] != ""])
    _show_parts(found)
    emit("\n")
    for alert in found.alerts:
        emit(f"alert {alert.code}: {alert.detail}\n")
    for one in found.advice:
        emit(f"{'todo' if one.person else 'note'} {one.code}: {one.detail}\n")
    emit("All is well.\n" if found.well else "Something needs a person.\n")


def _show_parts(found: Diagnosis) -> None:
    from greffier.model.queue import duration  # noqa: PLC0415

    if found.parked:
        emit("\n")
        table(
            [(one.lanes, one.with_tries_left, one.kind, one.reason) for one in found.parked],
            head=("parked", "with tries left", "kind", "reason"),
            right=(0, 1),
        )
    if found.workers:
        emit("\n")
        table(
            [
                (
                    one.id,
                    "alive" if one.alive else "silent",
                    duration((found.at - one.seen_at).total_seconds()),
                    " ".join(one.kinds),
                    one.holds,
                    one.claimed,
                    one.lost,
                )
                for one in found.workers
            ],
            head=("worker", "is", "said so", "kinds", "holds", "claimed", "lost"),
            right=(4, 5, 6),
        )
    if found.endpoints:
        emit("\n")
        table(
            [
                (one.id, one.channel, one.state, one.failures, one.waiting, one.disabled_reason)
                for one in found.endpoints
            ],
            head=("endpoint", "channel", "is", "failures", "waiting", "why"),
            right=(3, 4),
            whole=range(5),
        )


def _show_lanes(lanes: Sequence[Lane], was: Sequence[str] | None = None) -> None:
    rows: list[list[object]] = []
    for place, one in enumerate(lanes):
        due = None if one.due_at is None else f"{one.due_at:%m-%d %H:%M:%S}"
        row = [one.id, one.kind, one.state, f"{one.head_seq}/{one.tail_seq}", one.tries, due]
        why = one.park_reason or one.owner
        rows.append([*([was[place]] if was else []), *row, why])
    head = ["lane", "kind", "state", "head", "tries", "due", "who or why"]
    first = 1 if was else 0
    head = [*(["was"] if was else []), *head]
    table(rows, head=head, right=[first + 4], whole=range(first, first + 4))


def _show_attempts(tried: Sequence[Attempt]) -> None:
    table(
        [
            (
                one.seq,
                one.fence,
                f"{one.intended_at:%Y-%m-%d %H:%M:%S}",
                one.outcome or "nobody knows",
                one.detail,
            )
            for one in tried
        ],
        head=("seq", "fence", "begun", "outcome", "detail"),
        right=(0, 1),
    )
