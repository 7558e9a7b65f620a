"""The quality checks warn of uniform rasters and of clipped pixels, and a warning does not change the state."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rasterembed.collection.members import member_id
from rasterembed.collection_pipeline import CollectionOptions, embed_collection
from rasterembed.collection_upkeep import check_collection
from rasterembed.dataset.dataset import Dataset
from rasterembed.dataset.plan import PlanSettings
from rasterembed.errors import DataError
from rasterembed.model.choice import Dinov3
from rasterembed.pipeline import EmbedOptions, EmbedResult, Steps, check_dataset, embed_raster
from rasterembed.qa.overview import page, read_all
from rasterembed.qa.report import QaError, QaReport, markdown, read_report
from rasterembed.qa.thresholds import QaThresholds
from rasterembed.raster.grid import Grid
from rasterembed.raster.radiometry import Radiometry
from rasterembed.store.layout import DatasetLayout
from rasterembed.store.object_store import ObjectStore
from tests.support.rasters import write

pytestmark = pytest.mark.usefixtures("plain_pictures")

ID = "sea"
ONE_VALUE = "all valid pixels of the raster's overview have the same value"


class Heard(Steps):
    """The steps of the library. They keep the warnings."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def on_warning(self, message: str) -> None:
        """Keep a warning."""
        self.warnings.append(message)


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return ObjectStore(root=str(tmp_path / "store"))


@pytest.fixture
def options(tiny_vit: Path) -> EmbedOptions:
    return EmbedOptions(dataset_id=ID, grid=Grid(size=64), model=Dinov3(model=str(tiny_vit), device="cpu"))


def embed(store: ObjectStore, raster: Path, options: EmbedOptions, **changes: Any) -> EmbedResult:
    return embed_raster(store, str(raster), options.model_copy(update=changes))


def stored(store: ObjectStore) -> QaReport:
    report = read_report(store, ID)
    assert report is not None
    return report


@pytest.mark.parametrize("pixels", [np.full((1, 128, 192), 7, np.uint8), np.full((3, 128, 192), 1300, np.uint16)])
def test_a_small_raster_of_one_value_is_ready_with_a_warning(
    pixels: np.ndarray[Any, Any], store: ObjectStore, options: EmbedOptions, tmp_path: Path
) -> None:
    result = embed(store, write(tmp_path / "sea.tif", pixels), options)
    assert (result.manifest.state, result.manifest.rows) == ("ready", 6)
    assert result.report is not None
    assert result.report.warnings == (ONE_VALUE, "all 6 measured vectors are nearly the same")
    line = result.report.summary()
    assert line.endswith(f"; warning: {ONE_VALUE}; warning: all 6 measured vectors are nearly the same")
    assert f"\nMetrics: {line}.\n" in markdown(result.report)
    assert stored(store).warnings == result.report.warnings
    assert "warning: all 6 measured vectors are nearly the same</td>" in page(store, read_all(store), str)


def test_a_large_raster_of_one_value_breaches_thresholds_and_the_line_names_the_reason(
    store: ObjectStore, options: EmbedOptions, tmp_path: Path
) -> None:
    raster = write(tmp_path / "sea.tif", np.full((1, 256, 256), 7, np.uint8))
    with pytest.raises(QaError, match="duplicate_share is") as refused:
        embed(store, raster, options)
    warnings = f"; warning: {ONE_VALUE}; warning: all 16 measured vectors are nearly the same"
    assert f"{warnings}; see qa/{ID}/report.md" in str(refused.value)
    names = re.findall(r"([a-z_]+) is [-0-9.]+, (more|less) than", str(refused.value))
    bounds = [f"--{'max' if more == 'more' else 'min'}-{name.replace('_', '-')} BOUND" for name, more in names]
    accept = f"`rasterembed qa {ID} {' '.join(bounds)}"
    assert len(bounds) > 1
    assert str(refused.value).endswith(
        f"; to accept the vectors as they are, check them with other bounds: {accept} --root {store.root}`"
    )
    command = rf"`rasterembed qa {ID} --root .*`"
    with pytest.raises(DataError, match=rf"; see .*/qa/{ID}/report\.md, or accept .* bounds of {command}"):
        Dataset.open(store, ID)
    assert (Dataset.open(store, ID, states=("failed_qa",)).manifest.reason or "").endswith(warnings)
    line = stored(store).summary()
    assert "breached" in line
    assert line.endswith(f"; warning: {ONE_VALUE}; warning: all 16 measured vectors are nearly the same")
    text = markdown(stored(store))
    assert "more than `--max-duplicate-share 0.9`" in text
    assert "\\`" not in text
    assert f"- To accept the vectors as they are, check them with other bounds: {accept}`\n" in text
    mild = QaThresholds(
        max_duplicate_share=1, max_mean_cosine=1, min_effective_rank=1, max_dead_dimension_share=1, min_neighbour_gap=-1
    )
    assert check_dataset(store, ID, mild).breaches == ()


