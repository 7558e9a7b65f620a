"""A collection on S3 is made of scenes in another bucket, also if the run is killed."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from rasterembed.collection.collection import Collection
from rasterembed.collection.scene_row import SceneState
from rasterembed.collection_pipeline import embed_collection
from rasterembed.store.layout import OUTPUT_FOLDERS, CollectionLayout
from rasterembed.store.object_store import ObjectStore
from tests.support.runs import exit_code_of, kill, on_change
from tests.support.scenes import collection_options, write_scene
from tests.support.servers import S3Server
from tests.support.stores import at

NAME = "survey"
LAYOUT = CollectionLayout(NAME)


pytestmark = pytest.mark.s3


@pytest.fixture
def server(ceph: S3Server, bucket: str, tmp_path: Path) -> S3Server:
    """Return a server with scenes in one bucket, and with another bucket for stores."""
    client = ceph.client()
    for name in (f"{bucket}-scenes", bucket):
        ceph.create_bucket(name)
    for number, key in enumerate(("2026/a.tif", "2026/06/b.tif", "2026/c #1.tif")):
        scene = write_scene(tmp_path / "scene.tif", number).read_bytes()
        client.put_object(Bucket=f"{bucket}-scenes", Key=key, Body=scene)
    client.put_object(Bucket=f"{bucket}-scenes", Key="2026/damaged.tif", Body=b"damaged")
    client.put_object(Bucket=f"{bucket}-scenes", Key="2025/other.tif", Body=b"not a scene of this listing")
    return replace(ceph, _daemons=None)  # type: ignore[arg-type]  # Another process gets only the address and the keys.


def _embed(server: S3Server, bucket: str, prefix: str, model: str) -> None:
    options = collection_options(Path(model))
    embed_collection(at(server, bucket, prefix), NAME, f"s3://{bucket}-scenes/2026/", options)


def _vectors(store: ObjectStore) -> dict[str, bytes]:
    collection = Collection.open(store, NAME)
    return {each.id: each.vectors().tobytes() for each in collection.datasets([SceneState.EMBEDDED])}


def test_a_killed_run_is_finished_by_the_next(server: S3Server, bucket: str, tiny_vit: Path) -> None:
    _embed(server, bucket, "whole", str(tiny_vit))
    whole, killed = at(server, bucket, "whole"), at(server, bucket, "killed")
    states = [(row.source, row.state.value, row.rows) for row in Collection.open(whole, NAME).catalogue.rows()]
    prefix = f"s3://{bucket}-scenes/2026"
    assert sorted(states) == [
        (f"{prefix}/06/b.tif", "embedded", 4),
        (f"{prefix}/a.tif", "embedded", 4),
        (f"{prefix}/c #1.tif", "embedded", 4),
        (f"{prefix}/damaged.tif", "failed", 0),
    ]
    assert exit_code_of(partial(on_change, 7, kill), _embed, server, bucket, "killed", str(tiny_vit)) == -9
    assert killed.read(LAYOUT.catalogue) != whole.read(LAYOUT.catalogue)
    # Nobody wants to wait for the lease of the dead run.
    for key in _objects(killed):
        if "/lease/" in key:
            killed.delete(key)
    _embed(server, bucket, "killed", str(tiny_vit))
    for key in (LAYOUT.catalogue, LAYOUT.stac_collection):
        assert killed.read(key) == whole.read(key)
    assert len(_vectors(whole)) == 3
    assert _vectors(killed) == _vectors(whole)
    outputs = [{key for key in _objects(store) if "/lease/" not in key} for store in (killed, whole)]
    assert outputs[0] == outputs[1]
    assert len(outputs[0]) > 10


def _objects(store: ObjectStore) -> list[str]:
    return [key for folder in OUTPUT_FOLDERS for key, _ in store.find(folder)]
