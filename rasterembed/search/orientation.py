"""Turn a photo upright. A camera stores pixels in the order of its sensor. EXIF data says how the camera was held."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from rasterio.windows import Window

from rasterembed.store.object_store import ObjectStore

_Value = TypeVar("_Value", bound=np.generic)

_FORMATS = ("JPEG", "PNG", "TIFF")
"""Pillow's names of the formats that may hold an orientation."""


@dataclass(frozen=True)
class Orientation:
    """The steps that turn stored pixels into an upright picture: first swap rows and columns, then reverse them."""

    swapped: bool = False
    """Whether rows and columns are swapped."""
    rows_reversed: bool = False
    """Whether the order of the rows is reversed after the swap."""
    columns_reversed: bool = False
    """Whether the order of the columns is reversed after the swap."""

    def central_square(self, width: int, height: int) -> Window:
        """Return the window, in stored pixels, of the square in the middle of the upright picture.

        Args:
            width: stored columns, px.
            height: stored rows, px.
        """
        rows, columns = (width, height) if self.swapped else (height, width)
        side = min(rows, columns)
        top, left = (rows - side) // 2, (columns - side) // 2
        if self.rows_reversed:
            top = rows - side - top
        if self.columns_reversed:
            left = columns - side - left
        return Window(top, left, side, side) if self.swapped else Window(left, top, side, side)

    def upright(self, stored: NDArray[_Value]) -> NDArray[_Value]:
        """Return stored pixels as an upright picture. The last two axes of the array are rows and columns."""
        turned = stored.swapaxes(-2, -1) if self.swapped else stored
        rows, columns = (slice(None, None, -1 if back else 1) for back in (self.rows_reversed, self.columns_reversed))
        return np.ascontiguousarray(turned[..., rows, columns])


_ORIENTATIONS = {
    2: Orientation(columns_reversed=True),
    3: Orientation(rows_reversed=True, columns_reversed=True),
    4: Orientation(rows_reversed=True),
    5: Orientation(swapped=True),
    6: Orientation(swapped=True, columns_reversed=True),
    7: Orientation(swapped=True, rows_reversed=True, columns_reversed=True),
    8: Orientation(swapped=True, rows_reversed=True),
}
"""Meaning of the tag Orientation (274) of TIFF 6.0 and EXIF 2.3. The value 1, and every value that is not defined, mean
that the stored picture is upright."""


def read_orientation(store: ObjectStore, uri: str) -> Orientation:
    """Return the orientation that a photo's EXIF data names. Without readable EXIF data, the photo is upright.

    Args:
        store: store with the credentials for a photo on S3.
        uri: absolute path, or s3://bucket/key.

    Raises:
        StoreError: if the photo does not exist or may not be read.
    """
    from PIL import ExifTags, Image  # A search without an image needs no Pillow.

    with store.open_uri(uri) as file:
        try:
            with Image.open(file, formats=_FORMATS) as image:
                value = image.getexif().get(ExifTags.Base.Orientation)
        # Damaged EXIF data is no reason to refuse a photo, because GDAL reads the pixels without it. For damaged EXIF
        # data, Pillow raises errors of many classes.
        except Exception:
            return Orientation()
    return _ORIENTATIONS.get(value, Orientation()) if isinstance(value, int) else Orientation()