def test_tiles_that_repeat_one_picture_have_equal_vectors_but_not_one_value(
    store: ObjectStore, options: EmbedOptions, tmp_path: Path
) -> None:
    picture = np.random.default_rng(1).integers(1, 255, (3, 64, 64)).astype(np.uint8)
    report = embed(store, write(tmp_path / "tiles.tif", np.tile(picture, (1, 2, 2))), options).report
    assert report is not None
    assert report.warnings == ("all 4 measured vectors are nearly the same",)


def test_smooth_ground_brings_no_warning(store: ObjectStore, options: EmbedOptions, tmp_path: Path) -> None:
    """Water and desert have little contrast, but no two tiles are alike."""
    waves = 300 + 20 * np.sin(np.arange(128) / 9)[:, None] * np.cos(np.arange(192) / 50)
    pixels = np.random.default_rng(0).normal(waves, 4, (3, 128, 192)).astype(np.uint16)
    report = embed(store, write(tmp_path / "water.tif", pixels), options).report
    assert report is not None
    assert report.warnings == ()
    assert b"warnings" not in (store.read(DatasetLayout(ID).qa_report) or b"warnings")


def test_the_share_of_clipped_pixels_is_told_before_and_after_the_run(
    store: ObjectStore, options: EmbedOptions, tmp_path: Path
) -> None:
    pixels = np.random.default_rng(0).integers(0, 8000, (1, 128, 128)).astype(np.uint16)
    raster = write(tmp_path / "r.tif", pixels, nodata=0)
    steps = Heard()
    clipping = options.model_copy(update={"radiometry": Radiometry(range=(1, 255))})
    report = embed_raster(store, str(raster), clipping, steps=steps).report
    share = f"{(pixels[pixels > 0] > 255).mean():.1%}"
    assert report is not None
    assert f"black and white clip {share} of the valid pixels of the raster's overview" in report.warnings
    (warning,) = steps.warnings
    assert f"clip {share} of the sampled valid pixels" in warning
    again = Heard()
    embed_raster(store, str(raster), clipping, steps=again)
    assert again.warnings == []  # The dataset is complete, so nothing is read again.


def test_uniform_scenes_do_not_block_a_collection_and_are_named(
    store: ObjectStore, options: EmbedOptions, tmp_path: Path
) -> None:
    scenes = tmp_path / "scenes"
    scenes.mkdir()
    noise = np.random.default_rng(2).integers(1, 255, (3, 128, 128)).astype(np.uint8)
    for name, pixels in (("land", noise), ("sea", np.full((3, 128, 128), 7, np.uint8))):
        write(scenes / f"{name}.tif", pixels)
    settings = PlanSettings(grid=options.grid, model=options.model)
    embed_collection(store, "survey", str(scenes), CollectionOptions(settings=settings, table=False))
    report = check_collection(store, "survey")
    assert (report.passed, report.counts.states) == (True, {"ready": 2})
    (note,) = report.notes
    sea = member_id("survey", str(scenes / "sea.tif"))
    assert note == f"1 scene with equal vectors was not compared with others: {sea}"


def test_the_reason_of_a_failed_scene_says_that_its_vectors_are_equal(
    store: ObjectStore, options: EmbedOptions, tmp_path: Path
) -> None:
    (tmp_path / "scenes").mkdir()
    write(tmp_path / "scenes" / "sea.tif", np.full((1, 256, 256), 7, np.uint8))
    settings = PlanSettings(grid=options.grid, model=options.model)
    result = embed_collection(
        store, "survey", str(tmp_path / "scenes"), CollectionOptions(settings=settings, table=False)
    )
    (row,) = result.collection.catalogue.rows()
    assert row.state == "failed_qa"
    assert row.reason is not None
    assert row.reason.endswith("; warning: all 16 measured vectors are nearly the same")
