"""The flow `embed-collection` on a real Prefect server: task runs, artifacts, events and assets."""

from __future__ import annotations

import json
import logging
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import duckdb
import pytest
from prefect import State
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.command import run as run_command
from flows.embed_collection import embed_collection_flow
from flows.raster_embeddings import raster_embeddings
from rasterembed.dataset.embedding import Execution
from rasterembed.errors import DataError, UsageError
from rasterembed.model.choice import Dinov3
from rasterembed.qa.thresholds import QaThresholds
from rasterembed.raster.grid import Grid
from rasterembed.store.layout import CollectionLayout
from rasterembed.store.lease import hold_lease
from rasterembed.store.object_store import ObjectStore
from tasks.events import asset_key
from tests.support.http import request
from tests.support.prefect_server import PrefectServer
from tests.support.scenes import write_scene
from tests.support.waiting import wait_for

pytestmark = pytest.mark.usefixtures("plain_pictures")


def _run(root: Path, scenes: Path, model: Path, name: str = "survey", **parameters: Any) -> State[Any]:
    chosen: dict[str, Any] = {
        "grid": Grid(size=32),
        "dinov3": Dinov3(model=str(model), device="cpu"),
        "max_failed_fraction": 1.0,
    }
    chosen["execution"] = Execution(batch_size=4, lease_wait=0)
    state: State[Any] = embed_collection_flow(
        name, str(scenes), root=str(root), return_state=True, **chosen | parameters
    )
    return state


def _post(server: PrefectServer, path: str, body: dict[str, Any]) -> Any:
    return request("POST", f"{server.api_url}/{path}", json=body, timeout=30).raise_for_status().json()


def _artifact(server: PrefectServer, key: str) -> dict[str, Any]:
    """Return the newest artifact with a key."""
    found = _post(server, "artifacts/filter", {"artifacts": {"key": {"any_": [key]}}, "sort": "ID_DESC"})
    newest: dict[str, Any] = max(found, key=lambda artifact: artifact["created"])
    return newest


def _events(server: PrefectServer, name: str, run: State[Any], count: int) -> list[dict[str, Any]]:
    """Return the events of a run with a name, once there are as many. They reach the server a little later."""
    related = {"id": [f"prefect.flow-run.{run.state_details.flow_run_id}"]}
    wanted = {"filter": {"event": {"name": [name]}, "related": related}, "limit": 50}

    def found() -> list[dict[str, Any]] | None:
        events: list[dict[str, Any]] = _post(server, "events/filter", wanted)["events"]
        return events if len(events) >= count else None

    events: list[dict[str, Any]] = wait_for(found, f"{count} events {name}")
    assert len(events) == count
    return events


def _task_runs(server: PrefectServer, run: State[Any]) -> list[str]:
    wanted = {"flow_runs": {"id": {"any_": [str(run.state_details.flow_run_id)]}}}

    def ended() -> list[dict[str, Any]] | None:
        found: list[dict[str, Any]] = _post(server, "task_runs/filter", wanted)
        return found if found and all(one["state_type"] == "COMPLETED" for one in found) else None

    return sorted(run["name"] for run in wait_for(ended, "the task runs to end"))


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    """Two good scenes, and one without CRS, whose name would be a picture in Markdown."""
    write_scene(tmp_path / "scenes" / "a.tif", 0)
    write_scene(tmp_path / "scenes" / "b.tif", 1)
    write_scene(tmp_path / "scenes" / "![x](y).tif", 2, crs=None)
    return tmp_path / "scenes"


def test_a_folder_is_embedded_and_a_second_run_does_nothing(
    scenes: Path, tmp_path: Path, tiny_vit: Path, prefect_api: PrefectServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "prefect")
    root = tmp_path / "store"
    run = _run(root, scenes, tiny_vit)
    result = run.result()
    assert (result.scenes, result.ready, result.failed, result.embedded) == (3, 2, 1, 2)
    catalogue = f"{root}/collections/survey/items.parquet"
    assert result.catalogue == catalogue
    (rows,) = duckdb.execute("SELECT sum(rows) FROM read_parquet(?)", [catalogue]).fetchall()
    assert result.rows == rows[0] == 8
    # One task run for the batch, and none for a scene or its steps.
    names = [name.rsplit("-", 1)[0] for name in _task_runs(prefect_api, run)]
    assert sorted(names) == ["collection-qa", "discover-scenes", "scenes"]

    progress = _artifact(prefect_api, "scenes-survey")
    assert (progress["type"], progress["data"]) == ("progress", 100.0)
    assert progress["description"].startswith("3 of 3 scenes in ")
    assert "scenes/s" in progress["description"]
    table = json.loads(_artifact(prefect_api, "collection-scenes-survey")["data"])
    assert [row["state"] for row in table] == ["failed", "ready", "ready"]
    assert table[0]["scene"].endswith("![x](y).tif")
    assert "CRS" in table[0]["reason"]
    described = _artifact(prefect_api, "collection-survey")
    assert described["description"] == "Collection survey is ready; scenes: 3: 2 ready, 1 failed"
    assert f"\nsearch: {result.search}\n" in described["data"]
    assert "search it: rasterembed search" in caplog.text
    assert "no index: 8 rows are below 50000: search scans every vector" in caplog.text
    assert "2 of 2 embedded scenes have no time of acquisition: since and until use the times at which" in caplog.text

    again = _run(root, scenes, tiny_vit)
    assert again.result().embedded == 0
    assert again.result().note is None  # The failed scene was tried again.
    next(scenes.glob("!*")).unlink()
    caplog.clear()
    # An existing collection gives its settings.
    complete = _run(root, scenes, tiny_vit, grid=Grid(), dinov3=Dinov3())
    assert complete.result().note == "no scene is new or changed, so nothing was computed"
    assert "collection survey: no scene is new or changed" in caplog.text
    assert [name.rsplit("-", 1)[0] for name in _task_runs(prefect_api, complete)] == [
        "collection-qa",
        "discover-scenes",
    ]


