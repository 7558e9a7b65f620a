"""Turn any georeferenced raster into DINOv3 tile embeddings that people can search, map and compare.

This module is the library's public interface. A name is imported when it is first used, so `import rasterembed` takes a
few milliseconds. Names that are not listed in `__all__` are internal and may move.

Example:
    >>> from rasterembed import Dataset, ObjectStore, Query, embed_raster  # doctest: +SKIP
    >>> store = ObjectStore(root="embeddings")  # doctest: +SKIP
    >>> result = embed_raster(store, "scene.tif")  # doctest: +SKIP
    >>> dataset = Dataset.open(store, result.manifest.dataset_id)  # doctest: +SKIP
    >>> print(dataset.search(Query(tile="r000000_c000000")))  # doctest: +SKIP
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rasterembed.collection.collection import Collection
    from rasterembed.collection.scene_row import SceneState
    from rasterembed.collection.stac_search import StacSearch
    from rasterembed.collection.summaries import CollectionSummary
    from rasterembed.collection_pipeline import CollectionOptions, CollectionResult, CollectionSteps, embed_collection
    from rasterembed.collection_upkeep import check_collection, rebuild_collection
    from rasterembed.dataset.dataset import Dataset
    from rasterembed.dataset.embedding import Execution
    from rasterembed.dataset.manifest import Manifest
    from rasterembed.dataset.plan import PlanSettings
    from rasterembed.dataset.selection import Selection
    from rasterembed.dataset.vector_column import decode_vectors
    from rasterembed.errors import DataError, RasterEmbedError, StoreError, UsageError
    from rasterembed.model.choice import Dinov3
    from rasterembed.pipeline import EmbedOptions, EmbedResult, check_dataset, embed_raster
    from rasterembed.qa.collection_report import CollectionReport
    from rasterembed.qa.collection_thresholds import CollectionThresholds
    from rasterembed.qa.report import QaReport
    from rasterembed.qa.thresholds import QaThresholds
    from rasterembed.raster.grid import Grid
    from rasterembed.raster.radiometry import Radiometry
    from rasterembed.raster.validity import Validity
    from rasterembed.search.answer import Answer
    from rasterembed.search.collection_searcher import CollectionSearcher
    from rasterembed.search.index_options import TableIndexOptions, VectorIndexOptions
    from rasterembed.search.query import Query, Where
    from rasterembed.search.searcher import Searcher
    from rasterembed.store.object_store import ObjectStore
    from rasterembed.store.server_settings import SourceStore

_MODULES = {
    "Answer": "search.answer",
    "Collection": "collection.collection",
    "CollectionOptions": "collection_pipeline",
    "CollectionReport": "qa.collection_report",
    "CollectionResult": "collection_pipeline",
    "CollectionSearcher": "search.collection_searcher",
    "CollectionSteps": "collection_pipeline",
    "CollectionSummary": "collection.summaries",
    "CollectionThresholds": "qa.collection_thresholds",
    "DataError": "errors",
    "Dataset": "dataset.dataset",
    "Dinov3": "model.choice",
    "EmbedOptions": "pipeline",
    "EmbedResult": "pipeline",
    "Execution": "dataset.embedding",
    "Grid": "raster.grid",
    "Manifest": "dataset.manifest",
    "ObjectStore": "store.object_store",
    "PlanSettings": "dataset.plan",
    "QaReport": "qa.report",
    "QaThresholds": "qa.thresholds",
    "Query": "search.query",
    "Radiometry": "raster.radiometry",
    "RasterEmbedError": "errors",
    "SceneState": "collection.scene_row",
    "Searcher": "search.searcher",
    "Selection": "dataset.selection",
    "SourceStore": "store.server_settings",
    "StacSearch": "collection.stac_search",
    "StoreError": "errors",
    "TableIndexOptions": "search.index_options",
    "UsageError": "errors",
    "Validity": "raster.validity",
    "VectorIndexOptions": "search.index_options",
    "Where": "search.query",
    "check_collection": "collection_upkeep",
    "check_dataset": "pipeline",
    "decode_vectors": "dataset.vector_column",
    "embed_collection": "collection_pipeline",
    "embed_raster": "pipeline",
    "rebuild_collection": "collection_upkeep",
}
"""Maps each public name to the module that defines the name."""

__all__ = [
    "Answer",
    "Collection",
    "CollectionOptions",
    "CollectionReport",
    "CollectionResult",
    "CollectionSearcher",
    "CollectionSteps",
    "CollectionSummary",
    "CollectionThresholds",
    "DataError",
    "Dataset",
    "Dinov3",
    "EmbedOptions",
    "EmbedResult",
    "Execution",
    "Grid",
    "Manifest",
    "ObjectStore",
    "PlanSettings",
    "QaReport",
    "QaThresholds",
    "Query",
    "Radiometry",
    "RasterEmbedError",
    "SceneState",
    "Searcher",
    "Selection",
    "SourceStore",
    "StacSearch",
    "StoreError",
    "TableIndexOptions",
    "UsageError",
    "Validity",
    "VectorIndexOptions",
    "Where",
    "check_collection",
    "check_dataset",
    "decode_vectors",
    "embed_collection",
    "embed_raster",
    "rebuild_collection",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from rasterembed.slow_imports import collector_paused

    with collector_paused():
        value = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
