"""An answer without tiles says which filter left none. An answer about an unexpected area says what the area is."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely

from rasterembed.command_line.run import run
from rasterembed.commands.main import app
from rasterembed.dataset.dataset import Dataset
from rasterembed.model.choice import Dinov3
from rasterembed.search.index.building import build_vector_index
from rasterembed.search.index_options import VectorIndexOptions
from rasterembed.search.query import Query, Where
from rasterembed.search.searcher import Searcher, search
from rasterembed.search.vector_files import VectorFiles
from rasterembed.store.object_store import ObjectStore
from tests.support.search_world import Scene, Tiles, special_vectors, tiles_of, write_scene_and_dataset
from tests.support.vectors import checkpoint

DIMENSIONS = 12
SCENES = (
    Scene("alpha", 2, 3),
    Scene("beta", 2, 2, east=10, when=datetime(2024, 7, 3, 9, 41, tzinfo=UTC), cloud=20.0),
    Scene("gamma", 2, 2, east=40, when=datetime(2026, 6, 1, tzinfo=UTC), cloud=60.0),
)
NAMES = tuple(scene.name for scene in SCENES)
VECTOR = np.random.default_rng(3).standard_normal(DIMENSIONS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three datasets. Only the first tile has more than half of its pixels, and the last tile of alpha was skipped."""
    folder = tmp_path_factory.mktemp("empty")
    store = ObjectStore(root=str(folder / "store"))
    model = Dinov3(model=str(checkpoint(folder / "model", DIMENSIONS)), device="cpu")
    random = np.random.default_rng(2)
    for scene in SCENES:
        valid = np.full(scene.count, 0.5, np.float32)
        valid[0] = 0.9 if scene.name == "alpha" else 0.5
        skip = frozenset({5}) if scene.name == "alpha" else frozenset()
        write_scene_and_dataset(
            folder, store, scene, model, special_vectors(random, scene.count, DIMENSIONS), valid, skip=skip
        )
    classes = "dataset_id,tile_id,class\nbeta,r000000_c000000,water\nnowhere,r000000_c000000,ice\n"
    (folder / "classes.csv").write_text(classes)
    return folder


@pytest.fixture(scope="module")
def store(folder: Path) -> ObjectStore:
    return ObjectStore(root=str(folder / "store"))


@pytest.fixture(scope="module")
def tiles(store: ObjectStore) -> Tiles:
    return tiles_of(store, NAMES)


@pytest.fixture(scope="module", params=["scan", "flat"])
def searcher(request: pytest.FixtureRequest, store: ObjectStore) -> Iterator[Searcher]:
    if request.param != "scan":
        for name in NAMES:
            files = VectorFiles.of_dataset(Dataset.open(store, name))
            build_vector_index(files, VectorIndexOptions(index="always", index_engine=request.param))
    with Searcher(store, NAMES, engine=request.param) as searcher:
        yield searcher


def why(searcher: Searcher, **values: Any) -> str:
    """Return the hint of an answer, which must be empty."""
    answer = searcher.ask_vector(VECTOR, Where(**values))
    assert answer.hits == ()
    assert answer.notes()[-answer.hint.count("\n") - 1 :] == answer.hint.splitlines()
    return answer.hint


def inside(tiles: Tiles, number: int) -> tuple[float, ...]:
    """Return a box that touches only one tile."""
    west, south, east, north = tiles.footprint[number].bounds
    width, height = (east - west) / 3, (north - south) / 3
    return west + width, south + height, east - width, north - height


def test_names_that_no_scene_has(folder: Path, searcher: Searcher) -> None:
    alpha, beta, gamma = (
        f"{name} ({folder / name}{end})" for name, end in zip(NAMES, (".tif", ".json", ".json"), strict=True)
    )
    none = "none of the 3 scenes passes `scenes`: "
    assert why(searcher, scenes=("zzz", "y*")) == (
        f"{none}no dataset id or address is 'zzz' or 'y*', or matches it; the scenes are {alpha}, {beta}, {gamma}"
    )
    assert why(searcher, scenes=("amm",)) == f"{none}did you mean '*amm*'? It finds {gamma}"


@pytest.mark.parametrize(
    ("values", "names", "instead"),
    [
        ({"until": "2001-01-01"}, "`until`", "the dates are from 2024-07-03 to 2026-06-01"),
        ({"since": "2026-06-02"}, "`since`", "the dates are from 2024-07-03 to 2026-06-01"),
        (
            {"since": "2025-01-01", "until": "2025-12-31"},
            "`since` and `until`",
            "the dates are from 2024-07-03 to 2026-06-01, and none is between 2024-07-03 and 2026-06-01",
        ),
        (
            {"until": "2024-07-03T09:40:00Z"},
            "`until`",
            "the dates are from 2024-07-03T09:41:00Z to 2026-06-01T00:00:00Z",
        ),
    ],
)
def test_a_time_without_scenes(values: dict[str, str], names: str, instead: str, searcher: Searcher) -> None:
    assert why(searcher, **values) == (f"none of the 3 scenes passes {names}: {instead}; 1 of 3 scenes has no date")


def test_a_time_that_ends_before_it_begins(searcher: Searcher) -> None:
    assert why(searcher, since="2026-01-01", until="2024-01-01") == (
        "none of the 3 scenes passes `since` and `until`: no time is between them, because `since` is after `until`"
    )


