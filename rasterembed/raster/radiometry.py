"""Choose how pixel values become red, green and blue. The choice is made once for a whole raster, not for each tile."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, FiniteFloat, model_validator

from rasterembed.errors import DataError, UsageError, one_line
from rasterembed.number_text import rounded_text
from rasterembed.options_model import OptionsModel
from rasterembed.raster.profile import RasterProfile
from rasterembed.raster.scene import COLOURS
from rasterembed.store.object_store import ObjectStore

if TYPE_CHECKING:
    from rasterio.windows import Window

    from rasterembed.raster.pixels import Pixels

PRESETS: dict[str, tuple[float, float]] = {
    # Digital numbers of reflectance 0 and 0.3558. At 0.3558 ESA's own true-colour image saturates (Sentinel-2 product
    # specification). Since processing baseline 04.00, the digital number is 10000 * reflectance + 1000.
    "sentinel2-l2a": (1000.0, 4558.0),
    # Digital numbers of surface reflectance 0 and 0.3: reflectance = 0.0000275 * digital number - 0.2
    # (USGS, Landsat Collection 2 Level 2).
    "landsat-c2-l2": (0.2 / 0.0000275, 0.5 / 0.0000275),
}
"""Values that become black and white, for each preset."""

_REFLECTANCE: dict[str, tuple[float, float]] = {"sentinel2-l2a": (0.0, 0.3558), "landsat-c2-l2": (0.0, 0.3)}
"""Reflectance that becomes black and white, for each preset. Scenes use these values if their files or their STAC Item
give scale and offset. Sentinel-2's digital numbers have another offset before and after processing baseline 04.00."""

_SAMPLE_PIXELS = 2**20
"""Number of pixels that percentiles are computed from, if the raster is read decimated."""

_DECODED_PIXELS = 16 * _SAMPLE_PIXELS
"""Largest number of pixels that GDAL may decode for a decimated read. If GDAL would decode more pixels, percentiles are
computed from small windows at full resolution."""

_SAMPLE_WINDOWS = 8
"""Number of the small windows for percentiles along each side of the raster."""

_WINDOW_SIDE = 256
"""Side of a small window, px."""

_CHECKED_WINDOWS = 3
"""Number of small windows along each side of the raster that are compared with an overview."""

_MAX_DIFFERENCE = 0.5
"""Largest difference between the valid fractions of a window and of its overview."""

_RANGE = "range"
"""The `method` of black and white that a person gave."""

_PERCENTILE = (2.0, 98.0)
"""Percentiles that become black and white by default, if the values are not uint8."""

SAME_SHARE = 0.01
"""Two stretches count as the same if black and white differ by at most this share of the range from black to white."""

NEARLY_ALL = 0.9
"""Share of valid pixels. If black and white clip at least this share, the stretch does not fit the raster."""

Scale = Literal["auto", "sentinel2-l2a", "landsat-c2-l2"]
Pair = tuple[FiniteFloat, FiniteFloat]


def _split_bands(bands: object) -> object:
    """Split band numbers that a person typed as `4,3,2`."""
    if isinstance(bands, str) and bands != "auto":
        return tuple(bands.split(","))
    return bands


Bands = Annotated[Literal["auto"] | tuple[int, ...], BeforeValidator(_split_bands)]


