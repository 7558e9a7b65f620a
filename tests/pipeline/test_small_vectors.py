"""Vectors that are stored as int8 are embedded, verified, checked, searched and copied into a collection's table."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import duckdb
import geopandas
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from rasterembed import Collection, DataError, Dataset, ObjectStore, Query, decode_vectors
from rasterembed.collection_pipeline import embed_collection
from rasterembed.dataset.manifest import set_state
from rasterembed.dataset.plan import PlanSettings
from rasterembed.dataset.selection import Selection, VectorDtype
from rasterembed.model.choice import Dinov3
from rasterembed.pipeline import EmbedOptions, embed_raster
from rasterembed.qa.run import judge_dataset
from rasterembed.qa.scene_means import scene_means
from rasterembed.raster.grid import Grid
from rasterembed.search.collection_searcher import CollectionSearcher
from rasterembed.search.index_options import TableIndexOptions
from rasterembed.search.query import EngineChoice
from rasterembed.search.searcher import Searcher
from rasterembed.search.tile_lookup import find_tile, read_vectors
from rasterembed.store import duck
from tests.support.pictures import plain_pictures
from tests.support.scenes import collection_options, write_scene
from tests.support.stac_schemas import check

NAME = "survey"
GRID = Grid(size=32)
TILES, DIMENSIONS = 36, 64
"""Tiles of a scene, and length of a vector of the model `tiny_vit`."""


@dataclass(frozen=True)
class Scenes:
    folder: Path
    model: Dinov3

    @property
    def store(self) -> ObjectStore:
        return ObjectStore(root=str(self.folder / "store"))

    @property
    def collection(self) -> Collection:
        return Collection.open(self.store, NAME)

    def embed(self, number: int, store: ObjectStore, vector_dtype: VectorDtype) -> Dataset:
        """Embed a scene of the collection alone, as the dataset `alone`."""
        options = EmbedOptions(
            dataset_id="alone",
            grid=GRID,
            model=self.model,
            selection=Selection(vector_dtype=vector_dtype, shard_tiles=20),
            execution=collection_options(Path(self.model.model)).execution,
            quality_checks=False,
        )
        embed_raster(store, str(self.folder / f"scenes/{number}.tif"), options)
        return Dataset.open(store, "alone", ("embedded", "ready"))


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory, tiny_vit: Path) -> Scenes:
    """Two scenes of 6 x 6 tiles in a collection with a table and a vector index. The vectors are int8."""
    folder = tmp_path_factory.mktemp("small")
    for number in range(2):
        write_scene(folder / f"scenes/{number}.tif", number, side=192)
    model = Dinov3(model=str(tiny_vit), device="cpu")
    settings = PlanSettings(grid=GRID, model=model, selection=Selection(vector_dtype="int8", shard_tiles=20))
    index = TableIndexOptions(index="always", index_engine="flat")
    options = collection_options(tiny_vit, settings=settings, quality_checks=True, vector_index=index)
    with plain_pictures():
        embed_collection(ObjectStore(root=str(folder / "store")), NAME, str(folder / "scenes"), options)
    return Scenes(folder, model)


def unit(vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    wide = vectors.astype(np.float64)
    return wide / np.linalg.norm(wide, axis=1, keepdims=True)


def stored(rows: pa.Table) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Return the columns `embedding` and `scale` without the library."""
    assert rows.schema.field("embedding").type == pa.list_(pa.field("element", pa.int8(), nullable=False), DIMENSIONS)
    assert rows.schema.field("scale") == pa.field("scale", pa.float32(), nullable=False)
    return np.array(rows["embedding"].to_pylist(), np.int8), np.array(rows["scale"].to_pylist(), np.float32)


