"""The table holds the vectors of all ready scenes once, in the order of the curve, and a kill changes nothing in it."""

from __future__ import annotations

import io
import json
import shutil
from functools import partial
from pathlib import Path

import geopandas
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rasterembed.collection import table_writing
from rasterembed.collection.collection import Collection
from rasterembed.collection.hilbert import hilbert_keys
from rasterembed.collection.scene_row import SceneState
from rasterembed.collection.table import TableDescription, read_table
from rasterembed.collection.table_writing import write_table
from rasterembed.collection_pipeline import embed_collection
from rasterembed.dataset.dataset import Dataset
from rasterembed.dataset.plan import PlanSettings
from rasterembed.dataset.selection import Selection
from rasterembed.errors import DataError, UsageError
from rasterembed.model.choice import Dinov3
from rasterembed.raster.grid import Grid
from rasterembed.store.layout import CollectionLayout
from rasterembed.store.object_store import ObjectStore
from tests.support.pictures import plain_pictures
from tests.support.runs import exit_code_of, kill, on_change
from tests.support.scenes import collection_options, write_scene

NAME = "survey"
LAYOUT = CollectionLayout(NAME)
pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory, tiny_vit: Path) -> Path:
    """A folder with four scenes, one of them without a place on Earth, and their collection without a table."""
    folder = tmp_path_factory.mktemp("collection")
    for number in range(3):
        write_scene(folder / f"scenes/{2 - number}.tif", number)
    with pytest.warns(match="no geotransform"):
        write_scene(folder / "scenes/nowhere.tif", 9, crs=None)
    (folder / "scenes/bad.tif").write_text("bad")
    settings = PlanSettings(
        grid=Grid(size=32),
        model=Dinov3(model=str(tiny_vit), device="cpu"),
        selection=Selection(allow_no_crs=True, shard_tiles=2),
    )
    options = collection_options(tiny_vit, settings=settings, quality_checks=True, table=False)
    with plain_pictures():
        embed_collection(ObjectStore(root=str(folder / "store")), NAME, str(folder / "scenes"), options)
    return folder / "store"


@pytest.fixture
def store(embedded: Path, tmp_path: Path) -> ObjectStore:
    shutil.copytree(embedded, tmp_path / "store")
    return ObjectStore(root=str(tmp_path / "store"))


def make(store: ObjectStore) -> TableDescription:
    collection = Collection.open(store, NAME)
    return write_table(store, LAYOUT, collection.configuration, collection.catalogue)


def rows(store: ObjectStore) -> pa.Table:
    table = read_table(store, LAYOUT)
    assert table is not None
    return pa.concat_tables([pq.read_table(io.BytesIO(store.read(part.path) or b"")) for part in table.parts])


def contents(store: ObjectStore) -> dict[str, bytes | None]:
    return {name: store.read(LAYOUT.table_file(name)) for name in store.sizes(LAYOUT.table_folder)}


