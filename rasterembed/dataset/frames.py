"""Read a dataset into a GeoDataFrame. geopandas is an optional package."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from rasterembed.dataset.column_names import check_columns
from rasterembed.dataset.vector_column import EMBEDDING, SCALE
from rasterembed.dataset.wkb import FootprintError, read_footprints
from rasterembed.errors import DataError, UsageError, name_list
from rasterembed.store.store_command import store_command

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
        # The vectors of the frame are decoded. With `scale` beside them, a reader could scale them twice.
        names = [name for name in known if name not in ("bbox", "geometry", SCALE)]
    else:
        names = [name for name in dict.fromkeys(name_list(columns, "columns")) if name != "geometry"]
        check_columns(f"dataset {dataset.id!r}", names, known)
    if not vectors:
        names = [name for name in names if name != EMBEDDING]
    stored = dataset.vector_columns if EMBEDDING in names else ()
    parts = list(dataset.batches(list(dict.fromkeys([*names, *stored, "geometry"]))))
    values = {}
    for name in names:
        # Convert vectors separately, because pandas would make a Python list of each vector.
        if name == EMBEDDING:
            values[name] = [vector for part in parts for vector in dataset.vectors_of(part)]
        else:
            values[name] = pa.chunked_array([part.column(name) for part in parts]).to_pandas()
    try:
        geometry = np.concatenate([read_footprints(part.column("geometry")) for part in parts])
    except FootprintError as error:
        raise DataError(
            f"dataset {dataset.id!r}: a footprint cannot be read ({error}): "
            f"run {store_command(dataset.store, f'datasets verify {dataset.id}')}"
        ) from error
    return GeoDataFrame(values, geometry=geometry, crs="OGC:CRS84" if dataset.plan.profile.on_earth else None)
