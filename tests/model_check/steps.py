"""Steps drawn at random, taken again as they were, and left out while what they led to remains.

Not with Hypothesis, which was tried: it varies a history by doubling its steps, and 24 histories
then had 54 refused rewinds and not one edit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Protocol, TypeVar

Draw = Callable[[Random], Any]
F = TypeVar("F", bound=Callable[..., None])


def one_of(*values: Any) -> Draw:
    """One of these values; what stands twice comes twice as often."""
    return lambda random: random.choice(values)


def number(low: int, high: int) -> Draw:
    """A whole number, both bounds included."""
    return lambda random: random.randint(low, high)


def several(least: int, most: int, *draws: Draw) -> Draw:
    """A list of so many, each made of these."""
    return lambda random: [
        tuple(draw(random) for draw in draws) for _ in range(random.randint(least, most))
    ]


def some_of(keys: Sequence[Any], value: Draw) -> Draw:
    """A mapping of some of these keys."""
    return lambda random: {key: value(random) for key in keys if random.random() < 0.3}


def step(weight: float, **draws: Draw) -> Callable[[F], F]:
    """Let a method be a step, taken that often, with arguments drawn like this."""

    def mark(method: F) -> F:
        method.step = (weight, draws)  # type: ignore[attr-defined]
        return method

    return mark


@dataclass(frozen=True)
class Step:
    """A step to take: which, with what, and what is then read; also after others were left out."""

    name: str
    arguments: Mapping[str, Any]
    seed: int = 0

    def __str__(self) -> str:
        """Write it as the code that takes it."""
        return f"{self.name}({', '.join(f'{k}={v!r}' for k, v in self.arguments.items())})"


class Stepper(Protocol):
    """What takes steps; it makes all that is random after a step out of that step's seed."""

    seed: int


def take(history: Stepper, steps: Iterable[Step]) -> None:
    """Take steps one after the other."""
    for one in steps:
        history.seed = one.seed
        getattr(history, one.name)(**one.arguments)


def some_steps(kind: type, random: Random, many: int) -> list[Step]:
    """Draw steps of a kind of history, not all of which occur in each."""
    methods = {name: value.step for name, value in vars(kind).items() if hasattr(value, "step")}
    # Some steps undo what others need: each history goes without a quarter of them.
    names = [name for name in methods if random.random() < 0.75] or list(methods)
    weights = [methods[name][0] for name in names]
    return [
        Step(
            name,
            {key: draw(random) for key, draw in methods[name][1].items()},
            random.getrandbits(32),
        )
        for name in random.choices(names, weights, k=many)
    ]


def shortest(
    steps: Sequence[Step], fails: Callable[[Sequence[Step]], bool], tries: int
) -> list[Step]:
    """Leave out steps, many at first and then each, as long as it still fails."""
    left = list(steps)
    size = len(left) // 2
    while size and tries:
        at = 0
        while at < len(left) and tries:
            tries -= 1
            shorter = left[:at] + left[at + size :]
            if fails(shorter):
                left = shorter
            else:
                at += size
        size //= 2
    return left
