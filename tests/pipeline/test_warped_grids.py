"""Scenes of two UTM zones on one grid: the scene of the other zone is warped while it is read."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pyproj
import pytest
import rasterio
import shapely
from numpy.typing import NDArray
from PIL import Image
from rasterio.transform import Affine
from rasterio.warp import transform_bounds

from rasterembed.command_line.run import run as run_command
from rasterembed.commands.main import app
from rasterembed.dataset.dataset import Dataset
from rasterembed.dataset.embedding import Execution
from rasterembed.dataset.manifest import ALL_STATES
from rasterembed.dataset.plan import Plan
from rasterembed.errors import DataError
from rasterembed.pipeline import EmbedOptions, Steps, embed_raster
from rasterembed.qa.thresholds import QaThresholds
from rasterembed.raster.grid import Grid
from rasterembed.raster.radiometry import Radiometry
from rasterembed.search.query import Query
from rasterembed.search.thumbnails import thumbnails
from rasterembed.search.tile_lookup import Tile
from rasterembed.store.object_store import ObjectStore
from tests.support.pictures import plain_pictures
from tests.support.runs import choices, kill, on_change, run, vectors

SIDE = 32
ZONE = "EPSG:32635"
GRID = Grid(size=SIDE, anchor="crs", crs=ZONE, resolution=10.0)


def ground(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Return the colours of places in EPSG:32635: waves of different lengths, without zeros."""
    bands = [128 + 50 * np.sin(x / (90 + 20 * band)) + 50 * np.cos(y / (130 - 10 * band)) for band in range(3)]
    return np.array(bands).astype(np.uint8)


def write_ground(path: Path, crs: str, left: float, top: float, width: int, height: int) -> Path:
    """Write a scene of the ground with pixels of 10 m, in a CRS of its own."""
    x, y = np.meshgrid(left + 10 * (np.arange(width) + 0.5), top - 10 * (np.arange(height) + 0.5))
    to_zone = pyproj.Transformer.from_crs(crs, ZONE, always_xy=True)
    pixels = ground(*map(np.asarray, to_zone.transform(x, y)))
    place = {"crs": crs, "transform": Affine(10, 0, left, 0, -10, top), "nodata": 0}
    with rasterio.open(path, "w", width=width, height=height, count=3, dtype="uint8", **place) as file:
        file.write(pixels)
    return path


CORNER = 300_130.0, 6_700_070.0
"""Upper left corner of the scene in EPSG:32635. It is no tile's corner."""


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("zones")
    to_west = pyproj.Transformer.from_crs(ZONE, "EPSG:32634", always_xy=True)
    left, top = to_west.transform(CORNER[0] + 300, CORNER[1] - 200)
    return {
        "own": write_ground(folder / "own.tif", ZONE, *CORNER, 160, 140),
        "other": write_ground(folder / "other.tif", "EPSG:32634", round(left) + 3, round(top) + 1, 150, 150),
    }


def asked(model: Path, name: str) -> dict[str, Any]:
    lenient = QaThresholds(max_mean_cosine=1.0)
    return choices(model) | {
        "dataset_id": name, "grid": GRID, "radiometry": Radiometry(range=(0.0, 255.0)), "qa": lenient
    }  # fmt: skip


@pytest.fixture(scope="module")
def embedded(scenes: dict[str, Path], tiny_vit: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Dataset]:
    store = ObjectStore(root=str(tmp_path_factory.mktemp("warped")))
    with plain_pictures():
        for name, path in scenes.items():
            checked = name == "other"
            result = embed_raster(store, str(path), EmbedOptions(**asked(tiny_vit, name), quality_checks=checked))
            if checked:
                assert result.report is not None
                coverage = next(metric for metric in result.report.metrics if metric.name == "coverage")
                assert coverage.value == 1.0
    return {name: Dataset.open(store, name, ALL_STATES) for name in scenes}


def rows_of(dataset: Dataset) -> dict[str, dict[str, Any]]:
    table = pa.Table.from_batches(dataset.batches())
    return {row["tile_id"]: row for row in table.to_pylist()}


def test_scenes_of_two_zones_have_the_same_tiles(embedded: dict[str, Dataset]) -> None:
    assert embedded["own"].plan.profile.warp is None  # Its pixels are those of the grid.
    assert embedded["other"].plan.profile.warp is not None
    own, other = (rows_of(embedded[name]) for name in ("own", "other"))
    whole = [name for name in own.keys() & other.keys() if own[name]["valid_fraction"] == 1.0]
    whole = [name for name in whole if other[name]["valid_fraction"] == 1.0]
    assert len(whole) >= 4
    degrees_per_hundredth_px = 0.01 * 10 / 111_320
    for name in whole:
        one, two = (shapely.from_wkb(rows[name]["geometry"]) for rows in (own, other))
        assert shapely.hausdorff_distance(one, two) < degrees_per_hundredth_px
        first, second = (np.array(rows[name]["embedding"], np.float64) for rows in (own, other))
        # The ground is the same, and its colours were sampled and interpolated at other places.
        assert first @ second / np.linalg.norm(first) / np.linalg.norm(second) > 0.999


