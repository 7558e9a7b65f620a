"""Which dataset id a raster gets: never that of another raster's dataset, and still that of version 0.1."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rasterembed.collection.members import member_id
from rasterembed.dataset.manifest import read_manifest
from rasterembed.dataset.naming import choose_dataset_id
from rasterembed.errors import ConfigurationChangedError
from rasterembed.pipeline import EmbedOptions, embed_raster
from rasterembed.raster.source import ascii_dataset_id, default_dataset_id, default_dataset_id_of_0_1
from rasterembed.store.object_store import ObjectStore
from tests.support.runs import choices, write_raster

URI = "s3://rasters/in/scene.tif"
OLD, NEW = "in-scene-dcfe5a2c", "rasters-in-scene-3t7fulbpldtmgvcs"
"""Default ids of version 0.1, as it computed them, and of this version."""


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return ObjectStore(root=str(tmp_path / "store"))


def _manifest(uri: str) -> bytes:
    return json.dumps({"configuration": {"source": {"uri": uri}}}).encode()


def _plan(uri: str) -> bytes:
    return json.dumps({"source": {"uri": uri}}).encode()


def test_the_default_ids() -> None:
    assert (default_dataset_id_of_0_1(URI), default_dataset_id(URI)) == (OLD, NEW)


@pytest.mark.parametrize(
    ("name", "content"), [("manifest.json", _manifest(URI)), ("plan-0123456789ab.json", _plan(URI))]
)
def test_a_dataset_of_version_0_1_is_continued_under_its_id(name: str, content: bytes, store: ObjectStore) -> None:
    assert choose_dataset_id(store, URI) == NEW
    store.write(f"datasets/{OLD}/{name}", content)
    assert choose_dataset_id(store, URI) == OLD


def test_a_dataset_with_a_dash_for_each_accented_letter_is_continued_under_its_id(store: ObjectStore) -> None:
    uri = "s3://rasters/Köln.tif"
    old, new = ascii_dataset_id(uri), default_dataset_id(uri)
    assert (old[:-16], new[:-16], old[-16:]) == ("rasters-k-ln-", "rasters-koln-", new[-16:])
    assert choose_dataset_id(store, uri) == new
    store.write(f"datasets/{old}/manifest.json", _manifest(uri))
    assert choose_dataset_id(store, uri) == old
    assert member_id("survey", uri) == f"survey--{old}"  # A scene of a collection keeps its id.


@pytest.mark.parametrize(
    "content", [_manifest("s3://rasters/evil.tif"), b"", b"[]", b"null", b'{"configuration": 1}', b"[" * 100_000]
)
def test_another_rasters_dataset_with_the_old_id_is_left_alone(content: bytes, store: ObjectStore) -> None:
    store.write(f"datasets/{OLD}/manifest.json", content)
    assert choose_dataset_id(store, URI) == NEW


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("manifest.json", _manifest("s3://rasters/evil.tif")),
        ("plan-0123456789ab.json", _plan("s3://rasters/evil.tif")),
    ],
)
def test_another_rasters_dataset_is_never_replaced_without_an_id(name: str, content: bytes, store: ObjectStore) -> None:
    store.write(f"datasets/{NEW}/{name}", content)
    with pytest.raises(
        ConfigurationChangedError,
        match=rf"^dataset '{NEW}' in .* was made from another raster, 's3://rasters/evil\.tif', .*: give a dataset id$",
    ):
        choose_dataset_id(store, URI)


def test_a_run_finds_its_dataset_and_replaces_no_other(store: ObjectStore, tmp_path: Path, tiny_vit: Path) -> None:
    uri = str(write_raster(tmp_path / "scene.tif"))
    options = EmbedOptions(**choices(tiny_vit), quality_checks=False)
    old = embed_raster(store, uri, options.model_copy(update={"dataset_id": default_dataset_id_of_0_1(uri)}))
    unnamed = options.model_copy(update={"dataset_id": None})
    again = embed_raster(store, uri, unnamed)
    assert (again.already_complete, again.manifest) == (True, old.manifest)

    foreign = read_manifest(store, old.manifest.dataset_id)
    assert foreign is not None
    foreign.configuration["source"]["uri"] = "/another.tif"
    taken = f"datasets/{default_dataset_id(uri)}/manifest.json"
    for key in (taken, f"datasets/{old.manifest.dataset_id}/manifest.json"):
        store.write(key, foreign.model_dump_json().encode())
    with pytest.raises(ConfigurationChangedError, match="made from another raster"):
        embed_raster(store, uri, unnamed.model_copy(update={"replace": True}))
    assert json.loads(store.read(taken) or b"")["configuration"]["source"]["uri"] == "/another.tif"
