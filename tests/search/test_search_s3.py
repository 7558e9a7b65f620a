"""Search on S3 reads the columns and row groups that it needs, and little more."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import shapely

from rasterembed.dataset.dataset import Dataset
from rasterembed.dataset.manifest import Manifest
from rasterembed.model.choice import Dinov3
from rasterembed.search.engines.scan import ScanEngine, connect
from rasterembed.search.filters import Filters
from rasterembed.search.query import Query, Where
from rasterembed.search.searcher import Searcher
from rasterembed.store.object_store import ObjectStore
from tests.support.proxy import Proxy, proxy_before
from tests.support.servers import S3Server
from tests.support.vectors import blank_raster, checkpoint, write_dataset
from tests.support.waiting import wait_for

FOOTER = 16384
"""Bytes that DuckDB reads of a file's end, for the footer; also the gap that it reads across."""


_KNOWN_AFTER_S = 11
"""Age in seconds from which DuckDB keeps what it knows of a file. A file that was changed in the last ten seconds could
change again, so DuckDB reads its footer anew for each query."""


@dataclass(frozen=True)
class Remote:
    """A dataset on S3 behind a proxy that counts."""

    store: ObjectStore
    manifest: Manifest
    proxy: Proxy
    columns: Counter[str]
    """Compressed bytes of each column in all shards."""

    def sent(self) -> Counter[str]:
        """Bytes sent since the last call, by the folder that the object is in."""
        sent: Counter[str] = Counter()
        for exchange in self.proxy.exchanges:
            folders = exchange.path.split("/")
            sent[folders[3] if len(folders) > 3 else "listings"] += exchange.sent
        self.proxy.exchanges.clear()
        return sent

    def make_young(self) -> None:
        """Write the shards again, so that DuckDB does not trust what it knows of them."""
        for shard in self.manifest.shards:
            data = self.store.read(shard.path, shard.bytes)
            assert data is not None
            self.store.write(shard.path, data)

    def wait_until_old(self) -> None:
        """Wait until DuckDB trusts what it knows of the shards."""
        newest = max(self.store.describe_object(shard.path).modified for shard in self.manifest.shards)
        wait_for(lambda: time.time() > newest + _KNOWN_AFTER_S, "the files to be old enough for DuckDB's cache")


@pytest.fixture(scope="module")
def remote(moto: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Remote]:
    folder = tmp_path_factory.mktemp("remote")
    moto.create_bucket("search-reads")
    place = {"root": "s3://search-reads/at", "access_key": moto.access_key, "secret_key": moto.secret_key}
    direct = ObjectStore.model_validate({**place, "endpoint_url": moto.endpoint_url})
    vectors = np.random.default_rng(0).standard_normal((6144, 256)).astype(np.float32)
    raster = blank_raster(folder / "r.tif", 64, 96)
    model = Dinov3(model=str(checkpoint(folder / "model", 256)))
    manifest = write_dataset(direct, "made", raster, model, vectors, shard_tiles=1024)
    columns: Counter[str] = Counter()
    for shard in manifest.shards:
        with direct.open(shard.path) as file:
            group = pq.read_metadata(file).row_group(0)
        for number in range(group.num_columns):
            columns[group.column(number).path_in_schema] += group.column(number).total_compressed_size
    with proxy_before(moto.endpoint_url) as proxy:
        store = ObjectStore.model_validate({**place, "endpoint_url": proxy.endpoint_url})
        yield Remote(store, manifest, proxy, columns)


def test_a_scan_reads_the_vectors_once_and_no_column_that_it_does_not_need(remote: Remote) -> None:
    shards = len(remote.manifest.shards)
    assert shards >= 6
    dataset = Dataset.open(remote.store, "made")
    remote.make_young()
    remote.sent()
    rows = ScanEngine(dataset, connect()).nearest(np.ones(256, np.float32), 10, Filters())
    assert len(rows) == 10
    sent = remote.sent()
    assert set(sent) == {"embeddings"}
    needless = sum(size for name, size in remote.columns.items() if name == "norm" or name.startswith("bbox"))
    needed = remote.columns.total() - needless
    # the first file's end is read again whenever DuckDB looks at its columns
    at_most = needed + FOOTER * (shards + 10)
    assert remote.columns["embedding.list.element"] < sent["embeddings"] < at_most < remote.manifest.bytes


def test_a_scan_of_files_that_duckdb_trusts_reads_no_byte_twice(remote: Remote) -> None:
    """DuckDB keeps parts of such files, and therefore reads small row groups as a whole."""
    dataset = Dataset.open(remote.store, "made")
    remote.wait_until_old()
    remote.sent()
    assert len(ScanEngine(dataset, connect()).nearest(np.ones(256, np.float32), 10, Filters())) == 10
    assert remote.columns["embedding.list.element"] < remote.sent()["embeddings"] <= remote.manifest.bytes


def test_a_question_about_a_place_reads_the_shards_around_it(remote: Remote) -> None:
    with Searcher(remote.store, ["made"]) as searcher:
        remote.sent()
        answer = searcher.ask(Query(tile="r000030_c000040"), k=1)
        everything = remote.sent()
    footprint = shapely.from_wkb(answer.hits[0].geometry)
    with Searcher(remote.store, ["made"]) as searcher:
        remote.sent()
        near = searcher.ask(Query(tile=answer.hits[0].tile_id), Where(bbox=footprint.bounds), k=30)
        sent = remote.sent()
    assert len(near.hits) == 8
    shard = max(shard.bytes for shard in remote.manifest.shards)
    # its own shard, and up to three where the box meets a corner
    assert sent["embeddings"] < 4 * (shard + 2 * FOOTER)
    assert sent["embeddings"] < everything["embeddings"] / 2


def test_a_tile_is_found_by_its_own_shard(remote: Remote) -> None:
    remote.wait_until_old()
    with Searcher(remote.store, ["made"]) as searcher:
        remote.sent()
        nowhere = Where(bbox=(0.0, 0.0, 1.0, 1.0))
        assert searcher.ask(Query(tile="r000030_c000040"), nowhere, k=1).hits == ()
        sent = remote.sent()
    shard = max(shard.bytes for shard in remote.manifest.shards)
    assert 0 < sent["embeddings"] < shard + 8 * FOOTER  # a footer each time DuckDB looks at the view


def test_a_question_asked_again_reads_little(remote: Remote) -> None:
    with Searcher(remote.store, ["made"]) as searcher:
        first = searcher.ask(Query(tile="r000030_c000040"), k=5)
        remote.sent()
        again = searcher.ask(Query(tile="r000030_c000040"), k=5)
        assert remote.sent().total() < remote.manifest.bytes / 20
    assert first.hits == again.hits


def test_the_source_raster_is_not_touched_by_a_search(remote: Remote, tmp_path: Path) -> None:
    plan = Dataset.open(remote.store, "made").plan
    raster = Path(plan.source.uri)
    aside = raster.rename(tmp_path / "aside.tif")
    try:
        with Searcher(remote.store, ["made"]) as searcher:
            assert len(searcher.ask(Query(tile="r000030_c000040"), k=5).hits) == 5
    finally:
        aside.rename(raster)
