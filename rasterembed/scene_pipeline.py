"""The pipeline of the scenes of a collection: embed many scenes with one loaded model, and return a row for each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from pydantic import BaseModel, ConfigDict

from rasterembed.collection.found_scene import FoundScene
from rasterembed.collection.lattice import Lattice
from rasterembed.collection.members import member_id
from rasterembed.collection.scene_row import SceneRow, embedded_row, failed_row
from rasterembed.dataset.dataset import Dataset
from rasterembed.dataset.plan import Plan, PlanSettings
from rasterembed.errors import Cancelled, StoreUnavailableError, one_line
from rasterembed.escape import escape_terminal
from rasterembed.pipeline import EmbedOptions, EmbedResult, Steps, embed_raster
from rasterembed.qa.report import QaError
from rasterembed.raster.profile import RasterProfile
from rasterembed.raster.scene import Scene
from rasterembed.raster.source import Source, check_unchanged
from rasterembed.store.lease import Lease
from rasterembed.store.object_store import ObjectStore


class SceneJob(BaseModel):
    """The part of a run that is the same for all its scenes. It can be stored as JSON."""

    model_config = ConfigDict(frozen=True)

    collection_id: str
    """Name of the collection."""
    listing: str
    """Address of the listing that the scenes were found in."""
    options: EmbedOptions
    """Options of every scene, without the dataset id."""
    lattice: Lattice | None = None
    """CRS and pixel size that every scene must have. None if any scene is right."""


class SceneMessages:
    """Receives the messages about scenes. This class prints them."""

    def on_wait(self, message: str) -> None:
        """Report that the run waits for another run."""
        print(escape_terminal(message))

    def on_warning(self, message: str) -> None:
        """Report something that a person should look at, although the run goes on."""
        print(f"warning: {escape_terminal(message)}")


def embed_scenes(
    store: ObjectStore,
    job: SceneJob,
    scenes: Iterable[FoundScene],
    lease: Lease,
    *,
    hub_token: str | None = None,
    messages: SceneMessages,
) -> Iterator[SceneRow]:
    """Embed scenes in this process, and yield the row of each scene when it is complete.

    A scene that fails gets a row with the reason, and does not stop the others.

    Args:
        store: store of the collection.
        job: what the scenes have in common.
        scenes: the scenes.
        lease: the lease on the collection.
        hub_token: access token for gated weights.
        messages: receives the messages.

    Raises:
        StoreUnavailableError: if the store does not answer. All other scenes would fail too.
        LeaseLostError: if another run took the collection over.
        Cancelled: if the run was told to stop.
    """
    worker = _SceneWorker(store, job, lease, messages, hub_token)
    for scene in scenes:
        lease.check_often()
        yield worker.embed(scene)


@dataclass(frozen=True)
class _SceneWorker:
    """Embeds scenes of a collection, one after the other."""

    store: ObjectStore
    job: SceneJob
    lease: Lease
    messages: SceneMessages
    hub_token: str | None = field(repr=False)

    def embed(self, scene: FoundScene) -> SceneRow:
        """Embed one scene, and return its row. A scene that fails gets a row with the reason."""
        if scene.problem is not None:
            return self._failed(scene, scene.problem)
        dataset_id = member_id(self.job.collection_id, scene.uri)
        try:
            result = self._embed(scene, dataset_id)
            return embedded_row(self.job.listing, result.plan, result.manifest)
        except QaError:
            dataset = Dataset.open(self.store, dataset_id, ("failed_qa",))
            return embedded_row(self.job.listing, dataset.plan, dataset.manifest)
        except (StoreUnavailableError, Cancelled):
            raise
        except Exception as error:  # Nobody can know every way in which a library fails at a damaged file.
            return self._failed(scene, one_line(error))

    def _embed(self, scene: FoundScene, dataset_id: str) -> EmbedResult:
        options = self.job.options.model_copy(update={"dataset_id": dataset_id})
        steps = _SceneSteps(self.messages, scene, self.job.lattice)
        return embed_raster(
            self.store, scene.uri, options, steps=steps, hub_token=self.hub_token, run_id=self.lease.run_id
        )

    def _failed(self, scene: FoundScene, reason: str) -> SceneRow:
        return failed_row(self.job.collection_id, scene, self.job.listing, reason)


class _SceneSteps(Steps):
    """The steps of one scene. Messages go to the receiver of the run."""

    def __init__(self, messages: SceneMessages, scene: FoundScene, lattice: Lattice | None) -> None:
        self._messages, self._scene, self._lattice = messages, scene, lattice

    def register(self, store: ObjectStore, raster: Scene, assets: Sequence[str]) -> Source:
        """Return the files that the STAC Item of the scene names, or find the raster."""
        if self._scene.source is None:
            return super().register(store, raster, assets)
        for file in self._scene.source.files:
            check_unchanged(store.allowing(file.uri), file)
        return self._scene.source

    def plan(
        self,
        store: ObjectStore,
        source: Source,
        dataset_id: str,
        settings: PlanSettings,
        profile: RasterProfile,
        hub_token: str | None,
    ) -> Plan:
        """Return the plan, or refuse a scene whose CRS or pixel size is not that of the collection."""
        plan = super().plan(store, source, dataset_id, settings, profile, hub_token)
        if self._lattice is not None:
            self._lattice.check(plan)
        return plan

    def on_wait(self, message: str) -> None:
        """Pass the message on."""
        self._messages.on_wait(message)

    def on_warning(self, message: str) -> None:
        """Pass the warning on."""
        self._messages.on_warning(message)
