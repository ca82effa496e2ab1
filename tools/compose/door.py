"""The way from the namespaces of our own engine to the package index.

Who is inside opens a port of its own 127.0.0.1 and hands the socket out; who is outside answers
there as an HTTP proxy, by the network of this computer.
"""

from __future__ import annotations

import contextlib
import socket
import socketserver
import threading

CONNECT_SECONDS = 30


def open_door(handed: socket.socket) -> str:
    """Inside: what HTTPS_PROXY must be, once the socket was handed out."""
    with socket.create_server(("127.0.0.1", 0)) as door:
        socket.send_fds(handed, [b"door"], [door.fileno()])
        return f"http://127.0.0.1:{door.getsockname()[1]}"


def keep_door(handed: socket.socket) -> None:
    """Outside: answer on the socket that comes, in threads, as long as this process lives."""
    threading.Thread(target=_keep, args=(handed,), daemon=True).start()


def _keep(handed: socket.socket) -> None:
    _, descriptors, _, _ = socket.recv_fds(handed, 16, 1)
    for descriptor in descriptors:  # none if the engine did not start
        server = _Proxy(("127.0.0.1", 0), _Tunnel, bind_and_activate=False)
        server.socket.close()
        server.socket = socket.socket(fileno=descriptor)
        server.serve_forever()


class _Proxy(socketserver.ThreadingTCPServer):
    daemon_threads = True


class _Tunnel(socketserver.StreamRequestHandler):
    """CONNECT HOST:PORT, and from then on bytes both ways."""

    def handle(self) -> None:
        method, target, _ = self.rfile.readline().decode("latin-1").split()
        while self.rfile.readline().strip():
            pass  # its headers
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
            back = threading.Thread(target=_pass_on, args=(there, self.connection), daemon=True)
            back.start()
            _pass_on(self.connection, there)
            back.join()


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while chunk := source.recv(1 << 16):
            target.sendall(chunk)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)
