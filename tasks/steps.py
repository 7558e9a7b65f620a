"""The pipeline's steps as Prefect tasks."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager

from prefect import get_run_logger

from rasterembed.dataset.embedding import EmbeddingJob, Progress
from rasterembed.dataset.manifest import Manifest
from rasterembed.dataset.plan import Plan, PlanSettings
from rasterembed.dataset.shards import Shard
from rasterembed.pipeline import EmbedResult, Steps
from rasterembed.qa.report import QaReport
from rasterembed.qa.thresholds import QaThresholds
from rasterembed.raster.profile import RasterProfile
from rasterembed.raster.scene import Scene
from rasterembed.raster.source import Source
from rasterembed.search.index_options import VectorIndexOptions
from rasterembed.search.next_search import search_command
from rasterembed.store.lease import Lease
from rasterembed.store.object_store import ObjectStore
from tasks.artifacts import publish_summary
from tasks.commit import commit_dataset
from tasks.embed import embed_shards
from tasks.events import report_dataset
from tasks.index import index_vectors
from tasks.inspect import inspect_raster
from tasks.plan import plan_tiles, prepare_dataset
from tasks.progress import shown
from tasks.qa import check_quality, judge_quality
from tasks.register import register_raster
from tasks.workers import Fleet, embed_on_workers


class PrefectSteps(Steps):
    """Runs each step as a task of the current flow run.

    Args:
        fleet: workers that compute the shards in child runs. If it is None, this run computes the shards.
        block: name of the object-store block, for the search command that is shown at the end.
    """

    def __init__(self, fleet: Fleet | None = None, block: str | None = None) -> None:
        self._fleet = fleet
        self._block = block

    def register(self, store: ObjectStore, raster: Scene, assets: Sequence[str]) -> Source:
        """Find the raster or the files of the scene, and return URIs, sizes and versions."""
        return register_raster(store, raster, assets)

    def inspect(self, store: ObjectStore, source: Source, *, allow_no_crs: bool) -> RasterProfile:
        """Read the raster's header."""
        return inspect_raster(store, source, allow_no_crs=allow_no_crs)

    def plan(
        self,
        store: ObjectStore,
        source: Source,
        dataset_id: str,
        settings: PlanSettings,
        profile: RasterProfile,
        hub_token: str | None,
    ) -> Plan:
        """Resolve every setting of the run."""
        return plan_tiles(store, source, dataset_id, settings, profile, hub_token)

    def prepare(self, store: ObjectStore, plan: Plan) -> None:
        """Write the plan into the store."""
        prepare_dataset(store, plan)

    def embed(self, store: ObjectStore, plan: Plan, job: EmbeddingJob, progress: Progress) -> Sequence[Shard]:
        """Compute the missing shards in this run, or in child runs on workers."""
        if self._fleet is not None:
            return embed_on_workers(store, plan, self._fleet, progress)
        return embed_shards(store, plan, job, progress, range(plan.sharding.count))

    def commit(self, store: ObjectStore, plan: Plan, shards: Sequence[Shard], lease: Lease) -> Manifest:
        """Write the manifest, so that the shards become a dataset."""
        return commit_dataset(store, plan, shards, lease)

    def check_quality(self, store: ObjectStore, manifest: Manifest, thresholds: QaThresholds) -> QaReport:
        """Measure the dataset, and show the report as an artifact."""
        return check_quality(store, manifest, thresholds)

    def judge_quality(self, store: ObjectStore, manifest: Manifest, thresholds: QaThresholds) -> QaReport:
        """Measure the dataset, and show the report as an artifact. Write nothing into the store."""
        return judge_quality(store, manifest, thresholds)

    def index_vectors(self, store: ObjectStore, manifest: Manifest, options: VectorIndexOptions) -> None:
        """Build the vector index, if the options ask for one."""
        index_vectors(store, manifest, options)

    def show_progress(self, plan: Plan, progress: Progress) -> AbstractContextManager[object]:
        """Show the progress as an artifact and, on a terminal, as a progress bar."""
        return shown(progress, plan.dataset_id)

    def on_warning(self, message: str) -> None:
        """Log a warning."""
        get_run_logger().warning("%s", message)

    def on_wait(self, message: str) -> None:
        """Log that the run waits for another run of the same dataset, or that the wait has ended."""
        get_run_logger().info("%s", message)

    def on_continue(self, message: str) -> None:
        """Log how much of the work an interrupted run has done already."""
        get_run_logger().info("%s", message)

    def on_end(self, store: ObjectStore, result: EmbedResult) -> None:
        """Log the dataset's id and a search command, show a description of the dataset, and send its event."""
        manifest = result.manifest
        search = search_command(store, manifest, self._block) if manifest.state == "ready" else None
        publish_summary(store, result.plan, manifest, search, self._block)
        log = get_run_logger()
        if result.already_complete:
            log.info("dataset %s was already complete, so nothing was computed", manifest.dataset_id)
        else:
            report_dataset(store, self._block, result.plan, manifest, result.report)
        log.info("dataset %s is %s%s", manifest.dataset_id, manifest.state, f"; search it: {search}" if search else "")
