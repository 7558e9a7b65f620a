"""Read pixels of a raster and find out which of them are valid."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import MaskFlags
from rasterio.windows import Window

from rasterembed.raster.drivers import open_raster
from rasterembed.raster.jpeg_damage import damage_is_an_error
from rasterembed.raster.profile import RasterProfile
from rasterembed.store.object_store import ObjectStore, is_remote

_CACHE_BYTES = 32 * 2**20
"""Size in bytes of GDAL's block cache while only a few windows are read."""


class Pixels:
    """An open raster whose pixels can be read. `open_pixels` creates it."""

    def __init__(
        self,
        profile: RasterProfile,
        dataset: rasterio.DatasetReader,
        mask_file: rasterio.DatasetReader | None,
        valid_mask: rasterio.DatasetReader | None,
    ) -> None:
        self._profile = profile
        self._dataset = dataset
        self._mask_file = mask_file
        self._valid_mask = valid_mask
        self._mask_bands = [] if mask_file is None else _mask_bands(mask_file, profile.count)
        # rasterio returns nodata values as float64, which cannot hold all 64-bit integers. For pixels of 64-bit
        # integers, GDAL itself therefore compares the pixels with the nodata value.
        in_file = profile.declared_nodata is None and _has_nodata(dataset)
        self._nodata_by_gdal = in_file and self.dtype.kind in "iu" and self.dtype.itemsize == 8
        # GDAL makes a mask of the one colour that a file can declare as nodata. Do not read this mask if a person
        # declared a nodata value, because the declared value replaces the file's.
        by_colour = MaskFlags.nodata in dataset.mask_flag_enums[0]
        self._masked = profile.masked and not (by_colour and profile.declared_nodata is not None)
        # A band without flags has its own mask. The mask of each band must then be read.
        self._masks_by_gdal = self._nodata_by_gdal or any(not flags for flags in dataset.mask_flag_enums)
        self._nodata: list[_Nodata | None] = [
            None if self._nodata_by_gdal else _nodata_as_pixel(value, self.dtype) for value in profile.nodata
        ]

    @property
    def dtype(self) -> np.dtype[Any]:
        """NumPy dtype of the raster's first band."""
        name: str = self._dataset.dtypes[0]
        return np.dtype(name)

    @property
    def overviews(self) -> tuple[int, ...]:
        """Factors by which the overviews of the open file are decimated. Empty if it has none."""
        return tuple(self._dataset.overviews(1))

    def nodata_of_band(self, band: int) -> _Nodata | None:
        """Return the pixel values of a band, from 1, that count as nodata. None if the band has no nodata value."""
        return self._nodata[band - 1]

    def read(
        self, bands: tuple[int, ...], window: Window, shape: tuple[int, int] | None = None
    ) -> tuple[NDArray[np.generic], NDArray[np.bool_]]:
        """Read bands of a window and find out which pixels are valid.

        A pixel is invalid in each of these cases:

        - A mask or the alpha band is 0 at the pixel. If each band has its own mask, the masks of all bands that are
          read must be 0.
        - Every band that is read has its nodata value. This is the rule of GDAL's dataset mask.
        - A band that is read is NaN or infinite.
        - The pixel's colour in the palette is fully transparent.

        Args:
            bands: band numbers, from 1.
            window: a window, px. It may reach beyond the raster if it is not resampled; see `read_into`.
            shape: rows and columns to resample to (nearest neighbour). By default, the rows and columns of the window.

        Returns:
            Pixels of shape (bands, rows, columns) in the raster's dtype, and validity of shape (rows, columns).

        Raises:
            RasterioError: if a block cannot be read or decoded.
        """
        rows, cols = shape or (int(window.height), int(window.width))
        buffer = np.empty((self.buffer_bands(bands), rows, cols), self.dtype)
        pixels, mask = self.read_into(buffer, bands, window)
        valid = np.empty((rows, cols), dtype=bool)
        self.find_valid(bands, pixels, mask, valid)
        return pixels, valid

    def read_by_band(
        self, bands: tuple[int, ...], window: Window, shape: tuple[int, int] | None = None
    ) -> tuple[NDArray[np.generic], NDArray[np.bool_]]:
        """Read bands of a window, and find out for each band which pixels are valid.

        Statistics of a band need this. `read` counts a pixel as valid if at least one band has data. In the bands
        without data, the value of this pixel is nodata and must not be part of the statistics.

        Args:
            bands: band numbers, from 1.
            window: a window inside the raster, px.
            shape: rows and columns to resample to (nearest neighbour). By default, the rows and columns of the window.

        Returns:
            Pixels and validity, both of shape (bands, rows, columns).

        Raises:
            RasterioError: if a block cannot be read or decoded.
        """
        pixels, valid = self.read(bands, window, shape)
        each = np.repeat(valid[np.newaxis], len(bands), axis=0)
        for mask in self._read_band_masks(bands, window, valid.shape):
            each &= mask
        for i, band in enumerate(bands):
            nodata = self._nodata[band - 1]
            if nodata is not None:
                each[i] &= nodata.differs(pixels[i])
        return pixels, each

    def buffer_bands(self, bands: tuple[int, ...]) -> int:
        """Return the number of bands in the buffer of `read_into`: `bands`, and the alpha band if there is one."""
        return len(self._with_alpha(bands))

    def _with_alpha(self, bands: tuple[int, ...]) -> tuple[int, ...]:
        alpha = self._profile.alpha_band
        return (*bands, alpha) if alpha else bands

    def read_into(
        self, buffer: NDArray[np.generic], bands: tuple[int, ...], window: Window
    ) -> tuple[NDArray[np.generic], NDArray[np.bool_] | None]:
        """Read bands of a window into memory that the caller provides. `find_valid` compares nodata values later.

        A window may reach beyond the raster, as the windows of a grid that is anchored to the CRS do. Pixels outside
        the raster are 0, and the mask is False at these pixels.

        Args:
            buffer: memory for the pixels, shape (`buffer_bands(bands)`, rows, columns), in the raster's dtype.
            bands: band numbers, from 1.
            window: a window, px. If the buffer has another shape, the window is resampled, and it must then be inside
                the raster.

        Returns:
            Pixels and mask. The pixels are a view of `buffer`, shape (bands, rows, columns). The mask is False where a
            mask or the alpha band hides a pixel, shape (rows, columns). It is None if the raster has no mask and no
            alpha band, and the window is inside the raster.

        Raises:
            RasterioError: if a block cannot be read or decoded, or if no pixel of the window is inside the raster.
        """
        left, top = max(0, -int(window.col_off)), max(0, -int(window.row_off))
        right = min(int(window.width), self._profile.width - int(window.col_off))
        bottom = min(int(window.height), self._profile.height - int(window.row_off))
        whole = (left, top, right, bottom) == (0, 0, window.width, window.height)
        if whole or left >= right or top >= bottom:
            return self._read_inside(buffer, bands, window)
        inside = Window(window.col_off + left, window.row_off + top, right - left, bottom - top)
        for outside in (
            buffer[:, :top],
            buffer[:, bottom:],
            buffer[:, top:bottom, :left],
            buffer[:, top:bottom, right:],
        ):
            outside[:] = 0
        _, part = self._read_inside(buffer[:, top:bottom, left:right], bands, inside)
        mask = np.zeros(buffer.shape[1:], dtype=bool)
        mask[top:bottom, left:right] = True if part is None else part
        return buffer[: len(bands)], mask

    def _read_inside(
        self, buffer: NDArray[np.generic], bands: tuple[int, ...], window: Window
    ) -> tuple[NDArray[np.generic], NDArray[np.bool_] | None]:
        """Read bands of a window inside the raster. See `read_into`."""
        rows, cols = buffer.shape[1:]
        with damage_is_an_error():
            pixels = self._dataset.read(list(self._with_alpha(bands)), window=window, out=buffer)
        masks = []
        if self._profile.alpha_band:
            masks.append(pixels[-1] > 0)
            pixels = pixels[:-1]
        if self._masked:
            masks.append(self._dataset.read_masks(bands[0], window=window, out_shape=(rows, cols)) > 0)
        if self._valid_mask is not None:
            masks.append(self._valid_mask.read(1, window=window, out_shape=(rows, cols)) != 0)
        masks += [mask.any(axis=0) for mask in self._read_band_masks(bands, window, (rows, cols))]
        return pixels, np.logical_and.reduce(masks) if masks else None

    def _read_band_masks(
        self, bands: tuple[int, ...], window: Window, shape: tuple[int, ...]
    ) -> Iterator[NDArray[np.bool_]]:
        """Yield the masks that may differ between bands: GDAL's own masks, and the masks in the mask file.

        Each array is True where a pixel is valid. Its shape is (bands, rows, columns), or (1, rows, columns) if all
        bands have the same mask.
        """
        if self._masks_by_gdal:
            yield self._dataset.read_masks(list(bands), window=window, out_shape=(len(bands), *shape)) > 0
        if self._mask_file is None:
            return
        numbers = [self._mask_bands[band - 1] for band in bands]
        known = sorted({number for number in numbers if number is not None})
        if not known:
            return
        masks = self._mask_file.read(known, window=window, out_shape=(len(known), *shape)) != 0
        if len(set(numbers)) == 1:
            yield masks
            return
        all_valid = np.ones(shape, dtype=bool)
        yield np.stack([all_valid if number is None else masks[known.index(number)] for number in numbers])

    def find_valid(
        self,
        bands: tuple[int, ...],
        pixels: NDArray[np.generic],
        mask: NDArray[np.bool_] | None,
        out: NDArray[np.bool_],
    ) -> int:
        """Write into `out` which pixels are valid, and return the number of valid pixels.

        Args:
            bands: band numbers of `pixels`, from 1.
            pixels: pixels that `read_into` returned, shape (bands, rows, columns).
            mask: the mask that `read_into` returned with the pixels, shape (rows, columns), or None.
            out: memory for the result, shape (rows, columns). True means valid.
        """
        nodata = self._nodata_of(bands)
        if nodata is None:
            out[:] = True
        else:
            nodata[0].differs(pixels[0], out=out)
            for band, value in zip(pixels[1:], nodata[1:], strict=True):
                # Stop when every pixel has data in some band. In most tiles the first band has data everywhere.
                if out.all():
                    break
                out |= value.differs(band)
        if np.issubdtype(pixels.dtype, np.floating):
            out &= np.isfinite(pixels).all(axis=0)
        if self._profile.transparent and 1 in bands:
            out &= ~np.isin(pixels[bands.index(1)], self._profile.transparent)
        if mask is not None:
            out &= mask
        return int(np.count_nonzero(out))

    def _nodata_of(self, bands: tuple[int, ...]) -> list[_Nodata] | None:
        """Return the nodata value of each band, or None if a band has none."""
        values = [self._nodata[band - 1] for band in bands]
        known = [value for value in values if value is not None]
        return known if len(known) == len(values) else None


