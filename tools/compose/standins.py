"""Stand-ins with the names of the official images, for an engine without a network."""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from tools import weaviate
from tools.compose.docker import ROOT, Docker
from tools.compose.shell import Impossible, run, say

WEAVIATE = f"cr.weaviate.io/semitechnologies/weaviate:{weaviate.VERSION}"
(PYTHON,) = re.findall(r"^ARG BASE=(\S+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
# The Debian release of the official Python image.
RELEASE = PYTHON.rpartition("-")[2]
BOOTSTRAP_SECONDS = 900
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")


def prepare(work: Path) -> None:
    """Build the archives, which needs a network."""
    binary = weaviate.find_binary()
    debian_python()
    say("preparing the stand-ins: Weaviate's server on BusyBox, Debian's own Python")
    make_weaviate(work / "weaviate.tar", binary, busybox(work))


def load(docker: Docker, work: Path) -> None:
    """Import the images into the engine."""
    entry = ["--change", 'ENTRYPOINT ["/bin/weaviate"]']
    docker.run("import", *entry, str(work / "weaviate.tar"), WEAVIATE)
    # By default, uv uses its own certificates.
    trust = ["--change", f"ENV SSL_CERT_FILE={CERTIFICATES}", "--change", 'CMD ["python3"]']
    docker.run("import", *trust, str(debian_python()), PYTHON)


def apt(*arguments: str, folder: Path | None = None) -> None:
    """Run apt-get. Raises Impossible if it fails."""
    # RUNLEVEL: installed services do not start.
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    done = subprocess.run(
        ["apt-get", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise Impossible(f"apt-get {arguments[0]} fails: {done.stderr.strip()[-800:]}")


def busybox(work: Path) -> Path:
    """Return BusyBox as one static file, from the cache or from Debian's package."""
    target = weaviate.cache_folder() / "busybox-static"
    if not target.exists():
        save(_unpacked("busybox-static", work) / "bin" / "busybox", target)
    return target


def debian_python() -> Path:
    """Return Debian with its Python as an archive, from the cache or built from packages.

    Building takes a minute or two. It gets the certificates of this machine.
    """
    target = weaviate.cache_folder() / f"python-{RELEASE}.tar"
    if not target.exists():
        say(f"building the stand-in of {PYTHON} from Debian's packages, once")
        with tempfile.TemporaryDirectory(prefix="imgsearch-debian-") as folder:
            save(_bootstrap(Path(folder)), target)
    return target


def _bootstrap(work: Path) -> Path:
    tool = _unpacked("debootstrap", work) / "usr"
    root = work / "root"
    include = "ca-certificates,netbase,python3,python3-pip,python3-venv,tzdata"
    environment = {**os.environ, "DEBOOTSTRAP_DIR": str(tool / "share" / "debootstrap")}
    script = str(tool / "sbin" / "debootstrap")
    command = ["sh", script, "--variant=minbase", f"--include={include}", RELEASE, str(root)]
    try:
        run(*command, environment=environment, timeout=BOOTSTRAP_SECONDS)
    except RuntimeError as error:
        raise Impossible(f"no Debian for the base image: {error}") from error
    # As in the official image: `python` exists, and pip may install packages.
    (root / "usr" / "local" / "bin" / "python").symlink_to("/usr/bin/python3")
    for marker in root.glob("usr/lib/python3*/EXTERNALLY-MANAGED"):
        marker.unlink()
    shutil.copyfile(CERTIFICATES, root / CERTIFICATES.relative_to("/"))
    archive = work / "root.tar"
    without = [f"--exclude=./{name}" for name in ("dev/*", "usr/share/doc/*", "var/cache/apt/*")]
    run("tar", "-C", str(root), *without, "-cf", str(archive), ".")
    return archive


def _unpacked(package: str, work: Path) -> Path:
    """Return the files of a Debian package, without installing it."""
    try:
        apt("download", "-q", package, folder=work)
    except Impossible:
        apt("update", "-q")
        apt("download", "-q", package, folder=work)
    folder = work / package
    run("dpkg", "-x", str(next(work.glob(f"{package}_*.deb"))), str(folder))
    return folder


def save(file: Path, target: Path) -> None:
    """Copy a file to the cache atomically."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f"{target.name}.{os.getpid()}")
    shutil.copy2(file, partial)
    partial.replace(target)


def make_weaviate(path: Path, server: Path, box: Path) -> None:
    """Write an archive with the parts of the official image that the test uses."""
    with tarfile.open(path, "w") as archive:
        archive.add(server, "bin/weaviate")
        archive.add(box, "bin/busybox")
        for name in ("sh", "cat", "wget"):
            _add_link(archive, f"bin/{name}", "busybox")
        # The official server is static; this one uses the C library of this computer.
        for library in re.findall(r"(/\S+) \(0x", run("ldd", str(server))):
            archive.add(Path(library).resolve(), library.lstrip("/"))
        _add_folder(archive, "tmp")
        hosts = b"hosts: files dns\n"
        entry = tarfile.TarInfo("etc/nsswitch.conf")
        entry.size = len(hosts)
        archive.addfile(entry, io.BytesIO(hosts))


def _add_link(archive: tarfile.TarFile, name: str, target: str) -> None:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = tarfile.SYMTYPE, target
    archive.addfile(entry)


def _add_folder(archive: tarfile.TarFile, name: str) -> None:
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode = tarfile.DIRTYPE, 0o1777
    archive.addfile(entry)
