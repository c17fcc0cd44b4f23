"""Promise: a channel is found by its name, ours or another package's, and none hides another."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from types import ModuleType
from typing import ClassVar

import pytest

from greffier.deliver.channels import (
    GROUP,
    Channel,
    OnUncertain,
    Outgoing,
    Result,
    Target,
    open_channels,
)
from greffier.errors import Problem, SettingsError
from greffier.settings import Settings
from helpers.outgoing import outgoing


class Pager(Channel):
    """A channel of somebody else's."""

    name: ClassVar[str] = "pager"
    default_on_uncertain: ClassVar[OnUncertain] = "park"
    idempotent: ClassVar[bool] = False
    closed = False

    def check_target(self, target: Target) -> tuple[Problem, ...]:
        """Take every target."""
        return ()

    async def send(self, target: Target, outgoing: Outgoing, *, timeout: float) -> Result:  # noqa: ASYNC109
        """Take every message."""
        return Result("accepted", "Beep.")

    async def close(self) -> None:
        """Note it."""
        self.closed = True


@pytest.fixture
def package() -> Iterator[ModuleType]:
    """An installed package."""
    module = ModuleType("a_package_of_the_tests")
    sys.modules[module.__name__] = module
    yield module
    del sys.modules[module.__name__]


def point(name: str, what: str) -> EntryPoint:
    """An entry point of that package."""
    return EntryPoint(name, f"a_package_of_the_tests:{what}", GROUP)


async def test_ours_are_there_by_name() -> None:
    """With what each does by default when it does not know."""
    channels = open_channels(Settings(smtp_from="bot@example.org"), ())

    assert {name: one.default_on_uncertain for name, one in channels.items()} == {
        "webhook": "resend",
        "email": "resend",
        "telegram": "park",
    }
    assert "carrier-pigeon" not in channels
    await channels.close()


async def test_a_package_brings_one_by_an_entry_point(package: ModuleType) -> None:
    """It is made from the settings, used like ours, and closed with them."""
    seen: list[Settings] = []
    pager = Pager()

    def make(settings: Settings) -> Channel:
        seen.append(settings)
        return pager

    package.make = make  # type: ignore[attr-defined]
    settings = Settings()

    channels = open_channels(settings, [point("pager", "make")])
    found = channels["pager"]
    result = await found.send(Target("pager", "42"), outgoing(), timeout=1)
    await channels.close()

    assert (seen, result.outcome, pager.closed) == ([settings], "accepted", True)
    # What it does not say it has by default: nothing is passed over, and it cannot be asked.
    assert found.passes_over(outgoing()) is None
    assert await found.probe(Target("pager", "42"), outgoing(), timeout=1) is None


@pytest.mark.parametrize(
    ("name", "maker", "told"),
    [
        ("pager", "nothing", "cannot be made"),
        ("pager", "broken", "cannot be made.*no key"),
        ("beeper", "make", "calls itself pager"),
        ("webhook", "hidden", "two channels called webhook"),
    ],
)
def test_one_that_cannot_be_is_told_at_the_start(
    package: ModuleType, name: str, maker: str, told: str
) -> None:
    """Not at its first message; and nobody takes the place of another."""

    def broken(_settings: Settings) -> Channel:
        msg = "no key"
        raise ValueError(msg)

    hidden = type("Hidden", (Pager,), {"name": "webhook"})
    package.broken = broken  # type: ignore[attr-defined]
    package.make = lambda _settings: Pager()  # type: ignore[attr-defined]
    package.hidden = lambda _settings: hidden()  # type: ignore[attr-defined]

    with pytest.raises(SettingsError, match=told):
        open_channels(Settings(), [point(name, maker)])


def test_the_body_of_an_event_is_the_same_each_time() -> None:
    """So that its signature and a receiver's own hash are."""
    first, second = outgoing(fence=1), outgoing(fence=2)

    assert first.body == second.body
    assert first.body.startswith(b'{"type":"message.created","conversation_id":"0197f0c8-')
