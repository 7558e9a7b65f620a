"""Compare the reader with a plain loop over a raster on S3, if every request has latency.

The plain loop is the usual code: it opens the raster once with rasterio, and reads one window per tile, row by row.
GDAL does not list the bucket, and keeps no data for the next round. All its other settings have their defaults. The
reader reads all shards as in the pipeline, one after the other or several at a time. A proxy in front of the server
counts and delays the requests.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import rasterio
from pydantic import SecretStr
from rasterio.session import AWSSession

from benchmarks.harness import RESULTS, load, ratio, run, save, speed, spread, table, take_turns, where
from benchmarks.reading import BANDS, LAYOUTS, shard_reader, windows, write
from examples.landscape import make_scene
from rasterembed.raster.grid import Grid
from rasterembed.raster.profile import inspect_raster
from rasterembed.raster.read_ahead import read_ahead
from rasterembed.raster.sharding import plan_shards
from rasterembed.raster.source import register
from rasterembed.store.object_store import ObjectStore
from tests.support.proxy import proxy_before
from tests.support.servers import S3Server, moto_server

NAME = "remote"

BUCKET = "rasters"


def measure(
    *,
    side: int = 4500,
    size: int = 224,
    layouts: tuple[str, ...] = ("deflate, tiles", "LZW, strips", "deflate, tiles, 31 bands apart"),
    delays_ms: tuple[int, ...] = (0, 20, 100),
    shard_tiles: int = 256,
    shard_threads: int = 2,
    batch_size: int = 32,
    rounds: int = 3,
    results: Path = RESULTS,
) -> dict[str, Any]:
    """Compare the reader with a plain loop over S3.

    Args:
        side: Side of the generated raster, px. The side of a raster of 31 bands is a third of this.
        size: Side of a tile, px.
        layouts: Layouts to measure, keys of `benchmarks.reading.LAYOUTS`.
        delays_ms: Delays that the proxy adds to each request, in milliseconds.
        shard_tiles: Number of tiles in a shard.
        shard_threads: Number of shards read at the same time.
        batch_size: Number of tiles in a batch.
        rounds: Number of measurements of each case.
        results: Folder for the result file.
    """
    parameters = dict(locals())
    load_before = load()
    runs: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch, moto_server() as server, proxy_process(server) as proxy:
        server.create_bucket(BUCKET)
        scene = make_scene(Path(scratch), width=side, height=side, compress="none").raster
        for layout in layouts:
            raster = Path(scratch) / "raster.tif"
            write(scene, raster, LAYOUTS[layout])
            server.client().upload_file(str(raster), BUCKET, raster.name)
            cases, tiles = _cases(server, proxy, raster.name, size, batch_size, shard_tiles, shard_threads)
            runs[layout] = {
                "tiles": tiles,
                "block_bytes": _block_bytes(raster),
                "passed": {name: _passed(proxy, case) for name, case in cases.items()},
                "delays_ms": {str(delay): _measure(proxy, cases, tiles, delay, rounds) for delay in delays_ms},
            }
            raster.unlink()
    ratios = {layout: {delay: at["ratio"] for delay, at in run["delays_ms"].items()} for layout, run in runs.items()}
    return save(NAME, parameters, load_before, {"runs": runs, "ratios": ratios}, results)


@dataclass(frozen=True)
class Proxy:
    """A proxy in its own process, because some calls of rasterio hold the GIL while they wait for the server."""

    endpoint_url: str
    _pipe: Connection

    def begin(self, delay_s: float = 0.0) -> dict[str, int]:
        """Set the counters to 0, and set the delay.

        Args:
            delay_s: delay of each request, in seconds.

        Returns:
            The `requests` and `bytes` counted before the call.
        """
        self._pipe.send(delay_s)
        counted: dict[str, int] = self._pipe.recv()
        return counted


@contextmanager
def proxy_process(server: S3Server) -> Iterator[Proxy]:
    """Run a proxy in front of a server while the block runs."""
    spawn = get_context("spawn")
    pipe, theirs = spawn.Pipe()
    process = spawn.Process(target=_run_proxy, args=(server.endpoint_url, theirs))
    process.start()
    try:
        yield Proxy(pipe.recv(), pipe)
    finally:
        pipe.send(None)
        process.join()


def _run_proxy(url: str, pipe: Connection) -> None:
    with proxy_before(url) as proxy:
        pipe.send(proxy.endpoint_url)
        while (delay_s := pipe.recv()) is not None:
            pipe.send({"requests": len(proxy.exchanges), "bytes": proxy.sent})
            proxy.exchanges.clear()
            proxy.delay_s = delay_s


def store_behind(proxy: Proxy, server: S3Server) -> ObjectStore:
    """Return the store in the server's bucket. Its requests go through the proxy."""
    return ObjectStore(
        root=f"s3://{BUCKET}/out",
        endpoint_url=proxy.endpoint_url,
        access_key=SecretStr(server.access_key),
        secret_key=SecretStr(server.secret_key),
        region=server.region,
    )


