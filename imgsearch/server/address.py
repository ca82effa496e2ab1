"""Where the service listens, and by which names it may be called there."""

import errno
import ipaddress
import socket
from collections.abc import Iterable

from imgsearch.errors import ServeError, UsageError

# Connections that wait to be accepted.
_BACKLOG = 512


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def listen(host: str, port: int, option: str) -> socket.socket:
    """A socket that listens; clients that come before the service is ready wait in it.

    Raises ServeError with what to do, UsageError for what is no address of this machine.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except socket.gaierror as error:
        raise UsageError(f"--host {host}: {error.strerror}") from error
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise ServeError(
                f"port {port} of {host} is taken by another program; end that, or take another "
                f"with {option}"
            ) from error
        raise ServeError(f"cannot listen on port {port} of {host}: {error.strerror}") from error


def names_of(host: str, others: Iterable[str], *, has_key: bool) -> tuple[str, ...] | None:
    """The host names under which clients may call a service that listens at an address.

    Addresses in digits are always let through: DNS rebinding needs a name that an attacker owns.
    None lets any name through, which is safe where every call needs a key, as a page that was
    given a name for this address has none. `others` are more names; "*" means any.
    """
    named = tuple(name.lower() for name in others)
    if "*" in named or (has_key and not named and not is_loopback(host)):
        return None
    own = (socket.gethostname().lower(),) if not is_loopback(host) else ()
    local = tuple(f"{each.partition('.')[0]}.local" for each in own)
    return ("localhost", host.strip("[]").lower(), *own, *local, *named)
