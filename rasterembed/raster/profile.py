"""The header of a raster. A dataset is planned from the header, without reading pixels."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

from rasterembed.errors import DataError, one_line
from rasterembed.raster.acquisition_time import acquisition_time
from rasterembed.raster.crs_files import check_crs_files
from rasterembed.raster.drivers import open_raster
from rasterembed.raster.grid import Anchor
from rasterembed.raster.place_on_earth import why_not_on_earth
from rasterembed.raster.source import Source, check_unchanged, mask_file_state, run_again
from rasterembed.raster.tiff_file import MAX_BLOCK_BYTES, TiffFile, check_tiff
from rasterembed.store.object_store import ObjectStore

if TYPE_CHECKING:
    import rasterio
    from affine import Affine

_ALPHA, _PALETTE = "alpha", "palette"
"""Names of colour interpretations in rasterio."""

_SUSPICIOUS_BYTES, _SUSPICIOUS_EXPANSION = 2**30, 1000
"""A header of a few kilobytes can declare any number of pixels. A raster is suspicious if its pixels take more bytes
than the first number, and more than the second number times the size of the file. A suspicious raster is accepted only
if it is a TIFF in which a block has data."""


Nodata = int | FiniteFloat | Literal["nan"]
"""Nodata value that a person declared for all bands. An int is exact, even beyond 2**53. `nan` means that only NaN is
nodata."""


class GroundControlPoint(BaseModel):
    """A pixel position and the place that it shows."""

    model_config = ConfigDict(frozen=True)

    row: float
    """Pixels from the raster's upper edge."""
    col: float
    """Pixels from the raster's left edge."""
    x: float
    """x of the place, in the CRS of the points."""
    y: float
    """y of the place, in the CRS of the points."""
    z: float = 0.0
    """Height of the place, in the CRS of the points."""


class ValidMask(BaseModel):
    """A mask that a person gave: a raster with one band. Its pixels lie at the same places as those of the raster."""

    model_config = ConfigDict(frozen=True)

    source: Source
    """Identity of the mask's file: URI, size and version."""
    dtype: str
    """NumPy name of the mask's dtype."""
    block_height: int
    """Rows of a block, px."""
    block_width: int
    """Columns of a block, px."""
    overviews: tuple[int, ...] = ()
    """Factors by which the mask's overviews are decimated, such as 2, 4, 8."""


