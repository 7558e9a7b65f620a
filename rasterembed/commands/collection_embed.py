"""`rasterembed collection embed`: embed all scenes of a folder, a list or a STAC document as a collection."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Annotated

from pydantic import Field

from rasterembed.collection.collection import settings_for
from rasterembed.collection.stac_search import parse_search
from rasterembed.collection_pipeline import CollectionOptions, CollectionResult, TooManyFailedError, embed_collection
from rasterembed.command_line.command_app import command_app
from rasterembed.command_line.command_store import open_command_store
from rasterembed.commands.collection_embed_summary import summary
from rasterembed.commands.collection_steps import TerminalCollectionSteps
from rasterembed.dataset.embedding import Execution
from rasterembed.dataset.plan import PlanSettings
from rasterembed.dataset.selection import Selection
from rasterembed.errors import DataError
from rasterembed.escape import escape_lines
from rasterembed.model.choice import Dinov3
from rasterembed.qa.collection_thresholds import CollectionThresholds
from rasterembed.qa.thresholds import QaThresholds
from rasterembed.raster.grid import Grid
from rasterembed.raster.radiometry import Radiometry
from rasterembed.raster.scene import split_assets
from rasterembed.raster.validity import Validity
from rasterembed.search.index_options import TableIndexOptions
from rasterembed.search.next_search import collection_search_command
from rasterembed.store.layout import check_collection_id


def embed(
    scenes: str,
    collection: str,
    root: str | None = None,
    search: str | None = None,
    assets: str | None = None,
    grid: Grid = Grid(),
    radiometry: Radiometry = Radiometry(),
    validity: Validity = Validity(),
    dinov3: Dinov3 = Dinov3(),
    selection: Selection = Selection(),
    execution: Execution = Execution(),
    qa: QaThresholds = QaThresholds(),
    collection_thresholds: CollectionThresholds = CollectionThresholds(),
    max_failed_fraction: Annotated[float, Field(ge=0.0, le=1.0)] = 0.1,
    prune: bool = False,
    table: bool = True,
    vector_index: TableIndexOptions = TableIndexOptions(),
) -> str:
    """Embed all scenes that are new or changed, or that failed before. Unchanged scenes are not read.

    An existing collection gives its own settings, so leave them out. Other settings are refused.

    Args:
        scenes: A folder or s3://bucket/prefix/, a pattern such as 2026/**/*.tif, a list of paths (.txt), a STAC
            document (.json, .geojson), a stac-geoparquet file (.parquet), the URL of a STAC API, or one raster.
        collection: Name of the collection. A collection that does not exist is made.
        root: Folder or s3://bucket/prefix for the collection. By default the folder rasterembed-store.
        search: Search of a STAC API as JSON: '{"collections": ["sentinel-2-l2a"], "datetime": "2026-06/2026-08"}'.
        assets: Keys or common names of a STAC Item's assets, as red,green,blue. By default those of the run that made
            the collection, or else the asset visual, else red, green and blue, else the only data asset.
        grid: The tile grid.
        radiometry: How pixel values become colour.
        validity: Which pixels are valid, if the files do not say this or say it wrongly.
        dinov3: The model.
        selection: Which tiles are embedded, and how their vectors are stored.
        execution: Settings for speed and memory. They change the vectors only by rounding.
        qa: Bounds that each scene must keep to become ready.
        collection_thresholds: Bounds for the collection as a whole. A breach is shown, and fails no run.
        max_failed_fraction: Largest share of failed scenes with which the run succeeds. The other scenes are embedded
            in any case.
        prune: Delete the datasets of scenes that are gone.
        table: Write the table with the vectors of all ready scenes. Searches of the collection need it.
        vector_index: Whether a vector index of the table is built.
    """
    check_collection_id(collection)
    store = open_command_store(root)
    wanted = parse_search(search)
    settings = PlanSettings(grid=grid, radiometry=radiometry, validity=validity, model=dinov3, selection=selection)
    options = CollectionOptions(
        settings=settings if _has_typed(settings) else settings_for(store, collection, settings),
        assets=split_assets(assets),
        search=wanted,
        execution=execution,
        qa=qa,
        collection_qa=collection_thresholds,
        max_failed_fraction=max_failed_fraction,
        table=table,
        vector_index=vector_index,
        prune=prune,
    )
    with ExitStack() as stack:
        steps = TerminalCollectionSteps(stack)
        try:
            result = embed_collection(store, collection, scenes, options, steps=steps)
        except TooManyFailedError as error:
            # The other scenes are embedded, and a person wants to know what became of them. The reasons are there too.
            if steps.result is not None:
                stack.close()
                print(escape_lines(_told(steps.result)))
            raise DataError(error.counted) from error
    return _told(result)


def _has_typed(settings: PlanSettings) -> bool:
    """Return whether a person typed a setting. The typed value may be a default that the collection does not have."""
    return any(getattr(settings, group).model_fields_set - {"device"} for group in PlanSettings.model_fields)


def _told(result: CollectionResult) -> str:
    return summary(result, collection_search_command(result.collection))


app = command_app("embed", embed)
