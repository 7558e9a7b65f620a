"""No scene with other settings than its collection gets into the table: its vectors cannot be compared."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.transform import Affine

from rasterembed.collection.collection import Collection
from rasterembed.collection.members import member_id
from rasterembed.collection_pipeline import CollectionOptions, embed_collection
from rasterembed.collection_upkeep import check_collection, rebuild_collection
from rasterembed.dataset.dataset import Dataset
from rasterembed.dataset.plan import PlanSettings
from rasterembed.errors import ConfigurationChangedError, DataError
from rasterembed.pipeline import EmbedOptions, embed_raster
from rasterembed.raster.grid import Grid
from rasterembed.raster.radiometry import Radiometry
from rasterembed.raster.validity import Validity
from rasterembed.search.collection_searcher import CollectionSearcher
from rasterembed.search.query import Query
from rasterembed.store.object_store import ObjectStore
from tests.support.pictures import plain_pictures
from tests.support.rasters import write
from tests.support.runs import files
from tests.support.scenes import collection_options, write_scene

pytestmark = pytest.mark.usefixtures("plain_pictures")

OTHER_SETTINGS = r"`size`: 32 in collection 'survey', 16 here.*`pooling`: \"cls\" in collection 'survey', \"mean\" here"


def _embed(store: ObjectStore, raster: Path, options: CollectionOptions, **changes: Any) -> None:
    assert options.settings is not None
    embed_raster(store, raster, EmbedOptions(**dict(options.settings), execution=options.execution, **changes))


def _other(options: CollectionOptions) -> CollectionOptions:
    """Return options with tiles of another size and another pooling."""
    assert options.settings is not None
    model = options.settings.model.model_copy(update={"pooling": "mean"})
    return options.model_copy(update={"settings": PlanSettings(grid=Grid(size=16), model=model)})


@pytest.fixture(scope="module")
def joined(tmp_path_factory: pytest.TempPathFactory, tiny_vit: Path) -> Path:
    """Return a folder with the scenes a and b, and a store with the collection `survey` of their datasets."""
    folder = tmp_path_factory.mktemp("joined")
    store, options = ObjectStore(root=str(folder / "store")), collection_options(tiny_vit)
    with plain_pictures():
        for number, name in enumerate("ab"):
            _embed(store, write_scene(folder / f"scenes/{name}.tif", number), options, dataset_id=name)
        rebuild_collection(store, "survey", datasets=["a", "b"])
    return folder


@pytest.fixture
def folder(joined: Path, tmp_path: Path) -> Path:
    shutil.copytree(joined / "store", tmp_path / "store")
    return joined


@pytest.fixture
def store(folder: Path, tmp_path: Path) -> ObjectStore:
    return ObjectStore(root=str(tmp_path / "store"))


@pytest.fixture
def options(tiny_vit: Path) -> CollectionOptions:
    return collection_options(tiny_vit, quality_checks=True)


@pytest.fixture
def changed(store: ObjectStore, folder: Path, options: CollectionOptions) -> Collection:
    """Return the collection after dataset a was embedded with other settings."""
    Dataset.open(store, "a").delete()
    _embed(store, folder / "scenes/a.tif", _other(options), dataset_id="a")
    return Collection.open(store, "survey")


def _rows(collection: Collection) -> dict[str, int]:
    """Return the number of vectors of each scene in the table or the shards."""
    ids = [name for batch in collection.vectors() for name in batch["dataset_id"].to_pylist()]
    return {name: ids.count(name) for name in sorted(set(ids))}


@pytest.mark.parametrize("named", [(), ("b",)])
def test_a_rebuild_refuses_a_scene_that_got_other_settings(changed: Collection, named: tuple[str, ...]) -> None:
    before = files(Path(changed.store.root))
    with pytest.raises(ConfigurationChangedError, match=f"^dataset 'a' has another.*{OTHER_SETTINGS}") as error:
        rebuild_collection(changed.store, "survey", datasets=named)
    assert "`rasterembed collection remove-scene survey a`" in str(error.value)
    after = {name: state for name, state in files(Path(changed.store.root)).items() if "/lease/" not in name}
    assert after == {name: state for name, state in before.items() if "/lease/" not in name}


def test_the_advice_of_verify_repairs_the_collection(
    changed: Collection, folder: Path, options: CollectionOptions
) -> None:
    (damage,) = changed.verify()
    assert damage.key == "datasets/a/manifest.json"
    sentence = damage.sentence(changed.store)
    assert "`size`: 32 in collection 'survey', 16 here" in sentence
    assert "`rasterembed collection remove-scene survey a`" in sentence
    assert "rebuild" not in sentence
    assert _rows(changed.remove_scene("a")) == {"b": 4}
    result = embed_collection(changed.store, "survey", str(folder / "scenes"), options)
    assert _rows(result.collection) == {"b": 4, member_id("survey", str(folder / "scenes/a.tif")): 4}
    assert result.collection.verify() == ()
    assert Dataset.open(changed.store, "a").manifest.rows == 16


def test_a_table_that_mixes_settings_is_found_by_verify(changed: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    """An earlier version wrote such tables."""
    monkeypatch.setattr("rasterembed.collection.rebuilding.check_member", lambda *_: None)
    mixed = rebuild_collection(changed.store, "survey")
    assert _rows(mixed) == {"a": 16, "b": 4}
    (damage,) = mixed.verify()
    assert "`size`: 32 in collection 'survey', 16 here" in damage.sentence(changed.store)
    repaired = mixed.remove_scene("a")
    assert repaired.verify() == ()
    assert _rows(repaired) == {"b": 4}


def test_a_dataset_with_a_mask_is_refused_in_the_same_way(
    store: ObjectStore, folder: Path, options: CollectionOptions, tmp_path: Path
) -> None:
    Dataset.open(store, "a").delete()
    mask = tmp_path / "mask.tif"
    with rasterio.open(folder / "scenes/a.tif") as scene:
        write(mask, np.full((1, 64, 64), 255, np.uint8), crs=scene.crs, transform=scene.transform)
    assert options.settings is not None
    masked = options.model_copy(
        update={"settings": options.settings.model_copy(update={"validity": Validity(mask=str(mask))})}
    )
    _embed(store, folder / "scenes/a.tif", masked, dataset_id="a")
    with pytest.raises(DataError, match=r"dataset 'a' .*mask.*remove-scene survey a"):
        rebuild_collection(store, "survey")
    (damage,) = Collection.open(store, "survey").verify()
    assert "mask" in damage.sentence(store)


def test_vectors_from_the_shards_have_the_settings_of_the_collection(changed: Collection) -> None:
    shutil.rmtree(changed.store.uri("collections/survey/table"))
    with pytest.raises(ConfigurationChangedError, match=OTHER_SETTINGS):
        _rows(Collection.open(changed.store, "survey"))


def test_a_run_that_must_write_the_table_again_refuses(
    changed: Collection, folder: Path, options: CollectionOptions
) -> None:
    shutil.rmtree(changed.store.uri("collections/survey/table"))
    with pytest.raises(DataError, match=r"'a' is another one than .* `rasterembed collection verify survey --root .*`"):
        embed_collection(changed.store, "survey", str(folder / "scenes"), options)


def test_an_image_is_read_with_the_settings_of_the_collection(changed: Collection, folder: Path) -> None:
    query = Query(image=str(folder / "scenes/b.tif"))
    with CollectionSearcher(changed.store, "survey") as searcher:
        with pytest.raises(ConfigurationChangedError, match=OTHER_SETTINGS):
            searcher.ask(query)
        with pytest.raises(ConfigurationChangedError, match=OTHER_SETTINGS):
            searcher.dataset_of_image()
        assert len(searcher.ask(Query(tile="b/r000000_c000000")).hits) == 7


def test_the_quality_checks_measure_no_vectors_of_other_settings(changed: Collection) -> None:
    report = check_collection(changed.store, "survey", dry_run=True)
    assert "another one than the catalogue says" in str(report.unreadable)


def test_a_scene_with_other_settings_does_not_choose_the_lattice(
    store: ObjectStore, tmp_path: Path, options: CollectionOptions
) -> None:
    assert options.settings is not None
    model, scenes = options.settings.model, tmp_path / "scenes"
    anchored = options.model_copy(update={"settings": PlanSettings(grid=Grid(size=32, anchor="crs"), model=model)})
    grid = Grid(size=32, anchor="crs", resolution=20, crs="EPSG:3067")
    warped = options.model_copy(update={"settings": PlanSettings(grid=grid, model=model)})
    _embed(store, write_scene(scenes / "c.tif", 3), anchored, dataset_id="c")
    rebuild_collection(store, "towns", datasets=["c"])
    Dataset.open(store, "c").delete()
    _embed(store, scenes / "c.tif", warped, dataset_id="c")
    write_scene(scenes / "d.tif", 4)
    result = embed_collection(store, "towns", str(scenes), options.model_copy(update={"settings": None}))
    assert result.failures() == []
    assert set(_rows(result.collection)) == {"c", member_id("towns", str(scenes / "d.tif"))}


def test_members_that_an_older_collection_left_do_not_come_back(
    store: ObjectStore, folder: Path, options: CollectionOptions
) -> None:
    embed_collection(store, "towns", str(folder / "scenes"), _other(options))
    shutil.rmtree(store.uri("collections/towns"))
    new = embed_collection(store, "towns", str(folder / "scenes/b.tif"), options).collection
    left = member_id("towns", str(folder / "scenes/a.tif"))
    (damage,) = new.verify()
    assert f"remove-scene towns {left}" in damage.sentence(store)
    assert "rebuild" not in damage.sentence(store)
    with pytest.raises(ConfigurationChangedError, match=f"'{left}' has another.*remove-scene towns {left}"):
        rebuild_collection(store, "towns")
    new.remove_scene(left)
    assert rebuild_collection(store, "towns").verify() == ()


def test_a_dataset_of_a_collection_is_not_replaced_by_one_with_other_settings(
    store: ObjectStore, folder: Path, options: CollectionOptions
) -> None:
    before = files(Path(store.root))
    with pytest.raises(
        ConfigurationChangedError, match=f"^dataset 'a' is a scene of collection 'survey'.*{OTHER_SETTINGS}"
    ) as error:
        _embed(store, folder / "scenes/a.tif", _other(options), dataset_id="a", replace=True)
    remove = f"`rasterembed collection remove-scene survey a --root {store.root}`"
    assert remove in str(error.value)
    assert files(Path(store.root)) == before
    # A dataset that no collection has is replaced, and so is one whose settings stay the same.
    Collection.open(store, "survey").remove_scene("a")
    _embed(store, folder / "scenes/a.tif", _other(options), dataset_id="a", replace=True)
    assert Dataset.open(store, "a").manifest.rows == 16
    _embed(store, folder / "scenes/a.tif", options, dataset_id="b", replace=True)
    assert Dataset.open(store, "b").plan.source.uri == str(folder / "scenes/a.tif")


@pytest.mark.parametrize(
    "settings",
    [
        {"radiometry": Radiometry(bands=(1, 2, 3))},
        {"radiometry": Radiometry(bands=(3, 2, 1), range=(0, 200))},
        {"radiometry": Radiometry(percentile=(2, 98))},
        {"radiometry": Radiometry(percentile=(1.23456789, 98))},
        {"radiometry": Radiometry(scale="sentinel2-l2a")},
        {"radiometry": Radiometry(stretch_of="a")},
        {"validity": Validity(nodata=0)},
        {"validity": Validity(nodata="nan", ignore_alpha=True)},
        {"grid": Grid(size=32, stride=32)},
        {"grid": Grid(size=32, edge="drop", anchor="crs", resolution=12.5, crs="EPSG:3067")},
    ],
)
def test_the_own_scenes_of_a_collection_have_its_settings(
    store: ObjectStore, tmp_path: Path, options: CollectionOptions, settings: dict[str, Any]
) -> None:
    """The settings are found again in the plans of a colour raster, of one with 16 bits and of one with a palette."""
    assert options.settings is not None
    pixels = np.random.default_rng(5).integers(1, 5000, (3, 64, 64)).astype(np.uint16)
    place: dict[str, Any] = {"crs": "EPSG:32635", "transform": Affine(10, 0, 500_000, 0, -10, 6_700_000)}
    write_scene(tmp_path / "scenes/eight.tif", 3)
    write(tmp_path / "scenes/sixteen.tif", pixels, photometric="rgb", **place)
    with rasterio.open(
        tmp_path / "scenes/palette.tif", "w", driver="GTiff", width=64, height=64, count=1, dtype="uint8", **place
    ) as file:
        file.write((pixels[:1] % 200 + 1).astype(np.uint8))
        file.write_colormap(1, {value: (value, 255 - value, 7, 255) for value in range(256)})
    chosen = options.model_copy(
        update={"settings": options.settings.model_copy(update=settings), "quality_checks": False}
    )
    collection = embed_collection(store, "towns", str(tmp_path / "scenes"), chosen).collection
    assert collection.catalogue.vectors
    assert collection.verify() == ()
    assert rebuild_collection(store, "towns").catalogue.table.equals(collection.catalogue.table)
