"""Step 7: build the vector index. It makes search in a large dataset fast."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prefect import get_run_logger, task

from rasterembed.dataset.dataset import Dataset
from rasterembed.dataset.manifest import Manifest
from rasterembed.search.index_options import VectorIndexOptions
from rasterembed.search.vector_files import VectorFiles
from rasterembed.store.object_store import ObjectStore
from tasks.policy import STEP

if TYPE_CHECKING:
    from rasterembed.search.index.building import BuildResult
    from rasterembed.search.index.description import VectorIndex


@task(name="build-search-index", **STEP)
def index_vectors(store: ObjectStore, manifest: Manifest, options: VectorIndexOptions) -> VectorIndex | None:
    """Build the vector index if the options require one; see `rasterembed.search.index.building.build_vector_index`."""
    from rasterembed.search.index.building import build_vector_index  # DuckDB takes long to import.

    result = build_vector_index(VectorFiles.of_dataset(Dataset(store, manifest)), options)
    log_index(result)
    return result.index


def log_index(result: BuildResult) -> None:
    """Log what became of a vector index."""
    index = result.index
    log = get_run_logger()
    if index is None:
        log.info("%s: search scans every vector", result.describe())
    else:
        log.info(
            "vector index of %d vectors, %.1f MB, recall@%d %.3f: %s",
            index.rows,
            index.bytes / 1e6,
            index.recall_at,
            index.recall,
            result.describe(),
        )
