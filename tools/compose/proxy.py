"""An HTTP proxy from the namespaces of the test's own engine to the package index.

The process inside opens a port on its own 127.0.0.1 and passes the socket to the process outside,
which serves a proxy on it in the network of this computer.
"""

from __future__ import annotations

import contextlib
import socket
import socketserver
import threading

CONNECT_SECONDS = 30


def open_proxy(channel: socket.socket) -> str:
    """Open a port inside, pass its socket to the outside, and return the value of HTTPS_PROXY."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        socket.send_fds(channel, [b"proxy"], [listening.fileno()])
        return f"http://127.0.0.1:{listening.getsockname()[1]}"


def serve_proxy(channel: socket.socket) -> None:
    """Serve the proxy outside, on the socket that arrives, in threads until this process ends."""
    threading.Thread(target=_serve, args=(channel,), daemon=True).start()


def _serve(channel: socket.socket) -> None:
    _, descriptors, _, _ = socket.recv_fds(channel, 16, 1)
    for descriptor in descriptors:  # none if the engine did not start
        server = _Proxy(("127.0.0.1", 0), _Tunnel, bind_and_activate=False)
        server.socket.close()
        server.socket = socket.socket(fileno=descriptor)
        server.serve_forever()


class _Proxy(socketserver.ThreadingTCPServer):
    daemon_threads = True


class _Tunnel(socketserver.StreamRequestHandler):
    """Handle CONNECT HOST:PORT, then forward bytes both ways."""

    def handle(self) -> None:
        method, target, _ = self.rfile.readline().decode("latin-1").split()
        while self.rfile.readline().strip():
            pass  # headers
        host, _, port = target.rpartition(":")
        if method != "CONNECT":
            self.wfile.write(b"HTTP/1.1 405 Method Not Allowed\r\n\r\n")
            return
        try:
            there = socket.create_connection((host, int(port)), CONNECT_SECONDS)
        except OSError:
            self.wfile.write(b"HTTP/1.1 502 Bad Gateway\r\n\r\n")
            return
        with there:
            there.settimeout(None)
            self.wfile.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            back = threading.Thread(target=_forward, args=(there, self.connection), daemon=True)
            back.start()
            _forward(self.connection, there)
            back.join()


def _forward(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while chunk := source.recv(1 << 16):
            target.sendall(chunk)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)
