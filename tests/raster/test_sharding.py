"""Each tile belongs to one shard, and shards are compact groups of tiles that follow the file's blocks."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from rasterembed.errors import DataError
from rasterembed.raster.grid import Anchor, Grid, grid_shape
from rasterembed.raster.profile import RasterProfile, inspect_raster
from rasterembed.raster.sharding import MAX_SHARDS, Sharding, plan_shards
from rasterembed.store.object_store import ObjectStore


def raster(height: int, width: int, block: tuple[int, int]) -> RasterProfile:
    """Return a profile with blocks of this many rows and columns."""
    return RasterProfile(
        driver="GTiff",
        width=width,
        height=height,
        count=1,
        dtype="uint8",
        colorinterp=("gray",),
        descriptions=(None,),
        crs_wkt=None,
        transform=(1, 0, 0, 0, 1, 0),
        nodata=(None,),
        block_height=block[0],
        block_width=block[1],
        interleave="band",
        on_earth=False,
    )


grids = st.builds(
    Grid,
    size=st.sampled_from([16, 32, 224]),
    stride=st.one_of(st.none(), st.integers(5, 300)),
    edge=st.sampled_from(["pad", "shift", "drop"]),
)
blocks = st.one_of(
    st.tuples(st.sampled_from([64, 256, 512, 1024]), st.sampled_from([64, 256, 512, 1024])),
    st.tuples(st.integers(1, 64), st.just(10**6)),
)


@given(grids, st.integers(1, 5000), st.integers(1, 5000), blocks, st.integers(1, 5000))
def test_every_tile_is_in_one_shard_and_in_tile_order(
    grid: Grid, height: int, width: int, block: tuple[int, int], shard_tiles: int
) -> None:
    rows, cols = grid.count(height), grid.count(width)
    assume(0 < rows * cols < 20_000)
    sharding = plan_shards(grid, raster(height, width, block), shard_tiles)
    assert 1 <= sharding.count <= MAX_SHARDS
    numbers = []
    for number in range(sharding.count):
        tiles = sharding.tiles(number)
        assert len(tiles) == sharding.planned(number) > 0
        places = tiles.row.astype(np.int64) * cols + tiles.col
        assert (np.diff(places) > 0).all()  # row by row, and by column in a row
        corner, block_cols = places[0], tiles.col.max() - tiles.col.min() + 1
        assert len(tiles) == block_cols * (tiles.row.max() - tiles.row.min() + 1)  # no gap in the block
        assert corner == tiles.row.min() * cols + tiles.col.min()
        numbers.append(places)
    assert np.array_equal(np.sort(np.concatenate(numbers)), np.arange(rows * cols))
    assert sharding.tile_count == rows * cols


@given(grids, st.integers(1, 10**7), st.integers(1, 10**7), blocks, st.integers(1, 10**6))
def test_a_run_has_no_more_than_500_shards(
    grid: Grid, height: int, width: int, block: tuple[int, int], shard_tiles: int
) -> None:
    try:
        rows, cols = grid_shape(grid, height, width)
    except DataError:
        assume(False)
    sharding = plan_shards(grid, raster(height, width, block), shard_tiles)
    assert 1 <= sharding.count <= 500
    assert sum(sharding.planned(n) for n in range(sharding.count)) == rows * cols


@pytest.mark.parametrize("block", [(512, 512), (8, 160_000)])
def test_a_hundred_million_tiles(block: tuple[int, int]) -> None:
    sharding = plan_shards(Grid(size=16), raster(160_000, 160_000, block), 2048)
    assert sharding.tile_count == 100_000_000
    assert 200 <= sharding.count <= 500
    sizes = [sharding.planned(n) for n in range(sharding.count)]
    assert sum(sizes) == 100_000_000
    last = sharding.tiles(sharding.count - 1)
    assert (last.row[-1], last.col[-1]) == (9999, 9999)


def test_striped_files_get_strips_of_the_full_width() -> None:
    sharding = plan_shards(Grid(size=224), raster(20_000, 10_000, (3, 10_000)), 300)
    assert sharding.cols == 45
    assert sharding.shard_cols == 45
    assert sharding.shard_rows == 6  # 270 tiles, and 1344 px, whole strips of 3
    assert all(sharding.block(n)[1] == (0, 45) for n in range(sharding.count))


@pytest.mark.parametrize(
    ("size", "stride", "block"), [(224, None, 512), (256, None, 512), (224, 112, 256), (512, None, 1024)]
)
def test_tiled_files_get_compact_shards_that_end_on_block_borders(size: int, stride: int | None, block: int) -> None:
    grid = Grid(size=size, stride=stride)
    sharding = plan_shards(grid, raster(60_000, 80_000, (block, block)), 2048)
    assert sharding.shard_rows * grid.step % block == 0
    assert sharding.shard_cols * grid.step % block == 0
    assert 0.5 <= sharding.shard_rows / sharding.shard_cols <= 2
    assert 1024 <= sharding.shard_rows * sharding.shard_cols <= 4096


def test_an_odd_stride_gives_compact_shards_all_the_same() -> None:
    sharding = plan_shards(Grid(size=224, stride=223), raster(60_000, 60_000, (512, 512)), 2048)
    assert (sharding.shard_rows, sharding.shard_cols) == (45, 45)


@pytest.mark.parametrize(("height", "width"), [(896, 224_000), (224_000, 896)])
def test_narrow_rasters_get_shards_of_the_size_asked_for(height: int, width: int) -> None:
    sharding = plan_shards(Grid(size=224), raster(height, width, (512, 512)), 400)
    assert sharding.tile_count == 4000
    assert 9 <= sharding.count <= 11


def blocks_of(sharding: Sharding, number: int, block: int) -> set[tuple[int, int]]:
    tiles = sharding.tiles(number)
    bottom = int((tiles.row_off + tiles.height).max())
    right = int((tiles.col_off + tiles.width).max())
    return {
        (row, col)
        for row in range(int(tiles.row_off.min()) // block, -(-bottom // block))
        for col in range(int(tiles.col_off.min()) // block, -(-right // block))
    }


def test_the_shards_of_a_real_world_image_share_no_block(rasters: Path) -> None:
    path = rasters / "cog_world.tif"
    profile = inspect_raster(ObjectStore(root=str(rasters)), str(path))
    assert (profile.block_height, profile.block_width) == (512, 512)
    sharding = plan_shards(Grid(), profile, 2048)
    assert sharding.tile_count == 81 * 161
    touched = Counter(block for n in range(sharding.count) for block in blocks_of(sharding, n, 512))
    assert len(touched) == 36 * 71
    assert set(touched.values()) == {1}


def test_a_striped_real_scene_is_cut_along_its_strips(rasters: Path) -> None:
    profile = inspect_raster(ObjectStore(root=str(rasters)), str(rasters / "RGB.byte.tif"))
    sharding = plan_shards(Grid(size=64), profile, 20)
    assert [sharding.block(n) for n in range(3)] == [((0, 1), (0, 13)), ((1, 2), (0, 13)), ((2, 3), (0, 13))]


def test_no_tile_is_an_error() -> None:
    with pytest.raises(DataError, match="no whole tile"):
        plan_shards(Grid(edge="drop"), raster(100, 1000, (512, 512)), 2048)


def test_a_sharding_survives_json() -> None:
    sharding = plan_shards(Grid(size=32, stride=20, edge="shift"), raster(900, 700, (256, 256)), 50)
    again = Sharding.model_validate_json(sharding.model_dump_json())
    assert again == sharding
    assert np.array_equal(again.tiles(3).col_off, sharding.tiles(3).col_off)


@pytest.mark.parametrize("anchor", [None, Anchor(col=-131, row=977)])
@pytest.mark.parametrize("grid", [Grid(size=64), Grid(size=64, stride=48), Grid(size=96, edge="drop")])
def test_a_tile_is_found_by_its_id(grid: Grid, anchor: Anchor | None) -> None:
    rows, cols = grid_shape(grid, 700, 1000, anchor)
    sharding = Sharding(
        grid=grid, height=700, width=1000, rows=rows, cols=cols, shard_rows=3, shard_cols=4, anchor=anchor
    )
    for number in range(sharding.count):
        tiles = sharding.tiles(number)
        for i in range(len(tiles)):
            found = sharding.find(tiles.id(i))
            assert found is not None
            names = ("row", "col", "row_off", "col_off", "width", "height")
            assert [getattr(found, name)[0] for name in names] == [getattr(tiles, name)[i] for name in names]
    unknown = ("", "r000000", f"r{rows:06d}_c000000", f"r000000_c{cols:06d}", "x-999999_y+000000", "x+1_y+1")
    other = "r000000_c000000" if anchor else "x+000000_y+000000"
    assert all(sharding.find(text) is None for text in (*unknown, other))
