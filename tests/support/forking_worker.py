"""Run a Prefect worker that forks its flow runs, for tests of many short runs.

python -m tests.support.forking_worker POOL --limit N

Prefect's process worker starts an interpreter for each run, whose imports take eight seconds of a core. This worker
forks each run from a server process that has imported everything already. Prefect's engine executes the run. Polling,
limit, states, and the report of a process that died are those of Prefect's worker.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import runpy
import sys

import anyio
import prefect.engine
from anyio.abc import TaskStatus
from prefect.client.schemas.objects import FlowRun
from prefect.workers.base import BaseJobConfiguration, BaseVariables, BaseWorker, BaseWorkerResult

_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload(
    [
        "flows.raster_embeddings",
        "flows.embed_collection",
        "rasterembed.model.embedder",
        "prefect._internal.metrics",
        "prefect.workers.base",
        "pandas",
        "pyarrow.pandas_compat",
        "s3fs",
        "transformers.models.auto.modeling_auto",
        "transformers.models.dinov3_vit.modeling_dinov3_vit",
    ]
)


def _run(environment: dict[str, str], flow_run_id: str) -> None:
    os.environ.update(environment)
    sys.argv = ["prefect.engine", flow_run_id]
    runpy.run_path(prefect.engine.__file__, run_name="__main__")


class ForkingWorker(BaseWorker[BaseJobConfiguration, BaseVariables, BaseWorkerResult]):
    """Worker that runs each flow run in a forked process."""

    type = "forking"

    async def run(
        self,
        flow_run: FlowRun,
        configuration: BaseJobConfiguration,
        task_status: TaskStatus[int] = anyio.TASK_STATUS_IGNORED,
    ) -> BaseWorkerResult:
        """Run a flow run, and return when its process has ended."""
        environment = {name: value for name, value in configuration.env.items() if value is not None}
        process = _processes.Process(target=_run, args=(environment, str(flow_run.id)))
        process.start()
        assert process.pid is not None
        task_status.started(process.pid)
        await anyio.to_thread.run_sync(process.join)
        assert process.exitcode is not None
        return BaseWorkerResult(identifier=str(process.pid), status_code=process.exitcode)


def main() -> None:
    """Serve a work pool until killed. The pool is made if it does not exist."""
    parser = argparse.ArgumentParser(prog="python -m tests.support.forking_worker", description=main.__doc__)
    parser.add_argument("pool")
    parser.add_argument("--limit", type=int, required=True)
    given = parser.parse_args()
    asyncio.run(ForkingWorker(given.pool, limit=given.limit).start())


if __name__ == "__main__":
    main()
