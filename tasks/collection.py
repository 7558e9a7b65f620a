"""The steps of a collection as Prefect tasks: discovery, and one task run for each batch of scenes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING

from prefect import get_run_logger, task
from prefect.artifacts import create_markdown_artifact, create_table_artifact

from rasterembed.artifact_key import artifact_key
from rasterembed.collection.comparison import Comparison
from rasterembed.collection.fixed_settings import in_a_new_collection
from rasterembed.collection.found_scene import REASON_LETTERS, FoundScene, Listing
from rasterembed.collection.scene_row import SceneRow, SceneState
from rasterembed.collection.shared_texts import counts_text, nothing_to_embed, state_text, undated_text, work_text
from rasterembed.collection.stac_search import StacSearch
from rasterembed.collection_pipeline import CollectionResult, CollectionSteps
from rasterembed.escape import cut, escape_markdown, escape_terminal, markdown_code
from rasterembed.number_text import agreeing, counted
from rasterembed.scene_batches import deal
from rasterembed.scene_pipeline import SceneJob
from rasterembed.search.next_search import collection_search_command
from rasterembed.store.lease import Lease
from rasterembed.store.object_store import ObjectStore
from tasks.artifacts import search_line, shortened
from tasks.collection_qa import CollectionQaSteps
from tasks.events import report_collection, report_scene
from tasks.index import log_index
from tasks.policy import STEP
from tasks.progress import shown
from tasks.scene_batches import CountedScenes, SceneFleet, embed_batch, embed_counted, embed_scenes_on_workers

if TYPE_CHECKING:
    from rasterembed.search.index.building import BuildResult

_BATCH_SCENES, _BATCH_BYTES = 256, 64 * 2**20
"""Largest number of scenes in a task run, and size in bytes after which a task run gets no further scene. A large scene
has a task run for itself."""

_TABLE_ROWS = 200
"""Largest number of scenes in the table artifact."""


@task(name="discover-scenes", **STEP)
def discover_scenes(store: ObjectStore, scenes: str, assets: tuple[str, ...], search: StacSearch | None) -> Listing:
    """Find the scenes; see `rasterembed.collection.discovery.discover`."""
    return CollectionSteps().discover(store, scenes, assets, search)


class PrefectCollectionSteps(CollectionQaSteps):
    """Runs the steps of a collection as tasks of the current flow run, with progress, artifacts and events.

    Use an object as a context manager. At the end of its block, the progress stops.

    Args:
        store: store of the collection.
        block: name of the object-store block, for the search command that is shown at the end.
        fleet: workers that embed the scenes in child runs. If it is None, this run embeds the scenes.
    """

    def __init__(self, store: ObjectStore, block: str | None = None, fleet: SceneFleet | None = None) -> None:
        self._store = store
        self._fleet = fleet
        self._block = block
        self._rows: list[SceneRow] = []
        self._shown = ExitStack()

    def __enter__(self) -> PrefectCollectionSteps:
        """Return the steps."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stop the progress."""
        self._shown.close()

    @property
    def embedded(self) -> int:
        """Number of scenes that this run embedded so far."""
        return sum(row.state is not SceneState.FAILED for row in self._rows)

    def discover(
        self, store: ObjectStore, scenes: str, assets: tuple[str, ...], search: StacSearch | None = None
    ) -> Listing:
        """Find the scenes in a task."""
        return discover_scenes(store, scenes, assets, search)

    def on_compared(self, comparison: Comparison, listing: Listing) -> None:
        """Log what the run will do."""
        log = get_run_logger()
        log.info(
            "%d scenes: %d new, %d changed, %d to be tried again, %d unchanged, %d gone",
            len(listing.scenes),
            len(comparison.new),
            len(comparison.changed),
            len(comparison.again),
            len(comparison.unchanged),
            len(comparison.gone),
        )
        if listing.repeated:
            log.warning("%d scenes are named more than once; each is taken once", len(listing.repeated))

    def embed_scenes(
        self, store: ObjectStore, job: SceneJob, scenes: Sequence[FoundScene], lease: Lease, hub_token: str | None
    ) -> Iterator[SceneRow]:
        """Embed the scenes. Each batch is a task run, or a child run if there are workers."""
        if not scenes:
            return
        counted = CountedScenes(len(scenes))
        self._shown.enter_context(shown(counted.progress, job.collection_id, "scene"))
        if self._fleet is not None:
            for row in embed_scenes_on_workers(store, job, scenes, lease, self._fleet):
                counted.add(row)
                yield row
            self._shown.close()
            return
        for first, batch in deal(scenes, _BATCH_SCENES, _BATCH_BYTES):
            yield from embed_batch(first, partial(embed_counted, store, job, batch, lease, hub_token, counted))
        self._shown.close()

    def on_scene(self, row: SceneRow) -> None:
        """Send the event of a scene that was embedded."""
        self._rows.append(row)
        if row.state is not SceneState.FAILED:
            report_scene(self._store, self._block, row)

    def on_indexed(self, result: BuildResult) -> None:
        """Log what became of the vector index."""
        log_index(result)

    def on_end(self, result: CollectionResult) -> None:
        """Show the collection and its scenes as artifacts, send its event, and log a search command."""
        collection = result.collection
        search = collection_search_command(collection, self._block)
        _publish_collection(result, search, self._block)
        _publish_scenes(result, self._rows)
        report_collection(result, self._block)
        log = get_run_logger()
        if not result.too_many_failed:  # Otherwise the error of the run has the reasons.
            for text in result.failures():
                log.warning("failed: %s", text)
        nothing = nothing_to_embed(result.comparison)
        if nothing is not None:
            log.info("collection %s: %s", collection.id, nothing)
        if collection.catalogue.undated:
            log.info(undated_text(collection.catalogue, "since and until"))
        log.info(
            "collection %s is %s%s",
            collection.id,
            state_text(collection.state, collection.catalogue.vectors),
            f"; search it: {search}" if search else "",
        )


