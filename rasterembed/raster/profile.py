"""What a raster is, read from its header alone."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyproj
import rasterio
from affine import Affine
from pydantic import BaseModel, ConfigDict
from pyproj.exceptions import CRSError
from rasterio.enums import ColorInterp, Interleaving, MaskFlags
from rasterio.errors import RasterioError

from rasterembed.errors import DataError, one_line
from rasterembed.raster.source import mask_file_state
from rasterembed.store.gdal import gdal_environment
from rasterembed.store.object_store import ObjectStore

DRIVERS = ("GTiff", "JP2OpenJPEG", "PNG", "JPEG", "netCDF")
"""GDAL drivers that read one file and follow no reference out of it. GTiff reads COG too; netCDF gets files of the
classic format only, for netCDF-4 is HDF5, which may name any other file as the place of its data."""

MAX_BLOCK_BYTES = 2**30
"""A compressed block is decoded whole; a larger one (a file of a single strip) breaks bounded memory."""

_SUSPICIOUS_BYTES, _SUSPICIOUS_EXPANSION = 2**30, 1000
"""Raw bytes, and raw bytes over file bytes, from which on a GeoTIFF is searched for a block that has data."""

_HEADER_CACHE_BYTES = 32 * 2**20

_EARTH_RADIUS_M = (6.3e6, 6.45e6)
"""Every ellipsoid and sphere in use for Earth lies between; Venus' 6.05e6 m is the nearest other body."""


class GroundControlPoint(BaseModel):
    """A pixel position and the place it shows."""

    model_config = ConfigDict(frozen=True)

    row: float
    col: float
    x: float
    y: float
    z: float = 0.0


class RasterProfile(BaseModel):
    """Header of a raster: all that planning needs to know."""

    model_config = ConfigDict(frozen=True)

    driver: str
    width: int
    """Columns, px."""
    height: int
    """Rows, px."""
    count: int
    """Bands."""
    dtype: str
    """NumPy name of the widest band type."""
    colorinterp: tuple[str, ...]
    descriptions: tuple[str | None, ...]
    crs_wkt: str | None
    """WKT2 of the native CRS (that of the GCPs, if georeferenced by them), or None."""
    transform: tuple[float, float, float, float, float, float]
    """a, b, c, d, e, f of the affine from (column, row) to (x, y)."""
    gcps: tuple[GroundControlPoint, ...] = ()
    """Ground control points; used where the affine is the identity."""
    nodata: tuple[float | None, ...]
    """Nodata value of each band, or None; NaN and infinity are None too, as they are never valid."""
    nodata_nan: bool = False
    """Whether a band's nodata value is NaN."""
    masked: bool = False
    """Whether the file says by other means than nodata values and alpha which pixels are valid: an internal mask, or
    one colour that stands for no data."""
    mask_file: str | None = None
    """State of the mask in a file of its own beside the raster (its name and .msk), see `mask_file_state`; None if
    there is none."""
    block_height: int
    block_width: int
    interleave: str
    compression: str | None = None
    overviews: tuple[int, ...] = ()
    palette: tuple[tuple[int, int, int], ...] | None = None
    """Red, green and blue of each value, if the first band is an index into a palette."""
    acquired: datetime | None = None
    """Time of acquisition by the file's own tags, UTC."""
    on_earth: bool = True
    """False: no CRS, or one of another body; footprints are then in pixels."""

    @property
    def affine(self) -> Affine:
        """The affine from (column, row) to (x, y) of the native CRS."""
        return Affine(*self.transform)

    @property
    def alpha_band(self) -> int | None:
        """Number of the alpha band, from 1."""
        names = self.colorinterp
        return names.index(ColorInterp.alpha.name) + 1 if ColorInterp.alpha.name in names else None

    @property
    def striped(self) -> bool:
        """Whether a block spans the raster's width, so that it is read by rows."""
        return self.block_width >= self.width