def test_every_scene_of_the_collection_is_in_one_number_of_the_summary(
    scenes: Path, tmp_path: Path, tiny_vit: Path, prefect_api: PrefectServer
) -> None:
    strict = QaThresholds(min_rows=2, max_norm_ratio=1.0)
    result = _run(tmp_path / "store", scenes, tiny_vit, "strict", qa=strict).result()
    assert (result.scenes, result.ready, result.failed_qa, result.failed) == (3, 0, 2, 1)


def test_events_and_assets_tell_what_was_committed(
    scenes: Path, tmp_path: Path, tiny_vit: Path, prefect_api: PrefectServer
) -> None:
    store = ObjectStore(root=str(tmp_path / "store"))
    run = _run(tmp_path / "store", scenes, tiny_vit, "told")
    ready = _events(prefect_api, "raster-embeddings.dataset.ready", run, 2)
    for event in ready:
        dataset_id = event["resource"]["prefect.resource.name"]
        folder = f"file://{store.root}/datasets/{dataset_id}"
        assert event["resource"]["prefect.resource.id"] == folder
        assert event["resource"]["raster-embeddings.collection"] == "told"
        payload = event["payload"]
        assert (payload["rows"], payload["skipped"], payload["coverage"]) == (4, 0, 1.0)
        assert json.loads(Path(payload["links"]["manifest"]).read_bytes())["dataset_id"] == dataset_id
    (updated,) = _events(prefect_api, "raster-embeddings.collection.updated", run, 1)
    payload = updated["payload"]
    assert payload["scenes"] == {"ready": 2, "failed": 1}
    assert (payload["root"], payload["store"]) == (store.root, None)
    assert (payload["rows"], payload["failed"], payload["new"]) == (8, 1, 3)
    question = "SELECT min(bbox.xmin), min(bbox.ymin), max(bbox.xmax), max(bbox.ymax) FROM read_parquet(?)"
    (bbox,) = duckdb.execute(question, [payload["links"]["catalogue"]]).fetchall()
    assert payload["coverage"]["bbox"] == pytest.approx(bbox, abs=1e-6)

    made = _events(prefect_api, "prefect.asset.materialization.succeeded", run, 3)
    upstream = {
        event["resource"]["prefect.resource.id"]: [
            one["prefect.resource.id"] for one in event["related"] if one["prefect.resource.role"] == "asset"
        ]
        for event in made
    }
    rasters = {asset for assets in upstream.values() for asset in assets}
    assert rasters == {f"file://{scenes}/a.tif", f"file://{scenes}/b.tif", f"file://{scenes}"}
    assert f"file://{store.root}/collections/told" in upstream
    referenced = _events(prefect_api, "prefect.asset.referenced", run, 3)
    assert {event["resource"]["prefect.resource.id"] for event in referenced} == rasters

    # A run that changes nothing sends nothing, also if it tries a failed scene again.
    next(scenes.glob("!*")).unlink()
    _events(prefect_api, "raster-embeddings.collection.updated", _run(store_root(store), scenes, tiny_vit, "told"), 1)
    quiet = _run(store_root(store), scenes, tiny_vit, "told")
    assert _post(prefect_api, "events/filter", _of_run(quiet))["events"] == []


def store_root(store: ObjectStore) -> Path:
    return Path(store.root)


def _of_run(run: State[Any]) -> dict[str, Any]:
    related = {"id": [f"prefect.flow-run.{run.state_details.flow_run_id}"]}
    return {"filter": {"event": {"prefix": ["raster-embeddings."]}, "related": related}}


