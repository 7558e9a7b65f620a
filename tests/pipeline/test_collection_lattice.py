"""Scenes of several CRSs and pixel sizes in a collection with an anchored grid, plain and warped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyproj
import pytest
import rasterio
from rasterio.transform import Affine

from rasterembed.collection.collection import Collection
from rasterembed.collection.lattice import lattice_of
from rasterembed.collection.scene_row import SceneRow, SceneState
from rasterembed.collection_pipeline import CollectionOptions, embed_collection
from rasterembed.dataset.plan import PlanSettings
from rasterembed.model.choice import Dinov3
from rasterembed.raster.grid import Grid
from rasterembed.store.object_store import ObjectStore
from tests.support.scenes import collection_options

NAME = "zones"
PLACE = 300_160.0, 6_700_160.0
"""Upper left corner of the scenes in EPSG:32635."""


def write(path: Path, crs: str = "EPSG:32635", pixel: float = 10.0, side: int = 64, shift: float = 0.0) -> Path:
    """Write a scene at the same place on Earth, in any CRS. Its edges are `shift` px from the lattice of its pixels."""
    to_crs = pyproj.Transformer.from_crs("EPSG:32635", crs, always_xy=True)
    left, top = ((round(value / pixel) + shift) * pixel for value in to_crs.transform(*PLACE))
    pixels = np.random.default_rng(1).integers(1, 256, (3, side, side), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    place: dict[str, Any] = {"crs": crs, "transform": Affine(pixel, 0, left, 0, -pixel, top)}
    with rasterio.open(path, "w", driver="GTiff", width=side, height=side, count=3, dtype="uint8", **place) as file:
        file.write(pixels)
    return path


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return ObjectStore(root=str(tmp_path / "store"))


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    write(tmp_path / "scenes" / "a.tif")
    write(tmp_path / "scenes" / "b.tif", "EPSG:32634")
    write(tmp_path / "scenes" / "c.tif", pixel=20.0)
    write(tmp_path / "scenes" / "d.tif", pixel=10.00001)
    return tmp_path / "scenes"


def options(model: Path, grid: Grid) -> CollectionOptions:
    return collection_options(
        model, settings=PlanSettings(grid=grid, model=Dinov3(model=str(model), device="cpu")), table=True
    )


def rows(store: ObjectStore) -> dict[str, SceneRow]:
    return {Path(row.source).name: row for row in Collection.open(store, NAME).catalogue.rows()}


def test_a_scene_of_another_lattice_fails_with_both_shown(store: ObjectStore, scenes: Path, tiny_vit: Path) -> None:
    """10.00001 m happen to be on their own lattice too, but a thousand kilometres away they name other ground."""
    chosen = options(tiny_vit, Grid(size=32, anchor="crs"))
    (scenes / "0.tif").write_bytes(b"no raster")  # It does not decide the lattice.
    embed_collection(store, NAME, str(scenes), chosen)
    found = rows(store)
    assert {name: row.state for name, row in found.items()} == {
        "0.tif": SceneState.FAILED,
        "a.tif": SceneState.EMBEDDED,
        "b.tif": SceneState.FAILED,
        "c.tif": SceneState.FAILED,
        "d.tif": SceneState.FAILED,
    }
    reason = found["b.tif"].reason or ""
    assert "CRS is 'WGS 84 / UTM zone 34N', and that of the collection's tiles is 'WGS 84 / UTM zone 35N'" in reason
    # A collection with datasets keeps its settings, so the advice is for another one.
    kept = " (in a new collection: this one keeps its settings)"
    result = embed_collection(store, NAME, str(scenes), chosen)
    (zone,) = [text for text in result.failures() if "zone 34N" in text]
    assert zone.endswith(f"or let every scene be warped to one grid with `crs` and `resolution`{kept}")
    assert "its pixels are 20 x 20, and those of the collection's tiles are 10 x 10" in (found["c.tif"].reason or "")
    # In a later run, the scenes in the catalogue decide, and not the first scene of the listing.
    write(scenes / "0.tif", "EPSG:32634")
    result = embed_collection(store, NAME, str(scenes), chosen)
    assert "zone 34N" in (rows(store)["0.tif"].reason or "")
    assert {Path(row.source).name for row in result.failed} == {"0.tif", "b.tif", "c.tif", "d.tif"}


@pytest.mark.parametrize("resolution", [None, 10.0])
def test_another_crs_is_the_reason_whatever_the_pixel_edges_are(
    resolution: float | None, store: ObjectStore, tmp_path: Path, tiny_vit: Path
) -> None:
    write(tmp_path / "scenes" / "a.tif")
    write(tmp_path / "scenes" / "shifted.tif", "EPSG:32634", shift=0.33)
    write(tmp_path / "scenes" / "degrees.tif", "EPSG:4326", pixel=0.0001, shift=0.33)
    write(tmp_path / "scenes" / "coarse.tif", pixel=20.0, shift=0.33)
    chosen = options(tiny_vit, Grid(size=32, anchor="crs", resolution=resolution))
    embed_collection(store, NAME, str(tmp_path / "scenes"), chosen)
    reasons = {name: row.reason or "" for name, row in rows(store).items()}
    assert "CRS is 'WGS 84 / UTM zone 34N', and that of the collection's tiles" in reasons["shifted.tif"]
    assert "CRS is 'WGS 84', and that of the collection's tiles" in reasons["degrees.tif"]
    if resolution is None:
        assert "its pixels are 20 x 20, and those of the collection's tiles are 10 x 10" in reasons["coarse.tif"]
    else:
        assert rows(store)["coarse.tif"].state is SceneState.EMBEDDED
    assert not any("`origin=" in reason for reason in reasons.values())


def test_with_a_crs_all_scenes_are_on_one_lattice(store: ObjectStore, scenes: Path, tiny_vit: Path) -> None:
    grid = Grid(size=32, anchor="crs", crs="EPSG:32635", resolution=10.0)
    embed_collection(store, NAME, str(scenes), options(tiny_vit, grid))
    found = rows(store)
    assert {row.state for row in found.values()} == {SceneState.EMBEDDED}
    datasets = {Path(dataset.plan.source.uri).name: dataset for dataset in Collection.open(store, NAME).datasets(
        (SceneState.EMBEDDED,)
    )}  # fmt: skip
    assert datasets["a.tif"].plan.profile.warp is None
    for name in ("b.tif", "c.tif", "d.tif"):
        assert datasets[name].plan.profile.warp is not None
    ids = {name: set(dataset.tiles()["tile_id"].to_pylist()) for name, dataset in datasets.items()}
    # The table of the collection compares this text.
    assert {lattice_of(dataset.plan) for dataset in datasets.values()} == {"EPSG:32635 10 -10"}
    assert len(ids["a.tif"] & ids["b.tif"]) >= 4
    assert ids["a.tif"] <= ids["c.tif"]


def test_a_resolution_alone_does_not_join_two_zones(store: ObjectStore, scenes: Path, tiny_vit: Path) -> None:
    grid = Grid(size=32, anchor="crs", resolution=10.0)
    embed_collection(store, NAME, str(scenes), options(tiny_vit, grid))
    assert [name for name, row in rows(store).items() if row.state is SceneState.FAILED] == ["b.tif"]
