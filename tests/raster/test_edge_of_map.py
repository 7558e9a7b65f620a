"""Rasters that reach beyond the edge of their map, against forward projections by pyproj and against formulas."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pyarrow.parquet as pq
import pyproj
import pytest
import rasterio
import shapely
from affine import Affine
from numpy.typing import NDArray

from rasterembed.dataset.dataset import Dataset
from rasterembed.dataset.manifest import ALL_STATES
from rasterembed.errors import DataError
from rasterembed.model.choice import Dinov3
from rasterembed.pipeline import EmbedOptions, embed_raster
from rasterembed.qa.thresholds import QaThresholds
from rasterembed.raster.footprints import Footprinter
from rasterembed.raster.grid import Grid
from rasterembed.raster.map_domain import MapDomain
from rasterembed.raster.profile import inspect_raster
from rasterembed.search.query import Query, Where
from rasterembed.store.object_store import ObjectStore
from tests.raster.test_footprints import GEOSTATIONARY, SINUSOIDAL, all_tiles, profile_of, windows
from tests.support.embedding import embed

RADIUS = 6371007.181
"""Radius of MODIS's sphere, m."""
SPHERE = pyproj.Geod(a=RADIUS, b=RADIUS)
MODIS_TILE = 1111950.5197
"""Width of a tile of MODIS's sinusoidal grid, m. The grid begins at x = -20015109.354, y = 10007554.677."""
GOES = "+proj=geos +h=35786023 +lon_0=-75 +sweep=x +ellps=GRS80 +units=m +type=crs"
HIMAWARI = "+proj=geos +h=35785863 +lon_0=140.7 +ellps=WGS84 +units=m +type=crs"
AEQD = "+proj=aeqd +lat_0=52 +lon_0=5 +type=crs"


def modis(h: int, v: int, side: int) -> Affine:
    """Return the transform of a tile of MODIS's grid with `side` x `side` px."""
    pixel = MODIS_TILE / side
    return Affine(pixel, 0, -20015109.354 + h * MODIS_TILE, 0, -pixel, 10007554.677 - v * MODIS_TILE)


def world(half_width: float, half_height: float, side: int = 224) -> Affine:
    return Affine(2 * half_width / side, 0, -half_width, 0, -2 * half_height / side, half_height)


def ground(count: int = 20_000) -> NDArray[np.float64]:
    """Return random longitudes and latitudes, spread evenly over the Earth, shape (2, count)."""
    rng = np.random.default_rng(5)
    return np.stack([rng.uniform(-180, 180, count), np.degrees(np.arcsin(rng.uniform(-1, 1, count)))])


