"""Read a file of a scene at the resolution of the scene's finest file. Nothing is written.

Colours are bilinear: each pixel is computed from the four nearest pixels of the file. Validity is that of the nearest
pixel. GDAL warps the pixels of each window when they are read.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window

from rasterembed.raster.drivers import open_raster
from rasterembed.raster.jpeg_damage import damage_is_an_error
from rasterembed.raster.pixels import Pixels
from rasterembed.raster.profile import AssetProfile, RasterProfile
from rasterembed.store.object_store import ObjectStore

_WARP_MIB = 64
"""Largest size in MiB of the pixels that GDAL warps in one step."""

_TOLERANCE = 1e-6
"""Largest error of a pixel's place, px. GDAL's default of 0.125 px would depend on the window. rasterio refuses 0."""


class ResampledPixels(Pixels):
    """An open file of a scene, seen on the scene's finer grid of pixels.

    Args:
        profile: header of the file, with the size and the transform of the scene.
        nearest: the file, resampled to the nearest pixel.
        bilinear: the file, resampled with bilinear weights. Pixels with the nodata value have no weight.
    """

    def __init__(self, profile: RasterProfile, nearest: WarpedVRT, bilinear: WarpedVRT) -> None:
        super().__init__(profile, nearest, None, None)
        self._bilinear = bilinear

    def _read_inside(
        self, buffer: NDArray[np.generic], bands: tuple[int, ...], window: Window
    ) -> tuple[NDArray[np.generic], NDArray[np.bool_] | None]:
        """Read bands of a window inside the scene. See `Pixels.read_into`.

        A pixel whose nearest pixel is invalid keeps the nearest pixel's value, so that it is still invalid. The same
        is done if the weights give the nodata value by chance, so that it is still valid.
        """
        pixels, mask = super()._read_inside(buffer, bands, window)
        for band, nearest in zip(bands, pixels, strict=True):
            # The four nearest pixels may be in a block that the nearest pixel is not in.
            with damage_is_an_error():
                smooth = self._bilinear.read(band, window=window, out=np.empty_like(nearest))
            use = np.isfinite(smooth) & np.isfinite(nearest)
            nodata = self.nodata_of_band(band)
            if nodata is not None:
                use &= nodata.differs(nearest) & nodata.differs(smooth)
            np.copyto(nearest, smooth, where=use)
        return pixels, mask


@contextmanager
def open_resampled(
    store: ObjectStore, asset: AssetProfile, scene: RasterProfile, *, cache_bytes: int
) -> Iterator[ResampledPixels]:
    """Open a file of a scene, to read it at the resolution of the scene.

    Args:
        store: gives the credentials for a file on S3.
        asset: the file. `join_assets` has checked that it can be resampled.
        scene: header of the scene.
        cache_bytes: size in bytes of GDAL's block cache, which the whole process shares.

    Raises:
        DataError: if no allowed driver reads the file.
    """
    nodata = asset.profile.nodata[asset.bands[0] - 1]
    if nodata is None and np.issubdtype(asset.profile.dtype, np.floating):
        nodata = np.nan  # Otherwise, a pixel that is NaN would spread to its neighbours.
    with ExitStack() as stack:
        dataset = stack.enter_context(open_raster(store, asset.source.uri, cache_bytes=cache_bytes))
        nearest, bilinear = (
            stack.enter_context(
                WarpedVRT(
                    dataset,
                    crs=dataset.crs,
                    transform=scene.affine,
                    width=scene.width,
                    height=scene.height,
                    src_nodata=nodata,
                    nodata=nodata,
                    resampling=resampling,
                    tolerance=_TOLERANCE,
                    warp_mem_limit=_WARP_MIB,
                )
            )
            for resampling in (Resampling.nearest, Resampling.bilinear)
        )
        seen = {"width": scene.width, "height": scene.height, "transform": scene.transform}
        yield ResampledPixels(asset.profile.model_copy(update=seen), nearest, bilinear)
