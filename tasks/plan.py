"""Step 3: resolve every setting, and divide the tiles into shards."""

from __future__ import annotations

from prefect import get_run_logger, task

from rasterembed.dataset.plan import Plan, PlanSettings, make_plan
from rasterembed.pipeline import prepare
from rasterembed.raster.profile import RasterProfile
from rasterembed.raster.source import Source
from rasterembed.store.object_store import ObjectStore
from tasks.policy import STEP


@task(name="plan-tiles", **STEP)
def plan_tiles(
    store: ObjectStore,
    source: Source,
    dataset_id: str,
    settings: PlanSettings,
    profile: RasterProfile,
    hub_token: str | None,
) -> Plan:
    """Resolve radiometry and model, and divide the tiles into shards; see `rasterembed.dataset.plan.make_plan`."""
    plan = make_plan(store, source, dataset_id, settings, profile=profile, hub_token=hub_token)
    get_run_logger().info(
        "tiles: %d, shards: %d, model: %s, fingerprint: %s",
        plan.sharding.tile_count,
        plan.sharding.count,
        plan.model.name,
        plan.fingerprint[:12],
    )
    return plan


@task(name="write-index", **STEP)
def prepare_dataset(store: ObjectStore, plan: Plan) -> None:
    """Write the plan and the index of planned tiles into the store; see `rasterembed.pipeline.prepare`."""
    prepare(store, plan)
