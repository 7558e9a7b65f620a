"""The files of a dataset's vector index: `index.json`, which describes the index, and the database that it names.

The index is a cache. It may be missing, stale or damaged at any time, and then the exact scan answers.
"""

from __future__ import annotations

import hashlib
import shutil
from datetime import datetime
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rasterembed.dataset.dataset import Dataset
from rasterembed.errors import os_errors
from rasterembed.search.engines.engine import IndexUnusableError, NoIndexReason
from rasterembed.store.layout import VECTOR_INDEX_NAME
from rasterembed.store.local_cache import cache_folder
from rasterembed.store.write_aside import new_file


class VectorIndexInfo(BaseModel):
    """What an index was built from and how good it is: the content of `index.json`."""

    model_config = ConfigDict(frozen=True)

    fingerprint: str
    """Fingerprint of the dataset that the index was built from."""
    file: str = Field(pattern=VECTOR_INDEX_NAME)
    """Name of the database, which lies beside `index.json`."""
    bytes: int
    """Size of the database."""
    sha256: str
    """Digest of the whole database."""
    rows: int
    """Number of vectors in the index."""
    metric: Literal["cosine"] = "cosine"
    m: int
    """Links of a vector in the graph (HNSW's M)."""
    ef_construction: int
    """Number of candidates that the build considered for each vector."""
    ef_search: int
    """Number of candidates that a search considers unless told otherwise. Recall was measured with it."""
    recall: float
    """Share of the exact neighbours that the index finds, 0 to 1. The vector itself does not count."""
    recall_at: int
    """Number of neighbours of each vector that recall was measured on."""
    recall_sample: int
    """Number of vectors that recall was measured on."""
    build_seconds: float
    """Time that the build took on the clock, without the measurement of recall."""
    duckdb: str
    """Version of DuckDB that built the index."""
    built: datetime
    """When the build ended, UTC."""


def read_info(dataset: Dataset) -> VectorIndexInfo:
    """Read what the dataset's index says of itself.

    Raises:
        IndexUnusableError: if the dataset has no index, or the index is of other vectors.
    """
    data = dataset.store.read(dataset.layout.vector_index_info)
    if data is None:
        raise IndexUnusableError(NoIndexReason.ABSENT)
    try:
        info = VectorIndexInfo.model_validate_json(data)
    except ValidationError as error:
        raise IndexUnusableError(NoIndexReason.INFO_UNREADABLE) from error
    if info.fingerprint != dataset.manifest.fingerprint or info.rows != dataset.manifest.rows:
        raise IndexUnusableError(NoIndexReason.STALE)
    return info


def local_database(dataset: Dataset, info: VectorIndexInfo) -> Path:
    """Return the path of the index's database on this machine. From S3 it is downloaded once.

    Raises:
        IndexUnusableError: if the database is missing, or its size or sha256 is not what `info` says.
        StoreError: if the store or the disk refuses.
    """
    store = dataset.store
    key = dataset.layout.vector_index_file(info.file)
    path = _download(dataset, key, info) if store.is_s3 else Path(store.uri(key))
    # The digest is checked before DuckDB opens the file: vss ends the whole process when it reads a damaged block,
    # because it meets DuckDB's checksum error where it may not throw an exception.
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


def _download(dataset: Dataset, key: str, info: VectorIndexInfo) -> Path:
    """Return the database's path in the user's cache folder, and download it if it is not there yet.

    The cache keeps one database per dataset.
    """
    store = dataset.store
    origin = f"{store.endpoint_url} {store.uri(dataset.layout.vector_index_folder)}"
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
