"""Read a dataset into a GeoDataFrame. geopandas is an optional package."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from rasterembed.dataset.wkb import FootprintError, read_footprints
from rasterembed.errors import DataError, UsageError

if TYPE_CHECKING:
    from geopandas import GeoDataFrame

    from rasterembed.dataset.dataset import Dataset


def read_geodataframe(dataset: Dataset, columns: Sequence[str] | None, *, vectors: bool) -> GeoDataFrame:
    """Read all rows of a dataset. See `Dataset.to_geodataframe`."""
    try:
        from geopandas import GeoDataFrame
    except ImportError as error:
        raise UsageError(
            "a GeoDataFrame needs the package geopandas, which is not installed: pip install geopandas"
        ) from error
    known = dataset.columns
    if columns is None:
        names = [name for name in known if name not in ("bbox", "geometry")]
    else:
        names = [name for name in dict.fromkeys(columns) if name != "geometry"]
        for name in names:
            if name not in known:
                raise UsageError(f"dataset {dataset.id!r} has no column {name!r}: choose from {', '.join(known)}")
    if not vectors:
        names = [name for name in names if name != "embedding"]
    parts = list(dataset.batches([*names, "geometry"]))
    values = {}
    for name in names:
        column = pa.chunked_array([part.column(name) for part in parts])
        # Convert vectors separately, because pandas would make a Python list of each vector.
        values[name] = _vectors(column) if name == "embedding" else column.to_pandas()
    try:
        geometry = np.concatenate([read_footprints(part.column("geometry")) for part in parts])
    except FootprintError as error:
        raise DataError(
            f"dataset {dataset.id!r}: a footprint cannot be read ({error}): "
            f"run `rasterembed datasets verify {dataset.id}`"
        ) from error
    return GeoDataFrame(values, geometry=geometry, crs="OGC:CRS84" if dataset.plan.profile.on_earth else None)


def _vectors(column: pa.ChunkedArray) -> list[np.ndarray]:
    """Return the vectors of a column, each as an array of float32."""
    arrays = []
    for chunk in column.chunks:
        values = chunk.flatten().to_numpy(zero_copy_only=False).astype(np.float32, copy=False)
        arrays += list(values.reshape(len(chunk), -1)) if len(chunk) else []
    return arrays
