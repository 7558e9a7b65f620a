"""The ground of each class: its colour, its height, and the chance that a tree grows on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from examples.landscape.arrays import F32, Colour, clip
from examples.landscape.classes import TOWN, WATER
from examples.landscape.districts import Bricks, Districts
from examples.landscape.noise import draw
from examples.landscape.terrain import Terrain


@dataclass(frozen=True)
class Ground:
    """The ground at n chosen pixels, seen from above."""

    colour: F32
    """Red, green and blue in full light, 0 to 255, shape (n, 3)."""

    height: F32
    """Height above the relief in px, shape (n,)."""

    trees: F32
    """Chance that a tree grows, 0 to 1, shape (n,)."""


def _palette(choice: F32, colours: Sequence[Colour]) -> F32:
    """Return one of the colours for each number in [0, 1)."""
    table = np.array(colours, np.float32)
    return table[(choice * len(table)).astype(np.intp)]


def blend(colour: F32, other: Colour | F32, share: F32) -> F32:
    """Mix `colour`, shape (n, 3), with `other`. `share` is the share of `other` in the result, 0 to 1, shape (n,)."""
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


def field_ground(parcels: Bricks, mottle: F32, fine: F32) -> Ground:
    """Return fields. Each parcel has one crop, with plant rows and wheel tracks. At its ends, they run across it."""
    key = parcels.key
    crop = _palette(draw(key, 10), _CROPS) * (0.9 + 0.2 * draw(key, 11))[:, None]
    ends = np.minimum(parcels.along, parcels.length - parcels.along)
    lengthwise = (draw(key, 12) < 0.85) & (ends > 11)
    rows = np.where(lengthwise, parcels.across, parcels.along) + 0.25 * mottle
    period = 2.6 + 2.4 * draw(key, 13)
    strength = 0.03 + 0.08 * draw(key, 14)
    brightness = 1 + strength * np.sin(rows * (2 * np.pi / period))
    track = np.mod(rows, 15 + 9 * draw(key, 15))
    brightness -= np.where((track < 1) | ((track > 2.4) & (track < 3.4)), np.float32(0.1), 0)
    brightness += 0.03 * fine + (0.02 + 0.08 * draw(key, 16)) * mottle
    colour = crop * brightness[:, None]
    bank = clip(2.6 - parcels.edge + 0.5 * fine, 0, 1)
    colour = blend(colour, (88, 104, 58), bank)
    return Ground(colour, -0.8 * bank, np.where(parcels.edge < 2.5, np.float32(0.12), 0))


_GREY, _SLATE, _RED, _ORANGE = (104, 106, 110), (78, 78, 84), (150, 80, 62), (168, 92, 70)
_BROWN, _WHITE = (116, 84, 70), (204, 204, 200)
_ROOFS = (_GREY, _SLATE, _RED, _ORANGE, _BROWN, _WHITE)
_FLAT_ROOFS = ((150, 150, 150), (196, 196, 194), (112, 114, 118), (176, 168, 156))
_LAWN, _YARD = (104, 124, 70), (140, 134, 124)
_PAVEMENT, ASPHALT, GRAVEL = (146, 143, 138), (112, 113, 117), (172, 156, 128)


def town_ground(blocks: Bricks, mottle: F32, fine: F32) -> Ground:
    """Return towns: streets around blocks of houses, flats or halls. A lot has one building. Some blocks are parks."""
    street = 4.5
    kind = draw(blocks.key, 20)
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
    p = along - (column + 0.5) * lot - (4 * draw(key, 21) - 2) * free
    q = across - (row + 0.5) * lot_depth - (7 * draw(key, 22) - 3.5) * free
    half = np.where(big, lot * (0.33 + 0.08 * draw(key, 23)), 4.5 + 2.8 * draw(key, 23))
    wide = np.where(flats, np.float32(6.5), 3.8 + 1.4 * draw(key, 24))
    wide = np.where(halls, lot_depth * (0.28 + 0.1 * draw(key, 24)), wide)
    turned = ~big & (draw(key, 25) < 0.3)
    p, q = np.where(turned, q, p), np.where(turned, p, q)
    built = ~park & (draw(key, 26) > 0.07)
    roof = built & (np.abs(p) < half) & (np.abs(q) < wide)

    lawn = 1 + 0.05 * mottle + 0.05 * fine + 0.16 * (draw(key, 27) - 0.5)
    colour = np.asarray(_LAWN, np.float32) * lawn[:, None]
    paved = halls | (flats & (row == 0) & ~park)
    colour[paved] = np.asarray(_YARD, np.float32) * (1 + 0.03 * fine[paved])[:, None]
    drive = built & ~big & (np.abs(p - half * 0.6) < 1.6) & (np.where(row == 0, q < 0, q > 0))
    colour[drive] = _YARD
    edge = blocks.edge
    colour[edge < street + 1.5] = _PAVEMENT
    colour[edge < street] = ASPHALT
    tone = (0.92 + 0.16 * draw(key, 28))[:, None]
    choice = draw(key, 29)
    tiles = np.where(big[:, None], _palette(choice, _FLAT_ROOFS), _palette(choice, _ROOFS))
    colour = np.where(roof[:, None], tiles * tone, colour)
    gable = 4 + 0.75 * (wide - np.abs(q))
    height = np.where(roof, np.where(big, np.where(halls, np.float32(8), 15), gable), 0)

    around = ~roof & (edge > street + 2) & ((np.abs(p) > half + 2) | (np.abs(q) > wide + 2))
    trees = np.where(park, np.float32(0.5), np.where(paved, np.float32(0.02), 0.28))
    return Ground(colour, height.astype(np.float32), np.where(around, trees, 0))


def bare_ground(rocky: F32, mottle: F32, fine: F32) -> Ground:
    """Return bare rock. The rock rises in ledges from its edge. It has cracks, and scrub grows in the hollows."""
    ledge = np.floor(4 * rocky + 0.22 * mottle + 0.12 * fine)
    colour = np.asarray((200, 184, 156), np.float32) * (1 + 0.05 * mottle + 0.07 * fine)[:, None]
    colour = blend(colour, (168, 160, 148), 0.45 + 0.4 * np.sin(1.9 * ledge + 0.5 * mottle))
    crack = clip(1 - np.abs(mottle + 0.35 * fine - 0.4) * 12, 0, 1)
    colour = blend(colour, (120, 108, 92), 0.4 * crack)
    scrub = clip((-0.8 - mottle - 0.35 * fine) * 1.6, 0, 0.8)
    colour = blend(colour, (112, 120, 76), scrub)
    height = 1.1 * np.maximum(ledge, 0) + 0.5 * fine + 0.3 * mottle - 0.5 * crack
    return Ground(colour, height, 0.3 * scrub)


def forest_ground(stands: Bricks, mottle: F32, fine: F32) -> Ground:
    """Return forest floor with moss and shade. Some stands are thinned: they have fewer trees."""
    thinned = draw(stands.key, 40) < 0.07
    colour = np.asarray((68, 78, 48), np.float32) * (1 + 0.1 * fine)[:, None]
    colour = blend(colour, (124, 118, 84), np.where(thinned, np.float32(0.7), 0))
    glade = clip(mottle + 0.3 * fine - 1.7, 0, 1)
    trees = np.where(thinned, np.float32(0.3), 0.8 + 0.2 * draw(stands.key, 41)) * (1 - glade)
    return Ground(blend(colour, (112, 120, 70), glade), np.zeros_like(fine), trees)


def water_ground(lake_depth: F32, river: F32, swell: F32, fine: F32) -> Ground:
    """Return water. Deep water is dark blue; water near the shore is greener."""
    shallow = np.exp(-np.maximum(np.maximum(lake_depth, 0) * 9, np.maximum(-river, 0) / 7))
    colour = np.asarray((22, 44, 70), np.float32) * (1 + 0.09 * swell + 0.03 * fine)[:, None]
    flat = np.zeros_like(fine)
    return Ground(blend(colour, (56, 76, 68), 0.8 * shallow), height=flat, trees=flat)


def road_half_width(districts: Districts, terrain: Terrain, classes: npt.NDArray[np.uint8], rows: slice) -> F32:
    """Return, for each pixel, half the width in px of the road on the nearest border of a district. 0 means no road."""
    keys = districts.keys
    chance = draw(keys[districts.nearest[rows]] ^ keys[districts.other[rows]], 30)
    half = np.where(chance < 0.3, np.float32(4), np.where(chance < 0.8, np.float32(2.6), 0))
    half[classes[rows] == TOWN] = 4.5
    # A wide road crosses the river on a bridge, and a narrow road ends at the river. Every road ends at a lake.
    lake = terrain.lake_depth[rows] > 0
    half[(classes[rows] == WATER) & (lake | (chance >= 0.3))] = 0
    return half
