"""The quality of a collection as a whole: outliers, repeated scenes, coverage, failures, and the verdict."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pyproj
import pytest
import shapely
from numpy.typing import NDArray
from PIL import Image

from flows.command import run as run_flow
from flows.qa_report import qa_report
from rasterembed.collection.catalogue import Catalogue
from rasterembed.collection.collection import Collection
from rasterembed.collection.scene_row import SceneRow, SceneState
from rasterembed.collection_pipeline import CollectionSteps, embed_collection
from rasterembed.collection_upkeep import check_collection
from rasterembed.command_line.run import run
from rasterembed.commands.collection import app as collection_app
from rasterembed.commands.qa import app as qa_app
from rasterembed.dataset.dataset import Dataset
from rasterembed.dataset.manifest import ALL_STATES
from rasterembed.errors import StoreUnavailableError, UsageError
from rasterembed.qa.collection_coverage import measure_collection_coverage
from rasterembed.qa.collection_outliers import find_outliers, find_repetitions, modified_z_score
from rasterembed.qa.collection_report import CollectionQaError, CollectionReport, collection_markdown, warning_of_run
from rasterembed.qa.collection_run import judge_collection
from rasterembed.qa.collection_thresholds import CollectionThresholds
from rasterembed.qa.scene_means import SceneMeans
from rasterembed.store.layout import CollectionLayout
from rasterembed.store.object_store import ObjectStore
from tests.support.http import request
from tests.support.prefect_server import PrefectServer
from tests.support.runs import files
from tests.support.scenes import collection_options, write_scene

NAME = "survey"
LAYOUT = CollectionLayout(NAME)
EVIL = "<script>alert(1)</script>|![x](http://host/y.png)\x1b[2J"


def _means(mean: NDArray[np.float64], *, tiles: Sequence[int] | None = None, spread: float = 1.0) -> SceneMeans:
    count = len(mean)
    return SceneMeans(
        row=np.arange(count),
        tiles=np.array(tiles if tiles is not None else [100] * count),
        norm=np.linalg.norm(mean, axis=1).astype(np.float32),
        spread=np.full(count, spread, np.float32),
        mean=mean.astype(np.float32),
    )


def _nowhere(count: int) -> NDArray[np.object_]:
    return np.full(count, None, dtype=object)


# --- outliers --------------------------------------------------------------------------------------------------------


def test_the_modified_z_score_is_that_of_the_example_in_the_literature() -> None:
    # The values are from NIST/SEMATECH e-Handbook of Statistical Methods, section 1.3.5.17.1 (Zirconium data of
    # Iglewicz and Hoaglin): median 3.15, MAD 0.45.
    values = np.array([2.1, 2.6, 2.4, 2.5, 2.3, 2.1, 2.3, 2.6, 8.2, 8.3])
    median = np.median(values)
    mad = np.median(np.abs(values - median))
    np.testing.assert_allclose(modified_z_score(values), 0.6745 * (values - median) / mad)
    assert list(np.flatnonzero(np.abs(modified_z_score(values)) > 3.5)) == [8, 9]


def test_equal_values_have_no_outlier_and_one_odd_value_among_equal_ones_is_an_outlier() -> None:
    assert not modified_z_score(np.full(20, 3.0)).any()
    assert not modified_z_score(np.full(20, 3.0) + 1e-7 * np.arange(20)).any()  # rounding noise
    score = modified_z_score(np.array([3.0] * 30 + [4.0]))
    assert list(np.flatnonzero(np.abs(score) > 3.5)) == [30]


def test_scenes_with_another_norm_or_another_direction_are_outliers() -> None:
    rng = np.random.default_rng(1)
    mean = rng.normal(size=(1, 32)) * 5 + rng.normal(size=(200, 32)) * 0.1
    mean[17] *= 3
    mean[40] = np.roll(mean[40], 1)
    outliers = find_outliers(_means(mean))
    far = set(np.flatnonzero(outliers.score > 3.5).tolist())
    assert {17, 40} <= far
    assert len(far) <= 6  # of 200 normal values, about one is beyond 3.5 by chance
    assert outliers.norm_score[17] > 3.5 > outliers.vector_score[17]
    assert outliers.vector_score[40] > 3.5


# --- repeated scenes -------------------------------------------------------------------------------------------------


def test_copies_and_overlapping_near_duplicates_are_found_and_nothing_else() -> None:
    rng = np.random.default_rng(2)
    mean = rng.normal(size=(300, 16))
    mean[[150, 299]] = mean[10] * (1 + 1e-7)  # two copies at other places
    mean[20] = mean[5] + 0.01 / 4  # nearly equal, at the same place
    mean[21] = mean[6] + 0.01 / 4  # nearly equal, elsewhere
    mean[22] = mean[7] + 0.5 / 4  # another date of the same place
    mean[30] = mean[31]  # equal means, but of another number of tiles
    tiles = [100] * 300
    tiles[30] = 64
    west = np.arange(300) % 180 * 1.0
    west[20], west[22] = west[5] + 0.2, west[7]
    south = np.arange(300) // 180 * 10.0
    south[20], south[22] = south[5], south[7]
    places = shapely.box(west, south, west + 0.9, south + 0.9)
    found = find_repetitions(_means(mean, tiles=tiles), places, CollectionThresholds()).found
    assert [(one.first, one.second) for one in found] == [(5, 20), (10, 150), (10, 299)]
    overlap = {one.second: one.overlap for one in found}
    assert overlap[20] == pytest.approx(0.7 / 0.9)
    assert overlap[150] == 0
    assert {one.second: one.distance for one in found}[20] == pytest.approx(0.01, rel=1e-3)


def test_scenes_without_a_place_can_be_copies_and_constant_scenes_are_not_compared() -> None:
    mean = np.random.default_rng(3).normal(size=(4, 16))
    mean[3] = mean[0]
    found = find_repetitions(_means(mean), _nowhere(4), CollectionThresholds()).found
    assert [(one.first, one.second, one.overlap) for one in found] == [(0, 3, None)]
    sea = find_repetitions(_means(mean, spread=0.0), _nowhere(4), CollectionThresholds())
    assert sea.found == ()
    assert not sea.compared.any()


def test_a_thousand_equal_scenes_on_one_place_are_found_in_bounded_steps() -> None:
    mean = np.repeat(np.random.default_rng(4).normal(size=(1, 16)), 1000, axis=0)
    places = np.repeat(np.array([shapely.box(0, 0, 1, 1)], dtype=object), 1000)
    found = find_repetitions(_means(mean), places, CollectionThresholds()).found
    assert [one.second for one in found] == list(range(1, 1000))


# --- coverage --------------------------------------------------------------------------------------------------------


def test_area_and_overlap_are_those_of_the_ellipsoid() -> None:
    boxes = [(24.0, 60.0, 25.0, 60.5), (24.4, 60.0, 25.4, 60.5), (-70.0, -40.0, -69.5, -39.0), (24.2, 60.1, 24.3, 60.2)]
    found = measure_collection_coverage(np.array([shapely.box(*box) for box in boxes], dtype=object))
    geod = pyproj.Geod(ellps="WGS84")

    def area(*box: float) -> float:
        # Parallels are no geodesics, so the edges need many points.
        outline = shapely.segmentize(shapely.box(*box), 0.001)
        return abs(geod.geometry_area_perimeter(outline)[0]) / 1e6

    union = area(24, 60, 25.4, 60.5) + area(*boxes[2])
    assert found.area_km2 == pytest.approx(union, rel=1e-4)
    assert found.sum_km2 == pytest.approx(sum(area(*box) for box in boxes), rel=1e-4)
    assert found.depth.tolist() == [2, 2, 1, 2]


# --- a whole collection ----------------------------------------------------------------------------------------------


class Recorder(CollectionSteps):
    """Steps that keep the warnings."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def on_warning(self, message: str) -> None:
        self.warnings.append(message)


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory, tiny_vit: Path) -> Path:
    """Return a store with a collection: twelve scenes, one of them twice, and two files that are no rasters."""
    folder = tmp_path_factory.mktemp("collection-qa")
    for number in range(12):
        write_scene(folder / "scenes" / f"{number:02d}.tif", number)
    shutil.copyfile(folder / "scenes/04.tif", folder / "scenes/copy.tif")
    for name in ("one.tif", "two.tif"):
        (folder / "scenes" / name).write_text("no raster")
    options = collection_options(tiny_vit)
    embed_collection(ObjectStore(root=str(folder / "store")), NAME, str(folder / "scenes"), options)
    return folder / "store"