class Radiometry(OptionsModel):
    """Choose which bands are red, green and blue, and which values become black and white.

    Example:
        >>> radiometry = Radiometry(bands="4,3,2", range=(0, 3000))
        >>> radiometry.bands
        (4, 3, 2)
        >>> Radiometry().bands, Radiometry().scale
        ('auto', 'auto')
    """

    bands: Bands = Field(
        default="auto",
        description="Bands for red, green and blue, as 4,3,2, or one band for all. auto: as the file names its bands.",
    )
    scale: Scale = Field(
        default="auto",
        description="auto: uint8 unchanged, other types from their 2nd to 98th percentile. Or the preset of a sensor.",
    )
    range: Pair | None = Field(default=None, description="Values that become black and white, instead of a scale.")
    percentile: Pair | None = Field(
        default=None, description="Percentiles of the values that become black and white, instead of a scale."
    )
    stretch_of: str | None = Field(
        default=None,
        description="Dataset of the same store whose black and white are used, instead of a scale. The vectors of both "
        "datasets can then be compared.",
    )

    @property
    def is_given(self) -> bool:
        """Whether a person gave black and white, so that they may not fit the raster's pixels."""
        return self.scale != "auto" or self.range is not None or self.stretch_of is not None

    @model_validator(mode="after")
    def _check(self) -> Radiometry:
        pairs = (self.range, self.percentile, self.stretch_of)
        if (self.scale != "auto") + sum(value is not None for value in pairs) > 1:
            raise ValueError("give only one of `scale`, `range`, `percentile` and `stretch_of`")
        for name, pair in (("range", self.range), ("percentile", self.percentile)):
            if pair is not None and not pair[0] < pair[1]:
                raise ValueError(f"`{name}`: the first value must be below the second")
        if self.percentile and not (self.percentile[0] >= 0 and self.percentile[1] <= 100):
            raise ValueError("`percentile`: values are from 0 to 100")
        if self.bands != "auto" and (len(self.bands) not in (1, 3) or min(self.bands) < 1):
            raise ValueError("`bands`: give one or three band numbers, from 1")
        return self


_SHARED = "stretch of "
"""Beginning of the method of a radiometry that belongs to another dataset. The id of this dataset follows."""


class ResolvedRadiometry(BaseModel):
    """The numbers that a `Radiometry` gives for one raster.

    Channel c is (value of band `bands[c]` - low[c]) / (high[c] - low[c]), clipped to 0..1.

    Example:
        >>> radiometry = ResolvedRadiometry(bands=(1, 1, 1), low=(0, 0, 0), high=(200, 200, 200), method="range")
        >>> radiometry.scaled(np.array([[[50, 300]]], dtype="uint16"))[0].tolist()
        [[0.25, 1.0]]
    """

    model_config = ConfigDict(frozen=True)

    bands: tuple[int, int, int]
    """Band of the red, green and blue channel, from 1."""
    low: tuple[float, float, float]
    """Value that becomes 0 (black), for each channel."""
    high: tuple[float, float, float]
    """Value that becomes 1 (white), for each channel."""
    palette: bool = False
    """Whether the band holds indexes into the raster's palette. If so, the palette's colours are scaled."""
    method: str
    """Where `low` and `high` come from, such as `uint8`, `range` or `percentile 2 98`."""

    @property
    def shared(self) -> bool:
        """Whether black and white are those of the dataset that `stretch_of` names."""
        return self.method.startswith(_SHARED)

    @property
    def distinct_bands(self) -> tuple[int, ...]:
        """The bands to read: one if all channels are the same band, else three."""
        return self.bands[:1] if len(set(self.bands)) == 1 else self.bands

    @property
    def is_possible(self) -> bool:
        """Whether black and white are finite and differ. A stored radiometry can hold any number."""
        return all(map(math.isfinite, (*self.low, *self.high))) and 0 not in self.spans

    @property
    def spans(self) -> list[float]:
        """Difference between white and black of each channel. It is negative in a band with a negative scale."""
        return [high - low for low, high in zip(self.low, self.high, strict=True)]

    def describe(self) -> str:
        """Return bands, black and white as text for people."""
        bands = ",".join(map(str, self.bands))
        low, high = (",".join(map(rounded_text, values, self.spans)) for values in (self.low, self.high))
        return f"bands {bands}, black {low}, white {high}" + (", palette" if self.palette else "")

    def clipped_share(self, pixels: NDArray[np.generic]) -> float:
        """Return the share of pixels that are clipped: each channel is below black or above white.

        Args:
            pixels: colour channels of valid pixels, shape (1 or 3, n), any real dtype. A single channel is used for
                red, green and blue.

        Returns:
            A share from 0 to 1. 0 if there are no pixels.
        """
        clipped = np.ones(pixels.shape[1], dtype=bool)
        for channel, ends in enumerate(zip(self.low, self.high, strict=True)):
            low, high = sorted(ends)  # A band with a negative scale has white below black.
            values = pixels[channel % len(pixels)]
            clipped &= (values < low) | (values > high)
        return float(clipped.mean()) if clipped.size else 0.0

    def channels(self, pixels: NDArray[np.generic], profile: RasterProfile) -> NDArray[np.generic]:
        """Return the colour channels of pixels: their colours in the palette, or the pixels unchanged without palette.

        Args:
            pixels: source values of `distinct_bands`, shape (bands, rows, columns).
            profile: header of the raster that the pixels come from.

        Returns:
            Shape (1 or 3, rows, columns).
        """
        return expand_palette(pixels, palette_table(profile)) if self.palette else pixels

    def colours(self, pixels: NDArray[np.generic]) -> NDArray[np.uint8]:
        """Return the colours of pixels for a picture, 0 to 255. NaN becomes black.

        Args:
            pixels: colour channels, shape (1 or 3, rows, columns), any real dtype.

        Returns:
            Red, green and blue, shape (3, rows, columns).
        """
        if pixels.dtype != np.uint8:
            shown: NDArray[np.uint8] = np.rint(np.nan_to_num(self.scaled(pixels)) * 255).astype(np.uint8)
            return shown
        # There are only 256 values, so their colours are looked up.
        table = self.colours(np.arange(256, dtype=np.uint16).reshape(1, 1, 256))[:, 0]
        return np.stack([table[channel][pixels[channel % len(pixels)]] for channel in range(3)])

    def scaled(self, pixels: NDArray[np.generic]) -> NDArray[np.float64]:
        """Return pixels scaled to colour: (value - low) / (high - low), clipped to 0..1.

        `rasterembed.model.colours` computes the same formula with PyTorch, for pixels that are scaled on the device.

        Args:
            pixels: colour channels, shape (..., 1 or 3, rows, columns), any real dtype. A single channel is used for
                red, green and blue.

        Returns:
            Red, green and blue, shape (..., 3, rows, columns). NaN stays NaN.
        """
        low, high = (np.array(values).reshape(3, 1, 1) for values in (self.low, self.high))
        # Ignore overflows: an invalid pixel can have any value.
        with np.errstate(over="ignore", invalid="ignore"):
            scaled: NDArray[np.float64] = np.clip((pixels.astype(np.float64) - low) / (high - low), 0.0, 1.0)
        return scaled


