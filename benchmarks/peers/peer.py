"""Shared parts of the scripts in this folder: options, and the protocol between a script and the benchmark.

Each script runs in the environment of its package, so this module needs only NumPy. A script prints one line of JSON
when it is loaded. Then it reads lines `CASE` or `CASE FILE`. For each line, it runs the case and prints one line of
JSON. For `CASE FILE`, it also writes the vectors to the file. The script ends when its input ends.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

STARTED = time.perf_counter()

Vectors = Mapping[tuple[int, int], np.ndarray]
"""Vectors of shape (d,) by row and column of the tile."""

_answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # Send everything that libraries print to stderr. On stdout, it would be mixed with the answers.


def options() -> argparse.Namespace:
    """Read the script's options."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--raster", type=Path, required=True, help="a raster whose sides are multiples of the tile's")
    parser.add_argument("--weights", type=Path, required=True, help="folder of a DINOv3 ViT as transformers writes it")
    parser.add_argument("--tile", type=int, required=True, help="side of a tile in px")
    parser.add_argument("--threads", type=int, required=True, help="number of PyTorch's threads")
    parser.add_argument("--batch", type=int, default=32, help="number of tiles in a batch")
    parser.add_argument("--tuned", action="store_true", help="use the package's fastest settings, in bfloat16")
    return parser.parse_args()


def serve(packages: tuple[str, ...], cases: Mapping[str, Callable[[], Any]], note: str = "") -> None:
    """Run cases for the benchmark until its input ends.

    Args:
        packages: packages whose versions the result names.
        cases: functions that embed the raster, by name. A function returns `Vectors`, or another function that returns
            `Vectors`. The other function is called after the time measurement.
        note: remark for readers of the results.
    """
    _say(
        {
            "versions": {package: version(package) for package in packages},
            "load_s": time.perf_counter() - STARTED,
            "note": note,
        }
    )
    for line in sys.stdin:
        case, _, file = line.strip().partition(" ")
        model_time.seconds = 0.0
        Path("/proc/self/clear_refs").write_text("5")  # This resets the peak memory; see proc_pid_clear_refs(5).
        begun = time.perf_counter()
        found = cases[case]()
        seconds = time.perf_counter() - begun
        peak = _peak_mib()
        if file:
            vectors: Vectors = found() if callable(found) else found
            tiles = sorted(vectors)
            np.savez(file, tiles=np.array(tiles), vectors=np.stack([vectors[tile] for tile in tiles]))
        _say({"seconds": seconds, "model_s": model_time.seconds, "peak_mib": peak})


class _Clock:
    """A clock that adds up the time spent inside its `with` blocks."""

    seconds = 0.0

    def __enter__(self) -> None:
        self._begun = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self.seconds += time.perf_counter() - self._begun


model_time = _Clock()
"""Clock for the model alone, without reading and preparing."""


def torchvision_without_operators() -> None:
    """Make the import of torchvision possible if its compiled operators do not load into this build of PyTorch.

    Not every build of PyTorch for the CPU has a matching build of torchvision. The scripts use only the Python part of
    torchvision. When this part is imported, it refers to some operators. The operators must be declared, but they
    are never called.
    """
    import torch

    declared = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
    for name in ("nms", "qnms"):
        declared.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")  # type: ignore[no-untyped-call]
    _kept.append(declared)


_kept: list[Any] = []
"""Declared operators. PyTorch forgets them if the garbage collector removes these objects."""


def _say(what: dict[str, Any]) -> None:
    print(json.dumps(what), file=_answers, flush=True)


def _peak_mib() -> float:
    """Return the peak resident memory in MiB, including the private memory of worker processes."""
    kib = _kib(Path("/proc/self/status"), "VmHWM:")
    for children in Path("/proc/self/task").glob("*/children"):
        kib += sum(_kib(Path(f"/proc/{pid}/smaps_rollup"), "Private_Dirty:") for pid in children.read_text().split())
    return kib / 1024


def _kib(file: Path, key: str) -> int:
    return next(int(line.split()[1]) for line in file.read_text().splitlines() if line.startswith(key))
