"""Remove the records of deleted files, unless a drive or a sync seems to be missing.

An unmounted drive or a failed sync leaves a folder most or all of whose files are missing. The
records of such a folder are retained: a folder with at least `MIN_MISSING` missing files that are
more than half of its files, and a source folder of which nothing is left.
"""

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain, islice

from imgsearch import objects
from imgsearch.events import Listener, Note, Outcome
from imgsearch.ingest.verify import WriteVerifier
from imgsearch.sites import Sites
from imgsearch.sources import ListedObjects
from imgsearch.stores.base import Collection, batched
from imgsearch.types import ImageRecord
from imgsearch.uris import MemberUrl, ObjectUrl, record_id, uri_to_path

MIN_MISSING = 100
"""A folder with fewer missing files is always pruned."""
# Maximum number of folders counted separately; beyond it the source is judged as a whole.
_MAX_FOLDERS = 200_000
# Maximum number of missing files to remember; if there are more, their records are read again.
_MAX_REMEMBERED = 100_000
_DELETED_AT_ONCE = 1000
# To list a folder takes a tenth of asking for each of its files, which pays for several of them if
# most of what it lists is asked for: so many entries for each file at most.
_WORTH_LISTING = 16
_LISTED_PER_FILE = 4


@dataclass(frozen=True, slots=True)
class UnprunedFolder:
    """A folder whose records are retained, with its numbers of missing and present files."""

    path: str
    missing: int
    present: int


@dataclass(frozen=True)
class Survey:
    """The number of missing files, and the folders to retain, none inside another.

    `missing_uris` are the URIs of the missing files; None if there are too many to remember.
    """

    missing: int
    retained: tuple[UnprunedFolder, ...] = ()
    missing_uris: tuple[str, ...] | None = ()

    def retains(self, path: str) -> bool:
        """Return whether a file is in one of the folders to retain."""
        retained = self._retained_paths
        return bool(retained) and any(folder in retained for folder in _ancestors(path))

    @cached_property
    def _retained_paths(self) -> frozenset[str]:
        return frozenset(folder.path for folder in self.retained)


class Pruner:
    """Removes the records of deleted files, and collects the folders that it leaves alone."""

    def __init__(
        self, listener: Listener, listed: ListedObjects, *, prune_missing: bool = False
    ) -> None:
        """`listed` are the objects that exist, `prune_missing` is that of `IngestOptions`."""
        self._listener = listener
        self._listed = listed
        self._prune_missing = prune_missing
        self.unpruned: list[UnprunedFolder] = []

    def prune(self, collection: Collection, folder: str, verifier: WriteVerifier) -> int:
        """Remove the records of deleted files under a folder. Returns their number."""
        sites = collection.sites
        prefix = sites.uri(folder).removesuffix("/") + "/"
        found = self.survey(lambda: collection.uris(prefix), sites, folder)
        return self._remove(collection, prefix, found, verifier)

    def prune_shard(self, collection: Collection, shard: str, verifier: WriteVerifier) -> int:
        """Remove the records of members that a shard, read to its end, does not have."""
        prefix = f"{collection.sites.qualified(shard)}#"
        found = survey(lambda: collection.uris(prefix), collection.sites, None, self._is_missing)
        # Nothing is retained: a shard that was read to its end is there.
        return self._remove(collection, prefix, replace(found, retained=()), verifier)

    def _remove(
        self, collection: Collection, prefix: str, found: Survey, verifier: WriteVerifier
    ) -> int:
        sites = collection.sites
        if not found.missing:
            return 0
        removed = 0
        remembered = found.missing_uris
        again = collection.uris(prefix) if remembered is None else [list(remembered)]
        for uris in chain.from_iterable(batched(each, _DELETED_AT_ONCE) for each in again):
            paths = _local_paths(uris, sites)
            deleted = [
                uri
                for uri, path in paths.items()
                if self._is_missing(path) and not found.retains(path)
            ]
            ids = [record_id(uri) for uri in deleted]
            count = collection.delete(ids)
            verifier.record_removal(ids, count)
            removed += count
            for uri in deleted:
                self._listener(Outcome(uri, "removed", "the file was deleted"))
        return removed

    def survey(
        self,
        uris: Callable[[], Iterable[list[str]]],
        sites: Sites,
        source: str | None = None,
    ) -> Survey:
        """Survey files as `survey` does, and report the folders that are retained."""
        found = survey(uris, sites, source, self._is_missing)
        if self._prune_missing:
            return replace(found, retained=())
        for folder in found.retained:
            self.unpruned.append(folder)
            total = folder.missing + folder.present
            self._listener(
                Note(
                    f"nothing pruned under {folder.path}: {folder.missing:,} of its {total:,} "
                    "images are missing; is a drive not mounted, or a sync incomplete?"
                )
            )
        return found

    def _is_missing(self, path: str) -> bool:
        return is_missing(path, self._listed)


def is_missing(path: str, listed: ListedObjects) -> bool:
    """Return whether a file, an object or a member is clearly not there.

    What was listed to the end is not asked for.
    """
    if member := MemberUrl.parse(path):
        if member.shard in listed.shards:
            return path not in listed
        path = member.shard_path
    if any(path.startswith(f"{folder}/") for folder in listed.folders):
        return path not in listed
    return _is_missing(path)