def resolve_radiometry(
    store: ObjectStore,
    uri: str,
    profile: RasterProfile,
    radiometry: Radiometry,
    shared: ResolvedRadiometry | None = None,
) -> ResolvedRadiometry:
    """Turn a `Radiometry` into numbers. For percentiles, a part of the raster's pixels is read.

    Args:
        store: gives the credentials for a raster on S3.
        uri: absolute path, or s3://bucket/key.
        profile: the raster's header.
        radiometry: the bands and the stretch that a person chose.
        shared: radiometry of the dataset that `radiometry.stretch_of` names.

    Raises:
        UsageError: if a band does not exist or is the alpha band, or if the shared stretch does not fit the raster.
        DataError: if the raster has only an alpha band, or if percentiles are needed and cannot be computed.
    """
    if radiometry.bands == "auto":
        _check_colours(profile, uri)
    bands = _resolve_bands(radiometry, profile, uri)
    has_palette, method = _has_palette(profile, bands), _method(radiometry, profile, bands)
    if shared is not None:
        if shared.palette != has_palette:
            raise UsageError(
                f"`stretch_of`: only one of dataset {radiometry.stretch_of!r} and this raster has the colours of a "
                "palette, so they cannot share black and white: give `range` or `scale`"
            )
        return shared.model_copy(update={"bands": bands, "method": method})
    if has_palette:
        return _same_for_all(bands, (0.0, 255.0), method, palette=True)
    if radiometry.range is not None:
        return _same_for_all(bands, radiometry.range, method)
    if radiometry.scale != "auto":
        return _from_preset(bands, profile, radiometry.scale)
    if method == "uint8":
        return _same_for_all(bands, (0.0, 2.0 ** (profile.bits or 8) - 1), method)
    return _from_percentiles(store, uri, profile, bands, radiometry.percentile or _PERCENTILE, method)


