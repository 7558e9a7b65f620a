"""Compare this project with other packages that embed rasters, and with the limits of the machine.

The packages and their settings are called ways. Every way has its own process. Each process first loads and warms up.
Then the processes take turns. Loading is timed separately. Before the measurement, the vectors are compared with the
reference: the vectors of the plain loop in float32.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import rasterio
import torch
from matplotlib.patches import Rectangle
from rasterio.windows import Window

from benchmarks.harness import (
    RESULTS,
    TINY,
    VIT_S16,
    Timing,
    figure,
    load,
    make_checkpoint,
    ratio,
    run,
    save,
    speed,
    spread,
    table,
    take_turns,
    where,
)
from benchmarks.peers import MODELS, OURS, PEERS, VENVS, Unavailable, Way, Worker, cosine, python_of
from examples.landscape import make_scene

NAME = "latest"

MIN_COSINE = 0.9999
"""Smallest allowed cosine similarity to the float32 reference, for ways that prepare tiles like the reference."""

_SIDE = 2048
"""Number of rows, and of columns, of the matrices in the product."""
_PRODUCTS = 8
"""Number of matrix products in one run."""


def measure(
    *,
    rows: int = 16,
    cols: int = 16,
    tile: int = 224,
    rounds: int = 3,
    peers: tuple[str, ...] = tuple(PEERS),
    tiny: bool = False,
    venvs: Path = VENVS,
    results: Path = RESULTS,
) -> dict[str, Any]:
    """Compare all ways.

    Args:
        rows: Number of rows of tiles in the generated deflate COG. The COG has no nodata.
        cols: Number of columns of tiles.
        tile: Side of a tile, px.
        rounds: Number of measurements of each case.
        peers: Other packages to compare.
        tiny: Use a tiny model, not a model of ViT-S/16's size, for a quick trial of the script.
        venvs: Folder for the environments of the other packages. The environments are created on first use.
        results: Folder for the result file.
    """
    parameters = {"rows": rows, "cols": cols, "tile": tile, "rounds": rounds, "tiny": tiny}
    ways = OURS | MODELS | {name: PEERS[name] for name in peers}
    tiles, shape = rows * cols, TINY if tiny else VIT_S16
    pythons, skipped = _environments(ways, venvs)
    load_before = load()
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as workers:
        place = Path(scratch)
        raster = make_scene(place, width=cols * tile, height=rows * tile, border=0).raster
        weights = make_checkpoint(place / "model", **shape)
        threads = len(os.sched_getaffinity(0))
        torch.set_num_threads(threads)
        arguments = ("--raster", raster, "--weights", weights, "--tile", tile, "--threads", threads)
        loaded: dict[str, Worker] = {}
        for name, python in pythons.items():
            try:
                worker = Worker(ways[name], python, arguments, place / f"{name}.log")
                workers.callback(worker.close)
                case = "in_memory" if name in MODELS else "from_file" if name in OURS else "embed"
                worker.turn(case, None if name in MODELS else place / f"{name}.npz")
                loaded[name] = worker
            except Unavailable as reason:
                skipped[name] = str(reason)
        if not OURS.keys() | MODELS.keys() <= loaded.keys():
            raise SystemExit(f"this project's own ways do not run: {skipped}")
        cosines = _cosines(place, loaded, ways)
        cases = _cases_of_ways(loaded)
        times = take_turns({**cases, **_cases_of_limits(raster, tile)}, rounds)
        with rasterio.open(raster) as source:
            km2 = abs(source.transform.a * source.transform.e) * source.width * source.height / 1e6
    runs: dict[str, dict[str, Any]] = {}
    for case, of_way in cases.items():
        name, _, what = case.partition("/")
        way = ways[name]
        runs[case] = {
            "label": way.label + (", model alone" if name in OURS and what == "in_memory" else ""),
            "kind": "limit" if what == "in_memory" else "ours" if name in OURS else "peer",
            "dtype": way.dtype,
            "tuned": way.tuned,
            "batch": way.batch,
            "tiles_per_s": speed(times[case], tiles),
            "km2_per_h": 3600 * km2 * statistics.median(1 / t.wall for t in times[case]),
            "cpu_ms_per_tile": figure([t.cpu / tiles * 1e3 for t in times[case]]),
            "peak_mib": max(answer["peak_mib"] for answer in of_way.answers),
            "load_s": loaded[name].about["load_s"],
            "cosine": None if what == "in_memory" else cosines.get(name),
            "note": loaded[name].about["note"],
            "versions": loaded[name].about["versions"],
        }
    limits = _limits(times, tiles, _gflop(tile, **shape))
    found = {
        "tiles": tiles,
        "km2": km2,
        "runs": runs,
        "skipped": {name: {"label": ways[name].label, "skipped": reason} for name, reason in skipped.items()},
        "limits": limits,
        "ratios": _ratios(runs, times, limits),
    }
    return save(NAME, parameters, load_before, found, results)


def _environments(ways: dict[str, Way], venvs: Path) -> tuple[dict[str, Path], dict[str, str]]:
    """Return the Python of each way, or the reason why the way cannot be installed."""
    pythons, skipped = {}, {}
    for name, way in ways.items():
        try:
            pythons[name] = Path(sys.executable) if way.own else python_of(way.script, venvs)
        except Unavailable as reason:
            skipped[name] = str(reason)
    return pythons, skipped


def _cosines(place: Path, loaded: dict[str, Worker], ways: dict[str, Way]) -> dict[str, float]:
    """Return for each way the smallest cosine similarity between its vectors and the reference's vectors.

    Raises:
        SystemExit: if this project's vectors differ from the reference.
    """
    reference = place / f"{'plain_loop' if 'plain_loop' in loaded else 'ours_float32'}.npz"
    cosines = {name: cosine(place / f"{name}.npz", reference) for name in loaded if name not in MODELS}
    wrong = {name: found for name, found in cosines.items() if ways[name].exact and not found >= MIN_COSINE}
    if wrong.keys() & OURS.keys():
        raise SystemExit(f"vectors differ from the reference, so no time counts: cosine {wrong}")
    return cosines


@dataclass(frozen=True)
class _Case:
    """One case of a loaded way. Each call runs the case once, and keeps the answer of the way's process."""

    worker: Worker
    what: str
    """Name of the case in the script of the way."""
    answers: list[dict[str, float]] = field(default_factory=list)

    def __call__(self) -> None:
        self.answers.append(self.worker.turn(self.what))


