"""What comes from a server, as frozen values: what its own followers are told."""

from __future__ import annotations

from greffier.publish.told import Activity, Change, ListChange

__all__ = ["Activity", "Change", "ListChange"]
