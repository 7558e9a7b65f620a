"""Read a written collection with stac-geoparquet, rustac and pystac. This runs in the environment of tests/stac.

    python read.py ITEMS.parquet COLLECTION.json

It prints one JSON object: by reader, the Items by id; and facts about the Collection.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import pyarrow.parquet as pq
import pystac
import rustac
import stac_geoparquet.arrow


def main(items: str, collection: str) -> dict[str, Any]:
    """Return what the readers found."""
    by_stac_geoparquet = list(stac_geoparquet.arrow.stac_table_to_items(pq.read_table(items)))

    async def read() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = (await rustac.read(items))["features"]
        return found

    by_rustac = asyncio.run(read())
    for item in by_stac_geoparquet:
        pystac.Item.from_dict(item)
    whole = pystac.Collection.from_file(collection)
    return {
        "stac-geoparquet": {item["id"]: item for item in by_stac_geoparquet},
        "rustac": {item["id"]: item for item in by_rustac},
        "collection": {"id": whole.id, "extent": whole.extent.to_dict(), "assets": sorted(whole.assets)},
    }


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
