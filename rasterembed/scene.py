"""A made-up landscape as a georeferenced raster, for the demo, the tests and the benchmarks.

The scene is built as a landscape is: relief first, water where it is low, then land use in parcels
and street blocks, then what stands on the ground (crowns, roofs, rock steps) as a height model.
One sun lights that height model, so that shading and cast shadows agree everywhere.
"""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
from numpy.lib.stride_tricks import sliding_window_view
from rasterio._err import CPLE_BaseError  # has no public name
from rasterio.crs import CRS
from rasterio.enums import ColorInterp
from rasterio.errors import CRSError
from rasterio.transform import Affine
from rasterio.warp import transform as transform_coordinates

from rasterembed.errors import UsageError

CLASSES: tuple[str, ...] = ("nodata", "water", "forest", "field", "town", "bare")
"""Class names; a name's position is its value in the class raster."""

_NODATA, _WATER, _FOREST, _FIELD, _TOWN, _BARE = range(len(CLASSES))

_CLASS_COLOURS = {
    _NODATA: (0, 0, 0, 0),
    _WATER: (46, 110, 186, 255),
    _FOREST: (38, 98, 52, 255),
    _FIELD: (214, 190, 92, 255),
    _TOWN: (190, 72, 66, 255),
    _BARE: (196, 180, 158, 255),
}

# Shares of the valid pixels that are assigned in this order; forest takes what is left.
_LAKE_SHARE, _TOWN_SHARE, _BARE_SHARE, _FIELD_SHARE = 0.11, 0.14, 0.10, 0.30

_RIVER_SHARE = 0.25  # at most

_SMALLEST = 64
_LOSSLESS = ("none", "lzw", "deflate", "zstd")
_ORIGIN_LON_LAT = (24.9, 60.2)
_SUN_AZIMUTH, _SUN_ELEVATION = math.radians(150), math.radians(42)

_F32 = npt.NDArray[np.float32]
_I32 = npt.NDArray[np.int32]
_U32 = npt.NDArray[np.uint32]
_Mask = npt.NDArray[np.bool_]
_Index = npt.NDArray[np.intp]
_Shape = tuple[int, int]
_Colour = Sequence[float]


@dataclass(frozen=True)
class Scene:
    """The two files of a made-up scene, on one grid."""

    raster: Path
    """Three-band uint8 RGB COG; 0 in all bands is nodata, and no valid pixel has a 0 in any."""

    classes: Path
    """One-band uint8 COG of the same grid: for each pixel an index into `CLASSES`."""


