"""Where endpoints may point, as the channels of this process see it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from greffier.deliver.channels.protocol import Channel, Target
from greffier.deliver.channels.signatures import new_secret
from greffier.errors import Problem
from greffier.model.endpoint import CONTACT

#: What a contact may look like; a target that names one has to be good with one of them.
CONTACTS = ("somebody@example.org", "1", "somebody")


class ChannelTargets:
    """Holds endpoints to what the channels say (``model.endpoint.Targets``)."""

    def __init__(self, channels: Mapping[str, Channel]) -> None:
        """Take the channels of this process."""
        self._channels = channels

    def problems(
        self, channel: str, target: str, secret: str | None, settings: Mapping[str, Any]
    ) -> Sequence[Problem]:
        """Say what is wrong with where an endpoint points, without reaching for it."""
        found = self._channels.get(channel)
        if found is None:
            there = ", ".join(sorted(self._channels))
            return (Problem("/channel", "unknown-channel", f"There are here: {there}."),)
        if CONTACT not in target:
            return self._check(found, target, secret, settings)
        if "://" in target and CONTACT in urlsplit(target).netloc:
            # Who writes to us would choose the server that the answers go to.
            return (Problem("/target", "contact", "{contact} stands behind the host."),)
        tries = [
            self._check(found, target.replace(CONTACT, contact), secret, settings)
            for contact in CONTACTS
        ]
        return min(tries, key=len)

    def make_secret(self, channel: str, target: str, settings: Mapping[str, Any]) -> str | None:
        """Make a secret where one is wanted and any will do."""
        made = new_secret()
        without = self.problems(channel, target, None, settings)
        with_it = self.problems(channel, target, made, settings)
        wanted = any(problem.pointer == "/secret" for problem in without)
        return made if wanted and not any(p.pointer == "/secret" for p in with_it) else None

    def _check(
        self, channel: Channel, target: str, secret: str | None, settings: Mapping[str, Any]
    ) -> Sequence[Problem]:
        secrets = () if secret is None else (secret,)
        return channel.check_target(Target(channel.name, target, secrets, settings))
