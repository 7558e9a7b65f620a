"""Check that memory does not grow with the raster: compare the peaks for a whole raster and for a cut.

The cut is a part of the raster, with the same blocks, compression and overviews. Each of the two rasters is embedded in
a new process with a tiny model.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.lib.stride_tricks import sliding_window_view
from rasterio.windows import Window

from benchmarks.harness import (
    RESULTS,
    TINY,
    alone,
    default_rasters,
    load,
    make_checkpoint,
    run,
    save,
    status_mib,
    table,
    where,
)

NAME = "memory"

_THUMBNAIL = 256


def measure(
    *, raster: Path | None = None, side: int = 8000, shard_tiles: int = 512, results: Path = RESULTS
) -> dict[str, Any]:
    """Compare the peak memory for a whole raster with the peak memory for a cut.

    Args:
        raster: The whole raster. The default is cog_world.tif in the folder RASTERS or ../shared/data/rasters.
        side: Side of the cut, px. The cut is the part of the raster with most valid pixels.
        shard_tiles: Number of tiles in a shard. It is small, so that the cut has a shard for every thread.
        results: Folder for the result file.
    """
    raster = raster or default_rasters() / "cog_world.tif"
    if not raster.exists():
        raise SystemExit(f"{raster}: there is no such raster: give a large raster with --raster, or set RASTERS")
    load_before = load()
    with tempfile.TemporaryDirectory() as scratch:
        cut, weights = Path(scratch) / "cut.tif", make_checkpoint(Path(scratch) / "model", **TINY)
        _cut(raster, cut, side)
        runs = {
            "whole": alone(embed, raster, Path(scratch) / "whole", weights, shard_tiles),
            "cut": alone(embed, cut, Path(scratch) / "cut", weights, shard_tiles),
        }
    whole, part = runs["whole"], runs["cut"]
    ratios = {
        "peak": whole["peak_mib"] / part["peak_mib"],
        "above_loaded_model": (whole["peak_mib"] - whole["loaded_mib"]) / (part["peak_mib"] - part["loaded_mib"]),
        "raster_bytes": whole["raster_mib"] / part["raster_mib"],
    }
    parameters = {"raster": raster.name, "side": side, "shard_tiles": shard_tiles}
    return save(NAME, parameters, load_before, {"runs": runs, "ratios": ratios}, results)


def _cut(raster: Path, target: Path, side: int) -> None:
    """Write the part of a raster that has the most valid pixels, in the layout of the raster."""
    with rasterio.open(raster) as source:
        layout = source.tags(ns="IMAGE_STRUCTURE")
        shrink = max(1, max(source.shape) // _THUMBNAIL)
        thumbnail = source.dataset_mask(out_shape=(source.height // shrink, source.width // shrink)) > 0
        span = min(max(1, side // shrink), *thumbnail.shape)
        share = sliding_window_view(thumbnail, (span, span)).mean(axis=(2, 3))
        top, left = np.unravel_index(share.argmax(), share.shape)
        window = Window(int(left) * shrink, int(top) * shrink, side, side)
        window = window.intersection(Window(0, 0, source.width, source.height))
        profile = source.profile | {
            "driver": "COG" if layout.get("LAYOUT") == "COG" else source.driver,
            "width": window.width,
            "height": window.height,
            "transform": source.window_transform(window),
            "blocksize": source.profile["blockxsize"],
        }
        if layout.get("PREDICTOR") == "2":
            profile["predictor"] = "STANDARD" if profile["driver"] == "COG" else 2
        if profile["driver"] == "COG":
            for option in ("tiled", "blockxsize", "blockysize", "interleave"):
                profile.pop(option, None)
        pixels = source.read(window=window)
    with rasterio.open(target, "w", **profile) as cut:
        cut.write(pixels)


def embed(raster: Path, root: Path, weights: Path, shard_tiles: int) -> dict[str, float]:
    """Embed a raster in this process, and return its size and costs. Memory is in MiB."""
    from benchmarks.harness import embed
    from rasterembed.dataset.plan import PlanSettings, make_plan
    from rasterembed.dataset.selection import Selection
    from rasterembed.model.choice import Dinov3
    from rasterembed.model.embedder import load_embedder
    from rasterembed.raster.source import register
    from rasterembed.store.object_store import ObjectStore

    store, model = ObjectStore(root=str(root)), Dinov3(model=str(weights), device="cpu")
    # Embed every tile with at least one valid pixel. The model then gets almost all pixels that are read.
    selection = Selection(min_valid_fraction=0.0, shard_tiles=shard_tiles)
    plan = make_plan(store, register(store, str(raster)), "plan", PlanSettings(model=model, selection=selection))
    load_embedder(plan.model, "cpu", engine="auto", tiles=plan.sharding.tile_count)
    loaded = status_mib("VmRSS")
    begun = time.perf_counter()
    manifest = embed(store, str(raster), dataset_id="run", model=model, selection=selection)
    seconds = time.perf_counter() - begun
    profile = plan.profile
    return {
        "width": profile.width,
        "height": profile.height,
        "raster_mib": profile.width * profile.height * profile.count * np.dtype(profile.dtype).itemsize / 2**20,
        "shards": len(manifest.shards),
        "tiles": manifest.tiles,
        "rows": manifest.rows,
        "seconds": seconds,
        "loaded_mib": loaded,
        "peak_mib": status_mib("VmHWM"),
    }


def markdown(report: dict[str, Any]) -> str:
    """Return the result as a Markdown table."""
    head = ["raster", "px", "raw MiB", "tiles", "embedded", "shards", "model loaded, MiB", "peak, MiB"]
    rows = [
        [
            name,
            f"{run['width']}×{run['height']}",
            f"{run['raster_mib']:.0f}",
            f"{run['tiles']}",
            f"{run['rows']}",
            f"{run['shards']}",
            f"{run['loaded_mib']:.0f}",
            f"{run['peak_mib']:.0f}",
        ]
        for name, run in report["runs"].items()
    ]
    ratios = report["ratios"]
    rows.append(["ratio", "", f"{ratios['raster_bytes']:.1f}", "", "", "", "", f"**{ratios['peak']:.3f}**"])
    return where(report) + table(head, rows)


if __name__ == "__main__":
    run(measure, markdown)