def survey(
    uris: Callable[[], Iterable[list[str]]],
    sites: Sites,
    source: str | None,
    is_missing: Callable[[str], bool],
) -> Survey:
    """Look for the files of records by their URIs.

    All files are below the folder `source`, or anywhere if it is None. The URIs are read once, and
    a second time if some folders could be retained and there are too many folders to count.
    """
    files_in: Counter[str] = Counter()  # by the folder that a file is directly in
    missing_in: Counter[str] = Counter()  # by all folders above a file
    remembered: list[str] = []
    missing = total = 0
    for batch in uris():
        total += len(batch)
        for folder, uri_of in _local_files(batch, sites):
            if len(files_in) <= _MAX_FOLDERS:
                files_in[folder] += len(uri_of)
            deleted = [uri_of[name] for name in _missing(folder, uri_of, is_missing)]
            missing += len(deleted)
            if deleted and len(missing_in) <= _MAX_FOLDERS:
                for each in (folder, *_ancestors(folder, source)):
                    missing_in[each] += len(deleted)
            if len(remembered) <= _MAX_REMEMBERED:
                remembered += deleted
    missing_uris = tuple(remembered) if len(remembered) <= _MAX_REMEMBERED else None
    crowded = len(missing_in) > _MAX_FOLDERS
    if source is not None and missing and (missing == total or crowded):
        whole = UnprunedFolder(source, missing, total - missing)
        return Survey(missing, (whole,), missing_uris)
    suspects = {folder: count for folder, count in missing_in.items() if count >= MIN_MISSING}
    if not suspects:
        return Survey(missing, (), missing_uris)
    if len(files_in) > _MAX_FOLDERS:
        totals = Counter[str]()
        for batch in uris():
            folders = Counter({each: len(uri_of) for each, uri_of in _local_files(batch, sites)})
            totals += _totals(folders, suspects, source)
    else:
        totals = _totals(files_in, suspects, source)
    present = {folder: totals[folder] - count for folder, count in suspects.items()}
    return Survey(missing, tuple(_retained(suspects, present)), missing_uris)


def _totals(files_in: Counter[str], suspects: dict[str, int], source: str | None) -> Counter[str]:
    """Return the files in the suspect folders and all below them."""
    totals: Counter[str] = Counter()
    for folder, count in files_in.items():
        for each in (folder, *_ancestors(folder, source)):
            if each in suspects:
                totals[each] += count
    return totals


def _local_paths(uris: Iterable[str], sites: Sites) -> dict[str, str]:
    """Return the paths of files and objects by URI, without files of other machines."""
    split = ((uri, *sites.split(uri)) for uri in uris if _is_place(uri))
    return {uri: uri_to_path(bare) for uri, site, bare in split if site is None}


def _local_files(uris: Iterable[str], sites: Sites) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield folders, each with the URIs of files and objects by name.

    Leaves out files of other machines.
    """
    grouped: defaultdict[str, list[str]] = defaultdict(list)
    for uri in uris:
        shard, separator, _ = uri.partition("#")
        grouped[shard + separator if separator else uri.rpartition("/")[0]].append(uri)
    for parent, within in grouped.items():
        site, bare = sites.split(within[0])
        if site is None and (member := MemberUrl.parse(bare)):
            yield member.shard_path, {sites.split(uri)[1]: uri for uri in within}
        elif site is None and _is_place(bare):
            start = len(parent) + 1
            yield (
                os.path.dirname(uri_to_path(bare)),
                {
                    os.path.basename(uri_to_path(uri)) if "%" in uri else uri[start:]: uri
                    for uri in within
                },
            )


def _missing(folder: str, names: dict[str, str], is_missing: Callable[[str], bool]) -> list[str]:
    """Return the names in a folder, the keys, that do not exist; those of members are URLs."""
    listed = set[str]()
    if len(names) >= _WORTH_LISTING:
        listed = _listed(folder, _LISTED_PER_FILE * len(names))
    # A name may be listed in another form than the one under which the file can be opened, and
    # only so many are listed: each of the others is asked for.
    others = [name for name in names if name not in listed]
    return [
        name
        for name in others
        if is_missing(name if MemberUrl.parse(name) else os.path.join(folder, name))
    ]


def _listed(folder: str, limit: int) -> set[str]:
    """Return the names of the first entries of a folder, none if it cannot be listed."""
    try:
        with os.scandir(folder) as entries:
            return {entry.name for entry in islice(entries, limit)}
    except OSError:
        return set()


def _retained(missing: dict[str, int], present: dict[str, int]) -> Iterator[UnprunedFolder]:
    """Yield the topmost folders to retain: first the empty ones, such as unmounted drives.

    The missing files of a retained folder do not count for the folders above it.
    """
    found: set[str] = set()
    for is_empty in (True, False):
        for folder in sorted(missing, key=len):
            suspect = not present[folder] if is_empty else missing[folder] > present[folder]
            above = list(_ancestors(folder))
            if suspect and missing[folder] >= MIN_MISSING and not found & {folder, *above}:
                found.add(folder)
                yield UnprunedFolder(folder, missing[folder], present[folder])
                for each in above:
                    if each in missing:
                        missing[each] -= missing[folder]


def _ancestors(path: str, source: str | None = None) -> Iterator[str]:
    """Yield the folders that a file is in, from its own up to `source` or the root."""
    if member := MemberUrl.parse(path):
        path = member.shard_path
        yield path
    while path != source and (folder := os.path.dirname(path)) != path:
        yield folder
        path = folder


def is_deleted(record: ImageRecord) -> bool:
    """Return whether the system says that a record's file does not exist.

    False if the file cannot be accessed, is on another machine, or has a URI of another kind: then
    nobody can know.
    """
    return record.site is None and _is_place(record.uri) and _is_missing(record.path)


def _is_place(uri: str) -> bool:
    if uri.startswith("file:"):
        return True
    return ObjectUrl.parse(uri) is not None or MemberUrl.parse(uri) is not None


def _is_missing(path: str) -> bool:
    if member := MemberUrl.parse(path):  # of a shard that is there, nobody has looked
        path = member.shard_path
    try:
        if url := ObjectUrl.parse(path):
            objects.describe(url)
        else:
            os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False
