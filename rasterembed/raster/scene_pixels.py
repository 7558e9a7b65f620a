"""Read the files of a scene as one image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.windows import Window

from rasterembed.raster.pixels import Pixels
from rasterembed.raster.profile import RasterProfile


class ScenePixels(Pixels):
    """The open files of a scene. Band n of the scene is one band of one file.

    The rules for valid pixels are those of `Pixels`, with one addition: a mask or an alpha band belongs to its file. A
    pixel is invalid if the masks of all files that are read hide it, as if each band had its own mask.

    Args:
        profile: header of the scene.
        files: the open files, in the order of `profile.assets`.
        valid_mask: the mask that a person gave, or None.
    """

    def __init__(
        self, profile: RasterProfile, files: Sequence[Pixels], valid_mask: rasterio.DatasetReader | None
    ) -> None:
        self._profile = profile
        self._valid_mask = valid_mask
        self._bands = [(file, band) for file, asset in zip(files, profile.assets, strict=True) for band in asset.bands]
        self._nodata = [file.nodata_of_band(band) for file, band in self._bands]

    @property
    def dtype(self) -> np.dtype[Any]:
        """NumPy dtype that holds the values of all files."""
        return np.dtype(self._profile.dtype)

    @property
    def overviews(self) -> tuple[int, ...]:
        """Factors by which the overviews of all open files are decimated."""
        return tuple(sorted(set.intersection(*(set(file.overviews) for file, _ in self._bands))))

    def buffer_bands(self, bands: tuple[int, ...]) -> int:
        """Return the number of bands in the buffer of `read_into`. Alpha bands are read elsewhere."""
        return len(bands)

    def read_by_band(
        self, bands: tuple[int, ...], window: Window, shape: tuple[int, int] | None = None
    ) -> tuple[NDArray[np.generic], NDArray[np.bool_]]:
        """Read bands of a window, and find out for each band which pixels are valid. See `Pixels.read_by_band`."""
        pieces = [file.read_by_band(numbers, window, shape) for _, file, numbers in self._by_file(bands)]
        pixels = np.concatenate([pixels.astype(self.dtype, copy=False) for pixels, _ in pieces])
        valid = np.concatenate([valid for _, valid in pieces])
        if self._valid_mask is not None:
            valid &= self._valid_mask.read(1, window=window, out_shape=valid.shape[1:]) != 0
        return pixels, valid

    def _read_inside(
        self, buffer: NDArray[np.generic], bands: tuple[int, ...], window: Window
    ) -> tuple[NDArray[np.generic], NDArray[np.bool_] | None]:
        """Read bands of a window inside the scene. See `Pixels.read_into`."""
        rows, cols = buffer.shape[1:]
        masks: list[NDArray[np.bool_] | None] = []
        for place, file, numbers in self._by_file(bands):
            part = buffer[place : place + len(numbers)]
            with_alpha = file.buffer_bands(numbers)
            if with_alpha == len(numbers):
                _, mask = file.read_into(part, numbers, window)
            else:
                own = np.empty((with_alpha, rows, cols), file.dtype)
                part[:], mask = file.read_into(own, numbers, window)
            masks.append(mask)
        shown = [mask for mask in masks if mask is not None]
        # A file without a mask shows every pixel.
        hidden = [] if len(shown) < len(masks) else [np.logical_or.reduce(shown)]
        if self._valid_mask is not None:
            hidden.append(self._valid_mask.read(1, window=window, out_shape=(rows, cols)) != 0)
        return buffer, np.logical_and.reduce(hidden) if hidden else None

    def _by_file(self, bands: tuple[int, ...]) -> Iterator[tuple[int, Pixels, tuple[int, ...]]]:
        """Yield bands that follow each other in one file: place in `bands`, the file, and band numbers in the file."""
        place = 0
        for _, group in groupby((self._bands[band - 1] for band in bands), key=lambda pair: id(pair[0])):
            pairs = list(group)
            yield place, pairs[0][0], tuple(number for _, number in pairs)
            place += len(pairs)
