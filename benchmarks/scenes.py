"""Compare ways to read the same scene: one file, a file for each band, coarser files; on the disk, on S3, over https.

The reader reads all shards as in the pipeline, one after the other, and does nothing with the pixels. Each case on the
disk runs in a new process, which gives the memory. For S3 and https, only the requests and the bytes are counted,
because the servers run on the same machine.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any
from unittest.mock import patch

import rasterio
from rasterio.enums import Resampling
from rasterio.transform import Affine

from benchmarks.harness import RESULTS, alone, figure, load, run, save, spread, status_mib, table, timed, where
from benchmarks.reading import LAYOUTS, shard_reader, write
from benchmarks.remote import BUCKET, proxy_process, store_behind
from examples.landscape import make_scene
from rasterembed.raster.grid import Grid
from rasterembed.raster.read_ahead import read_ahead
from rasterembed.raster.scene import COLOURS, Scene, register_scene
from rasterembed.raster.scene_profile import inspect_scene
from rasterembed.raster.sharding import plan_shards
from rasterembed.store.object_store import ObjectStore
from rasterembed.store.server_settings import SourceStore
from tests.support.servers import moto_server
from tests.support.web_server import make_certificate, web_server

NAME = "scenes"

_SHARD_TILES = 256


def measure(
    *, side: int = 3000, size: int = 224, batch_size: int = 32, rounds: int = 3, results: Path = RESULTS
) -> dict[str, Any]:
    """Compare ways to read the same scene.

    Args:
        side: Side of the generated raster, px.
        size: Side of a tile, px.
        batch_size: Number of tiles in a batch.
        rounds: Number of measurements of each case on the disk.
        results: Folder for the result file.
    """
    parameters = dict(locals())
    load_before = load()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        whole, fine, coarse = _write_files(folder, side)
        local: dict[str, Scene] = {
            "one file": str(whole),
            "a file for each band": fine,
            "a file for each band, two at half the resolution": fine | {c: coarse[c] for c in ("green", "blue")},
        }
        runs = {
            name: alone(_read_local, folder, scene, size, batch_size, rounds) | {"requests": None, "mb": None}
            for name, scene in local.items()
        }
        runs["one file, on S3"] = _count_s3(whole, size, batch_size)
        runs["one file, over https"] = _count_https(folder, whole, size, batch_size)
        file_mb = whole.stat().st_size / 1e6
    return save(NAME, parameters, load_before, {"runs": runs, "file_mb": file_mb}, results)


def _write_files(folder: Path, side: int) -> tuple[Path, dict[str, str], dict[str, str]]:
    """Write the scene as one file, as a file for each band, and as a file of half the resolution for each band."""
    scene = make_scene(folder, width=side, height=side, compress="none").raster
    whole = folder / "whole.tif"
    write(scene, whole, LAYOUTS["deflate, tiles"])
    fine, coarse = {}, {}
    with rasterio.open(whole) as source:
        profile = source.profile | {"count": 1}
        profile.pop("photometric", None)
        half = (source.height // 2, source.width // 2)
        for number, colour in enumerate(COLOURS, start=1):
            fine[colour] = str(folder / f"{colour}.tif")
            with rasterio.open(fine[colour], "w", **profile) as file:
                file.write(source.read(number), 1)
            coarse[colour] = str(folder / f"{colour}-half.tif")
            shrunk = source.read(number, out_shape=half, resampling=Resampling.average)
            place = {"height": half[0], "width": half[1], "transform": source.transform * Affine.scale(2)}
            with rasterio.open(coarse[colour], "w", **(profile | place)) as file:
                file.write(shrunk, 1)
    return whole, fine, coarse


def _read(store: ObjectStore, scene: Scene, size: int, batch_size: int) -> int:
    """Read all tiles of a scene, and return their number."""
    source = register_scene(store, scene)
    profile = inspect_scene(store, source)
    sharding = plan_shards(Grid(size=size), profile, _SHARD_TILES)
    reader = shard_reader(store, source, profile, sharding, batch_size, threads=1)
    tiles = 0
    for number in range(sharding.count):
        with closing(read_ahead(reader.batches(number))) as batches:
            tiles += sum(len(batch.positions) + len(batch.skipped) for batch in batches)
    assert tiles == sharding.tile_count
    return tiles


def _read_local(folder: Path, scene: Scene, size: int, batch_size: int, rounds: int) -> dict[str, Any]:
    store = ObjectStore(root=str(folder))
    before = status_mib("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # This sets the peak to the memory that is used now; see proc(5).
    tiles = _read(store, scene, size, batch_size)  # Its time does not count: the files may come from the disk.
    peak = status_mib("VmHWM") - before
    times = [timed(lambda: _read(store, scene, size, batch_size)) for _ in range(rounds)]
    return {
        "tiles": tiles,
        "tiles_per_cpu_s": vars(figure([tiles / each.cpu for each in times])),
        "peak_mib": peak,
    }


def _count_s3(raster: Path, size: int, batch_size: int) -> dict[str, Any]:
    with moto_server() as server, proxy_process(server) as proxy:
        server.create_bucket(BUCKET)
        server.client().upload_file(str(raster), BUCKET, raster.name)
        proxy.begin()
        tiles = _read(store_behind(proxy, server), f"s3://{BUCKET}/{raster.name}", size, batch_size)
        counted = proxy.begin()
    return _counted(tiles, counted["requests"], counted["bytes"])


def _count_https(folder: Path, raster: Path, size: int, batch_size: int) -> dict[str, Any]:
    authority, certificate = make_certificate(folder)
    with patch.dict(os.environ, SSL_CERT_FILE=str(authority)), web_server(certificate) as site:
        site.files["/whole.tif"] = raster.read_bytes()
        source = SourceStore(https_hosts=(f"127.0.0.1:{site.port}",), https_private=True)
        store = ObjectStore(root=str(folder), source_store=source)
        tiles = _read(store, site.url("/whole.tif", "127.0.0.1"), size, batch_size)
        return _counted(tiles, len(site.requests), site.sent)


def _counted(tiles: int, requests: int, sent: int) -> dict[str, Any]:
    return {"tiles": tiles, "tiles_per_cpu_s": None, "peak_mib": None, "requests": requests, "mb": sent / 1e6}


def markdown(report: Mapping[str, Any]) -> str:
    """Return the result as a Markdown table."""
    head = ["scene", "tiles a second of one core", "memory for reading, MiB", "requests", "MB / MB of the file"]
    rows = [
        [
            name,
            spread(each["tiles_per_cpu_s"], 0) if each["tiles_per_cpu_s"] else "",
            f"{each['peak_mib']:.0f}" if each["peak_mib"] else "",
            f"{each['requests']}" if each["requests"] else "",
            f"{each['mb'] / report['file_mb']:.2f}" if each["mb"] else "",
        ]
        for name, each in report["runs"].items()
    ]
    return where(dict(report)) + table(head, rows)


if __name__ == "__main__":
    run(measure, markdown)
