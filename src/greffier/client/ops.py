"""The queue over HTTP, for whoever looks after it: an admin, or a key of scope ``ops``."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import msgspec

from greffier.client.http import Wire
from greffier.model.ids import as_id
from greffier.model.queue import (
    Alert,
    AttemptList,
    Diagnosis,
    Kind,
    Lane,
    LaneList,
    LaneState,
    Operated,
    Unlock,
)


class _Alerts(msgspec.Struct, frozen=True):
    data: list[Alert]


class Ops:
    """Say how the queue does, and put lanes right; nothing of what anybody said is shown."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    async def queue(self) -> Diagnosis:
        """Say how it does, in numbers, alerts and advice; ``well`` when nobody is needed."""
        found: Diagnosis = await self._wire.get("/v1/ops/queue", Diagnosis)
        return found

    async def lanes(
        self,
        *,
        state: LaneState | None = None,
        kind: Kind | None = None,
        limit: int = 20,
        cursor: str | None = None,
    ) -> LaneList:
        """List lanes: with a state, those that stand there, the longest due first; else by id."""
        found: LaneList = await self._wire.get(
            "/v1/ops/lanes", LaneList, state=state, kind=kind, limit=limit, cursor=cursor
        )
        return found

    async def lane(self, lane_id: UUID | str) -> Lane:
        """Look at a lane."""
        found: Lane = await self._wire.get(_lane(lane_id), Lane)
        return found

    async def unlock(
        self, lane_id: UUID | str, *, force: bool = False, steal: bool = False
    ) -> Operated:
        """Make a lane ready again, with all its tries; whoever held it can write no more.

        Args:
            lane_id: Which; by default it is one whose lease is over, or parked with tries left.
            force: Also when its tries are used up.
            steal: Also when somebody works on it: what they were sending may arrive twice.
        """
        return await self._operate(lane_id, "unlock", Unlock(force=force, steal=steal))

    async def retry(self, lane_id: UUID | str) -> Operated:
        """Try a lane's head now, with all its tries, when it waits for a later try or is parked."""
        return await self._operate(lane_id, "retry")

    async def skip(self, lane_id: UUID | str) -> Operated:
        """Give up the message at a lane's head and go on behind it; the journal says who did."""
        return await self._operate(lane_id, "skip")

    async def pause(self, lane_id: UUID | str) -> Operated:
        """Let nothing begin in a lane until it is resumed; what is under way may end."""
        return await self._operate(lane_id, "pause")

    async def resume(self, lane_id: UUID | str) -> Operated:
        """Let a lane go on that was paused."""
        return await self._operate(lane_id, "resume")

    async def attempts(
        self, *, lane: UUID | str | None = None, limit: int = 20, cursor: str | None = None
    ) -> AttemptList:
        """Read the journal, newest first: of one lane, or of all for the last seven days."""
        found: AttemptList = await self._wire.get(
            "/v1/ops/attempts",
            AttemptList,
            lane_id=None if lane is None else as_id(lane, "/lane_id"),
            limit=limit,
            cursor=cursor,
        )
        return found

    async def alerts(self) -> list[Alert]:
        """List what somebody should know now, and then what ended within the last day."""
        found: _Alerts = await self._wire.get("/v1/ops/alerts", _Alerts)
        return found.data

    async def _operate(self, lane_id: UUID | str, verb: str, how: Any = None) -> Operated:
        body = await self._wire.write("POST", f"{_lane(lane_id)}/{verb}", how)
        return msgspec.json.decode(body, type=Operated)


def _lane(lane_id: UUID | str) -> str:
    return f"/v1/ops/lanes/{as_id(lane_id)}"
