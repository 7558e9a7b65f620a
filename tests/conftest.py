"""Fixtures that more than one test file uses."""

from __future__ import annotations

import gc
import os
import signal
import sys
import time
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hypothesis
import psutil
import pytest

from rasterembed.model.checkpoints import write_preprocessor
from rasterembed.model.processor import usable_cores
from tests.support.engine import EngineMissingError, docker_engine
from tests.support.servers import CephMissingError, S3Server, ceph_gateway, moto_server

if TYPE_CHECKING:
    from docker import DockerClient
    from transformers import PreTrainedModel

    # Prefect takes seconds to import, and not every test process needs it.
    from tests.support.prefect_server import PrefectServer

PROJECT = Path(__file__).parents[1]

# On a busy machine an example can take longer than Hypothesis allows by default, and tests would fail by chance.
hypothesis.settings.register_profile("no deadline", deadline=None)
hypothesis.settings.load_profile("no deadline")

# The imports and the list of tests make millions of objects that stay. With Python's own threshold, looking for garbage
# among them takes a quarter of the time of the collection.
gc.set_threshold(100_000, 10, 10)

# The test processes have more threads than there are cores. A thread of PyTorch that waits for another thread shall not
# keep a core busy. OpenMP reads this variable when PyTorch is imported, which is later.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# If OpenVINO can import this package, each import and each conversion forks the whole process to send a report. Tests
# may import OpenVINO before the library does, so the package is hidden here too.
sys.modules.setdefault("openvino_telemetry", None)

# A process that a shell starts in the background ignores SIGINT, and so would every process that the tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Return the number of workers for `--numprocesses auto`: one more than there are cores, and at most four.

    Some tests wait for a server that stays away. The additional worker uses the core meanwhile. Each worker may start
    servers of its own, so more workers would cost more than they save.
    """
    return min(usable_cores() + 1, 4)


LONGEST_FIRST = (
    "tests/flows/",
    "tests/services/test_webhook.py",
    "tests/services/test_collection_rules.py",
    "tests/qa/test_collection_qa.py",
    "tests/benchmarks/",
    "tests/docs/",
    "tests/store/test_s3.py",
    "tests/qa/test_run_qa.py",
    "tests/commands/test_console.py",
    "tests/pipeline/",
    "tests/model/",
    "tests/explorer/",
    "tests/search/test_search_index.py",
    "tests/test_fuzz.py",
    "tests/search/",
    "tests/raster/",
    "tests/commands/",
    "tests/store/",
    "tests/dataset/",
    "tests/deployment/",
    "tests/examples/",
)
"""Prefixes of the test modules that take longest. They run first, because the other processes wait for the last one."""


WITH_PREFECT = (
    "tests/flows/",
    "tests/services/test_webhook.py",
    "tests/services/test_collection_rules.py",
    "tests/qa/test_collection_qa.py",
)
"""Prefixes of the test modules that use the session's Prefect server."""

WITH_FORKED_RUNS = (
    "tests/store/test_s3.py",
    "tests/pipeline/test_exactly_once.py",
    "tests/pipeline/test_collection.py",
    "tests/pipeline/test_collection_on_s3.py",
    "tests/pipeline/test_warped_grids.py",
    "tests/collection/test_deletion.py",
    "tests/collection/test_removing.py",
    "tests/collection/test_table.py",
    "tests/commands/test_continuing.py",
    "tests/dataset/test_plan.py",
    "tests/dataset/test_written_by_0_1.py",
)
"""Test modules whose runs `tests.support.runs` forks from a server process."""

WITH_ONE_STORE = ("tests/explorer/asking/", "tests/explorer/tiles/", "tests/search/batch/")
"""Folders of test modules that share a store. The store is made once for a folder."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the longest modules first."""

    def place(item: pytest.Item) -> int:
        matches = [number for number, prefix in enumerate(LONGEST_FIRST) if item.nodeid.startswith(prefix)]
        return min(matches, default=len(LONGEST_FIRST))

    items.sort(key=place)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> object:
    """Return a scheduler that keeps tests in one process: those of a module, and those of modules that share much work.

    Each process starts its own Prefect server when a test first needs it, and a server costs as much as many tests. The
    same holds for the server process that forks runs: it imports PyTorch and more. Each process also makes its own
    store for the modules of a folder in `WITH_ONE_STORE`.
    """
    from xdist.scheduler import LoadScopeScheduling

    class ModuleScheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            module = nodeid.partition("::")[0]
            if module.startswith(WITH_PREFECT):
                return "with Prefect"
            if module in WITH_FORKED_RUNS:
                return "with forked runs"
            return next((folder for folder in WITH_ONE_STORE if module.startswith(folder)), module)

    return ModuleScheduling(config, log)


def pytest_collection_finish() -> None:
    """Exempt everything that exists now from the search for garbage. It stays until the end."""
    gc.collect()
    gc.freeze()


