"""The index that makes search fast."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prefect import get_run_logger, task

from rasterembed.dataset.dataset import Dataset
from rasterembed.dataset.manifest import Manifest
from rasterembed.search.options import VectorIndexOptions
from rasterembed.store.object_store import ObjectStore
from tasks.policy import STEP

if TYPE_CHECKING:
    from rasterembed.search.engines.vss import IndexInfo


@task(name="build-search-index", **STEP)
def build_search_index(store: ObjectStore, manifest: Manifest, options: VectorIndexOptions) -> IndexInfo | None:
    """Bring the dataset's index in line with its vectors; see `rasterembed.search.vector_index.build_vector_index`."""
    from rasterembed.search.vector_index import build_vector_index  # and DuckDB with it, which only this step needs

    info, why = build_vector_index(Dataset(store, manifest), options)
    log = get_run_logger()
    if info is None:
        log.info("%s: search scans every vector", why)
    else:
        log.info(
            "search index of %d vectors, %.1f MB, recall@%d %.3f: %s",
            info.rows,
            info.bytes / 1e6,
            info.recall_at,
            info.recall,
            why,
        )
    return info