def _publish_collection(result: CollectionResult, search: str | None, block: str | None) -> None:
    """Create two artifacts: a description of the collection for people, and a table with its catalogue for programs."""
    collection = result.collection
    catalogue, store, layout = collection.catalogue, collection.store, collection.layout
    state = state_text(collection.state, catalogue.vectors)
    grid, model = collection.configuration.grid, collection.configuration.model
    scenes = counts_text(catalogue.count, catalogue.counts())
    whole = {
        "scenes": result.listing.address,
        "catalogue": store.uri(layout.catalogue),
        **({"table": store.uri(layout.table)} if collection.table is not None else {}),
        "fingerprint": collection.configuration.fingerprint,
        **search_line(search, block),
    }
    lines = "\n".join(f"{name}: {escape_terminal(value)}" for name, value in whole.items())
    create_markdown_artifact(
        key=artifact_key("collection", collection.id),
        description=f"Collection {escape_markdown(collection.id)} is {state}; scenes: {scenes}",
        markdown=f"""# {escape_markdown(collection.id)}: {state}

| | |
|---|---|
| scenes | {scenes} |
| this run | {work_text(result.comparison) or "no scene to embed"} |
| from | {markdown_code(shortened(result.listing.address))} |
| vectors | {catalogue.vectors:,} of {model.dimensions} dimensions |
| grid | {escape_markdown(grid.describe())} |
| model | {escape_markdown(shortened(model.name))} |

```
{lines}
```
""",
    )
    create_table_artifact(
        key=artifact_key("catalogue", collection.id),
        description=f"Catalogue of collection {escape_markdown(collection.id)}",
        table=[{"catalogue": store.uri(layout.catalogue)}],
    )


def _publish_scenes(result: CollectionResult, rows: Sequence[SceneRow]) -> None:
    """Create a table artifact: the scenes of this run, and those that failed before, with state and reason.

    Args:
        result: result of the run.
        rows: rows of the scenes that this run worked on.
    """
    worked = {row.id for row in rows}
    wanted = [SceneState.FAILED, SceneState.FAILED_QA]
    troubled = list(result.collection.catalogue.filter(states=wanted).rows())
    others = [row for row in rows if row.state not in wanted]
    chosen = [*troubled, *others]

    def reason(row: SceneRow) -> str:
        return in_a_new_collection(row.reason or "", fixed=result.settings_fixed)

    table = [
        {
            "scene": escape_terminal(shortened(row.source)),
            "state": row.state.value,
            "rows": row.rows,
            "this run": "yes" if row.id in worked else "no",
            "reason": escape_terminal(cut(reason(row), REASON_LETTERS)),
        }
        for row in chosen[:_TABLE_ROWS]
    ]
    more = len(chosen) - _TABLE_ROWS
    left = f"; {more:,} more {agreeing(more, 'is', 'are')} in the catalogue" if more > 0 else ""
    rest = f"{counted(len(others), 'other')} {agreeing(len(others), 'was', 'were')} embedded{left}"
    create_table_artifact(
        table,
        key=artifact_key("collection-scenes", result.collection.id),
        description=f"Collection {escape_markdown(result.collection.id)}: {counted(len(troubled), 'scene')} failed or "
        f"did not pass quality checks, {rest}",
    )
