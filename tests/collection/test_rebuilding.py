"""Datasets that were embedded one by one, also by version 0.1, become a collection."""

from __future__ import annotations

import shutil
from pathlib import Path

import duckdb
import numpy as np
import pytest
import rasterio
from rasterio.transform import Affine

from rasterembed.collection.members import member_id
from rasterembed.collection.scene_row import SceneState
from rasterembed.collection_pipeline import CollectionSteps, embed_collection
from rasterembed.collection_upkeep import rebuild_collection
from rasterembed.dataset.dataset import Dataset
from rasterembed.dataset.manifest import ALL_STATES
from rasterembed.errors import ConfigurationChangedError, DataError, UsageError
from rasterembed.pipeline import EmbedOptions, embed_raster
from rasterembed.raster.grid import Grid
from rasterembed.store.object_store import ObjectStore
from tests.support.rasters import write
from tests.support.runs import files
from tests.support.scenes import collection_options, write_scene

pytestmark = pytest.mark.usefixtures("plain_pictures")

WRITTEN_BY_0_1 = Path(__file__).parents[1] / "data/written-by-0.1/embeddings-bucket"


def test_a_dataset_of_version_0_1_becomes_a_collection_with_a_table(tmp_path: Path) -> None:
    shutil.copytree(WRITTEN_BY_0_1, tmp_path / "store")
    store = ObjectStore(root=str(tmp_path / "store"))
    before = files(tmp_path / "store")
    collection = rebuild_collection(store, "old", datasets=["sc*"])
    assert {name: state for name, state in files(tmp_path / "store").items() if not name.startswith("collections")} == (
        before
    )
    (row,) = collection.catalogue.rows()
    assert (row.id, row.source, row.state, row.rows, row.skipped) == (
        "scene", "s3://rasters/scene.tif", SceneState.READY, 31, 4,
    )  # fmt: skip
    assert collection.configuration.grid == Grid(size=32)
    query = "SELECT tile_id, embedding FROM read_parquet('{}') ORDER BY tile_id"
    shards = duckdb.sql(query.format(store.uri("embeddings/scene/*.parquet"))).fetchall()
    assert duckdb.sql(query.format(store.uri("collections/old/table/*.parquet"))).fetchall() == shards
    assert len(shards) == 31
    # Without the option, a later rebuild keeps the dataset.
    assert rebuild_collection(store, "old").catalogue.table.equals(collection.catalogue.table)


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory, tiny_vit: Path) -> Path:
    """A folder with datasets `a` and `b` of one configuration, and `other` with another grid."""
    folder = tmp_path_factory.mktemp("datasets")
    store = ObjectStore(root=str(folder / "store"))
    options = collection_options(tiny_vit)
    assert options.settings is not None
    for number, (name, stride) in enumerate({"a": None, "b": None, "other": 16}.items()):
        settings = dict(options.settings) | {"grid": Grid(size=32, stride=stride)}
        embed = EmbedOptions(**settings, dataset_id=name, execution=options.execution, quality_checks=False)
        embed_raster(store, write_scene(folder / f"scenes/{name}.tif", number), embed)
    return folder


@pytest.fixture
def folder(embedded: Path, tmp_path: Path) -> Path:
    shutil.copytree(embedded / "store", tmp_path / "store")
    return embedded


@pytest.fixture
def store(folder: Path, tmp_path: Path) -> ObjectStore:
    return ObjectStore(root=str(tmp_path / "store"))


