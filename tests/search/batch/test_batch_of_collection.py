"""Questions about all tiles of a collection, and the pictures of all questions."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow.parquet as pq
import pytest
from affine import Affine
from PIL import Image, ImageDraw

from rasterembed import (
    Collection,
    DataError,
    Dataset,
    Dinov3,
    ObjectStore,
    Query,
    UsageError,
    Where,
    rebuild_collection,
)
from rasterembed.collection.collection import write_collection
from rasterembed.collection.stac_collection import CollectionState
from rasterembed.commands.collection_show import describe
from tests.search.batch.conftest import COLS, DIMENSIONS, ROWS, VECTORS
from tests.search.batch.support import cosine_distances
from tests.support.vectors import SIDE, blank_raster, checkpoint, write_dataset

SCENES = ("east", "west")
WIDTH = COLS // 2


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Collection:
    """Two scenes side by side. The vectors of the first are the first half of `VECTORS`."""
    folder = tmp_path_factory.mktemp("collection")
    store = ObjectStore(root=str(folder / "store"))
    model = Dinov3(model=str(checkpoint(folder / "model", DIMENSIONS)))
    half = len(VECTORS) // 2
    for number, name in enumerate(SCENES):
        place = Affine(10, 0, 360_000 + number * 10 * WIDTH * SIDE, 0, -10, 6_720_000)
        raster = blank_raster(folder / f"{name}.tif", ROWS, WIDTH, transform=place)
        write_dataset(store, name, raster, model, VECTORS[number * half : (number + 1) * half])
    rebuild_collection(store, "both", datasets=list(SCENES))
    return Collection.open(store, "both")


def names_and_vectors(collection: Collection) -> tuple[list[tuple[str, str]], np.ndarray]:
    """Return tile ids and dataset ids of all tiles, and their vectors, read from the scenes."""
    names, vectors = [], []
    for scene in SCENES:
        dataset = Dataset.open(collection.store, scene)
        vectors.append(dataset.vectors())
        names += [(name, scene) for batch in dataset.batches(["tile_id"]) for name in batch.column(0).to_pylist()]
    return names, np.concatenate(vectors)


def test_neighbours_are_from_all_scenes(collection: Collection, out: Path) -> None:
    collection.neighbours(out, 4)
    names, vectors = names_and_vectors(collection)
    distances = cosine_distances(vectors)
    rows = pq.read_table(out).to_pylist()
    found: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for row in rows:
        found.setdefault((row["tile_id"], row["dataset_id"]), []).append(
            (row["neighbour_tile_id"], row["neighbour_dataset_id"])
        )
    for number, name in enumerate(names):
        order = sorted((round(max(distances[number, n], 0), 12), *names[n]) for n in range(len(names)) if n != number)
        assert found[name] == [(tile, scene) for _, tile, scene in order[:4]]


def test_the_pairs_can_be_joined_in_duckdb(collection: Collection, out: Path) -> None:
    """The mean distance of each scene's tiles to the nearest tile of the other scene."""
    collection.neighbours(out, 100)
    rows = duckdb.sql(
        f"SELECT dataset_id, neighbour_dataset_id, min(distance), count(DISTINCT tile_id) FROM '{out}' "
        "WHERE dataset_id <> neighbour_dataset_id GROUP BY ALL ORDER BY dataset_id"
    ).fetchall()
    assert [(row[0], row[1], row[3]) for row in rows] == [("east", "west", 60), ("west", "east", 60)]
    names, vectors = names_and_vectors(collection)
    own = np.array([scene == "east" for _, scene in names])
    nearest = cosine_distances(vectors)[own][:, ~own].min()
    assert rows[0][2] == rows[1][2] == pytest.approx(nearest, abs=1e-6)


def test_the_other_questions_name_the_scenes_too(collection: Collection, tmp_path: Path) -> None:
    names, _ = names_and_vectors(collection)
    for number, ask in enumerate((collection.deduplicate, collection.cluster)):
        ask(tmp_path / f"{number}.parquet")
        table = pq.read_table(tmp_path / f"{number}.parquet")
        assert set(zip(table["tile_id"].to_pylist(), table["dataset_id"].to_pylist(), strict=True)) == set(names)
    collection.diversify(tmp_path / "sample.csv", 30)
    lines = (tmp_path / "sample.csv").read_text().splitlines()
    assert len(lines) == 31
    sources = {(scene, Dataset.open(collection.store, scene).plan.source.uri) for scene in SCENES}
    assert {(row["dataset_id"], row["scene"]) for row in csv.DictReader(lines)} == sources


