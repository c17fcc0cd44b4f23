"""How large things may be.  Every limit is a setting; these are the defaults of contract.md."""

from __future__ import annotations

from dataclasses import dataclass

KIB = 1 << 10
MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on what comes in and what goes out, in bytes unless named otherwise."""

    head: int = 32 * KIB
    body: int = 1 * MIB
    content: int = 256 * KIB
    metadata: int = 16 * KIB
    title: int = 1000
    name: int = 256
    batch_messages: int = 100
    page_messages: int = 200
    page_bytes: int = 1 * MIB
    cut: int = 16 * KIB


DEFAULT = Limits()
#: What an import may bring: whole tool outputs, whole documents.
IMPORT = Limits(content=16 * MIB, metadata=64 * KIB, title=4000)
