"""The receipt: it names the raster, the model and the library versions that a file was made with.

Every Parquet file of a dataset has a receipt in its footer.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

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


RECEIPT_KEY = "raster_embeddings"
"""Key of the Parquet footer that holds the receipt."""

_OLD_RECEIPT_KEY = b"emb"
"""Key of the receipt in files of version 0.1. Later files have the metadata of a STAC asset under this key."""


def find_receipt(footer: Mapping[bytes, bytes]) -> bytes | None:
    """Return the receipt of a Parquet footer as JSON, or None if the footer has none.

    Args:
        footer: all keys and values of the footer.
    """
    receipt = footer.get(RECEIPT_KEY.encode())
    return footer.get(_OLD_RECEIPT_KEY) if receipt is None else receipt


def receipt_of(plan: Plan, run_id: str | None = None) -> dict[str, Any]:
    """Return the receipt as JSON values, for the key `RECEIPT_KEY` of a Parquet footer.

    STAC's embedding extension calls this a run receipt.
    """
    declared = plan.profile.declarations()
    return {
        "version": SCHEMA_VERSION,
        "dataset_id": plan.dataset_id,
        "fingerprint": plan.fingerprint,
        "source": plan.source.model_dump(mode="json"),
        **({"validity": declared} if declared else {}),
        **_warp(plan),
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


def _warp(plan: Plan) -> dict[str, Any]:
    """Return the raster's own CRS and transform, if it is warped while it is read. Else return nothing."""
    original = plan.profile.original
    if original is plan.profile:
        return {}
    return {"source_crs": original.crs_wkt, "source_transform": original.transform, "resampling": "bilinear"}


@cache  # To find the versions takes 10 ms, and each receipt needs them.
def library_versions() -> Mapping[str, str]:
    """Return the versions of the installed libraries that influence the result."""
    import rasterio  # It takes long to import.

    versions = {"gdal": rasterio.__gdal_version__}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions
