"""Measure the cost of Prefect: compare the flow with the same steps called directly in the library.

Each shard has two tiny tiles, so almost all the time is spent on shards, not on tiles. The flow starts its own Prefect
server in a new folder. The processor time of the flow includes the processor time of the server.
"""

from __future__ import annotations

import os
import tempfile
from itertools import count
from pathlib import Path
from typing import Any

from benchmarks.harness import (
    RESULTS,
    TINY,
    alone,
    figure,
    load,
    make_checkpoint,
    run,
    save,
    spread,
    table,
    take_turns,
    where,
)
from examples.landscape import make_scene

NAME = "prefect_overhead"

_TILE = 32
_GOAL = 0.03
"""Largest allowed share of Prefect in the wall time."""


def measure(*, shards: tuple[int, ...] = (100, 500), rounds: int = 3, results: Path = RESULTS) -> dict[str, Any]:
    """Compare the flow with direct calls of the library.

    Args:
        shards: Numbers of shards to measure, 2 or more.
        rounds: Number of measurements of each case.
        results: Folder for the result file.
    """
    parameters = dict(locals())
    load_before = load()
    runs = {}
    with tempfile.TemporaryDirectory() as scratch:
        weights = make_checkpoint(Path(scratch) / "model", **TINY)
        for number in shards:
            folder = Path(scratch) / str(number)
            raster = make_scene(folder, width=2 * _TILE, height=number * _TILE).raster
            runs[str(number)] = alone(compare, folder, raster, weights, number, rounds)
    longest = runs[str(max(shards))]
    per_shard = longest["prefect_s"] / max(shards)
    ratios = {"prefect_ms_per_shard": per_shard * 1e3, "shard_s_for_goal": per_shard * (1 - _GOAL) / _GOAL}
    return save(NAME, parameters, load_before, {"runs": runs, "ratios": ratios}, results)


def compare(folder: Path, raster: Path, weights: Path, shards: int, rounds: int) -> dict[str, Any]:
    """Measure the flow and the library for one number of shards.

    Call it in a new process, because Prefect reads its settings when it is imported.
    """
    os.environ |= {
        "PREFECT_HOME": str(folder / "prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
        "PREFECT_LOGGING_LEVEL": "ERROR",
    }
    os.environ.pop("PREFECT_API_URL", None)
    from benchmarks.harness import embed
    from flows.raster_embeddings import raster_embeddings
    from rasterembed.dataset.dataset import Dataset
    from rasterembed.dataset.manifest import read_manifest
    from rasterembed.dataset.selection import Selection
    from rasterembed.model.choice import Dinov3
    from rasterembed.qa.run import run_qa
    from rasterembed.raster.grid import Grid
    from rasterembed.search.index.building import build_vector_index
    from rasterembed.search.index_options import VectorIndexOptions
    from rasterembed.search.vector_files import VectorFiles
    from rasterembed.store.object_store import ObjectStore

    store, numbers = ObjectStore(root=str(folder / "store")), count()
    grid, model = Grid(size=_TILE), Dinov3(model=str(weights), device="cpu")
    selection = Selection(shard_tiles=1, min_valid_fraction=0.0)

    def library() -> None:
        manifest = embed(
            store, str(raster), dataset_id=f"library-{next(numbers)}", grid=grid, model=model, selection=selection
        )
        assert len(manifest.shards) == shards, len(manifest.shards)
        run_qa(store, manifest)
        build_vector_index(VectorFiles.of_dataset(Dataset(store, manifest)), VectorIndexOptions())

    def flow() -> None:
        name = f"flow-{next(numbers)}"
        # Vectors of a tiny random model may fail the quality checks. `return_state` keeps the flow from raising then.
        raster_embeddings(
            str(raster),
            root=store.root,
            dataset_id=name,
            grid=grid,
            dinov3=model,
            selection=selection,
            return_state=True,
        )
        manifest = read_manifest(store, name)
        assert manifest is not None
        assert len(manifest.shards) == shards, len(manifest.shards)

    cases = {"library": library, "flow": flow}
    for case in cases.values():
        case()  # This first run loads the model and starts the server.
    times = take_turns(cases, rounds)
    wall = {name: figure([t.wall for t in turns]) for name, turns in times.items()}
    return {
        "library_s": wall["library"],
        "flow_s": wall["flow"],
        "prefect_s": wall["flow"].median - wall["library"].median,
        "prefect_cpu_s": figure([t.cpu for t in times["flow"]]).median
        - figure([t.cpu for t in times["library"]]).median,
    }


def markdown(report: dict[str, Any]) -> str:
    """Return the result as a Markdown table."""
    head = ["shards", "library, s", "flow, s", "Prefect, s", "Prefect, ms a shard", "of it processor, ms"]
    rows = [
        [
            shards,
            spread(run["library_s"], 2),
            spread(run["flow_s"], 2),
            f"{run['prefect_s']:.2f}",
            f"{run['prefect_s'] / int(shards) * 1e3:.1f}",
            f"{run['prefect_cpu_s'] / int(shards) * 1e3:.1f}",
        ]
        for shards, run in report["runs"].items()
    ]
    return where(report) + table(head, rows)


if __name__ == "__main__":
    run(measure, markdown)
