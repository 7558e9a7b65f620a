"""The trigger of prefect.yaml, on a real server: an update of a collection writes the overview page."""

from __future__ import annotations

from pathlib import Path

import pytest
from prefect.client.schemas.filters import FlowFilter
from prefect.client.schemas.objects import FlowRun
from prefect.settings import PREFECT_API_URL, temporary_settings

from blocks.object_store import ObjectStoreBlock
from tests.support.deployed import Runs, deploy, worker
from tests.support.prefect_server import prefect_server
from tests.support.scenes import write_scene
from tests.support.waiting import wait_for


@pytest.mark.slow
def test_an_updated_collection_starts_the_overview(tiny_vit: Path, tmp_path: Path) -> None:
    for number in range(2):
        write_scene(tmp_path / "scenes" / f"{number}.tif", number)
    root = tmp_path / "store"
    with prefect_server(few_certificates=True) as server:
        deploy(server, "*/collection-process", "*/overview-process", RASTER_ROOT=str(tmp_path / "elsewhere"))
        runs = Runs(server)
        with temporary_settings({PREFECT_API_URL: server.api_url}):
            ObjectStoreBlock(root=str(tmp_path / "of-the-block")).save("mine")

        def overviews() -> list[FlowRun]:
            with runs._client() as client:
                found: list[FlowRun] = client.read_flow_runs(
                    flow_filter=FlowFilter.model_validate({"name": {"any_": ["qa-overview"]}})
                )
            return [run for run in found if run.state is not None and run.state.is_final()]

        parameters = {
            "collection": "survey",
            "scenes": str(tmp_path / "scenes"),
            "root": str(root),
            "store": "mine",
            "grid": {"size": 32},
            "dinov3": {"model": str(tiny_vit), "device": "cpu"},
        }
        with worker(server, "process", tmp_path):
            run = runs.wait(runs.create("embed-collection/collection-process", **parameters).id)
            assert run.state is not None
            assert run.state.is_completed(), run.state.message
            (overview,) = wait_for(overviews, "a run of qa-overview", timeout=400)
            assert overview.state.is_completed(), overview.state.message
            assert overview.parameters == {"root": str(root), "store": "mine"}
            page = (root / "qa-overview.html").read_text()
            assert "survey--" in page
            # A run that changes nothing starts nothing.
            again = runs.wait(runs.create("embed-collection/collection-process", **parameters).id)
            assert again.state is not None
            assert again.state.is_completed(), again.state.message
            assert len(overviews()) == 1
