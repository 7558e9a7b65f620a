"""Scenes become a collection: only what is new or changed is embedded, and a kill changes nothing in the result."""

from __future__ import annotations

import json
import os
import pickle
import re
import time
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pystac
import pytest
import rasterio

from rasterembed.collection import doubtful_stretches
from rasterembed.collection.collection import Collection
from rasterembed.collection.configuration import resolve_configuration
from rasterembed.collection.found_scene import Listing
from rasterembed.collection.members import member_id
from rasterembed.collection.scene_row import SceneRow, SceneState
from rasterembed.collection.stac_search import StacSearch
from rasterembed.collection_pipeline import (
    CollectionOptions,
    CollectionResult,
    CollectionSteps,
    TooManyFailedError,
    embed_collection,
)
from rasterembed.collection_upkeep import rebuild_collection, remove_from_collection
from rasterembed.commands.collection_embed_summary import summary
from rasterembed.dataset.dataset import Dataset
from rasterembed.dataset.deletion import delete_dataset
from rasterembed.dataset.manifest import ALL_STATES
from rasterembed.dataset.plan import PlanSettings
from rasterembed.dataset.selection import Selection
from rasterembed.dataset.vector_summary import summarise_shard
from rasterembed.errors import (
    ConfigurationChangedError,
    DataError,
    LeaseHeldError,
    StoreError,
    StoreUnavailableError,
    UsageError,
)
from rasterembed.model import embedder
from rasterembed.model.choice import Dinov3
from rasterembed.pipeline import EmbedOptions, check_dataset, embed_raster
from rasterembed.qa.metrics import Status
from rasterembed.qa.run import judge_dataset
from rasterembed.qa.thresholds import QaThresholds
from rasterembed.qa.verdict import judge_vectors
from rasterembed.raster.grid import Grid
from rasterembed.raster.radiometry import Radiometry
from rasterembed.raster.validity import Validity
from rasterembed.search.query import Query
from rasterembed.store.dataset_owner import collection_of
from rasterembed.store.known_collections import list_collections
from rasterembed.store.layout import CollectionLayout, DatasetLayout
from rasterembed.store.lease import hold_lease
from rasterembed.store.object_store import ObjectStore
from tests.support.rasters import write
from tests.support.runs import exit_code_of, files, kill, kill_after, on_change
from tests.support.scenes import collection_options, write_bands, write_scene
from tests.support.stac_schemas import check, check_geoparquet_footer

NAME = "survey"
LAYOUT = CollectionLayout(NAME)


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return ObjectStore(root=str(tmp_path / "store"))


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    for number, name in enumerate(("a.tif", "b.tif", "deeper/c.tif")):
        write_scene(tmp_path / "scenes" / name, number)
    return tmp_path / "scenes"


class Recorder(CollectionSteps):
    """Steps that keep what they are told."""

    def __init__(self) -> None:
        self.rows: list[SceneRow] = []
        self.warnings: list[str] = []

    def on_scene(self, row: SceneRow) -> None:
        self.rows.append(row)

    def on_warning(self, message: str) -> None:
        self.warnings.append(message)

    @property
    def names(self) -> dict[str, SceneState]:
        return {Path(row.source).name: row.state for row in self.rows}


def run(store: ObjectStore, scenes: Path, options: CollectionOptions) -> tuple[CollectionResult, dict[str, SceneState]]:
    steps = Recorder()
    return embed_collection(store, NAME, str(scenes), options, steps=steps), steps.names


def states(result: CollectionResult) -> dict[str, str]:
    return {Path(row.source).name: row.state.value for row in result.collection.catalogue.rows()}


def outputs(store: ObjectStore) -> dict[str, tuple[str, int]]:
    return {name: state for name, state in files(Path(store.root)).items() if "/lease/" not in name}


def test_a_search_that_ended_early_gives_a_warning_and_no_scene_is_gone(
    store: ObjectStore, scenes: Path, tiny_vit: Path
) -> None:
    class EndsEarly(Recorder):
        def discover(self, *arguments: Any) -> Listing:
            return replace(super().discover(*arguments), ended_early=True)

    options = collection_options(tiny_vit).model_copy(update={"table": False, "quality_checks": False})
    run(store, scenes, options)
    (scenes / "a.tif").unlink()
    steps = EndsEarly()
    result = embed_collection(store, NAME, str(scenes), options, steps=steps)
    assert result.comparison.gone == ()
    (said,) = steps.warnings
    assert "the search was ended there: scenes may be missing, so no scene is called gone" in said
    assert run(store, scenes, options)[0].comparison.gone == (member_id(NAME, str(scenes / "a.tif")),)


def warnings_with(
    radiometry: Radiometry, store: ObjectStore, scenes: Path, model: Path, collection: str = NAME
) -> list[str]:
    """Embed scenes with this radiometry, and return the warnings of the run."""
    options, steps = collection_options(model), Recorder()
    assert options.settings is not None
    settings = options.settings.model_copy(update={"radiometry": radiometry})
    options = options.model_copy(update={"settings": settings, "table": False})
    embed_collection(store, collection, str(scenes), options, steps=steps)
    return steps.warnings


@pytest.mark.parametrize(
    ("radiometry", "differ"),
    [
        (Radiometry(), True),
        (Radiometry(percentile=(0, 100)), True),
        (Radiometry(range=(0, 3000)), False),
        (Radiometry(scale="landsat-c2-l2"), False),
    ],
)
def test_scenes_with_different_black_and_white_give_one_warning(
    radiometry: Radiometry, differ: bool, store: ObjectStore, tmp_path: Path, tiny_vit: Path
) -> None:
    ends = radiometry.percentile or (2, 98)
    colours = []
    (tmp_path / "scenes").mkdir()
    for number in range(3):
        pixels = np.random.default_rng(number).integers(100, 1000 * (number + 1), (3, 64, 64)).astype(np.uint16)
        path = write(tmp_path / f"scenes/{number}.tif", pixels, photometric="rgb")
        low, high = np.percentile(pixels, ends, axis=(1, 2))
        numbers = (",".join(f"{value:g}" for value in values) for values in (low, high))
        colours.append("{} has bands 1,2,3, black {}, white {}".format(path, *numbers))
    warnings = warnings_with(radiometry, store, tmp_path / "scenes", tiny_vit)
    # The preset of Landsat clips all pixels of these scenes, which is another warning.
    warnings = [warning for warning in warnings if warning.startswith("the scenes have different")]
    assert len(warnings) == differ
    if differ:
        assert sum(text in warnings[0] for text in colours) == 2
        assert "embed a new collection with the `range` of values" in warnings[0]