def test_pictures_of_a_collection_name_the_scenes(
    collection: Collection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Several scenes may have a tile of the same id."""
    drawn: list[str] = []
    draw = ImageDraw.ImageDraw.text

    def record(self: ImageDraw.ImageDraw, corner: tuple[int, int], text: str, **style: Any) -> None:
        drawn.append(text)
        draw(self, corner, text, **style)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", record)
    for ask in (collection.neighbours, collection.deduplicate, collection.cluster, collection.diversify):
        drawn.clear()
        ask(tmp_path / "result.parquet", picture=tmp_path / "picture.png")
        scenes = [re.fullmatch(r"(ea|we).*", text) for text in drawn]
        assert {scene[1] for scene in scenes if scene is not None} == {"ea", "we"}
        assert re.match(r"(collection 'both'|both)   \|   model ", drawn[1])


def test_a_search_takes_the_file_of_classes(dataset: Dataset, collection: Collection, out: Path) -> None:
    for owner, example in ((dataset, "r000000_c000000"), (collection, "east/r000000_c000000")):
        owner.cluster(out, 5)
        rows = pq.read_table(out).to_pylist()
        wanted = {(row["dataset_id"], row["tile_id"]) for row in rows if row["class"] in (1, 3)}
        answer = owner.search(Query(tile=example, include_query=True), Where(class_file=out, classes="1,3"), k=200)
        assert {(hit.dataset_id, hit.tile_id) for hit in answer.hits} == wanted


@pytest.mark.parametrize("of_collection", [False, True])
def test_every_question_has_a_picture(
    dataset: Dataset, collection: Collection, tmp_path: Path, of_collection: bool
) -> None:
    owner = collection if of_collection else dataset
    store = owner.store
    questions = {
        "neighbours": lambda picture: owner.neighbours(tmp_path / "a.parquet", picture=picture),
        "deduplicate": lambda picture: owner.deduplicate(tmp_path / "a.parquet", 0.05, picture=picture),
        "cluster": lambda picture: owner.cluster(tmp_path / "a.parquet", 25, picture=picture),
        "diversify": lambda picture: owner.diversify(tmp_path / "a.geojson", 5, picture=picture),
    }
    # Only the map of the classes is drawn differently for a collection.
    for name in ["cluster"] if of_collection else questions:
        result = questions[name](f"store:pictures/{name}.png")
        assert result.picture == store.uri(f"pictures/{name}.png")
        data = store.read(f"pictures/{name}.png")
        assert data is not None
        picture = Image.open(io.BytesIO(data)).convert("RGB")
        colours = picture.getcolors(2**24)
        assert colours is not None
        # More than one row of thumbnails, and more colours than those of paper, letters and a blank raster.
        assert min(picture.size) > 300
        assert len(colours) > (60 if name in {"neighbours", "cluster"} else 20)


def test_no_near_tiles_have_a_picture_too(dataset: Dataset, tmp_path: Path) -> None:
    result = dataset.deduplicate(tmp_path / "a.parquet", 0.0, picture=tmp_path / "a.png")
    assert result.facts["kept"] == 118  # Tiles 3, 50 and 51 are equal.
    assert Image.open(tmp_path / "a.png").size[1] > 200


def test_a_picture_does_not_replace_a_raster(tmp_path: Path) -> None:
    """The raster is a GeoTIFF, whatever the ending of its name."""
    raster = blank_raster(tmp_path / "raster.png", 2, 2)
    store = ObjectStore(root=str(tmp_path / "store"))
    model = Dinov3(model=str(checkpoint(tmp_path / "model", DIMENSIONS)))
    write_dataset(store, "png", raster, model, VECTORS[:4])
    rebuild_collection(store, "one", datasets=["png"])
    before = raster.read_bytes()
    for owner in (Dataset.open(store, "png"), Collection.open(store, "one")):
        for ask in (owner.neighbours, owner.deduplicate, owner.cluster, owner.diversify):
            with pytest.raises(UsageError, match="reads this file, and would replace it"):
                ask(tmp_path / "a.csv" if ask == owner.diversify else tmp_path / "a.parquet", picture=raster)
    assert raster.read_bytes() == before


def test_a_missing_raster_costs_only_the_picture(tmp_path: Path) -> None:
    raster = blank_raster(tmp_path / "raster.tif", 2, 2)
    store = ObjectStore(root=str(tmp_path / "store"))
    model = Dinov3(model=str(checkpoint(tmp_path / "model", DIMENSIONS)))
    write_dataset(store, "moved", raster, model, VECTORS[:4])
    raster.unlink()
    with pytest.raises(DataError, match=r"raster\.tif"):
        Dataset.open(store, "moved").neighbours(tmp_path / "a.parquet", picture=tmp_path / "a.png")
    assert pq.read_table(tmp_path / "a.parquet").num_rows == 12  # Four tiles with three neighbours each.
    assert not (tmp_path / "a.png").exists()


def test_a_collection_without_a_table_says_what_to_do(collection: Collection, out: Path) -> None:
    store = collection.store
    rebuild_collection(store, "gone", datasets=["east"])
    store.delete(Collection.open(store, "gone").layout.table)
    with pytest.raises(DataError, match=r"has no table.*rasterembed collection rebuild gone"):
        Collection.open(store, "gone").neighbours(out)


def test_a_collection_whose_run_was_stopped_says_what_to_do(collection: Collection, out: Path) -> None:
    store = collection.store
    stopped = rebuild_collection(store, "stopped", datasets=["east"])
    store.delete(stopped.layout.table)
    write_collection(store, stopped.layout, stopped.configuration, stopped.catalogue, CollectionState.EMBEDDING)
    stopped = Collection.open(store, "stopped")
    with pytest.raises(DataError, match=r"has no table.*or was stopped: wait for its end, or start it again$"):
        stopped.neighbours(out)
    assert "state: unfinished: no run writes it, because its run failed or was stopped\n" in describe(stopped)
