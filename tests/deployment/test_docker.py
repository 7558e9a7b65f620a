"""The images, and the deployments on a real Docker engine: server, worker, containers and an S3 server over HTTP."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from docker import DockerClient
from docker.models.containers import Container
from pydantic import SecretStr

from rasterembed.store.object_store import ObjectStore
from tests.support.deployed import Runs, deploy, manifest_of, present, vectors_of, worker, write_striped_raster
from tests.support.engine import bridge_address, local_wheels
from tests.support.prefect_server import PrefectServer, prefect_server
from tests.support.servers import CephMissingError, S3Server, ceph_gateway
from tests.support.waiting import wait_for

pytestmark = [pytest.mark.docker, pytest.mark.timeout(900)]

PROJECT = Path(__file__).parents[2]
VERSION = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["version"]
ANALYTICS, PROCESSING = f"analytics-embeddings:{VERSION}", f"raster-processing:{VERSION}"
ROWS, COLS, SIDE = 20, 40, 32
"""Tiles of the scene, and their side in px; a shard is a row of them."""
PARAMETERS: dict[str, Any] = {
    "raster": "s3://rasters/scene.tif",
    "grid": {"size": SIDE},
    "selection": {"shard_tiles": COLS},
    "execution": {"batch_size": 4, "shard_threads": 1, "lease_wait": 90},
}


@pytest.fixture(scope="session")
def address(engine: DockerClient) -> str:
    """Where containers reach the servers of the tests."""
    return bridge_address()


@pytest.fixture(scope="session")
def s3(address: str) -> Iterator[S3Server]:
    """Ceph's gateway on the bridge, with a raster."""
    try:
        with ceph_gateway(address) as server:
            server.create_bucket("rasters")
            server.create_bucket("datasets")
            yield server
    except CephMissingError as error:
        if os.environ.get("CI"):
            pytest.fail(str(error))
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def scene(s3: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a raster, and upload it to the bucket."""
    path = write_striped_raster(tmp_path_factory.mktemp("scene") / "scene.tif", ROWS, COLS, SIDE)
    s3.client().upload_file(str(path), "rasters", "scene.tif")
    return path


@dataclass(frozen=True)
class Site:
    """Everything that runs."""

    server: PrefectServer
    store: ObjectStore
    runs: Runs
    engine: DockerClient
    wheels: dict[str, str]
    """Variables of the builds."""
    printed: str
    """By `make deploy`."""

    def start(self, dataset: str, *options: str, **parameters: Any) -> UUID:
        """`prefect deployment run raster-embeddings/embed-docker`, with the scene; the run's id."""
        given = PARAMETERS | {"dataset_id": dataset} | parameters
        pairs = [part for name, value in given.items() for part in ("--param", f"{name}={json.dumps(value)}")]
        printed = self.prefect("deployment", "run", "raster-embeddings/embed-docker", *pairs, *options)
        found = re.search(r"UUID: ([0-9a-f-]{36})", printed)
        assert found, printed
        return UUID(found[1])

    def prefect(self, *arguments: str) -> str:
        """Return the output of a `prefect` command."""
        done = subprocess.run(
            [sys.executable, "-m", "prefect", *arguments],
            env=self.server.environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def container(self, run: UUID) -> Container:
        """Return the container of a flow run, once it exists."""
        label = {"label": f"io.prefect.flow-run-id={run}"}
        found = wait_for(lambda: self.engine.containers.list(filters=label), f"the container of run {run}", timeout=400)
        container: Container = found[0]
        return container

    def gone(self, run: UUID) -> None:
        """Return once the run has no container any more."""
        label = {"label": f"io.prefect.flow-run-id={run}"}
        wait_for(lambda: not self.engine.containers.list(filters=label), "the end of the containers", timeout=90)


# not of the session: the stack's test lends its wheels on the same port
@pytest.fixture(scope="module")
def site(engine: DockerClient, address: str, s3: S3Server, scene: Path) -> Iterator[Site]:
    """Prefect server on the bridge, all deployments with their images, and the object store's block."""
    with prefect_server(address) as server, local_wheels() as wheels:
        settings = s3.environment() | {"RASTER_ROOT": "s3://datasets/all"} | wheels
        # a run is dead after 80 s of silence, instead of three minutes: the test of it waits for that
        printed = deploy(server, options=("--silence", "80"), **settings)
        store = ObjectStore(
            root="s3://datasets/all",
            endpoint_url=s3.endpoint_url,
            access_key=SecretStr(s3.access_key),
            secret_key=SecretStr(s3.secret_key),
        )
        yield Site(server, store, Runs(server), engine, wheels, printed)


@pytest.fixture
def docker_worker(site: Site, tmp_path: Path) -> Iterator[None]:
    """Start a worker of the Docker pool, outside any container. It ends with the test, because one test needs none."""
    with worker(site.server, "docker", tmp_path):
        yield


@pytest.fixture(scope="session")
def alone(scene: Path, tmp_path_factory: pytest.TempPathFactory) -> pa.Table:
    """Return the vectors as one local process computes them, without Prefect."""
    root = tmp_path_factory.mktemp("alone")
    program = """
import json, sys
from rasterembed.dataset.embedding import Execution
from rasterembed.pipeline import EmbedOptions, embed_raster
from rasterembed.raster.grid import Grid
from rasterembed.dataset.selection import Selection
from rasterembed.store.object_store import ObjectStore
raster, root, given = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
options = EmbedOptions(dataset_id="alone", grid=Grid(**given["grid"]), selection=Selection(**given["selection"]),
                       execution=Execution(**given["execution"]), quality_checks=False)
embed_raster(ObjectStore(root=root), raster, options)
"""
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    command = [sys.executable, "-c", program, str(scene), str(root), json.dumps(PARAMETERS)]
    subprocess.run(command, env=environment, cwd=PROJECT, check=True)
    return vectors_of(ObjectStore(root=str(root)), "alone")


def _in(image: str, *command: str, network: str = "none") -> str:
    """Return the output of a command in a container that by default reaches no network."""
    done = subprocess.run(
        ["docker", "run", "--rm", "--network", network, image, *command], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


both_images = pytest.mark.parametrize("image", [ANALYTICS, PROCESSING])


@both_images
def test_an_image_says_what_it_is_and_runs_as_nobody_special(site: Site, image: str) -> None:
    found = site.engine.images.get(image)
    labels = found.labels
    assert labels["org.opencontainers.image.title"] == image.split(":")[0]
    assert labels["org.opencontainers.image.version"] == VERSION
    assert labels["org.opencontainers.image.revision"] not in ("", "unknown")
    assert found.attrs["Config"]["User"] == "raster"
    assert _in(image, "sh", "-c", "id -u; echo $PREFECT_HOME; touch /opt/raster-embeddings/x 2>&1 || echo refused") == (
        "10001\n/home/raster/.prefect\ntouch: cannot touch '/opt/raster-embeddings/x': Permission denied\nrefused\n"
    )


@both_images
def test_an_image_has_no_compiler_no_cache_and_the_pinned_versions(site: Site, image: str) -> None:
    assert (
        _in(image, "sh", "-c", "command -v gcc cc g++ clang make || ls /root/.cache /var/cache/pip 2>/dev/null; true")
        == ""
    )
    program = "from importlib.metadata import distributions as d; print(*(f'{x.name}=={x.version}' for x in d()))"
    pins = _pins()
    installed = dict(pair.split("==") for pair in _in(image, "python", "-c", program).split())
    # async-timeout is only for Python before 3.11.3, which Debian's is
    names = {_canonical(name) for name in installed} - {"raster-embeddings", "async-timeout", "setuptools"}
    assert names <= set(pins)
    for name, version in installed.items():
        if _canonical(name) in pins:
            assert version.split("+")[0] == pins[_canonical(name)], name
    assert ("torch" in installed) == (image == ANALYTICS)


def _canonical(name: str) -> str:
    return name.lower().replace("_", "-").replace(".", "-")


def _pins() -> dict[str, str]:
    lines = (PROJECT / "constraints.txt").read_text().splitlines()
    return {_canonical(name): version for name, _, version in (line.partition("==") for line in lines) if version}


def test_the_images_share_their_layers_and_the_small_one_is_small(site: Site) -> None:
    small, large = (site.engine.images.get(image).attrs["RootFS"]["Layers"] for image in (PROCESSING, ANALYTICS))
    shared = [a for a, b in zip(small, large, strict=False) if a == b]
    # all but the code and what belongs to it: base, user, folder, requirements, dependencies
    assert len(shared) == 5
    assert site.engine.images.get(PROCESSING).attrs["Size"] < 1e9


@both_images
def test_an_image_loads_the_extensions_of_duckdb_without_a_network(site: Site, image: str) -> None:
    program = """
import duckdb, duckdb_extension_httpfs, pathlib
from rasterembed.store.duck import connect, load_vss
con = connect()
assert load_vss(con)
folder = pathlib.Path(duckdb_extension_httpfs.__path__[0])
con.load_extension(str(next(folder.rglob("httpfs.duckdb_extension"))))
known = con.sql("SELECT extension_name, loaded FROM duckdb_extensions()").fetchall()
print(sorted(name for name, loaded in known if loaded and name in ("httpfs", "vss")))
"""
    assert _in(image, "python", "-c", program).strip() == "['httpfs', 'vss']"


def test_the_demo_model_embeds_without_a_network(site: Site) -> None:
    program = """
from pathlib import Path
from rasterembed.pipeline import embed_raster
from examples.landscape import make_scene
from rasterembed.store.object_store import ObjectStore
make_scene(Path("/tmp"), width=1200, height=1200)
print(embed_raster(ObjectStore(root="/tmp/store"), "/tmp/scene.tif").manifest.state)
"""
    assert _in(ANALYTICS, "python", "-c", program).strip().splitlines()[-1] in ("ready", "embedded")


def test_deploying_everything_again_changes_no_image(site: Site) -> None:
    before = {image: site.engine.images.get(image).id for image in (ANALYTICS, PROCESSING)}
    deploy(site.server, options=("--silence", "80"), **site.wheels)
    assert {image: site.engine.images.get(image).id for image in before} == before
    listed = json.loads(site.prefect("deployment", "ls", "--output", "json"))
    assert len(listed) == site.printed.count("successfully created")


@pytest.fixture(scope="module")
def embedded(site: Site, tmp_path_factory: pytest.TempPathFactory) -> UUID:
    """Return the run that made the dataset e2e."""
    run = site.start("e2e")
    with worker(site.server, "docker", tmp_path_factory.mktemp("worker")):
        ended = site.runs.wait(run)
    assert ended.state_name == "Completed", ended.state
    return run


def test_a_raster_in_s3_becomes_a_dataset_in_s3_with_the_bytes_of_a_local_run(
    site: Site, embedded: UUID, alone: pa.Table
) -> None:
    assert vectors_of(site.store, "e2e").equals(alone)
    assert manifest_of(site.store, "e2e").state == "ready"
    site.gone(embedded)


@pytest.mark.usefixtures("embedded", "docker_worker")
def test_reports_searches_and_sweeps_run_in_containers_too(site: Site) -> None:
    search = {"dataset": "e2e", "query": {"tile": "r000003_c000004"}, "k": 3}
    files = {"out": "store:searches/found.parquet", "sheet": "store:searches/found.png"}
    runs = {
        PROCESSING: site.runs.create("qa-report/qa-docker", dataset="e2e"),
        ANALYTICS: site.runs.create("search-embeddings/search-docker", **search, **files),
    }
    for image, run in runs.items():
        assert site.container(run.id).attrs["Config"]["Image"] == image
    sweep = site.runs.create("reconcile-uploads/sweep-docker", uploads="s3://rasters/nothing-there/")
    for run in (*runs.values(), sweep):
        ended = site.runs.wait(run.id)
        assert ended.state_name == "Completed", ended.state
    found = pq.read_table(io.BytesIO(site.store.read("searches/found.parquet") or b""))
    assert found["dataset_id"].to_pylist() == ["e2e"] * 3
    assert set(found["tile_id"].to_pylist()) <= set(vectors_of(site.store, "e2e")["tile_id"].to_pylist())
    assert (site.store.read("searches/found.png") or b"").startswith(b"\x89PNG")


@pytest.mark.usefixtures("docker_worker")
def test_a_child_container_that_is_killed_is_recovered(site: Site, alone: pa.Table) -> None:
    run = site.start("fleet", workers=2)
    wait_for(lambda: present(site.store, "fleet"), "the first shard", timeout=400)
    number = int(present(site.store, "fleet")[0].removesuffix(".parquet").rsplit("-", 1)[1])
    children = site.runs.of_dataset("fleet")
    assert len(children) == 2
    victim = next(c for c in children if c.parameters["first"] <= number < c.parameters["stop"])
    site.container(victim.id).kill("SIGKILL")
    ended = site.runs.wait(run, timeout=400)
    assert ended.state_name == "Completed", ended.state
    crashed = site.runs.wait(victim.id)
    assert crashed.state_name == "Crashed"
    assert "137" in (crashed.state.message if crashed.state and crashed.state.message else "")
    assert len(site.runs.of_dataset("fleet")) == 3
    assert vectors_of(site.store, "fleet").equals(alone)


@pytest.mark.usefixtures("docker_worker")
def test_cancelling_stops_every_container_and_leaves_a_dataset_to_resume(site: Site, alone: pa.Table) -> None:
    run = site.start("cancelled", workers=2)
    wait_for(lambda: present(site.store, "cancelled"), "the first shard", timeout=400)
    children = [child.id for child in site.runs.of_dataset("cancelled")]
    containers = [site.container(child) for child in children]
    for container in containers:  # The command takes seconds to start. The children could end before it.
        container.pause()
    site.prefect("flow-run", "cancel", str(run))
    for container in containers:
        container.unpause()
    assert site.runs.wait(run).state_name == "Cancelled"
    assert {site.runs.wait(child).state_name for child in children} == {"Cancelled"}
    for each in (run, *children):
        site.gone(each)
    before = present(site.store, "cancelled")
    assert 0 < len(before) < ROWS
    made = {name: site.store.describe(f"s3://datasets/all/embeddings/cancelled/{name}") for name in before}

    again = site.runs.create("raster-embeddings/embed-docker", **PARAMETERS, dataset_id="cancelled")
    ended = site.runs.wait(again.id)
    assert ended.state_name == "Completed", ended.state
    assert vectors_of(site.store, "cancelled").equals(alone)
    assert {name: site.store.describe(f"s3://datasets/all/embeddings/cancelled/{name}") for name in before} == made


@pytest.mark.usefixtures("docker_worker")
def test_a_container_that_runs_out_of_memory_says_so(site: Site) -> None:
    limits = ("--job-variable", "mem_limit=256m", "--job-variable", "memswap_limit=256m")
    ended = site.runs.wait(site.start("oom", *limits))
    assert ended.state_name == "Crashed", ended.state
    assert "memory" in (ended.state.message or "" if ended.state else "")


def test_a_run_whose_container_and_worker_are_both_killed_does_not_stay_running(site: Site, tmp_path: Path) -> None:
    with worker(site.server, "docker", tmp_path) as process:
        heartbeat = ("--job-variable", "env.PREFECT_FLOWS_HEARTBEAT_FREQUENCY=30")
        run = site.start("dead", *heartbeat)
        wait_for(lambda: present(site.store, "dead"), "the first shard", timeout=400)
        process.kill()
    site.container(run).kill("SIGKILL")
    ended = site.runs.wait(run)
    assert ended.state_name == "Crashed"
    assert "no heartbeat for 80 s" in (ended.state.message or "" if ended.state else "")
