"""A scene of a collection costs few requests to the store on S3."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiobotocore.client import AioBaseClient

from rasterembed.collection.collection import Collection
from rasterembed.collection.scene_row import SceneRow, SceneState
from rasterembed.collection_pipeline import CollectionSteps, embed_collection
from rasterembed.dataset.dataset import Dataset
from rasterembed.dataset.manifest import ALL_STATES
from rasterembed.pipeline import EmbedOptions, embed_raster
from rasterembed.raster.radiometry import Radiometry
from rasterembed.store.object_store import ObjectStore
from tests.support.scenes import collection_options, write_scene
from tests.support.servers import S3Server
from tests.support.stores import at


@pytest.fixture(params=["moto", pytest.param("ceph", marks=pytest.mark.s3)])
def server(request: pytest.FixtureRequest) -> S3Server:
    found: S3Server = request.getfixturevalue(request.param)
    return found


def test_a_scene_needs_six_requests(
    server: S3Server, bucket: str, tmp_path: Path, tiny_vit: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.create_bucket(bucket)
    store, scenes = at(server, bucket, "store"), tmp_path / "scenes"
    options = collection_options(tiny_vit, quality_checks=True, table=False)
    sent: Counter[str] = Counter()
    send = AioBaseClient._make_api_call

    async def counting(self: Any, operation: str, parameters: dict[str, Any]) -> Any:
        key = str(parameters.get("Key") or parameters.get("Prefix") or "")
        # A collection's lease is checked every two seconds, however many scenes there are.
        if key.startswith("store/") and "/lease" not in key:
            sent[operation] += 1
        return await send(self, operation, parameters)

    class Steps(CollectionSteps):
        """Steps that count the requests while scenes are embedded."""

        def embed_scenes(self, *arguments: Any) -> Iterator[SceneRow]:
            sent.clear()
            yield from super().embed_scenes(*arguments)
            self.sent = Counter(sent)

    monkeypatch.setattr(AioBaseClient, "_make_api_call", counting)
    steps = Steps()
    for number in range(5):
        write_scene(scenes / f"{number}.tif", number)
    embed_collection(store, "survey", str(scenes), options, steps=steps)
    assert Collection.open(store, "survey").catalogue.counts() == {SceneState.READY: 5}
    assert steps.sent == {"ListObjectsV2": 5, "PutObject": 25}
    embed_collection(store, "survey", str(scenes), options, steps=steps)
    assert steps.sent == {}


def test_the_dataset_that_gives_the_stretch_is_not_read_for_each_scene(
    tmp_path: Path, tiny_vit: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, scenes = ObjectStore(root=str(tmp_path / "store")), tmp_path / "scenes"
    options = collection_options(tiny_vit, quality_checks=False, table=False)
    assert options.settings is not None
    settings = options.settings.model_copy(update={"radiometry": Radiometry(percentile=(2, 98))})
    first = EmbedOptions(**dict(settings), dataset_id="first", execution=options.execution, quality_checks=False)
    embed_raster(store, str(write_scene(tmp_path / "first.tif", 9)), first)
    expected = Dataset.open(store, "first", ALL_STATES).radiometry
    settings = settings.model_copy(update={"radiometry": Radiometry(stretch_of="first")})
    for number in range(5):
        write_scene(scenes / f"{number}.tif", number)
    reads: Counter[str] = Counter()
    read = ObjectStore.read

    def counting(self: ObjectStore, key: str, *limits: Any) -> bytes | None:
        reads[key] += 1
        return read(self, key, *limits)

    monkeypatch.setattr(ObjectStore, "read", counting)
    embed_collection(store, "survey", str(scenes), options.model_copy(update={"settings": settings}))
    assert 1 <= reads["datasets/first/manifest.json"] <= 2  # Two threads may need it at the same time.
    datasets = list(Collection.open(store, "survey").datasets([SceneState.EMBEDDED]))
    assert [dataset.radiometry.bands for dataset in datasets] == [expected.bands] * 5
