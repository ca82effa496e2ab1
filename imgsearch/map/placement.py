"""Places for new images on a map that exists: next to the images that they resemble."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from imgsearch.events import Counted, Listener, Note, Outcome, Stage, ignore
from imgsearch.map.records import Records
from imgsearch.map.saved import Saved
from imgsearch.stores.base import Collection, VectorQuery
from imgsearch.types import Condition, digest_bytes

_BLOCK = 1024
# Copies take places of neighbors.
_SLACK = 9
# openTSNE begins with the median, too: a mean would lie between groups.
_DECIDING = 5


def extend(
    collection: Collection,
    where: Sequence[Condition],
    records: Records,
    saved: Saved,
    listener: Listener = ignore,
) -> int:
    """Add the contents of `records` that a layout lacks to it, and return their number.

    Each is searched for, and placed at the median of the most similar ones that have a place; it
    also becomes a neighbor of those that it is close to. Nothing else moves.
    """
    rows = {digest: row for row, digest in enumerate(saved.digests)}
    new = [(digest, number) for digest, number in records.digests.items() if digest not in rows]
    if not new:
        return 0
    known, k = saved.numbers.shape
    rows |= {digest: known + at for at, (digest, _) in enumerate(new)}
    saved.digests += [digest for digest, _ in new]
    saved.places = np.concatenate([saved.places, np.zeros((len(new), 2), np.float32)])
    saved.numbers = np.concatenate([saved.numbers, np.full((len(new), k), -1, np.int32)])
    saved.scores = np.concatenate([saved.scores, np.full((len(new), k), -np.inf, np.float32)])
    listener(Stage(f"placing {len(new):,} new images"))
    listener(Counted(len(new)))
    for start in range(0, len(new), _BLOCK):
        part = new[start : start + _BLOCK]
        ids = [records.ids[records.first[number]] for _, number in part]
        vectors = collection.vectors_by_id(ids)
        asked = [at for at, each in enumerate(ids) if each in vectors]
        queries = [VectorQuery(vectors[ids[at]], k + _SLACK, where) for at in asked]
        for at, answer in zip(asked, collection.search_many(queries), strict=True):
            row = known + start + at
            own = part[at][0]
            found: dict[int, float] = {}
            for scored in answer:
                digest = digest_bytes(scored.record.sha256)
                if digest != own and digest in rows:
                    found.setdefault(rows[digest], scored.score)
            for other, score in list(found.items())[:k]:
                _insert(saved, row, other, score)
                _insert(saved, other, row, score)
        for record_id in ids:
            listener(Outcome(record_id, "answered"))
    _place(saved, known, listener)
    return len(new)


def _insert(saved: Saved, row: int, other: int, score: float) -> None:
    """Make a content a neighbor of another, if it is among the most similar ones."""
    scores, numbers = saved.scores[row], saved.numbers[row]
    if score <= scores[-1] or other in numbers:
        return
    at = int(np.searchsorted(-scores, -score, side="right"))
    scores[at + 1 :] = scores[at:-1].copy()
    numbers[at + 1 :] = numbers[at:-1].copy()
    scores[at], numbers[at] = score, other


def _place(saved: Saved, known: int, listener: Listener) -> None:
    """Place the contents from `known` on, those first whose neighbors have a place."""
    count = len(saved.digests)
    extent = max(float(np.ptp(saved.places[:known], axis=0).max()), 1e-3)
    noise = np.random.default_rng(known).normal(
        scale=extent / np.sqrt(known) / 10, size=(count - known, 2)
    )
    placed = np.zeros(count + 1, np.bool_)  # the last one stands for no neighbor
    placed[:known] = True
    waiting = np.arange(known, count)
    while len(waiting):
        ready = [row for row in waiting if placed[saved.numbers[row]].any()]
        if not ready:
            break
        for row in ready:
            near = saved.numbers[row][placed[saved.numbers[row]]][:_DECIDING]
            saved.places[row] = np.median(saved.places[near], axis=0) + noise[row - known]
        placed[ready] = True
        waiting = waiting[~placed[waiting]]
    if len(waiting):
        middle = saved.places[:known].mean(axis=0)
        radius = 1.1 * float(np.linalg.norm(saved.places[:known] - middle, axis=1).max())
        saved.places[waiting] = middle + np.array([radius, 0], np.float32) + noise[waiting - known]
        listener(
            Note(
                f"{len(waiting):,} new images resemble only each other: they lie at the right edge "
                "until the layout is made again"
            )
        )


def selected(saved: Saved, records: Records) -> Saved:
    """Return the layout of the contents of `records` alone, in their order."""
    rows = {digest: row for row, digest in enumerate(saved.digests)}
    chosen: NDArray[np.intp] = np.array([rows[digest] for digest in records.digests], np.intp)
    number = np.full(len(saved.digests) + 1, -1, np.int32)  # the last one stands for no neighbor
    number[chosen] = np.arange(len(chosen))
    return Saved(
        list(records.digests),
        saved.places[chosen],
        number[saved.numbers[chosen]],
        saved.scores[chosen],
    )
