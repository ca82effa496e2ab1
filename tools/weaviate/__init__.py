"""A real Weaviate server without Docker, for tests, benchmarks and users.

    python -m tools.weaviate start [--nodes 3]   # in the foreground until Ctrl-C
    python -m tools.weaviate path                # print the binary; build it if necessary

In a test:

    with weaviate.running(nodes=3) as cluster:
        use(cluster.url)
        cluster.nodes[1].kill()

    binary      find or build the server (needs Go and a C compiler, once)
    servers     start, stop and kill nodes of a cluster
    probe       ports, and the state of a server
    watchdog    end the servers with the process that started them
    choice      the server for a test: WEAVIATE_URL, Docker Compose, or one started here

Uses the standard library only, so that it runs before anything is installed.
"""

from tools.weaviate.binary import VERSION as VERSION
from tools.weaviate.binary import ServerUnavailable as ServerUnavailable
from tools.weaviate.binary import available as available
from tools.weaviate.binary import cache_folder as cache_folder
from tools.weaviate.binary import data_folder as data_folder
from tools.weaviate.binary import find_binary as find_binary
from tools.weaviate.choice import serving as serving
from tools.weaviate.probe import free_block as free_block
from tools.weaviate.probe import healthy as healthy
from tools.weaviate.probe import readable as readable
from tools.weaviate.servers import Cluster as Cluster
from tools.weaviate.servers import running as running
from tools.weaviate.watchdog import Watchdog as Watchdog