def test_a_rebuild_keeps_the_failure_of_a_scene_whose_file_changed(tmp_path: Path, tiny_vit: Path) -> None:
    scenes, store = tmp_path / "scenes", ObjectStore(root=str(tmp_path / "store"))
    for number, name in enumerate(("a.tif", "b.tif")):
        write_scene(scenes / name, number)
    (scenes / "never.tif").write_text("never a raster")
    # Without quality checks, a scene is not ready, and the table has no vectors of it.
    options = collection_options(tiny_vit, quality_checks=True)
    embed_collection(store, "survey", str(scenes), options)
    (scenes / "b.tif").write_bytes((scenes / "b.tif").read_bytes()[:5000])
    failed = embed_collection(store, "survey", str(scenes), options).collection
    rebuilt = rebuild_collection(store, "survey")
    for collection in (failed, rebuilt):
        states = dict(zip(*(collection.catalogue.table[name].to_pylist() for name in ("source", "state")), strict=True))
        assert states == {
            str(scenes / "a.tif"): "ready",
            str(scenes / "b.tif"): "failed",
            str(scenes / "never.tif"): "failed",
        }
        ids = {name for batch in collection.vectors() for name in batch["dataset_id"].to_pylist()}
        assert ids == {member_id("survey", str(scenes / "a.tif"))}
        assert collection.verify() == ()
    assert [row.reason for row in rebuilt.catalogue.rows()] == [row.reason for row in failed.catalogue.rows()]
    # Without a catalogue, only the last good state of the file is known. The next run finds out that it is gone.
    Path(store.uri(rebuilt.layout.catalogue)).unlink()
    assert rebuild_collection(store, "survey").catalogue.counts() == {SceneState.READY: 2}
    again = embed_collection(store, "survey", str(scenes), options)
    assert [scene.uri for scene in again.comparison.changed] == [str(scenes / "b.tif")]
    assert again.collection.catalogue.counts() == {SceneState.READY: 1, SceneState.FAILED: 2}


def test_datasets_of_another_configuration_are_refused_with_both_values(store: ObjectStore) -> None:
    with pytest.raises(ConfigurationChangedError, match=r"'other' has another configuration than dataset 'a'.*32.*16"):
        rebuild_collection(store, "survey", datasets=["*"])
    assert not store.sizes("collections/survey")
    rebuild_collection(store, "survey", datasets=["b"])
    with pytest.raises(ConfigurationChangedError, match="'other' has another configuration than collection 'survey'"):
        rebuild_collection(store, "survey", datasets=["other"])


def test_wrong_names_are_refused(store: ObjectStore) -> None:
    with pytest.raises(UsageError, match="no dataset 'c'"):
        rebuild_collection(store, "survey", datasets=["c"])
    with pytest.raises(UsageError, match="matches 'x-"):
        rebuild_collection(store, "survey", datasets=["x-*"])
    with pytest.raises(UsageError, match="no collection 'survey'"):
        rebuild_collection(store, "survey")


def test_a_pattern_leaves_datasets_of_other_collections_alone(store: ObjectStore, folder: Path, tiny_vit: Path) -> None:
    embed_collection(store, "others", str(folder / "scenes/a.tif"), collection_options(tiny_vit))
    assert len(list(store.find("datasets"))) > 0
    with pytest.raises(DataError, match="belong to other collections"):
        rebuild_collection(store, "survey", datasets=["others--*"])
    rebuilt = rebuild_collection(store, "survey", datasets=["[abo]", "others*"])
    assert rebuilt.catalogue.table["id"].to_pylist() == ["a", "b"]


def test_a_run_keeps_unchanged_datasets_and_replaces_changed_ones(
    store: ObjectStore, folder: Path, tiny_vit: Path, tmp_path: Path
) -> None:
    scenes = tmp_path / "scenes"
    shutil.copytree(folder / "scenes", scenes)
    (scenes / "other.tif").unlink()
    options = collection_options(tiny_vit)
    assert options.settings is not None
    for name in ("c", "d"):
        raster = write_scene(scenes / f"{name}.tif", 5)
        embed = EmbedOptions(**dict(options.settings), dataset_id=name, quality_checks=False)
        embed_raster(store, raster, embed)
    rebuild_collection(store, "survey", datasets=["c", "d"])
    write_scene(scenes / "d.tif", 6)
    (scenes / "a.tif").unlink()
    result = embed_collection(store, "survey", str(scenes), options)
    assert [scene.uri for scene in result.comparison.unchanged] == [str(scenes / "c.tif")]
    new = [member_id("survey", str(scenes / f"{name}.tif")) for name in ("b", "d")]
    assert result.collection.catalogue.table["id"].to_pylist() == sorted(["c", *new])
    # Pruning never deletes a dataset that the collection did not make.
    (scenes / "c.tif").unlink()
    pruned = embed_collection(store, "survey", str(scenes), options.model_copy(update={"prune": True}))
    assert pruned.collection.catalogue.table["id"].to_pylist() == sorted(new)
    assert Dataset.open(store, "c", ("embedded",)).manifest.rows == 4
    # The member of the collection wins over the older dataset of the same raster.
    assert rebuild_collection(store, "survey", datasets=["d"]).catalogue.table["id"].to_pylist() == sorted(new)


