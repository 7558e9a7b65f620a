"""The benchmarks run and give numbers, and the documentation's tables are those of the results."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio

from benchmarks import encodings, end_to_end, memory, prefect_overhead, reading, tables
from benchmarks.harness import RESULTS, Timing, ratio, take_turns
from rasterembed.scene import make_scene


def numbers(value: Any) -> Iterator[float]:
    """Every number in a report."""
    if isinstance(value, dict):
        for inner in value.values():
            yield from numbers(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from numbers(inner)
    elif isinstance(value, int | float):
        yield value


def check(report: dict[str, Any], table: str, folder: Path) -> None:
    """The result is written as it was returned, its numbers are finite, and its table has a row a run."""
    assert json.loads((folder / f"{report['benchmark']}.json").read_text()) == report
    assert all(math.isfinite(number) for number in numbers(report))
    head, line, *rows = table.partition("\n\n")[2].splitlines()
    assert len(rows) >= len(report["runs"])
    assert {text.count("|") for text in (head, line, *rows)} == {head.count("|")}


def test_end_to_end(tmp_path: Path) -> None:
    report = end_to_end.measure(
        side=300, size=64, dtypes=("float32",), batch_size=4, rounds=1, tiny=True, results=tmp_path
    )
    check(report, end_to_end.markdown(report), tmp_path)
    run = report["runs"]["float32"]
    assert run["tiles"] == 25
    assert report["ratios"]["float32"] == pytest.approx(
        run["from_file_tiles_per_s"]["median"] / run["in_memory_tiles_per_s"]["median"]
    )


def test_reading(tmp_path: Path) -> None:
    layouts = ("deflate, tiles", "LZW, strips", "deflate, tiles, 31 bands apart")
    report = reading.measure(side=600, size=64, layouts=layouts, rounds=1, results=tmp_path)
    check(report, reading.markdown(report), tmp_path)
    assert [run["tiles"] for run in report["runs"].values()] == [100, 100, 16]
    assert all(share > 0 for share in report["ratios"].values())


@pytest.mark.parametrize("layout", reading.LAYOUTS)
def test_layouts_are_what_they_are_called(layout: str, tmp_path: Path) -> None:
    scene = make_scene(tmp_path, width=1600, height=600, compress="none").raster
    reading._write(scene, tmp_path / "raster.tif", reading.LAYOUTS[layout])
    with rasterio.open(tmp_path / "raster.tif") as raster, rasterio.open(scene) as source:
        compression, *traits = layout.split(", ")
        name = {"uncompressed": None}.get(compression, compression.lower())
        assert (raster.compression.value.lower() if raster.compression else None) == name
        assert raster.count == (31 if any("31 bands" in trait for trait in traits) else 3)
        assert raster.interleaving.value.lower() == ("band" if layout.endswith("apart") else "pixel")
        assert raster.block_shapes[0] == (512, 512) if "tiles" in traits else raster.block_shapes[0][1] == raster.width
        if name != "jpeg":
            np.testing.assert_array_equal(raster.read((1, 2, 3)), source.read()[:, : raster.height, : raster.width])


def test_encodings(tmp_path: Path) -> None:
    report = encodings.measure(side=300, stride=32, tiny=True, rounds=1, results=tmp_path)
    check(report, encodings.markdown(report), tmp_path)
    runs = report["runs"]
    for name, run in runs.items():
        lossless = name.startswith("float32")
        assert (run["relative_error"] == 0) == lossless, name
        assert run["recall_at_10"] == 1 or not lossless
    assert runs["15 bits of mantissa, split, zstd 1"]["relative_error"] < 2**-16
    assert 2**-12 < runs["bfloat16 values in float32, split, lz4"]["relative_error"] < 2**-8
    assert runs["float16 split, zstd 1"]["scan_ms"] is None


@pytest.mark.slow
def test_memory(tmp_path: Path) -> None:
    scene = make_scene(tmp_path, width=2048, height=1024).raster
    report = memory.measure(raster=scene, side=700, shard_tiles=4, results=tmp_path)
    check(report, memory.markdown(report), tmp_path)
    whole, cut = report["runs"]["whole"], report["runs"]["cut"]
    assert (whole["tiles"], cut["tiles"]) == (50, 16)
    assert report["ratios"]["peak"] == whole["peak_mib"] / cut["peak_mib"]


def test_a_cut_has_the_layout_of_the_whole(tmp_path: Path) -> None:
    scene = make_scene(tmp_path, width=2048, height=1600).raster
    memory._cut(scene, tmp_path / "cut.tif", 1100)
    with rasterio.open(scene) as whole, rasterio.open(tmp_path / "cut.tif") as cut:
        assert cut.shape == (1100, 1100)
        assert cut.block_shapes == whole.block_shapes
        assert cut.tags(ns="IMAGE_STRUCTURE") == whole.tags(ns="IMAGE_STRUCTURE")
        assert (cut.nodata, cut.crs, cut.overviews(1)) == (whole.nodata, whole.crs, [2, 4])
        window = rasterio.windows.from_bounds(*cut.bounds, transform=whole.transform)
        np.testing.assert_array_equal(cut.read(), whole.read(window=window))


@pytest.mark.slow
def test_prefect_overhead(tmp_path: Path) -> None:
    report = prefect_overhead.measure(shards=(4,), rounds=1, results=tmp_path)
    check(report, prefect_overhead.markdown(report), tmp_path)
    assert report["runs"]["4"]["flow_s"]["median"] > 0


def test_turns_are_counted_per_case() -> None:
    calls: list[str] = []
    times = take_turns({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 4)
    assert {name: len(turns) for name, turns in times.items()} == {"a": 4, "b": 4}
    assert calls.count("a") == calls.count("b") >= 4


def test_ratio_is_that_of_the_medians() -> None:
    fast = [Timing(wall, 0, 0) for wall in (1.0, 2.0, 30.0)]
    slow = [Timing(wall, 0, 0) for wall in (8.0, 0.1, 9.0)]
    assert ratio(fast, slow) == 4.0


@pytest.mark.parametrize("name", [name for name in tables.TABLES if (RESULTS / f"{name}.json").exists()])
def test_tables_in_the_documentation_are_made_from_the_results(name: str) -> None:
    path, text = tables.up_to_date(name)
    assert path.read_text() == text, "run python -m benchmarks.tables"