def test_the_table_has_each_vector_once_in_the_order_of_the_curve(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table_writing, "_PART_BYTES", 64 * 4 * 5)
    table = make(store)
    assert [part.rows for part in table.parts] == [4, 4, 4, 4]
    found = rows(store)
    assert found.num_rows == table.rows == 16
    lon = [np.nan if box is None else (box["xmin"] + box["xmax"]) / 2 for box in found["bbox"].to_pylist()]
    lat = [np.nan if box is None else (box["ymin"] + box["ymax"]) / 2 for box in found["bbox"].to_pylist()]
    keys = hilbert_keys(np.array(lon), np.array(lat))
    assert (np.diff(keys) >= 0).all()
    # The scene without a place is last, and has no footprint.
    assert ["nowhere" in dataset_id for dataset_id in found["dataset_id"].to_pylist()] == [False] * 12 + [True] * 4
    assert found["geometry"].null_count == found["bbox"].null_count == 4
    catalogue = Collection.open(store, NAME).catalogue
    for row in catalogue.filter(states=[SceneState.READY]).rows():
        dataset = Dataset.open(store, row.id)
        tiles = [tile for batch in dataset.batches(["tile_id"]) for tile in batch["tile_id"].to_pylist()]
        own = found.filter(pa.compute.equal(found["dataset_id"], row.id))
        vectors = dict(zip(own["tile_id"].to_pylist(), own["embedding"].to_pylist(), strict=True))
        np.testing.assert_array_equal(np.array([vectors[tile] for tile in tiles], np.float32), dataset.vectors())
        if row.geometry is not None:
            shards = pa.Table.from_batches(dataset.batches()).sort_by("tile_id")
            for name in ("bbox", "geometry", "valid_fraction", "col_off"):
                assert own.sort_by("tile_id")[name].to_pylist() == shards[name].to_pylist()
        assert row.datetime is not None
        milliseconds = row.datetime.microsecond // 1000 * 1000
        assert set(own["datetime"].to_pylist()) == {row.datetime.replace(microsecond=milliseconds)}


def test_other_programs_read_the_table(store: ObjectStore) -> None:
    (part,) = make(store).parts
    frame = geopandas.read_parquet(store.uri(part.path))
    assert frame.crs == "OGC:CRS84"
    assert len(frame) == 16
    footer = pq.read_schema(store.uri(part.path)).metadata
    assert json.loads(footer[b"raster_embeddings"]) == {"collection": NAME}
    assert pq.read_metadata(store.uri(part.path)).metadata[b"emb"] == footer[b"emb"]
    asset = json.loads(footer[b"emb"])
    assert (asset["emb:type"], asset["emb:dimensions"], asset["data_type"]) == ("chip", 64, "float32")
    described = json.loads(store.read(LAYOUT.stac_collection) or b"")
    assert {name: asset[name] for name in asset if name.startswith("emb:")}.items() <= described.items()
    folder = Path(store.uri(part.path)).parent
    assert all((folder / link["href"]).resolve().is_file() for link in asset["links"])


def times(store: ObjectStore) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in Path(store.root).glob("collections/survey/table/part-*")}


def test_the_same_scenes_change_no_file(store: ObjectStore) -> None:
    first, before = make(store), times(store)
    assert make(store) == first
    assert times(store) == before


@pytest.mark.parametrize("most_rows", [3, 12])
def test_the_files_do_not_depend_on_the_order_in_which_scenes_came(
    most_rows: int, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table_writing, "_PART_BYTES", 64 * 4 * most_rows)
    make(store)
    whole = contents(store)
    collection = Collection.open(store, NAME)
    ids = collection.catalogue.filter(states=[SceneState.READY]).table["id"].to_pylist()
    rng = np.random.default_rng(most_rows)
    for order in (ids, ids[::-1], rng.permutation(ids).tolist()):
        # Scenes come one by one, and the last two of them leave and come back.
        for count in (0, 1, 2, 3, 4, 3, 2, 4):
            present = collection.catalogue.updated([], without=order[count:])
            table = write_table(store, LAYOUT, collection.configuration, present)
            assert table.rows == 4 * count
            assert table.scenes == count
        assert contents(store) == whole


def test_only_files_with_changed_scenes_are_written_and_only_their_shards_are_read(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table_writing, "_PART_BYTES", 64 * 4 * 5)
    collection = Collection.open(store, NAME)
    ready = collection.catalogue.filter(states=[SceneState.READY]).table["id"].to_pylist()
    fewer = collection.catalogue.updated([], without=ready[:1])
    write_table(store, LAYOUT, collection.configuration, fewer)
    before = times(store)
    opened: list[str] = []
    original = Dataset.open
    monkeypatch.setattr(Dataset, "open", lambda store, name, *rest: (opened.append(name), original(store, name))[1])
    make(store)
    assert set(opened) == {ready[0]}
    after = times(store)
    # The nearest scene was in the same cell, which is cut now. The files of the others stay.
    assert (len(before), len(after), len(before.items() & after.items())) == (3, 4, 2)
    opened.clear()
    write_table(store, LAYOUT, collection.configuration, fewer)
    assert opened == []
    assert len(after.items() & times(store).items()) == 2


