"""Datasets that did not pass their quality checks, or were not checked: their tiles are shown, and not searched."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np
import pytest
import shapely
from starlette.testclient import TestClient

from rasterembed.dataset.dataset import Dataset
from rasterembed.dataset.manifest import ALL_STATES, State
from rasterembed.explorer.app import create_app
from rasterembed.explorer.settings import ExplorerSettings
from rasterembed.model.choice import Dinov3
from rasterembed.store.object_store import ObjectStore
from tests.explorer.tiles.test_tile_routes import middle, picture, pixel_at
from tests.support.vectors import blank_raster, checkpoint, write_dataset

ROWS, COLS = 4, 5
VALID = np.linspace(0.2, 1.0, ROWS * COLS, dtype=np.float32)
"""Valid fraction of the tiles of each dataset, in row-major order."""

WRONG = 7
"""Tile of `damaged` whose vector is not finite."""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ObjectStore:
    folder = tmp_path_factory.mktemp("unchecked")
    store = ObjectStore(root=str(folder / "store"))
    model = Dinov3(model=str(checkpoint(folder / "model", 8)), device="cpu")
    vectors = np.random.default_rng(2).standard_normal((ROWS * COLS, 8)).astype(np.float32)
    damaged = vectors.copy()
    damaged[WRONG] = np.nan
    states: tuple[tuple[str, State, np.ndarray], ...] = (
        ("rejected", "failed_qa", vectors),
        ("unchecked", "embedded", vectors),
        ("damaged", "failed_qa", damaged),
    )
    for name, state, own in states:
        raster = blank_raster(Path(folder) / f"{name}.tif", ROWS, COLS)
        write_dataset(store, name, raster, model, own, valid_fraction=VALID, state=state)
    return store


@pytest.fixture(scope="module")
def service(store: ObjectStore) -> TestClient:
    app = create_app(ExplorerSettings.read(store=store, device="cpu"))
    return TestClient(app, base_url="http://127.0.0.1", raise_server_exceptions=False)


@pytest.mark.parametrize("name", ["rejected", "unchecked"])
def test_the_tiles_are_shown_in_their_colours(service: TestClient, store: ObjectStore, name: str) -> None:
    details = service.get(f"/api/datasets/{name}").json()
    assert details["searchable"] is False
    assert [colour["name"] for colour in details["colours"]] == ["pca", "validity", "qa", "cluster"]
    tiles = Dataset.open(store, name, ALL_STATES).tiles()
    footprints = shapely.from_wkb(tiles["geometry"].to_numpy())
    for footprint, valid in zip(footprints, VALID, strict=True):
        at, col, row = pixel_at(*middle(footprint), 13)
        found = picture(service, f"datasets/{name}", at, colour="validity")[row, col]
        assert found[3] == 255
        assert np.abs(found[:3] - np.array(matplotlib.colormaps["cividis"](valid)[:3]) * 255).max() < 3
    for colour in ("pca", "qa", "cluster"):
        assert service.get(f"/api/datasets/{name}/legend", params={"colour": colour}).status_code == 200


def test_a_click_finds_the_tile_and_filters_hold(service: TestClient, store: ObjectStore) -> None:
    tile = Dataset.open(store, "rejected", ALL_STATES).tiles().to_pylist()[3]
    lon, lat = middle(shapely.from_wkb(tile["geometry"]))
    at = "/api/datasets/rejected/at"
    assert [one["tile_id"] for one in service.get(at, params={"lon": lon, "lat": lat}).json()] == [tile["tile_id"]]
    none = service.get(at, params={"lon": lon, "lat": lat, "min_valid_fraction": 0.9})
    assert none.json() == []
    outlines = service.get(
        "/api/datasets/rejected/footprints", params={"bbox": "-180,-90,180,90", "min_valid_fraction": 0.5}
    )
    assert len(outlines.json()["features"]) == int((VALID >= 0.5).sum())


@pytest.mark.parametrize(
    ("name", "why"), [("rejected", "did not pass its quality checks"), ("unchecked", "have not passed yet")]
)
def test_what_needs_the_checks_is_refused_with_the_reason(
    service: TestClient, store: ObjectStore, name: str, why: str
) -> None:
    tile = Dataset.open(store, name, ALL_STATES).tiles()["tile_id"][0].as_py()
    query = {"tile": f"{name}/{tile}"}
    for path, body in (
        ("search", {"query": query, "k": 3}),
        ("similarity", {"query": query}),
        ("export", {"query": query, "k": 3, "format": "geojson"}),
    ):
        # The map was drawn before, so the layers of the view are open.
        assert service.get(f"/api/datasets/{name}/legend", params={"colour": "validity"}).status_code == 200
        answer = service.post(f"/api/datasets/{name}/{path}", json=body)
        assert (answer.status_code, answer.json()["type"]) == (409, "not-usable")
        assert why in answer.json()["detail"]


def test_vectors_without_a_direction_leave_the_other_colours(service: TestClient) -> None:
    legend = "/api/datasets/damaged/legend"
    for colour in ("pca", "validity", "qa"):
        assert service.get(legend, params={"colour": colour}).status_code == 200
    refused = service.get(legend, params={"colour": "cluster"})
    assert (refused.status_code, refused.json()["type"]) == (409, "not-usable")
    assert "has no direction" in refused.json()["detail"]
