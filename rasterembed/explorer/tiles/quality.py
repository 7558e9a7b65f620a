"""The quality of tiles: embedded, skipped and why, and scenes that the quality report calls outliers or repetitions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from rasterembed.collection.collection import Collection
from rasterembed.collection.scene_row import SceneState
from rasterembed.dataset.dataset import Dataset
from rasterembed.dataset.tile_index import TileStatus
from rasterembed.errors import DataError
from rasterembed.explorer.tiles.colouring import Colouring, by_class
from rasterembed.explorer.tiles.legend import ClassesLegend, Colour
from rasterembed.explorer.tiles.shapes import Rings, Shapes, rings_of_column
from rasterembed.explorer.tiles.tile_table import TileTable, made_up_rings
from rasterembed.number_text import agreeing, counted
from rasterembed.qa.collection_run import current_report
from rasterembed.raster.skip_reason import SkipReason

_EMBEDDED, _OUTLIER, _REPETITION = (
    "Embedded",
    "Embedded, of a scene that is an outlier",
    "Embedded, of a repeated scene",
)
_TILE_COLOURS = ("#648fff", "#ffb000", "#dc267f")
"""Colours of embedded tiles. Source: IBM's palette for people with colour blindness, https://davidmathlogic.com."""

_OTHER = len(SkipReason)
"""Number of the reasons that this version does not know. The others have their places in `SkipReason`."""

_SKIPPED_COLOURS = ("#4d4d4d", "#a6a6a6", "#b2182b", "#d9d9d9", "#7f7f7f")
"""Colours of skipped tiles: a colour for each `SkipReason`, and one for other reasons."""

_MOST_SKIPPED, _MOST_INDEXES = 1_000_000, 200
"""Largest number of skipped tiles that are shown, and of tile indexes that are read for them."""


@dataclass(frozen=True)
class Skipped:
    """Skipped tiles, m of them, with their outlines."""

    shapes: Shapes
    """The outlines. Their tiles are numbered from 0 to m - 1."""
    scene: NDArray[np.int32]
    """Number of each tile's dataset in `TileTable.scenes`, or -1 if none of its tiles is embedded, shape (m,)."""
    colouring: Colouring


@dataclass(frozen=True)
class QualityColours:
    """The colours of embedded and of skipped tiles by their quality."""

    embedded: Colouring
    """Its legend has the skipped tiles too."""
    skipped: Skipped

    @property
    def nbytes(self) -> int:
        """Memory in bytes."""
        skipped = self.skipped
        return self.embedded.nbytes + skipped.shapes.nbytes + skipped.scene.nbytes + skipped.colouring.nbytes


def quality_of(table: TileTable) -> QualityColours:
    """Return the quality of all tiles. The tile indexes are read for the skipped tiles.

    Raises:
        DataError: if a tile index cannot be read.
        StoreError: if the store refuses or does not answer.
    """
    embedded, notes = _embedded(table)
    skipped, left_out = _skipped(table)
    assert isinstance(embedded.legend, ClassesLegend)
    assert isinstance(skipped.colouring.legend, ClassesLegend)
    if left_out:
        notes.append(f"{counted(left_out, 'further skipped tile')} {agreeing(left_out, 'is', 'are')} not shown.")
    classes = [*embedded.legend.classes, *skipped.colouring.legend.classes]
    shown = [one for one in classes if one.tiles]
    legend = ClassesLegend(colour=Colour.QA, label=Colour.QA.label, classes=shown, note=" ".join(notes))
    return QualityColours(Colouring(embedded.codes, embedded.palette, legend), skipped)


def _embedded(table: TileTable) -> tuple[Colouring, list[str]]:
    """Return the colours of the embedded tiles, and notes for people."""
    kind, notes = np.zeros(len(table.scenes), np.uint8), []
    owner = table.owner
    if isinstance(owner, Collection):
        report = current_report(owner.store, owner.layout, owner.configuration, owner.catalogue)
        if report is None:
            notes.append("The collection has no current quality report, so outliers are not known.")
        else:
            repeated, outliers = {one.id for one in report.duplicates}, {one.id for one in report.outliers}
            for number, scene in enumerate(table.scenes):
                kind[number] = 1 if scene.dataset_id in outliers else 2 if scene.dataset_id in repeated else 0
    labels = (_EMBEDDED, _OUTLIER, _REPETITION)
    return by_class(Colour.QA, kind[table.dataset], labels, _TILE_COLOURS), notes


