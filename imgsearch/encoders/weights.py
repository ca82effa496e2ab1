"""Find the weights of a model: on this machine, in a file or at a URL, or by downloading them."""

import contextlib
import importlib.util
import os
import re
from pathlib import Path
from urllib.parse import unquote

from imgsearch.encoders import weights_cache
from imgsearch.encoders.catalog import ModelSpec
from imgsearch.encoders.download import fetch, is_url
from imgsearch.encoders.weights_cache import WeightsFile, file_sha256
from imgsearch.errors import CollectionMismatchError, Remedy, WeightsError
from imgsearch.events import Listener, ignore


def find_local(spec: ModelSpec) -> WeightsFile | None:
    """Return a model's own weights if they are on this machine, in a package or in a cache."""
    if spec.package and spec.package_file:
        return _in_package(spec.package, spec.package_file)
    if spec.url is None:
        return None
    return weights_cache.find_by_url(spec.url) or _in_torch_hub(spec.weights_name)


def get(
    spec: ModelSpec,
    given: str | None = None,
    digest: str | None = None,
    listener: Listener = ignore,
) -> WeightsFile:
    """Return the weights for a model: those `given` as a file or URL, else its own.

    With `digest`, the SHA-256 in a collection's stamp, the weights must have this digest. Raises
    WeightsError, or CollectionMismatchError if `given` has another digest.
    """
    if given is None:
        return _own(spec, listener) if digest is None else _by_digest(spec, digest, listener)
    found = _given(given, listener)
    if digest and found.sha256 != digest:
        raise CollectionMismatchError(
            f"the collection was made with the weights {digest[:12]}, and {given} is "
            f"{found.sha256[:12]}; their vectors cannot be compared",
            Remedy.LEAVE_OUT_WEIGHTS,
            Remedy.USE_OTHER_COLLECTION,
        )
    return found


def _own(spec: ModelSpec, listener: Listener) -> WeightsFile:
    if local := find_local(spec):
        return local
    if spec.url is None:
        raise WeightsError(
            f"{spec.name}: its weights belong to the package {spec.package}, which is not "
            "installed; install imgsearch-cli again"
        )
    try:
        return download(spec.url, listener)
    except WeightsError as error:
        raise WeightsError(str(error), Remedy.GIVE_WEIGHTS, Remedy.USE_BUNDLED_MODEL) from error


def _by_digest(spec: ModelSpec, digest: str, listener: Listener) -> WeightsFile:
    if stored := weights_cache.find(digest):
        return stored
    own = _digest_in_name(spec.weights_name) or ""
    if digest.startswith(own):  # otherwise, a download would be useless
        found = _own(spec, listener)
        if found.sha256 == digest:
            return found
        own = found.sha256
    raise WeightsError(
        f"the collection was made with other weights of {spec.name}, {digest[:12]}, than its own, "
        f"{own[:12]}, and they are no longer on this machine",
        Remedy.GIVE_WEIGHTS,
    )


def _given(given: str, listener: Listener) -> WeightsFile:
    if is_url(given):
        return weights_cache.find_by_url(_without_fragment(given)) or download(given, listener)
    path = Path(os.path.expanduser(given))
    if "://" in given and not path.exists():
        raise WeightsError(f"weights {given}: neither a file nor an http or https URL")
    # Stored, so that queries need neither the argument nor the original file.
    if stored := weights_cache.find(file_sha256(path), given):
        return stored
    with weights_cache.writing(listener) as folder:
        return weights_cache.store(folder, weights_cache.read(path), given)


def _in_package(module: str, file: str) -> WeightsFile | None:
    found = importlib.util.find_spec(module)
    for folder in (found.submodule_search_locations if found else None) or ():
        path = Path(folder) / file
        if path.is_file():
            return WeightsFile(path, file_sha256(path), str(path))
    return None


def _in_torch_hub(name: str) -> WeightsFile | None:
    """Return weights that torchvision has downloaded before, if their digest is right."""
    # As torch.hub.get_dir(), without importing torch.
    cache = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    home = os.environ.get("TORCH_HOME", os.path.join(cache, "torch"))
    path = Path(os.path.expanduser(home)) / "hub" / "checkpoints" / name
    wanted = _digest_in_name(name)
    if wanted is None or not os.path.isfile(path):
        return None
    try:
        digest = file_sha256(path)
    except WeightsError:
        return None
    return WeightsFile(path, digest, str(path)) if digest.startswith(wanted) else None


def _without_fragment(url: str) -> str:
    return url.partition("#")[0]


def _digest_in_name(name: str) -> str | None:
    """Return the digits in a name like `NAME-DIGITS.pth`.

    By PyTorch's convention, they are the first 8 or more digits of the SHA-256.
    """
    match = re.search(r"-([0-9a-f]{8,64})\.\w+$", name)
    # A date is not a digest: a user's file may be named mine-20260131.pth.
    return match[1] if match and not re.fullmatch(r"(19|20)\d{6}", match[1]) else None


def download(url: str, listener: Listener = ignore) -> WeightsFile:
    """Download weights and store them, unless they are stored already.

    If the name of the file contains a digest, the content must have it. Raises WeightsError.
    """
    url = _without_fragment(url)
    with weights_cache.writing(listener) as folder:
        if stored := weights_cache.find_by_url(url):  # another process has held the lock
            return stored
        name = unquote(url.partition("?")[0].rpartition("/")[2])
        with contextlib.closing(fetch(url, name, listener)) as chunks:
            file = weights_cache.store(folder, chunks, url, _digest_in_name(name))
        weights_cache.record_url(url, file.sha256)
    return file
