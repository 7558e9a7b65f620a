"""Say which filters for tiles left no tile of the searched scenes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import ROUND_FLOOR, Decimal
from enum import StrEnum

import numpy as np

from rasterembed.number_text import number_text
from rasterembed.search.query import Where


class TileFilter(StrEnum):
    """A filter that looks at each tile. The filters for whole scenes are in `rasterembed.search.why_no_scene`."""

    AREA = "area"
    """`bbox` and `within`."""
    VALID_PIXELS = "valid_pixels"
    """`min_valid_fraction`."""
    CLASSES = "classes"
    """`class_file` and `classes`."""

    @property
    def fields(self) -> tuple[str, ...]:
        """Fields of `Where`."""
        return _FIELDS[self]

    def given_in(self, where: Where) -> tuple[str, ...]:
        """Return the fields of this filter that a search gives."""
        return tuple(name for name in self.fields if getattr(where, name))

    def names_in(self, where: Where) -> str:
        """Return the given fields as the text of an error names them."""
        return " and ".join(f"`{name}`" for name in self.given_in(where))

    def alone(self, where: Where) -> Where:
        """Return the filters of a search with only this one of the filters for tiles."""
        others = (name for one in TileFilter if one is not self for name in one.fields)
        return where.model_copy(update={name: Where.model_fields[name].default for name in others})


_FIELDS = {
    TileFilter.AREA: ("bbox", "within"),
    TileFilter.VALID_PIXELS: ("min_valid_fraction",),
    TileFilter.CLASSES: ("class_file", "classes"),
}


def why_no_tile(
    where: Where,
    finds: Callable[[Where], bool],
    own_tiles_left_out: bool,
    instead: Mapping[TileFilter, Callable[[], str]],
) -> list[str]:
    """Return lines that say which filters no tile passes. The list is empty if these filters are not the reason.

    Args:
        where: the filters. Those for whole scenes leave at least one scene.
        finds: function that returns whether a tile passes some filters. The query's own tiles count too.
        own_tiles_left_out: whether the query has tiles that may not be in the answer.
        instead: function for each filter that returns a text, if no tile passes this filter.

    Returns:
        One line for each filter that no tile passes. If each filter leaves some tiles, it is one line about all.
    """
    if own_tiles_left_out and finds(where):
        return ["no tile passes but those of the query: they may be in the answer with `include_query`"]
    given = [one for one in TileFilter if one.given_in(where)]
    if len(given) == 1:
        return [instead[given[0]]()]
    alone = [one for one in given if not finds(one.alone(where))]
    if given and not alone:
        names = " and ".join(one.names_in(where) for one in given)
        return [f"tiles pass each of the filters {names}, but no tile passes all of them"]
    return [instead[one]() for one in alone]


def too_few_valid_pixels(most: float) -> str:
    """Return the text for `min_valid_fraction`.

    Args:
        most: largest share of valid pixels of a searched tile, 0 to 1, as float32 holds it.

    Example:
        >>> too_few_valid_pixels(0.98765)
        'no tile passes `min_valid_fraction`: the largest share of valid pixels is 0.9876'
    """
    # The number is rounded down, so that a tile passes a filter with this number.
    shown = Decimal(str(np.float32(most))).quantize(Decimal("0.0001"), ROUND_FLOOR)
    return f"no tile passes `min_valid_fraction`: the largest share of valid pixels is {number_text(float(shown))}"


def not_in_the_area(where: Where) -> str:
    """Return the text for an area that is inside the searched rasters."""
    return f"no tile with a vector intersects {TileFilter.AREA.names_in(where)}"


def not_in_the_classes(where: Where) -> str:
    """Return the text for classes that no searched tile has."""
    return f"no searched tile has the class {' or '.join(where.classes)} in {where.class_file}"
