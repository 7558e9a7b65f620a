"""The work pools of prefect.yaml: what a run may ask for, and how many runs work at once.

A pool's base job template says how a worker starts a run. The templates of this module fix all settings through which a
run could reach the host: privileges, volumes, networks and the command. A deployment or a run may set only a few
variables, and Prefect's server refuses all other variables.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from copy import deepcopy
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
from prefect.exceptions import ObjectNotFound
from prefect.workers.process import ProcessWorker
from prefect_docker import DockerWorker

PROJECT = Path(__file__).parents[1]

POOLS = {"docker": DockerWorker, "docker-gpu": DockerWorker, "process": ProcessWorker}
"""The work pools of prefect.yaml, and the type of worker for each pool."""

LIMITED_POOLS = ("docker", "process")
"""Pools whose queue `default` has a limit of runs. For the pool `docker-gpu`, prefect.yaml limits the deployment."""

DEFAULT_QUEUE = "default"
"""Queue of all runs except those of `embed-shards`. Prefect creates this queue with the pool."""

_VARIABLES = {
    DockerWorker: ("image", "mem_limit", "memswap_limit", "env"),
    ProcessWorker: ("env", "stream_output"),
}
"""Job variables that a deployment or a run may set."""

_HUB_VOLUME = "raster-embeddings-hub:/home/raster/.cache/huggingface"
"""Volume for weights from the hub. It stays when a container is removed, so each host downloads the weights once."""

_HARDENED = {"cap_drop": ["ALL"], "security_opt": ["no-new-privileges:true"], "pids_limit": 2048}
"""Settings of every container: no capabilities, no way to gain privileges, a limit of processes and threads."""

_GPUS = {"shm_size": "2g", "device_requests": [{"driver": "nvidia", "count": -1, "capabilities": [["gpu"]]}]}
"""Settings of a container that uses all NVIDIA GPUs of its host."""

_MEMORY_PER_RUN = 4 * 2**30
"""Bytes of memory for each run in the default limit. A run with the smallest model takes about 1 GiB."""


def base_job_template(pool: str, network: str | None = None) -> dict[str, Any]:
    """Return the base job template of a work pool.

    Args:
        pool: name of the pool.
        network: Docker network that containers join. None lets Docker choose.
    """
    worker = POOLS[pool]
    template = deepcopy(worker.get_default_base_job_template())
    allowed = _VARIABLES[worker]
    variables, configuration = template["variables"], template["job_configuration"]
    variables["properties"] = {name: variables["properties"][name] for name in allowed}
    # `prefect … --job-variable env.NAME=value` sets one variable of the environment. Prefect reads `30` as a number.
    variables["patternProperties"] = {"^env[.]": {"type": ["string", "number", "boolean"]}}
    variables["additionalProperties"] = False
    configuration = {name: value for name, value in configuration.items() if name in allowed}
    if worker is DockerWorker:
        variables["properties"]["image"] |= {
            "type": "string",
            "pattern": f"^({'|'.join(image_names())}):[A-Za-z0-9_.-]+$",
        }
        configuration |= {
            "image_pull_policy": "IfNotPresent",
            "auto_remove": True,
            "stream_output": True,
            "privileged": False,
            "volumes": [_HUB_VOLUME],
            "networks": [network] if network else [],
            "container_create_kwargs": _HARDENED | (_GPUS if pool == "docker-gpu" else {}),
        }
    return {"job_configuration": configuration, "variables": variables}


def image_names() -> list[str]:
    """Return the names of the images that prefect.yaml builds, with the registry's host if it has one."""
    definitions = yaml.safe_load((PROJECT / "prefect.yaml").read_text())["definitions"]
    steps = [step for part in definitions.values() if isinstance(part, dict) for step in part.values()]
    return sorted(step["image_name"] for step in steps if isinstance(step, dict) and "image_name" in step)


def default_limit() -> int:
    """Return how many runs work at once by default: two for each core, but at most one for each 4 GiB of memory.

    Each run is a Python interpreter. A short run often waits for the worker, the server or the store, so two runs for
    each core keep the cores busy. More runs take more memory, and are not faster.
    """
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return max(1, min(2 * len(os.sched_getaffinity(0)), memory // _MEMORY_PER_RUN))


def make_pools(client: SyncPrefectClient, pools: Iterable[str], network: str | None, limit: int | None) -> None:
    """Create the work pools, or bring their templates up to date.

    Args:
        client: client of the Prefect server.
        pools: names of the pools. A pool that is not in `POOLS` must exist, and stays as it is.
        network: Docker network that the containers of the Docker pools join. None keeps an existing pool's network.
        limit: largest number of runs at once in a pool. None keeps an existing limit, or sets the default limit.
            Runs of `embed-shards` do not count. Otherwise a run that waits for them could keep them from starting.

    Raises:
        SystemExit: if a pool is neither in `POOLS` nor on the server.
    """
    for name in pools:
        if name not in POOLS:
            _check_pool(client, name)
            continue
        try:
            pool = client.read_work_pool(name)
        except ObjectNotFound:
            template = base_job_template(name, network)
            client.create_work_pool(WorkPoolCreate(name=name, type=POOLS[name].type, base_job_template=template))
            print(f"work pool {name}: created")
        else:
            template = base_job_template(name, network or _network_of(pool.base_job_template))
            if pool.base_job_template != template:
                client.update_work_pool(name, WorkPoolUpdate(base_job_template=template))
                print(f"work pool {name}: its template is up to date now")
        if name in LIMITED_POOLS:
            _limit_queue(client, name, limit)


def _check_pool(client: SyncPrefectClient, name: str) -> None:
    """Check that the server has a work pool that somebody else made."""
    try:
        client.read_work_pool(name)
    except ObjectNotFound:
        sys.exit(
            f"prefect.yaml names the work pool {name!r}, which the server does not have: create it with "
            f"`prefect work-pool create`, or name one of {', '.join(POOLS)}"
        )


def _network_of(template: dict[str, Any]) -> str | None:
    """Return the network that a pool's containers join. In templates of version 0.1 it is the default of a variable."""
    old = template.get("variables", {}).get("properties", {}).get("networks", {}).get("default")
    networks = template.get("job_configuration", {}).get("networks")
    networks = networks if isinstance(networks, list) else old
    return networks[0] if networks else None


def _limit_queue(client: SyncPrefectClient, pool: str, limit: int | None) -> None:
    queue = client.read_work_queue_by_name(DEFAULT_QUEUE, work_pool_name=pool)
    if queue.concurrency_limit is not None and limit is None:
        return
    wanted = default_limit() if limit is None else limit
    if queue.concurrency_limit != wanted:
        client.update_work_queue(queue.id, concurrency_limit=wanted)
        print(f"work pool {pool}: at most {wanted} runs at once")
