"""The audit: proves that a whole database keeps its promises, and names every place that does not.

It reads one snapshot, so it may run while the server writes; it is set-based and keeps little, so
a large database costs time and no memory.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final
from uuid import UUID

import msgspec

from greffier.store.database import Database
from greffier.store.queries import queries

#: What each check proves.
CHECKS: Final = {
    "seq-bounds": "first_seq is at least 1, and last_seq not before it",
    "seq-gap": "every seq from first_seq to last_seq has a message",
    "seq-double": "no seq has two messages",
    "seq-outside": "no message is below first_seq or above last_seq",
    "id-double": "a message id names one message of its conversation",
    "message-count": "message_count is the undeleted messages on the active path",
    "said-no": "each message keeps the running count of what was said",
    "tool-no": "each message keeps the running count of tool traffic",
    "said-total": "the conversation's count of what was said is its last message's",
    "tool-total": "the conversation's count of tool traffic is its last message's",
    "rev-order": "revs never go back along the record, and a change comes after its message",
    "rev-behind": "the conversation's rev is at least that of all that is in it",
    "created-order": "times of creation never go back along the record",
    "path": "the active path begins at 1 or later and is open at its end, and branches lie within",
    "parent": "a message's parent stands before it",
    "owner": "a conversation has one owner among its participants, the one it names",
    "read-mark": "nobody has read further than the last message",
    "listing": "each user's list holds the conversations they take part in, as they are",
    "slot": "a subject is taken by the active conversation on it, and by no other",
    "lane": "every lane is idle, due, held, paused or parked with a reason, its head at its work",
    "intent": "what a lane did is accepted once, lies behind its head and names its fence",
    "run": "runs agree with their conversation, lane, messages, events and line in the ledger",
    "orphan": "whatever belongs to a conversation has one",
    "erased": "nothing is left of an erased conversation",
}

#: One pass each.
QUERIES: Final = (
    "audit_conversations",
    "audit_messages",
    "audit_ids",
    "audit_people",
    "audit_lanes",
    "audit_runs",
    "audit_erased",
)

#: Places named for each check; all are counted.
PLACES: Final = 100


class Finding(msgspec.Struct, frozen=True):
    """One place where a check fails."""

    check: str
    conversation_id: UUID
    seq: int | None
    detail: str


class Report(msgspec.Struct, frozen=True):
    """What an audit found: how much it looked at, faults by check, and the first places of each."""

    conversations: int
    messages: int
    faults: dict[str, int]
    findings: list[Finding]

    @property
    def clean(self) -> bool:
        """Whether every check holds everywhere."""
        return not self.faults


async def audit(
    database: Database, *, places: int = PLACES, progress: Callable[[str], object] = lambda _: None
) -> Report:
    """Check a whole database against the promises it keeps (P2 and the numbers behind the reads).

    Args:
        database: Which.
        places: How many places to name for each check.
        progress: Told the name of each query before it runs.

    Raises:
        Unavailable: The database is away.
    """
    faults: dict[str, int] = {}
    findings: list[Finding] = []
    async with database.snapshot() as live:
        # It takes as long as it takes; a limit meant for requests is not for it.
        await live.execute("set local statement_timeout = 0")
        size = await live.fetchrow(queries()["audit_size"])
        assert size is not None
        for name in QUERIES:
            progress(name)
            for row in await live.fetch(_FIRST.format(queries()[name]), places):
                faults[row["check"]] = faults.get(row["check"], 0) + row["new"]
                findings.append(
                    Finding(row["check"], row["conversation_id"], row["seq"], row["detail"])
                )
    order = list(CHECKS)
    findings.sort(key=lambda one: (order.index(one.check), one.conversation_id, one.seq or 0))
    named = {check: [one for one in findings if one.check == check][:places] for check in faults}
    return Report(
        size["conversations"],
        size["messages"],
        {check: faults[check] for check in order if check in faults},
        [one for check in order for one in named.get(check, ())],
    )


#: Counts every fault, and keeps the first of each check; ``new`` adds up to their number.
_FIRST: Final = """
select "check", conversation_id, seq, detail, case when place = 1 then total else 0 end as new
from (
    select *, count(*) over (partition by "check") as total,
        row_number() over (partition by "check" order by conversation_id, seq) as place
    from ({}) f
) g
where place <= $1
"""
