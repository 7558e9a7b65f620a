"""What every peer's script shares: its options, its talk with the bench, and what it says of itself.

A peer is a process of its own environment, so nothing here needs more than NumPy. Once loaded it prints a line of JSON,
and one more for each line that it is sent: `CASE`, or `CASE FILE` to have the vectors too. It ends with its input.
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
"""By row and column of the tile, each of shape (d,)."""

_answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # what libraries print does not get between the answers


def options() -> argparse.Namespace:
    """What the bench asks for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--raster", type=Path, required=True, help="a raster whose sides are multiples of the tile's")
    parser.add_argument("--weights", type=Path, required=True, help="folder of a DINOv3 ViT as transformers writes it")
    parser.add_argument("--tile", type=int, required=True, help="side of a tile in px")
    parser.add_argument("--threads", type=int, required=True, help="of PyTorch")
    parser.add_argument("--batch", type=int, default=32, help="tiles that the model takes at a time")
    parser.add_argument(
        "--tuned", action="store_true", help="as a person sets it up who knows the package, in bfloat16"
    )
    return parser.parse_args()


def serve(packages: tuple[str, ...], cases: Mapping[str, Callable[[], Any]], note: str = "") -> None:
    """Do what the bench asks for, as often as it asks.

    Args:
        packages: whose versions count.
        cases: by name, what embeds the raster: returns `Vectors`, or a function that gets them when the time is taken.
        note: what is to be known of the results.
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
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew; proc_pid_clear_refs(5)
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
    """Time inside `with`, in all."""

    seconds = 0.0

    def __enter__(self) -> None:
        self._begun = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self.seconds += time.perf_counter() - self._begun


model_time = _Clock()
"""Around the model alone, without reading and preparing."""


def torchvision_without_operators() -> None:
    """Let torchvision be imported beside a build of PyTorch that its compiled operators do not load into.

    There is no build of torchvision to go with every build of PyTorch for the CPU. Its Python half, which is all that
    is used here, registers itself with operators that must at least be declared; none of them is ever called.
    """
    import torch

    declared = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        declared.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _kept.append(declared)


_kept: list[Any] = []
"""What would be undone if it were collected."""


def _say(what: dict[str, Any]) -> None:
    print(json.dumps(what), file=_answers, flush=True)


def _peak_mib() -> float:
    """The most that was resident, with what worker processes hold that is theirs alone."""
    kib = _kib(Path("/proc/self/status"), "VmHWM:")
    for children in Path("/proc/self/task").glob("*/children"):
        kib += sum(_kib(Path(f"/proc/{pid}/smaps_rollup"), "Private_Dirty:") for pid in children.read_text().split())
    return kib / 1024


def _kib(file: Path, key: str) -> int:
    return next(int(line.split()[1]) for line in file.read_text().splitlines() if line.startswith(key))