def _cases(
    server: S3Server, proxy: Proxy, key: str, size: int, batch_size: int, shard_tiles: int, shard_threads: int
) -> tuple[dict[str, Callable[[], None]], int]:
    """Return the functions to time, by name, and the number of tiles that each function reads."""
    store = store_behind(proxy, server)
    source = register(store, f"s3://{BUCKET}/{key}")
    profile = inspect_raster(store, source.uri)
    sharding = plan_shards(Grid(size=size), profile, shard_tiles)

    def plain() -> None:
        session = AWSSession(
            aws_access_key_id=server.access_key,
            aws_secret_access_key=server.secret_key,
            region_name=server.region,
            endpoint_url=proxy.endpoint_url.removeprefix("http://"),
        )
        options = {
            "AWS_HTTPS": "NO",
            "AWS_VIRTUAL_HOSTING": "FALSE",
            "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
            # Without this line, the second round would read all data from GDAL's cache.
            "CPL_VSIL_CURL_NON_CACHED": "/vsis3/",
        }
        with rasterio.Env(session=session, **options), rasterio.open(f"/vsis3/{BUCKET}/{key}") as dataset:
            for window in windows(profile.width, profile.height, size):
                dataset.read(BANDS, window=window)

    def read(threads: int) -> None:
        reader = shard_reader(store, source, profile, sharding, batch_size, threads=threads)

        def one(number: int) -> int:
            with closing(read_ahead(reader.batches(number))) as batches:
                return sum(len(batch.positions) + len(batch.skipped) for batch in batches)

        with ThreadPoolExecutor(threads) as pool:
            assert sum(pool.map(one, range(sharding.count))) == sharding.tile_count

    cases: dict[str, Callable[[], None]] = {
        "plain": plain,
        "reader": partial(read, 1),
        "reader_at_once": partial(read, shard_threads),
    }
    return cases, sharding.tile_count


def _passed(proxy: Proxy, case: Callable[[], None]) -> dict[str, int]:
    proxy.begin()
    case()
    return proxy.begin()


def _measure(
    proxy: Proxy, cases: dict[str, Callable[[], None]], tiles: int, delay_ms: int, rounds: int
) -> dict[str, Any]:
    proxy.begin(delay_ms / 1000)
    times = take_turns(cases, rounds)
    return {
        **{f"{name}_tiles_per_s": speed(turns, tiles) for name, turns in times.items()},
        "ratio": ratio(times["reader_at_once"], times["plain"]),
    }


def _block_bytes(raster: Path) -> int:
    """Return the compressed size of all blocks of the bands to read, in bytes."""
    with rasterio.open(raster) as dataset:
        height, width = dataset.block_shapes[0]
        return sum(
            int(dataset.get_tag_item(f"BLOCK_SIZE_{col}_{row}", "TIFF", bidx=band))
            for band in (BANDS if dataset.interleaving.name == "band" else BANDS[:1])
            for row in range(-(-dataset.height // height))
            for col in range(-(-dataset.width // width))
        )


def markdown(report: dict[str, Any]) -> str:
    """Return the result as a Markdown table."""
    threads = report["parameters"]["shard_threads"]
    head = [
        "layout",
        "added latency, ms",
        "plain, requests a tile",
        "reader",
        "plain, bytes / blocks' bytes",
        "reader",
        "plain, tiles/s",
        "reader, tiles/s",
        f"{threads} shards at once, tiles/s",
        "ratio",
    ]
    rows = [
        [
            layout,
            delay,
            *(f"{run['passed'][name]['requests'] / run['tiles']:.2f}" for name in ("plain", "reader")),
            *(f"{run['passed'][name]['bytes'] / run['block_bytes']:.2f}" for name in ("plain", "reader")),
            *(spread(at[f"{name}_tiles_per_s"], 0) for name in ("plain", "reader", "reader_at_once")),
            f"**{at['ratio']:.1f}**",
        ]
        for layout, run in report["runs"].items()
        for delay, at in run["delays_ms"].items()
    ]
    return where(report) + table(head, rows)


if __name__ == "__main__":
    run(measure, markdown)
