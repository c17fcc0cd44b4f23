"""When to try again: the schedule of Standard Webhooks, as a value."""

from __future__ import annotations

from dataclasses import dataclass

MINUTE = 60.0
HOUR = 60 * MINUTE
DAY = 24 * HOUR


@dataclass(frozen=True, slots=True)
class Retry:
    """How long to wait between the tries of one message.

    Attributes:
        delays: Seconds before the first, the second, the third … try.
        jitter: The share by which a delay is shortened or lengthened at random, so that what
            failed together does not come back together.
        longest: Seconds that a far side may ask us to wait; it may be wrong or mean harm.
    """

    delays: tuple[float, ...] = (
        0.0,
        5.0,
        5 * MINUTE,
        30 * MINUTE,
        2 * HOUR,
        5 * HOUR,
        10 * HOUR,
        14 * HOUR,
        20 * HOUR,
        24 * HOUR,
    )
    jitter: float = 0.2
    longest: float = DAY

    def wait(
        self,
        tries: int,
        *,
        random: float,
        retry_after: float | None = None,
        most: int | None = None,
    ) -> float | None:
        """Say how long to wait before the next try.

        What the far side asks for goes before the schedule, longer or shorter, but not below the
        step before: else one that always says "in a second" would use all tries up in ten.  It is
        never asked earlier than it said.

        Args:
            tries: How many were made; none before the first.
            random: A random number from 0 to 1, the caller's.
            retry_after: Seconds the far side asked for.
            most: How many tries there are, if others than the schedule has; the last delay is then
                repeated.

        Returns:
            Seconds, or None when no try is left.
        """
        if tries >= (len(self.delays) if most is None else most):
            return None
        delay = self.delays[min(tries, len(self.delays) - 1)]
        if retry_after is None or tries == 0:
            return delay * (1 - self.jitter + 2 * self.jitter * random)
        least = self.delays[min(tries, len(self.delays)) - 1]
        asked = min(max(retry_after, least), self.longest)
        return asked * (1 + self.jitter * random)


#: Ten tries in three days.
STANDARD = Retry()
