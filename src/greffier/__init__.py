"""Greffier keeps conversations: what was said, in order, never lost, never doubled."""

from greffier._version import __version__

__all__ = ["__version__"]
