"""Serve Items by a real STAC API over TLS: stac-fastapi-geoparquet. This runs in the environment of tests/stac.

python serve.py ITEMS.json FOLDER PORT CERTIFICATE
"""

from __future__ import annotations

import json
import platform
import sys
from importlib.util import find_spec
from pathlib import Path

import stac_geoparquet.arrow
import uvicorn
from rustac import DuckdbClient
from stac_fastapi.geoparquet.api import create
from stac_fastapi.geoparquet.settings import Settings

EXTENSIONS = ["spatial", "icu", "parquet"]
MACHINE = {"x86_64": "linux_amd64", "aarch64": "linux_arm64"}[platform.machine()]
"""DuckDB's name of this kind of machine."""


def duckdb_client(folder: Path) -> DuckdbClient:
    """Return a client whose extensions come from packages, because no server of DuckDB can be reached."""
    for name in EXTENSIONS:
        spec = find_spec(f"duckdb_extension_{name}")
        assert spec is not None
        assert spec.origin is not None
        (file,) = Path(spec.origin).parent.glob(f"extensions/*/{name}.duckdb_extension")
        place = folder / "extensions" / file.parent.name / MACHINE
        place.mkdir(parents=True, exist_ok=True)
        (place / file.name).symlink_to(file)
    return DuckdbClient(extension_directory=folder / "extensions", extensions=EXTENSIONS, install_extensions=False)


def main(items: str, folder: str, port: str, certificate: str) -> None:
    """Write the Items as stac-geoparquet, and serve them until the process ends."""
    file = Path(folder) / "items.parquet"
    batches = stac_geoparquet.arrow.parse_stac_items_to_arrow(json.loads(Path(items).read_text()))
    stac_geoparquet.arrow.to_parquet(batches, file)
    settings = Settings(
        stac_fastapi_geoparquet_href=str(file),
        stac_fastapi_landing_id="test",
        stac_fastapi_title="A test",
        stac_fastapi_description="A STAC API of a test",
    )
    api = create(settings, duckdb_client(Path(folder)))
    uvicorn.run(
        api.app,
        host="127.0.0.1",
        port=int(port),
        ssl_certfile=certificate,
        ssl_keyfile=certificate,
        log_level="warning",
        timeout_graceful_shutdown=1,
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