def is_radiometry_of(radiometry: Radiometry, resolved: ResolvedRadiometry, profile: RasterProfile) -> bool:
    """Return whether a raster was embedded with a `Radiometry`. No pixel is read.

    Several choices can give the same numbers. `requested_radiometry` finds only one of them.

    Args:
        radiometry: the choice.
        resolved: the radiometry with which the raster was embedded.
        profile: header of the raster, before any warp.
    """
    try:
        bands = _resolve_bands(radiometry, profile, "")
    except (UsageError, DataError):  # The raster does not have these bands.
        return False
    if resolved.bands != bands or resolved.method != _method(radiometry, profile, bands):
        return False
    given = radiometry.range if resolved.method == _RANGE else None
    return given is None or (resolved.low, resolved.high) == ((given[0],) * 3, (given[1],) * 3)


def requested_radiometry(resolved: ResolvedRadiometry, profile: RasterProfile) -> Radiometry:
    """Return the shortest `Radiometry` that gives a resolved radiometry for a raster.

    Args:
        resolved: the radiometry with which the raster was embedded.
        profile: header of the raster.

    Raises:
        DataError: if the method of the stretch is not known.
    """
    bands: Bands = resolved.distinct_bands
    if resolved.bands == _resolve_bands(Radiometry(), profile, ""):
        bands = "auto"
    method = resolved.method
    if method in ("uint8", "palette") or (method == "percentile 2 98" and profile.dtype != "uint8"):
        return Radiometry(bands=bands)
    if method == _RANGE:
        return Radiometry(bands=bands, range=(resolved.low[0], resolved.high[0]))
    if method in PRESETS:
        return Radiometry.model_validate({"bands": bands, "scale": method})
    kind, _, rest = method.partition(" ")
    try:
        if kind == "percentile":
            low, high = rest.split()
            return Radiometry(bands=bands, percentile=(float(low), float(high)))
        if resolved.shared:
            return Radiometry(bands=bands, stretch_of=method.removeprefix(_SHARED))
    except ValueError:
        pass
    raise DataError(f"the stretch {method[:60]!r} is not known: embed the raster again")


def _from_preset(bands: tuple[int, int, int], profile: RasterProfile, scale: str) -> ResolvedRadiometry:
    """Return black and white of a sensor's preset, by the scales and offsets of a scene's bands if all are known."""
    known = [profile.scale_offset[band - 1] for band in bands] if profile.assets and profile.scale_offset else []
    pairs = [pair for pair in known if pair is not None]
    if len(pairs) < len(bands):
        return _same_for_all(bands, PRESETS[scale], scale)
    # Reflectance = scale * pixel + offset. Round off the errors of this division, so that -0.1 and 0.0001 give 1000.
    black, white = _REFLECTANCE[scale]
    low = [round((black - offset) / factor, 6) for factor, offset in pairs]
    high = [round((white - offset) / factor, 6) for factor, offset in pairs]
    return ResolvedRadiometry(bands=bands, low=(low[0], low[1], low[2]), high=(high[0], high[1], high[2]), method=scale)


def _same_for_all(bands: tuple[int, int, int], pair: Pair, method: str, *, palette: bool = False) -> ResolvedRadiometry:
    """Return a radiometry with the same black and white values for all three channels."""
    low, high = pair
    return ResolvedRadiometry(bands=bands, low=(low,) * 3, high=(high,) * 3, palette=palette, method=method)


def _has_palette(profile: RasterProfile, bands: tuple[int, int, int]) -> bool:
    return profile.palette is not None and bands == (1, 1, 1)