def test_scenes_with_different_bands_and_the_same_range_give_a_warning_about_the_bands(
    store: ObjectStore, tmp_path: Path, tiny_vit: Path
) -> None:
    (tmp_path / "scenes").mkdir()
    for name, bands in (("a.tif", 1), ("b.tif", 3)):
        pixels = np.random.default_rng(bands).integers(1, 255, (bands, 64, 64)).astype(np.uint8)
        write(tmp_path / "scenes" / name, pixels, photometric="rgb" if bands == 3 else "minisblack")
    warnings = warnings_with(Radiometry(range=(0, 255)), store, tmp_path / "scenes", tiny_vit)
    (warning,) = (warning for warning in warnings if warning.startswith("the scenes have different"))
    assert warning.startswith("the scenes have different bands as colours, so ")
    assert "bands 1,1,1, black 0,0,0, white 255,255,255" in warning
    assert "bands 1,2,3, black 0,0,0, white 255,255,255" in warning
    assert warning.endswith("embed a new collection with `bands`, or leave out the scenes without these bands")


def test_a_search_box_with_west_above_east_is_told_before_the_search(store: ObjectStore, tiny_vit: Path) -> None:
    steps = Recorder()
    for bbox in ((25, 60, 24, 61), (25, 60, 0, 24, 61, 100), (24, 60, 25, 61)):
        options = collection_options(tiny_vit, search=StacSearch(bbox=bbox))
        with pytest.raises(StoreError, match="not one of those that may be read"):
            embed_collection(store, NAME, "https://stac.example.org/v1", options, steps=steps)
    note = (
        "`search`: the box crosses the antimeridian, because west (25) is above east (24): it covers 359 degrees of "
        "longitude; did you mean the box 24 60 25 61?"
    )
    assert steps.warnings == [note, note]


