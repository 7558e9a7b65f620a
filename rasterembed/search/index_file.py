"""The files of a vector index: the database, and `index.json`, which holds the name of the database.

The vector index is a cache. It may be missing, stale or damaged at any time. Search then uses the exact scan.
"""

from __future__ import annotations

import hashlib
import shutil
from datetime import datetime
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rasterembed.dataset.plan_checks import MAX_DIMENSIONS
from rasterembed.errors import os_errors
from rasterembed.raster.grid import MAX_TILES
from rasterembed.search.engines.engine import IndexUnusableError, NoIndexReason
from rasterembed.search.vector_files import VectorFiles
from rasterembed.store.layout import VECTOR_INDEX_NAME
from rasterembed.store.local_cache import cache_folder
from rasterembed.store.storage import MAX_OBJECT_BYTES
from rasterembed.store.stored_model import MAX_BYTES
from rasterembed.store.write_aside import new_file


class VectorIndexInfo(BaseModel):
    """The content of `index.json`: the file, the parameters and the measured recall of a vector index."""

    model_config = ConfigDict(frozen=True)

    fingerprint: str = Field(pattern="^[0-9a-f]{64}$")
    """Digest of the vectors in the index: the dataset's fingerprint, or the signature of the collection's table."""
    file: str = Field(pattern=VECTOR_INDEX_NAME)
    """File name of the database. The database is in the folder of `index.json`."""
    bytes: int = Field(ge=1, le=MAX_OBJECT_BYTES)
    """Size of the database in bytes."""
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    """SHA-256 digest of the whole database."""
    rows: int = Field(ge=1, le=MAX_TILES)
    """Number of vectors in the index."""
    metric: Literal["cosine"] = "cosine"
    m: int = Field(ge=1, le=MAX_DIMENSIONS)
    """Number of links of a vector in the graph (HNSW's M)."""
    ef_construction: int = Field(ge=1, le=MAX_DIMENSIONS)
    """Number of candidates that the build considered for each vector."""
    ef_search: int = Field(ge=1, le=MAX_DIMENSIONS)
    """Default number of candidates in a search. Recall was measured with this number."""
    recall: float = Field(ge=0.0, le=1.0)
    """Share of the exact nearest neighbours that the index finds, 0 to 1. The vector itself is not a neighbour."""
    recall_at: int = Field(ge=1, le=MAX_TILES)
    """Number of neighbours of each vector in the measurement of recall."""
    recall_sample: int = Field(ge=0, le=MAX_TILES)
    """Number of vectors in the measurement of recall."""
    build_seconds: float = Field(ge=0.0, allow_inf_nan=False)
    """Elapsed time of the build in seconds, without the measurement of recall."""
    duckdb: str
    """Version of DuckDB that built the index."""
    built: datetime
    """End of the build, UTC."""


def read_info(files: VectorFiles) -> VectorIndexInfo:
    """Read the description of a vector index.

    Raises:
        IndexUnusableError: if there is no index, if the description cannot be read, or if the index holds other vectors
            than the files.
    """
    data = files.store.read(files.layout.vector_index_info, MAX_BYTES)
    if data is None:
        raise IndexUnusableError(NoIndexReason.ABSENT)
    try:
        info = VectorIndexInfo.model_validate_json(data)
    except ValidationError as error:
        raise IndexUnusableError(NoIndexReason.INFO_UNREADABLE) from error
    if info.fingerprint != files.digest or info.rows != files.rows:
        raise IndexUnusableError(NoIndexReason.STALE)
    return info


def local_database(files: VectorFiles, info: VectorIndexInfo) -> Path:
    """Return the path of the index's database on this machine. A database on S3 is downloaded once.

    Raises:
        IndexUnusableError: if the database is missing, or if its size or sha256 differs from `info`.
        StoreError: if the store refuses or does not answer, or if the local file cannot be written.
    """
    store = files.store
    key = files.layout.vector_index_file(info.file)
    path = _download(files, key, info) if store.is_s3 else Path(store.uri(key))
    # The digest must be checked before DuckDB opens the file. If vss reads a damaged block, DuckDB throws a checksum
    # error at a place where exceptions are forbidden. This ends the whole process.
    if not _is_undamaged(path, info):
        if store.is_s3:
            path.unlink(missing_ok=True)
        raise IndexUnusableError(NoIndexReason.FILE_DAMAGED)
    return path


def _is_undamaged(path: Path, info: VectorIndexInfo) -> bool:
    if not path.is_file() or path.stat().st_size != info.bytes:
        return False
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest() == info.sha256


def _download(files: VectorFiles, key: str, info: VectorIndexInfo) -> Path:
    """Return the path of the database in the user's cache folder. Download the database if the cache lacks it.

    The cache keeps one database for each dataset or collection.
    """
    store = files.store
    origin = f"{store.endpoint_url} {store.uri(files.layout.vector_index_folder)}"
    folder = cache_folder() / "indexes" / hashlib.sha256(origin.encode()).hexdigest()[:16]
    path = folder / info.file
    with os_errors(str(path)):
        folder.mkdir(parents=True, exist_ok=True)
        if path.is_file():
            return path
        try:
            with new_file(path) as part, store.open(key) as source, part.open("wb") as target:
                shutil.copyfileobj(source, target, 16 * 2**20)
        except FileNotFoundError as error:
            raise IndexUnusableError(NoIndexReason.FILE_DAMAGED) from error
        for old in folder.glob("*.duckdb"):
            if old != path:
                old.unlink(missing_ok=True)
    return path