def test_shards_hold_the_rounded_vectors_of_a_float32_run(scenes: Scenes, tmp_path: Path) -> None:
    exact = scenes.embed(0, ObjectStore(root=str(tmp_path / "exact")), "float32")
    small = scenes.embed(0, ObjectStore(root=str(tmp_path / "small")), "int8")
    wide = exact.vectors().astype(np.float64)
    rows = pa.Table.from_batches(small.batches())
    assert rows.schema.names[: rows.schema.names.index("scale") + 1][-3:] == ["norm", "embedding", "scale"]
    numbers, scale = stored(rows)
    np.testing.assert_allclose(scale, np.abs(wide).max(axis=1) / 127, rtol=1e-6)
    steps = wide / (np.abs(wide).max(axis=1, keepdims=True) / 127)
    # The quotient is computed in float32. It may be rounded to the other side of a tie.
    assert np.abs(numbers - steps).max() < 0.5001
    assert (numbers == np.rint(steps)).mean() > 0.999
    np.testing.assert_allclose(small.vectors(), numbers * scale[:, None], rtol=1e-6)
    np.testing.assert_allclose(rows["norm"].to_numpy(), np.linalg.norm(wide, axis=1), rtol=1e-6)
    frame = small.to_geodataframe()
    assert "scale" not in frame
    np.testing.assert_array_equal(np.stack(frame["embedding"]), small.vectors())
    assert small.to_geodataframe(["tile_id", "scale"])["scale"].tolist() == scale.tolist()


def test_a_lost_shard_is_written_again_with_the_same_rows(scenes: Scenes, tmp_path: Path) -> None:
    store = ObjectStore(root=str(tmp_path))
    before = scenes.embed(1, store, "int8")
    files = [Path(store.uri(shard.path)) for shard in before.shards]
    old = [pq.read_table(file) for file in files]
    assert len(files) == 2
    files[1].unlink()
    after = scenes.embed(1, store, "int8")
    assert [pq.read_table(file) for file in files] == old
    assert after.verify() == ()
    assert after.shards[1].bytes == before.shards[1].bytes


def test_a_scene_passes_its_checks_and_is_verified(scenes: Scenes) -> None:
    datasets = list(scenes.collection.datasets())
    assert [dataset.manifest.rows for dataset in datasets] == [TILES] * 2
    for dataset in datasets:
        assert dataset.verify() == ()
        metrics = {metric.name: metric for metric in judge_dataset(dataset.store, dataset.manifest).metrics}
        for name in ("vectors_not_finite", "vectors_zero", "norms_wrong", "duplicate_share"):
            assert metrics[name].value == 0, name
    collection = scenes.collection
    means = scene_means(collection.store, collection.layout, collection.catalogue, DIMENSIONS, keep=False)
    by_id = {dataset.id: dataset.vectors() for dataset in datasets}
    for row, mean, norm in zip(means.row, means.mean, means.norm, strict=True):
        vectors = by_id[collection.catalogue.table["id"][int(row)].as_py()]
        np.testing.assert_allclose(mean, vectors.mean(axis=0, dtype=np.float64), atol=1e-5)
        assert norm == pytest.approx(np.linalg.norm(vectors, axis=1).mean(), rel=1e-5)


def test_the_table_has_the_rows_of_the_shards_and_other_programs_read_them(scenes: Scenes) -> None:
    collection = scenes.collection
    assert collection.table is not None
    (part,) = collection.table.parts
    path = scenes.store.uri(part.path)
    rows = pq.read_table(path)
    numbers, scale = stored(rows)
    tiles = zip(rows["dataset_id"].to_pylist(), rows["tile_id"].to_pylist(), strict=True)
    places = {tile: place for place, tile in enumerate(tiles)}
    for dataset in collection.datasets():
        shards = pa.Table.from_batches(dataset.batches(["tile_id", "embedding", "scale"]))
        order = [places[dataset.id, tile] for tile in shards["tile_id"].to_pylist()]
        own_numbers, own_scale = stored(shards)
        np.testing.assert_array_equal(numbers[order], own_numbers)
        np.testing.assert_array_equal(scale[order], own_scale)
    assert len(places) == 2 * TILES
    batches = list(collection.vectors())
    assert batches[0].schema.names == ["dataset_id", "tile_id", "embedding", "scale"]
    decoded = np.concatenate([decode_vectors(batch) for batch in batches])
    np.testing.assert_array_equal(decoded, numbers * scale[:, None])
    frame = geopandas.read_parquet(path)
    assert (len(frame), frame.crs) == (2 * TILES, "OGC:CRS84")
    in_sql = duckdb.sql(f"SELECT list_transform(embedding, x -> x * scale)::FLOAT[{DIMENSIONS}] AS v FROM '{path}'")
    np.testing.assert_allclose(np.stack(in_sql.fetchnumpy()["v"]), decoded, rtol=1e-6)


