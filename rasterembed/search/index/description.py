"""The description of a vector index, `index.json`: its segments, their files, and the measured recall.

The vector index is a cache. It may be missing, stale or damaged at any time. Search then uses the exact scan. A build
writes the description last, so readers see the old index or the new one.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from rasterembed.dataset.plan_checks import MAX_DIMENSIONS
from rasterembed.dataset.selection import VectorDtype
from rasterembed.raster.grid import MAX_TILES
from rasterembed.search.engines.engine import CodesInfo, IndexUnusableError, NoIndexReason
from rasterembed.search.index_options import BuiltEngine
from rasterembed.search.vector_files import VectorFiles
from rasterembed.store.layout import IndexFileKind, index_file_kind
from rasterembed.store.storage import MAX_OBJECT_BYTES
from rasterembed.store.stored_model import MAX_BYTES

_MOST_SEGMENTS = 64
"""Largest number of segments that is believed."""

_MOST_ROWS = 10**12
"""Largest number of rows that is believed."""

_ROW_BYTES = 8192
"""Largest mean size of a row in a file without vectors that is believed, in bytes. Most rows take about 250 bytes."""

_FILE_BYTES = 16 * 2**20
"""Size in bytes that is believed of a file with hardly any rows."""

_Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class SegmentFile(BaseModel):
    """One file of a vector index. It is in the folder of `index.json`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(max_length=100)
    """Name of the file. The model that holds this one checks its kind."""
    bytes: int = Field(ge=1, le=MAX_OBJECT_BYTES)
    """Size of the file in bytes."""
    sha256: _Digest
    """SHA-256 digest of the whole file."""


def _check_kind(file: SegmentFile, kind: IndexFileKind) -> None:
    """Refuse a file whose name is not one that a build gives to files of this kind."""
    if index_file_kind(file.name) != kind:
        raise ValueError(f"the name of the file of kind {kind} is impossible")


class Segment(BaseModel):
    """An immutable part of a vector index: some rows, their vectors, and the engine's codes of the vectors."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rows: int = Field(ge=1, le=_MOST_ROWS)
    """Number of rows, with those of dropped scenes."""
    dtype: VectorDtype
    """Type of the stored vectors."""
    rows_file: SegmentFile
    """Arrow file with the columns of the answer and of the filters."""
    vectors_file: SegmentFile
    """The stored vectors, one after the other."""
    codes_file: SegmentFile
    """The engine's codes of the vectors."""
    scenes_file: SegmentFile | None = None
    """Arrow file with the scenes of the segment and their digests. None for the index of a dataset."""
    codes: CodesInfo
    """The parameters of the codes, and the measured recall."""
    dropped: tuple[str, ...] = ()
    """Ids of scenes in the segment that are gone or changed. Their rows are never in an answer."""
    dropped_rows: int = Field(default=0, ge=0, le=_MOST_ROWS)
    """Number of rows of the dropped scenes."""

    @property
    def files(self) -> tuple[SegmentFile, ...]:
        """All files of the segment."""
        scenes = () if self.scenes_file is None else (self.scenes_file,)
        return (self.rows_file, self.vectors_file, self.codes_file, *scenes)

    @property
    def live_rows(self) -> int:
        """Number of rows that can be in an answer."""
        return self.rows - self.dropped_rows

    @model_validator(mode="after")
    def _check(self) -> Self:
        _check_kind(self.rows_file, "rows")
        _check_kind(self.vectors_file, "vectors")
        _check_kind(self.codes_file, "codes")
        if self.scenes_file is not None:
            _check_kind(self.scenes_file, "scenes")
        if self.dropped_rows >= self.rows or bool(self.dropped) != bool(self.dropped_rows):
            raise ValueError("the number of dropped rows is impossible")
        return self


