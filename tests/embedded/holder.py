"""One process that holds a cluster, told what to do on its standard input.

Prints a line of JSON once the server answers and after each ``ensure``; leaves at ``leave`` or at
the end of its input.  A second argument is a uid to become first.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

from greffier.embedded import Cluster, open_cluster
from greffier.errors import EmbeddedError


def tell(cluster: Cluster) -> None:
    """Say where the server is."""
    print(json.dumps({"pid": cluster.pid, "dsn": cluster.dsn}), flush=True)


async def main(data_dir: Path) -> None:
    """Hold the cluster until told to leave."""
    async with open_cluster(data_dir) as cluster:
        tell(cluster)
        while (await asyncio.to_thread(sys.stdin.readline)).strip() == "ensure":
            await cluster.ensure_running()
            tell(cluster)


def become(uid: int) -> None:
    """Drop root's rights for good; not before Python has all it needs, in root's home maybe."""
    import concurrent.futures.thread  # noqa: F401
    import encodings.ascii
    import encodings.idna  # noqa: F401

    import asyncpg.connect_utils  # noqa: F401

    os.setgroups([])
    os.setgid(uid)
    os.setuid(uid)


if __name__ == "__main__":
    if len(sys.argv) > 2:
        become(int(sys.argv[2]))
    try:
        asyncio.run(main(Path(sys.argv[1])))
    except EmbeddedError as error:
        print(json.dumps({"error": str(error)}), flush=True)
        sys.exit(1)