def _method(radiometry: Radiometry, profile: RasterProfile, bands: tuple[int, int, int]) -> str:
    """Return the `method` of the radiometry that a choice gives for a raster and its bands."""
    if radiometry.stretch_of is not None:
        return f"{_SHARED}{radiometry.stretch_of}"
    if _has_palette(profile, bands):
        return "palette"
    if radiometry.range is not None:
        return _RANGE
    if radiometry.scale != "auto":
        return radiometry.scale
    if radiometry.percentile is None and profile.dtype == "uint8":
        return "uint8"
    # Plans have this text, so its form never changes, as that of `number_text` may.
    low, high = (repr(float(one)).removesuffix(".0") for one in radiometry.percentile or _PERCENTILE)
    return f"percentile {low} {high}"


def _check_colours(profile: RasterProfile, uri: str) -> None:
    """Refuse a scene of several files that has no colour for each of red, green and blue.

    If it has one or two of the colours, a person has forgotten the file of another. If it has two channels without such
    names, such as VV and VH, only the first would be embedded.
    """
    if len(profile.assets) < 2:
        return
    missing = [colour for colour in COLOURS if _band_named(profile, colour) is None]
    data = [band for band in range(1, profile.count + 1) if band != profile.alpha_band]
    if len(missing) == len(COLOURS) and len(data) == 2:
        first, second = data
        names = " and ".join(profile.descriptions[band - 1] or str(band) for band in data)
        raise UsageError(
            f"{uri}: the scene has the two channels {names}, and an image has one or three: choose with `bands`: "
            f"{first} or {second} for a single channel in grey, {first},{second},{first} for both in colours"
        )
    if 0 < len(missing) < len(COLOURS):
        raise UsageError(
            f"{uri}: the scene has no channel {' and no channel '.join(missing)}: add it, or choose channels with "
            "`bands`: one number for grey, three for colours"
        )


def _resolve_bands(radiometry: Radiometry, profile: RasterProfile, uri: str) -> tuple[int, int, int]:
    """Return the bands of red, green and blue.

    They are the given bands, else the bands that the file names red, green and blue, else the first bands.
    """
    if radiometry.bands != "auto":
        for band in radiometry.bands:
            if band > profile.count:
                raise UsageError(f"{uri}: band {band} does not exist: choose from 1 to {profile.count}")
            if band == profile.alpha_band:
                raise UsageError(
                    f"{uri}: band {band} is the alpha band, which marks valid pixels and is no colour: choose another "
                    "band, or give `ignore_alpha` if this band holds data"
                )
        first, *rest = radiometry.bands
        return (first, rest[0], rest[1]) if rest else (first, first, first)
    named = [_band_named(profile, colour) for colour in COLOURS]
    if None not in named:
        red, green, blue = (band for band in named if band is not None)
        return red, green, blue
    data = [b for b in range(1, profile.count + 1) if b != profile.alpha_band]
    if not data:
        raise DataError(
            f"{uri}: its only band is alpha, so it has no colour to embed: give `ignore_alpha` if this band holds data"
        )
    return (data[0], data[1], data[2]) if len(data) >= 3 else (data[0], data[0], data[0])


def _band_named(profile: RasterProfile, colour: str) -> int | None:
    """Return the number of the band that the file calls `colour`: by colour interpretation, else by description."""
    if colour in profile.colorinterp:
        return profile.colorinterp.index(colour) + 1
    descriptions = [(text or "").lower() for text in profile.descriptions]
    return descriptions.index(colour) + 1 if colour in descriptions else None


