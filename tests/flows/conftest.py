"""The worker that runs the children of the flows in these tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.deployed import ONE_THREAD, deploy, worker
from tests.support.prefect_server import PrefectServer


@pytest.fixture(scope="package")
def deployed(prefect: PrefectServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrefectServer]:
    """Deploy the flows of workers to a pool of processes, and start a worker of the pool. Return the server."""
    deploy(prefect, "embed-shards/embed-share-process", "embed-scenes/embed-batch-process")
    with worker(prefect, "process", tmp_path_factory.mktemp("workers"), **ONE_THREAD):
        yield prefect
