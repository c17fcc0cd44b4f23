"""``python -m greffier``: the command line, where its script is not on the PATH."""

from greffier.cli import main

main()
