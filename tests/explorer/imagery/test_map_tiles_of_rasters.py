"""A map tile shows the pixels of the raster at their places, in the dataset's radiometry.

The right colours come from rasterio, and the right places from pyproj and morecantile.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import morecantile
import numpy as np
import pyproj
import pytest
import rasterio
from numpy.typing import NDArray
from PIL import Image
from rasterio.control import GroundControlPoint
from rasterio.enums import Resampling
from rasterio.transform import Affine, GCPTransformer, from_bounds
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window
from starlette.testclient import TestClient

from rasterembed.dataset.dataset import Dataset
from rasterembed.explorer.imagery.drawing import Drawing, draw
from rasterembed.explorer.imagery.open_rasters import OpenRasters
from rasterembed.explorer.imagery.view_imagery import imagery_of
from rasterembed.explorer.map_tile import MAX_LATITUDE, SIDE, MapTile
from rasterembed.explorer.views import ViewKind, Views
from rasterembed.raster.grid import Grid
from tests.explorer.imagery.conftest import Store
from tests.support.rasters import write

WEB_MERCATOR = morecantile.tms.get("WebMercatorQuad")

REAL = {
    "TCI": 224,
    "RGB.byte": 224,
    "RGBA.uint16": 224,
    "cog_dateline": 224,
    "cog_rgb_mask": 112,
    "cog_world": 2048,
    "cogeo": 224,
    "mosaic_cog1": 224,
    "world.rgb": 64,
}
"""Real rasters with an affine, and the side of the tiles of their datasets."""

MAGNIFIED = 5
"""Zooms beyond that of the raster's pixels. A pixel of the raster is then at least 16 px wide."""


@pytest.fixture(scope="module")
def dataset(made: Store, rasters: Path) -> Callable[[str], Dataset]:
    """Return a function that returns the dataset of a real raster, which is written when it is first needed."""
    written: dict[str, Dataset] = {}

    def of(name: str) -> Dataset:
        if name not in written:
            written[name] = made.add(name.lower().replace("_", "-"), rasters / f"{name}.tif", Grid(size=REAL[name]))
        return written[name]

    return of


_RASTERS = OpenRasters()


@pytest.fixture(scope="module", autouse=True)
def _close_rasters() -> Iterator[None]:
    yield
    _RASTERS.close()


def drawn(dataset: Dataset, tile: MapTile) -> Drawing:
    """Draw the raster of a dataset on a map tile."""
    with _RASTERS.use(dataset, on_grid=False) as raster:
        return draw(raster, tile)


def native_zoom(dataset: Dataset) -> int:
    """Return the largest zoom that shows more details of a dataset's raster."""
    views = Views(dataset.store)
    try:
        with views.use(ViewKind.DATASETS, dataset.id) as view:
            return imagery_of(view).zooms.largest
    finally:
        views.close()


def pixel_at(lon: float, lat: float, zoom: int) -> tuple[MapTile, int, int]:
    """Return the map tile at a place, and row and column of the pixel in it."""
    found = WEB_MERCATOR.tile(lon, lat, zoom)
    left, bottom, right, top = WEB_MERCATOR.xy_bounds(found)
    x, y = pyproj.Transformer.from_crs("OGC:CRS84", "EPSG:3857", always_xy=True).transform(lon, lat)
    row, col = (top - y) / (top - bottom) * SIDE, (x - left) / (right - left) * SIDE
    return MapTile(found.z, found.x, found.y), min(int(row), SIDE - 1), min(int(col), SIDE - 1)


def colours_of(dataset: Dataset, pixels: NDArray[Any]) -> NDArray[np.float64]:
    """Return the colours 0 to 255 of pixels, by the numbers of the dataset's radiometry. Shape (3, ...)."""
    radiometry = dataset.radiometry
    return np.stack(
        [
            np.clip((pixels[band - 1].astype(float) - low) / (high - low), 0, 1) * 255
            for band, low, high in zip(radiometry.bands, radiometry.low, radiometry.high, strict=True)
        ]
    )


def assert_pixel(dataset: Dataset, file: rasterio.DatasetReader, row: int, col: int, lonlat: Any, zoom: int) -> bool:
    """Compare a pixel of the raster with the map tile at its centre. Return whether the pixel is valid."""
    lon, lat = lonlat
    tile, map_row, map_col = pixel_at((lon + 180) % 360 - 180, lat, zoom)
    found = drawn(dataset, tile)
    window = Window(col - 1, row - 1, 3, 3)
    pixels = file.read(window=window)
    valid = file.dataset_mask(window=Window(col, row, 1, 1))[0, 0] > 0
    assert found.valid[map_row, map_col] == valid
    if valid:
        wanted = colours_of(dataset, pixels)
        # The middle of a map tile's pixel is at most 1/16 px away from that of the raster's pixel.
        slack = 1.0 + np.ptp(wanted, axis=(1, 2)) / 8
        assert (np.abs(found.colours[:, map_row, map_col] - wanted[:, 1, 1]) <= slack).all()
    return bool(valid)


