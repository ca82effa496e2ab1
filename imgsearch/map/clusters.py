"""Groups of images on a map, named by what is typical of them. Only this module imports sklearn."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from imgsearch.map.records import Column, Records

_FEWEST = 5
# The time grows with the square: 20,000 take some 10 seconds.
_MOST_CLUSTERED = 20_000
# A value is typical of a group if most of its images have it, and it tells them from others.
_SHARE = 0.6
_TELLING = 0.1
_NAMES = 2
# Fields with more values, such as titles, name nothing.
_MOST_VALUES = 1000


@dataclass(frozen=True, slots=True)
class Cluster:
    """A group: its name, the number of its records, and a place in its middle."""

    name: str
    size: int
    place: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Clusters:
    """Groups, the largest first; `number` of shape (records,) is that of each record, or -1."""

    groups: Sequence[Cluster]
    number: NDArray[np.int32]


def find_clusters(records: Records, places: NDArray[np.float32]) -> Clusters:
    """Return the groups of contents at `places` of shape (contents, 2), by HDBSCAN.

    It finds regions that are denser than what surrounds them, of any shape and number; images
    between them belong to none. On the map, and not among the vectors, so that groups are what a
    reader sees. With more than 20,000 contents a sample decides, and the others join the group of
    the nearest one.
    """
    of_content = _labels(places)
    number = of_content[records.content]
    order = np.argsort(-np.bincount(number[number >= 0], minlength=of_content.max(initial=-1) + 1))
    rank = np.empty(len(order) + 1, np.int32)
    rank[order] = np.arange(len(order))
    rank[-1] = -1
    number = rank[number]
    groups = []
    taken: dict[str, int] = {}
    for each, name in enumerate(_names(records.columns, number, len(order))):
        taken[name] = taken.get(name, 0) + 1
        unique = name if taken[name] == 1 else f"{name} ({taken[name]})"
        members = np.flatnonzero(number == each)
        x, y = np.median(places[records.content[members]], axis=0)
        groups.append(Cluster(unique, len(members), (float(x), float(y))))
    return Clusters(groups, number)


def _labels(places: NDArray[np.float32]) -> NDArray[np.int32]:
    """Return the number of the group of each content, -1 for none."""
    count = len(places)
    if count < 2 * _FEWEST:
        return np.full(count, -1, np.int32)
    from sklearn.cluster import HDBSCAN
    from sklearn.neighbors import KNeighborsClassifier

    chosen = np.arange(count)
    if count > _MOST_CLUSTERED:
        chosen = np.sort(np.random.default_rng(0).choice(count, _MOST_CLUSTERED, replace=False))
    smallest = max(_FEWEST, round(math.sqrt(len(chosen)) / 2))
    model = HDBSCAN(min_cluster_size=smallest, min_samples=min(10, smallest), copy=True)
    found = np.asarray(model.fit_predict(places[chosen]), np.int32)
    if count == len(chosen):
        return found
    nearest = KNeighborsClassifier(1).fit(places[chosen], found)
    return np.asarray(nearest.predict(places), np.int32)


def _names(columns: Sequence[Column], number: NDArray[np.int32], count: int) -> Iterator[str]:
    """Yield the name of each group: the values that tell its images from the others.

    The first is the value whose share in the group exceeds that in all records the most. The next
    must do so among the records with the first value, so that it adds something.
    """
    named_by = [
        (column.values, np.asarray(column.data, np.int32))
        for column in columns
        if column.kind == "str" and column.values and len(column.values) <= _MOST_VALUES
    ]
    for each in range(count):
        members = number == each
        among = np.ones(len(number), np.bool_)
        named: list[str] = []
        used: set[int] = set()
        while len(named) < _NAMES:
            telling, code, at = max(
                (
                    (*_typical(data, members, among), at)
                    for at, (_, data) in enumerate(named_by)
                    if at not in used
                ),
                default=(0.0, -1, -1),
            )
            if telling < _TELLING:
                break
            used.add(at)
            values, data = named_by[at]
            named.append(values[code])
            among &= data == code
        yield ", ".join(named) or f"group {each + 1}"


def _typical(
    data: NDArray[np.int32], members: NDArray[np.bool_], among: NDArray[np.bool_]
) -> tuple[float, int]:
    """Return how much the most frequent value of the members tells them from others, and its code.

    That is share * log(share / share among the others), the value's part of the Kullback-Leibler
    divergence; 0 where less than most members have the value.
    """
    inside = data[members]
    known = inside[inside >= 0]
    if not len(known):
        return 0.0, -1
    counts = np.bincount(known)
    code = int(counts.argmax())
    share = counts[code] / len(inside)
    if share < _SHARE:
        return 0.0, -1
    overall = max(float((data[among] == code).mean()), 1e-9) if among.any() else 1.0
    return float(share * math.log(max(share / overall, 1e-9))), code
