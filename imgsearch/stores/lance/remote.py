"""A store in object storage: S3, Google Cloud Storage, Azure.

There are no locks, renames or deletions of folders. A lease stands for the lock. A dataset exists
as long as it has a version, so the newest one is deleted when all that would mislead is gone.
"""

import contextlib
import datetime
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice

from imgsearch import objects
from imgsearch.objects import ObjectInfo
from imgsearch.stores.lance.folders import REPLACEMENT, SUFFIX, Work, WriteLock
from imgsearch.stores.lance.lease import Lease
from imgsearch.uris import ObjectUrl

# Readers on other machines are not known. An answer takes seconds; a scan of all records, as a
# copy, may need its version for longer.
AGE = datetime.timedelta(hours=1)


class RemoteDatasetFolder:
    """The objects of one dataset, all below one URL."""

    writers_may_overlap = True

    def __init__(self, url: ObjectUrl, leases: Mapping[str, Lease], name: str) -> None:
        self._url = url
        self._leases = leases
        self._collection = name
        self.url = str(url)

    @property
    def options(self) -> dict[str, str]:
        return objects.lance_options(self._url)

    def has_versions(self) -> bool:
        return any(map(_is_version, objects.list_objects(self._url / "_versions")))

    def size(self) -> int:
        return sum(each.size for each in objects.list_objects(self._url))

    def read_attachment(self, name: str) -> str | None:
        found = objects.read_text(self._attachment(name))
        return found[0] if found else None

    def write_attachment(self, name: str, text: str | None) -> None:
        if text is None:
            objects.delete_objects([self._attachment(name)])
        else:
            objects.write_text(self._attachment(name), text)

    def remove_attachments(self) -> None:
        _delete_all(self._url / "_attached")

    def remove(self) -> None:
        self.remove_attachments()
        versions = [each.url for each in objects.list_objects(self._url / "_versions")]
        # The newest is the first by name.
        objects.delete_objects(versions[1:])
        objects.delete_objects(versions[:1])
        _delete_all(self._url)

    @contextlib.contextmanager
    def reading(self, work: Work) -> Iterator[None]:  # noqa: ARG002
        yield

    def age_to_keep(self) -> datetime.timedelta:
        return AGE

    def check_lock(self) -> None:
        if lease := self._leases.get(self._collection):
            lease.check()

    def _attachment(self, name: str) -> ObjectUrl:
        return self._url / "_attached" / f"{name}.json"


class RemoteStoreFolder:
    """All objects below one URL."""

    def __init__(self, url: ObjectUrl) -> None:
        self._url = url
        self._leases: dict[str, Lease] = {}
        self.url = str(url)

    def names(self) -> list[str]:
        folders = objects.list_folders(self._url)
        found = (each.removesuffix(SUFFIX) for each in folders if each.endswith(SUFFIX))
        return [name for name in found if self.dataset(name).has_versions()]

    def dataset(self, name: str) -> RemoteDatasetFolder:
        url = self._url / (name + SUFFIX)
        return RemoteDatasetFolder(url, self._leases, name.removesuffix(REPLACEMENT))

    def make(self) -> None:
        """Do nothing: there are no folders."""

    def drop(self, names: Sequence[str]) -> None:
        for name in names:
            self.dataset(name).remove()

    def clean(self, name: str) -> None:
        for each in (self.dataset(name), self.dataset(name + REPLACEMENT)):
            if not each.has_versions():
                each.remove()

    def lock(self, name: str) -> WriteLock:
        lease = Lease(self._url / f".{name}.lease", name, self.url)
        return _Registered(lease, self._leases, name)


class _Registered:
    """A lease that the folders of its collection check once it is acquired."""

    def __init__(self, lease: Lease, leases: dict[str, Lease], name: str) -> None:
        self._lease = lease
        self._leases = leases
        self._name = name

    def acquire(self, timeout: float) -> None:
        self._lease.acquire(timeout)
        self._leases[self._name] = self._lease

    def release(self) -> None:
        del self._leases[self._name]
        self._lease.release()


def _delete_all(url: ObjectUrl) -> None:
    found = (each.url for each in objects.list_objects(url))
    while part := list(islice(found, 1000)):
        objects.delete_objects(part)


def _is_version(info: ObjectInfo) -> bool:
    return info.url.key.endswith(".manifest")
