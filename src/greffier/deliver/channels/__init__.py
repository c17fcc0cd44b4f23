"""The ways to the outside, by name.

Ours are ``webhook``, ``email`` and ``telegram``.  A package brings another one by an entry point in
the group ``greffier.channels``, whose name is the channel's and whose object makes it from the
settings; the how-to page "Write a channel" shows one::

    [project.entry-points."greffier.channels"]
    pager = "my_package:make"          # make(settings: greffier.settings.Settings) -> Channel
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import TypeAlias

from greffier.deliver.channels.email import Email
from greffier.deliver.channels.protocol import Channel, OnUncertain, Outgoing, Result, Target
from greffier.deliver.channels.telegram import Telegram
from greffier.deliver.channels.webhook import Webhook
from greffier.errors import SettingsError
from greffier.settings import Settings

__all__ = [
    "GROUP",
    "Channel",
    "Channels",
    "OnUncertain",
    "Outgoing",
    "Result",
    "Target",
    "open_channels",
]

GROUP = "greffier.channels"
Maker: TypeAlias = Callable[[Settings], Channel]


class Channels(Mapping[str, Channel]):
    """Channels by their names, closed together."""

    def __init__(self, channels: Iterable[Channel]) -> None:
        """Take channels.

        Raises:
            SettingsError: Two have one name: which of them sends must not depend on chance.
        """
        self._channels: dict[str, Channel] = {}
        for channel in channels:
            if channel.name in self._channels:
                raise SettingsError(f"There are two channels called {channel.name}.")
            self._channels[channel.name] = channel

    def __getitem__(self, name: str) -> Channel:
        return self._channels[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._channels)

    def __len__(self) -> int:
        return len(self._channels)

    async def close(self) -> None:
        """Close every channel."""
        for channel in self._channels.values():
            await channel.close()


def open_channels(settings: Settings, others: Iterable[EntryPoint] | None = None) -> Channels:
    """Make every channel there is, ours and those of installed packages.

    Args:
        settings: What they are made from.
        others: Entry points to take instead of those that are installed.

    Raises:
        SettingsError: One cannot be made; better at the start than at the first message.
    """
    ours: list[Channel] = [
        Webhook(allow_private=settings.allow_private_targets),
        Email(
            settings.smtp_url.get_secret_value() if settings.smtp_url else None,
            settings.smtp_from,
        ),
        Telegram(),
    ]
    found = entry_points(group=GROUP) if others is None else others
    return Channels([*ours, *(_make(point, settings) for point in found)])


def _make(point: EntryPoint, settings: Settings) -> Channel:
    where = f"The channel {point.name} ({point.value})"
    try:
        maker: Maker = point.load()
        channel = maker(settings)
    except Exception as error:
        raise SettingsError(f"{where} cannot be made: {error!r}.") from error
    if channel.name != point.name:
        raise SettingsError(f"{where} calls itself {channel.name}.")
    return channel
