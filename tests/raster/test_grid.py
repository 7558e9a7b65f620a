"""Compare the tile grid with its definition, written out tile by tile."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import ValidationError

from rasterembed.errors import DataError
from rasterembed.raster.grid import Grid, grid_shape, tile_id, tiles_in

Edge = Literal["pad", "shift", "drop"]

sizes = st.sampled_from([16, 32, 48, 224])
strides = st.one_of(st.none(), st.integers(1, 500))
lengths = st.integers(1, 1500)
edges: st.SearchStrategy[Edge] = st.sampled_from(["pad", "shift", "drop"])


def spans(length: int, size: int, stride: int, edge: Edge) -> list[tuple[int, int]]:
    """Return begin and end of every tile along an axis, by the rules in words."""
    found = []
    begin = 0
    while True:
        whole = begin + size <= length
        if edge == "drop" and not whole:
            break
        if edge == "shift" and not whole:
            begin = max(length - size, 0)
        found.append((begin, min(begin + size, length)))
        if begin + size >= length:  # the end is reached
            break
        begin += stride
        if begin >= length:  # the next tile would lie outside
            break
    return found


@given(sizes, strides, lengths, lengths, edges)
def test_windows_are_those_of_the_definition(
    size: int, stride: int | None, height: int, width: int, edge: Edge
) -> None:
    grid = Grid(size=size, stride=stride, edge=edge)
    down = spans(height, size, stride or size, edge)
    across = spans(width, size, stride or size, edge)
    if not down or not across:
        with pytest.raises(DataError, match=f"{width}x{height} px raster has no whole tile of {size} px"):
            grid_shape(grid, height, width)
        return
    assume(len(down) * len(across) < 50_000)
    assert grid_shape(grid, height, width) == (len(down), len(across))
    tiles = tiles_in(grid, height, width, (0, len(down)), (0, len(across)))
    expected = [
        (row, col, left, top, right - left, bottom - top)
        for row, (top, bottom) in enumerate(down)
        for col, (left, right) in enumerate(across)
    ]
    found = (tiles.row, tiles.col, tiles.col_off, tiles.row_off, tiles.width, tiles.height)
    assert list(zip(*(values.tolist() for values in found), strict=True)) == expected


@given(sizes, strides, lengths, st.sampled_from(["pad", "shift"]))
def test_every_pixel_is_covered_where_the_stride_is_no_more_than_the_size(
    size: int, stride: int | None, length: int, edge: Edge
) -> None:
    assume(stride is None or stride <= size)
    grid = Grid(size=size, stride=stride, edge=edge)
    tiles = tiles_in(grid, 1, length, (0, 1), (0, grid.count(length)))
    covered = np.zeros(length, dtype=bool)
    for left, width in zip(tiles.col_off, tiles.width, strict=True):
        covered[left : left + width] = True
    assert covered.all()


@given(sizes, strides, lengths, edges)
def test_tiles_stay_inside_and_only_padded_ones_are_cut(size: int, stride: int | None, length: int, edge: Edge) -> None:
    grid = Grid(size=size, stride=stride, edge=edge)
    tiles = tiles_in(grid, 1, length, (0, 1), (0, grid.count(length)))
    assert (tiles.col_off >= 0).all()
    assert (tiles.width >= 1).all()
    assert (tiles.col_off + tiles.width <= length).all()
    assert (np.diff(tiles.col_off) > 0).all()
    if edge != "pad" and length >= size:
        assert (tiles.width == size).all()
    if edge != "drop":
        assert len(tiles) > 0


@pytest.mark.parametrize(
    ("edge", "offsets", "widths"),
    [("pad", [0, 224, 448], [224, 224, 52]), ("shift", [0, 224, 276], [224] * 3), ("drop", [0, 224], [224] * 2)],
)
def test_the_last_column(edge: Edge, offsets: list[int], widths: list[int]) -> None:
    grid = Grid(edge=edge)
    tiles = tiles_in(grid, 224, 500, (0, 1), (0, grid.count(500)))
    assert tiles.col_off.tolist() == offsets
    assert tiles.width.tolist() == widths


@pytest.mark.parametrize("edge", ["pad", "shift"])
def test_a_raster_smaller_than_a_tile_is_one_tile(edge: Edge) -> None:
    grid = Grid(edge=edge)
    assert grid_shape(grid, 3, 100) == (1, 1)
    tile = tiles_in(grid, 3, 100, (0, 1), (0, 1))
    assert (tile.col_off[0], tile.row_off[0], tile.width[0], tile.height[0]) == (0, 0, 100, 3)


@given(st.lists(st.tuples(st.integers(0, 999_999), st.integers(0, 999_998)), min_size=1, max_size=20))
def test_names_are_six_digits_of_row_and_column(places: list[tuple[int, int]]) -> None:
    for row, col in places:
        assert tile_id(row, col) == f"r{row:06d}_c{col:06d}"
        tiles = tiles_in(Grid(size=16), 16_000_000, 16_000_000, (row, row + 1), (col, col + 2))
        assert tiles.ids().tolist() == [f"r{row:06d}_c{col:06d}", f"r{row:06d}_c{col + 1:06d}"]


def test_names_come_in_tile_order() -> None:
    ids = tiles_in(Grid(size=16), 48, 48, (0, 2), (1, 3)).ids().tolist()
    assert ids == ["r000000_c000001", "r000000_c000002", "r000001_c000001", "r000001_c000002"]


def test_part_of_the_tiles() -> None:
    tiles = tiles_in(Grid(size=16), 48, 40, (0, 3), (0, 3))
    expected = ["r000000_c000002", "r000001_c000001"]
    assert tiles.take(np.array([2, 4])).ids().tolist() == expected
    assert tiles.take(np.isin(np.arange(9), [2, 4])).ids().tolist() == expected
    assert tiles.take(slice(2, 5, 2)).width.tolist() == [8, 16]


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"size": 17}, "size"),
        ({"size": 0}, "size"),
        ({"size": 4112}, "size"),
        ({"size": 100.5}, "size"),
        ({"stride": 0}, "stride"),
        ({"stride": -224}, "stride"),
        ({"edge": "wrap"}, "edge"),
        ({"overlap": 10}, "overlap"),
    ],
)
def test_wrong_values_are_refused(wrong: dict[str, object], field: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Grid.model_validate(wrong)
    assert [error["loc"] for error in caught.value.errors()] == [(field,)]


def test_a_grid_does_not_change() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Grid().size = 32


@pytest.mark.parametrize(("height", "width", "tiles"), [(10_001, 10_001, "10001x10001"), (1, 1_000_001, "1x1000001")])
def test_a_grid_beyond_bounds_is_refused(height: int, width: int, tiles: str) -> None:
    with pytest.raises(DataError, match=f"the grid has {tiles} tiles.*larger size or stride"):
        grid_shape(Grid(size=16, stride=1), height + 15, width + 15)


def test_the_largest_grid_is_accepted() -> None:
    assert grid_shape(Grid(size=16, stride=1), 10_015, 10_015) == (10_000, 10_000)