def test_the_valid_fraction_of_a_warped_tile_is_its_share_of_the_scene(
    embedded: dict[str, Dataset], scenes: dict[str, Path]
) -> None:
    with rasterio.open(scenes["other"]) as file:
        outline = shapely.segmentize(shapely.box(*file.bounds), 50)
    to_zone = pyproj.Transformer.from_crs("EPSG:32634", ZONE, always_xy=True)
    outline = shapely.transform(outline, lambda x, y: to_zone.transform(x, y), interleaved=False)
    rows = rows_of(embedded["other"])
    assert len(rows) > 20
    for name, row in rows.items():
        x, y = int(name[1:8]) * 320, int(name[10:17]) * 320
        share = shapely.box(x, y, x + 320, y + 320).intersection(outline).area / 320**2
        # Pixels are counted at their centres.
        assert row["valid_fraction"] == pytest.approx(share, abs=0.02)


def test_receipt_and_item_name_both_coordinate_systems(embedded: dict[str, Dataset], scenes: dict[str, Path]) -> None:
    dataset = embedded["other"]
    files = list(Path(dataset.store.root).glob("embeddings/other/*.parquet"))
    receipt = json.loads(pq.read_schema(files[0]).metadata[b"raster_embeddings"])
    assert pyproj.CRS.from_wkt(receipt["crs"]).to_epsg() == 32635
    assert pyproj.CRS.from_wkt(receipt["source_crs"]).to_epsg() == 32634
    with rasterio.open(scenes["other"]) as file:
        assert receipt["source_transform"] == list(file.transform)[:6]
        corners = transform_bounds(file.crs, "OGC:CRS84", *file.bounds, densify_pts=50)
    item = json.loads(dataset.store.read(dataset.plan.layout.stac_item) or b"")
    profile = dataset.plan.profile
    assert item["properties"]["proj:code"] == ZONE
    assert item["properties"]["proj:shape"] == [profile.height, profile.width]
    assert item["properties"]["proj:transform"][:6] == list(profile.transform)
    assert profile.transform[2] % 10 == profile.transform[5] % 10 == 0
    # The outline is that of the scene, not that of the grid's bounds.
    assert item["bbox"] == pytest.approx(list(corners), abs=1e-5)
    assert "warp" not in embedded["own"].plan.model_dump_json()
    assert dataset.verify() == ()


def test_a_place_finds_the_tile_and_its_picture(embedded: dict[str, Dataset], tmp_path: Path) -> None:
    dataset = embedded["other"]
    name, row = max(rows_of(dataset).items(), key=lambda pair: (pair[1]["valid_fraction"], pair[0]))
    x, y = int(name[1:8]) * 320 + 160, int(name[10:17]) * 320 + 160
    lon, lat = pyproj.Transformer.from_crs(ZONE, "OGC:CRS84", always_xy=True).transform(x, y)
    answer = dataset.search(Query(lonlat=(lon, lat), include_query=True), k=2)
    assert answer.hits[0].tile_id == name
    fields = {field: row[field] for field in Tile.model_fields if field in row}
    picture = thumbnails(dataset, [Tile(dataset_id="other", shard=0, **fields)], SIDE)["other", name]
    xs, ys = np.meshgrid(x - 160 + 10 * (np.arange(SIDE) + 0.5), y + 160 - 10 * (np.arange(SIDE) + 0.5))
    expected = np.moveaxis(ground(xs, ys), 0, -1)
    assert np.abs(np.asarray(picture).astype(int) - expected).max() <= 2
    # The picture as a file finds the tile too.
    assert isinstance(picture, Image.Image)
    picture.save(tmp_path / "chip.png")
    assert dataset.search(Query(image=str(tmp_path / "chip.png")), k=1).hits[0].tile_id == name


@pytest.mark.slow
@pytest.mark.vectors
def test_a_killed_run_and_a_run_with_two_threads_end_like_an_undisturbed_one(
    embedded: dict[str, Dataset], scenes: dict[str, Path], tiny_vit: Path, tmp_path: Path
) -> None:
    undisturbed = embedded["other"].store
    options = asked(tiny_vit, "other")
    store = ObjectStore(root=str(tmp_path / "killed"))
    outcome = run(scenes["other"], store, hook=partial(on_change, 5, kill), lease_s=0.5, **options)
    assert outcome.exit_code == -signal.SIGKILL
    assert 0 < len(store.sizes("embeddings/other")) < len(undisturbed.sizes("embeddings/other"))
    assert run(scenes["other"], store, lease_s=0.5, **options).error == ""
    assert vectors(store, "other") == vectors(undisturbed, "other")
    other = ObjectStore(root=str(tmp_path / "threads"))
    execution = Execution(batch_size=4, shard_threads=2)
    assert run(scenes["other"], other, **(options | {"execution": execution})).error == ""
    assert vectors(other, "other") == vectors(undisturbed, "other")


