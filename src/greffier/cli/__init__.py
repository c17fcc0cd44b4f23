"""The command line: ``greffier COMMAND``.

stdout is data, stderr is talk.  Each command is one file, and imports what is heavy when it runs,
so that ``greffier --help`` answers at once.
"""

from greffier.cli.entry import main

__all__ = ["main"]
