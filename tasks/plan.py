"""Step 3: every choice settled, and the tiles dealt to shards."""

from __future__ import annotations

from prefect import get_run_logger, task

from rasterembed.embed import prepare
from rasterembed.grid import Grid
from rasterembed.model import Dinov3
from rasterembed.plan import Plan, Selection, make_plan
from rasterembed.profile import RasterProfile
from rasterembed.radiometry import Radiometry
from rasterembed.source import Source
from rasterembed.store import ObjectStore
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
    """Resolve radiometry, model and shards; see `rasterembed.plan.make_plan`."""
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
    """Put the plan and the index of planned tiles into the store; see `rasterembed.embed.prepare`."""
    prepare(plan, store)