def test_black_and_white_that_do_not_fit_the_scenes_give_one_warning_and_their_number(
    store: ObjectStore, scenes: Path, tiny_vit: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def warnings(name: str, radiometry: Radiometry) -> list[str]:
        return warnings_with(radiometry, store, scenes, tiny_vit, name)

    assert warnings("right", Radiometry(range=(0, 255))) == []
    (scenes / "damaged.tif").write_text("damaged")
    first, number = warnings("bright", Radiometry(range=(5000, 9000)))
    assert "white 9000,9000,9000 (range) clip 100.0% of the sampled valid pixels" in first
    assert number == "black and white clip nearly all valid pixels in 3 of the 3 scenes that were checked"
    monkeypatch.setattr(doubtful_stretches, "CHECKED_SCENES", 2)
    first, number = warnings("wide", Radiometry(range=(0, 1_000_000)))
    assert "leave nearly one colour" in first
    assert number == "black and white leave nearly one colour in 2 of the 2 scenes that were checked"


def test_scenes_are_embedded_once_with_one_model(
    store: ObjectStore, scenes: Path, tiny_vit: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[Any] = []
    monkeypatch.setattr(embedder, "_loaded", {})
    original = embedder.Embedder.__init__
    monkeypatch.setattr(embedder.Embedder, "__init__", lambda *args: (loaded.append(args), original(*args))[1])
    options = collection_options(tiny_vit)
    result, embedded = run(store, scenes, options)
    assert embedded == dict.fromkeys(("a.tif", "b.tif", "c.tif"), SceneState.EMBEDDED)
    assert len(loaded) == 1
    assert [row.rows for row in result.collection.catalogue.rows()] == [4, 4, 4]
    before = outputs(store)
    for again in (options, options.model_copy(update={"settings": None})):
        for folder in ("", "qa", "table"):  # A killed run leaves unfinished files.
            unfinished = Path(store.root) / "collections" / NAME / folder / "0.part"
            unfinished.parent.mkdir(exist_ok=True)
            unfinished.touch()
        result, embedded = run(store, scenes, again)
        assert embedded == {}
        assert len(result.comparison.unchanged) == 3
        assert outputs(store) == before


def test_the_vectors_equal_those_of_each_scene_alone(store: ObjectStore, scenes: Path, tiny_vit: Path) -> None:
    options = collection_options(tiny_vit)
    result, _ = run(store, scenes, options)
    assert options.settings is not None
    alone = embed_raster(
        store,
        scenes / "b.tif",
        EmbedOptions(**dict(options.settings), execution=options.execution, quality_checks=False),
    )
    member = Dataset.open(store, member_id(NAME, str(scenes / "b.tif")), ALL_STATES)
    np.testing.assert_array_equal(member.vectors(), Dataset(store, alone.manifest).vectors())
    # The numbers of mean and deviation are the checkpoint's own. The fingerprint is therefore the same too.
    assert member.manifest.fingerprint == alone.manifest.fingerprint
    assert collection_of(member.id) == NAME
    assert collection_of(alone.manifest.dataset_id) is None
    assert result.collection.catalogue.count == 3


def test_a_run_with_nothing_to_do_tells_that_a_dataset_is_lost(
    store: ObjectStore, scenes: Path, tiny_vit: Path
) -> None:
    steps = Recorder()

    def again() -> CollectionResult:
        return embed_collection(store, NAME, str(scenes), collection_options(tiny_vit), steps=steps)

    assert (again().lost, steps.warnings) == ((), [])
    assert (again().lost, steps.warnings) == ((), [])
    lost = member_id(NAME, str(scenes / "b.tif"))
    (Path(store.root) / DatasetLayout(lost).manifest).unlink()
    result = again()
    assert result.lost == (lost,)
    assert result.comparison.to_embed_count == 0
    assert steps.warnings == [
        f"the dataset of 1 scene is missing ({lost!r}): `rasterembed collection verify {NAME}` says what to do"
    ]
    note, *_ = summary(result, None).splitlines()
    assert note == "note: no scene is new or changed, so nothing was computed"
    # The advice of `verify` brings the dataset back.
    (damage,) = result.collection.verify()
    assert damage.key == DatasetLayout(lost).manifest
    assert f"rasterembed collection remove-scene {NAME} {lost}" in damage.remedy
    remove_from_collection(result.collection, lost)
    del steps.warnings[:]
    assert again().comparison.to_embed_count == 1
    assert (again().lost, steps.warnings) == ((), [])
    assert Collection.open(store, NAME).verify() == ()


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_new_changed_gone_and_damaged_scenes_are_recorded(store: ObjectStore, scenes: Path, tiny_vit: Path) -> None:
    options = collection_options(tiny_vit)
    first, _ = run(store, scenes, options)
    unchanged = first.collection.catalogue.table.filter([True, False, False])
    write_scene(scenes / "b.tif", 7)
    (scenes / "deeper/c.tif").unlink()
    (scenes / "empty.tif").write_bytes(b"")
    (scenes / "text.tif").write_text("a photograph of a cat")
    write_scene(scenes / "nowhere.tif", crs=None)
    write_scene(scenes / "zone.tif", 3, crs="EPSG:32636")
    result, embedded = run(store, scenes, options)
    failed, fine = SceneState.FAILED, SceneState.EMBEDDED
    assert embedded == {
        "b.tif": fine, "empty.tif": failed, "text.tif": failed, "nowhere.tif": failed, "zone.tif": fine
    }  # fmt: skip
    assert {Path(row.source).name for row in result.collection.catalogue.rows() if row.gone} == {"c.tif"}
    reasons = {Path(row.source).name: row.reason or "" for row in result.failed}
    assert "the file is empty" in reasons["empty.tif"]
    assert "not a raster that can be read here" in reasons["text.tif"]
    assert "it has no CRS" in reasons["nowhere.tif"]
    assert result.collection.catalogue.table.slice(0, 0).schema == unchanged.schema
    # Only the failed scenes are tried again, and one of them is mended now.
    write_scene(scenes / "empty.tif", 5)
    result, embedded = run(store, scenes, options)
    assert embedded == {"empty.tif": fine, "text.tif": failed, "nowhere.tif": failed}
    # A scene that comes back is not embedded again, if it is the same file.
    assert len(result.collection.catalogue.filter(states=[fine]).table) == 5


def test_a_scene_that_comes_back_unchanged_is_not_embedded_again(
    store: ObjectStore, scenes: Path, tiny_vit: Path
) -> None:
    options = collection_options(tiny_vit)
    run(store, scenes, options)
    before = outputs(store)
    (scenes / "a.tif").rename(scenes / "a.away")
    result, _ = run(store, scenes, options)
    assert result.comparison.gone == (member_id(NAME, str(scenes / "a.tif")),)
    (scenes / "a.away").rename(scenes / "a.tif")
    result, embedded = run(store, scenes, options)
    assert embedded == {}
    assert not any(row.gone for row in result.collection.catalogue.rows())
    assert {name: state[0] for name, state in outputs(store).items()} == {
        name: state[0] for name, state in before.items()
    }


def test_items_with_a_file_a_band_give_the_vectors_of_the_stacked_scene(
    store: ObjectStore, scenes: Path, tiny_vit: Path
) -> None:
    def item(name: str, cover: float) -> dict[str, Any]:
        files = write_bands(scenes / f"{name}.tif")
        assets = {
            colour: {"href": file.name, "roles": ["data"], "bands": [{"eo:common_name": colour}]}
            for colour, file in files.items()
        }
        properties = {"datetime": "2026-06-21T09:30:15Z", "eo:cloud_cover": cover}
        return {"type": "Feature", "id": name, "geometry": None, "properties": properties, "assets": assets}

    document = scenes / "items.json"
    items = [item("a", 5.0), item("b", 50.0)]
    document.write_text(json.dumps({"type": "FeatureCollection", "features": items}))
    options = collection_options(tiny_vit)
    result, embedded = run(store, document, options)
    assert embedded == {"a-red.tif": SceneState.EMBEDDED, "b-red.tif": SceneState.EMBEDDED}
    rows = {row.item: row for row in result.collection.catalogue.rows()}
    assert {name: row.cloud_cover for name, row in rows.items()} == {"a": 5.0, "b": 50.0}
    assert {row.datetime for row in rows.values()} == {datetime(2026, 6, 21, 9, 30, 15, tzinfo=UTC)}
    settings = dict(options.settings or {})
    for name in ("a", "b"):
        stacked = EmbedOptions(**settings, execution=options.execution, quality_checks=False)
        alone = embed_raster(store, scenes / f"{name}.tif", stacked)
        member = Dataset.open(store, rows[name].id, ALL_STATES)
        np.testing.assert_allclose(member.vectors(), Dataset(store, alone.manifest).vectors(), rtol=1e-4)
    assert run(store, document, options)[1] == {}
    # Another item in the document changes no other scene. A changed file changes its own scene only.
    document.write_text(json.dumps({"type": "FeatureCollection", "features": [*items, {"type": "Feature"}]}))
    write_scene(scenes / "b.tif", 8)
    write_bands(scenes / "b.tif")
    result, embedded = run(store, document, options)
    assert embedded == {"b-red.tif": SceneState.EMBEDDED, "items.json#None": SceneState.FAILED}
    # The manifests know the Items too.
    before = list(result.collection.catalogue.rows())
    rebuilt = rebuild_collection(store, NAME).catalogue
    assert [replace(row, listing=str(document)) for row in rebuilt.rows()] == before


def _catalog(scenes: Path) -> Path:
    """Write two Items, each with the assets `visual`, `a` and `b`, and a document of both."""
    features = []
    for name in ("one", "two"):
        assets = {}
        for number, asset in enumerate(("visual", "a", "b")):
            write_scene(scenes / f"{name}-{asset}.tif", number)
            assets[asset] = {"href": f"{name}-{asset}.tif", "roles": ["data"]}
        features.append({"type": "Feature", "id": name, "geometry": None, "properties": {}, "assets": assets})
    document = scenes / "items.json"
    document.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return document


def test_a_later_run_takes_the_assets_of_the_first(store: ObjectStore, tmp_path: Path, tiny_vit: Path) -> None:
    document = _catalog(tmp_path / "scenes")
    first, _ = run(store, document, collection_options(tiny_vit, assets=("a",)))
    assert {Path(row.source).name for row in first.collection.catalogue.rows()} == {"one-a.tif", "two-a.tif"}
    again, embedded = run(store, document, CollectionOptions(quality_checks=False, table=False))
    assert embedded == {}
    assert len(again.comparison.unchanged) == 2
    # A run may name others. They do not change what the collection remembers, nor what it is.
    other, _ = run(store, document, collection_options(tiny_vit, assets=("b",)))
    assert other.collection.configuration == first.collection.configuration
    settings = collection_options(tiny_vit).settings
    assert settings is not None
    assert first.collection.configuration.fingerprint == resolve_configuration(settings).fingerprint


def test_assets_with_a_typo_delete_nothing_and_replace_those_of_a_collection_without_vectors(
    store: ObjectStore, tmp_path: Path, tiny_vit: Path
) -> None:
    document = _catalog(tmp_path / "scenes")
    wrong = collection_options(tiny_vit, assets=("aa",), prune=True, max_failed_fraction=1.0)
    failed, _ = run(store, document, wrong)
    assert failed.collection.catalogue.counts() == {SceneState.FAILED: 2}
    right, _ = run(store, document, collection_options(tiny_vit, assets=("a",), prune=True))
    assert right.collection.catalogue.counts() == {SceneState.EMBEDDED: 2}
    assert right.collection.configuration.assets == ("a",)
    datasets = {name: state for name, state in outputs(store).items() if name.startswith(("datasets/", "embeddings/"))}

    again, _ = run(store, document, wrong)
    assert (again.pruned, again.comparison.gone) == ((), ())
    assert again.collection.catalogue.counts() == {SceneState.EMBEDDED: 2, SceneState.FAILED: 2}
    now = {name: state for name, state in outputs(store).items() if name.startswith(("datasets/", "embeddings/"))}
    assert now == datasets
    mended, _ = run(store, document, CollectionOptions(quality_checks=False, table=False, prune=True))
    assert mended.collection.catalogue.counts() == {SceneState.EMBEDDED: 2}


def test_the_assets_of_items_in_a_list_are_chosen(store: ObjectStore, scenes: Path, tiny_vit: Path) -> None:
    assets = {name: {"href": f"{name}.tif", "roles": ["data"]} for name in ("visual", "a", "b")}
    item = {"type": "Feature", "id": "one", "geometry": None, "properties": {}, "assets": assets}
    (scenes / "item.json").write_text(json.dumps(item))
    (scenes / "list.txt").write_text("item.json\na.tif\n")
    result, _ = run(store, scenes / "list.txt", collection_options(tiny_vit, assets=("b",)))
    read = {
        Dataset.open(store, row.id, ALL_STATES).plan.source.files[0].uri for row in result.collection.catalogue.rows()
    }
    assert read == {str(scenes / "a.tif"), str(scenes / "b.tif")}


def test_gone_scenes_are_deleted_only_when_asked(store: ObjectStore, scenes: Path, tiny_vit: Path) -> None:
    options = collection_options(tiny_vit)
    (scenes / "bad.tif").write_text("bad")
    run(store, scenes, options)
    for name in ("a.tif", "bad.tif"):
        (scenes / name).unlink()
    member = member_id(NAME, str(scenes / "a.tif"))
    run(store, scenes, options)
    assert Dataset.open(store, member, ALL_STATES).manifest.rows == 4
    result, _ = run(store, scenes, options.model_copy(update={"prune": True}))
    assert set(result.pruned) == {member, member_id(NAME, str(scenes / "bad.tif"))}
    assert states(result) == {"b.tif": "embedded", "c.tif": "embedded"}
    with pytest.raises(UsageError, match="there is no dataset"):
        Dataset.open(store, member)


@pytest.mark.parametrize("how", ["{}/a.tif", "{}/[ab].tif", "{}/list.txt"])
def test_a_scene_that_another_run_named_is_gone_for_its_folder_when_its_file_is(
    how: str, store: ObjectStore, scenes: Path, tiny_vit: Path
) -> None:
    (scenes / "list.txt").write_text("a.tif\n")
    options = collection_options(tiny_vit)
    run(store, scenes, options)
    embed_collection(store, NAME, how.format(scenes), options)
    (scenes / "a.tif").rename(scenes / ".a.tif")
    assert [
        row.source
        for row in embed_collection(store, NAME, str(scenes), options).collection.catalogue.rows()
        if row.gone
    ] == [f"{scenes}/a.tif"]
    pruned = embed_collection(store, NAME, str(scenes), options.model_copy(update={"prune": True}))
    assert len(pruned.pruned) == 1
    assert f"{scenes}/a.tif" not in pruned.collection.catalogue.table["source"].to_pylist()


def test_too_many_failed_scenes_fail_the_run_after_the_others_are_embedded(
    store: ObjectStore, scenes: Path, tiny_vit: Path
) -> None:
    (scenes / "bad.tif").write_text("bad")
    counted = r"collection 'survey': 1 of 4 scenes failed, more than `max_failed_fraction`.*; failed: .*bad\.tif: "
    with pytest.raises(TooManyFailedError, match=counted) as error:
        run(store, scenes, collection_options(tiny_vit, max_failed_fraction=0.2))
    assert str(pickle.loads(pickle.dumps(error.value))) == str(error.value)  # Prefect stores errors in this way.
    collection = Collection.open(store, NAME)
    assert collection.state == "ready"
    assert collection.catalogue.counts() == {SceneState.EMBEDDED: 3, SceneState.FAILED: 1}
    assert repr(collection) == "Collection 'survey': ready, 4 scenes, 12 rows"
    (dataset, *_) = collection.datasets([SceneState.EMBEDDED])
    assert str(dataset) == f"Dataset {dataset.id!r}: embedded, 4 rows"


def _strict(tiny_vit: Path) -> CollectionOptions:
    return collection_options(tiny_vit, quality_checks=True, qa=QaThresholds(min_rows=2, max_norm_ratio=1.0))


def test_a_scene_that_fails_its_quality_checks_is_recorded_and_not_tried_again(
    store: ObjectStore, tmp_path: Path, tiny_vit: Path
) -> None:
    scenes = tmp_path / "scenes"
    write_scene(scenes / "a.tif")
    options = _strict(tiny_vit)
    result, _ = run(store, scenes, options)
    (row,) = result.collection.catalogue.rows()
    assert (row.state, row.qa, row.rows) == ("failed_qa", "failed", 4)
    norms = np.linalg.norm(Dataset.open(store, row.id, ALL_STATES).vectors(), axis=1)
    reason = re.fullmatch(r"norm_ratio is (\S+), more than `max_norm_ratio=1`", row.reason or "")
    assert reason is not None
    assert float(reason[1]) == pytest.approx(norms.max() / norms.min(), rel=1e-5)
    assert float(reason[1]) > 1, "a text must not say that 1 is more than 1"
    assert list(result.collection.vectors()) == []
    assert run(store, scenes, options)[1] == {}
    assert [replace(each, listing=row.listing) for each in rebuild_collection(store, NAME).catalogue.rows()] == [row]


def test_pruning_deletes_the_unfinished_dataset_of_a_scene_that_failed(
    store: ObjectStore, tmp_path: Path, tiny_vit: Path
) -> None:
    scenes = tmp_path / "scenes"
    write_scene(scenes / "a.tif")
    pixels = np.random.default_rng(1).integers(1, 256, (3, 64, 64), dtype=np.uint8)
    damaged = write(scenes / "damaged.tif", pixels, compress="deflate", photometric="rgb")
    # The header is whole, so that the scene is planned before its pixels fail.
    content = damaged.read_bytes()
    with rasterio.open(damaged) as source:
        offset = int(source.get_tag_item("BLOCK_OFFSET_0_0", "TIFF", bidx=1))
    damaged.write_bytes(content[:offset] + bytes(len(content) - offset))
    options = collection_options(tiny_vit, max_failed_fraction=1.0)
    result, _ = run(store, scenes, options)
    member = member_id(NAME, str(damaged))
    assert result.collection.catalogue.state_of(member) is SceneState.FAILED
    assert any(member in name for name in outputs(store)), "the dataset was begun"
    damaged.unlink()
    pruned, _ = run(store, scenes, options.model_copy(update={"prune": True}))
    assert pruned.pruned == (member,)
    assert not [name for name in outputs(store) if member in name]


@pytest.mark.usefixtures("plain_pictures")
def test_a_run_with_other_bounds_judges_the_scenes_that_did_not_pass(
    store: ObjectStore, tmp_path: Path, tiny_vit: Path
) -> None:
    scenes = tmp_path / "scenes"
    for number, name in enumerate(("a.tif", "b.tif", "c.tif")):
        write_scene(scenes / name, number)
    strict = run(store, scenes, _strict(tiny_vit))[0].collection
    assert strict.catalogue.counts() == {SceneState.FAILED_QA: 3}
    # The full checks of a scene are not repeated by a run, so their verdict stays.
    checked = member_id(NAME, str(scenes / "c.tif"))
    check_dataset(store, checked, QaThresholds(min_rows=2, max_norm_ratio=1.0))

    loose = collection_options(tiny_vit, quality_checks=True, qa=QaThresholds(min_rows=2, max_norm_ratio=1000.0))
    shards = {name: state for name, state in outputs(store).items() if name.startswith("embeddings/")}
    result, judged = run(store, scenes, loose)
    assert judged == {"a.tif": SceneState.READY, "b.tif": SceneState.READY}
    # Nothing is computed again.
    assert {name: state for name, state in outputs(store).items() if name.startswith("embeddings/")} == shards
    assert [Path(scene.uri).name for scene in result.comparison.again] == ["a.tif", "b.tif"]
    states = {Path(row.source).name: row.state for row in result.collection.catalogue.rows()}
    assert states == {"a.tif": SceneState.READY, "b.tif": SceneState.READY, "c.tif": SceneState.FAILED_QA}
    assert result.collection.table is not None
    assert result.collection.table.rows == 8
    again, _ = run(store, scenes, loose)
    assert again.comparison.to_embed_count == 0


@pytest.mark.usefixtures("plain_pictures")
def test_a_scene_that_is_checked_with_other_thresholds_changes_catalogue_and_table(
    store: ObjectStore, tmp_path: Path, tiny_vit: Path
) -> None:
    scenes = tmp_path / "scenes"
    for number, name in enumerate(("a.tif", "b.tif")):
        write_scene(scenes / name, number)
    run(store, scenes, collection_options(tiny_vit, quality_checks=True))
    passed = outputs(store)
    member = member_id(NAME, str(scenes / "a.tif"))
    # No picture and no report was written for a scene.
    assert not any(name.startswith("qa/") for name in passed)
    report = check_dataset(store, member, QaThresholds(min_rows=2, max_norm_ratio=1.0))
    collection = Collection.open(store, NAME)
    row = collection.catalogue.row(member)
    assert row is not None
    assert (row.state, row.qa, row.reason) == ("failed_qa", "failed", report.breaches[0].sentence())
    assert collection.table is not None
    assert (collection.state, collection.table.rows) == ("ready", 4)
    check_dataset(store, member)
    # The full checks give the verdict of the run, and the same files.
    same = {name: state[0] for name, state in passed.items() if not name.startswith("datasets/")}
    now = {name: state[0] for name, state in outputs(store).items() if not name.startswith(("datasets/", "qa/"))}
    assert now == same


@pytest.mark.usefixtures("plain_pictures")
def test_a_joined_dataset_that_is_checked_with_other_thresholds_changes_its_collections(
    store: ObjectStore, tmp_path: Path, tiny_vit: Path
) -> None:
    scene, settings = write_scene(tmp_path / "a.tif"), collection_options(tiny_vit).settings
    assert settings is not None
    embed_raster(store, scene, EmbedOptions(**dict(settings), dataset_id="alone", qa=QaThresholds(min_rows=2)))
    for name in ("older", "other"):
        rebuild_collection(store, name, datasets=["alone"])
    passed = outputs(store)
    report = check_dataset(store, "alone", QaThresholds(min_rows=2, max_norm_ratio=1.0))
    for name in ("older", "other"):
        collection = Collection.open(store, name)
        row = collection.catalogue.row("alone")
        assert row is not None
        assert (row.state, row.qa, row.reason) == ("failed_qa", "failed", report.breaches[0].sentence())
        assert list(collection.vectors()) == []
        with pytest.raises(
            DataError, match=rf"'{name}' has no vector, and 0 of its scenes are ready: .*collection show"
        ):
            collection.search(Query(lonlat=(0, 0)))
    check_dataset(store, "alone", QaThresholds(min_rows=2))
    same = {name: state[0] for name, state in passed.items() if name.startswith("collections/")}
    assert {name: state[0] for name, state in outputs(store).items() if name.startswith("collections/")} == same


def test_the_verdict_about_a_scene_has_the_values_of_the_full_checks(
    store: ObjectStore, tmp_path: Path, tiny_vit: Path
) -> None:
    scene = write_scene(tmp_path / "scenes" / "a.tif")
    thresholds = QaThresholds(min_rows=2)
    run(store, scene.parent, collection_options(tiny_vit, quality_checks=True, qa=thresholds))
    dataset = Dataset.open(store, member_id(NAME, str(scene)))
    (shard,) = dataset.manifest.shards
    summary = summarise_shard(store, dataset.plan, shard.path, thresholds.sample_rows)
    verdict = judge_vectors(dataset.manifest.tiles, [summary], thresholds)
    full = {metric.name: metric for metric in judge_dataset(store, dataset.manifest, thresholds).metrics}
    judged = [metric for metric in verdict.metrics if metric.status is not Status.NOT_JUDGED]
    assert {"tiles_unaccounted", "vectors_not_finite", "vectors_zero", "norm_ratio", "effective_rank"} <= {
        metric.name for metric in judged
    }
    for metric in judged:
        assert metric.value == pytest.approx(full[metric.name].value, rel=1e-5, abs=1e-6), metric.name
        assert metric.status is full[metric.name].status


def test_a_dataset_of_a_collection_is_embedded_by_its_collection_only(
    store: ObjectStore, scenes: Path, tiny_vit: Path
) -> None:
    options = collection_options(tiny_vit)
    member = member_id(NAME, str(scenes / "a.tif"))
    wanted = EmbedOptions(**dict(options.settings or {}), dataset_id=member, quality_checks=False)
    said = rf"dataset id '{member}' belongs to collection 'survey': embed the scene with the collection"
    with pytest.raises(UsageError, match=said):
        embed_raster(store, scenes / "a.tif", wanted)
    run(store, scenes, options)
    for raster in ("a.tif", "b.tif"):
        with pytest.raises(UsageError, match=said):
            embed_raster(store, scenes / raster, wanted)
    # Only the collection deletes it, and holds its own lease.
    with pytest.raises(UsageError, match=rf"collection remove-scene survey {member} --root {store.root}"):
        delete_dataset(store, member)
    with hold_lease(store, LAYOUT, "a run over the collection", wait_s=0, on_wait=print) as lease:
        delete_dataset(store, member, lease=lease)
    # An id that only looks like that of a scene is free.
    other = wanted.model_copy(update={"dataset_id": "another--name"})
    assert embed_raster(store, scenes / "a.tif", other).manifest.rows == 4


def test_another_configuration_is_refused(store: ObjectStore, scenes: Path, tiny_vit: Path) -> None:
    options = collection_options(tiny_vit)
    run(store, scenes, options)
    other = PlanSettings(grid=Grid(size=64), model=Dinov3(model=str(tiny_vit), device="cpu", pooling="mean"))
    with pytest.raises(ConfigurationChangedError) as error:
        run(store, scenes, options.model_copy(update={"settings": other}))
    for part in ("`size`: 32 in the collection, 64 requested", '`pooling`: "cls" in the collection, "mean"'):
        assert part in str(error.value)
    assert not {"`stride`", "`input_size`"} & set(re.findall("`[a-z_]+`", str(error.value)))  # They follow from `size`.


def test_the_mask_of_one_raster_is_refused(store: ObjectStore, scenes: Path) -> None:
    options = CollectionOptions(settings=PlanSettings(validity=Validity(mask="/mask.tif")))
    with pytest.raises(UsageError, match="`mask` names the mask of one raster"):
        run(store, scenes, options)


def test_a_collection_is_opened_and_described_as_stac(store: ObjectStore, scenes: Path, tiny_vit: Path) -> None:
    run(store, scenes, collection_options(tiny_vit))
    collection = Collection.open(store, NAME)
    frame = collection.scenes()
    assert frame.crs == "OGC:CRS84"
    assert frame["source"].map(lambda source: Path(source).name).tolist() == ["a.tif", "b.tif", "c.tif"]
    content = json.loads(store.read(LAYOUT.stac_collection) or b"")
    check(content)
    opened = pystac.Collection.from_file(store.uri(LAYOUT.stac_collection))
    link = next(link for link in opened.links if link.rel == "emb:model")
    card = pystac.Item.from_file(str(link.get_absolute_href()))
    check(card.to_dict(include_self_link=False, transform_hrefs=False))
    for dataset_id in frame["id"]:
        check(json.loads(store.read(DatasetLayout(dataset_id).stac_item) or b""))
    check_geoparquet_footer(json.loads(pq.read_schema(store.uri(LAYOUT.catalogue)).metadata[b"stac-geoparquet"]))
    assert card.properties["mlm:output"][0]["result"]["shape"] == [-1, content["emb:dimensions"]]
    assert card.properties["mlm:hyperparameters"]["weights_sha256"] == collection.configuration.model.weights_sha256
    np.testing.assert_allclose(opened.extent.spatial.bboxes[0], frame.total_bounds)
    assert (content["emb:type"], content["emb:dimensions"], content["data_type"]) == ("chip", 64, "float32")
    assert {link["rel"] for link in content["links"]} == {"emb:model", "emb:source-data"}
    assert list_collections(store) == [NAME]


def test_an_unknown_collection_is_named(store: ObjectStore) -> None:
    with pytest.raises(UsageError, match="the store has no collection"):
        Collection.open(store, NAME)
    with pytest.raises(UsageError, match="collection id 'a--b' is not allowed"):
        Collection.open(store, "a--b")


@pytest.mark.usefixtures("plain_pictures")
def test_the_vectors_of_ready_scenes_come_with_their_dataset(store: ObjectStore, scenes: Path, tiny_vit: Path) -> None:
    (scenes / "bad.tif").write_text("bad")
    result, _ = run(store, scenes, collection_options(tiny_vit, quality_checks=True))
    assert states(result) == {"a.tif": "ready", "b.tif": "ready", "c.tif": "ready", "bad.tif": "failed"}
    rows = pa.Table.from_batches(result.collection.vectors()).sort_by("tile_id")
    ids = {member_id(NAME, str(scenes / name)) for name in ("a.tif", "b.tif", "deeper/c.tif")}
    assert set(rows["dataset_id"].to_pylist()) == ids
    for dataset_id in ids:
        stored = Dataset.open(store, dataset_id).vectors()
        own = rows.filter(pa.compute.equal(rows["dataset_id"], dataset_id))
        np.testing.assert_array_equal(np.stack(own["embedding"].to_pylist()), stored)
    assert result.collection.table is not None
    assert result.collection.table.rows == 12
    assert Collection.open(store, NAME).state == "ready"
    before = {name: digest for name, (digest, _) in outputs(store).items()}
    run(store, scenes, collection_options(tiny_vit, quality_checks=True))
    assert {name: digest for name, (digest, _) in outputs(store).items()} == before
    (scenes / "a.tif").unlink()
    result, _ = run(store, scenes, collection_options(tiny_vit, quality_checks=True, prune=True))
    assert result.collection.table is not None
    assert result.collection.table.rows == 8
    assert {row.qa for row in result.collection.catalogue.filter(states=[SceneState.READY]).rows()} == {"passed"}


def test_only_one_run_writes_a_collection(store: ObjectStore, scenes: Path, tiny_vit: Path) -> None:
    said = "collection 'survey' is being written by run another run"
    with hold_lease(store, LAYOUT, "another run", wait_s=0, on_wait=print), pytest.raises(LeaseHeldError, match=said):
        run(store, scenes, collection_options(tiny_vit))


def test_a_store_that_does_not_answer_stops_the_run_and_keeps_the_rows(
    store: ObjectStore, scenes: Path, tiny_vit: Path
) -> None:
    class Broken(Recorder):
        def embed_scenes(self, store: ObjectStore, job: Any, scenes: Any, *others: Any) -> Any:
            yield from super().embed_scenes(store, job, scenes[:1], *others)
            raise StoreUnavailableError("the server is away")

    with pytest.raises(StoreUnavailableError):
        embed_collection(store, NAME, str(scenes), collection_options(tiny_vit), steps=Broken())
    collection = Collection.open(store, NAME)
    assert (collection.state, collection.catalogue.count) == ("embedding", 1)
    result, embedded = run(store, scenes, collection_options(tiny_vit))
    assert sorted(embedded) == ["b.tif", "c.tif"]
    assert Collection.open(store, NAME).state == "ready"
    assert result.collection.catalogue.count == 3


def test_the_catalogue_is_made_again_from_the_manifests(store: ObjectStore, scenes: Path, tiny_vit: Path) -> None:
    options = collection_options(tiny_vit)
    run(store, scenes, options)
    whole = {name: store.read(name) for name in (LAYOUT.catalogue, LAYOUT.stac_collection)}
    store.write(LAYOUT.catalogue, b"damaged")
    with pytest.raises(DataError, match="it is not a catalogue"):
        run(store, scenes, options)
    assert rebuild_collection(store, NAME).catalogue.count == 3
    # A listing gives each scene its address again, and embeds nothing.
    assert run(store, scenes, options)[1] == {}
    assert {name: store.read(name) for name in whole} == whole
    store.delete(LAYOUT.catalogue)
    run(store, scenes, options)
    assert {name: store.read(name) for name in whole} == whole


def _embed(root: str, scenes: str, model: str) -> None:
    embed_collection(ObjectStore(root=root), NAME, scenes, collection_options(Path(model)))


def _vectors(store: ObjectStore) -> dict[str, bytes]:
    collection = Collection.open(store, NAME)
    return {each.id: each.vectors().tobytes() for each in collection.datasets([SceneState.EMBEDDED])}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, tiny_vit: Path) -> tuple[Path, ObjectStore]:
    """A folder with a good scene, a damaged one and another good one, and the store of a run without disturbance."""
    folder = tmp_path_factory.mktemp("undisturbed")
    for number, name in enumerate(("a.tif", "c.tif")):
        write_scene(folder / "scenes" / name, number)
    (folder / "scenes/b.tif").write_text("damaged")
    store = ObjectStore(root=str(folder / "store"))
    _embed(store.root, str(folder / "scenes"), str(tiny_vit))
    return folder / "scenes", store


@pytest.mark.parametrize("how", ["*.json", "list.txt"])
def test_items_of_a_pattern_or_a_list_are_compared_by_their_files(
    how: str, store: ObjectStore, scenes: Path, tiny_vit: Path
) -> None:
    for name in ("a", "b"):
        item = {"type": "Feature", "id": name, "geometry": None, "properties": {"datetime": "2026-06-21T09:30:15Z"}}
        (scenes / f"{name}.json").write_text(json.dumps(item | {"assets": {"visual": {"href": f"{name}.tif"}}}))
    (scenes / "list.txt").write_text("a.json\nb.json\n")
    options = collection_options(tiny_vit)
    assert len(embed_collection(store, NAME, f"{scenes}/{how}", options).comparison.new) == 2
    assert len(embed_collection(store, NAME, f"{scenes}/{how}", options).comparison.unchanged) == 2
    write_scene(scenes / "b.tif", 7)
    later = embed_collection(store, NAME, f"{scenes}/{how}", options).comparison
    assert [scene.uri for scene in later.changed] == [f"{scenes}/b.json"]
    assert len(later.unchanged) == 1


@pytest.mark.parametrize("how", ["catalog.json", "*.json"])
@pytest.mark.parametrize("corrected", [{"datetime": "2025-01-02T03:04:05Z"}, {"eo:cloud_cover": 7}])
def test_a_corrected_date_or_cloud_cover_of_an_item_is_taken_up(
    corrected: dict[str, Any], how: str, store: ObjectStore, scenes: Path, tiny_vit: Path
) -> None:
    def write(name: str, properties: dict[str, Any]) -> None:
        item = {"type": "Feature", "id": name, "geometry": None, "assets": {"visual": {"href": f"{name}.tif"}}}
        (scenes / f"{name}.json").write_text(json.dumps(item | {"properties": properties}))

    first = {"datetime": "2026-06-21T09:30:15Z", "eo:cloud_cover": 50}
    for name in ("a", "b"):
        write(name, first)
    if how == "catalog.json":
        links = [{"rel": "item", "href": f"{name}.json"} for name in ("a", "b")]
        (scenes / how).write_text(json.dumps({"type": "Catalog", "links": links}))
    options, address = collection_options(tiny_vit), f"{scenes}/{how}"
    assert len(embed_collection(store, NAME, address, options).comparison.new) == 2
    write("b", first | corrected)
    result = embed_collection(store, NAME, address, options)
    assert (len(result.comparison.changed), len(result.comparison.unchanged)) == (1, 1)
    row = next(row for row in result.collection.catalogue.rows() if row.item == "b")
    assert row.datetime is not None
    found = {"datetime": f"{row.datetime:%Y-%m-%dT%H:%M:%SZ}", "eo:cloud_cover": row.cloud_cover}
    assert found == first | corrected
    # The shards and the STAC Item of the dataset have the same values.
    member = Dataset.open(store, row.id, ALL_STATES)
    times = pq.read_table(f"{store.root}/{member.manifest.shards[0].path}")["datetime"].to_pylist()
    assert set(times) == {row.datetime}
    properties = json.loads(store.read(member.manifest.stac_item))["properties"]
    assert {name: properties[name] for name in first} == first | corrected
    assert embed_collection(store, NAME, address, options).comparison.to_embed_count == 0


def test_a_run_that_goes_on_tells_how_many_scenes_are_complete(
    store: ObjectStore, scenes: Path, tiny_vit: Path
) -> None:
    class Stopped(Recorder):
        def on_scene(self, row: SceneRow) -> None:
            raise KeyboardInterrupt

    class Told(Recorder):
        def on_continue(self, message: str) -> None:
            told.append(message)

    told: list[str] = []
    options = collection_options(tiny_vit)
    with pytest.raises(KeyboardInterrupt):
        embed_collection(store, NAME, str(scenes), options, steps=Stopped())
    complete = len(list(Path(store.root).glob("datasets/*/manifest.json")))
    assert complete
    embed_collection(store, NAME, str(scenes), options, steps=Told())
    does = "is" if complete == 1 else "are"
    assert told == [f"continuing: {complete} of 3 scenes {does} complete already"]
    write_scene(scenes / "new.tif", 9)
    embed_collection(store, NAME, str(scenes), options, steps=Told())
    assert len(told) == 1, "a further scene is no continuation"


@pytest.mark.parametrize("change", [1, 4, 5, 12, 14])
def test_after_a_kill_the_next_run_gives_the_same_collection(
    change: int, undisturbed: tuple[Path, ObjectStore], tmp_path: Path, tiny_vit: Path
) -> None:
    scenes, whole = undisturbed
    store = ObjectStore(root=str(tmp_path / "store"))
    hook = partial(on_change, change, kill)
    assert exit_code_of(hook, _embed, store.root, str(scenes), str(tiny_vit)) == -9
    _remove_leases(store)
    _embed(store.root, str(scenes), str(tiny_vit))
    for key in (LAYOUT.catalogue, LAYOUT.stac_collection):
        assert store.read(key) == whole.read(key)
    assert _vectors(store) == _vectors(whole)
    assert set(outputs(store)) == set(outputs(whole))


def _remove_leases(store: ObjectStore) -> None:
    """Remove the leases of dead runs. A person does not want to wait until they expire, and neither does a test."""
    for path in Path(store.root).glob("*/*/lease/*"):
        os.unlink(path)


def _embed_and_check(root: str, scenes: str, model: str) -> None:
    settings = PlanSettings(
        grid=Grid(size=32), model=Dinov3(model=model, device="cpu"), selection=Selection(shard_tiles=16)
    )
    options = collection_options(Path(model), settings=settings, quality_checks=True)
    embed_collection(ObjectStore(root=root), NAME, scenes, options)


def _result(store: ObjectStore) -> dict[str, bytes]:
    """Return the bytes of catalogue, STAC Collection and table, and of the vectors of each scene."""
    collection = Collection.open(store, NAME)
    keys = [LAYOUT.catalogue, LAYOUT.stac_collection]
    keys += [LAYOUT.table_file(name) for name in store.sizes(LAYOUT.table_folder)]
    content = {key: store.read(key) or b"" for key in keys}
    return content | {each.id: each.vectors().tobytes() for each in collection.datasets([SceneState.READY])}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_kills_at_twenty_random_moments_change_nothing_in_the_result(tmp_path: Path, tiny_vit: Path) -> None:
    scenes = tmp_path / "scenes"
    for number in range(8):
        write_scene(scenes / f"{number}.tif", number)
    for number in (2, 6):
        write_scene(scenes / f"{number}.tif", number, side=256)  # 64 tiles in 4 shards
    (scenes / "4.tif").write_text("damaged")
    whole = ObjectStore(root=str(tmp_path / "whole"))
    begun = time.monotonic()
    assert exit_code_of(None, _embed_and_check, whole.root, str(scenes), str(tiny_vit)) == 0
    seconds = time.monotonic() - begun
    expected = _result(whole)
    assert sum(len(dataset.manifest.shards) for dataset in Collection.open(whole, NAME).datasets()) == 13
    random, kills, number = Random(13), 0, 0
    while kills < 20:
        number += 1
        store = ObjectStore(root=str(tmp_path / f"killed-{number}"))
        for _ in range(4):
            hook = partial(kill_after, random.uniform(0, seconds))
            code = exit_code_of(hook, _embed_and_check, store.root, str(scenes), str(tiny_vit))
            _remove_leases(store)
            if code == 0:  # The machine is faster now than it was at the beginning.
                seconds *= 0.8
                break
            assert code == -9
            kills += 1
        _embed_and_check(store.root, str(scenes), str(tiny_vit))
        assert _result(store) == expected
        assert set(outputs(store)) == set(outputs(whole))
