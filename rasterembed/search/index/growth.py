"""Decide how the vector index of a collection grows: by a new segment, by dropping scenes, or by a rebuild."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rasterembed.collection.collection import Collection
from rasterembed.collection.scene_row import SceneState
from rasterembed.collection.table import TABLE_VERSION
from rasterembed.search.engines.engine import IndexUnusableError, NoIndexReason
from rasterembed.search.index.description import Segment, VectorIndex
from rasterembed.search.index.opening import open_arrow_file
from rasterembed.search.index.segment_writing import SCENES_SCHEMA
from rasterembed.search.vector_files import VectorFiles

MAX_SEGMENTS = 8
"""Largest number of segments. A query asks each of them, and each costs about a tenth of a millisecond."""

MAX_DROPPED = 0.2
"""Largest share of rows of dropped scenes. A query still reads their codes, so it takes a quarter longer at most."""

MAX_GROWTH = 2.0
"""Largest number of rows, as a multiple of the rows of the first segment. The lists of `ivf` were trained for the first
segment. With twice as many rows, a query reads twice as many of them, and a rebuild costs no more than all earlier
builds together."""

MAX_IMBALANCE = 3.0
"""Largest imbalance of the lists, as a multiple of the imbalance of the first segment. A query then takes up to three
times as long, because new scenes differ from those for which the lists were trained."""

SMALL_SEGMENT_ROWS = 50_000
"""Largest number of rows of a segment that is written again together with new scenes. This takes about a second, and
many runs with few scenes do not lead to many segments."""


class RebuildReason(StrEnum):
    """Reason why an index is built again as a whole, though it could grow."""

    MANY_DROPPED = "too many of its rows belong to scenes that are gone or changed"
    MANY_SEGMENTS = "it has too many segments"
    GREW = "the table has more than twice as many rows as its first segment"
    IMBALANCED = "its lists are out of balance: the new scenes differ from the first ones"
    UNKNOWN_SCENES = "its scenes are not known: it was not built by a run, or the catalogue is newer than the table"


@dataclass(frozen=True)
class Growth:
    """How an index becomes that of the present table."""

    kept: tuple[Segment, ...]
    """Segments that stay. Their lists of dropped scenes are the new ones."""
    added: Mapping[str, str]
    """Digests of the scenes for the new segment, by dataset id. Empty: no new segment is needed."""
    added_rows: int
    """Number of rows of these scenes."""
    new_scenes: int
    """Number of scenes that are new or changed."""
    dropped_scenes: int
    """Number of scenes of the old index that are gone or changed."""

    def describe(self) -> str:
        """Return what happened to the scenes as text for people."""
        return f"scenes that are new or changed: {self.new_scenes}; that are gone or changed: {self.dropped_scenes}"


@dataclass(frozen=True)
class _Scene:
    """A scene of the table."""

    digest: str
    rows: int


def scenes_of(files: VectorFiles) -> dict[str, str] | None:
    """Return the digests of the scenes of a table by dataset id.

    Returns:
        The digests. None for a dataset, and if the catalogue has other scenes than the table.

    Raises:
        DataError: if the catalogue cannot be read.
    """
    if files.collection is None or not files.collection.table_is_current:
        return None
    return {name: scene.digest for name, scene in _scenes(files.collection).items()}


def plan_growth(files: VectorFiles, index: VectorIndex) -> Growth | RebuildReason:
    """Compare the scenes of an index with those of the table, and decide how the index grows.

    Args:
        files: files of a table.
        index: the index of an earlier state of the table.

    Raises:
        IndexUnusableError: if a scenes file is missing, damaged or foreign.
        StoreError: if the store refuses or does not answer.
        DataError: if the catalogue cannot be read.
    """
    listed = all(segment.scenes_file is not None for segment in index.segments)
    if files.collection is None or not files.collection.table_is_current or not listed:
        return RebuildReason.UNKNOWN_SCENES
    scenes = _scenes(files.collection)
    in_segment = {segment.rows_file.name: _scenes_of_segment(files, segment) for segment in index.segments}
    found: set[str] = set()
    kept: list[Segment] = []
    gone = 0
    for segment in index.segments:
        has = in_segment[segment.rows_file.name]
        live = {name for name in has if name not in segment.dropped}
        unchanged = {name for name in live - found if name in scenes and scenes[name] == has[name]}
        gone += len(live - unchanged)
        found |= unchanged
        dropped = tuple(sorted(set(has) - unchanged))
        if unchanged:
            rows = sum(has[name].rows for name in dropped)
            kept.append(segment.model_copy(update={"dropped": dropped, "dropped_rows": rows}))
    added = set(scenes) - found
    new = len(added)
    if added:
        # Small segments are written again together with the new scenes, so that their number stays small.
        while len(kept) > 1 and kept[-1].rows <= max(SMALL_SEGMENT_ROWS, sum(scenes[name].rows for name in added)):
            segment = kept.pop()
            added |= set(in_segment[segment.rows_file.name]) - set(segment.dropped)
    added_rows = sum(scenes[name].rows for name in added)
    reason = _why_rebuild(kept, added_rows)
    if reason is None and added_rows + sum(segment.live_rows for segment in kept) != files.rows:
        reason = RebuildReason.UNKNOWN_SCENES
    return reason or Growth(tuple(kept), {name: scenes[name].digest for name in added}, added_rows, new, gone)


def _why_rebuild(kept: list[Segment], added_rows: int) -> RebuildReason | None:
    """Return the reason why an index should not grow, or None if it should."""
    rows = sum(segment.rows for segment in kept)
    if not kept or sum(segment.dropped_rows for segment in kept) > MAX_DROPPED * rows:
        return RebuildReason.MANY_DROPPED
    if rows + added_rows > MAX_GROWTH * kept[0].rows:
        return RebuildReason.GREW
    if len(kept) + bool(added_rows) > MAX_SEGMENTS:
        return RebuildReason.MANY_SEGMENTS
    if imbalance(kept) > MAX_IMBALANCE * kept[0].codes.imbalance:
        return RebuildReason.IMBALANCED
    return None


def imbalance(segments: list[Segment]) -> float:
    """Return an upper bound of the imbalance of the lists of all segments together.

    The imbalance of lists with the sizes n is `len(n) * sum(n**2) / sum(n)**2`. Its square root times the number of
    rows is therefore proportional to the length of the vector n, and lengths obey the triangle inequality.

    Args:
        segments: segments with the same lists, at least one.
    """
    rows = np.array([segment.rows for segment in segments], np.float64)
    roots = np.sqrt([segment.codes.imbalance for segment in segments])
    return float((rows @ roots / rows.sum()) ** 2)


def _scenes(collection: Collection) -> dict[str, _Scene]:
    """Return the scenes with rows in the table, by dataset id, as the catalogue knows them."""
    ready = collection.catalogue.filter(states=[SceneState.READY]).table
    times = pc.cast(ready["datetime"], pa.int64()).to_pylist()
    columns = (ready[name].to_pylist() for name in ("id", "fingerprint", "rows"))
    version = f"{TABLE_VERSION} {collection.configuration.fingerprint}"
    return {
        name: _Scene(hashlib.sha256(f"{version} {name} {fingerprint} {time}".encode()).hexdigest(), rows)
        for name, fingerprint, rows, time in zip(*columns, times, strict=True)
        if rows
    }


def _scenes_of_segment(files: VectorFiles, segment: Segment) -> dict[str, _Scene]:
    """Read the scenes file of a segment.

    Raises:
        IndexUnusableError: if the file is missing, damaged, or not one that a build can have written.
    """
    if segment.scenes_file is None:
        raise IndexUnusableError(NoIndexReason.FOREIGN_CONTENT)
    table = open_arrow_file(files, segment.scenes_file, SCENES_SCHEMA, None)
    columns = (table[name].to_pylist() for name in SCENES_SCHEMA.names)
    scenes = {name: _Scene(digest, rows) for name, digest, rows in zip(*columns, strict=True)}
    if len(scenes) != len(table) or sum(scene.rows for scene in scenes.values()) != segment.rows:
        raise IndexUnusableError(NoIndexReason.FOREIGN_CONTENT)
    return scenes
