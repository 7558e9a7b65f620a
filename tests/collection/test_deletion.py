"""A collection is deleted with its datasets, also if the process is killed in between."""

from __future__ import annotations

import os
import shutil
from functools import partial
from pathlib import Path

import pytest

from rasterembed.collection.collection import Collection
from rasterembed.collection.deletion import delete_collection
from rasterembed.collection_pipeline import embed_collection
from rasterembed.collection_upkeep import rebuild_collection
from rasterembed.dataset.dataset import Dataset
from rasterembed.dataset.manifest import ALL_STATES
from rasterembed.errors import ConfigurationChangedError, DataError, LeaseHeldError, UsageError
from rasterembed.pipeline import EmbedOptions, embed_raster
from rasterembed.raster.grid import Grid
from rasterembed.store.layout import CollectionLayout
from rasterembed.store.lease import hold_lease
from rasterembed.store.object_store import ObjectStore
from tests.support.runs import exit_code_of, kill, on_change
from tests.support.scenes import collection_options, write_scene

pytestmark = pytest.mark.usefixtures("plain_pictures")


def _delete(root: str) -> None:
    delete_collection(ObjectStore(root=root), "survey")


def _files(root: str) -> set[str]:
    return {str(path.relative_to(root)) for path in Path(root).rglob("*") if path.is_file()}


def _free_lease(root: str) -> None:
    """Delete the lease of a dead run, because a test does not want to wait for it."""
    for path in Path(root).glob("collections/*/lease/*"):
        os.unlink(path)


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory, tiny_vit: Path) -> Path:
    """Return a folder with a scene in `scenes`, and a store with its collection and with other datasets."""
    folder = tmp_path_factory.mktemp("deletion")
    scene = write_scene(folder / "scenes" / "a.tif")
    store = ObjectStore(root=str(folder / "store"))
    options = collection_options(tiny_vit)
    assert options.settings is not None
    for name in ("alone", "survey--mine"):
        embed_raster(store, scene, EmbedOptions(**dict(options.settings), dataset_id=name, quality_checks=False))
    others = _files(store.root)
    (folder / "others.txt").write_text("\n".join(others))
    embed_collection(store, "survey", str(folder / "scenes"), collection_options(tiny_vit, quality_checks=True))
    return folder


@pytest.fixture
def store(embedded: Path, tmp_path: Path) -> ObjectStore:
    shutil.copytree(embedded / "store", tmp_path / "store")
    return ObjectStore(root=str(tmp_path / "store"))


def test_everything_of_the_collection_is_deleted_and_nothing_else(store: ObjectStore, embedded: Path) -> None:
    others = set((embedded / "others.txt").read_text().splitlines())
    own = {name for name in _files(store.root) - others if "/lease/" not in name}
    deleted = delete_collection(store, "survey")
    assert len(deleted.datasets) == 1
    assert deleted.datasets[0].startswith("survey--")
    assert deleted.objects == len(own)
    assert _files(store.root) == others
    assert (embedded / "scenes/a.tif").exists()
    with pytest.raises(UsageError, match="there is no collection 'survey'"):
        delete_collection(store, "survey")
    assert _files(store.root) == others


# Before the 1st change nothing has happened. The first three changes make the collection one without scenes; the last
# one is the deletion of the STAC Collection.
@pytest.mark.parametrize("change", [1, 2, 3, 4, 8, 12, 15])
def test_after_a_kill_the_collection_has_no_broken_scene_and_is_deleted_by_the_next_call(
    change: int, embedded: Path, store: ObjectStore, tiny_vit: Path
) -> None:
    assert exit_code_of(partial(on_change, change, kill), _delete, store.root) == -9
    _free_lease(store.root)
    half = Collection.open(store, "survey")
    for dataset in half.datasets():
        assert dataset.manifest.rows == 4
    assert half.catalogue.count == (1 if change <= 2 else 0)
    if change in (3, 12):  # A person changes her mind: the run makes what is missing.
        options = collection_options(tiny_vit, quality_checks=True)
        again = embed_collection(store, "survey", str(embedded / "scenes"), options).collection
        assert again.catalogue.vectors == 4
        assert again.verify() == ()
        # The same vectors as before, and so the same files.
        assert {name for name in _files(store.root) if "/lease/" not in name} == {
            name for name in _files(str(embedded / "store")) if "/lease/" not in name
        }
    delete_collection(store, "survey")
    assert _files(store.root) == set((embedded / "others.txt").read_text().splitlines())