def _skipped(table: TileTable) -> tuple[Skipped, int]:
    """Return the skipped tiles, and the number of those that are not shown."""
    numbers = {scene.dataset_id: number for number, scene in enumerate(table.scenes)}
    rings, reasons, scenes, shown = [], [np.empty(0, np.int64)], [], 0
    for dataset in _datasets(table.owner):
        found, own = _skipped_of(dataset, table, shown)
        rings.append(found)
        reasons.append(own)
        scenes.append(np.full(len(own), numbers.get(dataset.id, -1), np.int32))
        shown += len(own)
    minimum = _minimum(table.owner)
    texts = [*(reason.describe(minimum) for reason in SkipReason), "for another reason"]
    labels = [f"Skipped, {text}" for text in texts]
    colouring = by_class(Colour.QA, np.concatenate(reasons), labels, _SKIPPED_COLOURS)
    shapes = Shapes(Rings.concatenate(rings), np.arange(shown))
    scene = np.concatenate([np.empty(0, np.int32), *scenes])
    return Skipped(shapes, scene, colouring), _all_skipped(table.owner) - shown


def _skipped_of(dataset: Dataset, table: TileTable, first: int) -> tuple[Rings, NDArray[np.int64]]:
    """Return the outlines of the skipped tiles of a dataset, and the number of each tile's reason.

    Args:
        dataset: the dataset.
        table: the tiles of the view.
        first: number of the first skipped tile.
    """
    rows = dataset.tiles()
    rows = rows.filter(pc.equal(rows["status"], TileStatus.SKIPPED.value)).slice(0, _MOST_SKIPPED - first)
    rows = rows.combine_chunks()
    encoded = rows["reason"].combine_chunks().dictionary_encode()
    known = [*(_number_of(reason) for reason in encoded.dictionary.to_pylist()), _OTHER]
    reasons = np.array(known)[pc.fill_null(encoded.indices, len(known) - 1).to_numpy(zero_copy_only=False)]
    if table.made_up_place is not None:
        return made_up_rings(rows, table.made_up_place), reasons
    try:
        return rings_of_column(rows["geometry"], first), reasons
    except ValueError as error:
        raise DataError(
            f"dataset {dataset.id!r}: a footprint of its tile index cannot be read ({error}): "
            f"run `rasterembed datasets verify {dataset.id}`"
        ) from error


def _datasets(owner: Dataset | Collection) -> Iterator[Dataset]:
    """Yield the datasets whose skipped tiles are shown."""
    if isinstance(owner, Dataset):
        if owner.manifest.skipped:
            yield owner
        return
    ready = owner.catalogue.filter(states=[SceneState.READY]).table
    ready = ready.filter(pc.greater(ready["skipped"], 0)).slice(0, _MOST_INDEXES)
    total = 0
    for dataset_id, skipped in zip(ready["id"].to_pylist(), ready["skipped"].to_pylist(), strict=True):
        total += skipped
        if total > _MOST_SKIPPED:
            return
        yield Dataset.open(owner.store, dataset_id)


def _all_skipped(owner: Dataset | Collection) -> int:
    if isinstance(owner, Dataset):
        return owner.manifest.skipped
    return int(pc.sum(owner.catalogue.filter(states=[SceneState.READY]).table["skipped"]).as_py() or 0)


def _minimum(owner: Dataset | Collection) -> float:
    selection = owner.plan.selection if isinstance(owner, Dataset) else owner.configuration.selection
    return selection.min_valid_fraction


def _number_of(reason: str | None) -> int:
    """Return the number of a reason from a tile index. A reason that this version does not know has the last one."""
    try:
        return list(SkipReason).index(SkipReason(reason or ""))
    except ValueError:
        return _OTHER
