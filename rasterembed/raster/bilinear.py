"""Compute pixels between the pixels of an image, with bilinear weights. Invalid pixels have no weight."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rasterembed.raster.georeference import Floats


@dataclass(frozen=True)
class _Group:
    """Bands with the same valid pixels."""

    bands: slice
    """Their places among the bands of the image."""
    packed: NDArray[np.generic]
    """Pixels with a border of invalid pixels, shape (rows, columns, channels). Invalid pixels are 0. The last channel
    is 1 where a pixel is valid, else 0."""


class Image:
    """An image that is sampled between its pixels.

    Args:
        pixels: the image, shape (bands, rows, columns).
        valid: the validity of each band, of the same shape.
        nearest: take the value of the nearest pixel, as for indexes into a palette.
    """

    def __init__(self, pixels: NDArray[np.generic], valid: NDArray[np.bool_], *, nearest: bool) -> None:
        self._pixels = pixels
        self._nearest = nearest
        groups = [slice(0, len(pixels))]
        if not (valid == valid[:1]).all():
            # The nodata value of a band hides this band only.
            groups = [slice(band, band + 1) for band in range(len(pixels))]
        self._groups = [_Group(bands, _packed(pixels[bands], valid[bands.start])) for bands in groups]

    def sample(self, x: Floats, y: Floats, samples: int, out: NDArray[np.generic], valid: NDArray[np.bool_]) -> None:
        """Compute pixels, each as the mean of `samples` x `samples` bilinear samples.

        Args:
            x: positions of the samples from the left edge of the image, px, shape (rows * samples, columns * samples).
                Samples outside the image have no weight.
            y: positions from the upper edge, px, of the same shape.
            samples: number of samples along each side of a pixel.
            out: memory for the pixels, shape (bands, rows, columns). Invalid pixels become 0.
            valid: memory for the validity, shape (rows, columns). A pixel is valid if the pixel of the image at its
                centre has data in any band.
        """
        shape = valid.shape[0], samples, valid.shape[1], samples
        centre_x, centre_y = x, y
        if samples > 1:
            centre_x, centre_y = (_summed(axis.reshape(shape)) / samples**2 for axis in (x, y))
        row, col, hits = self._pixel_at(centre_x, centre_y)
        inside = hits if samples == 1 else self._pixel_at(x, y)[2]
        if not inside.all():
            x, y = np.where(inside, x, 0.0), np.where(inside, y, 0.0)
        shown = []
        for group in self._groups:
            nearest = _at(group.packed, row, col)
            channels = nearest if self._nearest else self._means(group, x, y, inside, shape)
            shown.append((nearest[..., -1] != 0) & hits)
            for values, band in zip(np.moveaxis(channels, -1, 0), range(*group.bands.indices(len(out))), strict=False):
                np.copyto(out[band], np.rint(values) if out.dtype.kind in "iu" else values, casting="unsafe")
        valid[:] = shown[0] if len(shown) == 1 else np.logical_or.reduce(shown)
        if len(shown) > 1:
            for group, own in zip(self._groups, shown, strict=True):
                hidden = valid & ~own
                # Another band has data here. This band keeps the nodata value of the nearest pixel.
                out[group.bands, hidden] = self._pixels[group.bands, row[hidden], col[hidden]]
        if not valid.all():
            out[:, ~valid] = 0

    def _pixel_at(self, x: Floats, y: Floats) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.bool_]]:
        """Return row and column of the pixels at these positions, and whether they are in the image.

        Row and column of positions outside the image are 0.
        """
        rows, cols = self._pixels.shape[1:]
        hits = (x >= 0) & (x < cols) & (y >= 0) & (y < rows)
        return np.where(hits, y, 0).astype(np.intp), np.where(hits, x, 0).astype(np.intp), hits

    def _means(
        self, group: _Group, x: Floats, y: Floats, inside: NDArray[np.bool_], shape: tuple[int, int, int, int]
    ) -> NDArray[np.floating[Any]]:
        """Return the mean colours of pixels, shape (rows, columns, channels). The last channel is not a colour.

        Args:
            group: bands to sample.
            x: positions of the samples, px. Any position in the image for a sample outside it.
            y: positions of the samples, px.
            inside: which samples are inside the image.
            shape: rows, samples along a side of a pixel, columns, samples.
        """
        sums = _bilinear(group.packed, x, y).reshape(*shape, -1)
        if shape[1] > 1:
            sums[~inside.reshape(shape)] = 0
        means = _summed(sums)
        weights = means[..., -1]
        # A weight of 1 changes nothing, and most weights are 1.
        part = (weights != 1) & (weights != 0)
        if part.any():
            means[part] /= weights[part][:, None]
        return means


def _packed(pixels: NDArray[np.generic], valid: NDArray[np.bool_]) -> NDArray[np.generic]:
    """Return the pixels of a group of bands. See `_Group`.

    The values of a pixel lie beside each other in memory, because a processor then needs one access to memory for each
    of the four pixels around a sample.
    """
    bands, rows, cols = pixels.shape
    # NumPy copies elements of 2, 4, 8 or 16 bytes faster than others, so the number of channels is a power of two.
    packed = np.zeros((rows + 2, cols + 2, 1 << bands.bit_length()), pixels.dtype)
    inside = packed[1:-1, 1:-1]
    for band in range(bands):
        # A NaN would spread to its neighbours, although its weight is 0.
        np.copyto(inside[..., band], pixels[band], where=valid)
    inside[..., -1] = valid
    return packed


def _summed(samples: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    """Return the sums of the samples of each pixel.

    They are added in a fixed order. The order of NumPy's own sums depends on the shape, and so on the window.

    Args:
        samples: values, shape (rows, samples, columns, samples) or (rows, samples, columns, samples, channels).
    """
    total = samples[:, 0, :, 0]
    for i, j in product(range(samples.shape[1]), range(samples.shape[3])):
        if (i, j) != (0, 0):
            total = total + samples[:, i, :, j]
    return total


def _at(packed: NDArray[np.generic], row: NDArray[np.intp], col: NDArray[np.intp]) -> NDArray[np.generic]:
    """Return all channels of pixels, by row and column without the border, shape (rows, columns, channels)."""
    width, channels = packed.shape[1:]
    found: NDArray[np.generic] = packed.reshape(-1, channels).take((row + 1) * width + (col + 1), axis=0, mode="clip")
    return found


def _bilinear(packed: NDArray[np.generic], x: Floats, y: Floats) -> NDArray[np.floating[Any]]:
    """Return the sums of the four pixels around each position, with bilinear weights.

    Invalid pixels are 0 in all channels, so the last channel is the sum of the weights of the valid pixels.

    Args:
        packed: pixels of a group, with their border.
        x: positions from the left edge of the image, without the border, px, shape (rows, columns).
        y: positions from the upper edge of the image, px, of the same shape.

    Returns:
        Shape (rows * columns, channels). It is float32 if float32 holds all values of the pixels exactly.
    """
    rows, cols, channels = packed.shape
    dtype = np.result_type(packed.dtype, np.float32)
    # The centre of the image's first pixel is at 0.5, and the centre of the border's first pixel at -0.5.
    x, y = x.ravel() + 0.5, y.ravel() + 0.5
    col, row = x.astype(np.intp), y.astype(np.intp)
    # NumPy is much faster with arrays of the same shape than if it repeats each number for a few channels.
    right, down = (np.repeat(axis.astype(dtype), channels).reshape(-1, channels) for axis in (x - col, y - row))
    first = row * cols + col
    flat = packed.reshape(rows * cols, channels)

    def pixel(offset: int) -> NDArray[np.floating[Any]]:
        found: NDArray[np.floating[Any]] = flat.take(first + offset, axis=0, mode="clip").astype(dtype, copy=False)
        return found

    upper, lower = pixel(0), pixel(cols)
    for left, beside in ((upper, pixel(1)), (lower, pixel(cols + 1))):
        beside -= left
        beside *= right
        left += beside
    lower -= upper
    lower *= down
    upper += lower
    return upper
