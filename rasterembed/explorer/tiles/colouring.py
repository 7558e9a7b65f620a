"""Colourings: a colour for each tile, with its legend.

The ramps are from matplotlib, whose brightness grows evenly, so people with colour blindness can read them too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

import matplotlib
import numpy as np
from matplotlib import colors
from numpy.typing import NDArray

from rasterembed.explorer.tiles.legend import (
    ClassesLegend,
    Colour,
    Legend,
    LegendClass,
    RampLegend,
    RgbLegend,
    Stop,
)
from rasterembed.explorer.tiles.tile_table import TileTable
from rasterembed.number_text import agreeing, counted
from rasterembed.qa.vector_statistics import Principal, principal_components
from rasterembed.search.batch.all_tiles import refuse_without_direction
from rasterembed.search.batch.cluster import find_classes
from rasterembed.search.engines.workers import run_all, shares
from rasterembed.search.index.stored_rows import StoredVectors

MIN_CLASSES, MAX_CLASSES, DEFAULT_CLASSES = 2, 12, 8
"""Smallest, largest and default number of classes. People cannot tell more than twelve colours apart."""

_CLASS_COLOURS = (
    "#009f81", "#ff5aaf", "#8400cd", "#ffc33b", "#008df9", "#e20134",
    "#00fccf", "#a40122", "#ff6e3a", "#00c2f9", "#9f0162", "#ffb2fd",
)  # fmt: skip
"""Colours of the classes, the largest class first. Source: Martin Krzywinski, "Color palettes for color blindness",
https://mk.bcgsc.ca/colorblind, palette of 12 colours, in another order."""

_UNKNOWN = "#9a9a9a"
"""Colour of tiles without a value."""

_STOPS = 9
"""Number of stops of a ramp in its legend."""

_SAMPLE_NUMBERS, _LEAST_SAMPLE, _MOST_SAMPLE = 2**22, 1024, 16_384
"""Intended number of values in the sample of vectors for the principal components, and bounds of its rows. The work for
the components grows with the cube of the smaller side, so long vectors have fewer rows."""

_PROJECTED_ROWS = 1024
"""Number of vectors that are projected at once. They fit into a processor's cache."""

_RAMP_CODES = 254
"""Number of steps of a ramp. Code 0 is transparent, and code 255 is for tiles without a value."""


@dataclass(frozen=True)
class Colouring:
    """Colours of n tiles."""

    codes: NDArray[np.uint8]
    """Number of each tile's colour in the palette, shape (n,); or red, green and blue of each tile, shape (n, 3)."""
    palette: NDArray[np.uint8]
    """Red, green and blue of the colours 1 to 255, shape (256, 3). Colour 0 is transparent."""
    legend: Legend

    @property
    def nbytes(self) -> int:
        """Memory of the colours in bytes."""
        return self.codes.nbytes + self.palette.nbytes


_NO_PALETTE = np.zeros((256, 3), np.uint8)


def validity_colouring(table: TileTable) -> Colouring:
    """Return colours by the share of valid pixels."""
    return _ramp(Colour.VALIDITY, table.tiles.valid_fraction, 0.0, 1.0, "cividis", "share", "{:.0%}".format)


def date_colouring(table: TileTable) -> Colouring:
    """Return colours by the time of acquisition."""
    times = table.times[table.dataset]
    known = table.times[~np.isnan(table.times)]
    low, high = (float(known.min()), float(known.max())) if len(known) else (None, None)
    unknown = int(np.isnan(times).sum())
    note = f"{counted(unknown, 'tile')} of an unknown date {agreeing(unknown, 'is', 'are')} grey." if unknown else ""
    return _ramp(Colour.DATE, times, low, high, "plasma", "time", _day, note)


def similarity_colouring(similarity: NDArray[np.float32]) -> Colouring:
    """Return colours by the similarity to a query.

    The ramp begins at the median, because most tiles of an image are a little similar to each other. So the few tiles
    that are very similar stand out.

    Args:
        similarity: cosine similarity of each tile, shape (n,).
    """
    known = similarity[np.isfinite(similarity)]
    low, high = (float(np.median(known)), float(known.max())) if len(known) else (None, None)
    note = "Tiles of less than median similarity have the darkest colour."
    return _ramp(Colour.SIMILARITY, similarity, low, high, "inferno", "similarity", "{:.3f}".format, note)


def class_colouring(table: TileTable, classes: int) -> Colouring:
    """Return colours by the class of k-means. Class 0 is the largest, as in `cluster`.

    Args:
        table: the tiles.
        classes: number of classes, `MIN_CLASSES` to `MAX_CLASSES`. If there are fewer tiles, there are fewer classes.

    Raises:
        DataError: if a vector has no direction. k-means cannot use such a vector.
    """
    refuse_without_direction(table.tiles)
    found = find_classes(table.tiles, min(classes, table.count), seed=0)
    labels = [f"Class {number}" for number in range(len(found.sizes))]
    note = "Classes of similar vectors by k-means, the largest first."
    return by_class(Colour.CLUSTER, found.number, labels, _CLASS_COLOURS, note)