def test_clouds(store: ObjectStore, searcher: Searcher) -> None:
    assert why(searcher, max_cloud_cover=19) == (
        "none of the 3 scenes passes `max_cloud_cover`: the smallest cloud cover is 20 %; 1 of 3 scenes has no known "
        "cloud cover"
    )
    with Searcher(store, ["alpha"]) as one:
        assert why(one, max_cloud_cover=19, since="2024-01-01").splitlines() == [
            "the scene does not pass `since`: its date is not known",
            "the scene does not pass `max_cloud_cover`: its cloud cover is not known",
        ]


def test_filters_that_no_scene_passes_together(searcher: Searcher) -> None:
    assert why(searcher, since="2025-01-01", max_cloud_cover=30) == (
        "no scene passes all filters together: of 3 scenes, 1 passes `since`, 1 passes `max_cloud_cover`"
    )


def test_the_largest_share_of_valid_pixels(searcher: Searcher) -> None:
    most = "no tile passes `min_valid_fraction`: the largest share of valid pixels is"
    assert why(searcher, min_valid_fraction=0.95) == f"{most} 0.9"
    assert why(searcher, min_valid_fraction=0.6, scenes=("beta",)) == f"{most} 0.5"
    assert len(searcher.ask_vector(VECTOR, Where(min_valid_fraction=0.9)).hits) == 1


def test_an_area_without_vectors(searcher: Searcher, tiles: Tiles) -> None:
    # The skipped tile lies to the right of the fifth one.
    west, south, east, north = inside(tiles, 4)
    shift = tiles.footprint[4].bounds[2] - tiles.footprint[4].bounds[0]
    assert why(searcher, bbox=(west + shift, south, east + shift, north)) == "no tile with a vector intersects `bbox`"


def test_filters_that_no_tile_passes_together(searcher: Searcher, tiles: Tiles) -> None:
    box = inside(tiles, tiles.number("beta", "r000000_c000000"))
    assert why(searcher, bbox=box, min_valid_fraction=0.8) == (
        "tiles pass each of the filters `bbox` and `min_valid_fraction`, but no tile passes all of them"
    )
    elsewhere, valid = why(searcher, bbox=(-10, -10, -9, -9), min_valid_fraction=0.95).splitlines()
    assert elsewhere.startswith("the area is outside the searched rasters")
    assert valid.endswith("the largest share of valid pixels is 0.9")


def test_classes(folder: Path, searcher: Searcher) -> None:
    file = str(folder / "classes.csv")
    assert why(searcher, class_file=file, classes=("ice",)).endswith("only in other datasets: nowhere")
    assert why(searcher, class_file=file, classes=("water",), scenes=("gamma",)).endswith(
        "only in other datasets: beta"
    )
    assert why(searcher, class_file=file, classes=("water",), min_valid_fraction=0.8) == (
        "tiles pass each of the filters `min_valid_fraction` and `class_file` and `classes`, but no tile passes all of "
        "them"
    )


def test_only_the_tiles_of_the_query_pass(searcher: Searcher, store: ObjectStore, tiles: Tiles) -> None:
    where = Where(bbox=inside(tiles, 0))
    answer = searcher.ask(Query(tile=f"alpha/{tiles.tile[0]}"), where)
    assert (answer.hits, answer.hint) == (
        (), "no tile passes but those of the query: they may be in the answer with `include_query`",
    )  # fmt: skip
    answer = searcher.ask(Query(tile=f"alpha/{tiles.tile[0]}", include_query=True), where)
    assert ([hit.tile_id for hit in answer.hits], answer.hint) == ([tiles.tile[0]], "")


def test_a_command_names_options(store: ObjectStore) -> None:
    question = ["search", "alpha", "--root", store.root, "--tile", "r000000_c000000", "--scenes", "zzz"]
    text = run(app, question)
    assert "0 of 12 tiles found: no tile matches\n" in text
    assert text.splitlines()[-1].startswith("the scene does not pass --scenes: no dataset id or address is 'zzz'")


def test_a_box_with_west_above_east_says_that_it_crosses_the_antimeridian(searcher: Searcher) -> None:
    # All tiles lie near longitude 24.4.
    answer = searcher.ask_vector(VECTOR, Where(bbox=(20.5, 50, 10, 70)), 3)
    assert len(answer.hits) == 3
    assert answer.hint == (
        "the box crosses the antimeridian, because west (20.5) is above east (10): it covers 349.5 degrees of "
        "longitude; did you mean the box 10 50 20.5 70?"
    )
    assert answer.notes()[-1] == answer.hint
    note, reason = why(searcher, bbox=(24.6, 50, 24, 70)).splitlines()
    assert note.endswith("it covers 359.4 degrees of longitude; did you mean the box 24 50 24.6 70?")
    assert reason.startswith("the area is outside the searched rasters")
    assert searcher.ask_vector(VECTOR, Where(bbox=(10, 50, 30, 70)), 3).hint == ""


def test_a_polygon_that_is_not_cut_at_the_antimeridian(store: ObjectStore, tmp_path: Path) -> None:
    def hint(shape: shapely.Geometry) -> str:
        area = tmp_path / "area.geojson"
        area.write_text(json.dumps(shapely.geometry.mapping(shape)))
        return search(store, ["alpha"], Query(tile="r000000_c000000"), Where(within=str(area))).hint

    assert hint(shapely.box(-175, 50, 175, 70)).startswith("a polygon covers 350 degrees of longitude")
    assert "degrees of longitude" not in hint(shapely.box(175, 50, 185, 70))
    assert hint(shapely.box(-180, 50, 180, 90)) == ""
