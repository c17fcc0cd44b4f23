"""The private PostgreSQL: made, started, shared by our processes, and stopped with the last one.

``open_cluster`` is all that most callers need::

    async with open_cluster(default_data_dir()) as cluster:
        connection = await asyncpg.connect(cluster.dsn)

Who is there is told by kernel locks, never by a list of process ids, because ``kill -9`` frees a
lock by itself and leaves a list wrong for ever.  Three files of the data folder are locked:

``control.lock``
    Exclusive, short: held by the one process that looks, starts or stops.
``holders.lock``
    Shared, long: held by each process that uses the cluster.  Whoever leaves and then gets it
    exclusively was the last one.
``server.lock``
    Exclusive, *inherited by PostgreSQL itself* and by all its children: as long as one of them
    lives, it is taken.  A zombie has let go of it, a reused process id never had it, and a
    backend that outlived its postmaster still has it.  Its content tells which process that is and
    where its socket lies.
"""

from greffier.embedded.binaries import Binaries, find
from greffier.embedded.cluster import Cluster, open_cluster
from greffier.embedded.folder import default_data_dir

__all__ = ["Binaries", "Cluster", "default_data_dir", "find", "open_cluster"]
