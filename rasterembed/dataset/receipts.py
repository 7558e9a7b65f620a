"""The receipt: it names the raster, the model and the library versions that a file was made with.

Every Parquet file of a dataset has a receipt in its footer.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import rasterio

from rasterembed.dataset.plan import SCHEMA_VERSION, Plan

_PACKAGES = (
    "raster-embeddings",
    "torch",
    "transformers",
    "openvino",
    "rasterio",
    "pyarrow",
    "pyproj",
    "shapely",
)
"""Packages whose versions a receipt names."""


def receipt_of(plan: Plan, run_id: str | None = None) -> dict[str, Any]:
    """Return the receipt as JSON values, for the `emb` key of a Parquet footer.

    STAC's embedding extension calls this a run receipt.
    """
    declared = plan.profile.declarations()
    return {
        "version": SCHEMA_VERSION,
        "dataset_id": plan.dataset_id,
        "fingerprint": plan.fingerprint,
        "source": plan.source.model_dump(mode="json"),
        **({"validity": declared} if declared else {}),
        "crs": plan.profile.crs_wkt,
        "transform": plan.profile.transform,
        "model": plan.model.name,
        "model_id": plan.model.id,
        "model_revision": plan.model.revision,
        "weights_sha256": plan.model.weights_sha256,
        "pooling": plan.model.pooling,
        "dimensions": plan.model.dimensions,
        "dtype": plan.selection.vector_dtype,
        "compute_dtype": plan.model.dtype,
        "input_size": plan.model.input_size,
        "radiometry": plan.radiometry.model_dump(mode="json"),
        "grid": plan.sharding.grid.model_dump(mode="json") | {"stride": plan.sharding.grid.step},
        "min_valid_fraction": plan.selection.min_valid_fraction,
        "run_id": run_id,
        "versions": dict(library_versions()),
    }


@cache  # To find the versions takes 10 ms, and each receipt needs them.
def library_versions() -> Mapping[str, str]:
    """Return the versions of the installed libraries that influence the result."""
    versions = {"gdal": rasterio.__gdal_version__}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions
