"""The readers that get damaged files: of rasters, of a dataset, of a checkpoint, of an area and of a collection."""

from __future__ import annotations

import importlib
import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np
import shapely

from rasterembed.dataset.embedding import EmbeddingJob, Execution, _shard_reader, embed_shard
from rasterembed.dataset.manifest import read_manifest
from rasterembed.dataset.plan import Plan, PlanSettings, make_plan
from rasterembed.dataset.selection import Selection
from rasterembed.dataset.shards import read_receipt
from rasterembed.model.choice import Dinov3
from rasterembed.pipeline import EmbedOptions, embed_raster
from rasterembed.qa.run import judge_dataset
from rasterembed.raster.grid import Grid
from rasterembed.raster.profile import inspect_raster
from rasterembed.raster.source import register
from rasterembed.search.areas import read_polygons
from rasterembed.store.object_store import ObjectStore
from tests.fuzz.child import Outcome, run_limited
from tests.fuzz.collection_targets import collection_targets
from tests.fuzz.mutations import damage_bytes, damage_json
from tests.fuzz.samples import write_area, write_checkpoint, write_rasters
from tests.fuzz.target import Target

EMBEDDED_SHARE = 0.25
"""Share of the damaged rasters that are embedded. The others are read only, which takes less time."""

_SHARDS = 3
"""Most shards of a raster that are read. A damaged header may declare a large raster that is legitimate."""

_PRELOADED = (
    "pandas",
    "pyarrow.pandas_compat",
    "rasterembed.model.embedder",
    "transformers.models.dinov3_vit.modeling_dinov3_vit",
)
"""Modules that are imported once, before the forks, because they take longer than most cases."""


def make_targets(folder: Path, *, with_collection: bool = True) -> list[Target]:
    """Write the sound files below a folder, and return a target for each.

    Args:
        folder: an empty folder.
        with_collection: whether the files of a collection are among them, at the end.
    """
    checkpoint = write_checkpoint(folder / "checkpoint")
    for module in _PRELOADED:
        importlib.import_module(module)
    (folder / "rasters").mkdir()
    rasters = write_rasters(folder / "rasters")
    settings = PlanSettings(
        grid=Grid(size=32),
        model=Dinov3(model=str(checkpoint), device="cpu"),
        selection=Selection(allow_no_crs=True, shard_tiles=64),
    )

    def read_raster(name: str) -> Callable[[bytes, Path, Random], Outcome]:
        def read(data: bytes, place: Path, random: Random) -> Outcome:
            path = place / name
            path.write_bytes(data)
            return _read_raster(path, settings, embed=random.random() < EMBEDDED_SHARE)

        return read

    targets = [
        Target("raster", form, path.read_bytes(), damage_bytes, read_raster(path.name))
        for form, path in rasters.items()
    ]
    return [
        *targets,
        *_dataset_targets(folder, rasters["GTiff, mask"], settings),
        _checkpoint_target(checkpoint),
        Target("area", "GeoJSON", write_area(folder / "area.json").read_bytes(), damage_json, _read_area),
        *(collection_targets(folder) if with_collection else []),
    ]


def _read_raster(path: Path, settings: PlanSettings, *, embed: bool) -> Outcome:
    store = ObjectStore(root=str(path.parent / "store"))
    source = register(store, str(path))
    profile = inspect_raster(store, source.uri, allow_no_crs=True)
    plan = make_plan(store, source, "fuzzed", settings, profile=profile)
    job = EmbeddingJob(execution=Execution(engine="eager", batch_size=16, shard_threads=1))
    for number in range(min(plan.sharding.count, _SHARDS)):
        if embed:
            embed_shard(store, plan, number, job)
        else:
            for _ in _shard_reader(store, plan, job).batches(number):
                pass
    return Outcome.EMBEDDED if embed else Outcome.READ


def _dataset_targets(folder: Path, raster: Path, settings: PlanSettings) -> list[Target]:
    store = ObjectStore(root=str(folder / "store"))
    options = EmbedOptions(**dict(settings), dataset_id="scene", quality_checks=False)

    def embed() -> Outcome:
        embed_raster(store, str(raster), options)
        return Outcome.EMBEDDED

    # In a child, because embedding starts threads. A later fork of this process would lack them and wait for ever.
    ending = run_limited(embed)
    manifest = read_manifest(store, "scene")
    assert manifest is not None, ending
    shard, plan = manifest.shards[0].path, f"datasets/scene/plan-{manifest.fingerprint[:12]}.json"

    def with_copy(key: str) -> Callable[[bytes, Path, Random], Outcome]:
        def read(data: bytes, place: Path, random: Random) -> Outcome:
            copy = ObjectStore(root=str(shutil.copytree(store.root, place / "store")))
            copy.write(key, data)
            found = read_manifest(copy, "scene")
            assert found is not None
            Plan.read(copy, "scene", manifest.fingerprint)
            with Path(copy.uri(shard)).open("rb") as file:
                read_receipt(file)
            judge_dataset(copy, found)
            return Outcome.READ

        return read

    return [
        Target("dataset", name, (Path(store.root) / key).read_bytes(), damage, with_copy(key))
        for name, key, damage in (
            ("manifest", "datasets/scene/manifest.json", damage_json),
            ("plan", plan, damage_json),
            ("shard and receipt", shard, damage_bytes),
            ("tile index", manifest.index, damage_bytes),
        )
    ]


def _checkpoint_target(checkpoint: Path) -> Target:
    def read(data: bytes, place: Path, random: Random) -> Outcome:
        from rasterembed.model.choice import resolve_model
        from rasterembed.model.embedder import Embedder

        copy = Path(shutil.copytree(checkpoint, place / "checkpoint"))
        (copy / "config.json").write_bytes(data)
        Embedder(resolve_model(Dinov3(model=str(copy), device="cpu"), 32), "cpu", engine="eager")
        return Outcome.READ

    return Target("checkpoint", "config.json", (checkpoint / "config.json").read_bytes(), damage_json, read)


def _read_area(data: bytes, place: Path, _: Random) -> Outcome:
    path = place / "area.json"
    path.write_bytes(data)
    read_polygons(path).meets(np.array([shapely.box(24, 60, 25, 61)]))
    return Outcome.READ
