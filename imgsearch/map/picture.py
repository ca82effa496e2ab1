"""A map as a picture, for papers. The only module that imports matplotlib."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imgsearch.errors import MissingLibraryError, Remedy
from imgsearch.map import palette
from imgsearch.map.clusters import Cluster
from imgsearch.map.records import Column

# A width of two columns of a journal, in inches, at the resolution that printers ask for.
_WIDTH, _HEIGHT, _DPI = 7.2, 5.4, 300
_LONGEST = 40
_LABELS = 20


def require() -> None:
    """Raise MissingLibraryError if matplotlib is not installed."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise MissingLibraryError(
            f"a picture of a map needs matplotlib, which cannot be imported ({error})",
            Remedy.INSTALL_MAP,
        ) from error


def draw(
    file: Path, places: NDArray[np.float32], column: Column | None, groups: Sequence[Cluster] = ()
) -> None:
    """Write a PNG of 2160 x 1620 pixels: records at `places` (records, 2), colored by a field.

    The `groups` are labeled, the largest first, where labels do not overlap. Raises OSError.
    """
    from matplotlib.colors import LinearSegmentedColormap
    from matplotlib.figure import Figure

    figure: Any = Figure(figsize=(_WIDTH, _HEIGHT), dpi=_DPI, layout="constrained")
    axes = figure.add_subplot()
    axes.set_aspect("equal")
    axes.set_axis_off()
    size = float(np.clip(8000 / max(len(places), 1), 0.3, 30))
    style: Any = {"s": size, "linewidths": 0, "alpha": 0.8}
    if column is None:
        axes.scatter(*places.T, color=_color(palette.COLORS[0]), **style)
    elif column.values is None:
        values = np.asarray(column.data)
        known = ~np.isnan(values)
        scale = LinearSegmentedColormap.from_list("scale", [_color(each) for each in palette.SCALE])
        axes.scatter(*places[~known].T, color=_color(palette.OTHER), **style)
        low, high = np.percentile(values[known], [1, 99]) if known.any() else (0, 1)
        drawn = axes.scatter(
            *places[known].T, c=values[known], cmap=scale, vmin=low, vmax=high, **style
        )
        figure.colorbar(drawn, ax=axes, shrink=0.5, label=_plain(column.name))
    else:
        for name, color, members in _classes(column):
            axes.scatter(*places[members].T, color=_color(color), label=name, **style)
        legend = axes.legend(
            loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, fontsize=7,
            title=_plain(column.name), title_fontsize=8,
        )  # fmt: skip
        for handle in legend.legend_handles:
            handle.set_sizes([20])
    for group in _apart(groups, places):
        axes.annotate(
            _plain(group.name), group.place, ha="center", va="center", fontsize=6,
            bbox={"boxstyle": "round,pad=0.2", "fc": "white", "ec": "none", "alpha": 0.7},
        )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a font has no glyph for every script
        figure.savefig(file, format="png", metadata={"Software": "imgsearch"})


def _classes(
    column: Column,
) -> list[tuple[str, tuple[int, int, int], NDArray[np.intp]]]:
    """Return the most frequent values, then all others, each with a color and its records."""
    codes = np.asarray(column.data, np.int64)
    values = column.values or []
    counts = np.bincount(codes[codes >= 0], minlength=len(values))
    order = np.argsort(-counts, kind="stable")
    most = len(palette.COLORS)
    top = order if len(order) <= most else order[: most - 1]
    found = [
        (
            f"{_plain(values[code])} ({counts[code]:,})",
            palette.COLORS[at],
            np.flatnonzero(codes == code),
        )
        for at, code in enumerate(top)
    ]
    rest = np.flatnonzero(~np.isin(codes, top))
    if len(rest):
        found.insert(0, (f"others ({len(rest):,})", palette.OTHER, rest))
    return found


def _apart(groups: Sequence[Cluster], places: NDArray[np.float32]) -> list[Cluster]:
    """Return the largest groups whose labels do not overlap."""
    extent = np.ptp(places, axis=0).max() if len(places) else 1.0
    kept: list[Cluster] = []
    for group in groups[:_LABELS]:
        (x, y) = group.place
        free = all(
            abs(x - other.place[0]) > 0.16 * extent or abs(y - other.place[1]) > 0.03 * extent
            for other in kept
        )
        if free:
            kept.append(group)
    return kept


def _color(color: tuple[int, int, int]) -> tuple[float, ...]:
    return tuple(each / 255 for each in color)


def _plain(text: str) -> str:
    """Return a text that matplotlib draws as it is: `$` would begin a formula."""
    text = text.encode("utf-8", "replace").decode().replace("$", r"\$")
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
