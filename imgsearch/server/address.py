"""Listening sockets, and the host names that the service accepts."""

import errno
import ipaddress
import socket
from collections.abc import Iterable

from imgsearch.errors import ServeError, UsageError

# Connections not accepted yet.
_BACKLOG = 512


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def listen(host: str, port: int, option: str) -> socket.socket:
    """Return a listening socket; early clients wait in it until the service is ready.

    Raises ServeError, and UsageError for an address that is not this machine's.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except socket.gaierror as error:
        raise UsageError(f"--host {host}: {error.strerror}") from error
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise ServeError(
                f"port {port} of {host} is in use by another program; stop it, or choose another "
                f"port with {option}"
            ) from error
        raise ServeError(f"cannot listen on port {port} of {host}: {error.strerror}") from error


def allowed_hosts(host: str, others: Iterable[str], *, has_key: bool) -> tuple[str, ...] | None:
    """Return the host names that a service listening on `host` accepts; None for any.

    IP addresses are always accepted: DNS rebinding needs a name that an attacker owns. Any name is
    safe if every call needs a key, which a rebound page does not have. `others` are further names;
    "*" means any.
    """
    named = tuple(name.lower() for name in others)
    if "*" in named or (has_key and not named and not is_loopback(host)):
        return None
    own = (socket.gethostname().lower(),) if not is_loopback(host) else ()
    local = tuple(f"{each.partition('.')[0]}.local" for each in own)
    return ("localhost", host.strip("[]").lower(), *own, *local, *named)
