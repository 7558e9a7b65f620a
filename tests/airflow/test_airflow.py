"""Real Airflow, in an environment of its own, runs the DAG against a real Prefect server."""

from __future__ import annotations

import json
import os
import re
import runpy
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pyarrow.parquet as pq
import pytest

from examples.landscape import make_scene
from tests.support.environments import SOURCES, environment
from tests.support.prefect_server import PrefectServer
from tests.support.proxy import Fault, Proxy, proxy_before
from tests.support.scenes import write_scene
from tests.support.servers import HOST, ServerProcess, free_port
from tests.support.waiting import wait_for
from tests.support.webhook import COLLECTION, Deployment, ask, deploy, deploy_to, process_worker

DAG = "raster_prep_and_embeddings"
COLLECTION_DAG = "collection_embeddings"
START_S = 180.0
OVER = ("success", "failed")
"""States in which a task, and a DAG run of one task, has ended."""


def test_the_forms_of_the_dags_are_those_of_the_flows() -> None:
    forms = runpy.run_path(str(SOURCES["airflow"] / "write_form.py"))["forms"]()
    assert sorted(forms) == sorted((SOURCES["airflow"] / "dags").glob("*.json"))
    for file, text in forms.items():
        assert file.read_text() == text, "run: python airflow/write_form.py"


def test_every_dag_file_has_the_words_that_airflow_looks_for() -> None:
    for file in (SOURCES["airflow"] / "dags").glob("*.py"):
        text = file.read_text().lower()
        assert "airflow" in text
        assert "dag" in text


@pytest.fixture(scope="session")
def airflow_python() -> Path:
    """Return the Python of an environment with Airflow."""
    return environment("airflow")


@dataclass(frozen=True)
class Airflow:
    """Airflow's API server, scheduler, DAG processor and triggerer."""

    home: Path
    client: httpx.Client
    prefect: Proxy
    """Before Prefect's server; nothing of Airflow reaches that but through it."""
    dag: str = DAG
    """The DAG that the methods concern."""

    def trigger(self, run_id: str, **params: Any) -> httpx.Response:
        """Start a DAG run."""
        body = {"dag_run_id": run_id, "logical_date": None, "conf": params}
        return self.client.post(f"/api/v2/dags/{self.dag}/dagRuns", json=body)

    def task(self, run_id: str) -> dict[str, Any]:
        """Return the run's task instance."""
        answer = self.client.get(f"/api/v2/dags/{self.dag}/dagRuns/{run_id}/taskInstances/embed")
        found: dict[str, Any] = answer.raise_for_status().json()
        return found

    def wait(self, run_id: str, *states: str, timeout: float = 240) -> dict[str, Any]:
        """Return the task instance, once it is in one of the states."""

        def there() -> dict[str, Any] | None:
            task = self.task(run_id)
            if task["state"] in OVER and task["state"] not in states:
                pytest.fail(f"{run_id} is {task['state']}, not {states}; its log:\n{self.log(run_id)}")
            return task if task["state"] in states else None

        found: dict[str, Any] = wait_for(there, f"{run_id} to be {states}", timeout)
        return found

    def wait_until_over(self, run_id: str) -> None:
        """Return once the DAG run has noticed that its task has ended: it can be neither cleared nor deleted before."""
        run = f"/api/v2/dags/{self.dag}/dagRuns/{run_id}"
        wait_for(lambda: self.client.get(run).json()["state"] in OVER, f"{run_id} to be over")

    def wait_until_let_go(self, run_id: str) -> None:
        """Return once the executor has reported both parts of the task, until and after its deferral.

        Airflow knows a task by DAG, run id and try: a report that comes late is taken for one on the task of a new DAG
        run of the same id, and fails that.
        """
        reports = re.compile(rf"Received executor event with state success .*run_id='{run_id}'")
        wait_for(lambda: len(reports.findall((self.home / "scheduler.out").read_text())) >= 2, "the executor's reports")

    def wait_until_watched(self, run_id: str) -> None:
        """Return once the triggerer waits for the flow run: what ends the task before does not reach the trigger."""
        self.wait(run_id, "deferred")
        logs = (self.home / "logs").rglob

        def watched() -> bool:
            return any(
                f"run_id={run_id}/" in str(path) and "waiting for flow run" in path.read_text()
                for path in logs("*trigger*.log")
            )

        wait_for(watched, "the triggerer to take over")

    def xcom(self, run_id: str, key: str) -> Any:
        """Return the value that the task pushed."""
        path = f"/api/v2/dags/{self.dag}/dagRuns/{run_id}/taskInstances/embed/xcomEntries/{key}"
        return self.client.get(path).raise_for_status().json()["value"]

    def log(self, run_id: str, attempt: int = 1) -> str:
        """Return the task's log."""
        path = f"/api/v2/dags/{self.dag}/dagRuns/{run_id}/taskInstances/embed/logs/{attempt}"
        return self.client.get(path).raise_for_status().text


