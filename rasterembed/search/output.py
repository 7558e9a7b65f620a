"""Write answers as files. The ending of the file's name decides the format: GeoJSON, GeoParquet or CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import shapely

from rasterembed.dataset.geoparquet import GeoMetadata, place_columns
from rasterembed.raster.footprints import Footprints
from rasterembed.search.answer import Answer, Hit
from rasterembed.search.output_file import OutputFile, find_output

_NUMBERS = ("row", "col", "col_off", "row_off", "width", "height")


def write_answer(answer: Answer, file: OutputFile | Path) -> None:
    """Write the hits of an answer to a file in one atomic step. An existing file is replaced.

    Args:
        answer: the answer.
        file: the file. The ending of its name must be one of `FORMATS`, and decides the format.

    Raises:
        UsageError: if the file's name has another ending, or if its folder does not exist.
        StoreError: if the file cannot be written.
    """
    output = find_output(None, file, *FORMATS) if isinstance(file, Path) else file
    output.write(FORMATS[output.ending](answer))


def _properties(answer: Answer, hit: Hit) -> dict[str, Any]:
    return hit.model_dump(mode="json", include=set(answer.columns)) | {"model": answer.model}


def _geojson(answer: Answer) -> bytes:
    """Return GeoJSON (RFC 7946). It allows only longitude and latitude, so a footprint in pixels becomes null."""
    features = [
        {
            "type": "Feature",
            "id": f"{hit.dataset_id}/{hit.tile_id}",
            "geometry": None if hit.lon is None else shapely.geometry.mapping(shapely.from_wkb(hit.geometry)),
            "properties": _properties(answer, hit),
        }
        for hit in answer.hits
    ]
    # The collection names the model too, because an answer without tiles has no features.
    collection = {"type": "FeatureCollection", "query": answer.query, "model": answer.model, "features": features}
    return json.dumps(collection, indent=1).encode()


def _csv(answer: Answer) -> bytes:
    """Return CSV with a header line. The column `wkt` holds the footprint."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, [*answer.columns, "model", "wkt"])
    writer.writeheader()
    for hit in answer.hits:
        writer.writerow(_properties(answer, hit) | {"wkt": shapely.from_wkb(hit.geometry).wkt})
    return text.getvalue().encode()


def _parquet(answer: Answer) -> bytes:
    """Return GeoParquet 1.1, or plain Parquet if a footprint is in pixels."""
    hits = answer.hits
    geometry = np.array([shapely.from_wkb(hit.geometry) for hit in hits], dtype=object)
    footprints = Footprints(geometry, shapely.bounds(geometry).reshape(-1, 4))
    bbox, wkb = place_columns(footprints)

    def column(name: str, kind: pa.DataType) -> pa.Array:
        return pa.array([getattr(hit, name) for hit in hits], type=kind)

    table = pa.table(
        {
            "rank": column("rank", pa.int32()),
            "dataset_id": column("dataset_id", pa.string()),
            "tile_id": column("tile_id", pa.string()),
            "distance": column("distance", pa.float64()),
            "lon": column("lon", pa.float64()),
            "lat": column("lat", pa.float64()),
            **{name: column(name, pa.int32()) for name in _NUMBERS},
            "valid_fraction": column("valid_fraction", pa.float32()),
            "acquired": column("acquired", pa.timestamp("ms", tz="UTC")),
            **({"scene": column("scene", pa.string())} if answer.collection is not None else {}),
            **({"cloud_cover": column("cloud_cover", pa.float64())} if answer.collection is not None else {}),
            "model": pa.array([answer.model] * len(hits), pa.string()),
            "bbox": bbox,
            "geometry": wkb,
        }
    )
    footer: dict[bytes, bytes] = {b"query": answer.query.encode(), b"model": answer.model.encode()}
    if all(hit.lon is not None for hit in hits):
        geo = GeoMetadata()
        geo.add(footprints)
        footer[b"geo"] = geo.json()
    sink = io.BytesIO()
    pq.write_table(table.replace_schema_metadata(footer), sink, compression="zstd")
    return sink.getvalue()


FORMATS: dict[str, Callable[[Answer], bytes]] = {".geojson": _geojson, ".parquet": _parquet, ".csv": _csv}
"""Maps the ending of a file's name to the function that returns the content of the file."""
