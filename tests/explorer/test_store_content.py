"""The cards of the store, the details of a view, and what happens to them when the store changes under the page."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely
from pydantic import SecretStr
from rasterio.transform import Affine
from starlette.testclient import TestClient

from rasterembed.collection.members import member_id
from rasterembed.collection_pipeline import CollectionOptions, embed_collection
from rasterembed.collection_upkeep import check_collection, rebuild_collection
from rasterembed.dataset.dataset import Dataset
from rasterembed.dataset.manifest import ALL_STATES, set_state
from rasterembed.errors import DataError, StoreUnavailableError
from rasterembed.explorer import cards as cards_module
from rasterembed.explorer import views as views_module
from rasterembed.explorer.app import create_app
from rasterembed.explorer.boxes import covering_box
from rasterembed.explorer.problems import ProblemError
from rasterembed.explorer.settings import ExplorerSettings, Limits
from rasterembed.explorer.views import View, ViewKind, Views
from rasterembed.model.choice import Dinov3
from rasterembed.pipeline import check_dataset
from rasterembed.qa.thresholds import QaThresholds
from rasterembed.raster.grid import Grid
from rasterembed.store.layout import CollectionLayout, DatasetLayout
from rasterembed.store.lease import hold_lease
from rasterembed.store.object_store import ObjectStore
from tests.support.search_world import ANCHORED, Scene, write_scene_and_dataset
from tests.support.servers import S3Server
from tests.support.vectors import blank_raster, checkpoint, write_dataset
from tests.support.waiting_threads import Waiting

DIMENSIONS = 8
SCENES = (
    Scene("first", 4, 5, when=datetime(2025, 6, 1, 10, tzinfo=UTC), cloud=3.0),
    Scene("second", 4, 5, east=2, when=datetime(2026, 6, 1, 10, tzinfo=UTC), cloud=30.0),
)


@dataclass(frozen=True)
class World:
    """A store, its rasters and the service over it."""

    folder: Path
    store: ObjectStore
    model: Dinov3
    service: TestClient

    def write(self, dataset_id: str, seed: int = 0, **options: Any) -> None:
        """Write a dataset of 3 × 6 tiles."""
        place = options.pop("place", {})
        raster = blank_raster(self.folder / f"{dataset_id}.tif", 3, 6, **place)
        vectors = np.random.default_rng(seed).standard_normal((18, DIMENSIONS)).astype(np.float32)
        write_dataset(self.store, dataset_id, raster, self.model, vectors, **options)

    def get(self, path: str, status: int = 200) -> Any:
        """Return the JSON of an answer, after a check of its status."""
        answer = self.service.get(path)
        assert answer.status_code == status, answer.text
        return answer.json()

    def card(self, kind: str, id: str) -> dict[str, Any]:
        """Return the card of a dataset or a collection."""
        (found,) = (card for card in self.get("/api/store")[kind] if card["id"] == id)
        return dict(found)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """Run the service over an empty store. Every request looks at the store again."""
    monkeypatch.setattr(views_module, "_FRESH_S", 0.0)
    monkeypatch.setattr(cards_module, "_FRESH_S", 0.0)
    monkeypatch.setattr(cards_module, "_SLOWER", 0.0)
    (tmp_path / "store").mkdir()
    store = ObjectStore(root=str(tmp_path / "store"))
    settings = ExplorerSettings.read(store=store, prefect_ui="http://127.0.0.1:4200/", device="cpu")
    model = Dinov3(model=str(checkpoint(tmp_path / "model", DIMENSIONS)))
    app = create_app(settings)
    with TestClient(app, base_url="http://127.0.0.1", raise_server_exceptions=False) as service:
        yield World(tmp_path, store, model, service)


def test_an_empty_store_has_no_cards(world: World) -> None:
    content = world.get("/api/store")
    assert (content["datasets"], content["collections"], content["root"]) == ([], [], world.store.root)
    assert content["signed_in"] is False  # The service has no token.
    assert world.get("/api/progress") == []


def test_a_card_has_the_numbers_of_the_manifest(world: World) -> None:
    world.write("town", skip=frozenset({3, 4}), place={"when": "2024:07:03 09:41:00"})
    card, manifest = world.card("datasets", "town"), Dataset.open(world.store, "town").manifest
    assert card["state"] == "ready"
    assert (card["tiles"], card["rows"], card["skipped"], card["bytes"]) == (18, 16, 2, manifest.bytes)
    assert datetime.fromisoformat(card["created"]) == manifest.created
    assert card["first"] == card["last"] == "2024-07-03T09:41:00Z"
    assert card["raster"] == str(world.folder / "town.tif")
    assert card["qa"] == {"passed": True, "line": "The quality checks passed."}
    assert card["index"] is card["progress"] is card["problem"] is None
    west, south, east, north = card["bbox"]
    assert shapely.box(west, south, east, north).contains(shapely.Point(24.46, 60.588))


def test_a_box_across_the_antimeridian_begins_in_the_east(world: World) -> None:
    place = {"crs": "EPSG:4326", "transform": Affine(0.01, 0, 179.52, 0, -0.01, 10)}
    world.write("dateline", place=place)
    assert world.card("datasets", "dateline")["bbox"] == pytest.approx([179.52, 9.52, -179.52, 10.0])


def test_a_raster_without_a_place_has_a_made_up_one_on_the_map(world: World) -> None:
    world.write("nowhere", place={"crs": None, "transform": Affine.identity()})
    assert world.card("datasets", "nowhere")["bbox"] is None
    details = world.get("/api/datasets/nowhere")
    assert not details["on_earth"]
    west, south, east, north = details["bbox"]
    assert (west, south) == pytest.approx((-east, -north))
    assert shapely.geometry.shape(details["outline"]).bounds == pytest.approx(details["bbox"])


def test_all_states_have_cards(world: World) -> None:
    for state in ALL_STATES:
        world.write(state.replace("_", "-"), state=state)
    rejected = Dataset.open(world.store, "failed-qa", ALL_STATES)
    set_state(world.store, rejected.manifest, "failed_qa", "effective rank 3.1 < 8 <b>\x1b[2J")
    world.write("broken")
    (Path(world.store.root) / DatasetLayout("broken").manifest).write_bytes(b'{"schema_version": ')
    world.write("unfinished")
    (Path(world.store.root) / DatasetLayout("unfinished").manifest).unlink()
    states = {card["id"]: card["state"] for card in world.get("/api/store")["datasets"]}
    assert states == {
        "embedded": "embedded",
        "ready": "ready",
        "failed-qa": "failed_qa",
        "broken": "unreadable",
        "unfinished": "unfinished",
    }
    assert world.card("datasets", "embedded")["qa"] is None
    assert world.card("datasets", "failed-qa")["qa"]["passed"] is False
    assert "effective rank" in world.card("datasets", "failed-qa")["qa"]["line"]
    assert "manifest.json" in world.card("datasets", "broken")["problem"]
    assert world.get("/api/datasets/broken", 409)["type"] == "not-usable"
    problem = world.get("/api/datasets/unfinished", 404)
    assert problem["type"] == "unknown-view"
    assert problem["detail"].endswith(" is unfinished: it can be seen when its run has ended")
    assert world.get("/api/datasets/failed-qa")["state"] == "failed_qa"


def test_a_view_has_the_numbers_of_its_quality_report(world: World) -> None:
    world.write("town", state="embedded")
    check_dataset(world.store, "town", QaThresholds(min_rows=2, min_effective_rank=1.0, min_neighbour_gap=-2.0))
    metrics = json.loads((Path(world.store.root) / DatasetLayout("town").qa_report).read_text())["metrics"]
    passed = sum(metric["status"] == "passed" for metric in metrics)
    notes = [metric["note"] for metric in metrics if metric["status"] == "not judged"]
    assert passed
    assert notes
    line = world.get("/api/datasets/town")["qa"]["line"]
    assert f"Metrics: {passed} passed" in line
    assert all(note in line for note in notes)
    # The card in the list says it shortly: the reports of all datasets would be a request each.
    assert "Metrics" not in world.card("datasets", "town")["qa"]["line"]
    # A report of another content tells nothing about this one.
    world.write("town", seed=1)
    assert world.get("/api/datasets/town")["qa"]["line"] == "The quality checks passed."


def test_failed_checks_are_named_by_their_titles(world: World) -> None:
    world.write("town", state="embedded")
    check_dataset(world.store, "town", QaThresholds(min_rows=2, min_effective_rank=1000.0, min_neighbour_gap=-2.0))
    for line in (world.card("datasets", "town")["qa"]["line"], world.get("/api/datasets/town")["qa"]["line"]):
        assert "Too low: effective number of directions that the vectors use (RankMe) (" in line
        assert "at least 1000)" in line
        assert "effective_rank" not in line
    world.write("scene")
    rebuild_collection(world.store, "survey", datasets=["scene"])
    file = Path(world.store.root) / CollectionLayout("survey").stac_collection
    checked = {"verdict": "failed", "breached": ["failed_scene_share", "of_a_newer_version"]}
    file.write_text(json.dumps(json.loads(file.read_text()) | {"rasterembed:qa": checked}))
    assert world.card("collections", "survey")["qa"] == {
        "passed": False,
        "line": "The quality checks did not pass. Too high: share of scenes that could not be embedded. "
        "Breached: of_a_newer_version.",
    }


def test_progress_counts_the_shards_of_the_plan_and_tells_whether_a_run_works(world: World) -> None:
    world.write("slow", shard_tiles=6)
    layout, root = DatasetLayout("slow"), Path(world.store.root)
    manifest = Dataset.open(world.store, "slow").manifest
    shards = [shard.path for shard in manifest.shards]
    (root / layout.manifest).unlink()
    (root / shards[-1]).unlink()
    (root / layout.shards_folder / "part-000000000000-00000.parquet").write_bytes(b"of another plan")
    expected = {"shards": len(shards), "done": len(shards) - 1, "running": False}
    assert world.card("datasets", "slow")["progress"] == expected
    with hold_lease(world.store, layout, "run", wait_s=0, on_wait=print):
        (entry,) = world.get("/api/progress")
    assert {name: entry[name] for name in expected} == expected | {"running": True}
    assert (entry["kind"], entry["id"]) == ("datasets", "slow")
    assert entry["modified"] is not None


def test_a_dataset_that_is_replaced_shows_the_progress_of_the_new_plan(world: World) -> None:
    world.write("town")
    before = world.card("datasets", "town")
    plan = Dataset.open(world.store, "town").plan
    new = plan.model_copy(update={"selection": plan.selection.model_copy(update={"min_valid_fraction": 0.25})})
    assert new.fingerprint != plan.fingerprint
    new.write(world.store)
    expected = {"shards": 1, "done": 0, "running": False}
    assert world.card("datasets", "town") == before | {"progress": expected}
    world.store.write(new.layout.shard(new.fingerprint, 0), b"a shard")
    assert world.card("datasets", "town")["progress"] == expected | {"done": 1}


def test_a_card_that_cannot_be_made_does_not_hide_the_others(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.write("town")
    world.write("village")

    def fail(dataset: Dataset) -> None:
        if dataset.id == "town":
            raise RecursionError("deep")
        return card_of_dataset(dataset)

    card_of_dataset = cards_module.card_of_dataset
    monkeypatch.setattr(cards_module, "card_of_dataset", fail)
    assert world.card("datasets", "town")["state"] == "unreadable"
    assert "RecursionError" in world.card("datasets", "town")["problem"]
    assert world.card("datasets", "village")["state"] == "ready"


def write_survey(world: World, grid: Grid = ANCHORED) -> None:
    for number, scene in enumerate(SCENES):
        random = np.random.default_rng(number)
        vectors = random.standard_normal((scene.count, DIMENSIONS)).astype(np.float32)
        valid = np.ones(scene.count, np.float32)
        write_scene_and_dataset(world.folder, world.store, scene, world.model, vectors, valid, grid=grid)
    rebuild_collection(world.store, "survey", datasets=[scene.name for scene in SCENES])


def test_a_collection_has_its_dates_and_the_outline_of_its_scenes(world: World) -> None:
    write_survey(world)
    card = world.card("collections", "survey")
    assert (card["scenes"], card["rows"], card["state"]) == (2, 40, "ready")
    assert (card["first"], card["last"]) == ("2025-06-01T10:00:00Z", "2026-06-01T10:00:00Z")
    details = world.get("/api/collections/survey")
    assert details["dates"] == [
        {"date": "2025-06-01", "scenes": 1, "rows": 20},
        {"date": "2026-06-01", "scenes": 1, "rows": 20},
    ]
    outlines = [shapely.geometry.shape(world.get(f"/api/datasets/{scene.name}")["outline"]) for scene in SCENES]
    assert shapely.equals(shapely.geometry.shape(details["outline"]), shapely.union_all(outlines))
    assert details["bbox"] == pytest.approx(list(shapely.union_all(outlines).bounds))
    assert details["prefect_url"] == "http://127.0.0.1:4200/artifacts/key/collection-survey"
    assert details["dimensions"] == DIMENSIONS


def test_a_tile_in_several_scenes_is_told_without_a_choice_that_the_view_does_not_have(world: World) -> None:
    write_survey(world, ANCHORED.model_copy(update={"anchor": "raster"}))
    body = {"query": {"tile": "r000000_c000000"}}
    problem = world.service.post("/api/collections/survey/search", json=body).json()
    assert problem["detail"] == (
        "tile r000000_c000000 is in 2 scenes of collection 'survey' (first, second): write the scene before the "
        "tile, such as first/r000000_c000000"
    )


def test_what_is_deleted_while_its_card_is_made_has_no_card(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    write_survey(world)
    world.write("town")
    read_manifest, find_collection = cards_module.read_manifest, cards_module.find_collection

    def manifest_of_deleted(store: ObjectStore, id: str) -> Any:
        manifest = read_manifest(store, id)
        shutil.rmtree(Path(store.root) / "datasets" / id, ignore_errors=True)
        return manifest

    def deleted_collection(store: ObjectStore, id: str) -> Any:
        collection = find_collection(store, id)
        shutil.rmtree(Path(store.root) / "collections" / id, ignore_errors=True)
        return collection

    monkeypatch.setattr(cards_module, "read_manifest", manifest_of_deleted)
    monkeypatch.setattr(cards_module, "find_collection", deleted_collection)
    found = world.get("/api/store")
    assert (found["datasets"], found["collections"]) == ([], [])


def test_the_card_of_a_collection_counts_the_scenes_that_failed(world: World) -> None:
    write_survey(world)
    assert (world.card("collections", "survey")["scenes"], world.card("collections", "survey")["failed"]) == (2, 0)
    (world.folder / "damaged").mkdir()
    (world.folder / "damaged/scene.tif").write_text("no raster")
    options = CollectionOptions(max_failed_fraction=1.0, quality_checks=False, table=False)
    embed_collection(world.store, "survey", str(world.folder / "damaged"), options)
    for card in (world.card("collections", "survey"), world.get("/api/collections/survey")):
        assert (card["scenes"], card["failed"]) == (3, 1)


@pytest.mark.parametrize("dimensions", [-1, 0, 10**12])
def test_a_collection_with_an_impossible_model_is_a_card_with_a_problem(world: World, dimensions: int) -> None:
    write_survey(world)
    file = Path(world.store.root) / CollectionLayout("survey").stac_collection
    content = json.loads(file.read_text())
    content["rasterembed:configuration"]["model"]["dimensions"] = dimensions
    file.write_text(json.dumps(content))
    card = world.card("collections", "survey")
    assert card["state"] == "unreadable"
    assert "model.dimensions: the number is impossible" in card["problem"]
    assert world.get("/api/collections/survey", 409)["type"] == "not-usable"


def test_a_column_that_occurs_twice_is_a_problem_and_derived_files_are_made_again(world: World) -> None:
    write_survey(world)
    layout, root = CollectionLayout("survey"), Path(world.store.root)
    report = check_collection(world.store, "survey")
    means = root / layout.scene_means
    pq.write_table(pq.read_table(means).drop_columns("mean"), means)
    assert check_collection(world.store, "survey", dry_run=True).metrics == report.metrics
    (part,) = (root / layout.table_folder).rglob("*.parquet")
    rows = pq.read_table(part)
    pq.write_table(rows.append_column("dataset_id", rows["dataset_id"]), part)
    description = json.loads((root / layout.table).read_text())
    description["parts"][0]["bytes"] = part.stat().st_size
    (root / layout.table).write_text(json.dumps(description))
    middle = {"query": {"lonlat": [24.452, 60.588]}, "k": 3}
    answer = world.service.post("/api/collections/survey/search", json=middle)
    assert (answer.status_code, answer.json()["type"]) == (409, "not-usable"), answer.text


@pytest.mark.parametrize("tile_id", ["x" * 300, "", "a/b"])
def test_a_click_on_a_tile_with_an_impossible_id_is_a_problem(world: World, tile_id: str) -> None:
    write_survey(world)
    layout, root = CollectionLayout("survey"), Path(world.store.root)
    (part,) = (root / layout.table_folder).rglob("*.parquet")
    rows = pq.read_table(part)
    number = rows.schema.get_field_index("tile_id")
    pq.write_table(rows.set_column(number, rows.field(number), pa.array([tile_id] * len(rows))), part)
    description = json.loads((root / layout.table).read_text())
    description["parts"][0]["bytes"] = part.stat().st_size
    (root / layout.table).write_text(json.dumps(description))
    answer = world.service.post("/api/collections/survey/click", json={"lonlat": [24.452, 60.588], "k": 3})
    assert (answer.status_code, answer.json()["type"]) == (409, "not-usable"), answer.text
    assert "\n" not in answer.json()["detail"]


def test_scenes_of_a_collection_have_no_cards_and_other_datasets_do(world: World) -> None:
    write_survey(world)
    scene = member_id("survey", "s3://bucket/scene.tif")
    for name in (scene, "survey--mine", "other--mine"):
        world.write(name)
    shown = {card["id"] for card in world.get("/api/store")["datasets"]}
    assert shown == {"first", "second", "survey--mine", "other--mine"}
    assert world.get(f"/api/datasets/{scene}")["rows"] == 18


def test_a_collection_whose_run_has_not_ended_shows_progress(world: World) -> None:
    write_survey(world)
    layout = CollectionLayout("survey")
    stored = json.loads(world.store.read(layout.stac_collection) or b"")
    world.store.write(layout.stac_collection, json.dumps(stored | {"rasterembed:state": "embedding"}).encode())
    assert world.card("collections", "survey")["progress"] == {"shards": None, "done": 2, "running": False}
    with hold_lease(world.store, layout, "run", wait_s=0, on_wait=print):
        assert [entry["running"] for entry in world.get("/api/progress")] == [True]


def test_the_pictures_of_the_report_are_served_and_no_other_file(world: World) -> None:
    world.write("town")
    layout, png = DatasetLayout("town"), b"\x89PNG\r\n\x1a\n picture"
    world.store.write(layout.qa_file("pca.png"), png)
    world.store.write(layout.qa_file("norms.png"), b"<script>alert(1)</script>")
    world.store.write(layout.qa_file("secret.png"), png)
    (picture, text) = world.get("/api/datasets/town")["pictures"]
    assert (picture["name"], text["name"]) == ("pca.png", "norms.png")
    answer = world.service.get(f"/{picture['url']}")
    assert (answer.content, answer.headers["Content-Type"]) == (png, "image/png")
    known = {"If-None-Match": answer.headers["ETag"]}
    assert world.service.get(f"/{picture['url']}", headers=known).status_code == 304
    world.store.write(layout.qa_file("pca.png"), png + b" of a new check")
    assert world.service.get(f"/{picture['url']}", headers=known).content.endswith(b"of a new check")
    for name in ("norms.png", "secret.png", "report.json", "coverage.png", "..%2Fmanifest.json", "%2e%2e"):
        assert world.service.get(f"/api/datasets/town/qa/{name}").status_code == 404, name
    assert world.get("/api/datasets/town/qa/pca", 404)["detail"].endswith("has no picture 'pca': it has pca.png, ...")
    world.write("village")
    unchecked = world.get("/api/datasets/village/qa/pca.png", 404)["detail"]
    assert unchecked.endswith("has no picture 'pca.png': run `rasterembed qa village` first")


def test_a_replaced_dataset_is_shown_at_once(world: World) -> None:
    world.write("town")
    before = world.get("/api/datasets/town")
    shutil.rmtree(world.store.root)
    world.write("town", seed=1, skip=frozenset({0, 1, 2}))
    after = world.get("/api/datasets/town")
    assert (before["rows"], after["rows"]) == (18, 15)
    assert before["v"] != after["v"]
    assert world.card("datasets", "town")["rows"] == 15


def test_a_deleted_dataset_is_a_clear_problem(world: World) -> None:
    world.write("town")
    world.write("village")
    world.get("/api/datasets/town")
    Dataset.open(world.store, "town").delete()
    problem = world.get("/api/datasets/town", 404)
    assert problem["type"] == "unknown-view"
    assert problem["detail"].startswith("dataset 'town' is not in ")
    assert [card["id"] for card in world.get("/api/store")["datasets"]] == ["village"]


def test_a_collection_stays_readable_if_the_dataset_of_a_scene_is_missing(world: World) -> None:
    write_survey(world)
    before = world.get("/api/collections/survey")
    Dataset.open(world.store, "first").delete()
    details = world.get("/api/collections/survey")
    assert (details["scenes"], details["outline"], details["max_zoom"]) == (
        before["scenes"],
        before["outline"],
        before["max_zoom"],
    )
    with Views(world.store).use(ViewKind.COLLECTIONS, "survey") as view:
        assert view.dataset("second").id == "second"
        with pytest.raises(DataError, match=r"dataset 'first' of a scene is missing: .*remove-scene survey first"):
            view.dataset("first")


def test_a_store_that_goes_away_and_comes_back(world: World) -> None:
    world.write("town")
    world.get("/api/datasets/town")
    away = world.folder / "away"
    Path(world.store.root).rename(away)
    for path in ("/api/store", "/api/progress", "/api/datasets/town", "/api/collections/town"):
        problem = world.get(path, 503)
        assert problem["type"] == "store-unavailable"
        assert "it was removed, or is not mounted" in problem["detail"]
    assert world.get("/health") == {"status": "ok"}
    away.rename(world.store.root)
    assert world.get("/api/datasets/town")["rows"] == 18
    assert len(world.get("/api/store")["datasets"]) == 1


def test_a_store_on_s3_is_shown_and_its_changes_too(world: World, moto: S3Server, bucket: str) -> None:
    moto.create_bucket(bucket)
    raster = blank_raster(world.folder / "town.tif", 3, 6)
    store = ObjectStore(
        root=f"s3://{bucket}/maps",
        endpoint_url=moto.endpoint_url,
        access_key=SecretStr(moto.access_key),
        secret_key=SecretStr(moto.secret_key),
    ).allowing(str(raster))
    app = create_app(ExplorerSettings.read(store=store))
    with TestClient(app, base_url="http://127.0.0.1") as service:
        assert service.get("/api/store").json()["datasets"] == []
        assert service.get("/api/datasets/town").status_code == 404
        for seed, skip in ((0, frozenset[int]()), (1, frozenset({5}))):
            vectors = np.random.default_rng(seed).standard_normal((18, DIMENSIONS)).astype(np.float32)
            write_dataset(store, "town", raster, world.model, vectors, skip=skip)
            details = service.get("/api/datasets/town").json()
            assert (details["rows"], details["state"]) == (18 - len(skip), "ready")
            (card,) = service.get("/api/store").json()["datasets"]
            assert card["rows"] == 18 - len(skip)
            Dataset.open(store, "town").delete()
            assert service.get("/api/datasets/town").json()["type"] == "unknown-view"
        assert service.get("/api/store").json()["datasets"] == []


def test_a_store_that_does_not_answer_is_status_503(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rasterembed.store.storage.RETRY_DELAYS_S", ())
    monkeypatch.setattr("rasterembed.store.s3.RETRY_DELAYS_S", (), raising=False)
    store = ObjectStore(
        root="s3://bucket",
        endpoint_url="http://127.0.0.1:9",
        access_key=SecretStr("a"),
        secret_key=SecretStr("b"),
    )
    with TestClient(create_app(ExplorerSettings.read(store=store)), base_url="http://127.0.0.1") as service:
        for path in ("/api/store", "/api/datasets/town"):
            answer = service.get(path)
            assert answer.status_code == 503, answer.text
            assert answer.json()["type"] == "store-unavailable"
            assert answer.headers["Retry-After"]


def test_requests_that_wait_for_a_store_that_is_away_fail_together(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.write("town")
    asked: list[str] = []
    waiting = Waiting(monkeypatch, 4)

    def no_answer(store: ObjectStore, key: str) -> None:
        asked.append(key)
        assert waiting.all.wait(120)
        raise StoreUnavailableError("the server does not answer")

    monkeypatch.setattr(ObjectStore, "describe_object", no_answer)
    with ThreadPoolExecutor(5) as pool:
        answers = [pool.submit(world.service.get, "/api/datasets/town") for _ in range(5)]
        assert [answer.result().status_code for answer in answers] == [503] * 5
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/api/datasets/nope", 404),
        ("/api/datasets/UPPER", 404),
        ("/api/datasets/-a", 404),
        ("/api/collections/a--b", 404),
        ("/api/datasets/" + "a" * 200, 422),
        ("/api/datasets/%2e%2e", 404),
        ("/api/datasets/..%2f..%2fetc", 404),
        ("/api/rasters/a", 422),
        ("/api/nothing", 404),
    ],
)
def test_wrong_addresses_are_problems(world: World, path: str, status: int) -> None:
    answer = world.service.get(path)
    assert answer.status_code == status
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert set(answer.json()) == {"type", "title", "status", "detail"}


def test_a_view_stays_open_until_its_last_user_leaves(world: World) -> None:
    world.write("town")
    views, closed = Views(world.store), threading.Event()

    class Kept:
        def close(self) -> None:
            closed.set()

    with views.use(ViewKind.DATASETS, "town") as first:
        first.keep("kept", Kept)
        with views.use(ViewKind.DATASETS, "town") as second:
            assert second is first
        shutil.rmtree(world.store.root)
        world.write("town", seed=1)
        with views.use(ViewKind.DATASETS, "town") as third:
            assert third is not first
        assert not closed.is_set()
    assert closed.is_set()
    views.close()


def test_views_that_nobody_uses_are_closed_when_they_are_many_or_large(world: World) -> None:
    for name in ("a", "b", "c"):
        world.write(name)
    views = Views(world.store, Limits(views=2, view_bytes=2**20))
    closed: list[str] = []

    class Kept:
        def __init__(self, name: str, nbytes: int = 0) -> None:
            self.name, self.nbytes = name, nbytes

        def close(self) -> None:
            closed.append(self.name)

    for name in ("a", "b", "c"):
        with views.use(ViewKind.DATASETS, name) as view:
            view.keep("kept", partial(Kept, name))
    assert closed == ["a"]
    with views.use(ViewKind.DATASETS, "b") as view:
        view.keep("large", lambda: Kept("large", 2**21))
    assert closed == ["a", "c", "b", "large"]
    views.close()


def test_no_view_is_closed_while_a_thread_uses_it(world: World) -> None:
    for name in ("a", "b", "c"):
        world.write(name)
    views, closed = Views(world.store, Limits(views=1)), []

    class Kept:
        is_open = True

        def close(self) -> None:
            self.is_open = False
            closed.append(self)

    def use(number: int) -> bool:
        with views.use(ViewKind.DATASETS, "abc"[number % 3]) as view:
            kept = view.keep("kept", Kept)
            view.keep(number, list)
            return kept.is_open

    with ThreadPoolExecutor(6) as pool:
        assert all(pool.map(use, range(90)))
    assert len(closed) > 3  # Views were closed all the time, but never while they were used.
    views.close()


def test_an_object_of_a_view_is_built_once_and_again_after_a_failure(world: World) -> None:
    world.write("town")
    built: list[int] = []

    def build() -> int:
        time.sleep(0.02)
        built.append(1)
        return len(built)

    with Views(world.store).use(ViewKind.DATASETS, "town") as view:
        threads = [threading.Thread(target=view.keep, args=("number", build)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert built == [1]
        with pytest.raises(ZeroDivisionError):
            view.keep("failed", lambda: 1 // 0)
        assert view.keep("failed", lambda: 5) == 5


def test_a_view_gives_only_its_own_scenes(world: World) -> None:
    write_survey(world)
    world.write("other")

    def dataset_of(view: View, id: str) -> str:
        return view.dataset(id).id

    with Views(world.store).use(ViewKind.COLLECTIONS, "survey") as view:
        assert [scene.dataset_id for scene in view.scenes] == ["first", "second"]
        assert dataset_of(view, "first") == "first"
        with pytest.raises(ProblemError, match="has no scene 'other'"):
            view.dataset("other")
    with (
        Views(world.store).use(ViewKind.DATASETS, "first") as view,
        pytest.raises(ProblemError, match="has no scene 'second'"),
    ):
        view.dataset("second")


@pytest.mark.parametrize(
    ("boxes", "covering"),
    [
        ([(0, 0, 10, 5), (20, -5, 30, 1)], (0, -5, 30, 5)),
        ([(170, 0, 175, 1), (-178, 0, -170, 1)], (170, 0, -170, 1)),
        ([(170, 0, -170, 1)], (170, 0, -170, 1)),
        ([(170, 0, -170, 1), (-175, 0, -160, 2)], (170, 0, -160, 2)),
        ([(-180, -90, 180, 90), (3, 1, 4, 2)], (-180, -90, 180, 90)),
        ([(-180, 0, -90, 1), (90, 0, 180, 1)], (90, 0, -90, 1)),
        ([(-120, 0, 0, 1), (0, 0, 120, 1), (120, 0, -120, 1)], (-180, 0, 180, 1)),
    ],
)
def test_the_narrowest_box_around_boxes(
    boxes: list[tuple[float, float, float, float]], covering: tuple[float, float, float, float]
) -> None:
    assert covering_box(boxes) == covering
    assert covering_box(boxes[::-1]) == covering


def test_no_box_covers_nothing() -> None:
    assert covering_box([]) is None