@pytest.mark.parametrize("engine", ["scan", "flat"])
def test_search_ranks_by_the_cosine_of_the_stored_vectors(engine: EngineChoice, scenes: Scenes) -> None:
    collection = scenes.collection
    rows = pa.Table.from_batches(collection.vectors())
    numbers, scale = stored(rows)
    vectors = unit(numbers * scale[:, None])
    names = list(zip(rows["dataset_id"].to_pylist(), rows["tile_id"].to_pylist(), strict=True))
    for place in (0, 17, 2 * TILES - 1):
        distance = 1 - vectors @ vectors[place]
        distance[place] = np.inf
        query = Query(tile="/".join(names[place]))
        with CollectionSearcher(scenes.store, NAME, engine=engine) as searcher:
            answer = searcher.ask(query, k=10)
        assert [used.name for used in answer.engines] == [engine]
        order = np.argsort(distance, kind="stable")[:10]
        assert [(hit.dataset_id, hit.tile_id) for hit in answer.hits] == [names[place] for place in order]
        np.testing.assert_allclose([hit.distance for hit in answer.hits], distance[order], atol=1e-5)
        own = [number for number, name in enumerate(names) if name[0] == names[place][0]]
        nearest = min(own, key=lambda number: distance[number])
        with Searcher(scenes.store, [names[place][0]], engine="scan") as searcher:
            assert searcher.ask(Query(tile=names[place][1]), k=1).hits[0].tile_id == names[nearest][1]
    dataset = next(collection.datasets())
    with duck.connect() as con:
        read = read_vectors(con, dataset, [find_tile(con, dataset, "r000000_c000000")])
    np.testing.assert_array_equal(read[0], dataset.vectors()[0])


def test_stac_and_footers_say_how_the_vectors_are_stored(scenes: Scenes) -> None:
    quantization = {
        "method": "linear, one scale a row: value = embedding * scale",
        "original_dtype": "float32",
        "quantized_dtype": "int8",
        "offset": [0.0],
    }
    collection = scenes.collection
    document = check(json.loads(scenes.store.read(collection.layout.stac_collection) or b""))
    assert document["data_type"] == "int8"
    assert collection.table is not None
    files = [part.path for part in collection.table.parts]
    for dataset in collection.datasets():
        item = check(json.loads(scenes.store.read(dataset.manifest.stac_item) or b""))
        assert item["properties"]["emb:quantization"] == quantization
        files += [shard.path for shard in dataset.shards]
        receipt = pq.read_schema(scenes.store.uri(dataset.shards[0].path)).metadata[b"raster_embeddings"]
        assert json.loads(receipt)["dtype"] == "int8"
    for path in files:
        asset = json.loads(pq.read_schema(scenes.store.uri(path)).metadata[b"emb"])
        assert (asset["data_type"], asset["emb:quantization"]) == ("int8", quantization)


def test_datasets_of_int8_and_float32_are_not_searched_together(scenes: Scenes) -> None:
    member = next(scenes.collection.datasets()).id
    alone = scenes.embed(0, scenes.store, "float32")
    set_state(scenes.store, alone.manifest, "ready")
    with pytest.raises(DataError, match="dtype of the vectors: int8 and float32"):
        Searcher(scenes.store, [member, "alone"])
