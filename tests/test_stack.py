"""docker/compose.yaml as far as it can be told without pulling its images."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

PROJECT = Path(__file__).parents[1]
TEXT = (PROJECT / "docker/compose.yaml").read_text()
STACK: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, dict[str, Any]] = STACK["services"]

KEYS = {
    "image", "build", "restart", "networks", "environment", "volumes", "ports", "depends_on", "healthcheck", "command",
    "group_add",
}  # fmt: skip


def test_services_have_known_keys_and_wait_for_what_is_healthy() -> None:
    assert set(SERVICES) == {"postgres", "redis", "server", "services", "s3", "buckets", "webhook", "worker"}
    for name, service in SERVICES.items():
        assert set(service) <= KEYS, name
        assert service["networks"] == ["raster-embeddings"]
        for needed, condition in service.get("depends_on", {}).items():
            assert condition == {"condition": "service_healthy"}
            assert "healthcheck" in SERVICES[needed]
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert (
                source in STACK["volumes"] or (PROJECT / "docker" / source).exists() or source == "/var/run/docker.sock"
            )


def test_nothing_but_loopback_is_published() -> None:
    published = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert published
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_there_is_no_secret_in_the_file_and_the_example_names_every_one() -> None:
    required = set(re.findall(r"\$\{(\w+):\?\}", TEXT))
    example = (PROJECT / "docker/.env.example").read_text()
    assert dict(re.findall(r"^(\w+)=(.*)$", example, re.MULTILINE)) == dict.fromkeys(required, "")
    ignored = (PROJECT / ".gitignore").read_text().splitlines()
    assert "/docker/.env" in ignored


def test_the_worker_serves_the_pool_of_the_deployments_and_the_network_is_theirs() -> None:
    assert "--pool docker " in SERVICES["worker"]["command"]
    environment = dict(re.findall(r"^(\w+)=(.*)$", (PROJECT / "docker/stack.env").read_text(), re.MULTILINE))
    assert environment["DOCKER_NETWORK"] == STACK["networks"]["raster-embeddings"]["name"]
    assert environment["AWS_ENDPOINT_URL"] == SERVICES["webhook"]["environment"]["AWS_ENDPOINT_URL"]
    assert environment["RASTER_ROOT"] == SERVICES["webhook"]["environment"]["UPLOAD_WEBHOOK_ROOT"]
