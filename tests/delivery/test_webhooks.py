"""Promise: every message arrives, in its order, and what went wrong is on record as what it was."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from greffier.deliver.channels.protocol import Outgoing, Result, Target
from greffier.deliver.channels.webhook import Webhook
from helpers.delivering import PATIENCE, Delivery, delivering
from helpers.hooks import Gate, Hook, hang_up, hooked
from helpers.receivers import response

pytestmark = pytest.mark.timeout(PATIENCE)
#: Down, and asking for so long a wait that it is over when the test lets an hour pass, and not
#: before, however slow the machine is.
DOWN = response(503, Retry_After="1800")


async def test_what_is_said_arrives_signed_and_in_order(record: Delivery, hook: Hook) -> None:
    """The official package verifies it; the event holds the message as the API shows it."""
    await record.hook(hook)
    talk = await record.talk(*(f"message {n}" for n in range(1, 26)), title="Plans")
    arrivals = await hook.until(25)

    assert hook.contents == [f"message {n}" for n in range(1, 26)]
    assert [one.seq for one in arrivals] == list(range(1, 26))
    first = arrivals[0].event
    assert (first["type"], first["conversation_id"]) == ("message.created", str(talk))
    assert first["message"]["role"] == "user"
    assert len({one.id for one in arrivals}) == 25
    await record.idle()
    assert await record.journal() == [(n, "accepted") for n in range(1, 26)]


async def test_an_endpoint_is_for_all_conversations_or_for_one(
    record: Delivery, hook: Hook
) -> None:
    """What was said before it was made does not leave."""
    mine = await record.talk("before")
    async with hooked() as other:
        await record.hook(hook)
        await record.hook(other, conversation=mine)
        theirs = await record.talk("theirs")
        await record.say(mine, "mine")
        await hook.until(2)
        await other.until(1)
        await record.idle()
        assert sorted(hook.contents) == ["mine", "theirs"]
        assert other.contents == ["mine"]
    assert theirs != mine


async def test_only_who_is_asked_for_is_sent(record: Delivery, hook: Hook) -> None:
    """What others say is passed over, without a trace in the journal."""
    await record.hook(hook, roles=["assistant"])
    talk = await record.talk("question")
    await record.say(talk, "answer", role="assistant")
    await record.say(talk, "thanks")
    await hook.until(1)
    await record.idle()

    assert hook.contents == ["answer"]
    assert await record.journal() == [(2, "accepted")]


async def test_the_same_message_is_tried_again_under_the_same_name(
    record: Delivery, hook: Hook
) -> None:
    """With a greater fence each time; nothing behind it leaves before."""
    hook.answers.extend([DOWN, hang_up])
    await record.hook(hook)
    await record.talk("first", "second")
    await record.until("select exists (select from attempts where outcome = 'rejected')")
    await record.later(1)
    await record.until("select exists (select from attempts where outcome = 'uncertain')")
    await record.later(2)
    await hook.until(4)
    await record.idle()

    assert hook.contents == ["first", "first", "first", "second"]
    assert len({one.id for one in hook.arrivals[:3]}) == 1
    fences = [one.fence for one in hook.arrivals]
    assert fences == sorted(fences)
    assert len(set(fences[:3])) == 3
    assert await record.journal() == [
        (1, "rejected"), (1, "uncertain"), (1, "accepted"), (2, "accepted")
    ]  # fmt: skip


async def test_what_fails_for_good_is_parked_and_others_go_on(record: Delivery, hook: Hook) -> None:
    """In strict order nothing of its conversation passes it; a person lets it be tried again."""
    hook.answers.append(DOWN)
    await record.hook(hook, max_attempts=1)
    stuck = await record.talk("poison", "behind it")
    await hook.until(1)
    assert await record.until("select park_reason from lanes") == (
        "rejected, tried once: Answered 503."
    )
    await record.talk("elsewhere")
    await hook.until(2)
    assert hook.contents == ["poison", "elsewhere"]

    lane = await record.hand.live.fetchval("select id from lanes where conversation_id = $1", stuck)
    assert await record.hand.call("retry_v1", stuck, lane)
    await hook.until(4)
    assert hook.contents[2:] == ["poison", "behind it"]
    await record.idle()


async def test_what_may_be_skipped_is_left_out(record: Delivery, hook: Hook) -> None:
    """With ordering skip the rest goes on behind it, and the journal says so."""
    hook.answers.append(DOWN)
    await record.hook(hook, ordering="skip", max_attempts=1)
    await record.talk("poison", "behind it")
    await hook.until(2)
    await record.idle()

    assert await record.journal() == [(1, "rejected"), (2, "accepted")]
    assert await record.parked() == []


async def test_what_needs_no_order_waits_beside_the_rest(record: Delivery, hook: Hook) -> None:
    """It is tried again by itself, with a greater fence, and leaves no lane behind."""
    hook.answers.append(DOWN)
    await record.hook(hook, ordering="unordered")
    await record.talk("late", "second", "third")
    await hook.until(3)
    await record.until("select count(*) = 2 from lanes where token is null")
    await record.later(1)
    await hook.until(4)
    await record.idle()

    assert hook.contents == ["late", "second", "third", "late"]
    assert hook.arrivals[3].id == hook.arrivals[0].id
    assert hook.arrivals[3].fence > hook.arrivals[0].fence
    await record.until("select count(*) = 1 from lanes")


@pytest.mark.parametrize("ordering", ["strict", "skip", "unordered"])
async def test_gone_disables_until_somebody_enables(
    record: Delivery, hook: Hook, ordering: str
) -> None:
    """410 asks for no further message; what waited leaves when it is enabled, in order.

    Also the message that was answered so: that is nobody's refusal of what it says, and needs no
    decision of its own.
    """
    hook.answers.append(response(410))
    made = await record.hook(hook, ordering=ordering, max_attempts=1)
    talk = await record.talk("first")
    await record.until("select bool_or(due_at = 'infinity') from lanes")
    found = await record.g.endpoints.get(made.id)
    assert (found.state, found.disabled_reason) == ("disabled", "Answered 410. It wants no more.")
    await record.say(talk, "second")
    assert await record.parked() == []
    assert hook.contents == ["first"]

    assert (await record.g.endpoints.resume(made.id)).state == "active"
    await hook.until(3)
    assert sorted(hook.contents) == ["first", "first", "second"]
    assert ordering == "unordered" or hook.contents[2] == "second"
    await record.idle()


async def test_a_paused_endpoint_is_left_alone_and_goes_on_where_it_stood(
    record: Delivery, hook: Hook
) -> None:
    """What was said meanwhile leaves then, in order, and no try is counted."""
    made = await record.hook(hook, paused=True)
    talk = await record.talk("first", "second")
    await record.until("select due_at = 'infinity' from lanes")
    await record.say(talk, "third")
    await record.until("select due_at = 'infinity' and fence >= 2 from lanes")
    assert hook.arrivals == []

    await record.g.endpoints.resume(made.id)
    await hook.until(3)
    assert hook.contents == ["first", "second", "third"]
    await record.idle()
    assert [tries for (tries,) in await record.hand.live.fetch("select tries from lanes")] == [0]


async def test_a_pause_holds_back_what_is_next(record: Delivery, hook: Hook) -> None:
    """Also of messages that were to leave under the same claim."""
    gate = Gate(response(200))
    hook.answers.append(gate)
    made = await record.hook(hook)
    await record.talk("first", "second", "third")
    await gate.reached.wait()
    await record.g.endpoints.pause(made.id)
    gate.open()
    await record.until("select head_seq = 2 and due_at = 'infinity' from lanes")
    assert hook.contents == ["first"]

    await record.g.endpoints.resume(made.id)
    await hook.until(3)
    assert hook.contents == ["first", "second", "third"]
    await record.idle()


async def test_what_was_edited_before_its_turn_leaves_as_it_is_now(
    record: Delivery, hook: Hook
) -> None:
    """Also of messages that were to leave under the same claim, and were read before the edit."""
    gate = Gate(response(200))
    hook.answers.append(gate)
    await record.hook(hook)
    talk = await record.talk("first", "second", "third")
    await gate.reached.wait()
    await record.g.messages.edit(talk, 2, content="second thoughts")
    gate.open()
    await hook.until(3)
    assert hook.contents == ["first", "second thoughts", "third"]
    await record.idle()
    assert await record.journal() == [(1, "accepted"), (2, "accepted"), (3, "accepted")]


async def test_a_failing_endpoint_is_slowed_then_well_again(record: Delivery, hook: Hook) -> None:
    """From the fifth failure in a row only one message tries, and after it all go at once."""
    hook.answers.extend([DOWN] * 5)
    made = await record.hook(hook, max_attempts=10)
    for n in range(5):
        await record.talk(f"talk {n}")
    await hook.until(5)
    await record.until("select failures = 5 and held_until is not null from endpoints")
    await record.until("select count(*) = 0 from lanes where token is not null")
    found = await record.g.endpoints.get(made.id)
    assert (found.state, found.failing_since is not None) == ("slowed", True)

    await record.later(1)
    await hook.until(10)
    await record.idle()
    found = await record.g.endpoints.get(made.id)
    assert (found.state, found.failing_since, found.held_until) == ("active", None, None)


async def test_after_days_of_failures_an_endpoint_is_disabled(record: Delivery, hook: Hook) -> None:
    """With the reason, in words."""
    hook.usual = DOWN
    made = await record.hook(hook, max_attempts=10)
    await record.talk("first")
    await hook.until(1)
    await record.until("select failures = 1 and token is null from endpoints, lanes")
    await record.later(6 * 24)
    await hook.until(2)
    await record.until("select disabled_at is not null from endpoints")

    found = await record.g.endpoints.get(made.id)
    assert found.disabled_reason
    assert found.disabled_reason.startswith("It only failed since ")


async def test_so_many_at_the_same_time_and_no_more(record: Delivery, hook: Hook) -> None:
    """Across conversations; the others wait their turn."""
    gate = Gate(response(200))
    hook.answers.extend([gate] * 2)
    await record.hook(hook, concurrency=2)
    for n in range(6):
        await record.talk(f"talk {n}")
    await hook.until(2)
    await record.until(
        "select count(*) = 4 from lanes where token is null and due_at is not null and fence > 0"
    )
    gate.open()
    await record.later(1)
    await hook.until(6)
    await record.idle()
    assert hook.most == 2
    await record.until("select count(*) = 2 from endpoint_slots where holder is null")


async def test_so_many_in_a_minute(record: Delivery, hook: Hook) -> None:
    """The rest leaves later, in order, and counts as no failure."""
    await record.hook(hook, per_minute=1)
    await record.talk("first", "second", "third")
    for n in range(1, 4):
        await hook.until(n)
        await record.until("select token is null from lanes")
        assert len(hook.arrivals) == n
        await record.later(n)
    await record.idle()

    assert hook.contents == ["first", "second", "third"]
    assert await record.journal() == [(n, "accepted") for n in (1, 2, 3)]


async def test_what_is_not_to_be_read_any_more_does_not_leave(record: Delivery, hook: Hook) -> None:
    """Deleted, or off the active path, also while it was already to be the next."""
    gate = Gate(response(200))
    hook.answers.append(gate)
    await record.hook(hook)
    talk = await record.talk("first", "deleted", "third", "rewound", "rewound too")
    await gate.reached.wait()
    await record.g.messages.delete(talk, 2)
    await record.g.messages.rewind(talk, after_seq=3)
    gate.open()
    await hook.until(2)
    await record.idle()

    assert hook.contents == ["first", "third"]
    await record.say(talk, "after")
    await hook.until(3)
    assert hook.contents[2] == "after"


async def test_an_edit_does_not_send_again(record: Delivery, hook: Hook) -> None:
    """Once is once; who has not left yet leaves as it is then."""
    gate = Gate(response(200))
    hook.answers.append(gate)
    await record.hook(hook)
    talk = await record.talk("first")
    await gate.reached.wait()
    await record.say(talk, "second")
    await record.g.messages.edit(talk, 1, "first, better")
    await record.g.messages.edit(talk, 2, "second, better")
    gate.open()
    await hook.until(2)
    await record.idle()

    assert hook.contents == ["first", "second, better"]


async def test_what_was_said_long_ago_does_not_leave(record: Delivery, hook: Hook) -> None:
    """An import is no news; what it brings of today is."""
    await record.hook(hook)
    talk = await record.talk()
    now = datetime.now(UTC)
    drafts = [
        {"content": "old", "said_at": now - timedelta(days=2)},
        {"content": "new", "said_at": now - timedelta(hours=2)},
    ]
    await record.g.messages.append_many(talk, drafts)
    await record.g.messages.append(talk, content="old too", said_at=now - timedelta(days=9))
    await hook.until(1)
    await record.idle()

    assert hook.contents == ["new"]


async def test_a_rotated_secret_and_the_one_before_both_verify(
    record: Delivery, hook: Hook
) -> None:
    """For a day; so that nobody has to change both sides at once."""
    made = await record.hook(hook)
    old = made.secret
    new = (await record.g.endpoints.rotate(made.id)).secret
    assert old
    assert new
    hook.secrets = [old, new]
    await record.talk("both")
    (arrival,) = await hook.until(1)
    assert arrival.signatures == 2

    await record.hand.live.execute("update endpoints set rotated_at = now() - interval '25 hours'")
    hook.secrets = [new]
    await record.talk("the new one")
    assert (await hook.until(2))[1].signatures == 1
    await record.idle()


async def test_a_deleted_endpoint_gets_nothing_more(record: Delivery, hook: Hook) -> None:
    """Nothing waits for it, not even what was being made due when it went."""
    made = await record.hook(hook, paused=True)
    talk = await record.talk("first")
    await record.until("select due_at = 'infinity' from lanes")
    await record.g.endpoints.delete(made.id)
    # As an append leaves it that had read the endpoint a moment before.
    await record.hand.call(
        "enqueue_v1", talk, "out", made.id, 1, 1, await record.hand.clock()
    )  # fmt: skip
    record.work.worker.wake()
    await record.until("select not exists (select from lanes)")

    assert hook.arrivals == []


# -- what nobody knows


class Asked(Webhook):
    """A channel that can be asked whether a message is there."""

    name = "asked"
    default_on_uncertain = "probe"

    def __init__(self, found: Result | None) -> None:
        super().__init__(allow_private=True)
        self.found = found
        self.probed: list[int] = []

    async def probe(
        self,
        target: Target,
        outgoing: Outgoing,
        *,
        timeout: float,  # noqa: ASYNC109 - a channel's interface
    ) -> Result | None:
        """Say what was set."""
        self.probed.append(outgoing.seq)
        return self.found


async def test_uncertain_is_parked_where_a_double_is_worse(record: Delivery, hook: Hook) -> None:
    """Until somebody says that it is to be sent; then it is, once."""
    hook.answers.append(hang_up)
    await record.hook(hook, on_uncertain="park", max_attempts=10)
    talk = await record.talk("first", "second")
    await hook.until(1)
    assert (await record.until("select park_reason from lanes")).startswith("uncertain: ")

    lane = await record.hand.live.fetchval("select id from lanes")
    assert await record.hand.call("retry_v1", talk, lane)
    await hook.until(3)
    await record.idle()
    assert hook.contents == ["first", "first", "second"]
    assert await record.journal() == [(1, "uncertain"), (1, "accepted"), (2, "accepted")]


@pytest.mark.parametrize("there", [True, False])
async def test_uncertain_is_asked_for_where_that_can_be(
    database: str, hook: Hook, there: bool
) -> None:
    """What is there is not sent again, and what is not, is."""
    found = Result("accepted" if there else "not_sent", "It says so.")
    channel = Asked(found)
    hook.answers.append(hang_up)
    async with delivering(database, [channel]) as record:
        await record.hook(hook, channel="asked", roles=["user"], max_attempts=5)
        await record.talk("first", "second")
        await record.until("select exists (select from attempts where outcome = 'uncertain')")
        await record.later(1)
        await hook.until(2 if there else 3)
        await record.idle()

        assert channel.probed == [1]
        assert hook.contents == ["first", *["first"] * (not there), "second"]


async def test_a_stop_leaves_nothing_in_doubt_that_did_not_leave(database: str) -> None:
    """What is on its way when its time is up is uncertain; what was next was simply not sent."""
    async with hooked() as hook:
        gate = Gate(response(200))
        hook.answers.append(gate)
        async with delivering(database) as record:
            await record.hook(hook, on_uncertain="park", max_attempts=9)
            await record.talk("first", "second")
            await gate.reached.wait()
        async with delivering(database) as record:
            assert await record.journal() == [(1, "uncertain")]
            assert (await record.parked())[0].startswith("uncertain")
        gate.open()


async def test_many_conversations_leave_side_by_side(record: Delivery, hook: Hook) -> None:
    """One that is slow holds up nobody else's."""
    gate = Gate(response(200))
    hook.answers.append(gate)
    await record.hook(hook)
    await record.talk("slow")
    await gate.reached.wait()
    await asyncio.gather(*(record.talk(f"talk {n}", "second") for n in range(20)))
    await hook.until(41)
    gate.open()
    await record.idle()
    assert len(hook.arrivals) == 41
