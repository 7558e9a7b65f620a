"""Results of questions about all tiles are objects of a bucket."""

from __future__ import annotations

import io
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image

from rasterembed import Dataset, ObjectStore, Query, Where
from rasterembed.search.batch.result_file import BatchResult
from tests.search.batch.conftest import TILES
from tests.support.servers import S3Server

QUESTIONS = ("neighbours", "deduplicate", "cluster", "diversify")


@pytest.fixture
def remote(dataset: Dataset, moto: S3Server, bucket: str, monkeypatch: pytest.MonkeyPatch) -> Dataset:
    """Copy the dataset into a bucket. Its raster stays a local file, which pictures may be cut from."""
    monkeypatch.setenv("RASTEREMBED_LOCAL_RASTERS", str(Path(dataset.plan.rasters[0]).parent))
    moto.create_bucket(bucket)
    place = {"root": f"s3://{bucket}/at", "access_key": moto.access_key, "secret_key": moto.secret_key}
    store = ObjectStore.model_validate({**place, "endpoint_url": moto.endpoint_url})
    root = Path(dataset.store.root)
    for path in root.rglob("*"):
        if path.is_file() and path.parent.name != "lease":
            store.write(str(path.relative_to(root)), path.read_bytes())
    return Dataset.open(store, dataset.id)


def ask(dataset: Dataset, question: str, folder: str, **options: str) -> BatchResult:
    result: BatchResult = getattr(dataset, question)(f"{folder}/{question}.parquet", **options)
    return result


def test_results_and_pictures_are_written_into_the_bucket(dataset: Dataset, remote: Dataset, tmp_path: Path) -> None:
    for question in QUESTIONS:
        result = ask(remote, question, "store:results")
        ask(dataset, question, str(tmp_path))
        assert result.file == remote.store.uri(f"results/{question}.parquet")
        written = pq.read_table(io.BytesIO(remote.store.read(f"results/{question}.parquet") or b""))
        assert written.equals(pq.read_table(tmp_path / f"{question}.parquet"))
    result = ask(remote, "cluster", "store:results", picture="store:results/cluster.png")
    assert result.picture == remote.store.uri("results/cluster.png")
    assert Image.open(io.BytesIO(remote.store.read("results/cluster.png") or b"")).format == "PNG"
    # A search takes the classes from there.
    classes = pq.read_table(tmp_path / "cluster.parquet").to_pylist()
    where = Where(class_file="store:results/cluster.parquet", classes=("0",))
    found = remote.search(Query(tile=TILES[0]), where, k=len(TILES))
    assert {hit.tile_id for hit in found.hits} == {row["tile_id"] for row in classes if row["class"] == 0} - {TILES[0]}
