"""A map tile of a collection shows its scenes over each other, the newest on top, and reads a bounded number."""

from __future__ import annotations

import io
import itertools
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from rasterio.transform import Affine
from starlette.testclient import TestClient

from rasterembed.collection.scene_row import SceneState
from rasterembed.collection_upkeep import rebuild_collection
from rasterembed.explorer.imagery.mosaic import MOST_SCENES, SceneBoxes
from rasterembed.explorer.map_tile import MapTile
from rasterembed.explorer.views import SceneInfo
from rasterembed.raster.grid import Grid
from rasterembed.search.query import Where
from tests.explorer.imagery.conftest import Store, path_of, tile_at
from tests.support.rasters import write

RED, GREEN, BLUE = (200, 0, 0), (0, 200, 0), (0, 0, 200)

TILE = tile_at(27.003, 60.43, 12)
"""A map tile that all scenes of `survey` meet."""


def _scene(made: Store, name: str, colour: tuple[int, int, int], when: str, east_m: float, *, hole: bool) -> Path:
    pixels = np.zeros((3, 64, 64), np.uint8) + np.array(colour, np.uint8)[:, None, None]
    pixels[2] += 1  # Black would be nodata.
    if hole:
        pixels[:, :, 16:48] = 0
    path = made.folder / f"{name}.tif"
    write(path, pixels, transform=Affine(10, 0, 500_000 + east_m, 0, -10, 6_700_000), nodata=0)
    item = made.folder / f"{name}.json"
    item.write_text(
        f'{{"type": "Feature", "stac_version": "1.1.0", "id": "{name}", "geometry": null, '
        f'"properties": {{"datetime": "{when}T10:00:00Z"}}, "assets": {{"visual": {{"href": "{path.name}"}}}}}}'
    )
    made.add(name, item, Grid(size=32))
    return path


@pytest.fixture(scope="module")
def survey(made: Store) -> dict[str, Path]:
    """Write a collection of three scenes side by side, half over each other, and return their rasters."""
    scenes = {
        "old": _scene(made, "old", RED, "2024-06-01", 0, hole=False),
        "holed": _scene(made, "holed", GREEN, "2025-06-01", 0, hole=True),
        "newest": _scene(made, "newest", BLUE, "2026-06-01", 320, hole=False),
    }
    rebuild_collection(made.store, "survey", datasets=list(scenes))
    return scenes


def picture(service: TestClient, **parameters: str) -> NDArray[np.uint8]:
    """Return the map tile `TILE` of the collection, shape (rows, columns, 4)."""
    answer = service.get(f"/api/collections/survey/imagery/{path_of(TILE)}.webp", params=parameters)
    assert answer.status_code == 200, answer.text
    return np.asarray(Image.open(io.BytesIO(answer.content)).convert("RGBA"))