class RasterProfile(BaseModel):
    """The header of a raster."""

    model_config = ConfigDict(frozen=True)

    driver: str
    """GDAL's short name of the format, such as `GTiff`."""
    width: int
    """Columns, px."""
    height: int
    """Rows, px."""
    count: int
    """Number of bands."""
    dtype: str
    """NumPy name of a dtype that holds the values of all bands."""
    colorinterp: tuple[str, ...]
    """GDAL's colour interpretation of each band, in lower case, such as `red` or `alpha`."""
    descriptions: tuple[str | None, ...]
    """Description of each band, or None."""
    crs_wkt: str | None
    """Native CRS as WKT2, or None. It is the CRS of the ground control points if they georeference the raster."""
    transform: tuple[float, float, float, float, float, float]
    """a, b, c, d, e, f of the affine from (column, row) to (x, y) in the native CRS."""
    gcps: tuple[GroundControlPoint, ...] = ()
    """Ground control points, if they georeference the raster. They do so only if the affine is the identity."""
    nodata: tuple[int | float | None, ...]
    """Nodata value of each band, or None. NaN and infinity are None too, because such pixels are invalid anyway. Values
    from the file are floats. A declared value may be an int."""
    nodata_nan: bool = False
    """Whether the nodata value of a band is NaN."""
    mask_overviews: tuple[int, ...] = Field(default=(), exclude_if=lambda factors: not factors)
    """Factors by which the overviews of the mask file beside the raster are decimated. Empty if there is no mask file,
    or if it has no overviews."""
    masked: bool = False
    """Whether GDAL reads a mask from the raster's own file: an internal mask, or one colour that is declared as nodata.
    Nodata values and the alpha band do not count."""
    mask_file: str | None = None
    """State of the mask file beside the raster (see `mask_file_state`), or None if there is none."""
    block_height: int
    """Rows of a block, px. A block is the smallest part of the file that can be decoded."""
    block_width: int
    """Columns of a block, px."""
    interleave: str
    """`pixel` if a block holds all bands, else `band` or `line`."""
    compression: str | None = None
    """GDAL's name of the compression, or None."""
    bits: int | None = None
    """Number of bits of a pixel's value in the first band, if the dtype has more bits; else None."""
    overviews: tuple[int, ...] = ()
    """Factors by which the overviews are decimated, such as 2, 4, 8."""
    palette: tuple[tuple[int, int, int], ...] | None = None
    """Red, green and blue of each value, if the first band is an index into a palette; else None."""
    transparent: tuple[int, ...] = ()
    """Values whose colour in the palette is fully transparent."""
    acquired: datetime | None = None
    """Time of acquisition from the file's tags, UTC, or None."""
    on_earth: bool = True
    """Whether the pixels have places on Earth. Otherwise footprints are in pixels."""
    declared_nodata: Nodata | None = None
    """Nodata value that a person declared instead of those of the file, or None."""
    alpha_ignored: bool = False
    """Whether a person declared that no band is alpha."""
    valid_mask: ValidMask | None = None
    """Mask that a person gave, or None. Pixels where it is 0 are invalid."""
    scale_offset: tuple[tuple[float, float] | None, ...] = Field(default=(), exclude_if=lambda pairs: not pairs)
    """Scale and offset of each band: physical value = scale * pixel + offset. None for a band without them. Empty if no
    band has them. Only presets of scenes use them."""
    assets: tuple[AssetProfile, ...] = Field(default=(), exclude_if=lambda assets: not assets)
    """The files of a scene. Empty if this is the header of one file."""
    warp: Warp | None = Field(default=None, exclude_if=lambda warp: warp is None)
    """If the pixels are moved onto another grid of pixels while they are read: how this is done. Then `width`,
    `height`, `crs_wkt`, `transform`, the blocks and the overviews are those of the warped raster. None for a raster
    that is read unchanged."""

    @property
    def original(self) -> RasterProfile:
        """The header in the raster's files, before any warp."""
        return self if self.warp is None else self.warp.unwarped

    @property
    def affine(self) -> Affine:
        """The affine from (column, row) to (x, y) in the native CRS."""
        from affine import Affine  # It takes long to import, and a search does not need it.

        return Affine(*self.transform)

    @property
    def alpha_band(self) -> int | None:
        """Number of the alpha band, from 1. None if the raster has none, or if `alpha_ignored` is True."""
        names = () if self.alpha_ignored else self.colorinterp
        return names.index(_ALPHA) + 1 if _ALPHA in names else None

    def check_unchanged(self, store: ObjectStore, source: Source, *, remedy: Callable[[], str] = run_again) -> None:
        """Refuse the raster if its file or a mask in another file was changed since the raster was registered.

        Args:
            store: gives the credentials for files on S3.
            source: the raster as it was registered.
            remedy: function that returns what a person can do about a changed raster.

        Raises:
            RasterChangedError: if the raster or a mask was changed.
            StoreError: if the raster or a mask is missing or may not be read.
        """
        mask = None if self.valid_mask is None else self.valid_mask.source
        check_unchanged(store, source, mask_file=self.mask_file, valid_mask=mask, remedy=remedy)
        for asset in self.assets:
            if (asset.source.uri, asset.profile.mask_file) != (source.uri, None):  # The source was just checked.
                asset.profile.check_unchanged(store, asset.source, remedy=remedy)

    def declarations(self) -> dict[str, Any]:
        """Return what a person declared about valid pixels, as JSON values. It is empty if nothing was declared."""
        values: dict[str, Any] = {}
        if self.declared_nodata is not None:
            values["nodata"] = self.declared_nodata
        if self.alpha_ignored:
            values["ignore_alpha"] = True
        if self.valid_mask is not None:
            values["valid_mask"] = self.valid_mask.source.model_dump(mode="json", include={"uri", "size", "version"})
        return values

    @property
    def striped(self) -> bool:
        """Whether a block is as wide as the raster, so that the file is read by rows."""
        return self.block_width >= self.width

    def decoded_pixels(self, rows: int, columns: int) -> float:
        """Return the number of pixels of a band that GDAL decodes to read the whole raster at a smaller size.

        GDAL reads the smallest overview that is at most 1.2 times smaller than the wanted size. The factor 1.2 is that
        of GDALBandGetBestOverviewLevel2 in GDAL 3.10 for the nearest neighbour. If GDAL must decode more pixels of a
        mask, the mask's pixels are counted. The mask is the mask file beside the raster, or a mask that a person gave.

        Args:
            rows: rows to resample to.
            columns: columns to resample to.
        """
        wanted = 1.2 * min(self.width / columns, self.height / rows)
        files = [self.overviews]
        if self.mask_file is not None:
            files.append(self.mask_overviews)
        if self.valid_mask is not None:
            files.append(self.valid_mask.overviews)
        factor = min(max((factor for factor in overviews if factor < wanted), default=1) for overviews in files)
        return self.width * self.height / factor**2


