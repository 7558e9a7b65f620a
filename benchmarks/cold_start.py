"""Measure start times: imports, the help text, the model, a whole small run, a search, and the first shard of a flow.

Each start is timed in new processes. The files are in the system's cache, as for a user's second start. The commands of
version 0.1, which are flows, can be measured in the same rounds.
"""

from __future__ import annotations

import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.harness import (
    RESULTS,
    TINY,
    VIT_S16,
    alone,
    figure,
    load,
    make_checkpoint,
    run,
    save,
    spread,
    table,
    where,
)
from examples.landscape import make_scene

NAME = "cold_start"

BUDGETS = {"import": 0.5, "help": 1.5, "embed": 4.0, "search": 2.0, "typo": 1.0}
"""Largest allowed time to import the library, to print the command's help text, to embed a raster of four tiles, to
search them, and to refuse an unknown dataset, in seconds."""

_DATASET = "small"
_TILE = "r000000_c000000"
_TYPO = "smal"
_AT_0_1 = " at 0.1"
"""End of the names of the commands of version 0.1 in the results."""

_FOUR_TILES = 448
"""Side in px of a raster that has four tiles of 224 px."""

MODULES = (
    "rasterembed.pipeline",
    "rasterembed.raster.grid",
    "rasterembed.model.choice",
    "rasterembed.dataset.plan",
    "rasterembed.store.object_store",
)
"""Modules that a notebook imports."""

_IMPORTS = "import " + ", ".join(MODULES)
_SHOWN = 8


def measure(
    *, side: int = 896, rounds: int = 5, tiny: bool = False, before: Path | None = None, results: Path = RESULTS
) -> dict[str, Any]:
    """Measure the start times.

    Args:
        side: Side of the generated raster for the flow, px. The run ends with its first shard.
        rounds: Number of measurements of each case.
        tiny: Use a tiny model, not a model of ViT-S/16's size, for a quick trial of the script.
        before: Checkout of version 0.1, to measure its flows too. They use the packages of this environment.
        results: Folder for the result file.
    """
    parameters = dict(locals())
    load_before = load()
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        weights = make_checkpoint(place / "model", **(TINY if tiny else VIT_S16))
        raster = make_scene(place, width=side, height=side, border=0).raster
        small = make_scene(place / "small", width=_FOUR_TILES, height=_FOUR_TILES, border=0).raster
        environment = {
            **os.environ,
            "XDG_CACHE_HOME": str(place / "cache"),
            "PREFECT_HOME": str(place / "prefect"),
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        }
        environment.pop("PREFECT_API_URL", None)
        # Python keeps the byte code of the sources, as it does for users. Otherwise, each process would compile them.
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        flow = [sys.executable, "-m", "flows.raster_embeddings"]
        seconds: dict[str, list[float]] = {"python": [], "import": [], "help": [], "model": []}
        processor: dict[str, list[float]] = {}
        _first_shard(
            flow, raster, weights, place / "warm-up", environment
        )  # Without this first run, the measured runs would also create the database of the Prefect server.
        for number in range(rounds):
            seconds["python"].append(_seconds([sys.executable, "-c", "pass"], environment))
            seconds["import"].append(_seconds([sys.executable, "-c", _IMPORTS], environment))
            seconds["help"].append(_seconds([*flow, "--help"], environment))
            seconds["model"].append(alone(_load_model, raster, weights))
            # A first run on a machine finds nothing in the cache folder.
            shutil.rmtree(place / "cache", ignore_errors=True)
            times = {"embed_new": _timed(_embed(place / f"new-{number}", small, weights), environment)}
            times |= _commands(place / f"later-{number}", small, weights, environment)
            if before:
                earlier = _commands_of_0_1(before, place / f"0.1-{number}", small, weights, environment)
                times |= {f"{name}{_AT_0_1}": found for name, found in earlier.items()}
            for name, (wall, busy) in times.items():
                seconds.setdefault(name, []).append(wall)
                processor.setdefault(name, []).append(busy)
            first = _first_shard(flow, raster, weights, place / str(number), environment)
            seconds.setdefault("first_shard", []).append(first)
        slowest = {
            "import": _slowest(["-c", _IMPORTS], environment),
            "help": _slowest(["-m", "flows.raster_embeddings", "--help"], environment),
        }
    runs = {name: figure(found) for name, found in seconds.items()}
    busy_seconds = {name: figure(found) for name, found in processor.items()}
    # The budget for the import does not include the start of Python.
    own = {name: runs[name].median for name in BUDGETS} | {"import": runs["import"].median - runs["python"].median}
    ratios = {f"{name}_of_budget": own[name] / budget for name, budget in BUDGETS.items()}
    found = {"runs": runs, "processor": busy_seconds, "slowest": slowest, "ratios": ratios}
    return save(NAME, parameters, load_before, found, results)


def _seconds(command: Sequence[str], environment: dict[str, str]) -> float:
    return _timed(command, environment)[0]


def _timed(
    command: Sequence[str], environment: dict[str, str], status: int = 0, folder: Path | None = None
) -> tuple[float, float]:
    """Return the seconds of a command from start to end: by the clock, and of processors.

    Args:
        command: the command. Its child processes count if it waits for their end.
        environment: its environment variables.
        status: exit status with which it must end.
        folder: its working directory.
    """
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, check=False)
    wall, after = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode != status:
        raise SystemExit(f"{' '.join(command)}: exit status {done.returncode}: {done.stderr[-500:]}")
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _embed(root: Path, raster: Path, weights: Path) -> list[str]:
    """Return the command that embeds a raster."""
    options = ["--root", str(root), "--dataset-id", _DATASET, "--model", str(weights), "--device", "cpu"]
    return [sys.executable, "-m", "rasterembed", "embed", str(raster), *options]


