"""The main flow on a real Prefect server: task runs, artifacts, states, the parameter form, blocks."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pyarrow.dataset as ds
import pytest
from prefect import State
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from pydantic import SecretStr

from blocks import Dinov3Weights, ObjectStoreBlock
from examples.landscape import make_scene
from flows.raster_embeddings import raster_embeddings
from rasterembed.dataset.embedding import Execution
from rasterembed.dataset.selection import Selection
from rasterembed.errors import ConfigurationChangedError, DataError
from rasterembed.qa.thresholds import QaThresholds
from rasterembed.raster.grid import Grid
from rasterembed.search.index_options import VectorIndexOptions
from tests.support.http import request
from tests.support.prefect_server import PrefectServer

pytestmark = pytest.mark.usefixtures("plain_pictures")


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_scene(tmp_path_factory.mktemp("scene"), width=1024, height=1024).raster


def _run(**parameters: Any) -> State[Any]:
    state: State[Any] = raster_embeddings(**parameters, return_state=True)
    return state


def _task_runs(state: State[Any]) -> list[str]:
    """Names of the task runs that the server knows of, in order, once all have ended."""

    async def ask() -> list[str]:
        async with get_client() as client:
            run = FlowRunFilter(id=FlowRunFilterId(any_=[_run_id(state)]))
            for _ in range(900):  # events reach the server a little after the run's end
                runs = await client.read_task_runs(flow_run_filter=run)
                if runs and all(found.state and found.state.is_final() for found in runs):
                    return sorted(found.name for found in runs)
                await asyncio.sleep(0.2)
            raise AssertionError("task runs did not end")

    return asyncio.run(ask())


def _run_id(state: State[Any]) -> UUID:
    assert state.state_details.flow_run_id is not None
    return state.state_details.flow_run_id


def _artifacts(server: PrefectServer, key: str) -> list[dict[str, Any]]:
    answer = request("POST", f"{server.api_url}/artifacts/filter", json={"artifacts": {"key": {"any_": [key]}}})
    found: list[dict[str, Any]] = answer.raise_for_status().json()
    return found


def test_a_run_is_one_task_a_step_and_one_a_shard(
    scene: Path, tmp_path: Path, prefect_api: PrefectServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "prefect")
    state = _run(
        raster=str(scene),
        root=str(tmp_path),
        dataset_id="steps",
        selection=Selection(shard_tiles=4),
        execution=Execution(shard_threads=2),
        search=VectorIndexOptions(index="always"),
    )
    assert state.is_completed()
    assert re.search(r"vector index of 25 vectors, .*: built, because there is no index", caplog.text)
    names = _task_runs(state)
    assert [name for name in names if name.startswith("shard-")] == [f"shard-{n:05d}" for n in range(9)]
    steps = {name.rsplit("-", 1)[0] for name in names if not name.startswith("shard-")}
    assert steps >= {"register", "inspect", "plan-tiles", "write-index", "commit", "qa-metrics", "build-search-index"}

    (progress,) = _artifacts(prefect_api, "tiles-steps")
    assert progress["type"] == "progress"
    assert progress["data"] == 100.0
    assert re.fullmatch(r"25 of 25 tiles in [0-9]+ s, [0-9.]+ tiles/s", progress["description"])
    (summary,) = _artifacts(prefect_api, "dataset-steps")
    assert summary["type"] == "markdown"
    assert "25 embedded, 0 skipped, of 25" in summary["data"]
    assert summary["description"] == "Dataset steps is ready; tiles: 25 embedded, 0 skipped, of 25"
    rows = [line for line in summary["data"].splitlines() if line.startswith("|")]
    assert max(map(len, rows)) < 130, rows  # Prefect's page is not wider.
    command = state.result().search
    assert command == f"rasterembed search steps --root {tmp_path} --tile r000000_c000000"
    assert f"\nsearch: {command}\n" in summary["data"]
    (manifest,) = _artifacts(prefect_api, "manifest-steps")
    assert manifest["type"] == "table"  # Prefect's pages call a type that they do not know UNKNOWN.
    assert json.loads(manifest["data"]) == [{"manifest": f"{tmp_path}/datasets/steps/manifest.json"}]
    assert "search it: rasterembed search steps" in caplog.text
    assert "demo (untrained)" in summary["data"]
    assert ds.dataset(tmp_path / "embeddings" / "steps").count_rows() == 25


def test_a_ready_dataset_is_left_as_it_is(scene: Path, tmp_path: Path, prefect_api: PrefectServer) -> None:
    parameters = {"raster": str(scene), "root": str(tmp_path), "dataset_id": "again"}
    _run(**parameters)
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in tmp_path.glob("[!d]*/**/*.parquet")}
    manifest = (tmp_path / "datasets/again/manifest.json").read_bytes()
    second = _run(**parameters)
    assert second.is_completed()
    assert second.result().rows == 25
    assert second.result().tiles_per_second == 0.0
    assert not [name for name in _task_runs(second) if name.startswith(("shard-", "commit", "write-index"))]
    assert (tmp_path / "datasets/again/manifest.json").read_bytes() == manifest
    for path, (content, written) in before.items():
        assert (path.read_bytes(), path.stat().st_mtime_ns) == (content, written)
    # All shards are there, but not the manifest. The run finishes the dataset, and computes no tile.
    (tmp_path / "datasets/again/manifest.json").unlink()
    third = _run(**parameters)
    assert (third.result().rows, third.result().note) == (25, None)
    assert third.result().tiles_per_second == 0.0


def test_another_configuration_is_refused_until_replace(
    scene: Path, tmp_path: Path, prefect_api: PrefectServer
) -> None:
    parameters: dict[str, Any] = {"raster": str(scene), "root": str(tmp_path), "dataset_id": "changed"}
    _run(**parameters)
    state = _run(**parameters, grid=Grid(size=512))
    assert state.is_failed()
    with pytest.raises(ConfigurationChangedError, match=r"`size`: 224 in the dataset, 512 requested"):
        state.result()
    assert _run(**parameters, grid=Grid(size=512), replace=True).result().rows == 4
    assert ds.dataset(tmp_path / "embeddings" / "changed").count_rows() == 4


def test_a_breach_fails_the_run_after_the_report_and_a_later_pass_computes_nothing_again(
    scene: Path, tmp_path: Path, prefect_api: PrefectServer
) -> None:
    parameters: dict[str, Any] = {"raster": str(scene), "root": str(tmp_path), "dataset_id": "gate"}
    state = _run(**parameters, qa=QaThresholds(max_mean_cosine=-0.5))
    assert state.is_failed()
    with pytest.raises(DataError, match=r"mean_cosine is 0\.\d+, more than `max_mean_cosine=-0\.5`"):
        state.result()
    manifest = tmp_path / "datasets/gate/manifest.json"
    assert json.loads(manifest.read_bytes())["state"] == "failed_qa"
    assert (tmp_path / "qa/gate/report.md").exists()
    (artifact,) = _artifacts(prefect_api, "qa-gate")
    assert "mean_cosine" in artifact["data"]
    (shard,) = (tmp_path / "embeddings/gate").iterdir()
    written = shard.stat().st_mtime_ns
    assert _run(**parameters).result().state == "ready"
    assert json.loads(manifest.read_bytes())["state"] == "ready"
    assert shard.stat().st_mtime_ns == written


def test_a_failure_says_why_in_the_state_and_without_a_traceback(
    rasters: Path, tmp_path: Path, prefect_api: PrefectServer, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "prefect"):
        state = _run(raster=str(rasters / "corrupt.tif"), root=str(tmp_path), dataset_id="corrupt")
    assert state.is_failed()
    with pytest.raises(DataError, match="tile r000002_c000002"):
        state.result()
    run = request("GET", f"{prefect_api.api_url}/flow_runs/{_run_id(state)}").raise_for_status().json()
    assert "tile r000002_c000002 (window col_off=448 row_off=448" in run["state"]["message"]
    assert "Traceback" not in caplog.text
    assert not (tmp_path / "datasets/corrupt/manifest.json").exists()


def test_the_form_has_every_parameter_with_defaults_descriptions_and_bounds() -> None:
    schema = raster_embeddings.parameters.model_dump()
    assert schema["required"] == ["raster"]
    for name, parameter in schema["properties"].items():
        described = schema["definitions"][parameter["$ref"].rsplit("/", 1)[1]] if "$ref" in parameter else parameter
        assert described.get("description"), name
    grid = schema["definitions"]["Grid"]["properties"]
    assert grid["size"]["default"] == 224
    assert (grid["size"]["minimum"], grid["size"]["multipleOf"]) == (16, 16)
    assert grid["edge"]["enum"] == ["pad", "shift", "drop"]
    assert (grid["anchor"]["enum"], grid["anchor"]["default"]) == (["raster", "crs"], "raster")
    assert (grid["origin"]["minItems"], grid["origin"]["maxItems"], grid["origin"]["default"]) == (2, 2, [0.0, 0.0])
    models = (
        "Grid",
        "Radiometry",
        "Validity",
        "Dinov3",
        "Selection",
        "Execution",
        "QaThresholds",
        "VectorIndexOptions",
    )
    for definition in models:
        for name, field in schema["definitions"][definition]["properties"].items():
            assert field.get("description"), f"{definition}.{name}"


def test_the_server_refuses_a_wrong_parameter_before_anything_runs(prefect_api: PrefectServer) -> None:
    async def deploy() -> str:
        async with get_client() as client:
            flow_id = await client.create_flow(raster_embeddings)
            deployment = await client.create_deployment(
                flow_id,
                name="form",
                enforce_parameter_schema=True,
                parameter_openapi_schema=raster_embeddings.parameters.model_dump(),
            )
            return str(deployment)

    deployment = asyncio.run(deploy())

    def create(parameters: dict[str, Any]) -> httpx.Response:
        return request(
            "POST", f"{prefect_api.api_url}/deployments/{deployment}/create_flow_run", json={"parameters": parameters}
        )

    wrong = create({"raster": "a.tif", "grid": {"size": 17}})
    assert wrong.status_code == 409
    assert "17 is not a multiple of 16" in wrong.text
    assert create({"grid": {"size": 224}}).status_code == 409  # no raster
    assert create({"raster": "a.tif", "grid": {"size": 448}}).status_code == 201


def test_blocks_give_the_store_and_the_weights(scene: Path, tmp_path: Path, prefect_api: PrefectServer) -> None:
    ObjectStoreBlock(root=str(tmp_path / "elsewhere"), access_key=SecretStr("who"), secret_key=SecretStr("hush")).save(
        "mine", overwrite=True
    )
    Dinov3Weights(model="demo", token=SecretStr("quiet")).save("weights", overwrite=True)
    state = _run(raster=str(scene), store="mine", weights="weights", dataset_id="by-block")
    assert state.result().manifest == f"{tmp_path}/elsewhere/datasets/by-block/manifest.json"
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert b"hush" not in written
    assert b"quiet" not in written
    run = request("GET", f"{prefect_api.api_url}/flow_runs/{_run_id(state)}").raise_for_status().text
    assert "hush" not in run
    assert "quiet" not in run
    assert _run(raster=str(scene), store="mine", root=str(tmp_path / "other"), dataset_id="x").is_completed()
    assert (tmp_path / "other/datasets/x/manifest.json").exists()
