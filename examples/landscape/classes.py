"""What a pixel may be."""

from __future__ import annotations

CLASSES: tuple[str, ...] = ("nodata", "water", "forest", "field", "town", "bare")
"""Class names; a name's position is its value in the class raster."""

NODATA, WATER, FOREST, FIELD, TOWN, BARE = range(len(CLASSES))

CLASS_COLOURS = {
    NODATA: (0, 0, 0, 0),
    WATER: (46, 110, 186, 255),
    FOREST: (38, 98, 52, 255),
    FIELD: (214, 190, 92, 255),
    TOWN: (190, 72, 66, 255),
    BARE: (196, 180, 158, 255),
}
