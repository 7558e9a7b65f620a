"""The stack: docker/compose.yaml as a file, and running with Debian's PostgreSQL, Redis and an S3 server."""

from __future__ import annotations

import os
import re
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from docker import DockerClient
from docker.errors import APIError
from pydantic import SecretStr

from rasterembed.raster.source import default_dataset_id
from rasterembed.store.object_store import ObjectStore
from tests.support.deployed import manifest_of, write_striped_raster
from tests.support.engine import compose_command, local_wheels
from tests.support.http import request
from tests.support.servers import ACCESS_KEY, SECRET_KEY, free_port

PROJECT = Path(__file__).parents[2]
TEXT = (PROJECT / "docker/compose.yaml").read_text()
STACK: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, dict[str, Any]] = STACK["services"]

KEYS = {
    "image", "build", "restart", "networks", "environment", "volumes", "ports", "depends_on", "healthcheck", "command",
    "group_add", "read_only", "tmpfs", "cap_drop", "cap_add", "security_opt",
}  # fmt: skip


def test_services_have_known_keys_and_wait_for_what_is_healthy() -> None:
    assert set(SERVICES) == {
        "postgres",
        "redis",
        "server",
        "services",
        "s3",
        "buckets",
        "webhook",
        "explorer",
        "worker",
    }
    for name, service in SERVICES.items():
        assert set(service) <= KEYS, name
        assert service["networks"] == ["raster-embeddings"]
        for needed, condition in service.get("depends_on", {}).items():
            assert (condition["condition"] == "service_healthy") == ("healthcheck" in SERVICES[needed])
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert (
                source in STACK["volumes"] or (PROJECT / "docker" / source).exists() or source == "/var/run/docker.sock"
            )


def test_nothing_but_loopback_is_published() -> None:
    published = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert published
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_services_have_no_privileges_and_a_password() -> None:
    for name, service in SERVICES.items():
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        # Only images that change their user keep capabilities, and only those with a volume are not read-only.
        assert ("cap_add" in service) == (name in ("postgres", "redis", "s3"))
        assert service.get("read_only", False) == ("cap_add" not in service)
    for name in ("server", "services"):
        assert "PREFECT_SERVER_API_AUTH_STRING" in SERVICES[name]["environment"]
        assert SERVICES[name]["environment"]["PREFECT_SERVER_CORS_ALLOWED_ORIGINS"].startswith("http://127.0.0.1:")
    for name in ("webhook", "worker"):
        assert "PREFECT_API_AUTH_STRING" in SERVICES[name]["environment"]
    assert "--requirepass" in SERVICES["redis"]["command"]
    assert "EXPLORER_TOKEN" in SERVICES["explorer"]["environment"]


def test_there_is_no_secret_in_the_file_and_the_example_names_every_one() -> None:
    required = set(re.findall(r"\$\{(\w+):\?\}", TEXT))
    example = (PROJECT / "docker/.env.example").read_text()
    given = dict(re.findall(r"^(\w+)=(.*)$", example, re.MULTILINE))
    assert given == dict.fromkeys(required, "") | {"COMPOSE_PROJECT_NAME": "raster-embeddings"}
    ignored = (PROJECT / ".gitignore").read_text().splitlines()
    assert "/docker/.env" in ignored


def test_the_worker_serves_the_pool_of_the_deployments_and_the_network_is_theirs() -> None:
    assert "--pool docker " in SERVICES["worker"]["command"]
    environment = dict(re.findall(r"^(\w+)=(.*)$", (PROJECT / "docker/stack.env").read_text(), re.MULTILINE))
    assert environment["DOCKER_NETWORK"] == STACK["networks"]["raster-embeddings"]["name"]
    assert environment["AWS_ENDPOINT_URL"] == SERVICES["webhook"]["environment"]["AWS_ENDPOINT_URL"]
    assert environment["RASTER_ROOT"] == SERVICES["webhook"]["environment"]["UPLOAD_WEBHOOK_ROOT"]


def test_only_what_cannot_be_pulled_is_replaced_and_how_the_webhook_is_announced() -> None:
    replaced = yaml.safe_load((PROJECT / "docker/compose.ci.yaml").read_text())["services"]
    pulled = {name for name, service in SERVICES.items() if "build" not in service}
    assert {name for name, service in replaced.items() if "build" in service} == pulled
    assert set(replaced) - pulled == {"buckets"}


PROJECT_NAME = "raster-embeddings-test"
PREFECT_PASSWORD = "fdb97531eca86420"
EXPLORER_TOKEN = "13579bdf02468ace"
NETWORK = STACK["networks"]["raster-embeddings"]["name"]