@dataclass(frozen=True)
class _Nodata:
    """The pixel values that count as nodata: one value, or a range of floating point numbers."""

    low: np.generic
    high: np.generic

    def differs(self, pixels: NDArray[np.generic], out: NDArray[np.bool_] | None = None) -> NDArray[np.bool_]:
        """Return True for each pixel that is not nodata. For NaN, the result may be True or False."""
        found: NDArray[np.bool_]
        if self.low == self.high:
            found = np.not_equal(pixels, self.low, out=out)
            return found
        found = np.less(pixels, self.low, out=out)
        found |= np.greater(pixels, self.high)
        return found


def _mask_bands(mask_file: rasterio.DatasetReader, count: int) -> list[int | None]:
    """Return the mask of each of `count` bands, as a band number of the mask file. None means: all pixels are valid.

    GDAL writes the tag INTERNAL_MASK_FLAGS_n for each band n. If the bit "per dataset" of the tag is set, the mask of
    band n is band 1 of the mask file. Otherwise it is band n of the mask file. A band without the tag has no mask
    (gdaldefaultoverviews.cpp in GDAL). GDAL ignores a mask file in which no band has the tag. This function uses it,
    because some programs write mask files without tags.
    """
    tags = [mask_file.tags().get(f"INTERNAL_MASK_FLAGS_{band}") for band in range(1, count + 1)]
    if not any(tags):
        return [1] * count if mask_file.count == 1 else list(range(1, count + 1))
    found: list[int | None] = []
    for band, text in enumerate(tags, start=1):
        flags = int(text) if text and text.isdecimal() else 0
        own = 1 if flags & MaskFlags.per_dataset or mask_file.count == 1 else band
        found.append(own if text else None)
    return found


