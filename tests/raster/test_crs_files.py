"""CRSs that name files, and CRSs and points that give no place: refused in one line, and no file is opened."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyproj
import pytest
import rasterio
import rasterio.shutil
from affine import Affine
from rasterio.control import GroundControlPoint

from rasterembed.errors import DataError
from rasterembed.raster.crs_files import named_path
from rasterembed.raster.place_on_earth import why_not_on_earth
from rasterembed.raster.profile import inspect_raster
from rasterembed.store.object_store import ObjectStore
from tests.raster.test_footprints import profile_of

GRIDS = (
    'GEOGCS["x",DATUM["y",SPHEROID["z",6378137,298.257],EXTENSION["PROJ4_GRIDS","{}"]],PRIMEM["Greenwich",0],'
    'UNIT["degree",0.01745329252]]'
)
INIT = (
    'GEOGCS["x",DATUM["y",SPHEROID["z",6378137,298.257]],PRIMEM["Greenwich",0],UNIT["degree",0.01745329252],'
    'EXTENSION["PROJ4","+init={}:4326"]]'
)
NADGRIDS = (
    'GEOGCS["x",DATUM["y",SPHEROID["z",6378137,298.257]],PRIMEM["Greenwich",0],UNIT["degree",0.01745329252],'
    'EXTENSION["PROJ4","+proj=longlat +nadgrids={} +type=crs"]]'
)
NAMING = {"grids": GRIDS, "init": INIT, "nadgrids": NADGRIDS}


def raster_with(path: Path, wkt: str, driver: str) -> Path:
    """Write a raster whose file holds this WKT as it stands. GDAL itself would leave the names of files out."""
    tiff = path.with_name("source.tif")
    with rasterio.open(
        tiff, "w", driver="GTiff", width=64, height=64, count=1, dtype="uint8", crs="ESRI:54042",
        transform=Affine(0.1, 0, 10, 0, -0.1, 50), GEOTIFF_KEYS_FLAVOR="ESRI_PE",
    ) as dataset:  # fmt: skip
        dataset.write(np.ones((1, 64, 64), np.uint8))
    data = tiff.read_bytes()
    start = data.index(b"ESRI PE String = ") + len(b"ESRI PE String = ")
    stop = data.index(b"|", start)
    assert len(wkt) <= stop - start
    data = data[:start] + wkt.encode().ljust(stop - start) + data[stop:]
    if driver == "JP2OpenJPEG":
        # JPEG 2000 holds its georeferencing as a GeoTIFF, in a box with this UUID before the pixels.
        rasterio.shutil.copy(tiff, path, driver=driver, CODEC="JP2", GMLJP2="NO", GeoJP2="NO")
        plain = path.read_bytes()
        pixels = plain.index(b"jp2c") - 4
        box = struct.pack(">I4s", len(data) + 24, b"uuid") + bytes.fromhex("b14bf8bd083d4b43a5ae8cd7d5a6ce03") + data
        data = plain[:pixels] + box + plain[pixels:]
    path.write_bytes(data)
    return path


PIPES = [(name, driver) for name in NAMING for driver in ("GTiff", "JP2OpenJPEG")]


@pytest.fixture(scope="module")
def errors(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], tuple[Path, str]]:
    """Return a raster and the error of `inspect_raster` for each of `PIPES`. The CRS of the raster names a named pipe.

    Another process inspects the rasters, because a named pipe would stop it for ever.
    """
    folders = [tmp_path_factory.mktemp("pipe") for _ in PIPES]
    paths = []
    for (name, driver), folder in zip(PIPES, folders, strict=True):
        os.mkfifo(folder / "p")
        paths.append(raster_with(folder / "r.img", NAMING[name].format(folder / "p"), driver))
    script = (
        "import json, sys\n"
        "from rasterembed.errors import DataError\n"
        "from rasterembed.raster.profile import inspect_raster\n"
        "from rasterembed.store.object_store import ObjectStore\n"
        "for path in sys.argv[2:]:\n"
        "    try: inspect_raster(ObjectStore(root=sys.argv[1]), path)\n"
        "    except DataError as error: print(json.dumps(str(error)))\n"
    )
    command = [sys.executable, "-c", script, str(folders[0] / "store"), *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=True)
    found = [json.loads(line) for line in done.stdout.splitlines()]
    return dict(zip(PIPES, zip(paths, found, strict=True), strict=True))


@pytest.mark.parametrize(("name", "driver"), PIPES)
def test_a_pipe_named_by_a_crs_is_not_opened(
    errors: dict[tuple[str, str], tuple[Path, str]], name: str, driver: str
) -> None:
    path, error = errors[name, driver]
    assert f"{path}: its CRS names a file ('{str(path.parent / 'p')[:100]}" in error
    assert "\n" not in error


@pytest.mark.parametrize(
    ("text", "path"),
    [
        (GRIDS.format("/a/b.gsb"), "/a/b.gsb"),
        (GRIDS.format("../b.gsb").lower(), "../b.gsb"),
        (GRIDS.format("b.gsb,@/a/c.gsb"), "b.gsb,@/a/c.gsb"),
        (GRIDS.format("~/b.gsb"), "~/b.gsb"),
        (GRIDS.format("b.gsb"), None),
        ('PARAMETERFILE["Geoid (height) file","/a/b.gtx"]', "/a/b.gtx"),
        ('PARAMETERFILE("a ""b"" c" , "https://a/b.tif")', "https://a/b.tif"),
        ('PARAMETERFILE["Geoid (height) file","egm96_15.gtx"]', None),
        ("+init=/a/b:4326", "/a/b:4326"),
        ("+init=epsg:4326", None),
        ("proj=longlat nadgrids=@/a/b type=crs", "@/a/b type=crs"),
        ('+proj=longlat +geoidgrids="/a b/c" +type=crs', "/a b/c"),
        ("+proj=pipeline +step +proj=vgridshift +grids=b.gtx,/a/c", "b.gtx,/a/c"),
        ("+proj=merc +a=6378137 +nadgrids=@null +wktext +no_defs", None),
    ],
)
def test_paths_in_the_text_of_a_crs(text: str, path: str | None) -> None:
    assert named_path(text) == path


@pytest.mark.parametrize("code", ["EPSG:3857", "EPSG:4326", "EPSG:32635+5773", "EPSG:27700", "ESRI:54042", "EPSG:4267"])
@pytest.mark.parametrize("version", ["WKT2_2019", "WKT1_GDAL", "WKT1_ESRI"])
def test_real_crss_name_no_path(code: str, version: str) -> None:
    try:
        text = pyproj.CRS(code).to_wkt(version)
    except pyproj.exceptions.CRSError:
        pytest.skip("this CRS has no such text")
    assert named_path(text) is None


def test_a_bound_crs_with_a_grid_of_a_path_is_refused_before_anything_transforms() -> None:
    with_grid = pyproj.CRS("+proj=longlat +ellps=WGS84 +nadgrids=/nowhere/grid.gsb +type=crs")
    profile = profile_of("EPSG:4326", Affine(0.1, 0, 10, 0, -0.1, 50), 64, 64)
    assert with_grid.is_bound
    problem = why_not_on_earth(profile.model_copy(update={"crs_wkt": with_grid.to_wkt()}), has_rpcs=False)
    assert problem is not None
    assert "its CRS names a file ('/nowhere/grid.gsb')" in problem


def test_an_operation_that_proj_does_not_know() -> None:
    known = pyproj.CRS("EPSG:3395").to_wkt()
    unknown = known.replace('METHOD["Mercator (variant A)",ID["EPSG",9804]]', 'METHOD["Foo projection"]')
    assert unknown != known
    with pytest.raises(pyproj.exceptions.ProjError):
        pyproj.Transformer.from_crs(pyproj.CRS.from_wkt(unknown), "OGC:CRS84")
    profile = profile_of("EPSG:3395", Affine(10, 0, 0, 0, -10, 100), 64, 64)
    problem = why_not_on_earth(profile.model_copy(update={"crs_wkt": unknown}), has_rpcs=False)
    assert problem is not None
    assert "cannot be converted to longitude and latitude" in problem
    assert "assign its CRS" in problem


POINTS = {
    "on one line": [(0, 0, 10, 50), (10, 10, 11, 51), (20, 20, 12, 52)],
    "all the same": [(0, 0, 10, 50)] * 4,
    "a single one": [(0, 0, 10, 50)],
}


@pytest.mark.parametrize("name", POINTS)
def test_ground_control_points_that_place_nothing(tmp_path: Path, name: str) -> None:
    path = tmp_path / "r.tif"
    with rasterio.open(path, "w", driver="GTiff", width=64, height=64, count=1, dtype="uint8") as dataset:
        dataset.write(np.ones((1, 64, 64), np.uint8))
        points = [GroundControlPoint(row, col, x, y) for row, col, x, y in POINTS[name]]
        dataset.gcps = (points, rasterio.crs.CRS.from_epsg(4326))
    store = ObjectStore(root=str(tmp_path / "store"))
    with pytest.raises(DataError, match=r"ground control points give no transform .*-gcp COLUMN LINE X Y") as caught:
        inspect_raster(store, str(path))
    assert "\n" not in str(caught.value)
    assert not inspect_raster(store, str(path), allow_no_crs=True).on_earth
