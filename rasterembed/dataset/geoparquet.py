"""Make the parts of a GeoParquet 1.1 file: the WKB geometry, the bbox column, and the metadata in the footer.

The tile index and the shards are GeoParquet files.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyproj
import shapely
from numpy.typing import NDArray

from rasterembed.dataset.arrow_arrays import bytes_array, number_array
from rasterembed.raster.footprints import Footprints
from rasterembed.raster.georeference import CRS84

if TYPE_CHECKING:
    import pyarrow.parquet as pq

PARQUET_ERRORS = (pa.ArrowException, OSError, ValueError, KeyError)
"""Exceptions for a Parquet file that is damaged. pyarrow raises an OSError for a damaged footer or page, a ValueError
for a text that is not UTF-8, and a KeyError for a column that is missing or occurs twice. An error of the store is none
of them."""

BBOX_TYPE = pa.struct([pa.field(name, pa.float64(), nullable=False) for name in ("xmin", "ymin", "xmax", "ymax")])
"""Type of the `bbox` column: the bounds of a footprint. Readers use its statistics to skip row groups."""


def place_columns(footprints: Footprints) -> tuple[pa.Array, pa.Array]:
    """Return the columns `bbox` and `geometry` of n footprints. Each has n rows. A tile off Earth has null in both."""
    missing = shapely.is_missing(footprints.geometry)
    bbox = pa.StructArray.from_arrays(
        [number_array(footprints.bounds[:, i]) for i in range(4)],
        fields=list(BBOX_TYPE),
        mask=pa.array(missing) if missing.any() else None,
    )
    return bbox, bytes_array(shapely.to_wkb(footprints.geometry), pa.binary())


def geoparquet_writer(path: Path, schema: pa.Schema, **encoding: Any) -> pq.ParquetWriter:
    """Return a writer for a file whose metadata is known only after the last row. Call `write_metadata` at the end.

    Args:
        path: the new file.
        schema: columns of the file.
        encoding: further options of `pyarrow.parquet.ParquetWriter`.
    """
    # By default, the writer would store the Arrow schema now. `write_metadata` stores the schema with its metadata.
    import pyarrow.parquet as pq  # A search with an index does not need it.

    return pq.ParquetWriter(path, schema, store_schema=False, **encoding)


def write_metadata(writer: pq.ParquetWriter, schema: pa.Schema, metadata: Mapping[str, bytes]) -> None:
    """Write keys into the footer of a file, and into the Arrow schema that the footer contains.

    Most readers look for `geo` in the footer. Readers that use Arrow, such as `pyarrow.parquet.read_schema` and
    `geopandas.read_parquet` of a folder, see only the metadata of the Arrow schema. The keys are therefore written
    to both places, as other GeoParquet writers do.

    Args:
        writer: a writer from `geoparquet_writer`.
        schema: the same columns as for `geoparquet_writer`.
        metadata: keys and values for the footer.
    """
    stored = schema.with_metadata(metadata).serialize().to_pybytes()
    # Arrow defines this key: its value is the schema as an IPC message, in base64.
    writer.add_key_value_metadata({"ARROW:schema": base64.b64encode(stored), **metadata})


class GeoMetadata:
    """Collects the content of the `geo` key while the rows of a file are written."""

    def __init__(self) -> None:
        self._types: set[str] = set()
        self._low = np.array([np.inf, np.inf])
        self._high = np.array([-np.inf, -np.inf])

    def add(self, footprints: Footprints) -> None:
        """Include the footprints of more rows. Tiles without a footprint are left out."""
        placed = ~shapely.is_missing(footprints.geometry)
        geometry, bounds = footprints.geometry[placed], footprints.bounds[placed]
        if len(bounds) == 0:
            return
        _, examples = np.unique(shapely.get_type_id(geometry), return_index=True)
        self._types |= {geometry[i].geom_type for i in examples}
        self._low = np.minimum(self._low, bounds[:, :2].min(axis=0))
        self._high = np.maximum(self._high, bounds[:, 2:].max(axis=0))

    def json(self) -> bytes:
        """Return the value of the footer's `geo` key, as GeoParquet 1.1.0 defines it."""
        column: dict[str, Any] = {
            "encoding": "WKB",
            "geometry_types": sorted(self._types),
            "crs": _crs84(),
            "orientation": "counterclockwise",
            "covering": {"bbox": {field.name: ["bbox", field.name] for field in BBOX_TYPE}},
        }
        if self._types:
            column["bbox"] = [*_floats(self._low), *_floats(self._high)]
        return json.dumps({"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": column}}).encode()


def _floats(values: NDArray[np.float64]) -> list[float]:
    return [float(v) for v in values]


@lru_cache(maxsize=1)
def _crs84() -> dict[str, Any]:
    return pyproj.CRS.from_user_input(CRS84).to_json_dict()
