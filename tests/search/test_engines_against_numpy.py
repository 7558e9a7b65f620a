"""Every search engine against NumPy: the same tiles, in the same order, at the same distances, whatever is asked.

The tiles are few, so that thousands of queries take seconds. Among them are equal, parallel, opposite and zero vectors,
several shards, skipped tiles, and datasets that overlap.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from rasterembed.dataset.dataset import Dataset
from rasterembed.model.choice import Dinov3
from rasterembed.number_text import counted
from rasterembed.search.answer import Answer
from rasterembed.search.engines.engine import NoIndexReason
from rasterembed.search.index.building import build_vector_index
from rasterembed.search.index_options import VectorIndexOptions
from rasterembed.search.query import Query, Where
from rasterembed.search.searcher import Searcher
from rasterembed.search.vector_files import VectorFiles
from rasterembed.store.object_store import ObjectStore
from tests.support.search_world import Scene, Tiles, special_vectors, tiles_of, write_scene_and_dataset
from tests.support.vectors import checkpoint

pytestmark = pytest.mark.usefixtures("few_candidates")

DIMENSIONS = 12
SCENES = (
    Scene("alpha", 9, 14, when=datetime(2024, 7, 3, 9, 41, tzinfo=UTC)),
    Scene("beta", 5, 8, east=10, when=datetime(2026, 6, 1, tzinfo=UTC), cloud=20.0),
    Scene("gamma", 3, 4, east=40, when=datetime(2026, 6, 1, tzinfo=UTC), cloud=60.0),
    Scene("delta", 2, 2),
)
NAMES = tuple(scene.name for scene in SCENES)
ENGINES = ("scan", "flat", "ivf", "vss")
EXACT = ("scan", "flat")
K = st.one_of(st.integers(1, 30), st.sampled_from([1, 180, 10_000]))


@dataclass(frozen=True)
class World:
    """The store of one engine, a searcher of it, and all tiles."""

    tiles: Tiles
    searchers: dict[tuple[str, ...], Searcher]
    folder: Path

    def searcher(self, *names: str) -> Searcher:
        return self.searchers[names]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Tiles]:
    folder = tmp_path_factory.mktemp("world")
    store = ObjectStore(root=str(folder / "store"))
    model = Dinov3(model=str(checkpoint(folder / "model", DIMENSIONS)), device="cpu")
    random = np.random.default_rng(2)
    for scene in SCENES:
        vectors = special_vectors(random, scene.count, DIMENSIONS)
        valid = random.choice([0.25, 0.5, 0.75, 1.0], scene.count).astype(np.float32)
        skip = frozenset({0, 17, 18}) if scene.name == "alpha" else frozenset()
        write_scene_and_dataset(folder, store, scene, model, vectors, valid, skip=skip, shard_tiles=32)
    tiles = tiles_of(store, NAMES)
    classes = {"dataset_id": tiles.dataset, "tile_id": tiles.tile, "class": classes_of(tiles)}
    pq.write_table(pa.table(classes), folder / "classes.parquet")
    return folder, tiles


@pytest.fixture(scope="module")
def worlds(written: tuple[Path, Tiles]) -> Iterator[dict[str, World]]:
    """A copy of the store for each engine, with the indexes of that engine."""
    folder, tiles = written
    made = {}
    with ExitStack() as stack:
        for engine in ENGINES:
            shutil.copytree(folder / "store", folder / engine)
            store = ObjectStore(root=str(folder / engine))
            if engine != "scan":
                for name in NAMES:
                    build(store, name, engine)
            searchers = {
                names: stack.enter_context(Searcher(store, names, engine=engine))
                for names in (*((name,) for name in NAMES), NAMES)
            }
            made[engine] = World(tiles, searchers, folder)
        yield made


def build(store: ObjectStore, name: str, engine: str) -> None:
    options = VectorIndexOptions(index="always", index_engine=engine, index_ef_search=512)
    build_vector_index(VectorFiles.of_dataset(Dataset.open(store, name)), options)


@st.composite
def boxes(draw: st.DrawFn, tiles: Tiles) -> tuple[float, float, float, float]:
    """Draw a box whose corners are corners or middles of tiles, or anywhere near them."""
    bounds = shapely.bounds(tiles.footprint)
    sides = []
    for low, high in ((0, 2), (1, 3)):
        known = np.concatenate([bounds[:, low], bounds[:, high], bounds[:, [low, high]].mean(axis=1)])
        places = st.one_of(st.sampled_from(sorted(known.tolist())), st.floats(known.min() - 0.001, known.max() + 0.001))
        sides.append(sorted((draw(places), draw(places))))
    (west, east), (south, north) = sides
    return west, south, east, north


def classes_of(tiles: Tiles) -> NDArray[np.int64]:
    """Return a class from 0 to 3 for each tile."""
    return np.random.default_rng(6).integers(0, 4, len(tiles))


@st.composite
def filters(draw: st.DrawFn, tiles: Tiles, folder: Path) -> tuple[Where, NDArray[np.bool_]]:
    """Draw filters, and return them with the mask of the tiles that pass."""
    keep = np.ones(len(tiles), bool)
    values: dict[str, Any] = {}
    if draw(st.booleans()):
        values["bbox"] = draw(boxes(tiles))
        keep &= shapely.intersects(tiles.footprint, shapely.box(*values["bbox"]))
    if draw(st.integers(0, 3)) == 0:
        west, south, east, north = draw(boxes(tiles))
        corners = [(west, south), (east, draw(st.floats(south, north))), (draw(st.floats(west, east)), north)]
        area = shapely.Polygon(corners)
        if area.area > 1e-12:
            path = folder / "area.geojson"
            path.write_text(json.dumps(shapely.geometry.mapping(area)))
            values["within"] = str(path)
            keep &= shapely.intersects(tiles.footprint, area)
    if draw(st.integers(0, 2)) == 0:
        values["min_valid_fraction"] = draw(st.sampled_from([0.0, 0.3, 0.5, 0.75, 1.0]))
        keep &= tiles.valid >= np.float32(values["min_valid_fraction"])
    if draw(st.integers(0, 3)) == 0:
        chosen = draw(st.sets(st.integers(0, 3), min_size=1, max_size=2))
        values |= {"class_file": str(folder / "classes.parquet"), "classes": tuple(map(str, sorted(chosen)))}
        keep &= np.isin(classes_of(tiles), sorted(chosen))
    if draw(st.integers(0, 3)) == 0:
        of_scenes, names = draw(st.sampled_from(OF_SCENES))
        values |= of_scenes
        keep &= np.isin(tiles.dataset, names)
    return Where(**values), keep


OF_SCENES: list[tuple[dict[str, Any], list[str]]] = [
    ({"since": "2025-01-01"}, ["beta", "gamma"]),
    ({"until": "2025-12-31"}, ["alpha"]),
    ({"since": "2026-06-01T00:00:00Z", "until": "2026-06-01"}, ["beta", "gamma"]),
    ({"max_cloud_cover": 20.0}, ["beta"]),
    ({"max_cloud_cover": 60.0, "since": "2024-01-01"}, ["beta", "gamma"]),
    ({"scenes": ("be*", "*/delta.tif")}, ["beta", "delta"]),
    ({"scenes": ("alpha",)}, ["alpha"]),
    ({"scenes": ("nowhere",)}, []),
]
"""Filters of whole scenes, with the scenes that pass. Alpha has a date and no cloud cover, and delta has neither."""


@st.composite
def vectors(draw: st.DrawFn, tiles: Tiles) -> NDArray[np.float32]:
    """Draw a vector of any direction, or one that belongs to a tile, or is parallel or opposite to it."""
    if draw(st.booleans()):
        return np.random.default_rng(draw(st.integers(0, 1000))).standard_normal(DIMENSIONS).astype(np.float32)
    usable = np.flatnonzero((tiles.vector != 0).any(axis=1))
    vector = tiles.vector[draw(st.sampled_from(usable.tolist()))] * draw(st.sampled_from([1.0, 4.0, -1.0, 1e-3, 1e3]))
    return vector.astype(np.float32)


def check(answer: Answer, tiles: Tiles, query: NDArray[Any], k: int, keep: NDArray[np.bool_], engine: str) -> None:
    """Compare an answer with that of NumPy."""
    expected, _ = tiles.nearest(query, k, keep)
    found = [(hit.dataset_id, hit.tile_id) for hit in answer.hits]
    assert len(found) == len(expected)
    numbers = [tiles.number(*names) for names in found]
    assert len(set(numbers)) == len(numbers)
    assert found or answer.hint, "an empty answer says which filter left no tile"
    assert keep[numbers].all()
    distances = tiles.distances(query)[numbers]
    np.testing.assert_allclose([hit.distance for hit in answer.hits], distances, rtol=0, atol=1e-6)
    assert found == [found[n] for n in np.lexsort((*np.array(found, object).reshape(-1, 2).T, distances))]
    if engine in EXACT or k >= keep.sum():
        assert found == expected
    # `vss` may leave a question to the exact scan, but then it must say so.
    used = {(one.name, one.no_index) for one in answer.engines}
    assert used <= {(engine, None if engine != "scan" else NoIndexReason.SCAN_REQUESTED)} | (
        {("scan", NoIndexReason.UNDECIDED)} if engine == "vss" else set()
    )


def ask_any(world: World, engine: str, data: st.DataObject) -> None:
    """Draw a question, and compare the answer with that of NumPy."""
    names = data.draw(st.sampled_from([*((name,) for name in NAMES), NAMES]))
    searcher, tiles = world.searcher(*names), world.tiles
    where, keep = data.draw(filters(tiles, world.folder))
    keep = keep & np.isin(tiles.dataset, names)
    k = data.draw(K)
    if data.draw(st.booleans()):
        query = data.draw(vectors(tiles))
        # The second answer of an index with segments comes from copies of the vectors that pass the filters.
        for _ in range(2 if engine in ("flat", "ivf") else 1):
            check(searcher.ask_vector(query, where, k), tiles, query, k, keep, engine)
        return
    # The example is a tile. It is left out of the answer, unless it is asked for.
    own = np.flatnonzero(np.isin(tiles.dataset, names) & (tiles.vector != 0).any(axis=1))
    number = data.draw(st.sampled_from(own.tolist()))
    include = data.draw(st.booleans())
    if not include:
        keep[number] = False
    name = f"{tiles.dataset[number]}/{tiles.tile[number]}"
    answer = searcher.ask(Query(tile=name, include_query=include), where, k)
    check(answer, tiles, tiles.vector[number], k, keep, engine)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("names", [("alpha",), NAMES])
def test_no_tile_passes_the_filters(engine: str, names: tuple[str, ...], worlds: dict[str, World]) -> None:
    world, tiles = worlds[engine], worlds[engine].tiles
    of_class = {"class_file": str(world.folder / "classes.parquet"), "classes": ("1",)}
    elsewhere = {"bbox": (-10.0, -10.0, -9.0, -9.0)}
    for values in (
        elsewhere,
        {"scenes": ("nowhere",)},
        {"since": "2030-01-01"},
        {"max_cloud_cover": 20.0, "scenes": ("alpha", "gamma", "delta")},
        of_class | {"scenes": ("nowhere",)},
        of_class | elsewhere | {"min_valid_fraction": 0.5},
    ):
        for k in (1, 10_000):
            answer = world.searcher(*names).ask_vector(tiles.vector[5], Where(**values), k)
            check(answer, tiles, tiles.vector[5], k, np.zeros(len(tiles), bool), engine)
            assert f"0 of {counted(k, 'tile')} found: no tile matches" in answer.notes()


@pytest.mark.parametrize("engine", ENGINES)
def test_the_only_tile_in_an_area_was_skipped(engine: str, worlds: dict[str, World]) -> None:
    world, tiles = worlds[engine], worlds[engine].tiles
    # Tile 0 of alpha is skipped. A box around its middle touches no other tile of alpha.
    west, _, _, north = shapely.total_bounds(tiles.footprint[tiles.dataset == "alpha"])
    box = shapely.box(west + 0.0005, north - 0.0005, west + 0.0008, north - 0.0003)
    keep = shapely.intersects(tiles.footprint, box) & (tiles.dataset == "alpha")
    assert not keep.any()
    for _ in range(2):
        answer = world.searcher("alpha").ask_vector(tiles.vector[5], Where(bbox=box.bounds), 3)
        check(answer, tiles, tiles.vector[5], 3, keep, engine)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("names", [("delta",), NAMES])
def test_more_tiles_are_asked_for_than_there_are(engine: str, names: tuple[str, ...], worlds: dict[str, World]) -> None:
    tiles = worlds[engine].tiles
    keep = np.isin(tiles.dataset, names)
    for k in (int(keep.sum()), int(keep.sum()) + 1, 10_000):
        answer = worlds[engine].searcher(*names).ask_vector(tiles.vector[5], k=k)
        check(answer, tiles, tiles.vector[5], k, keep, engine)
        assert len(answer.hits) == keep.sum()


FAST = settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
DEEP = settings(FAST, max_examples=300)


@pytest.mark.parametrize("engine", ENGINES)
def test_answers_are_those_of_numpy(engine: str, worlds: dict[str, World]) -> None:
    @FAST
    @given(st.data())
    def ask(data: st.DataObject) -> None:
        ask_any(worlds[engine], engine, data)

    ask()


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
def test_more_answers_are_those_of_numpy(engine: str, worlds: dict[str, World]) -> None:
    @DEEP
    @given(st.data())
    def ask(data: st.DataObject) -> None:
        ask_any(worlds[engine], engine, data)

    ask()
