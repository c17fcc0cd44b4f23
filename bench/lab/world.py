"""What a promise is measured with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lab.scale import Scale


@dataclass(frozen=True, slots=True)
class World:
    """A PostgreSQL for this run, a folder on the same disk, and how much is measured."""

    #: A superuser's URL.
    server: str
    folder: Path
    scale: Scale