def _from_percentiles(
    store: ObjectStore, uri: str, profile: RasterProfile, bands: tuple[int, int, int], percentiles: Pair, method: str
) -> ResolvedRadiometry:
    """Compute black and white of each band from percentiles of its valid pixels."""
    from rasterio.errors import RasterioError  # rasterio takes long to import, and a search needs only black and white.

    from rasterembed.raster.pixels import open_pixels

    distinct = sorted(set(bands))
    try:
        with open_pixels(store, uri, profile) as raster:
            sample = read_sample(raster, profile, tuple(distinct))
    except RasterioError as error:
        raise DataError(
            f"{uri}: its overview cannot be read ({one_line(error)}); give `range` to do without percentiles"
        ) from error
    if not sample.pixels.size and sample.windows > 1:
        raise DataError(
            f"{uri}: the {sample.windows} windows that percentiles are taken from have no valid pixel: give `range`, "
            "or add overviews (gdaladdo FILE)"
        )
    low_of, high_of = {}, {}
    for i, band in enumerate(distinct):
        values = sample.pixels[i].astype(np.float64)
        low_of[band], high_of[band] = _black_and_white(values, sample.has_data[i], percentiles)
    red, green, blue = bands
    return ResolvedRadiometry(
        bands=bands,
        low=(low_of[red], low_of[green], low_of[blue]),
        high=(high_of[red], high_of[green], high_of[blue]),
        method=method,
    )


def _black_and_white(
    values: NDArray[np.float64], has_data: NDArray[np.bool_], percentiles: Pair
) -> tuple[float, float]:
    """Return the values of a band that become black and white: its lower and its upper percentile.

    Args:
        values: the band's values at the pixels that are valid in any band, shape (n,).
        has_data: whether each pixel has data in this band, shape (n,).
        percentiles: the lower and the upper percentile, 0 to 100.
    """
    # A raster without any valid pixel is not an error: all of its tiles are skipped.
    low, high = np.percentile(values, percentiles) if values.size else (0.0, 1.0)
    if 0 < np.count_nonzero(has_data) < len(values):
        # Version 0.1 did not leave out nodata values here. Keep its numbers if the difference is small, as for a few
        # pixels at the edge of a scene, because the fingerprint of a dataset depends on them.
        own_low, own_high = np.percentile(values[has_data], percentiles)
        if max(abs(own_low - low), abs(own_high - high)) > SAME_SHARE * (own_high - own_low):
            low, high = own_low, own_high
    low, high = float(low), float(high)
    # White must be above black in float32 too, because models compute with float32. In float32, adding 1 to a large
    # number may not change it.
    if high > low and np.float32(high) > np.float32(low):
        return low, high
    step = 1.0 if np.float32(low + 1) > np.float32(low) else abs(low) * 2**-20
    return low, low + step


@dataclass(frozen=True)
class PixelSample:
    """Pixels that percentiles are computed from."""

    pixels: NDArray[np.generic]
    """Values of pixels that are valid in any band, shape (bands, n)."""
    has_data: NDArray[np.bool_]
    """Whether each value is valid in its own band, shape (bands, n)."""
    windows: int
    """Number of windows that were read at full resolution. 1 if the whole raster was read decimated."""


def read_sample(raster: Pixels, profile: RasterProfile, bands: tuple[int, ...]) -> PixelSample:
    """Read pixels from all parts of the raster. The number of decoded pixels is limited, even for a large raster.

    A raster that is small, or has a small overview, is read whole and decimated. Small windows at full resolution are
    read from any other raster. They are read too if the overview is empty or does not match the raster.
    """
    from rasterio.windows import Window

    width, height = profile.width, profile.height
    shrink = max(math.sqrt(width * height / _SAMPLE_PIXELS), 1)
    shape = (max(1, round(height / shrink)), max(1, round(width / shrink)))
    decoded = profile.decoded_pixels(*shape)
    if decoded > _DECODED_PIXELS:
        return _read_windows(raster, bands, _spread_windows(profile, _SAMPLE_WINDOWS))
    pixels, has_data = raster.read_by_band(bands, Window(0, 0, width, height), shape)
    valid = has_data.any(axis=0)
    sample = PixelSample(pixels[:, valid], has_data[:, valid], windows=1)
    if shape == (height, width):
        return sample
    if not valid.any() and width * height <= _DECODED_PIXELS:
        # Read every pixel, because the decimated read may have left out the few valid pixels.
        rows = [Window(0, top, width, min(_WINDOW_SIDE, height - top)) for top in range(0, height, _WINDOW_SIDE)]
        found = _read_windows(raster, bands, rows)
    elif not valid.any() or (decoded < width * height and not _shows_raster(raster, profile, bands, pixels, has_data)):
        found = _read_windows(raster, bands, _spread_windows(profile, _SAMPLE_WINDOWS))
    else:
        return sample
    # A raster in which no valid pixel is found is not an error: all of its tiles are skipped.
    return found if found.pixels.size else sample


