"""Runs told to rooms: who has joined a conversation over a socket sees its answers come.

For each run that answers where somebody has joined, one follower in this process, whose events are
encoded once for all.  A socket that is slow, or comes in the middle, misses some: their ids say so,
and ``GET /v1/runs/{run_id}/events`` has them all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from uuid import UUID

from greffier.agents.events import Event
from greffier.agents.follow import FollowedRuns
from greffier.errors import Error
from greffier.server.packets import Event as Packet
from greffier.server.packets import event


class RunRooms:
    """Follows the runs of conversations that somebody here has joined."""

    def __init__(
        self,
        runs: FollowedRuns,
        present: Callable[[UUID], Collection[str]],
        send: Callable[[str, Packet], bool],
    ) -> None:
        """Listen for runs.

        Args:
            runs: Where they are followed.
            present: Gives the sockets that have joined a conversation.
            send: Sends a packet to a socket, unless too much waits for it.
        """
        self._runs = runs
        self._present = present
        self._send = send
        self._following: dict[UUID, asyncio.Task[None]] = {}
        runs.on_said(self._said)

    def _said(self, conversation_id: UUID, run_id: UUID) -> None:
        if run_id not in self._following and self._present(conversation_id):
            task = asyncio.get_running_loop().create_task(self._follow(conversation_id, run_id))
            self._following[run_id] = task
            task.add_done_callback(lambda _: self._following.pop(run_id, None))

    async def _follow(self, conversation_id: UUID, run_id: UUID) -> None:
        try:
            async with self._runs.follow(run_id, None) as follower:
                while (found := await follower.next()) is not None:
                    present = self._present(conversation_id)
                    if not present:
                        return
                    for one in found:
                        packet = _packet(conversation_id, run_id, one)
                        for sid in list(present):
                            self._send(sid, packet)
        except Error:
            # Erased meanwhile, or the record is away; the next word begins again.
            return


def _packet(conversation_id: UUID, run_id: UUID, one: Event) -> Packet:
    body = b'{"conversation_id":"%b","run_id":"%b","event":"%b","id":%d,"data":%b}' % (
        str(conversation_id).encode(),
        str(run_id).encode(),
        one.name.encode(),
        one.id,
        one.data,
    )
    return event("run", body)