def _has_nodata(dataset: rasterio.DatasetReader) -> bool:
    return any(MaskFlags.nodata in flags for flags in dataset.mask_flag_enums)


def _nodata_as_pixel(nodata: int | float | None, dtype: np.dtype[Any]) -> _Nodata | None:
    """Return a nodata value in the raster's dtype, or None if no pixel of that dtype can have it."""
    if nodata is None:
        return None
    scalar: type[np.generic] = dtype.type
    if np.issubdtype(dtype, np.integer):
        limits = np.iinfo(dtype)
        if not limits.min <= nodata <= limits.max or (isinstance(nodata, float) and not nodata.is_integer()):
            return None
        return _Nodata(scalar(nodata), scalar(nodata))
    # A value beyond the range of float32 becomes infinite. That does no harm: an infinite pixel is invalid anyway.
    with np.errstate(over="ignore"):
        value: np.floating[Any] = dtype.type(nodata)
        return _float_range(value) if np.isfinite(value) and value != 0 else _Nodata(value, value)


def _float_range(nodata: np.floating[Any]) -> _Nodata:
    """Return the range of floating point numbers that GDAL counts as equal to a nodata value.

    A header can hold the nodata value as text, with fewer digits than a pixel. GDAL therefore counts a and b as equal
    if |a - b| < 2 * epsilon * |a + b|. Epsilon is that of float32, for float64 too (ARE_REAL_EQUAL in GDAL's
    gdal_priv_templates.hpp).

    Args:
        nodata: the nodata value, finite and not zero.
    """
    dtype = nodata.dtype
    bits = np.dtype(f"i{dtype.itemsize}")
    size = np.abs(np.array(nodata))
    epsilon = np.finfo(np.float32).eps.astype(dtype)

    def is_nodata(pattern: int) -> bool:
        # Positive floating point numbers have the same order as their bit patterns.
        other = np.array(pattern, bits).view(dtype)
        return bool(size == other or np.abs(size - other) < epsilon * np.abs(size + other) * 2)

    def last(inside: int, outside: int) -> int:
        while abs(inside - outside) > 1:
            middle = (inside + outside) // 2
            inside, outside = (middle, outside) if is_nodata(middle) else (inside, middle)
        return inside

    centre = int(size.view(bits))
    ends = [last(centre, 0), last(centre, int(np.array(np.inf, dtype).view(bits)))]
    low, high = (dtype.type(np.array(pattern, bits).view(dtype)) for pattern in ends)
    return _Nodata(low, high) if nodata > 0 else _Nodata(-high, -low)