def test_the_event_of_one_raster_has_its_quality_and_a_second_run_says_that_it_was_complete(
    tmp_path: Path, tiny_vit: Path, prefect_api: PrefectServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "prefect")
    raster = write_scene(tmp_path / "a raster.tif")
    chosen: dict[str, Any] = {
        "raster": str(raster),
        "root": str(tmp_path / "store"),
        "dataset_id": "told-alone",
        "grid": Grid(size=32),
        "dinov3": Dinov3(model=str(tiny_vit), device="cpu"),
        "return_state": True,
    }
    failed = raster_embeddings(**chosen, qa=QaThresholds(max_mean_cosine=-0.5, min_rows=2))
    (event,) = _events(prefect_api, "raster-embeddings.dataset.failed-qa", failed, 1)
    assert event["payload"]["qa"]["mean_cosine"] > -0.5
    assert "mean_cosine" in event["payload"]["reason"]
    assert Path(event["payload"]["links"]["report"]).exists()
    ready = raster_embeddings(**chosen)
    (event,) = _events(prefect_api, "raster-embeddings.dataset.ready", ready, 1)
    report = json.loads((tmp_path / "store/qa/told-alone/report.json").read_bytes())
    values = {metric["name"]: metric["value"] for metric in report["metrics"] if metric["value"] is not None}
    assert event["payload"]["qa"] == pytest.approx(values)
    (made,) = _events(prefect_api, "prefect.asset.materialization.succeeded", ready, 1)
    (asset,) = [one for one in made["related"] if one["prefect.resource.role"] == "asset"]
    assert asset["prefect.resource.id"] == asset_key(str(raster))
    assert ready.result().note is None
    caplog.clear()
    again = raster_embeddings(**chosen)
    assert again.result().note == "the dataset was already complete, so nothing was computed"
    assert "dataset told-alone was already complete, so nothing was computed" in caplog.text


def test_too_many_failed_scenes_fail_the_run_and_are_shown(
    scenes: Path, tmp_path: Path, tiny_vit: Path, prefect_api: PrefectServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "prefect")
    state = _run(tmp_path / "store", scenes, tiny_vit, "strict", max_failed_fraction=0.1)
    assert state.is_failed()
    with pytest.raises(DataError, match="1 of 3 scenes failed"):
        state.result()
    table = json.loads(_artifact(prefect_api, "collection-scenes-strict")["data"])
    assert [row["state"] for row in table] == ["failed", "ready", "ready"]
    # Only the error tells the reason. Prefect logs it twice: as the error, and in the state of the run.
    told = [record.levelname for record in caplog.records if "it has no CRS" in record.getMessage()]
    assert told == ["ERROR", "INFO"]


def test_a_run_waits_for_another_run_of_the_same_collection(
    scenes: Path, tmp_path: Path, tiny_vit: Path, prefect_api: PrefectServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "prefect")
    store = ObjectStore(root=str(tmp_path / "store"))
    with ExitStack() as other:
        other.enter_context(hold_lease(store, CollectionLayout("busy"), "another-run", wait_s=0, on_wait=print))

        def release() -> None:
            wait_for(lambda: "another-run" in caplog.text, "the run to wait", timeout=120)
            other.close()

        thread = threading.Thread(target=release)
        thread.start()
        state = _run(tmp_path / "store", scenes, tiny_vit, "busy", execution=Execution(batch_size=4, lease_wait=120))
        thread.join()
    assert state.is_completed()
    assert "collection 'busy' is being written by run another-run, which gave a sign of life" in caplog.text
    assert "otherwise this run waits up to 1" in caplog.text
    assert "collection 'busy': run another-run has ended, so this run goes on" in caplog.text


@pytest.mark.parametrize(
    ("parameters", "message"),
    [({"name": "a--b"}, "collection id 'a--b' is not allowed"), ({"search": {"no": 1}}, "the key 'no' is unknown")],
)
def test_what_is_wrong_is_told_before_anything_runs(
    parameters: dict[str, Any], message: str, scenes: Path, tmp_path: Path, tiny_vit: Path, prefect_api: PrefectServer
) -> None:
    state = _run(tmp_path / "store", scenes, tiny_vit, **parameters)
    with pytest.raises(UsageError, match=message):
        state.result()
    assert not (tmp_path / "store").exists()


def test_the_command_line_takes_a_search_as_json_and_checks_it_before_a_server_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["survey", "https://stac.example/", "--root", str(tmp_path), "--search"]
    for search, message in (("[1]", "give a JSON object"), ('{"no": 1}', "the key 'no' is unknown")):
        with temporary_settings({PREFECT_API_URL: None}), pytest.raises(SystemExit) as error:
            run_command(embed_collection_flow, [*words, search])
        assert error.value.code == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert message in line


def test_the_form_has_every_parameter_with_a_description() -> None:
    schema = embed_collection_flow.parameters.model_dump()
    assert schema["required"] == ["collection", "scenes"]
    for name, parameter in schema["properties"].items():
        described = schema["definitions"][parameter["$ref"].rsplit("/", 1)[1]] if "$ref" in parameter else parameter
        assert described.get("description"), name


@pytest.mark.parametrize(
    "address",
    ["/data/a b#?.tif", "s3://bucket/" + "x" * 600, "/caf\udce9.tif", "https://user:s3cret@host/a.tif?token=s3cret"],
)
def test_every_address_gives_an_allowed_key_without_secrets(address: str) -> None:
    from prefect.assets import Asset

    key = Asset(key=asset_key(address)).key
    assert len(key) <= 512
    assert "s3cret" not in key
    json.dumps(key).encode()
    assert asset_key(address) != asset_key(f"{address}/x".replace("a.tif?", "b.tif?"))
