"""The pixel position of a place is the inverse of the place of a pixel position."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyproj
import pytest
from rasterio.transform import Affine

from rasterembed.raster.georeference import Georeference
from rasterembed.raster.profile import inspect_raster
from rasterembed.store.object_store import ObjectStore
from tests.support.rasters import write

_GEOSTATIONARY = "+proj=geos +h=35785831 +lon_0=0 +ellps=GRS80 +units=m"


@pytest.mark.parametrize(
    ("crs", "transform"),
    [
        ("EPSG:32635", Affine(10, 0, 500_000, 0, -10, 6_700_000)),
        ("EPSG:32635", Affine(8, 3, 500_000, 3, -8, 6_700_000)),
        ("EPSG:27700", Affine(100, 0, 400_000, 0, -100, 300_000)),
        ("EPSG:4326", Affine(0.5, 0, 165, 0, -0.5, 20)),
        ("EPSG:4326", Affine(1, 0, 300, 0, -1, 20)),
        ("EPSG:3857", Affine(10_000, 0, 19_800_000, 0, -10_000, 640_000)),
        ("EPSG:3413", Affine(20_000, 0, -640_000, 0, -20_000, 640_000)),
        (_GEOSTATIONARY, Affine(30_000, 0, 900_000, 0, -30_000, 900_000)),
    ],
)
def test_places_of_pixels_lead_back_to_the_pixels(tmp_path: Path, crs: str, transform: Affine) -> None:
    path = write(tmp_path / "a.tif", np.ones((1, 64, 48), np.uint8), crs=crs, transform=transform)
    profile = inspect_raster(ObjectStore(root=str(tmp_path)), str(path))
    cols, rows = np.meshgrid(np.linspace(0.5, 47.5, 9), np.linspace(0.5, 63.5, 9))
    native = transform @ (cols, rows)
    lon, lat = pyproj.Transformer.from_crs(crs, "OGC:CRS84", always_xy=True).transform(*native)
    for turn in (0, 360, -360):
        found = Georeference(profile).pixels(np.asarray(lon) + turn, np.asarray(lat))
        np.testing.assert_allclose(found, (cols, rows), atol=1e-4)


def test_ground_control_points_lead_back_to_the_pixels(rasters: Path, tmp_path: Path) -> None:
    georeference = Georeference(inspect_raster(ObjectStore(root=str(tmp_path)), str(rasters / "cog_gcps.tif")))
    cols, rows = np.meshgrid(np.linspace(0, 1280, 9), np.linspace(0, 837, 9))
    found = georeference.pixels(*georeference.lonlat(cols, rows))
    np.testing.assert_allclose(found, (cols, rows), atol=0.01)


def test_a_place_that_the_map_does_not_show_has_no_pixel(tmp_path: Path) -> None:
    transform = Affine(30_000, 0, 900_000, 0, -30_000, 900_000)
    path = write(tmp_path / "a.tif", np.ones((1, 64, 48), np.uint8), crs=_GEOSTATIONARY, transform=transform)
    georeference = Georeference(inspect_raster(ObjectStore(root=str(tmp_path)), str(path)))
    found = georeference.pixels(np.array([180.0, 12.0]), np.array([0.0, 5.0]))
    assert not np.isfinite(found[0][0])
    assert np.isfinite(found[0][1])