class HnswDatabase(BaseModel):
    """The database of the engine `vss`, and the parameters of its HNSW index. It has the rows and the vectors too."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: SegmentFile
    """The DuckDB database."""
    m: int = Field(ge=1, le=MAX_DIMENSIONS)
    """Number of links of a vector in the graph (HNSW's M)."""
    ef_construction: int = Field(ge=1, le=MAX_DIMENSIONS)
    """Number of candidates that the build considered for each vector."""
    ef_search: int = Field(ge=1, le=MAX_DIMENSIONS)
    """Default number of candidates in a search. Recall was measured with this number."""
    duckdb: str = Field(max_length=100)
    """Version of DuckDB that built the index."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        _check_kind(self.file, "hnsw")
        return self


class VectorIndex(BaseModel):
    """The content of `index.json`. It has segments, or the database of the engine `vss`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[2] = 2
    """Version of `index.json`. Version 0.1 wrote descriptions of HNSW databases, without a version. They are read."""
    engine: BuiltEngine
    """Engine that the index is for."""
    digest: _Digest
    """Digest of the vectors in the index: the dataset's fingerprint, or the signature of the collection's table."""
    rows: int = Field(ge=1, le=_MOST_ROWS)
    """Number of vectors that can be in an answer."""
    dimensions: int = Field(ge=1, le=MAX_DIMENSIONS)
    """Length of a vector."""
    metric: Literal["cosine"] = "cosine"
    lists: int | None = Field(default=None, ge=1, le=2**20)
    """Number of lists that the options asked for. None: the number of rows decided."""
    segments: tuple[Segment, ...] = Field(default=(), max_length=_MOST_SEGMENTS)
    """The segments, in the order in which they were built. Empty for the engine `vss`."""
    database: HnswDatabase | None = None
    """The database of the engine `vss`. None for the other engines."""
    recall: float = Field(ge=0.0, le=1.0)
    """Share of the exact nearest neighbours that the index finds, 0 to 1. The vector itself is not a neighbour."""
    recall_at: int = Field(ge=1, le=MAX_TILES)
    """Number of neighbours of each vector in the measurement of recall."""
    recall_sample: int = Field(ge=0, le=MAX_TILES)
    """Number of vectors in the measurement of recall. 0: the engine is exact, and nothing was measured."""
    build_seconds: float = Field(ge=0.0, allow_inf_nan=False)
    """Elapsed time of the last build in seconds."""
    built: datetime
    """End of the last build, UTC."""

    @property
    def files(self) -> tuple[SegmentFile, ...]:
        """All files of the index, without `index.json`."""
        database = () if self.database is None else (self.database.file,)
        return (*database, *(file for segment in self.segments for file in segment.files))

    @property
    def bytes(self) -> int:
        """Size of all files in bytes, without `index.json`."""
        return sum(file.bytes for file in self.files)

    def _largest(self) -> Iterator[tuple[SegmentFile, int]]:
        """Yield each file, and the largest size in bytes that a build can give it.

        A file of a bucket is downloaded as a whole. A wrong size must not fill the disk.
        """
        vector = 4 * self.dimensions
        if self.database is not None:  # DuckDB keeps the vectors twice, and up to 256 links of each.
            yield self.database.file, _FILE_BYTES + self.rows * (4 * vector + 2 * _ROW_BYTES)
        for segment in self.segments:
            for file in (segment.rows_file, segment.scenes_file):
                if file is not None:
                    yield file, _FILE_BYTES + segment.rows * _ROW_BYTES
            yield segment.vectors_file, segment.rows * vector
            yield segment.codes_file, _FILE_BYTES + (segment.rows + segment.codes.lists) * (vector + 64)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.engine == "vss") != (self.database is not None) or (self.engine == "vss") == bool(self.segments):
            raise ValueError("an index has either segments or a database")
        if self.segments and self.rows != sum(segment.live_rows for segment in self.segments):
            raise ValueError("the number of rows is not that of the segments")
        for file, most in self._largest():
            if file.bytes > most:
                raise ValueError(f"a file with so few rows cannot have {file.bytes} bytes")
        names = [file.name for file in self.files]
        if len(set(names)) != len(names):
            raise ValueError("two files have the same name")
        return self


class _FirstVersion(BaseModel):
    """The content of `index.json` as version 0.1 wrote it."""

    fingerprint: str
    file: str
    bytes: int
    sha256: str
    rows: int
    m: int
    ef_construction: int
    ef_search: int
    recall: float
    recall_at: int
    recall_sample: int
    build_seconds: float
    duckdb: str
    built: datetime

    def index(self, dimensions: int) -> VectorIndex:
        """Return the content in the present form.

        Raises:
            ValidationError: if a value is impossible.
        """
        database = {name: getattr(self, name) for name in ("m", "ef_construction", "ef_search", "duckdb")}
        database["file"] = {"name": self.file, "bytes": self.bytes, "sha256": self.sha256}
        kept = ("rows", "recall", "recall_at", "recall_sample", "build_seconds", "built")
        return VectorIndex.model_validate(
            {"engine": "vss", "digest": self.fingerprint, "dimensions": dimensions, "database": database}
            | {name: getattr(self, name) for name in kept}
        )


def read_index(files: VectorFiles) -> VectorIndex:
    """Read the description of a vector index. The files of the index are not looked at.

    Raises:
        IndexUnusableError: if there is no index, if the description cannot be read, or if the index holds other vectors
            than the files.
        StoreError: if the store refuses or does not answer.
    """
    index = read_any_index(files)
    if index.digest != files.digest or index.rows != files.rows or index.dimensions != files.dimensions:
        raise IndexUnusableError(NoIndexReason.STALE)
    return index


def read_any_index(files: VectorFiles) -> VectorIndex:
    """Read the description of a vector index, which may hold other vectors than the files. See `read_index`."""
    data = files.store.read(files.layout.vector_index_info, MAX_BYTES + 1)
    if data is None:
        raise IndexUnusableError(NoIndexReason.ABSENT)
    if len(data) > MAX_BYTES:
        raise IndexUnusableError(NoIndexReason.INFO_UNREADABLE)
    try:
        if b'"version"' in data:
            return VectorIndex.model_validate_json(data)
        return _FirstVersion.model_validate_json(data).index(files.dimensions)
    except ValidationError as error:
        raise IndexUnusableError(NoIndexReason.INFO_UNREADABLE) from error
