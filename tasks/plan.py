"""Step 3: every choice settled, and the tiles dealt to shards."""

from __future__ import annotations

from prefect import get_run_logger, task

from rasterembed.dataset.plan import Plan, Selection, make_plan
from rasterembed.model.choice import Dinov3
from rasterembed.pipeline import prepare
from rasterembed.raster.grid import Grid
from rasterembed.raster.profile import RasterProfile
from rasterembed.raster.radiometry import Radiometry
from rasterembed.raster.source import Source
from rasterembed.store.object_store import ObjectStore
from tasks.policy import STEP


@task(name="plan-tiles", **STEP)
def plan_tiles(
    store: ObjectStore,
    source: Source,
    dataset_id: str,
    profile: RasterProfile,
    grid: Grid,
    radiometry: Radiometry,
    model: Dinov3,
    selection: Selection,
    hub_token: str | None,
) -> Plan:
    """Resolve radiometry, model and shards; see `rasterembed.dataset.plan.make_plan`."""
    plan = make_plan(
        store,
        source,
        dataset_id,
        profile=profile,
        grid=grid,
        radiometry=radiometry,
        model=model,
        selection=selection,
        hub_token=hub_token,
    )
    get_run_logger().info(
        "%d tiles in %d shards, model %s, fingerprint %s",
        plan.sharding.tile_count,
        plan.sharding.count,
        plan.model.name,
        plan.fingerprint[:12],
    )
    return plan


@task(name="write-index", **STEP)
def write_tile_index(plan: Plan, store: ObjectStore) -> None:
    """Put the plan and the index of planned tiles into the store; see `rasterembed.pipeline.prepare`."""
    prepare(plan, store)
