"""Set up a Prefect server: work pools, blocks, an automation for dead runs, and the deployments of prefect.yaml.

    python -m scripts.deploy [--name 'FLOW/DEPLOYMENT'] ...        (`make deploy`)

Running this program twice changes nothing. RASTER_ROOT (s3://bucket/prefix, or a folder) and the usual AWS variables
give the values of the object-store block. Without RASTER_ROOT, an existing block stays unchanged.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable
from datetime import timedelta
from fnmatch import fnmatchcase
from typing import Any

import yaml  # type: ignore[import-untyped]

# mypy takes the folder `docker` for the package.
from docker import DockerClient  # type: ignore[attr-defined]
from docker.errors import DockerException  # type: ignore[import-not-found]
from prefect.blocks.core import Block
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import DeploymentFilter
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification
from prefect.flows import load_flow_arguments_from_entrypoint
from prefect_docker import DockerWorker
from pydantic import SecretStr

from blocks import Dinov3Weights, ObjectStoreBlock, SourceStoreBlock
from flows.prefect_connection import connect
from rasterembed.errors import UsageError, one_line
from rasterembed.store.object_store import open_store
from scripts.deploy_output import run_without_hints
from scripts.work_pools import POOLS, PROJECT, make_pools

BLOCK = "raster-embeddings"
"""Name of the object-store block that the deployments of prefect.yaml use."""


def root_of_block() -> str | None:
    """Return RASTER_ROOT, or None if it is not set. A folder becomes an absolute path.

    A worker may run in another folder, where a relative path would name another place.

    Raises:
        SystemExit: if RASTER_ROOT is neither a folder nor s3://bucket/prefix.
    """
    root = os.environ.get("RASTER_ROOT")
    try:
        return None if root is None else open_store(root).root
    except UsageError as error:
        sys.exit(f"RASTER_ROOT: {error}")


def make_blocks(root: str | None) -> None:
    """Register the block types and save the object store's block.

    Args:
        root: folder or s3://bucket/prefix of the block. None keeps an existing block, or sets the default folder.
    """
    for kind in (ObjectStoreBlock, SourceStoreBlock, Dinov3Weights):
        kind.register_type_and_schema()
    saved = _load(BLOCK)
    if saved is not None and root is None:
        return
    wanted = ObjectStoreBlock(
        root=root or open_store().root,
        endpoint_url=os.environ.get("AWS_ENDPOINT_URL"),
        access_key=_secret("AWS_ACCESS_KEY_ID"),
        secret_key=_secret("AWS_SECRET_ACCESS_KEY"),
        region=os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION"),
    )
    if saved is None or _fields(saved) != _fields(wanted):
        wanted.save(BLOCK, overwrite=True)
        print(f"block object-store/{BLOCK}: {wanted.root}")


def _load(name: str) -> ObjectStoreBlock | None:
    try:
        block = ObjectStoreBlock.load(name)
    except ValueError:
        return None
    assert isinstance(block, ObjectStoreBlock)  # Inside an event loop, `load` would return a coroutine.
    return block


def _fields(block: Block) -> dict[str, Any]:
    return {name: getattr(block, name) for name in type(block).model_fields}


def _secret(variable: str) -> SecretStr | None:
    value = os.environ.get(variable)
    return SecretStr(value) if value else None


def make_automation(client: SyncPrefectClient, silence_s: int) -> None:
    """Create an automation: when the heartbeats of a run stop, the server sets the run's state to crashed.

    Without the automation, a run whose process and worker are both gone would keep the state `Running` for ever.

    Prefect's page on detecting zombie flows describes the trigger. prefect.yaml sets how often runs send heartbeats.

    Args:
        client: client of the Prefect server.
        silence_s: seconds without a heartbeat after which a run counts as dead.
    """
    wanted = AutomationCore(
        name="raster-embeddings: crash runs that fell silent",
        description=f"No heartbeat for {silence_s} s: the container and its worker are gone, so neither reports it.",
        trigger=EventTrigger(
            after={"prefect.flow-run.heartbeat"},
            expect={
                "prefect.flow-run.heartbeat",
                *(f"prefect.flow-run.{state}" for state in ("Completed", "Failed", "Cancelled", "Crashed")),
            },
            match=ResourceSpecification({"prefect.resource.id": ["prefect.flow-run.*"]}),
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=timedelta(seconds=silence_s),
        ),
        actions=[
            ChangeFlowRunState(
                name=None,
                force=False,
                state=StateType.CRASHED,
                message=f"no heartbeat for {silence_s} s: process and worker are gone; run the flow again to continue",
            )
        ],
    )
    saved = client.read_automations_by_name(wanted.name)
    if not saved:
        client.create_automation(wanted)
        print(f"automation {wanted.name!r}: created")
    elif saved[0].model_dump(include=set(AutomationCore.model_fields)) != wanted.model_dump():
        client.update_automation(saved[0].id, wanted)
        print(f"automation {wanted.name!r}: changed")


def point_out_old_deployments(client: SyncPrefectClient) -> None:
    """Print how to delete the deployments of version 0.1, `docker` and `process`, because their schedules still run."""
    wanted = DeploymentFilter.model_validate({"name": {"any_": list(POOLS)}, "tags": {"all_": ["raster-embeddings"]}})
    for old in client.read_deployments(deployment_filter=wanted):
        flow = client.read_flow(old.flow_id).name
        print(f"{flow}/{old.name} is from version 0.1; to delete it: prefect deployment delete {flow}/{old.name}")


def choose_deployments(wanted: list[str]) -> dict[str, str]:
    """Return the deployments of prefect.yaml that somebody asked for: their names, and the work pool of each.

    Prefect only warns about an unknown name. It also compares a flow's name with the name of the flow's function, and
    these differ for `embed-shards`. The names without a flow differ from each other, so Prefect gets only these.

    Args:
        wanted: names as FLOW/DEPLOYMENT or DEPLOYMENT. A `*` matches any text.

    Raises:
        SystemExit: if a name matches no deployment.
    """
    known = {}
    for deployment in yaml.safe_load((PROJECT / "prefect.yaml").read_text())["deployments"]:
        flow = load_flow_arguments_from_entrypoint(str(PROJECT / deployment["entrypoint"]), {"name"})["name"]
        known[f"{flow}/{deployment['name']}"] = deployment["work_pool"]["name"]
    chosen: dict[str, str] = {}
    for pattern in wanted:
        full = pattern if "/" in pattern else f"*/{pattern}"
        matches = {name.split("/")[1]: pool for name, pool in known.items() if fnmatchcase(name, full)}
        if not matches:
            sys.exit(f"no such deployment: {pattern!r}; there are: {', '.join(known)}")
        chosen |= matches
    return chosen


def check_docker_engine(pools: Iterable[str]) -> None:
    """Check that a Docker engine answers, if the images of a work pool are built.

    Args:
        pools: names of the work pools of the deployments.

    Raises:
        SystemExit: if no engine answers.
    """
    if not any(POOLS.get(pool) is DockerWorker for pool in pools):
        return
    try:
        DockerClient.from_env().close()  # It asks the engine for the version of its API.
    except DockerException as error:
        sys.exit(
            f"no Docker engine answers ({one_line(error)}). It builds the images: start it, or deploy for the pool "
            "`process` alone: make deploy DEPLOY=\"--name '*/*-process'\""
        )


def _whole_number(text: str) -> int:
    """Return the number of runs that somebody typed. With a limit of 0, no run would ever start."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"give a whole number from 1, not {text!r}")
    return int(text)


