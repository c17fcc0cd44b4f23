"""The moment at which a message was sent, in its words."""

from __future__ import annotations

import re
import time

#: As it stands in JSON, of ours and of PostgreSQL, in the messages and nowhere else.
MARK = re.compile(rb'"content" ?: ?"at=(\d{20})')
ANY = re.compile(r"at=\d{20}")


def now() -> str:
    """The mark of this moment."""
    return f"at={time.perf_counter_ns():020d}"