def by_class(
    colour: Colour, number: NDArray[np.integer], labels: Sequence[str], colours: Sequence[str], note: str = ""
) -> Colouring:
    """Return colours by a class.

    Args:
        colour: the kind of colouring.
        number: class of each tile, shape (n,).
        labels: text of each class for people.
        colours: colour of each class, #rrggbb.
        note: remark for people.
    """
    palette = _NO_PALETTE.copy()
    palette[1 : len(labels) + 1] = [_rgb(name) for name in colours[: len(labels)]]
    counts = np.bincount(number, minlength=len(labels))
    classes = [
        LegendClass(label=label, colour=name, tiles=int(count))
        for label, name, count in zip(labels, colours, counts, strict=False)
    ]
    legend = ClassesLegend(colour=colour, label=colour.label, classes=classes, note=note)
    return Colouring((np.asarray(number) + 1).astype(np.uint8), palette, legend)


def pca_colouring(table: TileTable) -> Colouring:
    """Return the first three principal components of the vectors as red, green and blue.

    The components are those of the quality report, but of a sample of the tiles of this view. The range of each colour
    goes from the 2nd to the 98th percentile.
    """
    vectors = table.tiles.vectors
    principal = principal_components(_sample(vectors))
    width = principal.high - principal.low
    # A component that is absent or constant has no range. It gets the middle value of its colour.
    flat = width <= 0
    scale = np.where(flat, 0.0, 255.0 / np.where(flat, 1.0, width)).astype(np.float32)
    offset = np.where(flat, 127.5, -principal.low * scale).astype(np.float32)

    def shades(rows: range) -> NDArray[np.uint8]:
        blocks = (vectors.values[start : min(start + _PROJECTED_ROWS, rows.stop)] for start in rows[::_PROJECTED_ROWS])
        parts = [np.rint(_projections(block, principal) * scale + offset) for block in blocks]
        return np.concatenate([np.clip(np.nan_to_num(part), 0, 255).astype(np.uint8) for part in parts])

    codes = np.concatenate(run_all([partial(shades, rows) for rows in shares(vectors.rows)]))
    channels = [
        f"{name}: component {number}, {share:.0%} of the variance"
        for number, (name, share) in enumerate(zip(("Red", "Green", "Blue"), principal.explained, strict=True), start=1)
    ]
    note = "Similar colours are similar vectors. In another view, the same colour means something else."
    return Colouring(
        codes, _NO_PALETTE, RgbLegend(colour=Colour.PCA, label=Colour.PCA.label, channels=channels, note=note)
    )


def _sample(vectors: StoredVectors) -> NDArray[np.float32]:
    """Return unit vectors of a random sample of the rows. The same rows are chosen each time."""
    count = int(np.clip(_SAMPLE_NUMBERS // vectors.dimensions, _LEAST_SAMPLE, _MOST_SAMPLE))
    numbers = np.arange(vectors.rows)
    if count < vectors.rows:
        numbers = np.sort(np.random.default_rng(0).choice(vectors.rows, count, replace=False))
    return np.nan_to_num(vectors.unit(numbers))


def _projections(stored: NDArray[np.generic], principal: Principal) -> NDArray[np.float32]:
    """Return the centred projections of stored vectors, scaled to length 1, shape (rows, 3)."""
    block = np.asarray(stored, np.float32)
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        # The projections are divided by the lengths, and not the vectors, which have a hundred times the numbers.
        lengths = np.sqrt(np.einsum("ij,ij->i", block, block))[:, None]
        # NumPy's own sums start no threads. Those of a matrix product would wait for each other at every small block.
        products = [np.einsum("ij,j->i", block, axis) for axis in principal.axes.astype(np.float32)]
        values = np.stack(products, axis=1) / lengths - principal.centre.astype(np.float32)
    return np.asarray(values, np.float32)


def _ramp(
    colour: Colour,
    values: NDArray[np.floating],
    low: float | None,
    high: float | None,
    name: str,
    unit: str,
    text: Callable[[float], str],
    note: str = "",
) -> Colouring:
    """Return colours along a ramp of matplotlib. A value that is not a number is grey."""
    ramp = (matplotlib.colormaps[name](np.linspace(0, 1, _RAMP_CODES))[:, :3] * 255).round().astype(np.uint8)
    palette = _NO_PALETTE.copy()
    palette[1 : _RAMP_CODES + 1], palette[255] = ramp, _rgb(_UNKNOWN)
    codes = np.full(len(values), 255, np.uint8)
    stops: list[Stop] = []
    if low is not None and high is not None:
        known = np.isfinite(values)
        share = (values[known] - low) / (high - low) if high > low else np.ones(int(known.sum()))
        codes[known] = 1 + np.rint(np.clip(share, 0.0, 1.0) * (_RAMP_CODES - 1)).astype(np.uint8)
        shares = np.linspace(0, 1, _STOPS)
        shown = ramp[np.rint(shares * (_RAMP_CODES - 1)).astype(int)]
        stops = [
            Stop(value=low + share * (high - low), colour=colors.to_hex(rgb / 255))
            for share, rgb in zip(shares.tolist(), shown, strict=True)
        ]
    legend = RampLegend.model_validate(
        {
            "colour": colour,
            "label": colour.label,
            "stops": stops,
            "low": low,
            "high": high,
            "low_text": "" if low is None else text(low),
            "high_text": "" if high is None else text(high),
            "unit": unit,
            "note": note,
        }
    )
    return Colouring(codes, palette, legend)


def _rgb(name: str) -> NDArray[np.uint8]:
    rgb: NDArray[np.uint8] = np.rint(np.array(colors.to_rgb(name)) * 255).astype(np.uint8)
    return rgb


def _day(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).date().isoformat()