def test_an_unreadable_collection_is_deleted(store: ObjectStore, embedded: Path) -> None:
    Path(store.uri(CollectionLayout("survey").stac_collection)).write_text("{")
    delete_collection(store, "survey")
    assert _files(store.root) == set((embedded / "others.txt").read_text().splitlines())


def test_a_collection_at_work_and_a_link_are_left_alone(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = _files(store.root)
    monkeypatch.setattr("rasterembed.collection.deletion.DEAD_RUN_S", 0.0)
    with (
        hold_lease(store, CollectionLayout("survey"), "another-run", wait_s=0, on_wait=print),
        pytest.raises(LeaseHeldError, match="another-run"),
    ):
        delete_collection(store, "survey")
    assert {name for name in _files(store.root) if "/lease/" not in name} == {
        name for name in before if "/lease/" not in name
    }
    folder = Path(store.root) / "collections/survey"
    folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="it is a link to a folder outside the store, so nothing was deleted"):
        delete_collection(store, "survey")
    assert (tmp_path / "elsewhere/items.parquet").exists()


def test_a_dataset_that_joined_the_collection_stays(store: ObjectStore, tiny_vit: Path) -> None:
    rebuild_collection(store, "older", datasets=["alone"]).delete()
    assert Dataset.open(store, "alone", ALL_STATES).manifest.rows == 4
    assert not list((Path(store.root) / "collections/older").rglob("*.json"))


def test_settings_are_replaced_while_no_scene_has_vectors(tmp_path: Path, tiny_vit: Path) -> None:
    scenes, store = tmp_path / "scenes", ObjectStore(root=str(tmp_path / "store"))
    write_scene(scenes / "a.tif")
    (scenes / "bad.tif").write_text("bad")
    right, same = collection_options(tiny_vit), ObjectStore(root=str(tmp_path / "same"))
    assert right.settings is not None
    # A lattice of 10 px with its origin between the pixels' edges.
    wrong = right.model_copy(
        update={"settings": right.settings.model_copy(update={"grid": Grid(size=32, anchor="crs", origin=(5, 0))})}
    )
    failed = embed_collection(store, "survey", str(scenes), wrong)
    assert (len(failed.failed), failed.collection.catalogue.vectors) == (2, 0)
    mended = embed_collection(store, "survey", str(scenes), right).collection
    assert mended.configuration.grid == Grid(size=32)
    assert mended.verify() == ()
    # The result is that of a collection whose first run had the right settings.
    embed_collection(same, "survey", str(scenes), right)
    layout = CollectionLayout("survey")
    for key in (layout.catalogue, layout.stac_collection, layout.stac_model):
        assert store.read(key) == same.read(key)
    # A scene has vectors now, and keeps them also if its file is broken later.
    with pytest.raises(ConfigurationChangedError, match="rasterembed collection delete survey"):
        embed_collection(store, "survey", str(scenes), wrong)
    (scenes / "a.tif").write_text("bad")
    assert len(embed_collection(store, "survey", str(scenes), right).failed) == 2
    with pytest.raises(ConfigurationChangedError, match="rasterembed collection delete survey"):
        embed_collection(store, "survey", str(scenes), wrong)


def test_the_footer_of_a_catalogue_without_vectors_has_the_new_settings(tmp_path: Path, tiny_vit: Path) -> None:
    bad = tmp_path / "scenes/bad.tif"
    bad.parent.mkdir()
    bad.write_text("bad")
    store, same = (ObjectStore(root=str(tmp_path / name)) for name in ("store", "same"))
    right = collection_options(tiny_vit)
    assert right.settings is not None
    wrong = right.model_copy(update={"settings": right.settings.model_copy(update={"grid": Grid(size=64)})})
    for place, runs in ((store, (wrong, right)), (same, (right,))):
        for options in runs:
            embed_collection(place, "survey", str(bad), options)
    layout = CollectionLayout("survey")
    assert store.read(layout.catalogue) == same.read(layout.catalogue)
    assert store.read(layout.stac_collection) == same.read(layout.stac_collection)