@contextmanager
def open_pixels(
    store: ObjectStore, uri: str, profile: RasterProfile, *, cache_bytes: int = _CACHE_BYTES
) -> Iterator[Pixels]:
    """Open a raster and its masks in other files, or all files of a scene, to read pixels.

    Args:
        store: gives the credentials for a raster on S3.
        uri: absolute path, s3://bucket/key, or an https:// address. It is not opened if the profile is that of a scene.
        profile: the raster's header, from `inspect_raster` or `warp_profile`.
        cache_bytes: size in bytes of GDAL's block cache, which the whole process shares.

    Raises:
        DataError: if no allowed driver reads the raster or a mask.
    """
    if profile.warp is not None:
        from rasterembed.raster.warped_pixels import WarpedPixels  # It imports this module.

        with open_pixels(store, uri, profile.warp.unwarped, cache_bytes=cache_bytes) as original:
            yield WarpedPixels(profile, original)
        return
    with ExitStack() as stack:
        # With GTIFF_DIRECT_IO, GDAL copies rows from the file directly into the buffer. Use it only for local files
        # without compression whose blocks are as wide as the raster.
        mask = None if profile.valid_mask is None else profile.valid_mask.source
        if profile.assets:
            # These modules import this one.
            from rasterembed.raster.resampled_pixels import open_resampled
            from rasterembed.raster.scene_pixels import ScenePixels

            files = [
                stack.enter_context(
                    open_resampled(store, asset, profile, cache_bytes=cache_bytes)
                    if asset.is_coarser_than(profile)
                    else open_pixels(store, asset.source.uri, asset.profile, cache_bytes=cache_bytes)
                )
                for asset in profile.assets
            ]
            shown = None if mask is None else stack.enter_context(open_raster(store, mask.uri, cache_bytes=cache_bytes))
            yield ScenePixels(profile, files, shown)
            return
        remote = is_remote(uri) or (mask is not None and mask.remote)
        direct = profile.striped and profile.compression is None and not remote
        stack.enter_context(rasterio.Env(GTIFF_DIRECT_IO=direct))
        dataset = stack.enter_context(open_raster(store, uri, cache_bytes=cache_bytes))
        mask_file = None
        if profile.mask_file is not None:
            # Open the mask file explicitly. If GDAL looked for it, GDAL would open other files beside the raster too.
            mask_file = stack.enter_context(open_raster(store, f"{uri}.msk", cache_bytes=cache_bytes))
        valid_mask = None
        if mask is not None:
            valid_mask = stack.enter_context(open_raster(store, mask.uri, cache_bytes=cache_bytes))
        yield Pixels(profile, dataset, mask_file, valid_mask)
