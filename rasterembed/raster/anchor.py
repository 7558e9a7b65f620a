"""Find the position of a raster on the common lattice of pixels, for a grid that is anchored to the CRS."""

from __future__ import annotations

import math

from rasterembed.errors import DataError
from rasterembed.raster.grid import Anchor
from rasterembed.raster.profile import RasterProfile

_TOLERANCE_PX = 0.01
"""Largest distance of a pixel edge from the common lattice, px."""

_FARTHEST_PX = 2**40
"""Largest distance of a raster from the origin of its CRS, px. Farther away, a float64 has too few digits to tell
whether an edge lies on the lattice. With pixels of a millimetre, this is 27 times the Earth's circumference."""

_INSTEAD = "or count tiles from the raster's corner (`anchor=raster`)"


def find_anchor(profile: RasterProfile) -> Anchor:
    """Return the position of a raster on the lattice of its pixel size that begins at the origin of its CRS.

    Args:
        profile: the raster's header.

    Raises:
        DataError: if the raster has no CRS or no affine, if its rows do not run from west to east or its columns from
            north to south, or if its pixel edges do not lie on the lattice.
    """
    if not profile.on_earth or profile.gcps:
        missing = "only ground control points" if profile.gcps else "no place on Earth"
        raise DataError(
            f"`anchor=crs` needs a raster with a CRS and a transform. It has {missing}: warp it, {_INSTEAD}"
        )
    a, b, c, d, e, f = profile.transform
    turned_px = max(abs(b) * profile.height / abs(a), abs(d) * profile.width / abs(e)) if a and e else math.inf
    if a <= 0 or e >= 0 or turned_px > _TOLERANCE_PX:
        raise DataError(
            "`anchor=crs` needs a raster whose rows run from west to east and whose columns run from north to south. "
            f"Its transform is a={a:.12g}, b={b:.12g}, d={d:.12g}, e={e:.12g}: warp it to north up, {_INSTEAD}"
        )
    cols, rows = c / a, f / -e
    if max(abs(cols), abs(rows)) > _FARTHEST_PX:
        raise DataError(
            f"`anchor=crs`: the raster lies {max(abs(cols), abs(rows)):.3g} px from the origin of its CRS, more than "
            f"{_FARTHEST_PX:.3g}: its transform is wrong, {_INSTEAD}"
        )
    anchor = Anchor(col=round(cols), row=round(rows))
    if max(abs(cols - anchor.col), abs(rows - anchor.row)) > _TOLERANCE_PX:
        raise DataError(
            "`anchor=crs` needs pixel edges at whole numbers of pixels from the origin of the CRS, to "
            f"{_TOLERANCE_PX} px. The left edge x={c:.15g} is {cols:.4f} px of {a:.15g} from it, the upper edge "
            f"y={f:.15g} is {rows:.4f} px of {-e:.15g}: warp the raster with "
            f"`gdalwarp -tap -tr {a:.15g} {-e:.15g}`, {_INSTEAD}"
        )
    return anchor


def on_lattice(profile: RasterProfile, anchor: Anchor) -> RasterProfile:
    """Return the profile with a transform whose pixel edges lie exactly on the common lattice.

    Footprints that are computed with this profile are the same for all rasters on the lattice. They differ by at most
    0.01 px from those with the raster's own transform.
    """
    a, e = profile.transform[0], profile.transform[4]
    return profile.model_copy(update={"transform": (a, 0.0, anchor.col * a, 0.0, e, -anchor.row * e)})