@pytest.fixture
def store(embedded: Path, tmp_path: Path) -> ObjectStore:
    """Return a copy of the store."""
    return ObjectStore(root=str(shutil.copytree(embedded, tmp_path / "store")))


def test_the_report_names_what_is_wrong_and_the_verdict_is_in_the_collection(store: ObjectStore) -> None:
    report = check_collection(store, NAME)
    assert report.counts.states == {"embedded": 13, "failed": 2}
    assert report.counts.vectors == 13 * 4
    assert not report.passed
    assert {metric.name for metric in report.breaches} >= {"failed_scene_share", "duplicate_scenes"}
    (duplicate,) = report.duplicates
    assert {Path(duplicate.source).name, Path(duplicate.repeats_source).name} == {"04.tif", "copy.tif"}
    assert duplicate.overlap == 1
    (failure,) = report.failures
    assert failure.scenes == 2
    assert failure.reason.startswith("…: ")
    assert Path(failure.example).name in ("one.tif", "two.tif")
    with pytest.raises(
        CollectionQaError, match=r"duplicate_scenes is 1, more than `max_duplicate_scenes=0` \(\S+tif repeats \S+tif\)"
    ) as refused:
        report.check(store)
    assert str(refused.value).endswith(f" BOUND --root {store.root}`")
    assert str(warning_of_run(report, store)).endswith(f" --max-duplicate-scenes BOUND --root {store.root}`")
    content = json.loads((Path(store.root) / LAYOUT.stac_collection).read_bytes())
    assert content["rasterembed:qa"]["verdict"] == "failed"
    assert "duplicate_scenes" in content["rasterembed:qa"]["breached"]
    page = (Path(store.root) / LAYOUT.qa_report_markdown).read_text()
    assert "copy.tif" in page
    assert "0 embedded scenes have no place on Earth" in page
    for name in ("scenes.png", "vectors.png"):
        assert f"({name})" in page
        picture = Image.open(io.BytesIO((Path(store.root) / LAYOUT.qa_file(name)).read_bytes()))
        assert picture.format == "PNG"
        assert len(np.unique(np.asarray(picture.convert("L")))) > 10
    assert CollectionReport.model_validate_json((Path(store.root) / LAYOUT.qa_report).read_bytes()) == report