@pytest.mark.parametrize("name", REAL)
def test_pixels_have_their_colours_at_their_places(name: str, rasters: Path, dataset: Callable[[str], Dataset]) -> None:
    shown, zoom = dataset(name), min(native_zoom(dataset(name)) + MAGNIFIED, 24)
    with rasterio.open(rasters / f"{name}.tif") as file:
        to_lonlat = pyproj.Transformer.from_crs(file.crs, "OGC:CRS84", always_xy=True)
        random, known, tried = np.random.default_rng(5), [], 0
        while tried < 5:
            row, col = int(random.integers(1, file.height - 1)), int(random.integers(1, file.width - 1))
            lon, lat = to_lonlat.transform(*file.xy(row, col))
            if abs(lat) < MAX_LATITUDE:
                known.append(assert_pixel(shown, file, row, col, (lon, lat), zoom))
                tried += 1
        assert any(known)


def test_a_raster_across_the_antimeridian_is_drawn_on_both_sides(dataset: Callable[[str], Dataset]) -> None:
    shown = dataset("cog_dateline")
    west = drawn(shown, MapTile(5, 31, 10)).valid
    east = drawn(shown, MapTile(5, 0, 10)).valid
    assert west[:, -1].any()
    # The raster goes on at the other edge of the map.
    assert (west[:, -1] == east[:, 0]).mean() > 0.99
    assert not drawn(shown, MapTile(5, 15, 10)).valid.any()
    whole = drawn(shown, MapTile(2, 0, 1)).valid
    assert whole[:, :16].any()
    assert not whole[:, 64:].any()


