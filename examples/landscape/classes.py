"""The classes of land that a pixel can have."""

from __future__ import annotations

CLASSES: tuple[str, ...] = ("nodata", "water", "forest", "field", "town", "bare")
"""Class names. The position of a name is its value in the class raster."""

NODATA, WATER, FOREST, FIELD, TOWN, BARE = range(len(CLASSES))

CLASS_COLOURS = {
    NODATA: (0, 0, 0, 0),
    WATER: (46, 110, 186, 255),
    FOREST: (38, 98, 52, 255),
    FIELD: (214, 190, 92, 255),
    TOWN: (190, 72, 66, 255),
    BARE: (196, 180, 158, 255),
}
"""Red, green, blue and alpha of each class in the class raster's palette."""
