"""Conversations from elsewhere: readers of foreign formats, and the account of every source row.

``values`` reads a file piece by piece, ``plan`` finds the conversations in it and maps their
messages (pure functions, one format a file), ``record`` asks what is on record already and adds
the rest, ``run`` joins the three.  Whatever happens to a row, ``account`` counts it once:
read = mapped + already + quarantined + deleted.
"""

from greffier.imports.account import Account, Fault, Place
from greffier.imports.piece import Options
from greffier.imports.run import import_files
from greffier.imports.values import Source

__all__ = ["Account", "Fault", "Options", "Place", "Source", "import_files"]