def _read_windows(raster: Pixels, bands: tuple[int, ...], windows: list[Window]) -> PixelSample:
    pixels, has_data = [], []
    for window in windows:
        values, valid = raster.read_by_band(bands, window)
        in_any_band = valid.any(axis=0)
        pixels.append(values[:, in_any_band])
        has_data.append(valid[:, in_any_band])
    return PixelSample(np.concatenate(pixels, axis=1), np.concatenate(has_data, axis=1), len(windows))


def _spread_windows(profile: RasterProfile, count: int) -> list[Window]:
    """Return small windows spread evenly over the raster, `count` along each side."""
    from rasterio.windows import Window

    side_x, side_y = min(_WINDOW_SIDE, profile.width), min(_WINDOW_SIDE, profile.height)
    lefts = np.unique(np.linspace(0, profile.width - side_x, count).astype(int))
    tops = np.unique(np.linspace(0, profile.height - side_y, count).astype(int))
    return [Window(x, y, side_x, side_y) for y in tops for x in lefts]


def _shows_raster(
    raster: Pixels,
    profile: RasterProfile,
    bands: tuple[int, ...],
    overview: NDArray[np.generic],
    has_data: NDArray[np.bool_],
) -> bool:
    """Return whether an overview matches the raster's pixels in most of a few windows.

    An overview may be empty, or made from earlier pixels or another raster. The means of each window are compared. An
    overview made by averaging has the same mean as the pixels. One made by nearest neighbour has nearly the same mean.

    Args:
        raster: the open raster.
        profile: its header.
        bands: band numbers, from 1.
        overview: the raster at a smaller size, shape (bands, rows, columns).
        has_data: which pixels of the overview are valid, of the same shape.
    """
    from rasterio.errors import RasterioError

    rows, columns = overview.shape[1:]
    agree, differ = 0, 0
    for window in _spread_windows(profile, _CHECKED_WINDOWS):
        try:
            pixels, valid = raster.read_by_band(bands, window)
        except RasterioError:
            continue  # Ignore a damaged block here. Reading its tiles reports or skips it.
        top, left = window.row_off * rows // profile.height, window.col_off * columns // profile.width
        bottom = -(-(window.row_off + window.height) * rows // profile.height)
        right = -(-(window.col_off + window.width) * columns // profile.width)
        for i in range(len(bands)):
            own = pixels[i][valid[i]].astype(np.float64)
            part = (i, slice(top, bottom), slice(left, right))
            shown = overview[part][has_data[part]].astype(np.float64)
            if abs(valid[i].mean() - has_data[part].mean()) > _MAX_DIFFERENCE:
                differ += 1
            elif own.size and shown.size:
                limit = own.std() * (1 + 3 / math.sqrt(shown.size)) + 1e-6 * abs(own.mean())
                near = abs(own.mean() - shown.mean()) <= limit
                agree, differ = agree + near, differ + (not near)
    return agree >= differ


def palette_table(profile: RasterProfile) -> NDArray[np.uint8]:
    """Return red, green and blue of each palette index, shape (256 or more, 3).

    Indexes that the palette does not have are black.
    """
    colours = np.array(profile.palette, dtype=np.uint8)
    table = np.zeros((max(256, len(colours)), 3), dtype=np.uint8)
    table[: len(colours)] = colours
    return table


def expand_palette(indexes: NDArray[np.generic], table: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the colours of palette indexes.

    Args:
        indexes: pixels of the index band, shape (1, rows, columns), an integer dtype.
        table: red, green and blue of each index, from `palette_table`.

    Returns:
        Shape (3, rows, columns).
    """
    return np.moveaxis(table[indexes[0]], -1, 0)