def colours_at(service: TestClient, **parameters: str) -> list[str]:
    """Return the names of the colours along the middle of the scenes, from west to east, without repetitions."""
    # The scenes are 640 m high and end 320 m south of northing 6,700,000: their middle is a row of the map tile.
    image = picture(service, **parameters).astype(int)
    shown = image[..., 3] > 0
    if not shown.any():
        return []
    rows = np.flatnonzero(shown.any(axis=1))
    row = image[(rows[0] + rows[-1]) // 2]
    names = np.where(row[:, 3] == 0, 3, row[:, :3].argmax(axis=1))
    # A lossy picture mixes the colours of a few pixels at an edge.
    runs = [(int(name), len(list(group))) for name, group in itertools.groupby(names.tolist())]
    texts = [("red", "green", "blue", "none")[name] for name, count in runs if count > 3]
    return [text for text, _ in itertools.groupby(texts)]


def test_the_newest_scene_is_on_top_and_holes_show_older_scenes(survey: dict[str, Path], service: TestClient) -> None:
    assert [c for c in colours_at(service) if c != "none"] == ["green", "red", "blue"]


@pytest.mark.parametrize(
    ("since", "until", "wanted"),
    [
        (None, "2024-12-31", ["red"]),
        (None, "2025-12-31", ["green", "red", "green"]),
        ("2025-01-01", "2025-12-31", ["green", "none", "green"]),
        ("2026-01-01", None, ["blue"]),
        ("2027-01-01", None, []),
    ],
)
def test_dates_choose_scenes(
    survey: dict[str, Path], service: TestClient, since: str | None, until: str | None, wanted: list[str]
) -> None:
    times = {name: value for name, value in (("since", since), ("until", until)) if value is not None}
    found = colours_at(service, **times)
    while found[:1] == ["none"]:
        found = found[1:]
    while found[-1:] == ["none"]:
        found = found[:-1]
    assert found == wanted


def test_other_scenes_are_drawn_without_one_that_is_gone(survey: dict[str, Path], service: TestClient) -> None:
    away = {name: path.rename(path.with_suffix(".away")) for name, path in survey.items()}
    try:
        # The dates make map tiles that are not in memory.
        answer = service.get(f"/api/collections/survey/imagery/{path_of(TILE)}.webp", params={"since": "2001-01-01"})
        assert answer.status_code == 404
        assert answer.json()["type"] == "raster-gone"
        away.pop("old").rename(survey["old"])
        found = colours_at(service, since="2001-01-02")
        assert [colour for colour in found if colour != "none"] == ["red"]
    finally:
        for name, path in away.items():
            path.rename(survey[name])
    assert "blue" in colours_at(service, since="2001-01-03")


def scene_info(number: int, box: tuple[float, float, float, float], days: int = 0) -> SceneInfo:
    """Return a scene that only has a box and a time."""
    return SceneInfo(
        dataset_id=f"scene-{number:06d}",
        source="",
        state=SceneState.READY,
        acquired=None,
        cloud_cover=None,
        rows=1,
        bbox=box,
        time=datetime(2024, 1, 1, tzinfo=UTC) + timedelta(days=days),
    )


def grid_of(side: int, degrees: float, dates: int) -> SceneBoxes:
    """Return the boxes of `side` x `side` scenes that touch, with several dates."""
    scenes = [
        scene_info(number, (col * degrees, row * degrees, (col + 1) * degrees, (row + 1) * degrees), number % dates)
        for number, (row, col, _) in enumerate(itertools.product(range(side), range(side), range(dates)))
    ]
    return SceneBoxes(scenes)


def test_a_map_tile_of_many_scenes_reads_a_few_or_none() -> None:
    boxes = grid_of(60, 0.5, 3)
    sizes: dict[int, int] = {}
    for zoom in range(14):
        sizes[zoom] = len(boxes.choose(tile_at(15.2, 15.2, zoom), Where()))
    assert max(sizes.values()) <= MOST_SCENES
    assert all(sizes[zoom] == 0 for zoom in range(boxes.smallest_zoom))
    assert all(sizes[zoom] > 0 for zoom in range(boxes.smallest_zoom, 14))
    # A map tile of 0.7 degrees meets at most 3 x 3 scenes. One of 1.4 degrees meets more than half of `MOST_SCENES`.
    assert boxes.smallest_zoom == 9


def test_the_newest_scenes_that_cover_a_map_tile_are_chosen_first() -> None:
    boxes = grid_of(8, 1.0, 40)
    tile = tile_at(3.5, 3.5, 9)
    chosen = boxes.choose(tile, Where())
    assert len(chosen) == MOST_SCENES
    days = [scene.time for scene in chosen if scene.time is not None]
    assert days == sorted(days, reverse=True)
    assert len(days) == len(chosen)
    west, _, east, _ = tile.bounds
    newest: dict[Any, datetime] = {}
    for scene, day in zip(chosen, days, strict=True):
        assert scene.bbox is not None
        assert scene.bbox[0] < east
        assert scene.bbox[2] > west
        newest.setdefault(scene.bbox, day)
    assert set(newest.values()) == {datetime(2024, 2, 9, tzinfo=UTC)}


def test_scenes_across_the_antimeridian_are_found_on_both_sides() -> None:
    boxes = SceneBoxes([scene_info(0, (179.0, 10.0, -179.0, 11.0)), scene_info(1, (20.0, 10.0, 21.0, 11.0))])
    row = tile_at(0, 10.5, 7).y
    assert [scene.dataset_id for scene in boxes.choose(MapTile(7, 127, row), Where())] == ["scene-000000"]
    assert [scene.dataset_id for scene in boxes.choose(MapTile(7, 0, row), Where())] == ["scene-000000"]
    assert boxes.choose(MapTile(7, 64, row), Where()) == []
    assert len(boxes.choose(MapTile(0, 0, 0), Where())) == 2


def test_scenes_without_a_place_are_left_out() -> None:
    placeless = SceneInfo("a", "", SceneState.READY, None, None, 1, None, None)
    boxes = SceneBoxes([placeless])
    assert boxes.choose(MapTile(0, 0, 0), Where()) == []
    assert boxes.smallest_zoom == 0
