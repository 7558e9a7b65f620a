"""Combine all parts of the landscape, and photograph the landscape."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from examples.landscape.arrays import F32, Index, Mask, Shape, clip
from examples.landscape.classes import BARE, CLASSES, FIELD, FOREST, NODATA, TOWN, WATER
from examples.landscape.crowns import plant_crowns
from examples.landscape.districts import BLOCK, PARCEL, Districts, cut_bricks, make_districts, strips
from examples.landscape.ground import (
    ASPHALT,
    GRAVEL,
    Ground,
    bare_ground,
    blend,
    field_ground,
    forest_ground,
    road_half_width,
    town_ground,
    water_ground,
)
from examples.landscape.land_use import assign_classes
from examples.landscape.light import soften, sunlight
from examples.landscape.noise import fractal_noise, smooth_noise
from examples.landscape.terrain import Terrain, make_terrain

_CONIFER, _BROADLEAF = (42, 64, 42), (118, 136, 76)

# Shares of sunlight and skylight in red, green and blue. Skylight makes shadows blue.
_SUN, _SKY = (0.74, 0.73, 0.69), (0.26, 0.28, 0.34)


@dataclass(frozen=True)
class Landscape:
    """A landscape without light and weather. The arrays have the scene's shape."""

    classes: npt.NDArray[np.uint8]
    """Indexes into `CLASSES`."""

    colour: F32
    """Red, green and blue in full light, 0 to 255, shape (height, width, 3)."""

    surface: F32
    """Height of the ground, including buildings and trees, in px."""


def make_landscape(rng: np.random.Generator, shape: Shape, border: int) -> Landscape:
    """Generate a landscape of this shape, with a nodata border of up to `border` px."""
    land, roads, texture, plants = rng.spawn(4)
    terrain = make_terrain(land, shape, border)
    districts = make_districts(roads, terrain)
    classes = assign_classes(terrain, districts)
    colour, surface, trees = _paint(texture, terrain, districts, classes)
    crowns = plant_crowns(plants, trees, fractal_noise(plants, shape, 260, 60))
    leaf = crowns.height > 0
    np.maximum(surface, crowns.height, out=surface, where=leaf)
    surface += 14 * terrain.relief
    tone = crowns.tone[leaf]
    for band, (dark, bright) in enumerate(zip(_CONIFER, _BROADLEAF, strict=True)):
        colour[leaf, band] = dark + (bright - dark) * tone
    return Landscape(classes, colour, surface)


def _paint(
    rng: np.random.Generator,
    terrain: Terrain,
    districts: Districts,
    classes: npt.NDArray[np.uint8],
) -> tuple[F32, F32, F32]:
    """Return the ground of the whole scene.

    Returns:
        Colour, shape (height, width, 3). Height in px and chance of a tree, each of shape (height, width).
    """
    shape = terrain.valid.shape
    mottle, fine = fractal_noise(rng, shape, 90, 8), fractal_noise(rng, shape, 12, 3, 0.9)
    swell = smooth_noise(rng, shape, 220)
    rock_level = terrain.rocky[classes == BARE].min(initial=np.inf)
    colour = np.zeros((*shape, 3), np.float32)
    height, trees = np.zeros(shape, np.float32), np.zeros(shape, np.float32)

    def ground(value: int, pick: tuple[Index, Index]) -> Ground:
        rough, speck = mottle[pick], fine[pick]
        if value == WATER:
            return water_ground(terrain.lake_depth[pick], terrain.river[pick], swell[pick], speck)
        if value == FOREST:
            return forest_ground(cut_bricks(districts, pick, *PARCEL), rough, speck)
        if value == FIELD:
            return field_ground(cut_bricks(districts, pick, *PARCEL), rough, speck)
        if value == TOWN:
            return town_ground(cut_bricks(districts, pick, *BLOCK), rough, speck)
        return bare_ground(terrain.rocky[pick] - rock_level, rough, speck)

    for rows in strips(shape):
        for value in range(WATER, len(CLASSES)):
            y, x = np.nonzero(classes[rows] == value)
            pick = (y + rows.start, x)
            here = ground(value, pick)
            colour[pick], height[pick], trees[pick] = here.colour, here.height, here.trees
        half = road_half_width(districts, terrain, classes, rows)
        edge = districts.edge[rows]
        road = np.where(half > 0, clip(half - edge + 0.5, 0, 1), 0)
        surface = np.where(half[..., None] > 3, *np.array((ASPHALT, GRAVEL), np.float32))
        colour[rows] += (surface - colour[rows]) * road[..., None]
        # A road is level with its surroundings, so roofs and banks are removed from it. Rock is not removed, because a
        # road cut into the rock would look like a chasm.
        height[rows] *= np.where(classes[rows] == BARE, 1, 1 - road)
        trees[rows] *= (half == 0) | (edge > half + 2)
    _shores(classes == WATER, colour, trees)
    return colour, height, trees


def _shores(wet: Mask, colour: F32, trees: F32) -> None:
    """Paint sand and reeds on the land within 3 px of water, and remove the trees there."""
    reach = 3
    near = np.zeros_like(wet)
    near[reach:] |= wet[:-reach]
    near[:-reach] |= wet[reach:]
    near[:, reach:] |= wet[:, :-reach]
    near[:, :-reach] |= wet[:, reach:]
    near &= ~wet
    trees[near] = 0
    colour[near] = blend(colour[near], (128, 126, 92), np.full(1, 0.5, np.float32))


def photograph(
    landscape: Landscape, weather: np.random.Generator, sensor: np.random.Generator
) -> npt.NDArray[np.uint8]:
    """Return a photograph of the landscape in sunlight, shape (3, height, width). Only nodata pixels are 0."""
    light = sunlight(landscape.surface)
    haze = 1 + np.float32(0.03) * smooth_noise(weather, light.shape, 700)
    rgb = np.empty((3, *light.shape), np.uint8)
    for band, (sun, sky) in enumerate(zip(_SUN, _SKY, strict=True)):
        plane = soften(landscape.colour[..., band] * (light * np.float32(sun) + np.float32(sky)))
        plane = plane * haze + 4
        plane += np.float32(1.6) * sensor.standard_normal(plane.shape, np.float32)
        rgb[band] = np.clip(np.rint(plane), 1, 255)
    rgb[:, landscape.classes == NODATA] = 0
    return rgb