def _changed(place: tuple[str, ...], value: Any) -> Callable[[dict[str, Any]], None]:
    def change(plan: dict[str, Any]) -> None:
        at = plan
        for name in place[:-1]:
            at = at[name]
        at[place[-1]] = value

    return change


TAMPERED = {
    "another CRS": _changed(("profile", "crs_wkt"), pyproj.CRS(32633).to_wkt()),
    "a CRS that names a file": _changed(
        ("profile", "warp", "unwarped", "crs_wkt"), "+proj=longlat +nadgrids=/etc/passwd"
    ),
    "a CRS that is none": _changed(("profile", "crs_wkt"), "nonsense"),
    "no samples": _changed(("profile", "warp", "samples"), 0),
    "millions of samples": _changed(("profile", "warp", "samples"), 2**20),
    "another anchor": _changed(("profile", "warp", "anchor", "col"), 7),
    "another pixel size": _changed(("profile", "transform"), [20.0, 0.0, 300_000.0, 0.0, -20.0, 6_700_000.0]),
    "other bands": _changed(("profile", "warp", "unwarped", "dtype"), "uint16"),
    "a flat original": _changed(("profile", "warp", "unwarped", "transform"), [0.0, 0.0, 0.0, 0.0, 0.0, 0.0]),
    "no CRS of the original": _changed(("profile", "warp", "unwarped", "crs_wkt"), None),
}


@pytest.mark.parametrize("name", TAMPERED)
def test_an_impossible_warp_of_a_stored_plan_is_refused(
    embedded: dict[str, Dataset], tmp_path: Path, name: str
) -> None:
    plan = embedded["other"].plan
    content = json.loads(plan.model_dump_json())
    TAMPERED[name](content)
    store = ObjectStore(root=str(tmp_path))
    store.write(plan.layout.plan(plan.fingerprint), json.dumps(content).encode())
    with pytest.raises(DataError, match=r"cannot read the plan \(.*: embed the raster again"):
        Plan.read(store, "other", plan.fingerprint)


def test_the_command_takes_the_grid(
    embedded: dict[str, Dataset],
    scenes: dict[str, Path],
    tiny_vit: Path,
    tmp_path: Path,
    plain_pictures: None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ["embed", str(scenes["other"]), "--root", str(tmp_path), "--dataset-id", "other", "--size", str(SIDE)]
    words += ["--shard-tiles", "16", "--range", "0", "255", "--model", str(tiny_vit), "--device", "cpu"]
    words += ["--max-mean-cosine", "1", "--anchor", "crs", "--resolution", "10"]
    run_command(app, [*words, "--crs", ZONE])
    found = Dataset.open(ObjectStore(root=str(tmp_path)), "other")
    assert found.manifest.fingerprint == embedded["other"].manifest.fingerprint
    with pytest.raises(SystemExit):
        run_command(app, [*words, "--crs", "EPSG:1"])
    error = "error: --crs 'EPSG:1' is not understood: give a code as EPSG:32635, or WKT\n"
    assert capsys.readouterr().err.endswith(error)
    with pytest.raises(SystemExit):
        run_command(app, words[:-2])  # Without the resolution, the scene is not on the lattice.
    assert re.search(r"give --origin \d \d\. Otherwise", capsys.readouterr().err)


def test_the_grid_decides_the_fingerprint(embedded: dict[str, Dataset]) -> None:
    assert embedded["other"].manifest.configuration["grid"] == {
        "size": SIDE, "stride": SIDE, "edge": "pad", "anchor": "crs", "crs": ZONE, "resolution": 10.0
    }  # fmt: skip
    assert embedded["own"].plan.sharding.grid == GRID


@pytest.mark.parametrize(("resolution", "warns"), [(1.0, True), (2.0, False)])
def test_a_grid_with_far_smaller_pixels_than_the_raster_gives_a_warning(
    resolution: float, warns: bool, tmp_path: Path, tiny_vit: Path
) -> None:
    raster = write_ground(tmp_path / "small.tif", ZONE, *CORNER, 20, 10)
    warnings: list[str] = []

    class Warned(Steps):
        def on_warning(self, message: str) -> None:
            warnings.append(message)

    grid = Grid(size=SIDE, anchor="crs", crs=ZONE, resolution=resolution)
    options = EmbedOptions(**asked(tiny_vit, "small") | {"grid": grid}, quality_checks=False)
    embed_raster(ObjectStore(root=str(tmp_path / "store")), str(raster), options, steps=Warned())
    if warns:
        (warning,) = warnings
        assert warning == (
            "the raster has 20x10 px, and the grid 200x100 px: a pixel of the raster becomes about 10 x 10 px, so a "
            "tile shows little: use a larger `resolution`"
        )
    else:
        assert warnings == []