class AssetProfile(BaseModel):
    """One file of a scene: its identity, its header, and the names of its bands."""

    model_config = ConfigDict(frozen=True)

    name: str
    """Name of the channel, or key of the asset in the STAC Item. Used in errors and in the STAC Item of the dataset."""
    source: Source
    """Identity of the file."""
    profile: RasterProfile
    """Header of the file. A nodata value, a scale or an offset that the file lacks is taken from the STAC Item."""
    band_names: tuple[str | None, ...]
    """Name of each band of the file in the scene, such as `red`, or None."""

    @property
    def bands(self) -> tuple[int, ...]:
        """Numbers of the file's bands that are bands of the scene, from 1: all but the alpha band."""
        alpha = self.profile.alpha_band
        return tuple(band for band in range(1, self.profile.count + 1) if band != alpha)

    def is_coarser_than(self, scene: RasterProfile) -> bool:
        """Return whether the file has larger pixels than the scene, so that it is resampled."""
        return (self.profile.width, self.profile.height) != (scene.width, scene.height)


class Warp(BaseModel):
    """How a raster is seen on another grid of pixels. See `rasterembed.raster.warp`."""

    model_config = ConfigDict(frozen=True)

    unwarped: RasterProfile
    """Header in the raster's files."""
    anchor: Anchor
    """Position of the warped raster on the common lattice."""
    samples: int
    """Number of samples along each side of a pixel. The mean of `samples` x `samples` samples is its colour."""