@dataclass(frozen=True)
class Stack:
    """The stack, as its operator has it in a shell."""

    directory: Path
    """With the file of secrets."""
    variables: dict[str, str]
    prefect_port: int
    s3_port: int
    explorer_port: int

    def run(self, command: str) -> str:
        """Return the output of a command that runs after the two files of docs/deployment.md were read."""
        files = f"set -a; . {shlex.quote(str(self.directory / 'env'))}; . docker/stack.env; set +a"
        done = subprocess.run(
            ["sh", "-c", f"{files}; {command}"],
            env=os.environ | self.variables,
            cwd=PROJECT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{done.stdout[-4000:]}\n{self.logs() if 'logs' not in command else ''}"
        return done.stdout

    def logs(self) -> str:
        """Return the last lines of every service's log."""
        return self.run("cd docker && $COMPOSE ps && $COMPOSE logs --tail 30")

    def store(self) -> ObjectStore:
        """Return the store of the datasets, as this host sees it."""
        keys = {"access_key": SecretStr(ACCESS_KEY), "secret_key": SecretStr(SECRET_KEY)}
        return ObjectStore(root="s3://datasets", endpoint_url=f"http://127.0.0.1:{self.s3_port}", **keys)


@pytest.fixture
def stack(engine: DockerClient, tmp_path: Path) -> Iterator[Stack]:
    """Prepare the stack with replaced images, and stop it after the test."""
    secrets = {
        "POSTGRES_PASSWORD": "0123456789abcdef",
        "REDIS_PASSWORD": "02468ace13579bdf",
        "PREFECT_PASSWORD": PREFECT_PASSWORD,
        "S3_ACCESS_KEY": ACCESS_KEY,
        "S3_SECRET_KEY": SECRET_KEY,
        "WEBHOOK_TOKEN": "fedcba9876543210",
        "EXPLORER_TOKEN": EXPLORER_TOKEN,
        "DOCKER_GROUP": str(os.stat("/var/run/docker.sock").st_gid),
        "COMPOSE_PROJECT_NAME": PROJECT_NAME,
        "PREFECT_PORT": str(free_port()),
        "S3_PORT": str(free_port()),
        "EXPLORER_PORT": str(free_port()),
    }
    (tmp_path / "env").write_text("".join(f"{name}={shlex.quote(value)}\n" for name, value in secrets.items()))
    with local_wheels() as wheels:
        chosen = {"COMPOSE": compose_command(), "COMPOSE_FILE": "compose.yaml:compose.ci.yaml", "VENV": sys.prefix}
        client = {"PREFECT_HOME": str(tmp_path / "prefect")}
        ports = [int(secrets[f"{name}_PORT"]) for name in ("PREFECT", "S3", "EXPLORER")]
        stack = Stack(tmp_path, wheels | chosen | client, *ports)
        try:
            yield stack
        finally:
            _remove_run_containers(engine)
            stack.run("cd docker && $COMPOSE down --volumes --timeout 5")
            project = {"label": f"com.docker.compose.project={PROJECT_NAME}"}
            assert engine.containers.list(all=True, filters=project) == []
            assert engine.volumes.list(filters=project) == []
            assert engine.networks.list(names=[NETWORK]) == []
            assert [port for port in ports if _listens(port)] == []


def _remove_run_containers(engine: DockerClient) -> None:
    """Remove the containers of flow runs, which would hold the stack's network: a scheduled sweep may have just begun.

    The worker removes a container when its run has ended. Docker answers 409 while it does so, and 404 afterwards.
    """
    runs = {"network": NETWORK, "label": "io.prefect.flow-run-id"}
    for container in engine.containers.list(all=True, filters=runs):
        try:
            container.remove(force=True)
        except APIError as error:
            if error.status_code not in (404, 409):
                raise
    deadline = time.monotonic() + 60
    while engine.containers.list(all=True, filters=runs):
        assert time.monotonic() < deadline, "a flow run's container was not removed within a minute"
        time.sleep(0.2)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _configurations_of_runs(engine: DockerClient, upload: Future[str]) -> list[dict[str, Any]]:
    """Return how Docker runs the containers of flow runs that exist until the upload has become a dataset."""
    found: dict[str, dict[str, Any]] = {}
    while not upload.done():
        for container in engine.containers.list(filters={"network": NETWORK, "label": "io.prefect.flow-run-id"}):
            found[container.id] = container.attrs["HostConfig"]
        time.sleep(0.5)
    return list(found.values())


def _check_that_strangers_are_refused(stack: Stack) -> None:
    """Check that Prefect's API and Redis want their passwords, and that no run gets more than its pool gives."""
    api = f"http://127.0.0.1:{stack.prefect_port}/api"
    strangers = None, ("prefect", ""), ("prefect", "wrong"), ("admin", PREFECT_PASSWORD)
    for auth in strangers:
        for path in ("block_documents/filter", "deployments/filter", "work_pools/filter"):
            assert request("POST", f"{api}/{path}", json={}, auth=auth).status_code == 401
    with httpx.Client(base_url=api, auth=("prefect", PREFECT_PASSWORD), timeout=30) as client:
        named = client.get("/deployments/name/raster-embeddings/embed-docker").raise_for_status().json()
        for origin, allowed in (("http://evil.example", None), (api.removesuffix("/api"), api.removesuffix("/api"))):
            answer = client.post("/deployments/filter", json={}, headers={"Origin": origin})
            assert answer.headers.get("access-control-allow-origin") == allowed
        wanted: list[dict[str, Any]] = [
            {"privileged": True},
            {"volumes": ["/:/host"]},
            {"network_mode": "host"},
            {"image": "alpine:3"},
            {"container_create_kwargs": {"cap_add": ["ALL"]}},
        ]
        for variables in wanted:
            body = {"parameters": {"raster": "s3://rasters/none.tif"}, "job_variables": variables}
            refused = client.post(f"/deployments/{named['id']}/create_flow_run", json=body)
            assert refused.status_code == 422, variables
    redis = "cd docker && $COMPOSE exec -T redis env -u REDISCLI_AUTH redis-cli"
    assert "NOAUTH" in stack.run(f"{redis} keys '*'")


def _check_the_explorer(stack: Stack, dataset_id: str) -> None:
    """Check that the explorer serves its page, shows the dataset with its raster, and tells strangers nothing."""
    url = f"http://127.0.0.1:{stack.explorer_port}"
    with httpx.Client(base_url=url, timeout=120) as client:
        assert client.get("/api/store").status_code == 401
        assert client.post("/sign-in", data={"token": EXPLORER_TOKEN}).status_code == 303
        assert "<title>" in client.get("/").text
        (card,) = client.get("/api/store").raise_for_status().json()["datasets"]
        assert (card["id"], card["state"], card["rows"]) == (dataset_id, "ready", 48)
        view = client.get(f"/api/datasets/{dataset_id}").raise_for_status().json()
        assert view["prefect_url"] == f"http://127.0.0.1:{stack.prefect_port}/artifacts/key/dataset-{dataset_id}"
        query = {"query": {"tile": f"{dataset_id}/r000002_c000003"}, "k": 5}
        found = client.post(f"/api/datasets/{dataset_id}/search", json=query).raise_for_status().json()
        assert len(found["features"]) == 5
        picture = client.get(f"/api/datasets/{dataset_id}/thumbnails/{found['features'][0]['id']}.webp")
        assert picture.raise_for_status().headers["Content-Type"] == "image/webp"


@pytest.mark.docker
@pytest.mark.timeout(1800)
def test_an_upload_to_the_stack_becomes_a_dataset(stack: Stack, engine: DockerClient, tmp_path: Path) -> None:
    stack.run("make stack")
    pages = request(
        "GET", f"http://127.0.0.1:{stack.prefect_port}/", headers={"Accept": "text/html"}, follow_redirects=True
    )
    assert pages.status_code == 200
    assert "<title>Prefect" in pages.text
    stack.run("make deploy")
    _check_that_strangers_are_refused(stack)
    scene = write_striped_raster(tmp_path / "scene.tif", 6, 8, 224)
    with ThreadPoolExecutor(1) as thread:
        upload = thread.submit(stack.run, f"make upload RASTER={scene}")
        configurations = _configurations_of_runs(engine, upload)
        printed = upload.result()
    assert configurations
    for configuration in configurations:
        assert configuration["Privileged"] is False
        assert configuration["CapDrop"] == ["ALL"]
        assert configuration["SecurityOpt"] == ["no-new-privileges:true"]
        assert [bind.split(":")[0] for bind in configuration["Binds"]] == ["raster-embeddings-hub"]
    assert "s3://rasters/scene.tif: uploaded" in printed
    assert "Completed" in printed
    # it was the notification that started the run, not the sweep
    read = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:8080/metrics').read().decode())"
    metrics = stack.run(f'cd docker && $COMPOSE exec -T webhook python -c "{read}"')
    assert "\nupload_webhook_started_total 1.0\n" in metrics
    dataset_id = default_dataset_id("s3://rasters/scene.tif")
    manifest = manifest_of(stack.store(), dataset_id)
    assert manifest.state == "ready"
    _check_the_explorer(stack, dataset_id)
    assert sum(shard.rows for shard in manifest.shards) == 48