def make_scene(
    folder: Path,
    *,
    width: int = 4000,
    height: int = 4000,
    seed: int = 7,
    crs: str = "EPSG:32635",
    pixel_size: float = 1.0,
    border: int = 40,
    compress: str = "deflate",
) -> Scene:
    """Write `scene.tif` and `scene-classes.tif` into a folder.

    Fields, blocks and crowns are sized for pixels of one metre and do not grow with the scene. The
    same arguments give the same pixels (with the same NumPy on the same kind of processor).

    Args:
        folder: where the files go; made if it is missing. Files of these names are replaced.
        width: pixels across, 64 or more.
        height: pixels down, 64 or more.
        seed: which landscape, 0 or more.
        crs: a projected CRS; the upper left corner is near 24.9 degrees east, 60.2 north.
        pixel_size: edge of a pixel in units of the CRS (metres in the default one).
        border: how deep nodata reaches in from each side, in pixels. Its inner edge is irregular,
            between half of this and all of it, and never beyond a quarter of the shorter side.
        compress: `deflate`, `zstd`, `lzw` or `none`; lossy ones would blur the nodata edge.

    Returns:
        The paths of the two files, both whole: they are moved into place once written.

    Raises:
        UsageError: a size, the seed, the border, the CRS or the compression is not one of these.
    """
    shape = (height, width)
    _check(shape, seed, pixel_size, border, compress)
    grid_crs, transform = _georeference(crs, pixel_size)

    place, weather, sensor = np.random.default_rng(seed).spawn(3)
    landscape = _landscape(place, shape, min(border, min(shape) // 4))
    rgb = _photograph(landscape, weather, sensor)

    profile = {
        "driver": "COG",
        "width": width,
        "height": height,
        "dtype": "uint8",
        "nodata": 0,
        "crs": grid_crs,
        "transform": transform,
        "blocksize": 512,
        "compress": compress,
        "num_threads": "all_cpus",
    }
    folder.mkdir(parents=True, exist_ok=True)
    scene = Scene(raster=folder / "scene.tif", classes=folder / "scene-classes.tif")
    # A folder beside the targets, so that os.replace stays within one file system and the files
    # GDAL makes on the way (overviews) go with it when writing fails.
    with tempfile.TemporaryDirectory(dir=folder, prefix=".scene-") as scratch:
        raster_part, classes_part = Path(scratch) / "scene.tif", Path(scratch) / "classes.tif"
        _write_rgb(raster_part, rgb, profile)
        _write_classes(classes_part, landscape.classes, profile)
        os.replace(classes_part, scene.classes)
        os.replace(raster_part, scene.raster)
    return scene


def _check(shape: _Shape, seed: int, pixel_size: float, border: int, compress: str) -> None:
    if min(shape) < _SMALLEST:
        raise UsageError(f"scene of {shape[1]} x {shape[0]} px: give a width and a height of {_SMALLEST} or more")
    if seed < 0:
        raise UsageError(f"scene seed {seed}: give 0 or more")
    if not (math.isfinite(pixel_size) and pixel_size > 0):
        raise UsageError(f"scene pixel size {pixel_size}: give a number above 0")
    if border < 0:
        raise UsageError(f"scene border {border} px: give 0 or more")
    if compress.lower() not in _LOSSLESS:
        raise UsageError(f"scene compression {compress!r}: give one of {', '.join(_LOSSLESS)}")


def _georeference(crs: str, pixel_size: float) -> tuple[CRS, Affine]:
    try:
        grid_crs = CRS.from_user_input(crs)
    except CRSError as error:
        raise UsageError(f"scene CRS {crs!r}: not known; give one such as EPSG:32635") from error
    if not grid_crs.is_projected:
        raise UsageError(f"scene CRS {crs!r}: not projected; give one such as EPSG:32635")
    lon, lat = _ORIGIN_LON_LAT
    try:
        xs, ys = transform_coordinates("OGC:CRS84", grid_crs, [lon], [lat])
    except CPLE_BaseError as error:
        raise UsageError(f"scene CRS {crs!r}: does not reach {lon} E, {lat} N; give another") from error
    # Whole pixels, as delivered imagery has.
    west, north = (round(value / pixel_size) * pixel_size for value in (xs[0], ys[0]))
    return grid_crs, Affine(pixel_size, 0, west, 0, -pixel_size, north)


def _write_rgb(path: Path, rgb: npt.NDArray[np.uint8], profile: dict[str, Any]) -> None:
    predictor = "no" if profile["compress"].lower() == "none" else "yes"
    options = {**profile, "predictor": predictor, "overview_resampling": "average"}
    with rasterio.open(path, "w", count=3, **options) as target:
        target.write(rgb)
        target.colorinterp = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
        target.update_tags(
            TIFFTAG_DATETIME="2024:07:03 09:41:00",
            TIFFTAG_IMAGEDESCRIPTION="Made-up landscape, not a real place",
            AREA_OR_POINT="Area",
        )


def _write_classes(path: Path, classes: npt.NDArray[np.uint8], profile: dict[str, Any]) -> None:
    with rasterio.open(path, "w", count=1, **profile, overview_resampling="nearest") as target:
        target.write(classes, 1)
        target.write_colormap(1, _CLASS_COLOURS)
        target.set_band_description(1, "land cover")
        target.update_tags(AREA_OR_POINT="Area")
        target.update_tags(1, **{f"CLASS_{value}": name for value, name in enumerate(CLASSES)})


# Noise


def _noise(rng: np.random.Generator, shape: _Shape, cell: int) -> _F32:
    """Smooth noise of mean 0 and deviation 1: random values every `cell` px, spline between."""
    nodes = tuple(-(-size // cell) + 3 for size in shape)
    # 151/315 is the mean over a cell of the squared weights of the cubic B-spline.
    lattice = rng.standard_normal(nodes, dtype=np.float32) / np.float32(151 / 315)
    t = (np.arange(cell, dtype=np.float32) + 0.5) / cell
    weights = np.stack([(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3]) / np.float32(6)
    tall = sliding_window_view(lattice, 4, axis=0) @ weights
    tall = tall.transpose(0, 2, 1).reshape(-1, nodes[1])[: shape[0]]
    wide = sliding_window_view(tall, 4, axis=1) @ weights
    return np.ascontiguousarray(wide.reshape(shape[0], -1)[:, : shape[1]])


def _fractal(rng: np.random.Generator, shape: _Shape, largest: int, smallest: int, gain: float = 0.5) -> _F32:
    """Octaves of noise from cells of `largest` px down to `smallest`, of deviation 1."""
    total = _noise(rng, shape, largest)
    amplitude, power, cell = 1.0, 1.0, largest // 2
    while cell >= smallest:
        amplitude *= gain
        power += amplitude**2
        total += amplitude * _noise(rng, shape, cell)
        cell //= 2
    total /= np.float32(math.sqrt(power))
    return total


def _chance(key: _U32, salt: int) -> _F32:
    """A number in [0, 1) that belongs to a key: every pixel of a parcel draws the same one.

    The mixing steps are the finaliser of MurmurHash3 (Austin Appleby, public domain).
    """
    mixed = key + np.uint32(salt * 0x9E3779B9 % 2**32)
    mixed ^= mixed >> np.uint32(16)
    mixed *= np.uint32(0x85EBCA6B)
    mixed ^= mixed >> np.uint32(13)
    mixed *= np.uint32(0xC2B2AE35)
    mixed ^= mixed >> np.uint32(16)
    return (mixed >> np.uint32(8)).astype(np.float32) / np.float32(2**24)


# Land


@dataclass(frozen=True)
class _Terrain:
    """Where the ground is high, wet or not there at all; every array has the scene's shape."""

    valid: _Mask
    """False in the nodata border."""

    relief: _F32
    """Height of the ground, without unit; deviation about 1."""

    lake_depth: _F32
    """How far the relief lies under the lakes' surface; negative on dry ground."""

    river: _F32
    """Distance to the river's bank in px, negative in the river."""

    flow: float
    """Direction of the river in radians, which the parcels follow."""

    town: _F32
    """How likely people settle here, without unit."""

    farmed: _F32
    """How good the soil is, without unit."""

    rocky: _F32
    """How near the rock is to the surface, without unit."""

    @property
    def water(self) -> _Mask:
        return (self.lake_depth > 0) | (self.river < 0)


def _terrain(rng: np.random.Generator, shape: _Shape, border: int) -> _Terrain:
    valid = _valid(rng, shape, border)
    rows, columns = np.ogrid[: shape[0], : shape[1]]

    flow = float(rng.uniform(0, math.pi))
    start = rng.uniform(0.35, 0.65, 2) * shape
    turned = (rows - start[0]) * math.cos(flow) - (columns - start[1]) * math.sin(flow)
    across = turned.astype(np.float32)
    across += 150 * _noise(rng, shape, 420) + 38 * _noise(rng, shape, 130)
    across += 3 * _noise(rng, shape, 24)
    # Dividing by the slope turns the level set of a bent plane into a distance, near enough.
    down, right = np.gradient(across)
    slope = np.hypot(down, right)
    np.maximum(slope, np.float32(0.35), out=slope)
    river = np.abs(across) / slope
    del turned, across, down, right, slope
    river -= 13 + 4 * _noise(rng, shape, 300)
    # In a scene of a few tens of metres the river would be all there is: narrow it.
    river += max(0.0, -float(np.quantile(river[valid][::16], _RIVER_SHARE)))

    relief = _fractal(rng, shape, 420, 12, 0.48)
    valley = np.exp(-np.maximum(river, 0) / np.float32(160))
    level = float(np.quantile(relief[valid][::16], _LAKE_SHARE))
    town = _fractal(rng, shape, 400, 100) + 0.5 * valley
    farmed = _fractal(rng, shape, 380, 90) - 0.45 * relief + 0.5 * valley
    rocky = _fractal(rng, shape, 360, 6, 0.52) + 0.2 * relief
    return _Terrain(valid, relief, level - relief, river, flow, town, farmed, rocky)


def _valid(rng: np.random.Generator, shape: _Shape, border: int) -> _Mask:
    """True inside an edge that wanders between half of the border and all of it."""
    height, width = shape
    rows, columns = np.ogrid[:height, :width]

    def edge(length: int) -> _F32:
        wander = 0.7 * _noise(rng, (length, 1), 90)[:, 0] + 0.15 * _noise(rng, (length, 1), 5)[:, 0]
        return np.float32(border) * (np.float32(0.75) + _clip(wander, -1, 1) / np.float32(4))

    top, bottom, left, right = edge(width), edge(width), edge(height), edge(height)
    return (
        (rows >= top[None, :])
        & (height - 1 - rows >= bottom[None, :])
        & (columns >= left[:, None])
        & (width - 1 - columns >= right[:, None])
    )


# Districts, parcels and blocks


@dataclass(frozen=True)
class _Districts:
    """Land between roads; in each, parcels and streets run one way."""

    sites: _F32
    """Row and column of each district's middle in px."""

    angles: _F32
    """Direction of each district in radians."""

    keys: _U32
    """Random number of each district."""

    nearest: npt.NDArray[np.uint16]
    """For each pixel of the scene, its district."""

    other: npt.NDArray[np.uint16]
    """For each pixel, the district beyond the nearest border."""

    edge: _F32
    """For each pixel, the distance in px to that border."""

    along: _F32
    """For each pixel, its distance in px from the middle along the district's direction."""

    across: _F32
    """The same at a right angle to that direction."""


def _districts(rng: np.random.Generator, terrain: _Terrain) -> _Districts:
    """The Voronoi cells of a jittered lattice, with borders bent as roads are."""
    shape = terrain.valid.shape
    spacing, bend = 560, 20.0
    nodes = tuple(-(-size // spacing) + 4 for size in shape)
    lattice = np.stack(np.meshgrid(*(np.arange(n) - 1.5 for n in nodes), indexing="ij"), axis=-1)
    jittered = (lattice + rng.uniform(-0.42, 0.42, lattice.shape)) * spacing
    sites = jittered.reshape(-1, 2).astype(np.float32)
    keys = rng.integers(0, 2**32, len(sites), dtype=np.uint32)
    angles = (terrain.flow + rng.normal(0, 0.4, len(sites))).astype(np.float32)

    y = np.arange(shape[0], dtype=np.float32)[:, None] + bend * _noise(rng, shape, 150)
    x = np.arange(shape[1], dtype=np.float32)[None, :] + bend * _noise(rng, shape, 150)
    nearest, other = np.empty(shape, np.uint16), np.empty(shape, np.uint16)
    edge = np.empty(shape, np.float32)
    # In blocks, because only a handful of sites can be the nearest anywhere within one.
    block = 256
    for top in range(0, shape[0], block):
        for left in range(0, shape[1], block):
            window = np.s_[top : top + block, left : left + block]
            dy, dx = y[window], x[window]
            nearest[window], other[window], edge[window] = _two_nearest(sites, dy, dx)
            dy -= sites[nearest[window], 0]
            dx -= sites[nearest[window], 1]
            angle = angles[nearest[window]]
            cos, sin = np.cos(angle), np.sin(angle)
            y[window], x[window] = dy * cos - dx * sin, dx * cos + dy * sin
    return _Districts(sites, angles, keys, nearest, other, edge, along=x, across=y)


def _two_nearest(sites: _F32, y: _F32, x: _F32) -> tuple[_I32, _I32, _F32]:
    """Indexes of the nearest and second nearest site, and the distance to the line between."""
    middle = np.array([(y.min() + y.max()) / 2, (x.min() + x.max()) / 2])
    reach = math.hypot(float(y.max() - y.min()), float(x.max() - x.min())) / 2
    distance = np.hypot(*(sites - middle).T)
    near = np.flatnonzero(distance <= np.partition(distance, 1)[1] + 2 * reach)
    first, second = np.zeros(y.shape, np.int32), np.zeros(y.shape, np.int32)
    d1, d2 = np.full(y.shape, np.inf, np.float32), np.full(y.shape, np.inf, np.float32)
    for i in near:
        d = (y - sites[i, 0]) ** 2 + (x - sites[i, 1]) ** 2
        ahead = d < d1
        runner_up = ~ahead & (d < d2)
        second = np.where(ahead, first, np.where(runner_up, np.int32(i), second))
        d2 = np.where(ahead, d1, np.minimum(d, d2))
        first = np.where(ahead, np.int32(i), first)
        np.minimum(d, d1, out=d1)
    gap = np.hypot(sites[first, 0] - sites[second, 0], sites[first, 1] - sites[second, 1])
    return first, second, (d2 - d1) / (2 * gap)


@dataclass(frozen=True)
class _Bricks:
    """For each chosen pixel, the parcel or street block it lies in; all lengths in px."""

    key: _U32
    """The brick's random number."""

    along: _F32
    """Distance from the brick's near end."""

    across: _F32
    """Distance from its near side."""

    length: _F32
    depth: _F32

    @property
    def edge(self) -> _F32:
        """Distance to the brick's nearest edge."""
        edge: _F32 = np.minimum(self.along, self.length - self.along)
        for distance in (self.across, self.depth - self.across):
            edge = np.minimum(edge, distance)
        return edge


def _bricks(districts: _Districts, pick: Any, length: float, depth: float, salt: int) -> _Bricks:
    """Cut each district into rows of about `depth` px and those into bricks of about `length`.

    Args:
        districts: what to cut.
        pick: which pixels, as an index (a mask or slices) into the scene.
        length: middle length of a brick; rows differ from it by up to half.
        depth: middle depth of a row; districts differ from it by up to a quarter.
        salt: which of the possible cuts.
    """
    district = districts.keys[districts.nearest[pick]] + np.uint32(salt)
    depths = depth * (0.75 + 0.5 * _chance(district, 1))
    row, across = np.divmod(districts.across[pick], depths)
    row_key = district + row.astype(np.int32).view(np.uint32) * np.uint32(0x9E3779B1)
    lengths = length * (0.6 + 0.9 * _chance(row_key, 2))
    column, along = np.divmod(districts.along[pick] + lengths * _chance(row_key, 3), lengths)
    key = row_key + column.astype(np.int32).view(np.uint32) * np.uint32(0x85EBCA77)
    return _Bricks(key, along, across, lengths, depths)


def _at_middles(field: _F32, districts: _Districts, pick: Any, bricks: _Bricks) -> _F32:
    """The value of a field at the middle of each pixel's brick: the same all over a brick."""
    nearest = districts.nearest[pick]
    along = districts.along[pick] - bricks.along + bricks.length / 2
    across = districts.across[pick] - bricks.across + bricks.depth / 2
    angle = districts.angles[nearest]
    cos, sin = np.cos(angle), np.sin(angle)
    row = districts.sites[nearest, 0] + across * cos + along * sin
    column = districts.sites[nearest, 1] + along * cos - across * sin
    height, width = field.shape
    middle: _F32 = field[
        np.clip(row, 0, height - 1).astype(np.int32),
        np.clip(column, 0, width - 1).astype(np.int32),
    ]
    return middle


_PARCEL = (230.0, 120.0, 11)
_BLOCK = (130.0, 74.0, 23)


def _strips(shape: _Shape) -> list[slice]:
    """Rows in runs short enough that what is computed for one fits the processor's cache."""
    return [slice(top, top + 128) for top in range(0, shape[0], 128)]


def _land_use(terrain: _Terrain, districts: _Districts) -> npt.NDArray[np.uint8]:
    """Class of every pixel: water, then towns by the block, rock, fields by the parcel, forest."""
    shape = terrain.valid.shape
    town, farmed = np.empty(shape, np.float32), np.empty(shape, np.float32)
    for rows in _strips(shape):
        town[rows] = _at_middles(terrain.town, districts, rows, _bricks(districts, rows, *_BLOCK))
        parcels = _bricks(districts, rows, *_PARCEL)
        farmed[rows] = _at_middles(terrain.farmed, districts, rows, parcels)

    classes = np.where(terrain.valid, np.uint8(_FOREST), np.uint8(_NODATA))
    classes[terrain.valid & terrain.water] = _WATER
    area = np.count_nonzero(terrain.valid)
    for value, suitability, share in (
        (_TOWN, town, _TOWN_SHARE),
        (_BARE, terrain.rocky, _BARE_SHARE),
        (_FIELD, farmed, _FIELD_SHARE),
    ):
        left = classes == _FOREST
        candidates = suitability[left]
        if not candidates.size:
            break
        level = np.quantile(candidates[::7], max(0.0, 1 - share * area / candidates.size))
        classes[left & (suitability >= level)] = value
    return classes


# Ground and what stands on it


@dataclass(frozen=True)
class _Ground:
    """What the chosen pixels look like from above."""

    colour: _F32
    """Red, green and blue in full light, one row a pixel."""

    height: _F32
    """Height above the relief in px."""

    trees: _F32
    """Chance that a tree grows, 0 to 1."""


def _clip(values: npt.NDArray[np.floating[Any]], low: float, high: float) -> _F32:
    """`np.clip` of float32, which by NumPy's annotations would give float64 and does not."""
    clipped: _F32 = np.clip(values, low, high)
    return clipped


def _palette(choice: _F32, colours: Sequence[_Colour]) -> _F32:
    """The colours that numbers in [0, 1) choose."""
    table = np.array(colours, np.float32)
    return table[(choice * len(table)).astype(np.intp)]


def _blend(colour: _F32, other: _Colour | _F32, share: _F32) -> _F32:
    return colour + (np.asarray(other, np.float32) - colour) * share[:, None]


_CROPS = (
    (104, 134, 66),
    (126, 146, 78),
    (92, 120, 62),
    (146, 152, 84),
    (182, 170, 104),
    (196, 178, 116),
    (192, 182, 82),
    (150, 122, 92),
    (128, 102, 78),
    (118, 140, 84),
)


def _field(parcels: _Bricks, mottle: _F32, fine: _F32) -> _Ground:
    """A crop a parcel, its rows and wheel tracks along it, turned at the headlands."""
    key = parcels.key
    crop = _palette(_chance(key, 10), _CROPS) * (0.9 + 0.2 * _chance(key, 11))[:, None]
    ends = np.minimum(parcels.along, parcels.length - parcels.along)
    lengthwise = (_chance(key, 12) < 0.85) & (ends > 11)
    rows = np.where(lengthwise, parcels.across, parcels.along) + 0.25 * mottle
    period = 2.6 + 2.4 * _chance(key, 13)
    strength = 0.03 + 0.08 * _chance(key, 14)
    brightness = 1 + strength * np.sin(rows * (2 * np.pi / period))
    track = np.mod(rows, 15 + 9 * _chance(key, 15))
    brightness -= np.where((track < 1) | ((track > 2.4) & (track < 3.4)), np.float32(0.1), 0)
    brightness += 0.03 * fine + (0.02 + 0.08 * _chance(key, 16)) * mottle
    colour = crop * brightness[:, None]
    bank = _clip(2.6 - parcels.edge + 0.5 * fine, 0, 1)
    colour = _blend(colour, (88, 104, 58), bank)
    return _Ground(colour, -0.8 * bank, np.where(parcels.edge < 2.5, np.float32(0.12), 0))


_GREY, _SLATE, _RED, _ORANGE = (104, 106, 110), (78, 78, 84), (150, 80, 62), (168, 92, 70)
_BROWN, _WHITE = (116, 84, 70), (204, 204, 200)
_ROOFS = (_GREY, _SLATE, _RED, _ORANGE, _BROWN, _WHITE)
_FLAT_ROOFS = ((150, 150, 150), (196, 196, 194), (112, 114, 118), (176, 168, 156))
_LAWN, _YARD = (104, 124, 70), (140, 134, 124)
_PAVEMENT, _ASPHALT, _GRAVEL = (146, 143, 138), (112, 113, 117), (172, 156, 128)


def _town(blocks: _Bricks, mottle: _F32, fine: _F32) -> _Ground:
    """Streets around blocks of houses, flats or halls, a building a lot; some blocks are parks."""
    street = 4.5
    kind = _chance(blocks.key, 20)
    halls, flats = kind < 0.10, (kind >= 0.10) & (kind < 0.28)
    park = kind > 0.93
    big = halls | flats
    along, across = blocks.along - street, blocks.across - street
    inner, deep = blocks.length - 2 * street, blocks.depth - 2 * street
    frontage = np.where(halls, np.float32(75), np.where(flats, np.float32(46), 21))
    lot = inner / np.maximum(np.rint(inner / frontage), 1)
    lot_rows = np.where(halls, np.float32(1), 2)
    lot_depth = deep / lot_rows
    column = np.floor(np.clip(along, 0, inner - 0.01) / lot)
    row = np.floor(np.clip(across, 0, deep - 0.01) / lot_depth)
    key = blocks.key + (column * 2 + row).astype(np.uint32) * np.uint32(0xC2B2AE3D)

    free = np.where(big, np.float32(0.3), 1)
    p = along - (column + 0.5) * lot - (4 * _chance(key, 21) - 2) * free
    q = across - (row + 0.5) * lot_depth - (7 * _chance(key, 22) - 3.5) * free
    half = np.where(big, lot * (0.33 + 0.08 * _chance(key, 23)), 4.5 + 2.8 * _chance(key, 23))
    wide = np.where(flats, np.float32(6.5), 3.8 + 1.4 * _chance(key, 24))
    wide = np.where(halls, lot_depth * (0.28 + 0.1 * _chance(key, 24)), wide)
    turned = ~big & (_chance(key, 25) < 0.3)
    p, q = np.where(turned, q, p), np.where(turned, p, q)
    built = ~park & (_chance(key, 26) > 0.07)
    roof = built & (np.abs(p) < half) & (np.abs(q) < wide)

    lawn = 1 + 0.05 * mottle + 0.05 * fine + 0.16 * (_chance(key, 27) - 0.5)
    colour = np.asarray(_LAWN, np.float32) * lawn[:, None]
    paved = halls | (flats & (row == 0) & ~park)
    colour[paved] = np.asarray(_YARD, np.float32) * (1 + 0.03 * fine[paved])[:, None]
    drive = built & ~big & (np.abs(p - half * 0.6) < 1.6) & (np.where(row == 0, q < 0, q > 0))
    colour[drive] = _YARD
    edge = blocks.edge
    colour[edge < street + 1.5] = _PAVEMENT
    colour[edge < street] = _ASPHALT
    tone = (0.92 + 0.16 * _chance(key, 28))[:, None]
    choice = _chance(key, 29)
    tiles = np.where(big[:, None], _palette(choice, _FLAT_ROOFS), _palette(choice, _ROOFS))
    colour = np.where(roof[:, None], tiles * tone, colour)
    gable = 4 + 0.75 * (wide - np.abs(q))
    height = np.where(roof, np.where(big, np.where(halls, np.float32(8), 15), gable), 0)

    around = ~roof & (edge > street + 2) & ((np.abs(p) > half + 2) | (np.abs(q) > wide + 2))
    trees = np.where(park, np.float32(0.5), np.where(paved, np.float32(0.02), 0.28))
    return _Ground(colour, height.astype(np.float32), np.where(around, trees, 0))


def _bare(rocky: _F32, mottle: _F32, fine: _F32) -> _Ground:
    """Rock that rises in ledges from its edge, weathered and cracked, with scrub in its hollows."""
    ledge = np.floor(4 * rocky + 0.22 * mottle + 0.12 * fine)
    colour = np.asarray((200, 184, 156), np.float32) * (1 + 0.05 * mottle + 0.07 * fine)[:, None]
    colour = _blend(colour, (168, 160, 148), 0.45 + 0.4 * np.sin(1.9 * ledge + 0.5 * mottle))
    crack = _clip(1 - np.abs(mottle + 0.35 * fine - 0.4) * 12, 0, 1)
    colour = _blend(colour, (120, 108, 92), 0.4 * crack)
    scrub = _clip((-0.8 - mottle - 0.35 * fine) * 1.6, 0, 0.8)
    colour = _blend(colour, (112, 120, 76), scrub)
    height = 1.1 * np.maximum(ledge, 0) + 0.5 * fine + 0.3 * mottle - 0.5 * crack
    return _Ground(colour, height, 0.3 * scrub)


def _forest(stands: _Bricks, mottle: _F32, fine: _F32) -> _Ground:
    """Moss and shade under the crowns; stands were planted, and thinned, at different times."""
    thinned = _chance(stands.key, 40) < 0.07
    colour = np.asarray((68, 78, 48), np.float32) * (1 + 0.1 * fine)[:, None]
    colour = _blend(colour, (124, 118, 84), np.where(thinned, np.float32(0.7), 0))
    glade = _clip(mottle + 0.3 * fine - 1.7, 0, 1)
    trees = np.where(thinned, np.float32(0.3), 0.8 + 0.2 * _chance(stands.key, 41)) * (1 - glade)
    return _Ground(_blend(colour, (112, 120, 70), glade), np.zeros_like(fine), trees)


def _water(lake_depth: _F32, river: _F32, swell: _F32, fine: _F32) -> _Ground:
    """Dark and blue where deep, greener towards the shore."""
    shallow = np.exp(-np.maximum(np.maximum(lake_depth, 0) * 9, np.maximum(-river, 0) / 7))
    colour = np.asarray((22, 44, 70), np.float32) * (1 + 0.09 * swell + 0.03 * fine)[:, None]
    flat = np.zeros_like(fine)
    return _Ground(_blend(colour, (56, 76, 68), 0.8 * shallow), height=flat, trees=flat)


def _road(districts: _Districts, terrain: _Terrain, classes: npt.NDArray[np.uint8], rows: slice) -> _F32:
    """Half the width in px of the road along each district's border, 0 where there is none."""
    keys = districts.keys
    chance = _chance(keys[districts.nearest[rows]] ^ keys[districts.other[rows]], 30)
    half = np.where(chance < 0.3, np.float32(4), np.where(chance < 0.8, np.float32(2.6), 0))
    half[classes[rows] == _TOWN] = 4.5
    # Bridges cross the river; lakes stop a road.
    lake = terrain.lake_depth[rows] > 0
    half[(classes[rows] == _WATER) & (lake | (chance >= 0.3))] = 0
    return half


@dataclass(frozen=True)
class _Crowns:
    """Tree crowns, seen from above; arrays of the scene's shape."""

    height: _F32
    """Height above the relief in px, 0 where there is no crown."""

    tone: _F32
    """Which tree: 0 the darkest conifer, 1 the lightest broadleaf."""


def _crowns(rng: np.random.Generator, trees: _F32, broadleaf: _F32) -> _Crowns:
    """Plant at most one tree in every square of 5 px, as domes that overlap."""
    pitch, reach = 5, 4
    shape = trees.shape
    squares = np.indices([-(-size // pitch) for size in shape], np.float32).reshape(2, -1).T
    spots = (squares + rng.random(squares.shape, np.float32)) * pitch
    spots = spots[(spots < shape).all(axis=1)]
    row, column = spots.astype(np.int32).T
    grows = rng.random(len(spots), np.float32) < trees[row, column]
    row, column = row[grows], column[grows]
    offset = np.float32(0.5) - spots[grows] % 1
    size = rng.random(len(row), np.float32)
    radius, top = 1.9 + 2 * size, 5 + 9 * size
    tone = 0.34 + 0.22 * broadleaf[row, column] + 0.2 * rng.standard_normal(len(row), np.float32)

    height = np.zeros(shape, np.float32)
    winner = np.zeros(shape, np.float32)

    def domes() -> Iterator[tuple[_Mask, _I32, _F32]]:
        for dy in range(-reach, reach + 1):
            for dx in range(-reach, reach + 1):
                y, x = row + dy, column + dx
                away = ((dy + offset[:, 0]) ** 2 + (dx + offset[:, 1]) ** 2) / radius**2
                inside = (away < 1) & (y >= 0) & (x >= 0) & (y < shape[0]) & (x < shape[1])
                at = y[inside] * np.int32(shape[1]) + x[inside]
                yield inside, at, top[inside] * (1 - 0.6 * away[inside])

    for _, at, dome in domes():
        np.maximum.at(height.reshape(-1), at, dome)
    for inside, at, dome in domes():
        seen = height.reshape(-1)[at] == dome
        winner.reshape(-1)[at[seen]] = tone[inside][seen]
    return _Crowns(height, _clip(winner, 0, 1))


# Light


def _sunlight(surface: _F32) -> _F32:
    """Direct light on a surface of heights in px: about 1 on level ground, a fifth in cast shadow."""
    south, east = -math.cos(_SUN_AZIMUTH), math.sin(_SUN_AZIMUTH)
    down, right = np.gradient(surface)
    tilt = down * np.float32(-0.4 * south) + right * np.float32(-0.4 * east)
    del down, right
    light: _F32 = 1 + 0.75 * tilt / (1 + np.abs(tilt))
    del tilt

    shade = np.zeros_like(surface)
    height, width = surface.shape
    drop = math.tan(_SUN_ELEVATION)
    # Steps grow, as only broad things are tall enough to throw a shadow far.
    for step in (1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 18):
        dy, dx = round(step * south), round(step * east)
        if dy >= height or dx >= width:
            break
        here = surface[: height - dy, : width - dx]
        above = surface[dy:, dx:] - np.float32(drop * math.hypot(dy, dx)) - here
        covered = shade[: height - dy, : width - dx]
        np.maximum(covered, above, out=covered)
    light *= 1 - _clip(shade / np.float32(1.5), 0, 0.82)
    return light


def _soften(plane: _F32) -> _F32:
    """What optics do to sharp edges: a weight of 1, 4, 1 along both axes."""
    padded = np.pad(plane, 1, mode="edge")
    tall: _F32 = (padded[:-2] + 4 * padded[1:-1] + padded[2:]) / np.float32(6)
    wide: _F32 = (tall[:, :-2] + 4 * tall[:, 1:-1] + tall[:, 2:]) / np.float32(6)
    return wide


# Picture


@dataclass(frozen=True)
class _Landscape:
    """A place without its weather; arrays of the scene's shape."""

    classes: npt.NDArray[np.uint8]
    """Indexes into `CLASSES`."""

    colour: _F32
    """Red, green and blue in full light, on a third axis."""

    surface: _F32
    """Height of the ground and what stands on it, in px."""


_CONIFER, _BROADLEAF = (42, 64, 42), (118, 136, 76)


def _landscape(rng: np.random.Generator, shape: _Shape, border: int) -> _Landscape:
    land, roads, texture, plants = rng.spawn(4)
    terrain = _terrain(land, shape, border)
    districts = _districts(roads, terrain)
    classes = _land_use(terrain, districts)
    colour, surface, trees = _paint(texture, terrain, districts, classes)
    crowns = _crowns(plants, trees, _fractal(plants, shape, 260, 60))
    leaf = crowns.height > 0
    np.maximum(surface, crowns.height, out=surface, where=leaf)
    surface += 14 * terrain.relief
    tone = crowns.tone[leaf]
    for band, (dark, bright) in enumerate(zip(_CONIFER, _BROADLEAF, strict=True)):
        colour[leaf, band] = dark + (bright - dark) * tone
    return _Landscape(classes, colour, surface)


def _paint(
    rng: np.random.Generator,
    terrain: _Terrain,
    districts: _Districts,
    classes: npt.NDArray[np.uint8],
) -> tuple[_F32, _F32, _F32]:
    """The ground of the whole scene: colour (height, width, 3), height and chance of a tree."""
    shape = terrain.valid.shape
    mottle, fine = _fractal(rng, shape, 90, 8), _fractal(rng, shape, 12, 3, 0.9)
    swell = _noise(rng, shape, 220)
    rock_level = terrain.rocky[classes == _BARE].min(initial=np.inf)
    colour = np.zeros((*shape, 3), np.float32)
    height, trees = np.zeros(shape, np.float32), np.zeros(shape, np.float32)

    def ground(value: int, pick: tuple[_Index, _Index]) -> _Ground:
        rough, speck = mottle[pick], fine[pick]
        if value == _WATER:
            return _water(terrain.lake_depth[pick], terrain.river[pick], swell[pick], speck)
        if value == _FOREST:
            return _forest(_bricks(districts, pick, *_PARCEL), rough, speck)
        if value == _FIELD:
            return _field(_bricks(districts, pick, *_PARCEL), rough, speck)
        if value == _TOWN:
            return _town(_bricks(districts, pick, *_BLOCK), rough, speck)
        return _bare(terrain.rocky[pick] - rock_level, rough, speck)

    for rows in _strips(shape):
        for value in range(_WATER, len(CLASSES)):
            y, x = np.nonzero(classes[rows] == value)
            pick = (y + rows.start, x)
            here = ground(value, pick)
            colour[pick], height[pick], trees[pick] = here.colour, here.height, here.trees
        half = _road(districts, terrain, classes, rows)
        edge = districts.edge[rows]
        road = np.where(half > 0, _clip(half - edge + 0.5, 0, 1), 0)
        surface = np.where(half[..., None] > 3, *np.array((_ASPHALT, _GRAVEL), np.float32))
        colour[rows] += (surface - colour[rows]) * road[..., None]
        # Roofs and banks make way for a road; over rock it climbs, for a cutting would be a chasm.
        height[rows] *= np.where(classes[rows] == _BARE, 1, 1 - road)
        trees[rows] *= (half == 0) | (edge > half + 2)
    _shores(classes == _WATER, colour, trees)
    return colour, height, trees


def _shores(wet: _Mask, colour: _F32, trees: _F32) -> None:
    """Sand and reeds on the first metres of land, and no trees."""
    reach = 3
    near = np.zeros_like(wet)
    near[reach:] |= wet[:-reach]
    near[:-reach] |= wet[reach:]
    near[:, reach:] |= wet[:, :-reach]
    near[:, :-reach] |= wet[:, reach:]
    near &= ~wet
    trees[near] = 0
    colour[near] = _blend(colour[near], (128, 126, 92), np.full(1, 0.5, np.float32))


# Share of the light that is the sun's and the sky's, for red, green and blue: shadows are blue.
_SUN, _SKY = (0.74, 0.73, 0.69), (0.26, 0.28, 0.34)


def _photograph(
    landscape: _Landscape, weather: np.random.Generator, sensor: np.random.Generator
) -> npt.NDArray[np.uint8]:
    """The landscape in sunlight as (3, height, width); 0 where there is nodata, and only there."""
    light = _sunlight(landscape.surface)
    haze = 1 + np.float32(0.03) * _noise(weather, light.shape, 700)
    rgb = np.empty((3, *light.shape), np.uint8)
    for band, (sun, sky) in enumerate(zip(_SUN, _SKY, strict=True)):
        plane = _soften(landscape.colour[..., band] * (light * np.float32(sun) + np.float32(sky)))
        plane = plane * haze + 4
        plane += np.float32(1.6) * sensor.standard_normal(plane.shape, np.float32)
        rgb[band] = np.clip(np.rint(plane), 1, 255)
    rgb[:, landscape.classes == _NODATA] = 0
    return rgb