@pytest.mark.parametrize(("name", "steps"), [("TCI", 2), ("mosaic_cog1", 1), ("cog_world", 3)])
def test_a_smaller_zoom_shows_the_raster_as_gdal_does(
    name: str, steps: int, rasters: Path, dataset: Callable[[str], Dataset]
) -> None:
    shown = dataset(name)
    with rasterio.open(rasters / f"{name}.tif") as file:
        lon, lat = pyproj.Transformer.from_crs(file.crs, "OGC:CRS84", always_xy=True).transform(
            *file.xy(file.height // 2, file.width // 2)
        )
        tile, _, _ = pixel_at(lon, lat, native_zoom(shown) - steps)
        bounds = WEB_MERCATOR.xy_bounds(morecantile.Tile(tile.x, tile.y, tile.z))
        with WarpedVRT(
            file,
            crs="EPSG:3857",
            transform=from_bounds(*bounds, SIDE, SIDE),
            width=SIDE,
            height=SIDE,
            resampling=Resampling.bilinear,
        ) as warped:
            wanted, valid = colours_of(shown, warped.read()), warped.dataset_mask() > 0
    found = drawn(shown, tile)
    assert (found.valid != valid).mean() < 0.02
    # Overviews and the warper's weights are not the same, so the means of squares of 16 px are compared.
    squares = (SIDE // 16, 16, SIDE // 16, 16)
    whole = (found.valid & valid).reshape(squares).all(axis=(1, 3))
    ours, gdals = (one.reshape(3, *squares).mean(axis=(2, 4))[:, whole] for one in (found.colours, wanted))
    assert whole.any()
    assert np.abs(ours - gdals).mean() < 2
    assert np.abs(ours - gdals).max() < 16


def test_ground_control_points_place_the_raster(made: Store, rasters: Path) -> None:
    shown = made.add("gcps", rasters / "cog_gcps.tif")
    zoom = native_zoom(shown) + MAGNIFIED
    with rasterio.open(rasters / "cog_gcps.tif") as file, GCPTransformer(file.gcps[0]) as places:
        for row, col in ((100, 100), (400, 1200), (800, 30), (417, 640)):
            assert_pixel(shown, file, row, col, places.xy(row, col), zoom)
        point: GroundControlPoint = file.gcps[0][100]
    tile, _, _ = pixel_at(point.x, point.y, zoom)
    assert drawn(shown, tile).valid.any()


def _with_place(made: Store, name: str, pixels: NDArray[Any], **place: Any) -> tuple[Dataset, Path]:
    path = write(made.folder / f"{name}.tif", pixels, **place)
    return made.add(name, path, Grid(size=32)), path


@pytest.mark.parametrize(
    ("name", "crs", "transform"),
    [
        ("turned", "EPSG:32635", Affine.translation(500_000, 6_700_000) @ Affine.rotation(30) @ Affine.scale(10, -10)),
        ("polar", "EPSG:3413", Affine(20_000, 0, -640_000, 0, -20_000, 640_000)),
        ("south", "EPSG:3031", Affine(40_000, 0, 1_000_000, 0, -40_000, 640_000)),
        ("half", "EPSG:4326", Affine(0.5, 0, 165, 0, -0.5, 20)),
        ("east", "EPSG:4326", Affine(0.5, 0, 330, 0, -0.5, 20)),
        ("mercator", "EPSG:3857", Affine(10_000, 0, 19_700_000, 0, -10_000, 640_000)),
    ],
)
def test_rasters_of_many_maps_are_drawn_at_their_places(made: Store, name: str, crs: str, transform: Affine) -> None:
    pixels = np.random.default_rng(1).integers(1, 256, (3, 64, 64)).astype(np.uint8)
    pixels[:, 20:30, 10:40] = 0
    shown, path = _with_place(made, name, pixels, crs=crs, transform=transform, nodata=0)
    to_lonlat = pyproj.Transformer.from_crs(crs, "OGC:CRS84", always_xy=True)
    zoom = native_zoom(shown) + MAGNIFIED
    with rasterio.open(path) as file:
        known = []
        for row, col in ((1, 1), (62, 3), (5, 60), (25, 25), (40, 50)):
            lon, lat = to_lonlat.transform(*file.xy(row, col))
            if abs(lat) < MAX_LATITUDE:
                known.append(assert_pixel(shown, file, row, col, (lon, lat), zoom))
    assert len(known) >= 3
    assert any(known)


def test_a_raster_without_a_place_is_drawn_in_the_middle_of_the_map(made: Store, rasters: Path) -> None:
    shown = made.add("nowhere", rasters / "rotated.tif", Grid(size=16))
    with rasterio.open(rasters / "rotated.tif") as file:
        pixels = file.read()
    zoom = native_zoom(shown) + MAGNIFIED
    tile = MapTile(zoom, 2 ** (zoom - 1), 2 ** (zoom - 1))
    found = drawn(shown, tile)
    # The raster has 10 x 15 px of 10 m, and its middle is at longitude 0, latitude 0: below it begin column 5, row 7.5.
    metres = 40_075_016.7 / 2**zoom / SIDE
    col, row = 5 / metres, 10 / metres
    assert found.valid[int(row), int(col)]
    assert abs(int(found.colours[0, int(row), int(col)]) - colours_of(shown, pixels)[0, 8, 5]) <= 2


def test_masks_nodata_and_alpha_are_transparent(rasters: Path, dataset: Callable[[str], Dataset]) -> None:
    for name in ("RGB.byte", "cog_rgb_mask", "RGBA.uint16"):
        shown, zoom = dataset(name), native_zoom(dataset(name)) + MAGNIFIED
        with rasterio.open(rasters / f"{name}.tif") as file:
            mask = file.dataset_mask()
            to_lonlat = pyproj.Transformer.from_crs(file.crs, "OGC:CRS84", always_xy=True)
            hidden = np.argwhere(mask[1:-1, 1:-1] == 0) + 1
            for row, col in hidden[:: len(hidden) // 3 + 1].tolist():
                assert not assert_pixel(shown, file, row, col, to_lonlat.transform(*file.xy(row, col)), zoom)


def test_files_of_a_scene_are_drawn_together(made: Store) -> None:
    random = np.random.default_rng(2)
    fine = Affine(10, 0, 500_000, 0, -10, 6_700_000)
    files = {}
    for colour, side in (("red", 64), ("green", 64), ("blue", 32)):
        pixels = random.integers(500, 4000, (1, side, side)).astype(np.uint16)
        place = fine @ Affine.scale(64 / side)
        files[colour] = write(made.folder / f"{colour}.tif", pixels, crs="EPSG:32635", transform=place)
    item = made.folder / "scene.json"
    assets = ", ".join(
        f'"{colour}": {{"href": "{path.name}", "eo:bands": [{{"common_name": "{colour}"}}]}}'
        for colour, path in files.items()
    )
    item.write_text(
        '{"type": "Feature", "stac_version": "1.0.0", "id": "scene", "geometry": null, '
        f'"properties": {{"datetime": "2024-07-01T10:00:00Z"}}, "assets": {{{assets}}}}}'
    )
    shown = made.add("scene", item, Grid(size=32))
    zoom = native_zoom(shown) + MAGNIFIED
    to_lonlat = pyproj.Transformer.from_crs("EPSG:32635", "OGC:CRS84", always_xy=True)
    for row, col in ((10, 10), (41, 51), (60, 7)):
        lon, lat = to_lonlat.transform(*(fine @ (col + 0.5, row + 0.5)))
        tile, map_row, map_col = pixel_at(lon, lat, zoom)
        found = drawn(shown, tile)
        assert found.valid[map_row, map_col]
        for channel, colour in enumerate(("red", "green")):
            with rasterio.open(files[colour]) as file:
                near = colours_of(shown, np.broadcast_to(file.read(1)[row - 1 : row + 2, col - 1 : col + 2], (3, 3, 3)))
            slack = 1 + np.ptp(near[channel]) / 8
            assert abs(float(found.colours[channel, map_row, map_col]) - near[channel, 1, 1]) <= slack
        with rasterio.open(files["blue"]) as file:
            finer = file.read(out_shape=(1, 64, 64), resampling=Resampling.bilinear)
        wanted = colours_of(shown, np.broadcast_to(finer[:, row, col], (3, 1)))[2, 0]
        assert abs(float(found.colours[2, map_row, map_col]) - wanted) <= 8


def test_a_palette_gives_the_colours(made: Store) -> None:
    indexes = np.random.default_rng(4).integers(0, 4, (1, 64, 64)).astype(np.uint8)
    palette = {0: (0, 0, 0, 0), 1: (250, 10, 20, 255), 2: (20, 240, 30, 255), 3: (30, 20, 230, 255)}
    path = made.folder / "palette.tif"
    with rasterio.open(
        path, "w", driver="GTiff", width=64, height=64, count=1, dtype="uint8", crs="EPSG:32635",
        transform=Affine(10, 0, 500_000, 0, -10, 6_700_000), photometric="palette", nodata=0,
    ) as file:  # fmt: skip
        file.write(indexes)
        file.write_colormap(1, palette)
    shown = made.add("palette", path, Grid(size=32))
    zoom = native_zoom(shown) + MAGNIFIED
    to_lonlat = pyproj.Transformer.from_crs("EPSG:32635", "OGC:CRS84", always_xy=True)
    with rasterio.open(path) as file:
        for row, col in ((3, 4), (20, 40), (33, 9), (50, 50), (60, 2)):
            lon, lat = to_lonlat.transform(*file.xy(row, col))
            tile, map_row, map_col = pixel_at(lon, lat, zoom)
            found = drawn(shown, tile)
            *colour, alpha = palette[int(indexes[0, row, col])]
            assert found.valid[map_row, map_col] == (alpha > 0)
            if alpha:
                assert found.colours[:, map_row, map_col].tolist() == colour


def test_a_warped_dataset_shows_the_raster_in_its_files(made: Store) -> None:
    pixels = np.random.default_rng(3).integers(1, 256, (3, 96, 96)).astype(np.uint8)
    path = write(made.folder / "warped.tif", pixels, nodata=0)
    plain = made.add("unwarped", path, Grid(size=32))
    warped = made.add("warped", path, Grid(size=32, anchor="crs", crs="EPSG:3067", resolution=20))
    assert warped.plan.profile.warp is not None
    zoom = native_zoom(warped)
    assert zoom == native_zoom(plain)
    lon, lat = plain.lonlat(48, 48) or (math.nan, math.nan)
    tile, _, _ = pixel_at(lon, lat, zoom)
    ours, others = drawn(warped, tile), drawn(plain, tile)
    assert ours.valid.any()
    assert (ours.valid == others.valid).all()
    assert (ours.colours == others.colours).all()


def test_the_service_answers_a_webp_of_the_same_colours(service: TestClient, dataset: Callable[[str], Dataset]) -> None:
    shown = dataset("TCI")
    tile = MapTile(9, 289, 207)
    answer = service.get(f"/api/datasets/{shown.id}/imagery/{tile.z}/{tile.x}/{tile.y}.webp")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "image/webp"
    picture = np.moveaxis(np.asarray(Image.open(io.BytesIO(answer.content)).convert("RGBA")).astype(int), -1, 0)
    wanted = drawn(shown, tile)
    assert picture.shape == (4, SIDE, SIDE)
    assert ((picture[3] > 0) == wanted.valid).all()
    assert np.abs(picture[:3, wanted.valid] - wanted.colours[:, wanted.valid]).mean() < 6
    again = service.get(answer.url, headers={"If-None-Match": answer.headers["etag"]})
    assert again.status_code == 304