def _cases_of_ways(loaded: Mapping[str, Worker]) -> dict[str, _Case]:
    """Return the cases of all loaded ways, named `way/case`."""
    cases: dict[str, _Case] = {}
    for name, worker in loaded.items():
        whats = ("from_file", "in_memory") if name in OURS else ("in_memory",) if name in MODELS else ("embed",)
        cases |= {f"{name}/{what}": _Case(worker, what) for what in whats}
    return cases


def _cases_of_limits(raster: Path, tile: int) -> dict[str, Callable[[], object]]:
    """Return the cases that measure the limits of the machine."""
    return {
        "matmul_float32": partial(_multiply, torch.ones(_SIDE, _SIDE, dtype=torch.float32)),
        "matmul_bfloat16": partial(_multiply, torch.ones(_SIDE, _SIDE, dtype=torch.bfloat16)),
        "decode": partial(_decode, raster, tile),
    }


def _multiply(matrix: torch.Tensor) -> None:
    for _ in range(_PRODUCTS):
        matrix @ matrix


def _decode(raster: Path, tile: int) -> None:
    """Read every pixel once in one thread, one strip per row of tiles."""
    with rasterio.open(raster) as source:
        for row in range(source.height // tile):
            source.read(window=Window(0, row * tile, source.width, tile))


def _gflop(tile: int, *, hidden_size: int, intermediate_size: int, num_hidden_layers: int, **_: int) -> float:
    """Return the GFLOP of the matrix products for one image, in the layers and the patch embedding.

    A multiplication and an addition count as two operations.
    """
    patches = (tile // 16) ** 2
    tokens = patches + 5
    layer = tokens * (8 * hidden_size**2 + 4 * hidden_size * intermediate_size) + 4 * tokens**2 * hidden_size
    return (num_hidden_layers * layer + 2 * patches * 3 * 16**2 * hidden_size) / 1e9


def _limits(times: dict[str, list[Timing]], tiles: int, gflop: float) -> dict[str, Any]:
    """Return the limits of the machine. They were measured in the same rounds as the ways."""
    work = 2 * _SIDE**3 * _PRODUCTS / 1e9
    found: dict[str, Any] = {"gflop_per_tile": gflop, "decode_tiles_per_s": speed(times["decode"], tiles)}
    for dtype in ("float32", "bfloat16"):
        found[f"matmul_{dtype}_gflop_per_s"] = speed(times[f"matmul_{dtype}"], work)
        found[f"matmul_{dtype}_tiles_per_s"] = speed(times[f"matmul_{dtype}"], work / gflop)
    return found


def _ratios(
    runs: dict[str, dict[str, Any]], times: dict[str, list[Timing]], limits: dict[str, Any]
) -> dict[str, float | None]:
    """Return how many times faster this project is than each other case. None means that the other case is missing."""

    def best(tuned: bool) -> str | None:
        peers = [case for case, run in runs.items() if run["kind"] == "peer" and run["tuned"] == tuned]
        return min(peers, key=lambda case: statistics.median(t.wall for t in times[case]), default=None)

    def over(under: str | None, dtype: str = "bfloat16") -> float | None:
        return ratio(times[f"ours_{dtype}/from_file"], times[under]) if under else None

    end_to_end = {dtype: speed(times[f"ours_{dtype}/from_file"], 1).median for dtype in ("float32", "bfloat16")}
    decode = speed(times["decode"], 1).median
    tiles = {dtype: runs[f"ours_{dtype}/from_file"]["tiles_per_s"].median for dtype in end_to_end}
    return {
        "end_to_end_over_in_memory_cpu": over("ours_bfloat16/in_memory"),
        "end_to_end_over_in_memory_cpu_float32": over("ours_float32/in_memory", "float32"),
        "end_to_end_over_best_peer_cpu": over(best(tuned=True)),
        "end_to_end_over_best_peer_cpu_float32": over(best(tuned=False), "float32"),
        "end_to_end_over_best_peer_as_shipped_cpu": over(best(tuned=False)),
        "end_to_end_over_transformers_in_memory_cpu": over("transformers_bfloat16/in_memory"),
        "end_to_end_over_transformers_in_memory_cpu_float32": over("transformers_float32/in_memory", "float32"),
        "end_to_end_over_decode_cpu": end_to_end["bfloat16"] / decode,
        **{
            f"end_to_end_over_matmul_cpu_{dtype}": tiles[dtype] / limits[f"matmul_{dtype}_tiles_per_s"].median
            for dtype in tiles
        },
        "end_to_end_over_in_memory_gpu": None,
        "end_to_end_over_best_peer_gpu": None,
    }


def markdown(report: dict[str, Any]) -> str:
    """Return the result as Markdown tables."""
    runs = sorted(report["runs"].values(), key=lambda run: -run["tiles_per_s"]["median"])
    head = ["way", "dtype", "tiles/s", "km²/h", "CPU ms a tile", "peak, MiB", "load, s", "cosine to float32"]
    lines = [
        [
            f"**{run['label']}**" if run["kind"] == "ours" else run["label"],
            run["dtype"],
            spread(run["tiles_per_s"]),
            f"{run['km2_per_h']:.0f}",
            f"{run['cpu_ms_per_tile']['median']:.0f}",
            f"{run['peak_mib']:.0f}",
            f"{run['load_s']:.1f}",
            "" if run["cosine"] is None else f"{run['cosine']:.5f}",
        ]
        for run in runs
    ]
    limits = report["limits"]
    for dtype in ("bfloat16", "float32"):
        name = f"limit: matrix product, {limits[f'matmul_{dtype}_gflop_per_s']['median']:.0f} GFLOP/s"
        lines.append([name, dtype, spread(limits[f"matmul_{dtype}_tiles_per_s"]), *[""] * 5])
    lines.append(["limit: decoding, one thread", "", spread(limits["decode_tiles_per_s"], 0), *[""] * 5])
    notes = {
        run["label"].removesuffix(", tuned"): run["note"] for run in runs if run["note"] and run["kind"] != "limit"
    }
    text = where(report) + table(head, lines)
    if notes:
        text += (
            "\n" + " ".join(f"{label[0].upper()}{label[1:]}: {note}." for label, note in sorted(notes.items())) + "\n"
        )
    for way in report["skipped"].values():
        text += f"\n{way['label']} did not run: {way['skipped']}.\n"
    shares = [[name, "–" if value is None else f"{value:.2f}"] for name, value in report["ratios"].items()]
    return text + "\n" + table(["ratio of speeds", "times"], shares)


def draw(report: dict[str, Any], picture: Path) -> None:
    """Draw the speeds as sorted bars, with their spread over the rounds.

    Args:
        report: the result.
        picture: file to write.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    colours = {"ours": "#d1495b", "peer": "#5b7f9e", "limit": "#c9ced3"}
    names = {"ours": "this project, from the file", "peer": "others, from the file", "limit": "the model on ready data"}
    runs = sorted(report["runs"].values(), key=lambda run: run["tiles_per_s"]["median"])
    labels = [run["label"] if run["dtype"] in run["label"] else f"{run['label']}, {run['dtype']}" for run in runs]
    speeds = [run["tiles_per_s"] for run in runs]
    medians = [speed["median"] for speed in speeds]
    errors = [[s["median"] - s["low"] for s in speeds], [s["high"] - s["median"] for s in speeds]]
    figure_, axes = plt.subplots(figsize=(9, 0.36 * len(runs) + 1.6), layout="constrained")
    axes.barh(labels, medians, color=[colours[run["kind"]] for run in runs], height=0.72)
    axes.errorbar(medians, range(len(runs)), xerr=errors, fmt="none", ecolor="#333333", elinewidth=0.8, capsize=2)
    for place, (median, speed_) in enumerate(zip(medians, speeds, strict=True)):
        axes.annotate(f"{median:.1f}", (speed_["high"], place), (5, 0), textcoords="offset points", va="center", size=8)
    axes.set_xlabel("tiles of 224 px a second" if report["parameters"]["tile"] == 224 else "tiles a second")
    machine = report["machine"]
    model = "tiny DINOv3" if report["parameters"]["tiny"] else "DINOv3 ViT-S/16"
    axes.set_title(f"{model} over a deflate COG, {machine['cores']} CPU cores", loc="left", fontsize=11)
    axes.set_xlim(0, 1.1 * max(speed["high"] for speed in speeds))
    axes.xaxis.grid(True, color="#e3e3e3")
    axes.set_ylim(-0.6, len(runs) - 0.4)
    axes.set_axisbelow(True)
    axes.tick_params(axis="y", length=0, labelsize=9)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    present = [kind for kind in colours if any(run["kind"] == kind for run in runs)]
    axes.legend(
        [Rectangle((0, 0), 1, 1, color=colours[kind]) for kind in present],
        [names[k] for k in present],
        loc="lower right",
        frameon=False,
        fontsize=9,
    )
    picture.parent.mkdir(parents=True, exist_ok=True)
    figure_.savefig(picture, dpi=144)
    plt.close(figure_)


if __name__ == "__main__":
    run(measure, markdown)