@contextmanager
def open_raster(
    store: ObjectStore, uri: str, *, cache_bytes: int = _HEADER_CACHE_BYTES
) -> Iterator[rasterio.DatasetReader]:
    """Open a raster by an allowlist of drivers, with the store's own credentials, and no other file with it.

    Raises:
        DataError: if no allowed driver reads it, or it refers to another file.
    """
    with gdal_environment(store, uri, cache_bytes=cache_bytes) as path, _open(store, uri, path) as dataset:
        if dataset.tags(ns="OVERVIEWS"):
            # GDAL would open whatever file, by whatever driver, they name as this one's overview
            raise DataError(
                f"{uri}: its metadata names another file as its overview, which is not followed: "
                "write it anew without (gdal_translate -of COG)"
            )
        yield dataset


def _open(store: ObjectStore, uri: str, path: str) -> rasterio.DatasetReader:
    try:
        return _open_by_driver(uri, path)
    except DataError:
        store.describe(uri)  # a missing object says so itself, and a server that is away is waited for
        if not uri.startswith("s3://"):
            raise
    return _open_by_driver(uri, path)  # the failure may have been the server's


def _open_by_driver(uri: str, path: str) -> rasterio.DatasetReader:
    errors = []
    for driver in DRIVERS:
        if driver == "netCDF" and not _is_classic_netcdf(path):
            continue
        try:
            return rasterio.open(path, driver=driver)
        except RasterioError as error:
            errors.append(error)
    raise DataError(
        f"{uri}: not a raster that can be read here (allowed formats: {', '.join(DRIVERS)} classic; never VRT, HDF5 or "
        f"others that may refer to other files): {one_line(errors[0])}"
    ) from errors[0]


def _is_classic_netcdf(path: str) -> bool:
    if path.startswith("/vsi"):
        return False  # the driver reads local files only
    try:
        with Path(path).open("rb") as file:
            return file.read(3) == b"CDF"
    except OSError:
        return False


def inspect_raster(store: ObjectStore, uri: str, *, allow_no_crs: bool = False) -> RasterProfile:
    """Read a raster's header.

    Raises:
        DataError: for a raster that cannot be embedded, with the reason.
    """
    size = store.describe(uri).size
    with open_raster(store, uri) as dataset:
        profile = _profile(dataset, uri, mask_file=mask_file_state(store, uri))
        _check_pixels(dataset, profile, uri, size)
    if profile.mask_file is not None:
        _check_mask_file(store, uri, profile)
    misplaced = _why_not_on_earth(profile.crs_wkt)
    if misplaced is None:
        return profile
    if allow_no_crs:
        return profile.model_copy(update={"on_earth": False})
    raise DataError(
        f"{uri}: {misplaced}: assign its CRS (rio edit-info --crs EPSG:... FILE), or allow footprints in pixels with "
        "allow_no_crs"
    )


def _check_mask_file(store: ObjectStore, uri: str, profile: RasterProfile) -> None:
    with open_raster(store, uri + ".msk") as mask:
        shape = (mask.height, mask.width)
        if shape != (profile.height, profile.width) or mask.count not in (1, profile.count):
            raise DataError(
                f"{uri}.msk: a mask of {mask.width}x{mask.height}x{mask.count} px does not fit the raster's "
                f"{profile.width}x{profile.height}x{profile.count}: remove it or make it anew"
            )


def _profile(dataset: rasterio.DatasetReader, uri: str, *, mask_file: str | None) -> RasterProfile:
    if dataset.count == 0:
        inner = f"; it holds subdatasets: {', '.join(dataset.subdatasets[:3])}" if dataset.subdatasets else ""
        raise DataError(f"{uri}: it has no bands{inner}")
    gcps, gcp_crs = dataset.gcps
    by_gcps = bool(gcps) and dataset.transform.is_identity
    crs = gcp_crs if by_gcps else dataset.crs
    flags = dataset.mask_flag_enums[0]
    palette = None
    if dataset.colorinterp[0] == ColorInterp.palette:
        colours = dataset.colormap(1)
        palette = tuple(colours.get(i, (0, 0, 0, 0))[:3] for i in range(max(colours) + 1))
    return RasterProfile(
        driver=dataset.driver,
        width=dataset.width,
        height=dataset.height,
        count=dataset.count,
        dtype=_common_dtype(dataset.dtypes),
        colorinterp=tuple(c.name for c in dataset.colorinterp),
        descriptions=dataset.descriptions,
        crs_wkt=crs.to_wkt(version="WKT2_2019") if crs else None,
        transform=tuple(dataset.transform)[:6],
        gcps=tuple(GroundControlPoint(row=p.row, col=p.col, x=p.x, y=p.y, z=p.z or 0.0) for p in gcps)
        if by_gcps
        else (),
        nodata=tuple(v if v is not None and math.isfinite(v) else None for v in dataset.nodatavals),
        nodata_nan=any(v is not None and math.isnan(v) for v in dataset.nodatavals),
        masked=MaskFlags.per_dataset in flags and MaskFlags.alpha not in flags,
        mask_file=mask_file,
        block_height=dataset.block_shapes[0][0],
        block_width=dataset.block_shapes[0][1],
        interleave=dataset.interleaving.name if dataset.interleaving else "band",
        compression=dataset.compression.name if dataset.compression else None,
        overviews=tuple(dataset.overviews(1)),
        palette=palette,
        acquired=_acquired(dataset),
    )


