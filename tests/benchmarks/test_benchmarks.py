"""The benchmarks run and give numbers, and the documentation's tables are those of the results."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch

from benchmarks import (
    cold_start,
    collection_search,
    collections,
    encodings,
    end_to_end,
    engines,
    explorer_clients,
    growth,
    map_tiles,
    memory,
    neighbours,
    peers,
    prefect_overhead,
    reading,
    remote,
    report,
    scenes,
    search,
    search_peers,
    search_s3,
    slow_store,
    small_vectors,
    tables,
    tile_layers,
    uploads,
    warping,
)
from benchmarks.harness import RESULTS, TINY, VIT_S16, Timing, make_checkpoint, ratio, save, speed, take_turns
from benchmarks.vectors import made_up_vectors
from examples.landscape import make_scene
from rasterembed.dataset.selection import Selection
from rasterembed.raster.profile import inspect_raster
from rasterembed.store.object_store import ObjectStore
from tests.support.vectors import blank_raster


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


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_burst_of_uploads_keeps_to_the_limit_of_the_pool(tmp_path: Path) -> None:
    report = uploads.measure(uploads=3, rows=1, cols=2, limits="1", results=tmp_path)
    assert report["bursts"]["1"]["runs_at_once"] == 1
    assert "| 1 |" in uploads.markdown(report)


def test_the_table_of_uploads_has_a_row_for_version_0_1(tmp_path: Path) -> None:
    burst = {"wall_s": 55.1, "runs_at_once": 4, "memory_gib": 2.0, "cpu_s": 90.2}
    earlier = {"wall_s": 110.3, "runs_at_once": 10, "memory_gib": 6.6, "cpu_s": 150.4}
    report = save("uploads", {}, 0.0, {"bursts": {"0": burst, uploads.AT_0_1: earlier}}, tmp_path)
    *_, default, at_0_1 = uploads.markdown(report).splitlines()
    assert default == "| default | 55.1 | 4 | 2.0 | 90.2 |"
    assert at_0_1 == "| none, version 0.1 | 110.3 | 10 | 6.6 | 150.4 |"


def test_uploads_of_version_0_1_need_a_checkout_of_it(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"not a checkout of version 0\.1"):
        uploads.measure(before=tmp_path, results=tmp_path)
    (tmp_path / "pyproject.toml").write_text('[project]\nversion = "0.3.0"\n')
    with pytest.raises(SystemExit, match=r"version 0\.3\.0, not of 0\.1\.0"):
        uploads.measure(before=tmp_path, results=tmp_path)


@pytest.mark.slow
def test_slow_store(tmp_path: Path) -> None:
    report = slow_store.measure(
        side=256,
        size=64,
        dtype="float32",
        engine="eager",
        delays_ms=(1,),
        shard_tiles=4,
        rounds=1,
        tiny=True,
        results=tmp_path,
    )
    check(report, slow_store.markdown(report), tmp_path)
    assert report["shards"] == 4
    assert report["ratios"] == {
        name: pytest.approx(run["tiles_per_s"]["median"] / report["runs"]["in memory"]["tiles_per_s"]["median"])
        for name, run in report["runs"].items()
    }
    assert list(report["runs"]) == ["in memory", "folder", "S3, 1 ms"]


@pytest.mark.slow
def test_reading(tmp_path: Path) -> None:
    layouts = ("deflate, tiles", "LZW, strips", "deflate, tiles, 31 bands apart")
    report = reading.measure(side=600, size=64, layouts=layouts, rounds=1, results=tmp_path)
    check(report, reading.markdown(report), tmp_path)
    assert [run["tiles"] for run in report["runs"].values()] == [100, 100, 16]
    assert all(share > 0 for share in report["ratios"].values())


@pytest.mark.slow
def test_warping(tmp_path: Path) -> None:
    report = warping.measure(side=300, size=64, rounds=1, results=tmp_path)
    check(report, warping.markdown(report), tmp_path)
    assert report["ratios"][warping.UNCHANGED] == 1.0
    assert all(run["tiles"] >= 4 for run in report["runs"].values())


@pytest.mark.slow
def test_map_tiles(tmp_path: Path) -> None:
    make_scene(tmp_path, width=300, height=300)
    report = map_tiles.measure(raster="scene.tif", rasters=tmp_path, rounds=1, results=tmp_path)
    check(report, map_tiles.markdown(report), tmp_path)
    assert all(run["ms"]["median"] > 0 for run in report["runs"].values())


@pytest.mark.slow
def test_remote(tmp_path: Path) -> None:
    report = remote.measure(
        side=600, size=64, layouts=("deflate, tiles",), delays_ms=(0, 5), shard_tiles=50, rounds=1, results=tmp_path
    )
    check(report, remote.markdown(report), tmp_path)
    run = report["runs"]["deflate, tiles"]
    assert run["tiles"] == 100
    assert run["passed"]["reader"]["bytes"] >= run["block_bytes"]
    assert set(run["delays_ms"]) == {"0", "5"}


@pytest.mark.slow
def test_scenes(tmp_path: Path) -> None:
    report = scenes.measure(side=600, size=64, rounds=1, results=tmp_path)
    check(report, scenes.markdown(report), tmp_path)
    assert {run["tiles"] for run in report["runs"].values()} == {100}
    on_s3, over_https = (report["runs"][f"one file, {how}"]["requests"] for how in ("on S3", "over https"))
    assert over_https <= on_s3


@pytest.mark.slow
@pytest.mark.parametrize("layout", reading.LAYOUTS)
def test_layouts_are_what_they_are_called(layout: str, tmp_path: Path) -> None:
    scene = make_scene(tmp_path, width=1600, height=600, compress="none").raster
    reading.write(scene, tmp_path / "raster.tif", reading.LAYOUTS[layout])
    with rasterio.open(tmp_path / "raster.tif") as raster, rasterio.open(scene) as source:
        compression, *traits = layout.split(", ")
        name = {"uncompressed": None}.get(compression, compression.lower())
        assert (raster.compression.value.lower() if raster.compression else None) == name
        assert raster.count == (31 if any("31 bands" in trait for trait in traits) else 3)
        assert raster.interleaving.value.lower() == ("band" if layout.endswith("apart") else "pixel")
        assert raster.block_shapes[0] == (512, 512) if "tiles" in traits else raster.block_shapes[0][1] == raster.width
        if name != "jpeg":
            np.testing.assert_array_equal(raster.read((1, 2, 3)), source.read()[:, : raster.height, : raster.width])


@pytest.mark.slow
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
    for name in ("float16 split, zstd 1", "int8 split, zstd 1"):
        assert runs[name]["scan_ms"] is None
    assert runs["int8 dictionary"]["bytes_per_number"] < runs["int8, zstd 1"]["bytes_per_number"]


@pytest.mark.slow
def test_small_vectors(tmp_path: Path) -> None:
    report = small_vectors.measure(
        side=300, stride=32, widths=(64,), layers=1, rounds=1, rasters=tmp_path / "none", results=tmp_path
    )
    assert json.loads((tmp_path / "small_vectors.json").read_text()) == report
    assert all(math.isfinite(number) for number in numbers(report))
    assert small_vectors.markdown(report).count("| 64 numbers, int8 |") == 2
    sizes = {name: found["bytes_per_number"] for name, found in report["storage"]["64"]["dtypes"].items()}
    assert 2.5 < sizes["float32"] < 4.2
    assert 1.5 < sizes["float16"] < 2.2
    assert 0.7 < sizes["int8"] < 1.6  # The dictionary and the scale weigh more with few and short vectors.
    (found,) = report["neighbours"].values()
    recall = found["recall_at_10"]
    assert recall["1"]["float16"] >= 0.99
    assert 0.9 < recall["1"]["int8"] <= 1
    assert recall["30"]["int8, one scale"] <= recall["30"]["int8"] <= recall["1"]["int8"]


@pytest.mark.slow
def test_memory(tmp_path: Path) -> None:
    scene = make_scene(tmp_path, width=2048, height=1024).raster
    report = memory.measure(raster=scene, side=700, shard_tiles=4, results=tmp_path)
    check(report, memory.markdown(report), tmp_path)
    whole, cut = report["runs"]["whole"], report["runs"]["cut"]
    assert (whole["tiles"], cut["tiles"]) == (50, 16)
    assert report["ratios"]["peak"] == whole["peak_mib"] / cut["peak_mib"]


@pytest.mark.slow
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


@pytest.mark.slow
def test_report(tmp_path: Path) -> None:
    found = report.measure(rows=1, cols=2, tile=64, rounds=1, peers=(), tiny=True, results=tmp_path)
    head, runs, *_ = report.markdown(found).split("\n\n")
    check(found, f"{head}\n\n{runs}\n", tmp_path)
    assert {case: run["kind"] for case, run in found["runs"].items()} == {
        "ours_float32/from_file": "ours",
        "ours_float32/in_memory": "limit",
        "ours_bfloat16/from_file": "ours",
        "ours_bfloat16/in_memory": "limit",
        "transformers_float32/in_memory": "limit",
        "transformers_bfloat16/in_memory": "limit",
    }
    speeds = {case: run["tiles_per_s"]["median"] for case, run in found["runs"].items()}
    ratios = found["ratios"]
    assert ratios["end_to_end_over_in_memory_cpu"] == pytest.approx(
        speeds["ours_bfloat16/from_file"] / speeds["ours_bfloat16/in_memory"]
    )
    assert ratios["end_to_end_over_best_peer_cpu"] is None
    assert found["km2"] == pytest.approx(2 * 0.064**2)
    report.draw(found, tmp_path / "picture.png")
    with rasterio.open(tmp_path / "picture.png") as picture:
        assert picture.width > 1000


def test_the_best_peer_is_the_fastest_of_its_kind() -> None:
    times = {
        "ours_float32/from_file": [Timing(4.0, 0, 0)],
        "ours_bfloat16/from_file": [Timing(1.0, 0, 0)],
        "ours_float32/in_memory": [Timing(4.0, 0, 0)],
        "ours_bfloat16/in_memory": [Timing(0.9, 0, 0)],
        "transformers_float32/in_memory": [Timing(5.0, 0, 0)],
        "transformers_bfloat16/in_memory": [Timing(2.0, 0, 0)],
        "a/embed": [Timing(8.0, 0, 0)],
        "b/embed": [Timing(6.0, 0, 0)],
        "a_tuned/embed": [Timing(3.0, 0, 0)],
        "b_tuned/embed": [Timing(2.5, 0, 0)],
        "decode": [Timing(0.1, 0, 0)],
    }
    runs = {
        case: {
            "kind": "peer" if case.endswith("embed") else "ours",
            "tuned": "tuned" in case,
            "tiles_per_s": speed(turns, 10),
        }
        for case, turns in times.items()
    }
    limits = {f"matmul_{dtype}_tiles_per_s": speed([Timing(1, 0, 0)], 20) for dtype in ("float32", "bfloat16")}
    ratios = report._ratios(runs, times, limits)
    assert ratios["end_to_end_over_best_peer_cpu"] == 2.5
    assert ratios["end_to_end_over_best_peer_cpu_float32"] == 1.5
    assert ratios["end_to_end_over_best_peer_as_shipped_cpu"] == 6
    assert ratios["end_to_end_over_in_memory_cpu"] == pytest.approx(0.9)
    assert ratios["end_to_end_over_matmul_cpu_float32"] == 0.125
    assert ratios["end_to_end_over_best_peer_gpu"] is None


def test_work_of_a_tile_is_that_of_its_products() -> None:
    from torch.utils.flop_counter import FlopCounterMode
    from transformers import DINOv3ViTConfig, DINOv3ViTModel

    # the counter knows no fused attention on the CPU
    config = DINOv3ViTConfig(num_register_tokens=4, attn_implementation="eager", **VIT_S16)
    model = DINOv3ViTModel(config).eval()
    with FlopCounterMode(display=False) as counted, torch.inference_mode():
        model(pixel_values=torch.zeros(1, 3, 224, 224))
    assert report._gflop(224, **VIT_S16) == pytest.approx(counted.get_total_flops() / 1e9, rel=1e-3)


@pytest.mark.slow
def test_a_peer_that_does_not_start_says_why(tmp_path: Path) -> None:
    way = peers.Way("plain_loop", "plain loop")
    with pytest.raises(peers.Unavailable, match="error: the following arguments are required: --raster"):
        peers.Worker(way, Path(sys.executable), ["--threads", 1], tmp_path / "log")


@pytest.mark.slow
def test_a_peer_whose_packages_do_not_install_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "peer.txt").write_text("not a requirement\n")
    monkeypatch.setattr(peers, "SCRIPTS", tmp_path)
    with pytest.raises(peers.Unavailable, match=r"do not install: .*nvalid requirement"):
        peers.python_of("peer", tmp_path / "venvs")


def test_the_raster_for_ten_million_tiles_is_accepted(tmp_path: Path) -> None:
    # `search.write` makes a raster of this size. Its header declares 7 GiB of pixels, and its file has 4 MiB.
    raster = blank_raster(tmp_path / "blank.tif", 3163, 3162)
    profile = inspect_raster(ObjectStore(root=str(tmp_path / "store")), str(raster))
    assert (profile.height, profile.width) == (50_608, 50_592)


@pytest.mark.slow
def test_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Each part has its own process. All of them would import PyTorch.
    monkeypatch.setattr(search, "part", lambda function, *arguments: function(*arguments))
    other_run = {"finished": "2026-11-26T12:00:00+00:00"}
    (tmp_path / "search.json").write_text(json.dumps({"runs": {"rasters/100": other_run, "clustered/2000": other_run}}))
    report = search.measure(
        rows=(2000, 10**12), kinds=("clustered",), engines=("flat", "ivf"), others_up_to=10**12, peers=(), queries=4,
        seconds=0.05, scratch=tmp_path, results=tmp_path,
    )  # fmt: skip
    assert list(report["runs"]) == ["clustered/2000", "rasters/100"]
    assert report["runs"].pop("rasters/100") == other_run
    assert "1,000,000,000,000 rows: left out, because the disk has" in report["notes"][0]
    engines = report["runs"]["clustered/2000"]["engines"]
    assert {found["recall"] for found in engines["flat"]["filters"].values()} == {1.0}
    assert min(found["recall"] for found in engines["ivf"]["filters"].values()) > 0.9
    assert engines["ivf"]["build"]["file_mb"] < engines["flat"]["build"]["file_mb"]
    lines = [line for line in search.markdown(report).splitlines() if line.startswith("|")]
    assert len(lines) == 4
    assert len({line.count("|") for line in lines}) == 1


@pytest.mark.slow
def test_the_parts_of_each_size_have_its_cache_folder(tmp_path: Path) -> None:
    """The parts of all sizes are forks of one server, which was started for the first size."""
    for size in ("1000", "2000"):
        with search.cache_below(str(tmp_path / size)):
            assert search.part(os.getenv, "XDG_CACHE_HOME") == str(tmp_path / size)


@pytest.mark.slow
def test_clients_of_the_explorer(tmp_path: Path) -> None:
    report = explorer_clients.measure(
        clients=(1, 3), rows=(400,), with_demo=False, seconds=0.5, scratch=tmp_path, results=tmp_path
    )
    found = report["runs"]["400"]
    assert (found["rows"], found["engine"]) == (400, "scan")
    for one in found["clients"].values():
        assert one["answers"] > 0
        assert one["median_ms"] <= one["p95_ms"] <= one["largest_ms"]
    assert len([line for line in explorer_clients.markdown(report).splitlines() if line.startswith("|")]) == 4


@pytest.mark.slow
def test_coloured_tiles_of_the_explorer(tmp_path: Path) -> None:
    report = tile_layers.measure(rows=400, scratch=tmp_path, results=tmp_path)
    assert report["rows"] == 400
    assert all(len(times) == 21 for times in report["map_tiles_ms"].values())
    lines = [line for line in tile_layers.markdown(report).splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in lines}) == 1


@pytest.mark.browser
def test_the_explorer(tmp_path: Path) -> None:
    from benchmarks import explorer  # Playwright is needed for this benchmark alone.

    report = explorer.measure(
        rows=400, pages=1, clicks=2, moves=3, clients=2, seconds=0.5, scratch=tmp_path, results=tmp_path
    )
    assert report["dataset"]["rows"] == 400
    assert report["cold"]["first_paint_s"] <= report["cold"]["map_drawn_s"]
    assert 0 < report["click_ms"]["p50"] <= report["click_ms"]["max"]
    assert report["requests_of_moves"] > 0
    lines = [line for line in explorer.markdown(report).splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in lines}) == 1


@pytest.mark.slow
def test_search_on_s3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_s3, "part", lambda function, *arguments: function(*arguments))
    # LanceDB needs a separate environment.
    report = search_s3.measure(
        rows=2000, engines=("scan", "flat"), peers=(), gateway=False, scratch=tmp_path, results=tmp_path
    )
    scan, flat = report["runs"]["scan"], report["runs"]["flat"]
    assert scan["cold"]["bytes"] > 2000 * 384 * 2  # The shards are compressed.
    assert flat["cold"]["bytes"] > 2000 * 384 * 6  # Stored vectors in float32 and codes in float16.
    assert flat["warm"]["requests"] == 0
    assert flat["new process"]["bytes"] < 100_000
    assert "| `flat` | warm | 0 | 0.0 |" in search_s3.markdown(report)


@pytest.mark.slow
def test_packages_that_search_vectors_are_compared(tmp_path: Path) -> None:
    vectors = made_up_vectors(32)
    search_peers.write_vectors(tmp_path, vectors, 400, 8)
    rows, asked = np.load(tmp_path / "vectors.npy"), np.load(tmp_path / "queries.npy")
    kept = np.flatnonzero(np.load(tmp_path / "share.npy") < 5000)
    similarity = asked.astype(np.float64) @ rows[kept].astype(np.float64).T
    nearest = np.load(tmp_path / "exact_50.npy")
    for query, found in zip(similarity, nearest, strict=True):
        assert set(found) == set(kept[np.argsort(-query)[:10]])
    # The project's own environment has these packages. The script needs nothing else.
    for way in ("numpy", "faiss_flat", "faiss_ivf", "duckdb_scan"):
        one = search_peers.measure_way(Path(sys.executable), way, tmp_path, 0.01)
        assert "failed" not in one, one
        assert min(found["recall"] for found in one["ask"]["filters"].values()) >= 0.9
        assert one["file_mb"] > 0


def test_a_package_that_fails_is_named(tmp_path: Path) -> None:
    failed = search_peers.measure_way(Path(sys.executable), "faiss_flat", tmp_path, 0.01)
    assert list(failed) == ["failed"]
    assert "vectors.npy" in failed["failed"]


@pytest.mark.slow
def test_collection_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Each part has a process of its own. All of them would import PyTorch.
    monkeypatch.setattr(
        collection_search, "alone_with_memory", lambda part, *arguments: part(*arguments) | {"memory_mb": 0}
    )
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    report = collection_search.measure(scenes=(2,), dimensions=8, queries=2, results=tmp_path)
    size = report["sizes"]["2"]
    assert (size["table"]["rows"], size["grown"]["rows"]) == (1024, 2048)
    assert "| 2 | 2,048 | " in collection_search.markdown(report)


@pytest.mark.slow
def test_neighbours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "alone", lambda part, *arguments: part(*arguments))
    report = neighbours.measure(rows=(300,), dimensions=8, k=3, results=tmp_path)
    assert json.loads((tmp_path / "neighbours.json").read_text()) == report
    assert neighbours.markdown(report).count("| 306 |") == 4
    found = report["sizes"]["306"]
    assert found["neighbours"]["recall"]["recall"] == found["neighbours"]["facts"]["recall"] == 1.0
    assert found["neighbours"]["recall"]["largest_error"] < 1e-5


@pytest.mark.slow
def test_collections(tmp_path: Path) -> None:
    weights = make_checkpoint(tmp_path / "model", **TINY)
    # Requests are counted from the end of the first scene, and some scenes are embedded at once.
    report = collections.measure(scenes=(8,), rows=50, model=str(weights), results=tmp_path)
    assert json.loads((tmp_path / "collections.json").read_text()) == report
    runs = report["runs"]["8"]
    assert [runs[name]["scenes"] for name in ("first", "again", "one_added")] == [8, 0, 1]
    assert 0 < sum(runs["first"]["requests"].values()) < 20
    assert min(runs["first"]["peak_mib"], runs["flow"]["peak_mib"]) > 100
    # Discovery, one batch of scenes, and the checks.
    assert 3 <= runs["flow"]["task_runs"] <= 10
    assert report["catalogue"]["rows"] == 50
    lines = [line for line in collections.markdown(report).splitlines() if line.startswith("|")]
    assert len(lines) == 3
    assert len({line.count("|") for line in lines}) == 1


def test_every_peer_has_its_script_and_pinned_requirements() -> None:
    for way in peers.PEERS.values():
        assert (peers.SCRIPTS / f"{way.script}.py").exists()
        lines = (peers.SCRIPTS / f"{way.script}.txt").read_text().splitlines()
        assert all(re.fullmatch(r"[\w-]+==[\d.]+", line) for line in lines)


@pytest.mark.slow
def test_cosine_is_the_least_of_all_tiles(tmp_path: Path) -> None:
    tiles = np.array([[0, 0], [0, 1]])
    np.savez(tmp_path / "a.npz", tiles=tiles, vectors=np.array([[1.0, 0.0], [0.0, 2.0]]))
    np.savez(tmp_path / "b.npz", tiles=tiles, vectors=np.array([[3.0, 0.0], [3.0, 4.0]]))
    assert peers.cosine(tmp_path / "a.npz", tmp_path / "b.npz") == pytest.approx(0.8)
    np.savez(tmp_path / "c.npz", tiles=tiles[::-1], vectors=np.ones((2, 2)))
    with pytest.raises(AssertionError):
        peers.cosine(tmp_path / "a.npz", tmp_path / "c.npz")


@pytest.mark.slow
def test_growth(tmp_path: Path) -> None:
    found = growth.measure(tiles=(64, 144), shard_tiles=16, results=tmp_path)
    check(found, growth.markdown(found).partition("\n\nThe line")[0] + "\n", tmp_path)
    assert [run["tiles"] for run in found["runs"].values()] == [64, 144]
    for run in found["runs"].values():
        assert run["requests_per_shard"] * run["shards"] == sum(run["requests"].values())
        assert run["requests"]["create_from_file"] >= run["shards"]


def test_a_line_bends_where_a_run_takes_longer_than_the_smaller_ones_say() -> None:
    def runs(*seconds: float) -> list[dict[str, Any]]:
        return [
            {"tiles": 10**n, "seconds": s, "ms_per_tile": s / 10**n, "peak_mib": 1.0}
            for n, s in enumerate(seconds, start=2)
        ]

    straight = growth._line(runs(2.0, 11.0, 101.0))["line"]
    assert straight == {"fixed_s": pytest.approx(1), "ms_per_tile": pytest.approx(10), "bends_at_tiles": None}
    assert growth._line(runs(2.0, 11.0, 130.0))["line"]["bends_at_tiles"] == 10_000


@pytest.mark.slow
def test_prefects_share_is_of_shards_of_the_usual_size(tmp_path: Path) -> None:
    assert growth.prefect_share(tmp_path) is None
    overhead = {"runs": {"500": {"prefect_s": 10.0, "flow_s": {"median": 25.0}}}}
    (tmp_path / "prefect_overhead.json").write_text(json.dumps(overhead))
    speeds = {"runs": {"ours_bfloat16/from_file": {"tiles_per_s": {"median": Selection().shard_tiles / 1.98}}}}
    (tmp_path / "latest.json").write_text(json.dumps(speeds))
    share = growth.prefect_share(tmp_path)
    assert share is not None
    assert share["share"] == pytest.approx(0.01)
    assert share["share_of_tiny_shards"] == pytest.approx(0.4)


@pytest.mark.slow
def test_cold_start(tmp_path: Path) -> None:
    found = cold_start.measure(rounds=1, tiny=True, results=tmp_path)
    check(found, cold_start.markdown(found), tmp_path)
    runs = {name: run["median"] for name, run in found["runs"].items()}
    # The help takes little longer than its imports, so that one measurement cannot tell which of the two is faster.
    assert runs["python"] < min(runs["import"], runs["help"])
    assert max(runs["import"], runs["help"]) < runs["first_shard"]
    assert found["slowest"]["help"]["prefect"] > 0


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


@pytest.mark.slow
def test_engines(tmp_path: Path) -> None:
    report = engines.measure(
        size=32, tiles=4, batches=(1, 4), dtypes=("float32",), matmul=64, rounds=1, tiny=True, results=tmp_path
    )
    names = {f"{way} float32 {batch}" for way in ("transformers", "eager", "openvino") for batch in (1, 4)}
    assert names == set(report["tiles_per_s"]) == set(report["share_of_limit"])
    assert json.loads((tmp_path / "engines.json").read_text()) == report
    head, _, *rows = engines.markdown(report).partition("\n\n")[2].splitlines()
    assert len(rows) == 4
    assert {row.count("|") for row in rows} == {head.count("|")}


def test_the_work_of_an_image() -> None:
    assert engines.flops(size=224, registers=4, **VIT_S16) == pytest.approx(9.4e9, rel=0.01)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.slow
def test_the_gpus_benchmark_needs_few_packages_and_says_that_there_is_no_gpu() -> None:
    code = (
        "import sys, runpy\n"
        "for name in ('rasterio', 'pydantic', 'prefect', 'pyarrow', 'duckdb', 'psutil', 'cyclopts'):\n"
        "    sys.modules[name] = None\n"
        "runpy.run_path('benchmarks/gpu.py', run_name='__main__')"
    )
    here = Path(__file__).parents[2]
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=here)
    assert (process.returncode, process.stdout) == (2, "")
    assert process.stderr.strip().splitlines()[-1] == "benchmarks/gpu.py: PyTorch finds no CUDA device on this machine"
