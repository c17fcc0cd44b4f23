"""The HTTP server: a thin edge over the library.

A request becomes a ``Call`` at the ``edge``, finds its entry in the route ``table``, is decoded
into the declared types, asks ``access`` as whom it acts, calls one verb or read, and its answer
goes out as the bytes that PostgreSQL made.
"""

from greffier.server.app import create_app
from greffier.server.run import run, serve

__all__ = ["create_app", "run", "serve"]