def _common_dtype(dtypes: tuple[str, ...]) -> str:
    if any(d.startswith("complex") for d in dtypes):
        return next(d for d in dtypes if d.startswith("complex"))
    return str(np.result_type(*dtypes))


def _acquired(dataset: rasterio.DatasetReader) -> datetime | None:
    """TIFFTAG_DATETIME or ACQUISITIONDATETIME, in the forms that TIFF 6.0 and ISO 8601 give them."""
    tags = dataset.tags() | dataset.tags(ns="IMAGERY")
    for name in ("ACQUISITIONDATETIME", "TIFFTAG_DATETIME"):
        text = str(tags.get(name, "")).strip()
        for form in ("%Y:%m:%d %H:%M:%S", "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S"):
            try:
                return datetime.strptime(text[:19], form).replace(tzinfo=UTC)
            except ValueError:
                continue
    return None


def _check_pixels(dataset: rasterio.DatasetReader, profile: RasterProfile, uri: str, file_bytes: int) -> None:
    if profile.dtype.startswith("complex"):
        raise DataError(f"{uri}: complex pixels ({profile.dtype}) have no colour: convert to amplitude first")
    itemsize = np.dtype(profile.dtype).itemsize
    block = profile.block_height * profile.block_width * itemsize
    if profile.interleave == "pixel":
        block *= profile.count
    if block > MAX_BLOCK_BYTES and profile.compression:
        raise DataError(
            f"{uri}: one block is {profile.block_width}x{profile.block_height} px "
            f"({block / 2**30:.1f} GiB) and cannot be read in parts: "
            "convert it to a tiled GeoTIFF (gdal_translate -of COG)"
        )
    raw = profile.width * profile.height * profile.count * itemsize
    suspicious = raw > _SUSPICIOUS_BYTES and raw > _SUSPICIOUS_EXPANSION * file_bytes
    if suspicious and profile.driver == "GTiff" and not _has_data(dataset):
        raise DataError(
            f"{uri}: the header declares {profile.width}x{profile.height}x{profile.count} px "
            f"({raw / 2**30:.0f} GiB) but the file has no data, only {file_bytes} bytes of header"
        )


def _has_data(dataset: rasterio.DatasetReader) -> bool:
    """Whether any block of a GeoTIFF is there; half a microsecond a block, and they are in the file's index."""
    height, width = dataset.block_shapes[0]
    return any(
        dataset.get_tag_item(f"BLOCK_OFFSET_{col}_{row}", "TIFF", bidx=band) is not None
        for band in (dataset.indexes if dataset.interleaving != Interleaving.pixel else dataset.indexes[:1])
        for row in range(-(-dataset.height // height))
        for col in range(-(-dataset.width // width))
    )


def _why_not_on_earth(crs_wkt: str | None) -> str | None:
    if crs_wkt is None:
        return "it has no CRS"
    try:
        crs = pyproj.CRS.from_wkt(crs_wkt)
    except CRSError as error:
        return f"its CRS is not understood ({one_line(error)})"
    if crs.ellipsoid is None:
        return f"its CRS {crs.name!r} is not tied to Earth"
    low, high = _EARTH_RADIUS_M
    radius = crs.ellipsoid.semi_major_metre
    if not low < radius < high:
        return f"its CRS {crs.name!r} is of another body (radius {radius:.0f} m)"
    return None
