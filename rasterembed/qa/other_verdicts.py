"""Find the scenes of a collection whose verdict changes with the bounds of a run."""

from __future__ import annotations

from collections.abc import Iterator

from rasterembed.collection.catalogue import Catalogue
from rasterembed.collection.scene_row import SceneState
from rasterembed.dataset.dataset import Dataset
from rasterembed.dataset.manifest import ALL_STATES
from rasterembed.dataset.vector_summary import summarise_shard
from rasterembed.errors import DataError, StoreUnavailableError, UsageError
from rasterembed.qa.thresholds import QaThresholds
from rasterembed.qa.verdict import judge_vectors
from rasterembed.store.dataset_owner import collection_of
from rasterembed.store.object_store import ObjectStore


def find_other_verdicts(
    store: ObjectStore, collection_id: str, catalogue: Catalogue, thresholds: QaThresholds
) -> Iterator[str]:
    """Yield the addresses of the scenes that did not pass their quality checks, and get another verdict now.

    The shards of these scenes are read. A scene with a report of the full checks keeps its verdict, because a run does
    not repeat these checks. A scene whose dataset is lost or damaged keeps its verdict too.

    Args:
        store: store of the collection.
        collection_id: name of the collection. Datasets that joined it keep their verdicts.
        catalogue: catalogue of the collection.
        thresholds: bounds that each scene must keep. With the defaults, no scene is looked at.

    Raises:
        StoreUnavailableError: if the store does not answer.
    """
    if thresholds == QaThresholds():
        return
    for row in catalogue.filter(states=(SceneState.FAILED_QA,)).rows():
        if collection_of(row.id) != collection_id:
            continue
        try:
            dataset = Dataset.open(store, row.id, ALL_STATES)
            if store.read(dataset.plan.layout.qa_report, 1) is not None:
                continue
            summaries = [
                summarise_shard(store, dataset.plan, shard.path, thresholds.sample_rows)
                for shard in dataset.manifest.shards
            ]
        except StoreUnavailableError:
            raise
        except (DataError, UsageError):
            continue
        if judge_vectors(dataset.plan.sharding.tile_count, summaries, thresholds).reason != row.reason:
            yield row.source
