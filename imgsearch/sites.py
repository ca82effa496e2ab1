"""Sites: which machine's files a URI means, where several machines share a store.

A site is a machine, or several that see the same files at the same paths. A collection in a shared
store has a home site, the first that wrote into it: its files have URIs without a site,
`file:///photos/1.jpg`. Those of other sites are `file://SITE/photos/1.jpg`. So different files at
one path are different records, and a machine opens, replaces and prunes only those of its own site.
"""

import contextlib
import hashlib
import os
import re
import secrets
import socket
from collections.abc import Set
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from imgsearch import config
from imgsearch.errors import UsageError
from imgsearch.uris import path_to_uri

_NAME = re.compile(r"[a-z0-9]([a-z0-9._-]{0,62})")
_FILE = "site"
_SCHEME = "file://"
_NO_SITE = "file:///"


@dataclass(frozen=True, slots=True)
class Sites:
    """The sites of a collection, as seen from the site `own`.

    `home` is None if no site has written to the collection yet; `known` are the other sites that
    have. If `own` is empty, the store is not shared, and files without a site are local.
    """

    own: str = ""
    home: str | None = ""
    known: Set[str] = frozenset()

    @property
    def at_home(self) -> bool:
        """Whether the files of this machine have URIs without a site."""
        return self.home in (None, self.own)

    def uri(self, path: str) -> str:
        """Return the URI of a file of this site by its absolute path."""
        return self.qualified(path_to_uri(path))

    def qualified(self, uri: str, site: str | None = None) -> str:
        """Return the collection's URI of a file of a site, or of this one, from its bare URI.

        Other URIs are returned unchanged.
        """
        site = site or self.own
        if not uri.startswith(_SCHEME) or not site or site == (self.home or self.own):
            return uri
        rest = uri.removeprefix(_SCHEME)
        # On Windows, a network share is `file://SERVER/SHARE/...`.
        return f"{_SCHEME}{site}{'' if rest.startswith('/') else '//'}{rest}"

    def split(self, uri: str) -> tuple[str | None, str]:
        """Return the site of a URI, None for this one, and the URI without the site."""
        if not uri.startswith(_SCHEME):
            return None, uri
        if uri.startswith(_NO_SITE):
            return (None if self.at_home else self.home), uri
        authority = urlsplit(uri).netloc
        shared_folder = os.name == "nt" and authority not in {self.own, *self.known}
        if not authority or shared_folder:
            return (None if self.at_home else self.home), uri
        rest = uri[len(_SCHEME) + len(authority) :]
        bare = "file:" + rest if os.name == "nt" and rest.startswith("//") else _SCHEME + rest
        return (None if authority == self.own else authority), bare


HERE = Sites()
"""The sites of a store that is not shared."""


def own_site() -> str:
    """Return the name of this machine's site: `IMGSEARCH_SITE`, or a generated one.

    The generated name consists of the host name and, where the system has one, the machine id, so
    that all users of a machine get the same. It is stored in the data directory, as host names
    change. Raises UsageError for an invalid name.
    """
    if named := os.environ.get(config.ENV_SITE):
        return _checked(named)
    path = config.home() / _FILE
    try:
        return _checked(path.read_text(encoding="utf-8").strip())
    except FileNotFoundError:
        return _stored(path, _generated())
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"{path}: the name of this machine's site cannot be read ({error}): set "
            f"{config.ENV_SITE}"
        ) from error


def _checked(name: str) -> str:
    if _NAME.fullmatch(name.lower()) is None:
        raise UsageError(
            f"{name!r} cannot name a site: use letters, digits, '.', '_' and '-', up to 63, a "
            f"letter or digit first ({config.ENV_SITE})"
        )
    return name.lower()


def _generated() -> str:
    host = re.sub(r"[^a-z0-9-]+", "-", socket.gethostname().lower().partition(".")[0]).strip("-")
    machine = _machine_id()
    suffix = hashlib.sha256(f"imgsearch {machine}".encode()).hexdigest()[:8] if machine else None
    return f"{host[:40] or 'host'}-{suffix or secrets.token_hex(4)}"


def _machine_id() -> str:
    """Return the id by systemd; containers have none."""
    try:
        return Path("/etc/machine-id").read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _stored(path: Path, name: str) -> str:
    """Store a name and return it; concurrent processes all get the same one."""
    # By a link, which fails if the file exists, as the first process must win: `system.atomic`
    # replaces existing files.
    part = path.with_name(f".{path.name}-{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(f"{name}\n", encoding="utf-8")
        try:
            os.link(part, path)
        finally:
            part.unlink(missing_ok=True)
    except FileExistsError:
        return _checked(path.read_text(encoding="utf-8").strip())
    except OSError:  # a data directory that cannot be written to, or a file system without links
        with contextlib.suppress(OSError), path.open("x", encoding="utf-8") as file:
            file.write(f"{name}\n")
    return name
