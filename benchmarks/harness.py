"""What every benchmark needs: turns taken in random order, figures, the machine, and results that tables come from."""

from __future__ import annotations

import inspect
import json
import os
import platform
import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
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
from transformers import DINOv3ViTConfig, DINOv3ViTModel

from rasterembed.dataset.manifest import Manifest
from rasterembed.model.checkpoints import write_preprocessor
from rasterembed.model.processor import processor_name
from rasterembed.pipeline import EmbedOptions, embed_raster
from rasterembed.store.object_store import ObjectStore

_T = TypeVar("_T")

RESULTS = Path(__file__).parent / "results"

VIT_S16 = {"hidden_size": 384, "intermediate_size": 1536, "num_hidden_layers": 12, "num_attention_heads": 6}
"""Shape of DINOv3 ViT-S/16."""

TINY = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
"""A model so small that everything else shows."""


QUIET = 0.1
"""Share of the machine that others may take in a round that counts."""


def embed(store: ObjectStore, raster: str, **options: Any) -> Manifest:
    """Embed a raster up to its manifest, without the quality checks, which other benchmarks measure.

    Args:
        store: store that the dataset goes to.
        raster: path of the raster.
        options: fields of `EmbedOptions`.
    """
    return embed_raster(store, raster, EmbedOptions(**options, quality_checks=False)).manifest


@dataclass(frozen=True)
class Timing:
    """What one turn took."""

    wall: float
    """Seconds on the clock."""
    cpu: float
    """Seconds of processor time in this process and those it started, all threads together."""
    others: float
    """Share of the machine's processor time that went to other processes and other virtual machines."""


@dataclass(frozen=True)
class Figure:
    """A measured quantity over rounds."""

    median: float
    low: float
    """Smallest of the rounds."""
    high: float
    """Largest of the rounds."""
    rounds: tuple[float, ...]
    """In the order they were measured."""


def figure(values: Sequence[float]) -> Figure:
    """Median and spread of one value a round."""
    return Figure(statistics.median(values), min(values), max(values), tuple(values))


def take_turns(cases: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[Timing]]:
    """Time cases against each other.

    Each round runs every case once, in an order drawn anew, so that whatever else the machine does falls on all alike.
    A round in which others took more than `QUIET` of the machine is run again, up to three times as many in all; the
    quietest count.
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
    """Run something once."""
    machine, own, begun = _machine_cpu(), _own_cpu(), time.perf_counter()
    case()
    wall = time.perf_counter() - begun
    own, machine = _own_cpu() - own, _machine_cpu() - machine
    return Timing(wall, own, max(0.0, machine - own) / (wall * (os.cpu_count() or 1)))


def _own_cpu() -> float:
    """Processor time, in seconds, of this process and of those below it, ended or not."""
    ended = os.times()
    running = [p.cpu_times() for p in psutil.Process().children(recursive=True)]
    return time.process_time() + sum(
        (ended.children_user, ended.children_system, *(c.user + c.system for c in running))
    )


def _machine_cpu() -> float:
    """Processor time, in seconds, that was not idle since the machine started; proc_stat(5)."""
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(
        int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
    )
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def speed(times: Sequence[Timing], count: float) -> Figure:
    """Things a second, where each turn dealt with `count` of them."""
    return figure([count / t.wall for t in times])


def ratio(over: Sequence[Timing], under: Sequence[Timing]) -> float:
    """How many times faster `over` is than `under`: by their medians, which one odd round does not move."""
    return statistics.median(t.wall for t in under) / statistics.median(t.wall for t in over)


def make_checkpoint(folder: Path, *, seed: int = 0, **shape: int) -> Path:
    """Write a DINOv3 ViT of some shape whose random weights let its vectors follow the picture, as the demo's do."""
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
    """The result of a function of some module, called in a fresh process that ends with it."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        return process.submit(function, *arguments).result()


def default_rasters() -> Path:
    """The folder of real rasters: RASTERS, or ../shared/data/rasters beside the project."""
    return Path(os.environ.get("RASTERS") or Path(__file__).parents[2] / "shared" / "data" / "rasters")


def load() -> float:
    """Processes that ran or waited in the last minute; near 0 on a quiet machine, before the benchmark itself."""
    return os.getloadavg()[0]


def save(
    name: str, parameters: Mapping[str, Any], load_before: float, results: Mapping[str, Any], folder: Path = RESULTS
) -> dict[str, Any]:
    """Write `NAME.json`: what was measured, with which parameters, where.

    Dataclasses in `results` become objects. Returns what was written.
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
        "parameters": {option: value for option, value in parameters.items() if option != "results"},
        **results,
    }
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(report, indent=1, default=_plain, allow_nan=False)
    (folder / f"{name}.json").write_text(text + "\n")
    return json.loads(text)


def _plain(value: object) -> object:
    return str(value) if isinstance(value, Path) else asdict(value)  # type: ignore[call-overload]


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A markdown table; the first column is left-aligned, the rest are numbers."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def where(report: Mapping[str, Any]) -> str:
    """The machine that a result is from, as a paragraph above its table."""
    machine = report["machine"]
    return (
        f"{machine['processor']}, {machine['cores']} cores, load before {machine['load_before']}; "
        f"PyTorch {machine['torch']}, GDAL {machine['gdal']}, DuckDB {machine['duckdb']}.\n\n"
    )


def spread(value: Mapping[str, float], digits: int = 1) -> str:
    """A figure as text: the median, and smallest to largest."""
    return f"{value['median']:.{digits}f} ({value['low']:.{digits}f}–{value['high']:.{digits}f})"


def run(measure: Callable[..., dict[str, Any]], markdown: Callable[[dict[str, Any]], str]) -> None:
    """A benchmark as a command: options from its parameters, the table on standard output."""
    app = App(help=inspect.getdoc(measure), version_flags=[])

    @wraps(measure)
    def command(**parameters: Any) -> None:
        print(markdown(measure(**parameters)))

    app.default(command)
    app()
