"""The index of a collection while scenes are added, changed and removed: the answers stay those of NumPy."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from rasterembed.collection.collection import Collection
from rasterembed.collection_upkeep import rebuild_collection
from rasterembed.model.choice import Dinov3
from rasterembed.search.collection_searcher import CollectionSearcher
from rasterembed.search.engines.engine import NoIndexReason
from rasterembed.search.index.building import build_vector_index
from rasterembed.search.index_options import TableIndexOptions
from rasterembed.search.query import Pick, Query, Where
from rasterembed.search.vector_files import VectorFiles
from rasterembed.store.object_store import ObjectStore
from tests.support.search_world import ANCHORED, Scene, Tiles, special_vectors, tiles_of, write_scene_and_dataset
from tests.support.vectors import checkpoint

pytestmark = pytest.mark.usefixtures("few_candidates")

DIMENSIONS = 12
NAME = "grown"
FIRST_DAY = datetime(2026, 1, 1, tzinfo=UTC)
ENGINES = ("scan", "flat", "ivf", "vss")
EXACT = ("scan", "flat")


@dataclass
class Grown:
    """A collection that changes."""

    folder: Path
    engine: Any
    random: np.random.Generator
    scenes: dict[str, Scene] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.store = ObjectStore(root=str(self.folder / "store"))
        self.model = Dinov3(model=str(checkpoint(self.folder / "model", DIMENSIONS)), device="cpu")

    def write(self, scene: Scene) -> None:
        """Embed a new or changed scene, without any change of the collection."""
        vectors = special_vectors(self.random, scene.count, DIMENSIONS)
        valid = self.random.choice([0.25, 0.5, 1.0], scene.count).astype(np.float32)
        write_scene_and_dataset(self.folder, self.store, scene, self.model, vectors, valid, grid=ANCHORED)
        self.scenes[scene.name] = scene

    def add(self, *scenes: Scene) -> None:
        for scene in scenes:
            self.write(scene)
        rebuild_collection(self.store, NAME, datasets=[scene.name for scene in scenes])

    def remove(self, name: str) -> None:
        Collection.open(self.store, NAME).remove_scene(name)
        del self.scenes[name]

    def build(self) -> str:
        collection = Collection.open(self.store, NAME)
        assert collection.table is not None
        options = TableIndexOptions(index="always", index_engine=self.engine, index_ef_search=512)
        return build_vector_index(VectorFiles.of_table(collection, collection.table), options).describe()

    def of_scenes(self, tiles: Tiles, passes: Callable[[Scene], bool]) -> NDArray[np.bool_]:
        """Return which tiles are of the scenes that pass."""
        return np.isin(tiles.dataset, [name for name, scene in self.scenes.items() if passes(scene)])

    def tiles(self) -> Tiles:
        return tiles_of(self.store, sorted(self.scenes))

    def picked(self, tiles: Tiles, keep: NDArray[np.bool_], pick: Pick) -> NDArray[np.bool_]:
        """Return which tiles of a mask are of the picked scene."""
        if pick == "all":
            return keep
        best: dict[str, tuple[Any, int]] = {}
        for number in np.flatnonzero(keep):
            scene = self.scenes[tiles.dataset[number]]
            assert scene.when is not None
            order: tuple[Any, ...] = (-scene.when.timestamp(), scene.name)
            if pick == "clearest":
                cloud = np.inf if scene.cloud is None else scene.cloud
                order = (-float(tiles.valid[number]), cloud, *order)
            tile = tiles.tile[number]
            best[tile] = min(best.get(tile, (order, number)), (order, number))
        result = np.zeros(len(tiles), bool)
        result[[number for _, number in best.values()]] = True
        return result


def check_some_answers(grown: Grown, count: int, *engines: str) -> None:
    """Ask some questions, and compare the answers with those of NumPy.

    Args:
        grown: the collection.
        count: number of questions.
        engines: engines that may have answered.
    """
    tiles = grown.tiles()
    directed = np.flatnonzero(tiles.vector.any(axis=1))
    with CollectionSearcher(grown.store, NAME, engine=grown.engine) as searcher:
        for _ in range(count):
            pick = PICKS[grown.random.integers(len(PICKS))]
            values, keep = some_filters(grown, tiles)
            k = int(grown.random.choice([1, 2, 7, 25, 10_000]))
            number = grown.random.choice(directed)
            query = tiles.vector[number]
            if grown.random.random() < 0.5:
                answer = searcher.ask_vector(query, Where(pick=pick, **values), k)
            else:
                # The own tile is left out, and with `pick` the own ground in all scenes.
                keep &= np.arange(len(tiles)) != number if pick == "all" else tiles.tile != tiles.tile[number]
                name = f"{tiles.dataset[number]}/{tiles.tile[number]}"
                answer = searcher.ask(Query(tile=name), Where(pick=pick, **values), k)
            keep = grown.picked(tiles, keep, pick)
            found = [(hit.dataset_id, hit.tile_id) for hit in answer.hits]
            expected, distances = tiles.nearest(query, k, keep)
            assert len(found) == len(expected)
            assert all(keep[tiles.number(*names)] for names in found)
            if grown.engine in EXACT or k >= keep.sum():
                assert found == expected
                np.testing.assert_allclose([hit.distance for hit in answer.hits], distances, rtol=0, atol=1e-6)
            (used,) = answer.engines
            # `vss` may leave a question to the exact scan.
            assert used.name in engines or ("vss" in engines and used.no_index is NoIndexReason.UNDECIDED), used


PICKS: tuple[Pick, ...] = ("all", "latest", "clearest")


def some_filters(grown: Grown, tiles: Tiles) -> tuple[dict[str, Any], NDArray[np.bool_]]:
    """Return random filters, and the mask of the tiles that pass."""
    random, values = grown.random, {}
    keep = np.ones(len(tiles), bool)
    if random.random() < 0.5:
        corners = shapely.bounds(tiles.footprint)[random.integers(0, len(tiles), 2)]
        values["bbox"] = (*corners.min(axis=0)[:2].tolist(), *corners.max(axis=0)[2:].tolist())
        keep &= shapely.intersects(tiles.footprint, shapely.box(*values["bbox"]))
    if random.random() < 0.4:
        values["min_valid_fraction"] = float(random.choice([0.5, 1.0]))
        keep &= tiles.valid >= np.float32(values["min_valid_fraction"])
    if random.random() < 0.3:
        day = int(random.integers(0, 10))
        values["until"] = (FIRST_DAY + timedelta(days=day)).date()
        keep &= grown.of_scenes(tiles, lambda scene: scene.when < FIRST_DAY + timedelta(days=day + 1))
    if random.random() < 0.3:
        values["max_cloud_cover"] = 20.0
        keep &= grown.of_scenes(tiles, lambda scene: scene.cloud is not None and scene.cloud <= 20.0)
    return values, keep


def new_scene(name: str, random: np.random.Generator) -> Scene:
    return Scene(
        name,
        rows=int(random.integers(1, 5)),
        cols=int(random.integers(1, 6)),
        east=int(random.integers(0, 6)),
        when=FIRST_DAY + timedelta(days=int(random.integers(0, 10))),
        cloud=[None, 5.0, 20.0, 70.0][random.integers(4)],
        edition=int(random.integers(10**6)),
    )


def grow(folder: Path, engine: str, seed: int, steps: int, questions: int) -> None:
    """Change a collection several times. After each change, ask questions with the old index and with a new one."""
    grown = Grown(folder, engine, np.random.default_rng(seed))
    random = grown.random
    grown.add(*(new_scene(name, random) for name in "ab"))
    for number in range(steps + 1):
        if engine != "scan":
            # The index may be old. The exact scan then answers.
            check_some_answers(grown, 1, engine, "scan")
            grown.build()
        check_some_answers(grown, questions, engine)
        for _ in range(random.integers(1, 3)):
            kind = random.choice(["add", "add", "change", "remove"] if len(grown.scenes) > 1 else ["add"])
            name = str(random.choice(sorted(grown.scenes)))
            if kind == "add":
                grown.add(new_scene(f"s{number}-{len(grown.scenes)}", random))
            elif kind == "change":
                grown.add(replace(new_scene(name, random), when=grown.scenes[name].when))
            else:
                grown.remove(name)


@pytest.mark.parametrize("engine", ["flat", "ivf"])
def test_answers_of_a_growing_collection_are_those_of_numpy(engine: str, tmp_path: Path) -> None:
    grow(tmp_path, engine, seed=3, steps=2, questions=5)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
def test_more_answers_of_growing_collections_are_those_of_numpy(engine: str, tmp_path: Path) -> None:
    @settings(max_examples=2, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
    @given(seed=st.integers(0, 2**32))
    def change(seed: int) -> None:
        folder = tmp_path / str(seed)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        grow(folder, engine, seed, steps=4, questions=12)

    change()
