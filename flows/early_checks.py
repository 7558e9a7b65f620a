"""Find the errors that a person makes most often, before a command starts a Prefect server.

The flow makes the same checks again. The early checks save the ten seconds that the server needs to start.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rasterembed.collection.stac_search import parse_search
from rasterembed.dataset.dataset import Dataset
from rasterembed.dataset.manifest import ALL_STATES
from rasterembed.raster.scene import register_scene, split_assets
from rasterembed.search.query import dataset_names
from rasterembed.store.layout import check_collection_id, check_dataset_id, is_pattern
from rasterembed.store.object_store import open_store


def check_early(parameters: Mapping[str, Any]) -> None:
    """Check those parameters of a flow that can be checked without a Prefect server.

    Args:
        parameters: parameters of a flow by name. A parameter that the flow does not have is not checked.

    Raises:
        UsageError: if the root, a search, or the id of a dataset or collection is wrong, or if the dataset does not
            exist.
        DataError: if the raster or a manifest cannot be read.
        StoreError: if the store refuses or does not answer.
    """
    if parameters.get("store") is not None or parameters.get("source_store") is not None:
        return  # The block with this name is on a Prefect server, and no server runs yet.
    store = open_store(parameters.get("root"))
    if parameters.get("dataset_id") is not None:
        check_dataset_id(parameters["dataset_id"])
    if parameters.get("collection") is not None:
        check_collection_id(parameters["collection"])
    if "scenes" in parameters:
        parse_search(parameters.get("search"))
    if "raster" in parameters:
        register_scene(store, parameters["raster"], split_assets(parameters.get("assets")))
    if "dataset" in parameters:
        for name in dataset_names(parameters["dataset"], every=bool(parameters.get("all_datasets"))):
            if not is_pattern(name):
                Dataset.open(store, name, states=ALL_STATES)