def _commands(root: Path, raster: Path, weights: Path, environment: dict[str, str]) -> dict[str, tuple[float, float]]:
    """Return the times of the commands that embed a raster, search its tiles, and refuse an unknown dataset."""
    search = [sys.executable, "-m", "rasterembed", "search", "--root", str(root), "--tile", _TILE]
    return {
        "embed": _timed(_embed(root, raster, weights), environment),
        "search": _timed([*search, _DATASET], environment),
        "typo": _timed([*search, _TYPO], environment, status=2),
    }


def _commands_of_0_1(
    checkout: Path, root: Path, raster: Path, weights: Path, environment: dict[str, str]
) -> dict[str, tuple[float, float]]:
    """Return the times of the same commands of version 0.1. Each of them is a flow, and starts Prefect's server."""
    own = environment | {"PYTHONPATH": str(checkout)}
    program, place = [sys.executable, "-m"], ["--root", str(root)]
    model = ["--dataset-id", _DATASET, "--model", str(weights), "--device", "cpu"]
    search = [*program, "flows.search_embeddings", *place, "--tile", _TILE, "--dataset"]
    return {
        "embed": _timed([*program, "flows.raster_embeddings", str(raster), *place, *model], own, folder=checkout),
        "search": _timed([*search, _DATASET], own, folder=checkout),
        "typo": _timed([*search, _TYPO], own, status=2, folder=checkout),
    }


def _load_model(raster: Path, weights: Path) -> float:
    """Return the seconds to load the model of a plan. PyTorch was imported before. Call it in a new process."""
    from rasterembed.dataset.plan import PlanSettings, make_plan
    from rasterembed.model.choice import Dinov3
    from rasterembed.model.embedder import load_embedder
    from rasterembed.raster.source import register
    from rasterembed.store.object_store import ObjectStore

    store = ObjectStore(root=str(weights.parent / "loading"))
    plan = make_plan(
        store, register(store, str(raster)), "plan", PlanSettings(model=Dinov3(model=str(weights), device="cpu"))
    )
    begun = time.perf_counter()
    load_embedder(plan.model, "cpu")
    return time.perf_counter() - begun


def _first_shard(flow: list[str], raster: Path, weights: Path, root: Path, environment: dict[str, str]) -> float:
    """Return the seconds from the start of a command to its first shard of 4 tiles. Then stop the command."""
    options = ["--root", root, "--dataset-id", "cold", "--model", weights, "--device", "cpu", "--shard-tiles", "4"]
    log = root.with_suffix(".log")
    with log.open("w") as output:
        begun = time.perf_counter()
        command = [*flow, str(raster), *map(str, options)]
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output, start_new_session=True)
        try:
            while not any((root / "embeddings" / "cold").glob("*.parquet")):
                if process.poll() is not None:
                    raise SystemExit(f"the flow ended with status {process.returncode}: {log.read_text()[-500:]}")
                time.sleep(0.01)
            return time.perf_counter() - begun
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait()


def _slowest(arguments: list[str], environment: dict[str, str]) -> dict[str, float]:
    """Return the packages that take longest to import, in milliseconds.

    A package's time is the sum over its own modules. The time of a package that it imports is counted separately.
    """
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *arguments], env=environment, capture_output=True, text=True, check=True
    )
    found: dict[str, float] = {}
    for own, name in re.findall(r"^import time:\s+(\d+) \|\s+\d+ \| +([\w.]+)$", done.stderr, re.MULTILINE):
        package = name.partition(".")[0]
        found[package] = found.get(package, 0.0) + int(own) / 1e3
    return dict(sorted(found.items(), key=lambda item: -item[1])[:_SHOWN])


def markdown(report: dict[str, Any]) -> str:
    """Return the result as a Markdown table."""
    names = {
        "python": "Python alone",
        "import": "`import` of the library",
        "help": "`python -m flows.raster_embeddings --help`",
        "model": "loading the model",
        "embed_new": "`rasterembed embed` of four tiles, the first on a machine",
        "embed": "`rasterembed embed` of four tiles, later",
        "search": "`rasterembed search` of these tiles",
        "typo": "`rasterembed search` with an unknown dataset",
        "first_shard": "from the command to the first shard",
    }
    runs = report["runs"]
    rows = [
        [
            names[name],
            spread(found, 2),
            f"{BUDGETS[name]:.1f}" if name in BUDGETS else "",
            ", ".join(f"{package} {ms:.0f} ms" for package, ms in list(report["slowest"].get(name, {}).items())[:4]),
        ]
        for name, found in runs.items()
        if name in names
    ]
    text = where(report) + table(["start", "seconds", "budget", "slowest imports"], rows)
    earlier = [name.removesuffix(_AT_0_1) for name in runs if name.endswith(_AT_0_1)]
    if earlier:
        heads = ["command", "at 0.1, s", "now, s", "at 0.1, s of processor", "now, s of processor"]
        text += "\nThe same commands of version 0.1, in the same rounds:\n\n"
        text += table(heads, [[names[name], *_before_and_after(report, name)] for name in earlier])
    return text


def _before_and_after(report: dict[str, Any], name: str) -> list[str]:
    """Return the times of a command as cells: by the clock and of processors, each of version 0.1 and of this one."""
    return [spread(report[part][name + of], 1) for part in ("runs", "processor") for of in (_AT_0_1, "")]


if __name__ == "__main__":
    run(measure, markdown)