def test_the_means_are_those_of_the_vectors(store: ObjectStore) -> None:
    check_collection(store, NAME)
    table = pq.read_table(Path(store.root) / LAYOUT.scene_means)
    assert len(table) == 13
    for row in table.to_pylist():
        vectors = Dataset.open(store, row["id"], ALL_STATES).vectors().astype(np.float64)
        np.testing.assert_allclose(row["mean"], vectors.mean(axis=0), rtol=1e-5, atol=1e-6)
        assert row["norm"] == pytest.approx(np.linalg.norm(vectors, axis=1).mean(), rel=1e-5)
        assert row["spread"] == pytest.approx(np.sqrt((vectors.std(axis=0) ** 2).sum()), rel=1e-4)
        assert row["tiles"] == 4


def test_a_second_check_measures_nothing_and_other_thresholds_replace_the_report(store: ObjectStore) -> None:
    check_collection(store, NAME)
    root = Path(store.root)

    def outputs() -> dict[str, tuple[str, int]]:
        return {name: state for name, state in files(root).items() if "/lease/" not in name}

    before = outputs()
    check_collection(store, NAME)
    assert outputs() == before
    mild = CollectionThresholds(max_failed_scene_share=0.5, max_duplicate_scenes=1, max_outlier_scene_share=1.0)
    dry = check_collection(store, NAME, mild, dry_run=True)
    assert dry.passed
    assert outputs() == before
    with pytest.raises(CollectionQaError, match=r"would not pass these quality checks: .*; nothing was changed$"):
        check_collection(store, NAME, dry_run=True).check()
    assert check_collection(store, NAME, mild).passed
    assert json.loads((root / LAYOUT.stac_collection).read_bytes())["rasterembed:qa"] == {
        "verdict": "passed",
        "breached": [],
    }
    (root / LAYOUT.qa_report).write_text('{"passed": true}')  # A damaged report is written again.
    (root / LAYOUT.scene_means).write_text("no parquet")
    assert not check_collection(store, NAME).passed
    assert set(outputs()) == set(before)