def inspect_raster(store: ObjectStore, uri: str, *, allow_no_crs: bool = False) -> RasterProfile:
    """Read a raster's header, and refuse a raster that cannot be embedded.

    Args:
        store: gives the credentials for a raster on S3.
        uri: absolute path, or s3://bucket/key.
        allow_no_crs: True to accept a raster without a place on Earth, False to refuse it.

    Raises:
        DataError: if the raster cannot be embedded. The text says why, and what to do.
        StoreError: if the raster does not exist or may not be read.

    Example:
        >>> import rasterio
        >>> from rasterio.transform import from_origin
        >>> from rasterembed.raster.source import register
        >>> from rasterembed.store.object_store import ObjectStore
        >>> header = {"width": 448, "height": 224, "count": 3, "dtype": "uint16", "crs": "EPSG:32635"}
        >>> rasterio.open("town.tif", "w", transform=from_origin(360_000, 6_720_000, 10, 10), **header).close()
        >>> store = ObjectStore(root="embeddings")
        >>> profile = inspect_raster(store, register(store, "town.tif").uri)
        >>> profile.driver, profile.width, profile.height, profile.count, profile.dtype
        ('GTiff', 448, 224, 3, 'uint16')
    """
    size = store.describe(uri).size
    tiff = _check_file(store, uri, size)
    with _library_errors(uri), open_raster(store, uri) as dataset:
        profile = _read_profile(dataset, uri, mask_file=mask_file_state(store, uri))
        has_rpcs = dataset.rpcs is not None
    _check_pixels(profile, uri, size, tiff)
    if profile.mask_file is not None:
        profile = profile.model_copy(update={"mask_overviews": _check_mask_file(store, uri, profile)})
    problem = why_not_on_earth(profile, has_rpcs=has_rpcs)
    if problem is None:
        return profile
    if allow_no_crs:
        return profile.model_copy(update={"on_earth": False})
    raise DataError(f"{uri}: {problem}, or allow footprints in pixels with `allow_no_crs`")


@contextmanager
def _library_errors(uri: str) -> Iterator[None]:
    """Turn an error of GDAL or rasterio about a header into a DataError.

    rasterio raises some of GDAL's errors with classes that are not subclasses of RasterioError. rasterio decodes all
    texts as UTF-8, and raises UnicodeDecodeError for any other text.
    """
    from rasterio._err import CPLE_BaseError
    from rasterio.errors import CRSError, RasterioError

    try:
        yield
    except UnicodeDecodeError as error:
        raise DataError(
            f"{uri}: a text of its CRS is not UTF-8: assign the CRS anew (gdal_translate -a_srs EPSG:... FILE NEW.tif)"
        ) from error
    except (RasterioError, CRSError, CPLE_BaseError) as error:
        raise DataError(
            f"{uri}: its header cannot be read ({one_line(error)}): write it anew (gdal_translate -of COG FILE NEW.tif)"
        ) from error


def _descriptions(dataset: rasterio.DatasetReader) -> tuple[str | None, ...]:
    """Return the description of each band, or None.

    rasterio reads all descriptions in one call. If one description is not UTF-8, the call fails, and every description
    is None.
    """
    try:
        return tuple(dataset.descriptions)
    except UnicodeDecodeError:
        return tuple(None for _ in dataset.indexes)


def _read_profile(dataset: rasterio.DatasetReader, uri: str, *, mask_file: str | None) -> RasterProfile:
    from rasterio.enums import MaskFlags

    if dataset.count == 0:
        inner = f"; it holds subdatasets: {', '.join(dataset.subdatasets[:3])}" if dataset.subdatasets else ""
        raise DataError(f"{uri}: it has no bands{inner}")
    gcps, gcp_crs = dataset.gcps
    by_gcps = bool(gcps) and dataset.transform.is_identity
    crs = gcp_crs if by_gcps else dataset.crs
    flags = dataset.mask_flag_enums[0]
    return RasterProfile(
        driver=dataset.driver,
        width=dataset.width,
        height=dataset.height,
        count=dataset.count,
        dtype=_common_dtype(dataset.dtypes),
        colorinterp=tuple(c.name for c in dataset.colorinterp),
        descriptions=_descriptions(dataset),
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
        bits=_bits(dataset),
        overviews=tuple(dataset.overviews(1)),
        palette=_palette(dataset),
        transparent=_transparent(dataset),
        acquired=acquisition_time(dataset.tags() | dataset.tags(ns="IMAGERY")),
        scale_offset=_scale_offset(dataset),
    )


def _scale_offset(dataset: rasterio.DatasetReader) -> tuple[tuple[float, float] | None, ...]:
    """Return scale and offset of each band. A band whose scale is 1 and whose offset is 0 has none.

    Scales that are not positive and numbers that are not finite have no meaning, and are left out.
    """
    pairs = [
        (scale, offset) if (scale, offset) != (1, 0) and 0 < scale < math.inf and math.isfinite(offset) else None
        for scale, offset in zip(dataset.scales, dataset.offsets, strict=True)
    ]
    return tuple(pairs) if any(pairs) else ()


