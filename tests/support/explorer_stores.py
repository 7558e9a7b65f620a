"""Stores for tests of the explorer: made by the library itself, with the small demo model."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.transform import Affine

from examples.landscape import make_scene, make_second_date
from rasterembed.collection.collection import Collection
from rasterembed.collection_pipeline import CollectionOptions, embed_collection
from rasterembed.collection_upkeep import rebuild_collection
from rasterembed.dataset.dataset import Dataset
from rasterembed.dataset.embedding import Execution
from rasterembed.dataset.manifest import ALL_STATES, set_state
from rasterembed.dataset.plan import PlanSettings, make_plan
from rasterembed.dataset.shards import EmbeddedBatch, write_shard
from rasterembed.model.choice import Dinov3
from rasterembed.pipeline import EmbedOptions, check_dataset, embed_raster
from rasterembed.qa.thresholds import QaThresholds
from rasterembed.raster.grid import Grid
from rasterembed.raster.scene import register_scene
from rasterembed.search.index_options import VectorIndexOptions
from rasterembed.store.layout import CollectionLayout, DatasetLayout
from rasterembed.store.object_store import ObjectStore
from tests.support.embedding import noise_raster
from tests.support.rasters import write
from tests.support.vectors import blank_raster, checkpoint, write_dataset

_SETTINGS = PlanSettings(grid=Grid(size=112, anchor="crs"), model=Dinov3(model="demo", device="cpu"))

SCENE_SIDE = 1792
"""Width and height of the scene of `landscape` and of the first date of `survey`, px."""

DATES = ("2024-07-03", "2025-07-01", "2025-08-20")
"""Dates of the scenes of `survey`. The second and the third scene cover the middle of the first."""

CLOUDS = (2.0, 8.0, 41.0)
"""Cloud cover of the scenes of `survey`, percent."""


@dataclass(frozen=True)
class Archive:
    """A folder with a store and its rasters."""

    folder: Path

    @property
    def root(self) -> Path:
        """Folder of the store."""
        return self.folder / "store"

    @property
    def store(self) -> ObjectStore:
        """The store."""
        return ObjectStore(root=str(self.root))

    def dataset(self, dataset_id: str) -> Dataset:
        """Open a dataset in any state."""
        return Dataset.open(self.store, dataset_id, ALL_STATES)

    def collection(self, collection_id: str = "survey") -> Collection:
        """Open a collection."""
        return Collection.open(self.store, collection_id)


def write_archive(folder: Path, rasters: Path | None) -> Archive:
    """Write a store with datasets and collections in all states that the explorer has to show.

    - `survey`: a collection of three scenes on an anchored grid, with dates and clouds;
    - `landscape`: the first scene as a dataset with a vector index, a quality report and its pictures;
    - `plain`: a dataset without a vector index;
    - `polar`: a dataset around the north pole, in EPSG:3413;
    - `nowhere`: a dataset of a raster without a CRS;
    - `rejected`: a dataset that failed its quality checks;
    - `broken`: a dataset whose manifest is cut off;
    - `unfinished`: a dataset with the first of its two shards;
    - `dateline`, `degrees`: real rasters, if `rasters` is given.

    Args:
        folder: folder for the rasters and the store.
        rasters: folder of real rasters, or None.
    """
    archive = Archive(folder)
    write_survey(archive)
    _embed(archive, "landscape", folder / "scenes/scene.tif", grid=Grid(size=112), index="always", checked=True)
    small = make_scene(folder / "small", width=448, height=448, seed=11).raster
    _embed(archive, "plain", small, grid=Grid(size=64), index="never")
    _embed(archive, "polar", _polar_raster(folder / "polar"), grid=Grid(size=64))
    _embed(archive, "nowhere", write(folder / "nowhere.tif", _pixels(small)[:, :256, :256], crs=None, transform=None))
    _embed(archive, "rejected", small, grid=Grid(size=64, stride=48))
    check_dataset(archive.store, "rejected", QaThresholds(min_effective_rank=1000.0))
    _embed(archive, "broken", noise_raster(folder / "noise.tif"))
    manifest = archive.root / DatasetLayout("broken").manifest
    manifest.write_bytes(manifest.read_bytes()[:200])
    _write_unfinished(archive, small)
    if rasters is not None:
        _embed(archive, "dateline", rasters / "cog_dateline.tif", grid=Grid(size=224))
        _embed(archive, "degrees", rasters / "world.rgb.tif", grid=Grid(size=32))
    return archive


def write_survey(archive: Archive) -> Collection:
    """Write the collection `survey`: three scenes on an anchored grid. Return it."""
    scenes = archive.folder / "scenes"
    first = make_scene(scenes, width=SCENE_SIDE, height=SCENE_SIDE).raster
    second = make_second_date(first, scenes / "scene-2025.tif")
    third = _with_clouds(second, scenes / "scene-cloudy.tif")
    items = [
        {
            "type": "Feature",
            "stac_version": "1.1.0",
            "id": raster.stem,
            "geometry": None,
            "properties": {"datetime": f"{day}T10:00:00Z", "eo:cloud_cover": clouds},
            "assets": {"visual": {"href": raster.name, "roles": ["data"]}},
        }
        for raster, day, clouds in zip((first, second, third), DATES, CLOUDS, strict=True)
    ]
    listing = scenes / "items.json"
    listing.write_text(json.dumps({"type": "FeatureCollection", "features": items}))
    options = CollectionOptions(settings=_SETTINGS, execution=_execution(), qa=_LENIENT)
    return embed_collection(archive.store, "survey", str(listing), options).collection


_LENIENT = QaThresholds(min_neighbour_z=-1e9, min_neighbour_gap=-2.0, min_effective_rank=1.0)
"""Bounds that small scenes keep too."""


def _execution() -> Execution:
    return Execution(batch_size=32, lease_wait=0)


def _embed(
    archive: Archive,
    dataset_id: str,
    raster: Path,
    *,
    grid: Grid = Grid(size=32),
    index: str = "auto",
    checked: bool = False,
) -> Dataset:
    """Embed a raster. If it is not `checked`, it becomes ready without quality checks."""
    options = EmbedOptions(
        dataset_id=dataset_id,
        grid=grid,
        model=_SETTINGS.model,
        selection={"allow_no_crs": True},
        execution=_execution(),
        qa=_LENIENT,
        search=VectorIndexOptions.model_validate({"index": index}),
        quality_checks=checked,
    )
    result = embed_raster(archive.store, str(raster), options)
    manifest = result.manifest if checked else set_state(archive.store, result.manifest, "ready")
    return Dataset(archive.store, manifest)


def _pixels(raster: Path) -> Any:
    with rasterio.open(raster) as file:
        return file.read()


def _with_clouds(raster: Path, path: Path) -> Path:
    """Write a copy of a scene, with white discs as clouds and without its own time."""
    with rasterio.open(raster) as file:
        pixels, place = file.read(), {"crs": file.crs, "transform": file.transform, "nodata": 0}
    rows, cols = np.indices(pixels.shape[1:])
    random = np.random.default_rng(4)
    for row, col, radius in random.integers([0, 0, 40], [*pixels.shape[1:], 160], (12, 3)):
        pixels[:, (rows - row) ** 2 + (cols - col) ** 2 < radius**2] = 245
    return write(path, pixels, **place)


def _polar_raster(folder: Path) -> Path:
    """Write a landscape around the north pole. Its side is 4,096 km."""
    pixels = _pixels(make_scene(folder, width=512, height=512, seed=5).raster)
    side = 8000.0
    transform = Affine(side, 0, -256 * side, 0, -side, 256 * side)
    return write(folder / "polar.tif", pixels, crs="EPSG:3413", transform=transform, nodata=0)


def _write_unfinished(archive: Archive, raster: Path) -> None:
    """Write the plan and the first of two shards, as a run does that was killed."""
    store = archive.store
    settings = PlanSettings(grid=Grid(size=64), model=_SETTINGS.model, selection={"shard_tiles": 32})
    plan = make_plan(store, register_scene(store, str(raster)), "unfinished", settings)
    plan.write(store)
    count = plan.sharding.tiles(0).row.size
    vectors = np.random.default_rng(0).standard_normal((count, 192), np.float32)
    write_shard(store, plan, 0, [EmbeddedBatch(np.arange(count), np.ones(count, np.float32), vectors, ())])


HOSTILE = {
    "script": "<script>window.attacked = 1</script>",
    "image": '"><img src=x onerror="window.attacked = 1">',
    "svg": "<svg onload=window.attacked=1>",
    "markdown": "[click](javascript:window.attacked=1) **bold** `code`",
    "control": "a\u0007b\u001b[31mred\u0000\u009b",
    "direction": "gpj.\u202egnp\u2066\u200f",
    "template": "${window.attacked=1}{{7*7}}",
}
"""Texts that do harm if a page, a terminal or a Markdown renderer takes them for more than text."""


def write_hostile_store(folder: Path) -> Archive:
    """Write a store whose file names, tags, Items and documents hold the texts of `HOSTILE`.

    - `named`: a dataset whose raster's name, tags and checkpoint are hostile;
    - `hostile`: a collection of scenes with hostile ids, whose document has a hostile title, description and fields.
    """
    archive = Archive(folder)
    model = Dinov3(model=str(checkpoint(folder / "<b>model<b> & [x](y)", 8)))
    vectors = np.random.default_rng(6).standard_normal((16, 8)).astype(np.float32)
    for name, text in (("named", HOSTILE["image"]), ("named-2", HOSTILE["direction"] + HOSTILE["markdown"])):
        raster = blank_raster(folder / f"{text}.tif", 4, 4, when="2026:01:02 10:00:00")
        with rasterio.open(raster, "r+") as file:
            file.update_tags(TIFFTAG_IMAGEDESCRIPTION=HOSTILE["script"], TIFFTAG_SOFTWARE=HOSTILE["svg"])
        write_dataset(archive.store, name, raster, model, vectors)
    for number, text in enumerate(HOSTILE.values()):
        raster = blank_raster(folder / f"scene-{number}.tif", 4, 4, when="2026:01:02 10:00:00")
        item = {
            "type": "Feature",
            "stac_version": "1.1.0",
            "id": text,
            "properties": {"datetime": "2026-01-02T10:00:00Z", "eo:cloud_cover": 3, "title": text, "platform": text},
            "assets": {"visual": {"href": raster.name, "title": text}},
        }
        document = folder / f"item-{number}.json"
        document.write_text(json.dumps(item))
        write_dataset(archive.store, f"scene-{number}", document, model, vectors)
    rebuild_collection(archive.store, "hostile", datasets=["scene-*"])
    file = archive.root / CollectionLayout("hostile").stac_collection
    changed = json.loads(file.read_text()) | {
        "title": HOSTILE["script"],
        "description": HOSTILE["image"],
        "keywords": list(HOSTILE.values()),
    }
    file.write_text(json.dumps(changed))
    return archive