@pytest.fixture(scope="session")
def prefect_behind(prefect: PrefectServer) -> Iterator[Proxy]:
    """Start a proxy before the session's Prefect server."""
    with proxy_before(prefect.api_url) as proxy:
        yield proxy


@pytest.fixture(scope="session")
def airflow(airflow_python: Path, prefect_behind: Proxy, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Airflow]:
    """Start Airflow; its connection names the proxy before Prefect."""
    home, port = tmp_path_factory.mktemp("airflow"), free_port()
    url = f"http://{HOST}:{port}"
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT", "AIRFLOW"))} | {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "false",
        "AIRFLOW__CORE__DAGS_FOLDER": str(SOURCES["airflow"] / "dags"),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(SOURCES["airflow"] / "plugins"),
        "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
        "AIRFLOW__CORE__PARALLELISM": "2",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "true",
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{url}/execution/",
        "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "false",
        "AIRFLOW__API__BASE_URL": url,
        "AIRFLOW__API_AUTH__JWT_SECRET": "only-for-this-test-and-long-enough-for-the-signature",
        "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "false",
        "AIRFLOW_CONN_PREFECT_DEFAULT": json.dumps({"conn_type": "http", "host": f"{prefect_behind.endpoint_url}/api"}),
        "RASTER_EMBEDDINGS_POLL_SECONDS": "1",
        "PATH": f"{airflow_python.parent}:{os.environ['PATH']}",
    }
    command = [str(airflow_python), "-m", "airflow"]
    subprocess.run([*command, "db", "migrate"], env=environment, check=True, capture_output=True, timeout=300)
    parts = {
        "api": ["api-server", "--host", HOST, "--port", str(port), "--workers", "1"],
        "scheduler": ["scheduler", "--skip-serve-logs"],
        "dags": ["dag-processor"],
        "triggerer": ["triggerer", "--skip-serve-logs"],
    }
    processes = [ServerProcess([*command, *rest], home / f"{name}.out", environment) for name, rest in parts.items()]
    try:
        with httpx.Client(base_url=url, timeout=30) as client:

            def healthy() -> bool:
                for process in processes:
                    process.check()
                try:
                    health = client.get("/api/v2/monitor/health").json()
                except httpx.HTTPError:
                    return False
                return all(health[part]["status"] == "healthy" for part in ("scheduler", "triggerer", "dag_processor"))

            wait_for(healthy, "Airflow", START_S)
            token = client.get("/auth/token").raise_for_status().json()["access_token"]
            client.headers["Authorization"] = f"Bearer {token}"
            wait_for(lambda: client.get(f"/api/v2/dags/{DAG}").is_success, "the DAG", START_S)
            yield Airflow(home, client, prefect_behind)
    finally:
        for process in processes:
            process.end()


@pytest.fixture
def served(prefect: PrefectServer, tmp_path: Path) -> Iterator[Deployment]:
    """Deploy the real flow, with a worker that runs it."""
    pool = f"airflow-{tmp_path.name}"
    with process_worker(prefect, pool, tmp_path):
        yield deploy_to(prefect, pool, root=str(tmp_path / "store"))


