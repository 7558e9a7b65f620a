"""Run the scheduled flow runs of a deployment, one after the other, until none is left.

python -m tests.run_scheduled ID

A worker in one process: Prefect's own spends ten seconds of imports on each run.
"""

from __future__ import annotations

import sys
from uuid import UUID

from prefect import get_client
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterId,
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import StateType
from prefect.flow_engine import run_flow

from flows.raster_embeddings import raster_embeddings


def main(deployment_id: UUID) -> None:
    """Run them all."""
    deployment = DeploymentFilter(id=DeploymentFilterId(any_=[deployment_id]))
    scheduled = FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.SCHEDULED])))
    with get_client(sync_client=True) as client:
        while runs := client.read_flow_runs(flow_run_filter=scheduled, deployment_filter=deployment):
            for run in runs:
                run_flow(raster_embeddings, flow_run=run, parameters=run.parameters, return_type="state")


if __name__ == "__main__":
    main(UUID(sys.argv[1]))