def test_a_damaged_file_is_not_copied_into_a_new_table(store: ObjectStore) -> None:
    collection = Collection.open(store, NAME)
    make(store)
    whole = contents(store)
    without = [collection.catalogue.table["id"][1].as_py()]
    (part,) = write_table(
        store, LAYOUT, collection.configuration, collection.catalogue.updated([], without=without)
    ).parts
    data = bytearray(store.read(part.path) or b"")
    data[len(data) // 3] ^= 1
    store.write(part.path, bytes(data))
    make(store)
    assert contents(store) == whole


@pytest.mark.parametrize("damage", ["missing", "cut", "extra", "description"])
def test_a_damaged_table_is_written_again(damage: str, store: ObjectStore) -> None:
    (part,) = make(store).parts
    before = contents(store)
    if damage == "missing":
        store.delete(part.path)
    elif damage == "cut":
        store.write(part.path, b"PAR1")
    elif damage == "extra":
        store.write(LAYOUT.table_file("part-00000000000000-00-0123456789ab.parquet"), b"of a killed run")
    else:
        store.write(LAYOUT.table, b"{}")
        with pytest.raises(DataError, match="cannot read the table"):
            read_table(store, LAYOUT)
    make(store)
    assert contents(store) == before


def test_a_description_that_names_other_files_is_refused(store: ObjectStore) -> None:
    table = make(store)
    for path in ("datasets/other/manifest.json", "../x"):
        part = table.parts[0].model_copy(update={"path": path})
        store.write(LAYOUT.table, table.model_copy(update={"parts": (part,)}).model_dump_json().encode())
        with pytest.raises(DataError, match="the path of file 0 is not the one"):
            read_table(store, LAYOUT)


def _make_small_parts(root: str) -> None:
    table_writing._PART_BYTES = 64 * 4 * 5
    make(ObjectStore(root=root))


@pytest.mark.parametrize(("change", "grown"), [(1, False), (5, False), (2, True), (3, True), (4, True)])
def test_after_a_kill_the_next_table_is_the_same(
    change: int, grown: bool, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table_writing, "_PART_BYTES", 64 * 4 * 5)
    make(store)
    whole = contents(store)
    if grown:  # A table without one scene is in the store, and is about to be brought up to date.
        collection = Collection.open(store, NAME)
        ready = collection.catalogue.filter(states=[SceneState.READY]).table["id"].to_pylist()
        write_table(store, LAYOUT, collection.configuration, collection.catalogue.updated([], without=ready[:1]))
    else:
        for name in whole:
            store.delete(LAYOUT.table_file(name))
    assert exit_code_of(partial(on_change, change, kill), _make_small_parts, store.root) == -9
    assert contents(store) != whole
    make(store)
    assert contents(store) == whole


def test_vectors_come_from_the_table_and_without_one_from_the_shards(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    columns = ["embedding", "tile_id", "valid_fraction"]

    def vectors() -> pa.Table:
        batches = pa.Table.from_batches(Collection.open(store, NAME).vectors(columns))
        return batches.sort_by([("dataset_id", "ascending"), ("tile_id", "ascending")])

    from_shards = vectors()
    assert from_shards.column_names == ["dataset_id", *columns]
    assert from_shards.num_rows == 16
    make(store)
    monkeypatch.delattr(Dataset, "open")
    assert vectors().to_pydict() == from_shards.to_pydict()
    with pytest.raises(UsageError, match="no column 'colour'"):
        next(Collection.open(store, NAME).vectors(["colour"]))
    with pytest.raises(UsageError, match=r"^the columns are a list: give \['norm'\], not 'norm'$"):
        next(Collection.open(store, NAME).vectors("norm"))