def _common_dtype(dtypes: tuple[str, ...]) -> str:
    """Return the name of a dtype that holds the values of all bands, or the first complex dtype if there is one."""
    complex_dtypes = [d for d in dtypes if d.startswith("complex")]
    return complex_dtypes[0] if complex_dtypes else str(np.result_type(*dtypes))


def _bits(dataset: rasterio.DatasetReader) -> int | None:
    """Return GDAL's tag NBITS of the first band, if it is smaller than the number of bits of the dtype; else None."""
    text = dataset.tags(1, ns="IMAGE_STRUCTURE").get("NBITS", "")
    bits = int(text) if text.isdecimal() else 0
    return bits if 1 <= bits < 8 * np.dtype(dataset.dtypes[0]).itemsize else None


def _palette(dataset: rasterio.DatasetReader) -> tuple[tuple[int, int, int], ...] | None:
    """Return red, green and blue of each value of the first band, or None if the band has no palette.

    A value that is missing in the palette is black.
    """
    if dataset.colorinterp[0].name != _PALETTE:
        return None
    colours = dataset.colormap(1)
    return tuple(colours.get(i, (0, 0, 0, 0))[:3] for i in range(max(colours) + 1))


def _transparent(dataset: rasterio.DatasetReader) -> tuple[int, ...]:
    """Return the values of the first band whose colour in the palette is fully transparent.

    They are needed because GDAL makes no mask if several values are transparent.
    """
    if dataset.colorinterp[0].name != _PALETTE:
        return ()
    return tuple(sorted(value for value, colour in dataset.colormap(1).items() if colour[3] == 0))


def _check_file(store: ObjectStore, uri: str, size: int) -> TiffFile | None:
    """Check a file before GDAL opens it. Return the structure of a TIFF, or None for another format."""
    with store.open_uri(uri) as file:
        tiff = check_tiff(file, size, uri)
        check_crs_files(file, b"" if tiff is None else tiff.geo_text, uri)
    if tiff is not None and tiff.pages > 1:
        raise DataError(
            f"{uri}: it has {tiff.pages} pages, and one raster becomes one dataset: write each page to a file of its "
            "own (gdalinfo FILE lists the pages; gdal_translate GTIFF_DIR:N:FILE PAGE.tif)"
        )
    return tiff


def _check_pixels(profile: RasterProfile, uri: str, file_bytes: int, tiff: TiffFile | None) -> None:
    """Refuse complex pixels, blocks that are too large, and suspicious headers (see `_SUSPICIOUS_BYTES`)."""
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
    if suspicious and not (tiff is not None and tiff.has_data):
        what = "no data, only {} bytes of header" if tiff is not None else "{} bytes only: it is damaged or cut off"
        raise DataError(
            f"{uri}: the header declares {profile.width}x{profile.height}x{profile.count} px "
            f"({raw / 2**30:.0f} GiB) but the file has {what.format(file_bytes)}"
        )


def _check_mask_file(store: ObjectStore, uri: str, profile: RasterProfile) -> tuple[int, ...]:
    """Check the mask file beside a raster, and return the factors by which the mask's overviews are decimated."""
    _check_file(store, uri + ".msk", store.describe(uri + ".msk").size)
    with open_raster(store, uri + ".msk") as mask:
        shape = (mask.height, mask.width)
        if shape != (profile.height, profile.width) or mask.count not in (1, profile.count):
            raise DataError(
                f"{uri}.msk: a mask of {mask.width}x{mask.height}x{mask.count} px does not fit the raster's "
                f"{profile.width}x{profile.height}x{profile.count}: remove it or make it anew"
            )
        return tuple(mask.overviews(1))
