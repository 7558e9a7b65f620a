"""Shared parts of the benchmarks: timing of cases in turns, statistics, result files, and tables."""

from __future__ import annotations

import inspect
import json
import os
import platform
import random
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import wraps
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

import duckdb
import psutil
import pyarrow
import rasterio
import torch
from cyclopts import App

from rasterembed.dataset.manifest import Manifest
from rasterembed.model.checkpoints import write_preprocessor
from rasterembed.model.processor import processor_name
from rasterembed.pipeline import EmbedOptions, embed_raster
from rasterembed.store.object_store import ObjectStore

_T = TypeVar("_T")

RESULTS = Path(__file__).parent / "results"

VIT_S16 = {"hidden_size": 384, "intermediate_size": 1536, "num_hidden_layers": 12, "num_attention_heads": 6}
"""Configuration of a model with the size of DINOv3 ViT-S/16."""

TINY = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
"""Configuration of a very small model. Most of the time is then spent outside the model."""

QUIET = 0.1
"""Largest share of the machine's processor time that other processes may use in a round that counts."""


def embed(store: ObjectStore, raster: str, **options: Any) -> Manifest:
    """Embed a raster, write its manifest and return the manifest. The quality checks do not run.

    Args:
        store: store for the dataset.
        raster: path of the raster.
        options: fields of `EmbedOptions`.
    """
    return embed_raster(store, raster, EmbedOptions(**options, quality_checks=False)).manifest


@dataclass(frozen=True)
class Timing:
    """Time of one run of a case."""

    wall: float
    """Wall time, in seconds."""
    cpu: float
    """Processor time of this process and its child processes, summed over all threads, in seconds."""
    others: float
    """Share of the machine's processor time used by other processes and other virtual machines."""


@dataclass(frozen=True)
class Figure:
    """One quantity, measured in several rounds."""

    median: float
    low: float
    """Smallest value of all rounds."""
    high: float
    """Largest value of all rounds."""
    rounds: tuple[float, ...]
    """Values in the order in which they were measured."""


def figure(values: Sequence[float]) -> Figure:
    """Return the median, the smallest and the largest of the values."""
    return Figure(statistics.median(values), min(values), max(values), tuple(values))


def take_turns(cases: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[Timing]]:
    """Time several cases in turns.

    Each round runs every case once, in a new random order. Load from other processes then affects all cases equally.

    A round is quiet if other processes used at most the share `QUIET` of the machine. Rounds are run until `rounds` of
    them are quiet, but at most `3 * rounds` rounds. The rounds with the least load from other processes count.

    Args:
        cases: functions to time, by name.
        rounds: number of rounds that count.

    Returns:
        For each case, one timing per round.
    """
    order = list(cases)
    shuffle = random.Random(1).shuffle
    kept: list[dict[str, Timing]] = []
    for _ in range(3 * rounds):
        shuffle(order)
        kept.append({name: timed(cases[name]) for name in order})
        if sum(_disturbed(turns) <= QUIET for turns in kept) == rounds:
            break
    kept.sort(key=_disturbed)
    return {name: [turns[name] for turns in kept[:rounds]] for name in cases}


def _disturbed(turns: Mapping[str, Timing]) -> float:
    return max(turn.others for turn in turns.values())


def timed(case: Callable[[], object]) -> Timing:
    """Run a case once, and measure its time."""
    machine, own, begun = _machine_cpu(), _own_cpu(), time.perf_counter()
    case()
    wall = time.perf_counter() - begun
    own, machine = _own_cpu() - own, _machine_cpu() - machine
    return Timing(wall, own, max(0.0, machine - own) / (wall * (os.cpu_count() or 1)))


def _own_cpu() -> float:
    """Return the processor time of this process and of its running and ended child processes, in seconds."""
    ended = os.times()
    running = [p.cpu_times() for p in psutil.Process().children(recursive=True)]
    return time.process_time() + sum(
        (ended.children_user, ended.children_system, *(c.user + c.system for c in running))
    )


def _machine_cpu() -> float:
    """Return the busy seconds of all processors since the machine's start; see proc_stat(5)."""
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(
        int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
    )
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def speed(times: Sequence[Timing], count: float) -> Figure:
    """Return the number of items per second, if each run handled `count` items."""
    return figure([count / t.wall for t in times])


def ratio(over: Sequence[Timing], under: Sequence[Timing]) -> float:
    """Return the speed of the case `over`, divided by the speed of the case `under`.

    Medians are compared, because a single slow round hardly changes a median.
    """
    return statistics.median(t.wall for t in under) / statistics.median(t.wall for t in over)


