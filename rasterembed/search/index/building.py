"""Build the vector index of a dataset, or of a collection's table.

A build writes new files beside the old ones, under names that no other build has. Then it writes `index.json`, which
switches readers to the new files. Last, it deletes the files that only the old `index.json` names.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

import duckdb

from rasterembed.errors import DataError
from rasterembed.number_text import agreeing, counted
from rasterembed.search.engines.codes import CodesParameters
from rasterembed.search.engines.engine import RECALL_AT, CodesName, IndexUnusableError, NoIndexReason
from rasterembed.search.engines.vss import VssEngine
from rasterembed.search.index.description import Segment, VectorIndex, read_any_index, read_index
from rasterembed.search.index.growth import Growth, RebuildReason, plan_growth, scenes_of
from rasterembed.search.index.hnsw_building import write_hnsw
from rasterembed.search.index.local_files import DEAD_AFTER_S, note_built
from rasterembed.search.index.opening import open_codes_of, open_index
from rasterembed.search.index.segment_writing import write_segment
from rasterembed.search.index_options import FLAT_MAX_ROWS, BuiltEngine, VectorIndexOptions
from rasterembed.search.vector_files import VectorFiles
from rasterembed.store.layout import name_of

_KEEP_LISTS = 0.5
"""Share of `FLAT_MAX_ROWS` above which `auto` keeps an index for the engine `ivf`. Without this, a table that shrinks
and grows around the limit would get a new index each time."""

_ATTEMPTS = 3
"""Number of attempts to grow an index that other builds replace at the same time."""


class BuildOutcome(StrEnum):
    """Outcome of `build_vector_index`."""

    BUILT = "built"
    """A new index was built from all rows."""
    GREW = "grew"
    """The index has a new segment with the rows of new scenes, or some of its scenes were dropped, or both."""
    CURRENT = "current"
    """The existing index is up to date and was kept."""
    NOT_WANTED = "not_wanted"
    """The options turn the index off."""
    TOO_FEW_ROWS = "too_few_rows"
    """There are fewer rows than `VectorIndexOptions.index_min_rows`, or none."""
    NO_EXTENSION = "no_extension"
    """The extension `vss` cannot be loaded."""
    OUT_OF_MEMORY = "out_of_memory"
    """The build for the engine `vss` needed too much memory."""


@dataclass(frozen=True)
class BuildResult:
    """The outcome of `build_vector_index`, and the index after the call."""

    outcome: BuildOutcome
    index: VectorIndex | None
    """The index. None if there is none."""
    detail: str = ""
    """Reason why the index was built or is missing, or how it has grown, as text for people."""
    removed: bool = False
    """Whether an existing index was removed, because the options allow none."""

    def describe(self) -> str:
        """Return the outcome as text for people."""
        match self.outcome:
            case BuildOutcome.BUILT:
                return f"built, because {self.detail}"
            case BuildOutcome.GREW:
                return f"brought up to date ({self.detail})"
            case BuildOutcome.CURRENT:
                return "the index is current"
            case _:
                return f"{'the index was removed' if self.removed else 'no index'}: {self.detail}"


class _IndexChangedError(Exception):
    """Another build has replaced the index from which this build grew."""


def build_vector_index(files: VectorFiles, options: VectorIndexOptions) -> BuildResult:
    """Build a vector index, if it is missing or out of date.

    An index is up to date if it has the vectors of the files and the parameters in `options`. The index of a table
    grows if it has the vectors of an earlier state of the table: see `rasterembed.search.index.growth`. Otherwise, a
    new index is built from all rows. Readers see the old index until the new one is complete. With `never`,
    an old index is removed. With `auto`, an old index of few rows stays, with its engine and parameters, and is built
    again if it is damaged.

    Args:
        files: the files with the vectors.
        options: options that decide whether an index is built, and the parameters of the index.

    Raises:
        DataError: if a file cannot be read, or if a vector has a number that is not finite. If `options.index` is
            `always`, this error is also raised if `vss` is wanted and cannot be loaded or has too little memory.
        StoreError: if the disk is full or the store refuses.

    Example:
        >>> from rasterembed.dataset.dataset import Dataset
        >>> from rasterembed.store.object_store import ObjectStore
        >>> files = VectorFiles.of_dataset(Dataset.open(ObjectStore(root="embeddings"), "scene"))
        >>> build_vector_index(files, VectorIndexOptions(index="always")).describe()
        'built, because there is no index'
    """
    old, problem = _read(files)
    if options.index == "never":
        _remove_index(files, old)
        return BuildResult(BuildOutcome.NOT_WANTED, None, "the options turn it off", old is not None)
    few = options.index == "auto" and files.rows < options.index_min_rows
    absent = problem is not None and problem.reason is NoIndexReason.ABSENT
    if not files.rows or (few and absent):
        _remove_index(files, old)
        least = options.index_min_rows if files.rows else 1
        return BuildResult(
            BuildOutcome.TOO_FEW_ROWS,
            None,
            f"{counted(files.rows, 'row')} {agreeing(files.rows, 'is', 'are')} below {least}",
            old is not None,
        )
    if few and old is not None:
        options = _as_before(options, old)
    engine = _engine(files, options, old)
    why_build = str(problem or "")
    if engine == "vss":
        return _build_hnsw(files, options, old, why_build)
    for _ in range(_ATTEMPTS):
        if old is not None:
            why_build = _why_other(old, engine, options) or ""
        if old is None or why_build:
            break
        try:
            if old.digest == files.digest and old.rows == files.rows:
                _check_files(files, old)
                _remove_dead_files(files)
                return BuildResult(BuildOutcome.CURRENT, old)
            growth = plan_growth(files, old)
            if isinstance(growth, RebuildReason):
                why_build = growth.value
                break
            return BuildResult(BuildOutcome.GREW, _grow(files, old, growth), growth.describe())
        except IndexUnusableError as error:
            why_build = str(error)
            break
        except _IndexChangedError:
            old, problem = _read(files)
            why_build = str(problem or "")
    return BuildResult(BuildOutcome.BUILT, _build(files, options, engine, old), why_build)


def update_vector_index(files: VectorFiles) -> BuildResult | None:
    """Bring an index up to date with its own engine and parameters, if there is one and this takes seconds.

    An index for the engine `vss` stays stale, because it would be built again as a whole.

    Args:
        files: the files with the vectors.

    Returns:
        The outcome. None if there is no index, or if it is for the engine `vss`.

    Raises:
        DataError: see `build_vector_index`.
        StoreError: see `build_vector_index`.
    """
    old, _ = _read(files)
    if old is None or old.engine == "vss":
        return None
    options = VectorIndexOptions(index="always", index_engine=old.engine, index_lists=old.lists)
    return build_vector_index(files, options)


def _read(files: VectorFiles) -> tuple[VectorIndex | None, IndexUnusableError | None]:
    """Return the stored index, which may be stale. Return None and the reason if it is absent or cannot be read."""
    try:
        return read_any_index(files), None
    except IndexUnusableError as error:
        return None, error


def _as_before(options: VectorIndexOptions, old: VectorIndex) -> VectorIndexOptions:
    """Return options that keep the engine and the parameters of an index, unless the options name an engine.

    An index of few rows was asked for by an earlier run, or was built when there were more rows.
    """
    if options.index_engine != "auto":
        return options
    kept: dict[str, str | int | None] = {"index_engine": old.engine, "index_lists": old.lists}
    if old.database is not None:
        database = old.database
        kept |= {
            "index_m": database.m,
            "index_ef_construction": database.ef_construction,
            "index_ef_search": database.ef_search,
        }
    return options.model_copy(update=kept)


def _engine(files: VectorFiles, options: VectorIndexOptions, old: VectorIndex | None) -> BuiltEngine:
    """Return the engine that the options want."""
    if options.index_engine != "auto":
        return options.index_engine
    most = FLAT_MAX_ROWS * (_KEEP_LISTS if old is not None and old.engine == "ivf" else 1.0)
    return "ivf" if files.rows > most else "flat"


def _check_files(files: VectorFiles, index: VectorIndex) -> None:
    """Check the files of an index with segments. On S3, only their sizes are checked, and nothing is downloaded.

    Raises:
        IndexUnusableError: if a file is missing or damaged.
        StoreError: if the store refuses or does not answer.
    """
    if not files.store.is_s3:
        open_index(files, index).close()
        return
    sizes = files.store.sizes(files.layout.vector_index_folder)
    if any(sizes.get(file.name) != file.bytes for file in index.files):
        raise IndexUnusableError(NoIndexReason.FILE_DAMAGED)


def _why_other(old: VectorIndex, engine: CodesName, options: VectorIndexOptions) -> str | None:
    """Return the reason why an index does not fit the options, or None if it does."""
    if old.engine != engine:
        return f"the earlier index was for the engine {old.engine}"
    if engine == "ivf" and old.lists != options.index_lists:
        return "the earlier index had other parameters"
    return None


def _build(files: VectorFiles, options: VectorIndexOptions, engine: CodesName, old: VectorIndex | None) -> VectorIndex:
    """Build an index with one segment from all rows, and replace the old index by it."""
    started = time.monotonic()
    lists = options.index_lists if engine == "ivf" else None
    segment = write_segment(files, CodesParameters(engine, files.name, lists), scenes_of(files), files.rows)
    index = _description(files, engine, (segment,), lists, started)
    _switch(files, index, old)
    return index


def _grow(files: VectorFiles, old: VectorIndex, growth: Growth) -> VectorIndex:
    """Add a segment for the new scenes, drop the scenes that are gone, and replace the description.

    Raises:
        IndexUnusableError: if a segment that stays is damaged.
        _IndexChangedError: if another build has replaced the index.
    """
    started = time.monotonic()
    segments, engine = list(growth.kept), growth.kept[0].codes.engine
    kept = old.model_copy(update={"segments": growth.kept})
    _check_files(files, kept)
    if growth.added:
        first = open_codes_of(files, kept, segments[0]) if engine == "ivf" else None
        try:
            parameters = CodesParameters(engine, files.name, old.lists, like=first)
            segments.append(write_segment(files, parameters, growth.added, growth.added_rows))
        finally:
            if first is not None:
                first.close()
    index = _description(files, engine, tuple(segments), old.lists, started)
    if _read(files)[0] != old:
        _delete_files_of(files, index)
        raise _IndexChangedError
    _switch(files, index, old)
    # Another build may have replaced the old index in the moment before the switch, and deleted its files. Some of them
    # are files of this index too.
    names = files.store.sizes(files.layout.vector_index_folder)
    if any(file.name not in names for file in index.files):
        raise _IndexChangedError
    return index


def _description(
    files: VectorFiles, engine: CodesName, segments: tuple[Segment, ...], lists: int | None, started: float
) -> VectorIndex:
    """Return the description of an index with segments. Its recall is the mean of the segments by their rows."""
    found = sum(
        segment.live_rows * (1.0 if segment.codes.recall is None else segment.codes.recall) for segment in segments
    )
    return VectorIndex(
        engine=engine,
        digest=files.digest,
        rows=files.rows,
        dimensions=files.dimensions,
        lists=lists,
        segments=segments,
        recall=min(found / files.rows, 1.0),
        recall_at=segments[0].codes.recall_at,
        recall_sample=sum(segment.codes.recall_sample for segment in segments),
        build_seconds=round(time.monotonic() - started, 3),
        built=datetime.now(UTC),
    )


def _stored_hnsw(files: VectorFiles) -> VectorIndex:
    """Return the description of the stored database of the engine `vss`, after a check of the database.

    A database that another user or machine built is not opened. Its size and its digest are checked.

    Raises:
        IndexUnusableError: if there is no such database, or if it is stale or damaged.
    """
    try:
        engine = VssEngine(files)
    except IndexUnusableError as error:
        if error.reason is NoIndexReason.NOT_OWN:
            return read_index(files)
        raise
    engine.close()
    return engine.index


def _build_hnsw(
    files: VectorFiles, options: VectorIndexOptions, old: VectorIndex | None, why_build: str
) -> BuildResult:
    """Build the database of the engine `vss`, unless the stored one is up to date."""
    try:
        index = _stored_hnsw(files)
    except IndexUnusableError as error:
        why_build = why_build or (
            f"the earlier index was for the engine {error.detail}"
            if error.reason is NoIndexReason.OTHER_ENGINE
            else str(error)
        )
    else:
        database = index.database
        wanted = (options.index_m, options.index_ef_construction, options.index_ef_search)
        if database is not None and (database.m, database.ef_construction, database.ef_search) == wanted:
            _remove_dead_files(files)
            return BuildResult(BuildOutcome.CURRENT, index)
        why_build = "the earlier index had other parameters"
    started = time.monotonic()
    try:
        database, recall, sample = write_hnsw(files, options)
    except IndexUnusableError as error:
        if error.reason is not NoIndexReason.NO_EXTENSION:
            raise  # The index that was just built cannot be used. This is a bug.
        if options.index == "always":
            raise DataError(
                f"{error}: install the wheel duckdb-extension-vss of the same version, or take another index engine"
            ) from error
        return BuildResult(BuildOutcome.NO_EXTENSION, None, str(error))
    except DataError as error:
        # With `auto`, too little memory is no error: there is then no index, and search uses the exact scan.
        if options.index == "always" or not isinstance(error.__cause__, duckdb.OutOfMemoryException):
            raise
        return BuildResult(BuildOutcome.OUT_OF_MEMORY, None, str(error))
    index = VectorIndex(
        engine="vss",
        digest=files.digest,
        rows=files.rows,
        dimensions=files.dimensions,
        database=database,
        recall=recall,
        recall_at=RECALL_AT,
        recall_sample=sample,
        build_seconds=round(time.monotonic() - started, 3),
        built=datetime.now(UTC),
    )
    _switch(files, index, old)
    return BuildResult(BuildOutcome.BUILT, index, why_build)


def _switch(files: VectorFiles, index: VectorIndex, old: VectorIndex | None) -> None:
    """Write the description of an index, and delete the files that only older indexes have.

    Args:
        files: the files whose vectors are in the index.
        index: the new index.
        old: the index that the build began with. Another build may have replaced it.
    """
    replaced, _ = _read(files)
    files.store.write(files.layout.vector_index_info, index.model_dump_json(indent=1).encode())
    _delete_files_of(files, old)
    if replaced != old:
        _delete_files_of(files, replaced)
    note_built(files, index)
    _remove_dead_files(files)


def _remove_index(files: VectorFiles, old: VectorIndex | None) -> None:
    """Delete the index."""
    files.store.delete(files.layout.vector_index_info)
    _delete_files_of(files, old)
    _remove_dead_files(files)


def _delete_files_of(files: VectorFiles, old: VectorIndex | None) -> None:
    """Delete the files of an index, except those that the stored index has too."""
    for file in old.files if old is not None else ():
        # Another build may replace the index between two deletions. It may have grown from the same old index.
        stored = _read(files)[0]
        if stored is None or file not in stored.files:
            files.store.delete(files.layout.vector_index_file(file.name))


def _remove_dead_files(files: VectorFiles) -> None:
    """Delete the files that killed builds left in the folder of the index.

    A file that no index names may belong to a build that is still at work. It is deleted when it is a day old.
    """
    layout = files.layout
    files.store.clear_scratch(layout.vector_index_folder, older_than_s=DEAD_AFTER_S)
    index, _ = _read(files)
    named = {name_of(layout.vector_index_info), *(file.name for file in (index.files if index is not None else ()))}
    for key, info in list(files.store.find(layout.vector_index_folder)):
        if name_of(key) not in named and time.time() - info.modified > DEAD_AFTER_S:
            files.store.delete(key)
