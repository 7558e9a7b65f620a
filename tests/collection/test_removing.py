"""A scene is removed from a collection, also if the process is killed in between."""

from __future__ import annotations

import json
import os
import shutil
from functools import partial
from pathlib import Path

import duckdb
import pytest

from rasterembed.collection.collection import Collection
from rasterembed.collection_pipeline import embed_collection
from rasterembed.collection_upkeep import rebuild_collection, remove_from_collection
from rasterembed.dataset.dataset import Dataset
from rasterembed.errors import UsageError
from rasterembed.store.layout import CollectionLayout
from rasterembed.store.object_store import ObjectStore
from tests.support.pictures import plain_pictures
from tests.support.runs import exit_code_of, kill, on_change
from tests.support.scenes import collection_options, write_scene

LAYOUT = CollectionLayout("survey")
LAST = 10
"""The last change of a removal: the plan of the dataset is deleted."""


def _remove(root: str, scene: str) -> None:
    remove_from_collection(Collection.open(ObjectStore(root=root), "survey"), scene)


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory, tiny_vit: Path) -> Path:
    """Return a folder with two scenes in `scenes` and their collection in `store`."""
    folder = tmp_path_factory.mktemp("removing")
    for number, name in enumerate(("a.tif", "b.tif")):
        write_scene(folder / "scenes" / name, number)
    store = ObjectStore(root=str(folder / "store"))
    options = collection_options(tiny_vit, quality_checks=True)
    with plain_pictures():
        assert embed_collection(store, "survey", str(folder / "scenes"), options).collection.catalogue.count == 2
    return folder


@pytest.fixture(scope="module")
def undisturbed(embedded: Path) -> ObjectStore:
    """Return the store after the removal of scene a."""
    store = ObjectStore(root=str(embedded / "undisturbed"))
    shutil.copytree(embedded / "store", store.root)
    _remove(store.root, str(embedded / "scenes/a.tif"))
    return store


def _files(store: ObjectStore) -> set[str]:
    paths = (path for path in Path(store.root).rglob("*") if path.is_file() and "lease" not in path.parts)
    return {str(path.relative_to(store.root)) for path in paths}


@pytest.mark.parametrize("change", [1, 2, 3, 4, 6, LAST])
def test_after_a_kill_the_next_call_removes_the_rest(
    change: int, embedded: Path, undisturbed: ObjectStore, tmp_path: Path
) -> None:
    scene = str(embedded / "scenes/a.tif")
    store = ObjectStore(root=str(tmp_path / "store"))
    shutil.copytree(embedded / "store", store.root)
    assert exit_code_of(partial(on_change, change, kill), _remove, store.root, scene) == -9
    # A person does not want to wait for the lease of the dead run, and neither does this test.
    for path in Path(store.root).glob("*/*/lease/*"):
        os.unlink(path)
    _remove(store.root, scene)
    assert store.read(LAYOUT.catalogue) == undisturbed.read(LAYOUT.catalogue)
    assert store.read(LAYOUT.table) == undisturbed.read(LAYOUT.table)
    assert store.read(LAYOUT.stac_collection) == undisturbed.read(LAYOUT.stac_collection)
    assert json.loads(store.read(LAYOUT.stac_collection) or b"")["rasterembed:state"] == "ready"
    assert _files(store) == _files(undisturbed)


def test_what_is_removed_already_is_unknown(embedded: Path, undisturbed: ObjectStore) -> None:
    with pytest.raises(UsageError, match=r"has no scene .*it has .*b\.tif"):
        _remove(undisturbed.root, str(embedded / "scenes/a.tif"))


def test_a_dataset_that_joined_stays_and_the_next_call_after_a_kill_writes_the_table(
    embedded: Path, tmp_path: Path
) -> None:
    store = ObjectStore(root=str(tmp_path / "store"))
    shutil.copytree(embedded / "store", store.root)
    datasets = list(Collection.open(store, "survey").catalogue.table["id"].to_pylist())
    rebuild_collection(store, "joined", datasets=datasets)
    layout = CollectionLayout("joined")
    remove = partial(remove_from_collection, Collection.open(store, "joined"), datasets[0])
    # The third change is that of the table.
    assert exit_code_of(partial(on_change, 3, kill), remove) == -9
    for path in Path(store.root).glob("*/*/lease/*"):
        os.unlink(path)
    with pytest.raises(UsageError, match="has no scene"):
        remove()
    query = f"SELECT DISTINCT dataset_id FROM read_parquet('{store.root}/{layout.table_folder}/*.parquet')"
    assert duckdb.sql(query).fetchall() == [(datasets[1],)]
    assert json.loads(store.read(layout.table) or b"")["scenes"] == 1
    assert json.loads(store.read(layout.stac_collection) or b"")["rasterembed:state"] == "ready"
    assert Dataset.open(store, datasets[0]).manifest.rows == 4