def test_scenes_whose_vectors_cannot_be_read_are_counted(store: ObjectStore) -> None:
    broken = Collection.open(store, NAME).catalogue.table["id"][0].as_py()
    (shard,) = (Path(store.root) / "embeddings" / broken).glob("*.parquet")
    shard.write_bytes(b"PAR1")
    report = check_collection(store, NAME)
    assert list(report.unreadable) == [broken]
    assert "unreadable_scenes" in {metric.name for metric in report.breaches}


@pytest.mark.parametrize("file", ["means.parquet", "report.json"])
def test_a_store_that_does_not_answer_is_no_lost_file(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    check_collection(store, NAME)
    read, opened = ObjectStore.read, ObjectStore.open

    def away(key: str) -> None:
        if key.endswith(file):
            raise StoreUnavailableError("no answer")

    monkeypatch.setattr(ObjectStore, "read", lambda self, key, *most: away(key) or read(self, key, *most))
    monkeypatch.setattr(ObjectStore, "open", lambda self, key: away(key) or opened(self, key))
    with pytest.raises(StoreUnavailableError):
        check_collection(store, NAME, CollectionThresholds(min_scenes=11))


def test_an_unknown_collection_is_refused(store: ObjectStore) -> None:
    with pytest.raises(UsageError, match="there is no collection 'survy'"):
        check_collection(store, "survy")


@pytest.mark.usefixtures("plain_pictures")
def test_embed_collection_checks_at_its_end_warns_and_succeeds(tmp_path: Path, tiny_vit: Path) -> None:
    for name in ("a.tif", "b.tif"):
        write_scene(tmp_path / "scenes" / name, 1)
    store = ObjectStore(root=str(tmp_path / "store"))
    steps = Recorder()
    options = collection_options(tiny_vit, quality_checks=True)
    result = embed_collection(store, NAME, str(tmp_path / "scenes"), options, steps=steps)
    assert result.report is not None
    assert [metric.name for metric in result.report.breaches] == ["duplicate_scenes"]
    (warning,) = [text for text in steps.warnings if "collection 'survey' did not pass" in text]
    assert "see collections/survey/qa/report.md in the store" in warning
    content = json.loads((Path(store.root) / LAYOUT.stac_collection).read_bytes())
    assert content["rasterembed:qa"] == {"verdict": "failed", "breached": ["duplicate_scenes"]}
    assert content["rasterembed:state"] == "ready"
    # Another state of the catalogue makes the verdict void until the next check.
    (tmp_path / "scenes/b.tif").unlink()
    embed_collection(store, NAME, str(tmp_path / "scenes"), collection_options(tiny_vit))
    assert "rasterembed:qa" not in json.loads((Path(store.root) / LAYOUT.stac_collection).read_bytes())


def test_a_failed_scene_that_is_gone_does_not_count_as_failed(store: ObjectStore) -> None:
    collection = Collection.open(store, NAME)
    rows = list(collection.catalogue.rows())
    one_gone = next(row for row in rows if row.state is SceneState.FAILED)
    changed = [replace(row, gone=True) if row is one_gone else row for row in rows]
    report = judge_collection(store, LAYOUT, collection.configuration, Catalogue.of(changed))
    # Of 15 scenes, two failed. Of the 14 that are not gone, one failed: less than the tenth that is allowed.
    assert "failed_scene_share" not in {metric.name for metric in report.breaches}
    before = judge_collection(store, LAYOUT, collection.configuration, collection.catalogue)
    assert "failed_scene_share" in {metric.name for metric in before.breaches}


def test_an_empty_collection_and_hostile_texts_have_a_report(store: ObjectStore) -> None:
    configuration = Collection.open(store, NAME).configuration
    empty = judge_collection(store, LAYOUT, configuration, Catalogue.of([]))
    assert empty.passed
    assert empty.coverage is None
    assert "no scenes" in empty.summary()
    row: dict[str, Any] = dict.fromkeys(SceneRow.__slots__)
    row |= {"id": f"{NAME}--x", "source": EVIL, "state": SceneState.FAILED, "reason": f"bad {EVIL}", "listing": EVIL}
    row |= {"rows": 0, "skipped": 0, "shards": 0, "gone": False, "datetime": datetime(2026, 1, 1, tzinfo=UTC)}
    page = collection_markdown(judge_collection(store, LAYOUT, configuration, Catalogue.of([SceneRow(**row)])))
    assert "<script>" not in page
    assert "![x]" not in page
    assert "http://host" not in page
    assert "\x1b" not in page


def test_the_file_of_means_of_another_model_is_not_used(store: ObjectStore) -> None:
    first = check_collection(store, NAME)
    file = Path(store.root) / LAYOUT.scene_means
    table = pq.read_table(file)
    wrong = pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(len(table) * 3, np.float32)), 3)
    pq.write_table(table.set_column(5, "mean", wrong), file)
    again = check_collection(store, NAME, CollectionThresholds(max_duplicate_scenes=1))
    assert again.outliers == first.outliers
    assert pq.read_table(file).equals(table)