@pytest.mark.parametrize("together", [True, False])
def test_datasets_with_different_black_and_white_give_one_warning(
    together: bool, store: ObjectStore, folder: Path, tiny_vit: Path, tmp_path: Path
) -> None:
    pixels = np.random.default_rng(3).integers(100, 3000, (3, 64, 64)).astype(np.uint16)
    raster = write(tmp_path / "s16.tif", pixels, photometric="rgb")
    options = collection_options(tiny_vit)
    assert options.settings is not None
    settings = dict(options.settings)
    embed_raster(store, raster, EmbedOptions(**settings, dataset_id="s16", quality_checks=False))
    warnings: list[str] = []

    class Warned(CollectionSteps):
        def on_warning(self, message: str) -> None:
            warnings.append(message)

    for names in (["a", "b", "s16"],) if together else (["a", "b"], ["s16"]):
        rebuild_collection(store, "older", datasets=names, steps=Warned())
    (warning,) = warnings
    assert warning.startswith("the scenes have different black and white")
    low, high = (",".join(f"{value:g}" for value in np.percentile(pixels, end, axis=(1, 2))) for end in (2, 98))
    assert f"{raster} has bands 1,2,3, black {low}, white {high}" in warning
    assert f"{folder}/scenes/a.tif has " in warning


def test_datasets_of_an_anchored_grid_must_share_crs_and_pixel_size(tmp_path: Path, tiny_vit: Path) -> None:
    store, options = ObjectStore(root=str(tmp_path / "store")), collection_options(tiny_vit)
    assert options.settings is not None
    settings = dict(options.settings) | {"grid": Grid(size=32, anchor="crs")}
    for name, crs, pixel in (("a", 32635, 10), ("b", 32635, 10), ("zone", 32636, 10), ("fine", 32635, 5)):
        raster = write_scene(tmp_path / f"{name}.tif", 1 + (name == "b"), crs=f"EPSG:{crs}")
        with rasterio.open(raster, "r+") as file:
            file.transform = Affine(pixel, 0, 500_160, 0, -pixel, 6_700_160)
        embed_raster(store, raster, EmbedOptions(**settings, dataset_id=name, quality_checks=False))
    zones = r"zone\.tif: its CRS is '.* zone 36N', and that of the collection's tiles is '.* zone 35N'"
    with pytest.raises(DataError, match=zones):
        rebuild_collection(store, "survey", datasets=["a", "zone"])
    assert not store.sizes("collections/survey")
    assert rebuild_collection(store, "survey", datasets=["a", "b"]).catalogue.count == 2
    # The scenes that the collection has decide, also when all of the new ones agree.
    with pytest.raises(DataError, match=zones):
        rebuild_collection(store, "survey", datasets=["zone"])
    with pytest.raises(
        DataError, match=r"fine\.tif: its pixels are 5 x 5, and those of the collection's tiles are 10 x 10"
    ):
        rebuild_collection(store, "survey", datasets=["fine"])
    assert rebuild_collection(store, "survey", datasets=["a"]).catalogue.table["id"].to_pylist() == ["a", "b"]
    # A scene without its dataset says nothing. The next one decides, and new scenes are embedded.
    Dataset.open(store, "a", ALL_STATES).delete()
    write_scene(tmp_path / "new/c.tif", 5, crs="EPSG:32635")
    shutil.copy(tmp_path / "zone.tif", tmp_path / "new/zone.tif")
    own = options.model_copy(update={"settings": None, "max_failed_fraction": 1.0})
    result = embed_collection(store, "survey", str(tmp_path / "new"), own)
    (failed,) = result.failed
    assert "zone 36N" in str(failed.reason)
    assert result.collection.catalogue.row(member_id("survey", str(tmp_path / "new/c.tif"))) is not None
