"""Open a raster with GDAL. Only some drivers are allowed, and GDAL opens no file except the raster's.

A stranger may have uploaded the raster. The raster must not make a worker read from the worker's disk or network. A
format that can refer to other files is therefore never opened.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rasterembed.errors import DataError, one_line
from rasterembed.store.gdal import gdal_environment
from rasterembed.store.https_url import is_https
from rasterembed.store.object_store import ObjectStore

if TYPE_CHECKING:
    import rasterio

    from rasterembed.store.https_gdal import GdalOpener

DRIVERS = ("GTiff", "JP2OpenJPEG", "PNG", "JPEG")
"""GDAL drivers that may open a raster, in the order in which they are tried.

Each driver reads one file and follows no reference to another file. GTiff reads COG too. The netCDF driver is left out
for two reasons. A netCDF-4 file is an HDF5 file, and HDF5 may keep its data in any other file. A damaged file in the
classic netCDF format is dangerous: a header of 24 bytes can take 18 GiB of memory, and one of 40 bytes can end the
process.
"""

_CACHE_BYTES = 32 * 2**20
"""Size in bytes of GDAL's block cache while only the header is read."""


@contextmanager
def open_raster(store: ObjectStore, uri: str, *, cache_bytes: int = _CACHE_BYTES) -> Iterator[rasterio.DatasetReader]:
    """Open a raster with an allowed driver and the store's credentials. GDAL opens no other file.

    Args:
        store: gives the credentials for a raster on S3.
        uri: absolute path, s3://bucket/key, or an https:// address.
        cache_bytes: size in bytes of GDAL's block cache, which the whole process shares.

    Raises:
        DataError: if no allowed driver reads the raster, or if the raster refers to another file.
        StoreError: if the raster does not exist or may not be read.
    """
    with (
        gdal_environment(store, uri, cache_bytes=cache_bytes) as path,
        _opener(store, uri) as opener,
        _open(store, uri, path, opener) as dataset,
    ):
        if dataset.tags(ns="OVERVIEWS"):
            # These tags can name any file as an overview, and GDAL would open that file with any driver.
            raise DataError(
                f"{uri}: its metadata names another file as its overview, which is not followed: "
                "write it anew without (gdal_translate -of COG)"
            )
        yield dataset


@contextmanager
def _opener(store: ObjectStore, uri: str) -> Iterator[GdalOpener | None]:
    """Yield the opener through which GDAL reads a file over https, or None for any other file.

    Raises:
        DataError: at the end of the block, if GDAL could not read a part of the file. The pixels are then wrong.
    """
    if not is_https(uri):
        yield None
        return
    from rasterio.errors import RasterioError

    from rasterembed.store.https_gdal import GdalOpener

    opener = GdalOpener(store.open_remote(uri))
    try:
        yield opener
    except RasterioError as error:
        if opener.problem is not None:
            raise opener.problem from error
        raise
    if opener.problem is not None:
        raise opener.problem


def _open(store: ObjectStore, uri: str, path: str, opener: GdalOpener | None) -> rasterio.DatasetReader:
    """Open `path`. If the raster is on S3 and cannot be opened, try once more."""
    try:
        return _open_by_driver(store, uri, path, opener)
    except DataError as error:
        if opener is not None:
            if opener.problem is not None:
                raise opener.problem from error
            raise
        # If the raster is missing, this call raises an error that says so. If the server does not answer, this call
        # waits for it.
        store.describe(uri)
        if not uri.startswith("s3://"):
            raise
    return _open_by_driver(store, uri, path, opener)


def _open_by_driver(store: ObjectStore, uri: str, path: str, opener: GdalOpener | None) -> rasterio.DatasetReader:
    import rasterio  # It takes long to import, and a search reads no raster.
    from rasterio.errors import RasterioError

    from rasterembed.raster.georeference_warning import georeference_warning_hidden

    errors = []
    for driver in DRIVERS:
        try:
            # `inspect_raster` refuses a raster without a georeference with an error that says what to do, or was told
            # to allow it. An image of a query needs none.
            with georeference_warning_hidden():
                return rasterio.open(path, driver=driver, opener=opener)
        except RasterioError as error:
            errors.append(error)
    reason = one_line(errors[0])
    detail = "" if "not recognized as being in a supported file format" in reason else f" ({reason})"
    raise DataError(
        f"{uri}: not a raster that can be read here: give a GeoTIFF, JPEG 2000, PNG or JPEG file"
        f"{_advice(store, uri)}{detail}"
    ) from errors[0]


def _advice(store: ObjectStore, uri: str) -> str:
    """Return advice for a file in a known format that is never opened. The first bytes of the file tell the format."""
    with store.open_uri(uri) as file:
        start = file.read(64).lstrip()
    if start.startswith((b"CDF", b"\x89HDF")):
        command = "gdal_translate -of COG NETCDF:FILE:VARIABLE NEW.tif"
        return f"; a variable of a netCDF or HDF5 file becomes a GeoTIFF by {command}"
    if start.startswith(b"<"):
        return "; VRT and other files that refer to other files are never read: gdal_translate -of COG makes one file"
    return ""