def _listening(processes: Iterable[psutil.Process]) -> set[str]:
    """Name every socket that one of the processes listens on."""
    found = set()
    for process in processes:
        try:
            for connection in process.net_connections("inet"):
                if connection.status == psutil.CONN_LISTEN:
                    port = connection.laddr.port
                    found.add(f"{process.name()} (pid {process.pid}) on port {port}")
        except psutil.NoSuchProcess:
            pass
    return found


def _of_all_processes() -> set[str]:
    this = psutil.Process()
    return _listening([this, *this.children(recursive=True)])


@pytest.fixture(scope="session")
def _opened_in() -> dict[str, str]:
    """Return the module after which each socket of this process was first seen to listen."""
    return {}


@pytest.fixture(scope="session", autouse=True)
def _nothing_listens_afterwards(_opened_in: dict[str, str]) -> Iterator[None]:
    before = _of_all_processes()
    yield
    deadline = time.monotonic() + 20  # A service that was told to end may need some seconds.
    while (more := _of_all_processes() - before) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert {name: _opened_in.get(name, "another process") for name in more} == {}


@pytest.fixture(scope="module", autouse=True)
def _note_what_listens(_opened_in: dict[str, str], request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    for name in _listening([psutil.Process()]):
        _opened_in.setdefault(name, request.node.nodeid)


@pytest.fixture(scope="session")
def moto() -> Iterator[S3Server]:
    """Run one moto S3 server for the session."""
    with moto_server() as server:
        yield server


@pytest.fixture(scope="session")
def ceph() -> Iterator[S3Server]:
    """Run one Ceph gateway for the session. A test that uses it is marked `s3`."""
    try:
        with ceph_gateway() as server:
            yield server
    except CephMissingError as error:
        if os.environ.get("CI"):
            pytest.fail(str(error))
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def prefect() -> Iterator[PrefectServer]:
    """Run one Prefect server for the session. Processes that use it get its `environment()`."""
    from tests.support.prefect_server import prefect_server

    with prefect_server(few_certificates=True) as server:
        yield server


@pytest.fixture
def prefect_api(prefect: PrefectServer) -> Iterator[PrefectServer]:
    """Let flows that this process calls report to the session's Prefect server."""
    from prefect.settings import PREFECT_API_SSL_CERT_FILE, PREFECT_API_URL, temporary_settings

    with temporary_settings({PREFECT_API_URL: prefect.api_url, PREFECT_API_SSL_CERT_FILE: str(prefect.certificate)}):
        yield prefect


@pytest.fixture
def bucket() -> str:
    """Return a bucket name that no other test has. `server.create_bucket` makes the bucket."""
    return f"test-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def plain_pictures() -> Iterator[None]:
    """Draw plain pictures for quality reports. Drawing takes most of the time of a small run."""
    # Matplotlib takes long to import, and not every test process needs it.
    from tests.support.pictures import plain_pictures

    with plain_pictures():
        yield


@pytest.fixture(scope="session")
def rasters() -> Path:
    """Return the folder of real rasters: RASTERS, or shared/data/rasters beside the project."""
    if chosen := os.environ.get("RASTERS"):
        folder = Path(chosen)
        assert folder.is_dir(), f"RASTERS={chosen} is no folder"
        return folder
    folder = PROJECT.parent / "shared" / "data" / "rasters"
    if not folder.is_dir():
        pytest.skip("no real rasters here; RASTERS can name a folder that has them")
    return folder


@pytest.fixture(scope="session")
def tiny_vit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a checkpoint folder: DINOv3 ViT, random weights from a fixed seed, 64 dimensions, four registers."""
    from transformers import DINOv3ViTConfig, DINOv3ViTModel

    config = DINOv3ViTConfig(
        hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2, num_register_tokens=4
    )
    return _checkpoint(tmp_path_factory.mktemp("vit"), DINOv3ViTModel(config))


@pytest.fixture(scope="session")
def tiny_convnext(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a checkpoint folder: DINOv3 ConvNeXt, random weights from a fixed seed, 64 dimensions."""
    from transformers import DINOv3ConvNextConfig, DINOv3ConvNextModel

    config = DINOv3ConvNextConfig(hidden_sizes=[16, 32, 64, 64], depths=[1, 1, 1, 1], layer_scale_init_value=1.0)
    return _checkpoint(tmp_path_factory.mktemp("convnext"), DINOv3ConvNextModel(config))


def _checkpoint(folder: Path, network: PreTrainedModel) -> Path:
    """Save a network with weights that let its vectors follow the picture, as the demo model's do."""
    import torch

    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, weight in sorted(network.named_parameters()):
            if weight.ndim >= 2 and "mask_token" not in name:
                weight.copy_(torch.randn(weight.shape, generator=generator) / weight[0].numel() ** 0.5)
    network.save_pretrained(folder)
    write_preprocessor(folder, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    return folder


@pytest.fixture(scope="session")
def engine() -> Iterator[DockerClient]:
    """Return a client of the Docker engine that is running, or start one for the session."""
    import docker

    try:
        with docker_engine():
            client = docker.from_env()
            yield client
            client.close()
    except EngineMissingError as error:
        if os.environ.get("CI"):
            pytest.fail(str(error))
        pytest.skip(str(error))
