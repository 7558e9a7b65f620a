"""Find the position of a raster on the common lattice of pixels, for a grid that is anchored to the CRS."""

from __future__ import annotations

import math

from rasterembed.errors import DataError
from rasterembed.number_text import number_text
from rasterembed.raster.grid import Anchor, Grid
from rasterembed.raster.profile import RasterProfile

_TOLERANCE_PX = 0.01
"""Largest distance of a pixel edge from the common lattice, px."""

_FARTHEST_PX = 2**40
"""Largest distance of a raster from the origin of its CRS, px. Farther away, a float64 has too few digits to tell
whether an edge lies on the lattice. With pixels of a millimetre, this is 27 times the Earth's circumference."""

_INSTEAD = "or count tiles from the raster's corner (`anchor=raster`)"


def find_anchor(profile: RasterProfile, grid: Grid) -> Anchor | None:
    """Return the position of a raster on the lattice of its pixel size that begins at the origin of the grid.

    Args:
        profile: the raster's header.
        grid: the grid.

    Returns:
        The position, or None if the grid is not anchored to the CRS.

    Raises:
        DataError: if the raster has no CRS or no affine, if its rows do not run from west to east or its columns from
            north to south, or if its pixel edges do not lie on the lattice.
    """
    if grid.anchor != "crs":
        return None
    found = place_without_transform(profile)
    if found is not None:
        raise DataError(f"`anchor=crs` needs a raster with a CRS and a transform. It has {found}: warp it, {_INSTEAD}")
    a, b, c, d, e, f = profile.transform
    turned_px = max(abs(b) * profile.height / abs(a), abs(d) * profile.width / abs(e)) if a and e else math.inf
    if a <= 0 or e >= 0 or turned_px > _TOLERANCE_PX:
        raise DataError(
            "`anchor=crs` needs a raster whose rows run from west to east and whose columns run from north to south. "
            f"Its transform is a={a:.12g}, b={b:.12g}, d={d:.12g}, e={e:.12g}: warp it to north up, or let it be "
            f"warped while it is read (`resolution`, the side of a pixel in units of the CRS), {_INSTEAD}"
        )
    x, y = grid.origin
    cols, rows = (c - x) / a, (f - y) / -e
    check_distance(max(abs(cols), abs(rows)))
    anchor = Anchor(col=round(cols), row=round(rows))
    if max(abs(cols - anchor.col), abs(rows - anchor.row)) > _TOLERANCE_PX:
        raise DataError(
            f"`anchor=crs` needs pixel edges at whole numbers of pixels from the origin ({number_text(x)}, "
            f"{number_text(y)}), to {_TOLERANCE_PX} px. The left edge x={c:.15g} is {cols:.4f} px of {a:.15g} from it, "
            f"the upper edge y={f:.15g} is {rows:.4f} px of {-e:.15g}: if all your rasters are shifted like this one, "
            f"give `origin={_fitting(c, a):.12g} {_fitting(f, -e):.12g}`. Otherwise, let it be warped while it is read "
            f"with `resolution={a:.15g}`, or warp it before with `gdalwarp -tap -tr {a:.15g} {-e:.15g}`, {_INSTEAD}"
        )
    return anchor


def place_without_transform(profile: RasterProfile) -> str | None:
    """Return the place of a raster that has no CRS or no transform, as text for errors. None if it has both."""
    if profile.gcps:
        return "only ground control points"
    return None if profile.on_earth else "no place on Earth"


def check_distance(pixels: float, where: str = "") -> None:
    """Refuse a raster that is too far from the origin of the lattice.

    Args:
        pixels: distance of the raster from the origin, px.
        where: beginning of the error's text.

    Raises:
        DataError: if the raster is too far away.
    """
    if not pixels <= _FARTHEST_PX:
        raise DataError(
            f"{where}`anchor=crs`: the raster lies {pixels:.3g} px from the origin, more than {_FARTHEST_PX:.3g}: its "
            f"transform is wrong, or the grid's `origin` or `resolution`, {_INSTEAD}"
        )


def _fitting(edge: float, pixel: float) -> float:
    """Return the smallest coordinate of an origin, from 0, that puts a pixel edge on the lattice."""
    shift = edge % pixel
    # A shift of nearly a whole pixel is a shift of 0, which floating point numbers do not show exactly.
    return 0.0 if min(shift, pixel - shift) <= _TOLERANCE_PX * pixel else shift


def on_lattice(profile: RasterProfile, grid: Grid, anchor: Anchor) -> RasterProfile:
    """Return the profile with a transform whose pixel edges lie exactly on the common lattice.

    Footprints that are computed with this profile are the same for all rasters on the lattice. They differ by at most
    0.01 px from those with the raster's own transform.
    """
    a, e = profile.transform[0], profile.transform[4]
    x, y = grid.origin
    return profile.model_copy(update={"transform": (a, 0.0, x + anchor.col * a, 0.0, e, y - anchor.row * e)})