class TestWithAirflow:
    """On a real Airflow."""

    pytestmark = [pytest.mark.airflow, pytest.mark.timeout(600)]  # noqa: RUF012

    def test_there_is_no_prefect_in_its_environment(self, airflow_python: Path) -> None:
        done = subprocess.run([airflow_python, "-c", "import prefect"], capture_output=True, text=True)
        assert "ModuleNotFoundError" in done.stderr

    def test_a_raster_becomes_a_dataset_and_the_manifest_is_in_xcom(
        self, airflow: Airflow, served: Deployment, tmp_path: Path
    ) -> None:
        scene = make_scene(tmp_path / "scene", width=1024, height=1024).raster
        parameters = {"raster": str(scene), "dataset_id": "by-airflow", "execution": {"batch_size": 4}}
        assert airflow.trigger("success", deployment=served.name, **parameters).status_code == 200
        airflow.wait("success", "deferred")
        airflow.wait("success", "success")
        manifest = f"{tmp_path}/store/datasets/by-airflow/manifest.json"
        assert airflow.xcom("success", "manifest") == manifest
        assert json.loads(Path(manifest).read_bytes())["state"] == "ready"
        (run,) = served.runs()
        assert run["id"] == airflow.xcom("success", "flow_run_id")
        assert run["idempotency_key"] == f"airflow:{DAG}:success:embed:-1:1"
        assert run["parameters"] == parameters | {"root": f"{tmp_path}/store"}  # the rest is the deployment's

        assert airflow.trigger("success", deployment=served.name, **parameters).status_code == 409
        airflow.wait_until_over("success")
        airflow.wait_until_let_go("success")
        airflow.client.delete(f"/api/v2/dags/{DAG}/dagRuns/success").raise_for_status()
        assert airflow.trigger("success", deployment=served.name, **parameters).status_code == 200
        airflow.wait("success", "success")
        assert len(served.runs()) == 1  # the same DAG run id and try are the same flow run

    def test_scenes_become_a_collection_and_the_catalogue_is_in_xcom(
        self, airflow: Airflow, prefect: PrefectServer, tiny_vit: Path, tmp_path: Path
    ) -> None:
        airflow = replace(airflow, dag=COLLECTION_DAG)
        wait_for(lambda: airflow.client.get(f"/api/v2/dags/{COLLECTION_DAG}").is_success, "the DAG", START_S)
        for number in range(2):
            write_scene(tmp_path / "scenes" / f"{number}.tif", number)
        parameters = {
            "collection": "by-airflow",
            "scenes": str(tmp_path / "scenes"),
            "grid": {"size": 32},
            "dinov3": {"model": str(tiny_vit)},
        }
        pool = f"airflow-{tmp_path.name}"
        with process_worker(prefect, pool, tmp_path):
            deployment = deploy_to(prefect, pool, COLLECTION, root=str(tmp_path / "store"))
            airflow.trigger("many", deployment=deployment.name, **parameters).raise_for_status()
            airflow.wait("many", "success")
        catalogue = f"{tmp_path}/store/collections/by-airflow/items.parquet"
        assert airflow.xcom("many", "catalogue") == catalogue
        assert pq.read_table(catalogue)["state"].to_pylist() == ["ready", "ready"]
        (run,) = deployment.runs()
        assert run["parameters"]["collection"] == "by-airflow"
        assert "workers" not in run["parameters"]  # What is left at its default is the deployment's to choose.
        wrong = airflow.trigger("wrong", collection="by-airflow", scenes=5)
        assert (wrong.status_code, "scenes" in wrong.text) == (400, True)

    def test_a_failing_flow_fails_the_task_with_its_message_and_link(
        self, airflow: Airflow, served: Deployment, tmp_path: Path
    ) -> None:
        missing = str(tmp_path / "missing.tif")
        airflow.trigger("failure", deployment=served.name, raster=missing).raise_for_status()
        airflow.wait("failure", "failed")
        log = airflow.log("failure")
        (run,) = served.runs()
        assert "there is no such file" in log
        assert missing in log
        assert f"/runs/flow-run/{run['id']}" in log
        # cleared, it is another try and another flow run
        airflow.wait_until_over("failure")
        body = {"dry_run": False, "dag_run_id": "failure", "only_failed": True}
        airflow.client.post(f"/api/v2/dags/{DAG}/clearTaskInstances", json=body).raise_for_status()
        wait_for(lambda: len(served.runs()) == 2, "the second try", 120)
        assert {run["idempotency_key"][-1] for run in served.runs()} == {"1", "2"}

    @pytest.mark.parametrize("state", ["failed", "success"])
    def test_ending_the_task_by_hand_cancels_the_flow_run(
        self, airflow: Airflow, prefect: PrefectServer, state: str
    ) -> None:
        deployment = deploy(prefect)  # nothing runs it: it stays scheduled
        airflow.trigger(f"by-hand-{state}", deployment=deployment.name, raster="/a.tif").raise_for_status()
        airflow.wait_until_watched(f"by-hand-{state}")
        path = f"/api/v2/dags/{DAG}/dagRuns/by-hand-{state}/taskInstances/embed"
        airflow.client.patch(path, json={"new_state": state}).raise_for_status()
        wait_for(lambda: deployment.runs()[0]["state"]["type"] == "CANCELLED", "the run to be cancelled", 120)
        assert airflow.task(f"by-hand-{state}")["state"] == state

    def test_a_flow_run_that_is_cancelled_in_prefect_fails_the_task(
        self, airflow: Airflow, prefect: PrefectServer
    ) -> None:
        deployment = deploy(prefect)
        airflow.trigger("cancelled", deployment=deployment.name, raster="/a.tif").raise_for_status()
        airflow.wait("cancelled", "deferred")
        (run,) = deployment.runs()
        state = {"state": {"type": "CANCELLED", "name": "Cancelled", "message": "by a person"}, "force": True}
        ask("POST", f"{prefect.api_url}/flow_runs/{run['id']}/set_state", state)
        airflow.wait("cancelled", "failed")
        assert "flow run Cancelled: by a person" in airflow.log("cancelled")

    @pytest.mark.parametrize(
        ("params", "named"),
        [
            ({"raster": 5}, "raster"),
            ({"raster": "/a.tif", "grid": {"size": 17}}, "17 is not a multiple of 16"),
            ({"raster": "/a.tif", "deployment": "no-slash"}, "deployment"),
            ({}, "raster"),
        ],
    )
    def test_wrong_parameters_start_nothing(self, airflow: Airflow, params: dict[str, Any], named: str) -> None:
        answer = airflow.trigger("wrong", **params)
        assert answer.status_code == 400
        assert named in answer.text

    def test_a_busy_prefect_is_asked_again(
        self, airflow: Airflow, prefect: PrefectServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        deployment = deploy(prefect)  # nothing runs it
        faults: dict[str, list[Fault]] = {
            "create_flow_run": ["unavailable", "unanswered"],  # the second is created, and not told
            "set_state": ["unavailable"],
        }

        def fault(_method: str, path: str) -> Fault | None:
            left = next((left for end, left in faults.items() if path.endswith(end)), [])
            return left.pop(0) if left else None

        monkeypatch.setattr(airflow.prefect, "fault", fault)
        airflow.trigger("busy", deployment=deployment.name, raster="/a.tif").raise_for_status()
        airflow.wait_until_watched("busy")
        (run,) = deployment.runs()
        assert run["id"] == airflow.xcom("busy", "flow_run_id")
        path = f"/api/v2/dags/{DAG}/dagRuns/busy/taskInstances/embed"
        airflow.client.patch(path, json={"new_state": "failed"}).raise_for_status()
        wait_for(lambda: deployment.runs()[0]["state"]["type"] == "CANCELLED", "the run to be cancelled", 120)
        assert not any(faults.values())

    def test_a_missing_deployment_is_named(self, airflow: Airflow) -> None:
        airflow.trigger("missing", deployment="raster-embeddings/nowhere", raster="/a.tif").raise_for_status()
        airflow.wait("missing", "failed")
        assert "Prefect has no deployment 'raster-embeddings/nowhere'" in airflow.log("missing")