def main() -> None:
    """Set up the server at PREFECT_API_URL with the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--name", action="append", help="deploy only these deployments; * matches any text")
    parser.add_argument(
        "--network", default=os.environ.get("DOCKER_NETWORK"), help="Docker network that containers join"
    )
    parser.add_argument(
        "--limit",
        type=_whole_number,
        metavar="N",
        help="runs of a pool that work at once, without shares (default: two a core, at most one for 4 GiB of memory)",
    )
    parser.add_argument(
        "--silence",
        type=int,
        default=180,
        metavar="S",
        help="seconds without a heartbeat after which a run counts as dead",
    )
    arguments = parser.parse_args()
    deployments = choose_deployments(arguments.name or ["*"])
    names = [part for name in deployments for part in ("--name", name)] if arguments.name else ["--all"]
    root = root_of_block()
    with connect() as client:
        client.api_version()  # An error about the server comes before an error about Docker.
        check_docker_engine(deployments.values())
        make_pools(client, sorted(set(deployments.values())), arguments.network, arguments.limit)
        make_blocks(root)
        make_automation(client, arguments.silence)
        point_out_old_deployments(client)
    status = run_without_hints([sys.executable, "-m", "prefect", "--no-prompt", "deploy", *names], PROJECT)
    if status == 0:
        for pool in sorted(set(deployments.values())):
            print(f"to start a worker: prefect worker start --pool {pool}")
        print("to start a run: prefect deployment run FLOW/DEPLOYMENT -p NAME=VALUE")
    sys.exit(status)


if __name__ == "__main__":
    main()
