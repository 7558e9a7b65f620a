"""prefect.yaml is right before it meets a server, and `make deploy` may be run any number of times."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import prefect
import pytest
import yaml
from prefect import Flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import DeploymentScheduleCreate, WorkPoolCreate
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterId
from prefect.client.schemas.schedules import CronSchedule
from prefect.events.schemas.deployment_triggers import DeploymentEventTrigger, DeploymentTriggerTypes
from prefect.flows import load_flow_from_entrypoint
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.utilities.callables import parameter_schema
from prefect.utilities.templating import apply_values
from prefect_docker import DockerWorker
from pydantic import TypeAdapter

from scripts.work_pools import POOLS, base_job_template, default_limit, make_pools
from tasks.events import COLLECTION_EVENT
from tests.support.deployed import deploy
from tests.support.http import request
from tests.support.prefect_server import PrefectServer, prefect_server
from tests.support.waiting import wait_for

PROJECT = Path(__file__).parents[2]
TEXT = (PROJECT / "prefect.yaml").read_text()
FILE: dict[str, Any] = yaml.safe_load(TEXT)
DEPLOYMENTS: list[dict[str, Any]] = FILE["deployments"]

# Prefect itself takes a misspelt key without a word.
TOP_KEYS = {"name", "prefect-version", "definitions", "deployments"}
DEPLOYMENT_KEYS = {
    "name", "version", "tags", "description", "schedules", "concurrency_limit", "entrypoint", "parameters",
    "enforce_parameter_schema", "build", "push", "pull", "work_pool", "triggers",
}  # fmt: skip
REQUIRED_KEYS = {"name", "version", "tags", "description", "entrypoint", "enforce_parameter_schema", "work_pool"}
STEPS = {
    "prefect.deployments.steps.run_shell_script": {"id", "script"},
    "prefect.deployments.steps.set_working_directory": {"directory"},
    "prefect_docker.deployments.steps.build_docker_image": {
        "id", "requires", "image_name", "tag", "dockerfile", "target", "rm", "pull", "buildargs",
    },
}  # fmt: skip
SCHEDULE_KEYS = {"cron", "timezone", "slug", "active", "parameters"}
VERSION = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["version"]


def _id(deployment: dict[str, Any]) -> str:
    return f"{deployment['entrypoint'].split(':')[1]}-{deployment['name']}"


every_deployment = pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=_id)


def test_the_file_has_no_unknown_key_and_is_for_the_installed_prefect() -> None:
    assert set(FILE) == TOP_KEYS
    assert FILE["prefect-version"] == prefect.__version__


def test_the_deployments_are_those_that_the_documents_name() -> None:
    names = {f"{load_flow_from_entrypoint(d['entrypoint']).name}/{d['name']}" for d in DEPLOYMENTS}
    assert len(names) == len(DEPLOYMENTS)
    # Prefect's pages list deployments by the part behind the slash, so this part alone must say what a deployment does.
    assert len({d["name"] for d in DEPLOYMENTS}) == len(DEPLOYMENTS)
    documented = set(
        re.findall(r"^\| `([a-z-]+/[a-z-]+)` \|", (PROJECT / "docs/deployment.md").read_text(), re.MULTILINE)
    )
    assert names == documented


@every_deployment
def test_a_deployment_says_what_it_is_in_keys_that_prefect_knows(deployment: dict[str, Any]) -> None:
    assert set(deployment) <= DEPLOYMENT_KEYS
    assert set(deployment) >= REQUIRED_KEYS
    assert deployment["version"] == "{{ package.stdout }}"
    assert deployment["enforce_parameter_schema"] is True
    assert "raster-embeddings" in deployment["tags"]
    assert deployment["description"].strip().endswith(".")
    for step in (*deployment.get("build", []), *deployment.get("pull", [])):
        assert len(step) == 1
        name, inputs = next(iter(step.items()))
        assert set(inputs) <= STEPS[name]
    if limit := deployment.get("concurrency_limit"):
        assert set(limit) == {"limit", "collision_strategy"}
        assert limit["collision_strategy"] == "ENQUEUE"
        assert limit["limit"] >= 1


@every_deployment
def test_every_placeholder_is_filled_by_an_earlier_step_or_the_environment(deployment: dict[str, Any]) -> None:
    known: set[str] = set()

    def unfilled(part: Any) -> list[str]:
        names = re.findall(r"{{\s*(\S+?)\s*}}", json.dumps(part))
        return [n for n in names if not n.startswith("$") and n.split(".")[0] not in known]

    for step in deployment.get("build", []):
        assert unfilled(step) == []
        known |= {inputs["id"] for inputs in step.values()}
    # Prefect's server fills the placeholders of a trigger, when an event arrives.
    assert unfilled({key: value for key, value in deployment.items() if key not in ("build", "triggers")}) == []


@every_deployment
def test_the_parameters_of_a_trigger_are_those_of_the_flow(deployment: dict[str, Any]) -> None:
    schema = parameter_schema(load_flow_from_entrypoint(str(PROJECT / deployment["entrypoint"]))).model_dump()
    for given in deployment.get("triggers", []):
        trigger = TypeAdapter(DeploymentTriggerTypes).validate_python(given)
        assert isinstance(trigger, DeploymentEventTrigger)
        assert trigger.expect == {COLLECTION_EVENT}
        assert set(trigger.parameters or {}) <= set(schema["properties"])
        assert trigger.match_related.root["prefect.resource.name"] == deployment["work_pool"]["name"]


@every_deployment
def test_the_entrypoint_is_a_flow_and_its_schema_takes_the_parameters(deployment: dict[str, Any]) -> None:
    flow = load_flow_from_entrypoint(str(PROJECT / deployment["entrypoint"]))
    assert isinstance(flow, Flow)
    schema = parameter_schema(flow).model_dump()
    given = deployment.get("parameters", {})
    assert set(given) <= set(schema["properties"])
    scheduled = deployment.get("schedules", [])
    for schedule in scheduled:
        assert set(schedule) <= SCHEDULE_KEYS
        CronSchedule(cron=schedule["cron"], timezone=schedule.get("timezone"))
        assert schedule["slug"]
    # what nobody fills in must have a default where nobody is asked
    properties = {**schema, "required": schema.get("required", []) if scheduled else []}
    for parameters in (given, *({**given, **schedule.get("parameters", {})} for schedule in scheduled)):
        jsonschema.validate(parameters, properties)
        flow.validate_parameters({**_fillers(schema), **parameters})


@every_deployment
def test_a_run_that_starts_other_runs_starts_them_in_a_pool_of_its_own_kind(deployment: dict[str, Any]) -> None:
    names = {f"{load_flow_from_entrypoint(d['entrypoint']).name}/{d['name']}": d["name"] for d in DEPLOYMENTS}
    schema = parameter_schema(load_flow_from_entrypoint(str(PROJECT / deployment["entrypoint"]))).model_dump()
    for parameter, field in schema["properties"].items():
        started = deployment.get("parameters", {}).get(parameter, field.get("default"))
        if "deployment" in parameter and started is not None:
            assert names[started].rpartition("-")[2] == deployment["name"].rpartition("-")[2]


def _fillers(schema: dict[str, Any]) -> dict[str, Any]:
    """Return a value for each parameter that a person must give."""
    by_type = {"string": "x", "integer": 1, "number": 1.0, "boolean": False, "array": [], "object": {}}
    by_name = {"query": {"tile": "r000000_c000000"}}
    required = {name: schema["properties"][name] for name in schema.get("required", [])}
    return {name: by_name[name] if name in by_name else by_type[field["type"]] for name, field in required.items()}


@every_deployment
def test_the_job_variables_are_the_work_pools_own(deployment: dict[str, Any]) -> None:
    pool = deployment["work_pool"]
    assert set(pool) <= {"name", "job_variables", "work_queue_name"}
    given = pool.get("job_variables", {})
    image = re.sub(r"{{ (analytics|processing)\.image }}", "analytics-embeddings:0.2.0", given.get("image", ""))
    jsonschema.validate(given | ({"image": image} if image else {}), base_job_template(pool["name"])["variables"])
    # Another run waits for these runs, so no limit may hold them back.
    awaited = deployment["entrypoint"].startswith(("flows/embed_shards.py:", "flows/embed_scenes.py:"))
    assert ("work_queue_name" in pool) == awaited
    # the heartbeats that the automation of scripts/deploy.py misses when a run is dead
    assert int(given["env"]["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"]) >= 30
    if pool["name"] != "process":
        assert re.fullmatch(r"{{ (analytics|processing)\.image }}", given["image"])
        assert given["env"]["PREFECT_HOME"].startswith("/home/raster/")
        assert deployment["pull"] == FILE["definitions"]["in_image"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"privileged": True},
        {"volumes": ["/:/host"]},
        {"network_mode": "host"},
        {"networks": ["bridge"]},
        {"command": "sh"},
        {"container_create_kwargs": {"cap_add": ["ALL"]}},
        {"container_create_kwargs.privileged": "true"},
        {"image": "evil.example/analytics-embeddings:1"},
        {"image": "alpine:3"},
        {"image": None},
        {"working_dir": "/"},
    ],
    ids=lambda wrong: next(iter(wrong)),
)
def test_no_run_may_ask_for_more_than_the_pool_gives(wrong: dict[str, Any]) -> None:
    for pool in POOLS:
        variables = base_job_template(pool)["variables"]
        jsonschema.validate({"env": {"A": "b"}, "env.C": "d"}, variables)
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, variables)


@pytest.mark.parametrize("pool", ["docker", "docker-gpu"])
def test_a_container_has_no_privileges_whatever_a_run_asks_for(pool: str) -> None:
    asked = {"privileged": True, "volumes": ["/:/host"], "command": "sh", "network_mode": "host", "image": "a:1"}
    values = asked | {"container_create_kwargs": {"privileged": True, "cap_add": ["ALL"]}}
    template = base_job_template(pool, network="of-the-stack")
    made = DockerWorker.job_configuration(**apply_values(template["job_configuration"], values))
    assert not made.privileged
    assert made.volumes == ["raster-embeddings-hub:/home/raster/.cache/huggingface"]
    assert made.networks == ["of-the-stack"]
    assert made.network_mode is None
    assert made.command is None
    created = made.container_create_kwargs
    assert created["cap_drop"] == ["ALL"]
    assert created["security_opt"] == ["no-new-privileges:true"]
    assert set(created) - {"shm_size", "device_requests"} == {"cap_drop", "security_opt", "pids_limit"}


def test_a_gpu_container_asks_docker_for_gpus() -> None:
    from docker.types import DeviceRequest, HostConfig

    asked = base_job_template("docker-gpu")["job_configuration"]["container_create_kwargs"]
    requests = [DeviceRequest(**request) for request in asked["device_requests"]]
    config = HostConfig(version="1.41", shm_size=asked["shm_size"], device_requests=requests)
    assert config["ShmSize"] == 2 * 2**30
    assert config["DeviceRequests"][0]["Count"] == -1
    assert config["DeviceRequests"][0]["Capabilities"] == [["gpu"]]


@pytest.fixture(scope="module")
def empty_server() -> Iterator[PrefectServer]:
    """Start a server that no other test fills."""
    with prefect_server(few_certificates=True) as server:
        yield server


def _everything(server: PrefectServer) -> dict[str, Any]:
    """Return everything that deploying creates, without its times."""
    found = {}
    for kind in ("deployments", "work_pools", "block_documents", "block_types", "automations", "flows", "work_queues"):
        # "prefect" pools and types come with the server
        response = request("POST", f"{server.api_url}/{kind}/filter", json={"limit": 200}, timeout=30)
        response.raise_for_status()
        # Prefect replaces the automations of a deployment by equal ones with new ids.
        hidden = {"updated", "last_polled"} | ({"id", "created"} if kind == "automations" else set())
        found[kind] = sorted((_without(item, hidden) for item in response.json()), key=str)
    return found


def _without(value: Any, hidden: set[str]) -> Any:
    if isinstance(value, dict):
        return {k: _without(v, hidden) for k, v in value.items() if k not in hidden}
    return [_without(item, hidden) for item in value] if isinstance(value, list) else value


@pytest.mark.slow
def test_deploying_twice_changes_nothing(empty_server: PrefectServer, tmp_path: Path) -> None:
    settings = {"RASTER_ROOT": str(tmp_path), "AWS_ACCESS_KEY_ID": "reader", "AWS_SECRET_ACCESS_KEY": "s3cret/+x"}
    printed = deploy(empty_server, "*/*-process", **settings)
    assert "s3cret" not in printed
    assert printed.count("successfully created") == sum(d["name"].endswith("-process") for d in DEPLOYMENTS)
    assert "prefect init" not in printed
    # One line for each deployment. The other lines are about the pool, the block, the automation and what to do next.
    assert len(printed.splitlines()) <= printed.count("successfully created") + 8
    first = _everything(empty_server)
    deploy(empty_server, "*/*-process", **settings)
    assert _everything(empty_server) == first
    # without RASTER_ROOT the block stays as it is
    deploy(empty_server, "*/*-process")
    assert _everything(empty_server) == first

    assert {pool["name"] for pool in first["work_pools"]} == {"process"}
    assert 1 <= default_limit() <= 2 * len(os.sched_getaffinity(0))
    limits = {(queue["work_pool_name"], queue["name"]): queue["concurrency_limit"] for queue in first["work_queues"]}
    assert limits["process", "default"] == default_limit()
    assert limits["process", "shares"] is None
    deployed = {deployment["name"]: deployment for deployment in first["deployments"]}
    assert deployed["embed-process"]["version"] == VERSION
    assert all(deployment["enforce_parameter_schema"] for deployment in first["deployments"])
    assert len(first["deployments"]) == sum(d["name"].endswith("-process") for d in DEPLOYMENTS)
    (block,) = first["block_documents"]
    assert block["name"] == "raster-embeddings"
    assert block["data"]["root"] == str(tmp_path)
    assert "s3cret" not in json.dumps(first)
    assert all(automation["enabled"] for automation in first["automations"])
    # One ends runs whose process died, and one starts the overview after an update of a collection.
    automations = {automation["trigger"]["posture"]: automation for automation in first["automations"]}
    assert set(automations) == {"Proactive", "Reactive"}
    assert len(first["automations"]) == 2
    automation = automations["Proactive"]
    assert automation["actions"] == [
        {**automation["actions"][0], "type": "change-flow-run-state", "state": "CRASHED"},
    ]

    changed = deploy(empty_server, "*/*-process", **(settings | {"RASTER_ROOT": str(tmp_path / "other")}))
    assert "block object-store/raster-embeddings" in changed
    (block,) = _everything(empty_server)["block_documents"]
    assert block["data"]["root"] == str(tmp_path / "other")


def _documented_schedules() -> list[dict[str, Any]]:
    """Return the schedules in docs/collections.md."""
    (block,) = re.findall(r"```yaml\n(    schedules:.*?)```", (PROJECT / "docs/collections.md").read_text(), re.DOTALL)
    found: list[dict[str, Any]] = yaml.safe_load(block)["schedules"]
    return found


@pytest.mark.slow
def test_the_server_makes_runs_of_the_documented_schedule(empty_server: PrefectServer, tmp_path: Path) -> None:
    (schedule,) = _documented_schedules()
    assert set(schedule) <= SCHEDULE_KEYS
    deploy(empty_server, "embed-collection/collection-process", RASTER_ROOT=str(tmp_path))
    with temporary_settings({PREFECT_API_URL: empty_server.api_url}), get_client(sync_client=True) as client:
        deployment = client.read_deployment_by_name("embed-collection/collection-process")
        cron = CronSchedule(cron=schedule["cron"], timezone=schedule["timezone"])
        wanted = DeploymentScheduleCreate(schedule=cron, parameters=schedule["parameters"], slug=schedule["slug"])
        client.create_deployment_schedules(deployment.id, [wanted])
        chosen = DeploymentFilter(id=DeploymentFilterId(any_=[deployment.id]))
        runs = wait_for(lambda: client.read_flow_runs(deployment_filter=chosen), "runs of the schedule", every=1)
        client.delete_deployment(deployment.id)
    assert {run.expected_start_time.hour for run in runs} == {2}
    assert all(run.parameters == deployment.parameters | schedule["parameters"] for run in runs)


def _row(server: PrefectServer, name: str, *arguments: str) -> str:
    """Return the row of a table that a command of Prefect prints."""
    command = [sys.executable, "-m", "prefect", *arguments]
    environment = server.environment() | {"COLUMNS": "200"}
    printed = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    return next(line for line in printed.splitlines() if f" {name} " in line)


@pytest.mark.slow
def test_a_limit_and_a_network_are_kept(empty_server: PrefectServer) -> None:
    with temporary_settings({PREFECT_API_URL: empty_server.api_url}), get_client(sync_client=True) as client:
        make_pools(client, POOLS, network="of-the-stack", limit=7)
        make_pools(client, POOLS, network=None, limit=None)
        pools = {name: client.read_work_pool(name).base_job_template["job_configuration"] for name in POOLS}
        limits = {name: client.read_work_queue_by_name("default", name).concurrency_limit for name in POOLS}
    assert limits == {"docker": 7, "docker-gpu": None, "process": 7}
    # The limit belongs to the queue, so that the list of pools does not show it.
    assert _row(empty_server, "default", "work-queue", "ls", "--pool", "process").split()[-2] == "7"
    assert _row(empty_server, "process", "work-pool", "ls").split()[-2] == "None"
    assert pools["docker"]["networks"] == pools["docker-gpu"]["networks"] == ["of-the-stack"]
    assert "networks" not in pools["process"]


@pytest.mark.slow
def test_a_work_pool_of_ones_own_must_exist_and_stays_as_it_is(empty_server: PrefectServer) -> None:
    with temporary_settings({PREFECT_API_URL: empty_server.api_url}), get_client(sync_client=True) as client:
        with pytest.raises(SystemExit, match="names the work pool 'own', which the server does not have: create it"):
            make_pools(client, ["own"], network=None, limit=None)
        client.create_work_pool(WorkPoolCreate(name="own", type="kubernetes"))
        before = client.read_work_pool("own")
        make_pools(client, ["own"], network=None, limit=None)
        assert client.read_work_pool("own") == before
        client.delete_work_pool("own")


@pytest.mark.slow
def test_deployments_with_the_names_of_0_1_are_pointed_out(empty_server: PrefectServer) -> None:
    flow = request("POST", f"{empty_server.api_url}/flows/", json={"name": "reconcile-uploads"}, timeout=30).json()
    old = {"name": "docker", "flow_id": flow["id"], "tags": ["raster-embeddings"]}
    made = request("POST", f"{empty_server.api_url}/deployments/", json=old, timeout=30).json()
    printed = deploy(empty_server, "qa-report/qa-process")
    assert "prefect deployment delete reconcile-uploads/docker" in printed
    request("DELETE", f"{empty_server.api_url}/deployments/{made['id']}", timeout=30)
    assert "deployment delete" not in deploy(empty_server, "qa-report/qa-process")


@pytest.mark.slow
def test_a_wrong_parameter_is_refused_before_anything_runs(empty_server: PrefectServer) -> None:
    deploy(empty_server, "raster-embeddings/embed-process")
    named = request(
        "GET", f"{empty_server.api_url}/deployments/name/raster-embeddings/embed-process", timeout=30
    ).json()
    create = f"{empty_server.api_url}/deployments/{named['id']}/create_flow_run"

    def answer(**parameters: Any) -> httpx.Response:
        return request("POST", create, json={"parameters": parameters}, timeout=30)

    assert answer(raster="a.tif", workers=2, grid={"size": 224}).status_code == 201
    for wrong in ({"workers": -1}, {"workers": "many"}, {"grid": {"size": 0}}, {"grid": {"no_such": 1}}):
        refused = answer(raster="a.tif", **wrong)
        assert refused.status_code == 409, wrong
    assert answer().status_code == 409

    allowed = {"parameters": {"raster": "a.tif"}, "job_variables": {"env.A": "b", "env": {"C": "d"}}}
    assert request("POST", create, json=allowed, timeout=30).status_code == 201
    # Of the job variables, only those of the pool are taken.
    for unwanted in ({"command": "sh -c id"}, {"working_dir": "/"}, {"privileged": True}):
        body = {"parameters": {"raster": "a.tif"}, "job_variables": unwanted}
        refused = request("POST", create, json=body, timeout=30)
        assert refused.status_code == 422, unwanted
