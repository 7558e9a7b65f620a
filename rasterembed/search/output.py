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
from rasterembed.errors import UsageError, os_errors
from rasterembed.raster.footprints import Footprints
from rasterembed.search.answer import Answer, Hit
from rasterembed.store.write_aside import new_file

_NUMBERS = ("row", "col", "col_off", "row_off", "width", "height")


def check_writable(path: Path, *suffixes: str) -> None:
    """Refuse a file that cannot be written. Call this function before the work, so that no work is lost.

    Args:
        path: the file.
        suffixes: allowed endings of the file's name, such as `.csv`.

    Raises:
        UsageError: if the file's name has another ending, or if its folder does not exist.
    """
    if path.suffix.lower() not in suffixes:
        raise UsageError(f"{path}: give a file name that ends in {' or '.join(suffixes)}")
    if not path.absolute().parent.is_dir():
        raise UsageError(f"{path}: there is no folder {path.absolute().parent}")


def check_outputs(out: Path | None, sheet: Path | None) -> None:
    """Refuse an answer file and a contact sheet that cannot be written. Call this function before the search.

    Args:
        out: file for the tiles of an answer, or None.
        sheet: file for a contact sheet, or None.

    Raises:
        UsageError: if a file's name has an unknown ending, or if its folder does not exist.
    """
    if out is not None:
        check_writable(out, *FORMATS)
    if sheet is not None:
        check_writable(sheet, ".png")


def write_answer(answer: Answer, path: Path) -> None:
    """Write the hits of an answer to a file in one atomic step. An existing file is replaced.

    Args:
        answer: the answer.
        path: the file. The ending of its name must be one of `FORMATS`, and decides the format.

    Raises:
        UsageError: if the file's name has another ending, or if its folder does not exist.
        StoreError: if the file cannot be written.
    """
    check_writable(path, *FORMATS)
    write_file(path, FORMATS[path.suffix.lower()](answer))


def write_file(path: Path, data: bytes) -> None:
    """Write a file in one atomic step. An existing file is replaced.

    Raises:
        StoreError: if the file cannot be written.
    """
    with os_errors(str(path)), new_file(path) as part:
        part.write_bytes(data)


def _properties(hit: Hit) -> dict[str, Any]:
    return hit.model_dump(mode="json", exclude={"geometry"})


def _geojson(answer: Answer) -> bytes:
    """Return GeoJSON (RFC 7946). It allows only longitude and latitude, so a footprint in pixels becomes null."""
    features = [
        {
            "type": "Feature",
            "id": f"{hit.dataset_id}/{hit.tile_id}",
            "geometry": None if hit.lon is None else shapely.geometry.mapping(shapely.from_wkb(hit.geometry)),
            "properties": _properties(hit),
        }
        for hit in answer.hits
    ]
    return json.dumps({"type": "FeatureCollection", "features": features}, indent=1).encode()


def _csv(answer: Answer) -> bytes:
    """Return CSV with a header line. The column `wkt` holds the footprint."""
    text = io.StringIO(newline="")
    names = [name for name in Hit.model_fields if name != "geometry"]
    writer = csv.DictWriter(text, [*names, "wkt"])
    writer.writeheader()
    for hit in answer.hits:
        writer.writerow(_properties(hit) | {"wkt": shapely.from_wkb(hit.geometry).wkt})
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
