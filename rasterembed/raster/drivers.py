"""Open a raster with GDAL, by an allowlist of drivers and without any other file.

A raster may have been uploaded by a stranger. It must not be able to make a worker read its own disk or network, so a
format that can refer to other files is never opened.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import rasterio
from rasterio.errors import RasterioError

from rasterembed.errors import DataError, one_line
from rasterembed.store.gdal import gdal_environment
from rasterembed.store.object_store import ObjectStore

DRIVERS = ("GTiff", "JP2OpenJPEG", "PNG", "JPEG")
"""GDAL drivers that may open a raster, in the order they are tried. They read one file and follow no reference out of
it. GTiff reads COG too. netCDF is left out: a netCDF-4 file is HDF5, which may name any other file as the place of its
data; and of a damaged classic file, 24 bytes of header can take 18 GiB of memory and 40 bytes can end the process."""

_CACHE_BYTES = 32 * 2**20
"""Size of GDAL's block cache where only the header is read, in bytes."""


@contextmanager
def open_raster(store: ObjectStore, uri: str, *, cache_bytes: int = _CACHE_BYTES) -> Iterator[rasterio.DatasetReader]:
    """Open a raster by an allowed driver, with the store's own credentials, and no other file with it.

    Args:
        store: gives the credentials for a raster on S3.
        uri: absolute path, or s3://bucket/key.
        cache_bytes: size of GDAL's block cache, which the whole process shares, in bytes.

    Raises:
        DataError: if no allowed driver reads the raster, or it refers to another file.
        StoreError: if the raster does not exist or may not be read.
    """
    with gdal_environment(store, uri, cache_bytes=cache_bytes) as path, _open(store, uri, path) as dataset:
        if dataset.tags(ns="OVERVIEWS"):
            # These tags can name any file as an overview, and GDAL would open it by any driver.
            raise DataError(
                f"{uri}: its metadata names another file as its overview, which is not followed: "
                "write it anew without (gdal_translate -of COG)"
            )
        yield dataset


def _open(store: ObjectStore, uri: str, path: str) -> rasterio.DatasetReader:
    """Open `path`, and try once more if the failure may have been the server's."""
    try:
        return _open_by_driver(store, uri, path)
    except DataError:
        # A missing object gets its own error here, and a server that is away is waited for.
        store.describe(uri)
        if not uri.startswith("s3://"):
            raise
    return _open_by_driver(store, uri, path)


def _open_by_driver(store: ObjectStore, uri: str, path: str) -> rasterio.DatasetReader:
    errors = []
    for driver in DRIVERS:
        try:
            return rasterio.open(path, driver=driver)
        except RasterioError as error:
            errors.append(error)
    reason = one_line(errors[0])
    detail = "" if "not recognized as being in a supported file format" in reason else f" ({reason})"
    raise DataError(
        f"{uri}: not a raster that can be read here: give a GeoTIFF, JPEG 2000, PNG or JPEG file"
        f"{_advice(store, uri)}{detail}"
    ) from errors[0]


def _advice(store: ObjectStore, uri: str) -> str:
    """Return further advice for files of known formats that are never opened. The first bytes tell the format."""
    with store.open_uri(uri) as file:
        start = file.read(64).lstrip()
    if start.startswith((b"CDF", b"\x89HDF")):
        command = "gdal_translate -of COG NETCDF:FILE:VARIABLE NEW.tif"
        return f"; a variable of a netCDF or HDF5 file becomes a GeoTIFF by {command}"
    if start.startswith(b"<"):
        return "; VRT and other files that refer to other files are never read: gdal_translate -of COG makes one file"
    return ""
