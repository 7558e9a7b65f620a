"""Deploy the project on a test's Prefect server, run workers, and read flow runs and their results."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import rasterio
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter
from prefect.client.schemas.objects import FlowRun
from prefect.settings import PREFECT_API_URL, temporary_settings
from rasterio.transform import from_origin

from rasterembed.dataset.manifest import Manifest, read_manifest
from rasterembed.store.object_store import ObjectStore
from tests.support.prefect_server import PrefectServer
from tests.support.servers import ServerProcess
from tests.support.waiting import wait_for

PROJECT = Path(__file__).parents[2]

ONE_THREAD = {"OMP_NUM_THREADS": "1"}
"""Variables for processes that shall compute the same sums in the same order."""


def deploy(
    server: PrefectServer, *names: str, options: tuple[str, ...] = (), project: Path = PROJECT, **variables: str
) -> str:
    """Run the deploy script of a checkout for some deployments, by default for all, and return its output."""
    chosen = [part for name in names for part in ("--name", name)]
    done = subprocess.run(
        [sys.executable, "-m", "scripts.deploy", *chosen, *options],
        env=server.environment() | variables,
        cwd=project,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    return done.stdout


@contextmanager
def worker(server: PrefectServer, pool: str, folder: Path, **variables: str) -> Iterator[ServerProcess]:
    """Run a worker of a pool. It asks for new runs every two seconds."""
    environment = server.environment() | {"PREFECT_WORKER_QUERY_SECONDS": "2"} | variables
    command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", pool, "--name", f"worker-of-{pool}"]
    process = ServerProcess(command, folder / f"worker-{pool}.log", environment)
    try:
        yield process
    finally:
        process.end()


class Runs:
    """Flow runs on a Prefect server."""

    def __init__(self, server: PrefectServer) -> None:
        self._server = server

    def create(self, deployment: str, **parameters: Any) -> FlowRun:
        """Create a run, as `prefect deployment run` does."""
        with self._client() as client:
            known = client.read_deployment_by_name(deployment)
            return client.create_flow_run_from_deployment(known.id, parameters=parameters)

    def read(self, run: UUID) -> FlowRun:
        with self._client() as client:
            return client.read_flow_run(run)

    def children(self, run: UUID) -> list[FlowRun]:
        """Return the runs that a run started, oldest first."""
        wanted = FlowRunFilter.model_validate({"parent_flow_run_id": {"any_": [run]}})
        with self._client() as client:
            return sorted(client.read_flow_runs(flow_run_filter=wanted), key=lambda run: run.created)

    def of_dataset(self, dataset_id: str) -> list[FlowRun]:
        """Return all `embed-shards` runs of a dataset. Their names begin with the dataset's id."""
        return self.named(f"{dataset_id}-0")

    def named(self, part: str) -> list[FlowRun]:
        """Return all runs whose name has this part."""
        wanted = FlowRunFilter.model_validate({"name": {"like_": part}})
        with self._client() as client:
            return client.read_flow_runs(flow_run_filter=wanted)

    def wait(self, run: UUID, timeout: float = 400) -> FlowRun:
        """Wait until the run has ended, and return it."""
        return self.wait_for(run, lambda found: found.state is not None and found.state.is_final(), timeout)

    def wait_for(self, run: UUID, condition: Any, timeout: float = 400) -> FlowRun:
        """Wait until a condition holds for the run, and return the run."""
        return wait_for(lambda: found if condition(found := self.read(run)) else None, f"run {run}", timeout, every=0.3)

    @staticmethod
    def processes_of(run_id: str) -> list[int]:
        """Return the ids of the processes of a flow run on this machine."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get("PREFECT__FLOW_RUN_ID") == run_id:
                    found.append(process.pid)
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                pass
        return found

    @contextmanager
    def _client(self) -> Iterator[Any]:
        with temporary_settings({PREFECT_API_URL: self._server.api_url}), get_client(sync_client=True) as client:
            yield client


def write_striped_raster(path: Path, rows: int, cols: int, side: int) -> Path:
    """Write a striped raster of rows x cols tiles of `side` px. It passes the quality checks; one corner is nodata."""
    random = np.random.default_rng(1)
    y, x = np.mgrid[0 : rows * side, 0 : cols * side] * (32 / side)
    lengths = (90, 170), (140, 60), (200, 110)
    waves = [120 + 60 * np.sin(x / a + y / b) + 40 * np.cos(x / b - y / a) for a, b in lengths]
    pixels = (np.stack(waves) + random.integers(-12, 13, (3, *y.shape))).clip(1, 255).astype(np.uint8)
    pixels[:, :70, :100] = 0
    profile = {"driver": "GTiff", "count": 3, "dtype": "uint8", "nodata": 0, "crs": "EPSG:32633", "blockysize": side}
    size = {"width": cols * side, "height": rows * side, "transform": from_origin(500000, 5100000, 10, 10)}
    with rasterio.open(path, "w", **profile, **size) as raster:
        raster.write(pixels)
    return path


def manifest_of(store: ObjectStore, dataset_id: str) -> Manifest:
    """Read the manifest of a dataset, which must exist."""
    manifest = read_manifest(store, dataset_id)
    assert manifest is not None
    return manifest


def vectors_of(store: ObjectStore, dataset_id: str) -> pa.Table:
    """Read tile ids, embeddings, valid fractions and geometries of a dataset, in the order of the manifest's shards."""
    tables = []
    for shard in manifest_of(store, dataset_id).shards:
        with store.open(shard.path) as file:
            tables.append(pq.read_table(file, columns=["tile_id", "embedding", "valid_fraction", "geometry"]))
    return pa.concat_tables(tables).replace_schema_metadata(None)


def present(store: ObjectStore, dataset_id: str) -> list[str]:
    """Return the names of the dataset's shards in the store."""
    return sorted(name for name in store.sizes(f"embeddings/{dataset_id}") if name.endswith(".parquet"))


def command_line(environment: Mapping[str, str], *arguments: str) -> subprocess.Popen[str]:
    """Start the main flow as a command."""
    return subprocess.Popen(
        [sys.executable, "-m", "flows.raster_embeddings", *arguments],
        env=environment,
        cwd=PROJECT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
