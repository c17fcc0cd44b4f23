"""Promise: the ids we make are UUIDs of version 7, in the order they were made, none twice.

And those we read have one spelling each.
"""

from __future__ import annotations

import subprocess
import sys
from uuid import RFC_4122, UUID

import pytest

from greffier.model.ids import parse_uuid, uuid7

ID = "6e2f8a54-3f3c-5e0b-9c3a-8f1d2b7a4c10"

FORK = """
import os
from greffier.model import ids

ids.uuid7()
ids.time.time_ns = lambda: 0  # the same moment in both processes
read, write = os.pipe()
child = os.fork()
drawn = str([ids.uuid7() for _ in range(300)])
if child == 0:
    os.write(write, drawn.encode())
    os._exit(0)
os.waitpid(child, 0)
theirs = os.read(read, 1 << 20).decode()
random = lambda text: {one[-12:] for one in text.replace("')", "").split(", ")}
assert random(drawn).isdisjoint(random(theirs))
"""


def test_they_are_in_the_order_they_were_made() -> None:
    """An index on them grows at its end, also within one millisecond."""
    made = [uuid7() for _ in range(10_000)]

    assert made == sorted(set(made))


def test_they_are_what_others_take_for_version_7() -> None:
    """Version, variant and time stand where RFC 9562 wants them."""
    one, other = uuid7(), UUID(int=uuid7().int)

    assert one.version == other.version == 7
    assert one.variant == RFC_4122
    assert 0 <= (other.int >> 80) - (one.int >> 80) < 60_000


def test_a_forked_child_draws_other_random_numbers() -> None:
    """Two processes that were one a moment ago do not make the same id at the same time."""
    done = subprocess.run([sys.executable, "-c", FORK], check=False, capture_output=True, text=True)

    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("text", [ID, ID.upper()])
def test_an_id_is_read_in_its_canonical_spelling(text: str) -> None:
    """In letters of either case."""
    assert parse_uuid(text) == UUID(ID)


@pytest.mark.parametrize(
    "text",
    [
        "",
        ID.replace("-", ""),
        ID.replace("-", "") + "----",
        ID.replace("-", "_"),
        ID.replace("3f3c-5e0b", "3f3c5-e0b"),
        f"{{{ID[2:]}}}",
        f"{ID[:-1]} ",
        f"{ID[:-1]}g",
        f"{ID[:-1]}\uff11",
        f"{ID[:-1]}\ud800",
        f"urn:uuid:{ID[9:]}",
    ],
)
def test_an_id_in_any_other_spelling_is_none(text: str) -> None:
    """PostgreSQL and others would refuse it, or take it for another one."""
    assert parse_uuid(text) is None
