"""The command: `python -m tools.weaviate start` or `path`."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from tools.weaviate.binary import VERSION, ServerUnavailable, data_folder, find_binary, say
from tools.weaviate.servers import Cluster, running


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    options = _parser().parse_args(arguments)
    try:
        if options.command == "path":
            print(find_binary())
        else:
            _start(options)
    except ServerUnavailable as error:
        say(f"Error: {error}")
        return 1
    except KeyboardInterrupt:
        pass
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=f"Weaviate {VERSION} on this computer.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("path", help="print the server binary; build it if necessary")
    start = commands.add_parser("start", help="run until Ctrl-C; stored data persists")
    start.add_argument("--nodes", type=int, choices=(1, 3), default=1)
    start.add_argument("--port", type=int, default=8080, help="HTTP (more nodes: the next ones)")
    start.add_argument("--grpc-port", type=int, default=50051, help="gRPC (more nodes: the next)")
    start.add_argument("--data", type=Path, help="folder for the data")
    return parser


def _start(options: argparse.Namespace) -> None:
    data = options.data or data_folder() / f"weaviate-{options.nodes}"
    # SIGTERM stops the servers in order, as Ctrl-C does.
    signal.signal(signal.SIGTERM, _interrupt)
    say(f"Starting Weaviate {VERSION}, {options.nodes} node(s), data in {data} ...")
    with running(
        options.nodes,
        data=data.resolve(),
        environment={
            # User data, unlike in tests: the server's protection against a full disk stays on.
            "DISK_USE_WARNING_PERCENTAGE": "80",
            "DISK_USE_READONLY_PERCENTAGE": "90",
            # As in docker-compose.yml: on the cluster every collection has three copies.
            "REPLICATION_MINIMUM_FACTOR": str(options.nodes),
        },
        port=options.port,
        grpc_port=options.grpc_port,
    ) as cluster:
        print(_usage(cluster, options), flush=True)
        try:
            while True:
                signal.pause()
        finally:
            say("Stopping. The data persists.")


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _usage(cluster: Cluster, options: argparse.Namespace) -> str:
    default = (options.port, options.grpc_port) == (8080, 50051)
    url = "weaviate://localhost" if default else f"'{cluster.url}'"
    lines = ["Ready:", *(f"  {node.url}  (log: {node.log})" for node in cluster.nodes)]
    lines += [
        "Use it:",
        f"  imgsearch ingest DIR --store {url}",
        f"  imgsearch query IMAGE --store {url}",
        "It requires no key, and Weaviate's gRPC port listens on every interface. On a network",
        "that you do not trust, use a firewall, or docker-compose.yml, which binds to 127.0.0.1.",
        "Ctrl-C stops it; the data persists.",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