def make_checkpoint(folder: Path, *, seed: int = 0, **shape: int) -> Path:
    """Write a DINOv3 ViT with random weights.

    The weights are scaled like the weights of the demo model, so that the vectors depend on the picture.

    Args:
        folder: folder of the checkpoint.
        seed: seed of the weights.
        shape: parameters of transformers' `DINOv3ViTConfig`, for example `VIT_S16`.

    Returns:
        `folder`.
    """
    # Many processes of the benchmarks and of the tests import this module and write no checkpoint.
    from transformers import DINOv3ViTConfig, DINOv3ViTModel

    generator = torch.Generator().manual_seed(seed)
    model = DINOv3ViTModel(DINOv3ViTConfig(num_register_tokens=4, **shape))
    with torch.no_grad():
        for name, weight in sorted(model.named_parameters()):
            if weight.ndim >= 2 and "mask_token" not in name:
                weight.copy_(torch.randn(weight.shape, generator=generator) / weight[0].numel() ** 0.5)
    model.save_pretrained(folder)
    write_preprocessor(folder, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    return folder


def alone(function: Callable[..., _T], *arguments: object) -> _T:
    """Call a module's function in a new process, and return the function's result."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        return process.submit(function, *arguments).result()


def alone_with_memory(part: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any]:
    """Run one part in its own process, and add the growth of the process's peak memory in MiB to the result."""
    return alone(_with_memory, part, *arguments)


def _with_memory(part: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any]:
    before = status_mib("VmHWM")
    return part(*arguments) | {"memory_mb": round(status_mib("VmHWM") - before)}


def status_mib(key: str) -> float:
    """Return a memory size in MiB from proc_pid_status(5): VmRSS is the present resident memory, VmHWM its peak."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) / 1024
    raise KeyError(key)


@contextmanager
def peak_of_anonymous_memory() -> Iterator[Callable[[], float]]:
    """Look at the memory of this process 20 times a second. Yield a function that returns its largest growth in MiB.

    Pages of mapped files are not counted: the system takes them back when it needs memory.
    """
    start, seen, stop = status_mib("RssAnon"), [0.0], threading.Event()

    def look() -> None:
        while not stop.wait(0.05):
            seen.append(status_mib("RssAnon") - start)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield lambda: max(seen)
    finally:
        stop.set()
        thread.join()


def default_rasters() -> Path:
    """Return the folder of real rasters: the variable RASTERS, or ../shared/data/rasters next to the project."""
    return Path(os.environ.get("RASTERS") or Path(__file__).parents[2] / "shared" / "data" / "rasters")


def load() -> float:
    """Return the average number of processes that ran or waited in the last minute. A quiet machine has almost 0."""
    return os.getloadavg()[0]


def save(
    name: str, parameters: Mapping[str, Any], load_before: float, results: Mapping[str, Any], folder: Path = RESULTS
) -> dict[str, Any]:
    """Write `NAME.json` with the results, the parameters and the machine.

    Args:
        name: name of the benchmark.
        parameters: parameters of the benchmark.
        load_before: load of the machine before the benchmark, from `load`.
        results: measured values. Dataclasses become JSON objects.
        folder: folder of the file.

    Returns:
        The content of the file.
    """
    report = {
        "benchmark": name,
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {
            "processor": processor_name(),
            "cores": len(os.sched_getaffinity(0)),
            "load_before": round(load_before, 2),
            "python": platform.python_version(),
            "torch": torch.__version__,
            "gdal": rasterio.__gdal_version__,
            **{package: version(package) for package in ("rasterio", "transformers", "prefect")},
            "duckdb": duckdb.__version__,
            "pyarrow": pyarrow.__version__,
        },
        # Folders are of this machine, and nobody else can use their paths.
        "parameters": {option: value for option, value in parameters.items() if not isinstance(value, Path)},
        **results,
    }
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(report, indent=1, default=_plain, allow_nan=False)
    (folder / f"{name}.json").write_text(text + "\n")
    stored: dict[str, Any] = json.loads(text)
    return stored


def _plain(value: object) -> object:
    return str(value) if isinstance(value, Path) else asdict(value)  # type: ignore[call-overload]


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table. The first column is left-aligned; the other columns are right-aligned."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def where(report: Mapping[str, Any]) -> str:
    """Return a paragraph about the machine of a result. It goes above the result's table."""
    machine = report["machine"]
    return (
        f"{machine['processor']}, {machine['cores']} cores, load before {machine['load_before']}; "
        f"PyTorch {machine['torch']}, GDAL {machine['gdal']}, DuckDB {machine['duckdb']}.\n\n"
    )


def spread(value: Mapping[str, float], digits: int = 1) -> str:
    """Return a figure as text: the median, then the smallest and the largest value."""
    return f"{value['median']:.{digits}f} ({value['low']:.{digits}f}–{value['high']:.{digits}f})"


def run(measure: Callable[..., dict[str, Any]], markdown: Callable[[dict[str, Any]], str]) -> None:
    """Run a benchmark as a command, and print the result table. The benchmark's parameters become options.

    Args:
        measure: the benchmark. Its docstring is the help text.
        markdown: makes the table from the result of `measure`.
    """
    app = App(help=inspect.getdoc(measure), version_flags=[])

    @wraps(measure)
    def command(**parameters: Any) -> None:
        print(markdown(measure(**parameters)))

    app.default(command)
    app()