def at_edge(crs: str, transform: Affine, cols: NDArray[np.float64], rows: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return which positions are within 0.15 px of the map's edge."""
    back = pyproj.Transformer.from_crs(crs, "OGC:CRS84", always_xy=True)
    result = np.zeros(cols.shape, dtype=bool)
    for turn in np.arange(8) * np.pi / 4:
        x, y = transform @ (cols + 0.15 * np.cos(turn), rows + 0.15 * np.sin(turn))
        to_x, to_y = back.transform(*back.transform(x, y), direction="INVERSE")
        with np.errstate(invalid="ignore"):
            result |= ~(np.hypot(to_x - x, to_y - y) < 0.01 * abs(transform.a))
    return result


MAPS: dict[str, tuple[str, Affine, int]] = {
    "Equal Earth": ("EPSG:8857", world(17.5e6, 8.5e6), 112),
    "Equal Earth of the Pacific": ("EPSG:8859", world(17.5e6, 8.5e6), 112),
    "Natural Earth": ("+proj=natearth +type=crs", world(17.5e6, 9.3e6), 112),
    "Mollweide": ("ESRI:54009", world(18.2e6, 9.2e6), 112),
    "Robinson": ("ESRI:54030", world(17.2e6, 8.8e6), 224),
    "Winkel Tripel": ("ESRI:54042", world(20e6, 10.5e6), 112),
    "sinusoidal": (SINUSOIDAL, world(20.1e6, 10.1e6), 224),
    "azimuthal equidistant": (AEQD, world(20.2e6, 20.2e6), 112),
    "azimuthal equidistant, one tile": (AEQD, world(20.2e6, 20.2e6), 224),
    "azimuthal equidistant, pole": ("+proj=aeqd +lat_0=90 +type=crs", world(20.2e6, 20.2e6), 112),
    "orthographic": ("+proj=ortho +lat_0=40 +type=crs", world(6.5e6, 6.5e6), 112),
    "full disk of Meteosat": (GEOSTATIONARY, world(5.6e6, 5.6e6), 64),
    "full disk of GOES": (GOES, world(5.6e6, 5.6e6), 112),
    "full disk of Himawari": (HIMAWARI, world(5.6e6, 5.6e6), 224),
    "Lambert with a gap": ("EPSG:3347", Affine(40e3, 0, -3e6, 0, -40e3, 9e6), 112),
    "beyond the pole": ("EPSG:4326", Affine(1, 0, -112, 0, -1, 140), 32),
}


@pytest.mark.parametrize("name", MAPS)
def test_a_footprint_holds_the_places_that_project_into_its_window(name: str) -> None:
    crs, transform, size = MAPS[name]
    profile = profile_of(crs, transform, 224, 224)
    tiles = all_tiles(profile, Grid(size=size))
    footprinter = Footprinter(profile)
    footprints = footprinter(tiles)
    lon, lat = ground()
    forward = pyproj.Transformer.from_crs("OGC:CRS84", crs, always_xy=True)
    with np.errstate(invalid="ignore"):
        cols, rows = ~transform @ forward.transform(lon, lat)
        clear = np.isfinite(cols)
        clear[clear] = ~at_edge(crs, transform, cols[clear], rows[clear])
    places = shapely.points(lon, lat)
    seen = 0
    for window, geometry in zip(windows(tiles), footprints.geometry, strict=True):
        left, top, right, bottom = window
        with np.errstate(invalid="ignore"):
            inward = np.minimum(np.minimum(cols - left, right - cols), np.minimum(rows - top, bottom - rows))
        inside = (inward > 0.1) & clear
        if geometry is None:
            assert inside.sum() < 1e-3 * len(lon)
            continue
        assert geometry.is_valid
        shapely.prepare(geometry)
        assert shapely.intersects(geometry, places[inside]).all()
        assert not shapely.intersects(geometry, places[~(inward > -0.1)]).any()
        seen += inside.sum()
        vertices = shapely.get_coordinates(geometry)
        vertices = vertices[np.abs(vertices[:, 1]) < 90]
        # A vertex on the antimeridian is on the map's left or right edge.
        ends = [
            ~transform @ forward.transform(np.where(np.abs(vertices[:, 0]) == 180, end, vertices[:, 0]), vertices[:, 1])
            for end in (-180, 180)
        ]
        off = [shapely.distance(shapely.box(*window), shapely.points(*end)) for end in ends]
        assert np.minimum(*off).max() < 0.1
    assert seen > 1000
    assert (footprinter.off_earth(tiles) == shapely.is_missing(footprints.geometry)).all()


@pytest.mark.parametrize(("h", "v"), [(0, 8), (14, 1), (17, 0), (18, 0), (35, 9), (31, 13), (11, 2)])
def test_tiles_of_modis_at_the_edge_of_the_world_have_the_area_of_their_ground(h: int, v: int) -> None:
    side = 480
    transform = modis(h, v, side)
    profile = profile_of(SINUSOIDAL, transform, side, side)
    tiles = all_tiles(profile, Grid(size=240))
    footprints = Footprinter(profile)(tiles)
    for (left, top, right, bottom), geometry in zip(windows(tiles), footprints.geometry, strict=True):
        # The Earth is where |x| <= pi R cos(y / R), and the projection keeps areas.
        xs, ys = np.meshgrid(np.arange(left, right, 0.25) + 0.125, np.arange(top, bottom, 0.25) + 0.125)
        x, y = transform @ (xs, ys)
        area = (np.abs(x) <= np.pi * RADIUS * np.cos(y / RADIUS)).mean() * (MODIS_TILE / 2) ** 2
        if geometry is None:
            assert area == 0
            continue
        drawn = 0.0
        for part in shapely.get_parts(geometry):
            drawn += SPHERE.geometry_area_perimeter(shapely.segmentize(part, 0.02))[0]
        assert drawn == pytest.approx(area, rel=2e-3)
        west, _, east, _ = geometry.bounds
        assert (east < 0.2) if h < 18 else (west > -0.2)


def write(path: Path, crs: str, transform: Affine, side: int, **options: Any) -> str:
    values = np.random.default_rng(3).integers(1, 255, (3, side, side), dtype=np.uint8)
    header = {"driver": "GTiff", "count": 3, "dtype": "uint8", "width": side, "height": side}
    with rasterio.open(path, "w", crs=crs, transform=transform, **header, **options) as raster:
        raster.write(values)
    return str(path)


@pytest.mark.parametrize(
    "crs",
    ["EPSG:27700", "EPSG:5514", "EPSG:28992", "EPSG:2056", "EPSG:26716", "EPSG:31467", "EPSG:3079", "EPSG:23700",
     "EPSG:5880", "EPSG:8857", "EPSG:6933", "EPSG:2263"],
)  # fmt: skip
def test_all_of_a_crs_s_area_of_use_is_on_earth(crs: str) -> None:
    """With small pixels a change of datum matters: PROJ's way there and back differs by 150 m in Britain."""
    area = pyproj.CRS(crs).area_of_use
    assert area is not None
    lon, lat = np.meshgrid(np.linspace(area.west, area.east, 9)[1:-1], np.linspace(area.south, area.north, 9)[1:-1])
    x, y = pyproj.Transformer.from_crs("OGC:CRS84", crs, always_xy=True).transform(lon, lat)
    pixel = 0.3 if pyproj.CRS(crs).is_projected else 3e-6
    assert MapDomain(pyproj.CRS(crs), (pixel, 0, 0, -pixel)).contains(x, y).all()


LENIENT = QaThresholds(
    max_mean_cosine=1.0,
    min_effective_rank=1.0,
    min_neighbour_gap=-2.0,
    min_neighbour_z=-1e9,
    max_dead_dimension_share=1.0,
)
"""Bounds that vectors of noise keep."""


def test_a_dataset_of_a_full_disk_has_the_tiles_on_earth(tmp_path: Path, tiny_vit: Path) -> None:
    store = ObjectStore(root=str(tmp_path / "store"))
    side, size = 128, 16
    transform = world(6.1e6, 6.1e6, side)
    raster = write(tmp_path / "disk.tif", GOES, transform, side)
    options = EmbedOptions(dataset_id="disk", grid=Grid(size=size), model=Dinov3(model=str(tiny_vit)), qa=LENIENT)
    result = embed_raster(store, raster, options)
    assert result.manifest.state == "ready"
    dataset = Dataset.open(store, "disk")

    # A tile is on Earth if the satellite sees ground in it.
    forward = pyproj.Transformer.from_crs("OGC:CRS84", GOES, always_xy=True)
    with np.errstate(invalid="ignore"):
        cols, rows = ~transform @ forward.transform(*ground(100_000))
    visible = np.isfinite(cols)
    seen = {
        f"r{int(row // size):06d}_c{int(col // size):06d}"
        for row, col in zip(rows[visible], cols[visible], strict=True)
    }
    index = {row["tile_id"]: row for row in dataset.tiles().to_pylist()}
    assert {tile for tile, row in index.items() if row["status"] == "embedded"} == seen
    assert len(index) - len(seen) == 12
    for tile, row in index.items():
        assert row["reason"] == (None if tile in seen else "off_earth")
        assert (row["bbox"] is None) == (row["geometry"] is None) == (tile not in seen)
    assert "off Earth, beyond the edge of the map" in result.report.counts.skipped

    frame = geopandas.read_parquet(tmp_path / "store" / result.manifest.index)
    assert frame.geometry.isna().sum() == len(index) - len(seen)
    assert len(dataset.to_geodataframe()) == len(seen)
    assert np.allclose(frame.total_bounds, geo_bounds(tmp_path / "store" / result.manifest.index))
    answer = dataset.search(Query(lonlat=(-75.0, 0.5)), Where(bbox=(-180, -90, 180, 90)), k=100)
    assert len(answer.hits) == len(seen) - 1
    for hit in answer.hits:
        assert shapely.from_wkb(hit.geometry).distance(shapely.Point(hit.lon, hit.lat)) < 1e-6
    with pytest.raises(DataError, match="no embedded tile"):
        dataset.search(Query(lonlat=(105.0, 0.0)))
    outline = shapely.geometry.shape(json.loads(store.read(result.manifest.stac_item) or b"")["geometry"])
    assert outline.covers(shapely.Point(-75, 0))
    assert not outline.intersects(shapely.Point(105, 0))


def geo_bounds(path: Path) -> list[float]:
    """Return the bounds in a GeoParquet file's footer."""
    bounds: list[float] = json.loads(pq.read_metadata(path).metadata[b"geo"])["columns"]["geometry"]["bbox"]
    return bounds


def test_tiles_off_earth_are_not_read(tmp_path: Path, tiny_vit: Path) -> None:
    path = tmp_path / "disk.tif"
    blocks = {"tiled": True, "blockxsize": 16, "blockysize": 16, "compress": "deflate"}
    raster = write(path, GOES, world(6.1e6, 6.1e6, 128), 128, **blocks)
    with rasterio.open(path) as dataset:
        offset = int(dataset.get_tag_item("BLOCK_OFFSET_0_0", "TIFF", bidx=1))
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(b"\xff" * 16)
    store = ObjectStore(root=str(tmp_path / "store"))
    manifest = embed(store, raster, dataset_id="d", grid=Grid(size=16), model=Dinov3(model=str(tiny_vit)))
    assert Dataset.open(store, "d", states=ALL_STATES).tiles().to_pylist()[0]["reason"] == "off_earth"
    assert manifest.rows > 40


OFF: dict[str, tuple[str, Affine]] = {
    "beyond the edge of MODIS's grid": (SINUSOIDAL, modis(0, 0, 64)),
    "a northing of 1e20": ("EPSG:32633", Affine(10, 0, 5e5, 0, -10, 1e20)),
    "beside the disk": (GOES, Affine(1000, 0, 9e6, 0, -1000, 9e6)),
    "latitude and longitude swapped": ("EPSG:4326", Affine(0.01, 0, 40, 0, -0.01, 170)),
}


@pytest.mark.parametrize("name", OFF)
def test_a_raster_wholly_off_earth_is_refused(tmp_path: Path, name: str) -> None:
    crs, transform = OFF[name]
    path = write(tmp_path / "off.tif", crs, transform, 64)
    store = ObjectStore(root=str(tmp_path))
    with pytest.raises(DataError, match=r"off\.tif: none of its pixels is on Earth: .*allow_no_crs"):
        inspect_raster(store, path)
    assert not inspect_raster(store, path, allow_no_crs=True).on_earth


def test_a_transform_that_puts_all_pixels_on_one_line_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "line.tif", "EPSG:32633", Affine(10, 10, 5e5, 10, 10, 5e6), 64)
    with pytest.raises(DataError, match=r"line\.tif: its transform puts all pixels on one line: set the transform"):
        inspect_raster(ObjectStore(root=str(tmp_path)), path)


@pytest.mark.parametrize("code", ["EPSG:6931", "EPSG:3035", "EPSG:5070", "ESRI:102008", "EPSG:3413", "EPSG:3347"])
@pytest.mark.parametrize("pixel", [0.5, 30.0, 1000.0])
def test_places_near_a_pole_are_on_earth_although_proj_returns_them_less_exactly(code: str, pixel: float) -> None:
    crs = pyproj.CRS(code)
    to_native = pyproj.Transformer.from_crs(crs.geodetic_crs, crs, always_xy=True)
    lon, from_pole = np.meshgrid(np.linspace(-180.0, 180.0, 73), 10.0 ** np.arange(-9.0, 0.1, 0.25))
    x, y = to_native.transform(lon, 90.0 - from_pole)
    assert MapDomain(crs, (pixel, 0.0, 0.0, -pixel)).contains(x, y).all()
