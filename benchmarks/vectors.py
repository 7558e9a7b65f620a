"""Vectors for the benchmarks of search: clustered vectors, and vectors in the shape of a real model's output."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import rasterio
import torch
from numpy.typing import NDArray
from rasterio.windows import Window

from benchmarks.harness import VIT_S16, make_checkpoint

_CLUSTERS, _DIRECTIONS = 200, 64

_RASTERS = ("TCI.tif", "cogeo.tif", "RGB.byte.tif", "world.rgb.tif", "cog_rgb_mask.tif")
"""Rasters with three bands of 8 bits, in the folder of `benchmarks.harness.default_rasters`."""

_SIDE = 32
"""Side of a tile of the rasters, in px."""

_NEAR = 8
"""Number of nearest tiles with which a tile is mixed."""

Vectors = Callable[[NDArray[np.intp]], NDArray[np.float32]]
"""Function that takes the numbers of n rows, shape (n,), and returns their vectors, shape (n, dimensions).

The same numbers always give the same vectors.
"""


def made_up_vectors(dimensions: int) -> Vectors:
    """Return a function that generates clustered vectors: 200 clusters in 64 directions, with noise in all dimensions.

    Args:
        dimensions: length of a vector.
    """
    rng = np.random.default_rng(1)
    centres = rng.standard_normal((_CLUSTERS, _DIRECTIONS), dtype=np.float32)
    directions = rng.standard_normal((_DIRECTIONS, dimensions), dtype=np.float32) / np.float32(_DIRECTIONS**0.5)

    def vectors(numbers: NDArray[np.intp]) -> NDArray[np.float32]:
        own = np.random.default_rng(int(numbers[0]))
        shape = len(numbers), _DIRECTIONS
        low = centres[own.integers(0, _CLUSTERS, shape[0])] + np.float32(0.7) * own.standard_normal(shape, np.float32)
        noise = own.standard_normal((shape[0], dimensions), np.float32)
        generated: NDArray[np.float32] = low @ directions + np.float32(0.2) * noise
        return generated

    return vectors


def raster_vectors(folder: Path) -> Vectors:
    """Return a function that generates vectors in the shape of a real model's output, from tiles of real rasters.

    A DINOv3 ViT with the size of ViT-S/16 (384 dimensions) and random weights embeds the tiles of the rasters. A row is
    a mixture of a random tile's vector and the vector of one of its eight nearest tiles, plus noise. The weight of the
    second vector is a random number from 0 to 0.5. The standard deviation of the noise is a fifth of that between near
    tiles, in each dimension.

    Args:
        folder: folder with the rasters.

    Raises:
        FileNotFoundError: if the folder has none of the rasters.
    """
    tiles = _tile_vectors(folder)
    unit = tiles / np.linalg.norm(tiles, axis=1, keepdims=True)
    near = np.argsort(-(unit @ unit.T), axis=1, kind="stable")[:, 1 : _NEAR + 1]
    spread = np.sqrt(np.mean((tiles[:, None] - tiles[near]) ** 2, axis=(0, 1))).astype(np.float32) / np.float32(5)

    def vectors(numbers: NDArray[np.intp]) -> NDArray[np.float32]:
        own = np.random.default_rng(int(numbers[0]))
        count = len(numbers)
        first = own.integers(0, len(tiles), count)
        second = near[first, own.integers(0, _NEAR, count)]
        weight = own.random((count, 1), np.float32) / np.float32(2)
        noise = own.standard_normal((count, tiles.shape[1]), np.float32) * spread
        mixed: NDArray[np.float32] = tiles[first] * (1 - weight) + tiles[second] * weight + noise
        return mixed

    return vectors


def questions(vectors: Vectors, count: int) -> NDArray[np.float32]:
    """Return unit vectors that are not among the first 10**9 rows, but are similar to them, shape (count, dimensions).

    Args:
        vectors: the function that generates the rows.
        count: number of vectors.
    """
    return unit(vectors(np.arange(10**9, 10**9 + count, dtype=np.intp)))


def unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scale vectors of shape (n, dimensions) to length 1."""
    scaled: NDArray[np.float32] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return scaled


class Nearest:
    """Finds the rows nearest to some queries by NumPy alone, block by block.

    Args:
        queries: unit vectors, shape (n, dimensions).
        k: number of rows for each query.
    """

    def __init__(self, queries: NDArray[np.float32], k: int) -> None:
        self._queries, self._k = queries, k
        self._similarity = np.empty((len(queries), 0), np.float32)
        self.rows = np.empty((len(queries), 0), np.int64)
        """Numbers of the nearest rows so far, shape (n, k) or less, in any order."""

    def add(self, block: NDArray[np.float32], numbers: NDArray[np.int64]) -> None:
        """Compare a block of rows.

        Args:
            block: unit vectors, shape (m, dimensions).
            numbers: their row numbers, shape (m,).
        """
        similarity = np.hstack([self._similarity, self._queries @ block.T])
        rows = np.hstack([self.rows, np.broadcast_to(numbers, (len(self.rows), len(numbers)))])
        if similarity.shape[1] > self._k:
            best = np.argpartition(-similarity, self._k, axis=1)[:, : self._k]
            similarity, rows = np.take_along_axis(similarity, best, axis=1), np.take_along_axis(rows, best, axis=1)
        self._similarity, self.rows = similarity, rows


def _tile_vectors(folder: Path) -> NDArray[np.float32]:
    """Return the vectors of all tiles that are not of a single colour, shape (tiles, 384)."""
    from transformers import DINOv3ViTModel  # Most vectors need no model.

    present = [folder / name for name in _RASTERS if (folder / name).exists()]
    if not present:
        raise FileNotFoundError(f"{folder} has none of the rasters {', '.join(_RASTERS)}")
    tiles = []
    for file in present:
        with rasterio.open(file) as raster:
            for row in range(0, raster.height - _SIDE + 1, _SIDE):
                for col in range(0, raster.width - _SIDE + 1, _SIDE):
                    pixels = raster.read((1, 2, 3), window=Window(col, row, _SIDE, _SIDE))
                    if pixels.std() > 1:
                        tiles.append(pixels)
    mean, std = (np.array(each, np.float32)[:, None, None] for each in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    with tempfile.TemporaryDirectory() as scratch:
        model = DINOv3ViTModel.from_pretrained(make_checkpoint(Path(scratch), **VIT_S16)).eval()
    vectors = []
    with torch.inference_mode():
        for start in range(0, len(tiles), 64):
            batch = (np.stack(tiles[start : start + 64]).astype(np.float32) / 255 - mean) / std
            vectors.append(model(torch.from_numpy(batch)).pooler_output.float().numpy())
    return np.concatenate(vectors)