# --- command and flow ------------------------------------------------------------------------------------------------


def test_the_command_checks_a_collection_and_its_exit_status_is_the_verdict(
    store: ObjectStore, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        run(qa_app, ["--collection", NAME, "--root", store.root])
    assert end.value.code == 1
    output = capsys.readouterr()
    assert "duplicate_scenes" in output.out
    assert "BREACHED" in output.out
    assert "see collections/survey/qa/report.md in the store" in output.err
    mild = ("--max-failed-scene-share", "0.5", "--max-duplicate-scenes", "1", "--max-outlier-scene-share", "1")
    lines = str(run(qa_app, ["--collection", NAME, "--root", store.root, *mild])).splitlines()
    assert f"report: {store.root}/collections/survey/qa/report.md" in lines
    shown = run(collection_app, ["show", NAME, "--root", store.root])
    assert f"quality: 5 passed; see {store.root}/collections/survey/qa/report.md" in shown
    told = json.loads(run(collection_app, ["show", NAME, "--root", store.root, "--json"]))
    assert told["quality"] == {"passed": True, "breached": []}
    for wrong in ([], ["scene", "--collection", NAME]):
        with pytest.raises(SystemExit) as end:
            run(qa_app, [*wrong, "--root", store.root])
        assert end.value.code == 2
        assert "give either the name of a dataset, or --collection" in capsys.readouterr().err
    with pytest.raises(SystemExit) as end:
        run(qa_app, ["--collection", "survy", "--root", store.root])
    assert end.value.code == 2


def test_the_flow_checks_a_collection_and_shows_the_report(store: ObjectStore, prefect_api: PrefectServer) -> None:
    mild = ("--max-failed-scene-share", "0.5", "--max-duplicate-scenes", "1", "--max-outlier-scene-share", "1")
    verdict = run_flow(qa_report, ["--collection", NAME, "--root", store.root, *mild])
    assert verdict.model_dump() == {
        "collection_id": NAME,
        "metrics": "5 passed",
        "report": f"{store.root}/collections/{NAME}/qa/report.md",
    }
    # Other tests on the same server check collections of this name too.
    artifact = request("GET", f"{prefect_api.api_url}/artifacts/collection-qa-{NAME}/latest").raise_for_status().json()
    assert artifact["description"] == "Quality of collection survey: 5 passed"
    assert artifact["data"].count("(data:image/webp;base64,") == 2


@pytest.mark.slow
def test_a_check_that_was_interrupted_at_any_write_is_made_again(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed = ObjectStore(root=str(shutil.copytree(store.root, tmp_path / "undisturbed")))
    check_collection(undisturbed, NAME)
    wanted = {path.name: path.read_bytes() for path in (Path(undisturbed.root) / LAYOUT.collection_folder).rglob("*.*")}
    write = ObjectStore.write
    for stop in (2, 4, 5):  # the second picture, report.json, and collection.json
        writes: list[str] = []

        def failing(self: ObjectStore, key: str, data: bytes, writes: list[str] = writes, stop: int = stop) -> None:
            if "/lease/" not in key:
                writes.append(key)
                if len(writes) == stop:
                    raise StoreUnavailableError("no answer")
            write(self, key, data)

        disturbed = ObjectStore(root=str(shutil.copytree(store.root, tmp_path / f"disturbed-{stop}")))
        with monkeypatch.context() as patch:
            patch.setattr(ObjectStore, "write", failing)
            with pytest.raises(StoreUnavailableError):
                check_collection(disturbed, NAME)
        check_collection(disturbed, NAME)
        folder = Path(disturbed.root) / LAYOUT.collection_folder
        found = {path.name: path.read_bytes() for path in folder.rglob("*.*")}
        assert {name: data for name, data in found.items() if not name[0].isdigit()} == {
            name: data for name, data in wanted.items() if not name[0].isdigit()
        }
